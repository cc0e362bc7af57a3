"""The accounts of a run as a table: it fits into a small terminal, and says what was tried again."""

from __future__ import annotations

import pytest

from pdsync.cli.fleet_job import FleetOutcome, account_rows
from pdsync.cli.layout import lay_out
from pdsync.cli.text_width import cell_width
from pdsync.fleet.job import AccountResult, Counts

COUNTS = Counts(requests=234, tokens=2_345, read=123_456, inserted=12_345, updated=6_789, deleted=123)


@pytest.mark.parametrize(
    ("complete", "attempts", "width", "words"),
    [(True, 1, 80, ["✓", "acme", "123,456"]), (False, 1, 80, ["✗", "acme", "failed", "123,456"]),
     (False, 2, 90, ["✗", "acme", "failed", "123,456"])],
)  # fmt: skip
def test_no_heading_of_the_table_is_shortened(complete: bool, attempts: int, width: int, words: list[str]) -> None:
    result = AccountResult(
        "acme", 0, complete, "complete" if complete else "failed", counts=COUNTS, seconds=120.5, attempts=attempts
    )
    header, line = lay_out(account_rows(FleetOutcome("r1", {"acme": result}, 120.5, 0), None), width)
    assert "…" not in header.text
    assert ("attempts" in header.text) is (attempts > 1)
    assert cell_width(line.text) <= width
    assert line.text.split()[: len(words)] == words


@pytest.mark.parametrize("changes", [Counts(updated=5_000), Counts(deleted=2), Counts(inserted=1, updated=1)])
def test_a_small_screen_shows_those_with_the_most_changes_of_any_kind(changes: Counts) -> None:
    results = {f"c{number:02}": AccountResult(f"c{number:02}", 0, True, "complete") for number in range(40)}
    results["few"] = AccountResult("few", 0, True, "complete", counts=Counts(inserted=1, read=9_000))
    results["most"] = AccountResult("most", 0, True, "complete", counts=changes)
    rows = account_rows(FleetOutcome("r1", results, 1.0, 0), 20).values
    assert [row[0] for row in rows[:2]] == ["✓ most", "✓ few"]
