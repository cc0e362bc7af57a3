"""docs/evidence.md is what the JSON files in docs/evidence give, and those are complete.

python -m tests.test_evidence    # writes the page
"""

from __future__ import annotations

import json
import platform
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.mutants.catalogue import MUTANTS
from tests.release import is_release, published, refusals
from tests.support import evidence, proof

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = "python -m tests.proofs.kills --json kills.json"
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)

_TABLE: dict[str, list[Any]] = {
    "columns": ["bug", "seconds"],
    "rows": [["no overlap | at all", 3.14159], ["ties", 2.0]],
}


def test_the_page_is_what_the_figures_give() -> None:
    assert evidence.PAGE.read_text(encoding="utf-8") == evidence.page(evidence.load()), "python -m tests.test_evidence"


def test_a_section_shows_the_command_the_surroundings_and_each_figure(tmp_path: Path) -> None:
    evidence.save(
        tmp_path / "some.json", module="tests.proofs.some", title="Some", text="What was done.\n",
        passed=True, seeds=[7, 8], counts={"planted": 1234}, table=_TABLE,
    )  # fmt: skip
    figures = evidence.load(tmp_path)
    page = evidence.page(figures)
    for line in (
        "## Some", "What was done.", "| planted | 1,234 |", "| bug | seconds |", "| --- | --: |",
        "| no overlap \\| at all | 3.1 |", "| ties | 2.0 |",
    ):  # fmt: skip
        assert line in page.splitlines()
    assert "python -m tests.proofs.some" in page
    assert f"commit {figures['some']['commit']}" in page
    assert "seed 7, 8; " in page
    assert "| [Some](#some) | 1,234 planted | passed |" in page
    figures["some"]["counts"]["planted"] = 5
    assert evidence.page(figures) != page
    assert "## Some" not in evidence.page({})


def test_figures_have_what_repeats_them_and_no_name_of_a_host_or_folder() -> None:
    for name, figures in evidence.load().items():
        assert figures["command"].startswith(f"python -m tests.proofs.{name}")
        assert {"at", "commit", "machine", "versions", "seeds", "seconds", "table", "text"} <= figures.keys()
        assert figures["outcome"] == evidence.PASSED
        assert figures["counts"]
        assert all(isinstance(value, int | float) for value in figures["counts"].values())
        text = json.dumps(figures)
        assert not re.search(r"/(home|root|tmp|Users|var|work)/", text)
        assert not re.search(rf"\b{re.escape(platform.node() or 'unnamed')}\b", text)


def test_the_table_of_planted_bugs_has_each_mutant_and_all_are_found() -> None:
    table = evidence.load()["mutants"]["table"]
    rows = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}
    assert list(rows) == [each.name for each in MUTANTS], (
        "python -m tests.proofs.mutants --nearest --json docs/evidence/mutants.json && python -m tests.test_evidence"
    )
    assert [name for name, row in rows.items() if not row["found by"]] == []
    assert {name: row["promise"] for name, row in rows.items()} == {each.name: each.promises for each in MUTANTS}


def test_each_proof_saves_its_figures_and_no_others_are_shown() -> None:
    for name in evidence.commands():
        source = (evidence.PROOFS / f"{name}.py").read_text(encoding="utf-8")
        assert f'Proof("tests.proofs.{name}", __doc__, title=' in source
        assert "proof.end(" in source
    assert evidence.load().keys() <= {*evidence.commands()}


def test_a_proof_that_fails_or_aborts_leaves_no_figures_that_read_as_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some.json"
    path.write_text('{"outcome": "passed"}')
    monkeypatch.setattr(sys, "argv", ["some", "--json", str(path)])
    some = proof.Proof("tests.proofs.some", "Proof: it works.\n\n    python -m tests\n\nMore.\n", title="Some")
    some.options()
    assert not path.exists()  # and so it stays where it aborts
    assert some.end(passed=False, seeds=[1], counts={"rows": 1}) == 1
    assert evidence.read(path)["outcome"] == evidence.FAILED
    assert "| [Some](#some) | 1 rows | failed |" in evidence.page(evidence.load(tmp_path))
    assert some.end(passed=True, seeds=[1], counts={"rows": 1, "kills": 2}) == 0
    figures = evidence.read(path)
    assert (figures["outcome"], figures["text"], figures["seeds"]) == ("passed", "It works.\n\nMore.", [1])
    assert proof.add_up([path, path, tmp_path / "none.json"]) == {"rows": 2, "kills": 4}


@pytest.mark.parametrize(
    ("slow", "missed", "text"),
    [
        (0, 0, "Of\n56 it is 0: there is none."),
        (1, 1, "it is 2: there is none."),
        (2, 1, "it is 3: it has to be built."),
    ],
)
def test_a_simulator_is_to_be_built_once_three_planted_bugs_are_found_by_a_slow_proof_only_or_by_nothing(
    slow: int, missed: int, text: str
) -> None:
    figures = evidence.load()["mutants"]
    counts = {"planted": 56, "found": 56 - missed, "found by a proof's slice only": slow}
    assert text in evidence.page({"mutants": figures | {"counts": counts}})


def test_no_simulator_has_to_be_built() -> None:
    assert evidence.hidden(evidence.load()["mutants"]) < 3


@pytest.mark.parametrize(
    ("tags", "changelog", "before", "expected"),
    [
        ([], "# Changelog\n\n## 0.1.0 (unreleased)\n", "", False),
        (["v0.1.0"], "## 0.1.0 (unreleased)\n", "## 0.1.0 (unreleased)\n", True),
        (["before-merge", "vendor"], "## 0.1.0 (unreleased)\n", "", False),
        ([], "## 0.1.0 (2026-12-01)\n", "## 0.1.0 (unreleased)\n", True),
        ([], "## 0.1.0 (2026-12-01)\n\n- a word\n", "## 0.1.0 (2026-12-01)\n", False),  # a commit after it
        ([], "## Unreleased\n\n## 0.1.0 (2026-12-01)\n", "## 0.1.0 (2026-12-01)\n", False),
        ([], "## 0.1.0 (2026-12-01)\n", "", True),  # a clone without the parent
    ],
)
def test_a_release_has_a_tag_or_a_new_heading(tags: list[str], changelog: str, before: str, expected: bool) -> None:
    assert is_release(tags, changelog, before) is expected


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({}, ""),
        ({"at": "2026-11-01T12:00:00+00:00"}, ""),
        ({"at": "2026-11-01T11:59:59+00:00"}, "its figures are 30 days old, at most 30 may be"),
        ({"at": "2026-10-02T00:00:00+00:00"}, "its figures are 60 days old"),
        ({"outcome": "failed"}, "its outcome is 'failed'"),
        ({"is_modified": True}, "it ran with changes that commit abc does not have"),
        ({"command": f"{COMMAND} --kills 1"}, "it ran as `python -m tests.proofs.kills --json kills.json --kills 1`"),
    ],
)
def test_a_release_needs_figures_of_the_last_30_days_that_passed_on_a_commit(
    change: dict[str, Any], refused: str
) -> None:
    figures = {
        "outcome": "passed", "is_modified": False, "commit": "abc", "at": "2026-12-01T00:00:00+00:00",
        "command": COMMAND,
    }  # fmt: skip
    found = refusals({"kills": COMMAND}, {"kills": figures | change}, NOW)
    assert len(found) == bool(refused)
    assert refused in "".join(found)


def test_a_release_needs_figures_of_each_proof() -> None:
    (refusal,) = refusals({"kills": COMMAND}, {}, NOW)
    assert refusal.startswith("kills: it has no figures.")
    assert COMMAND in refusal


def test_each_proof_has_a_published_command() -> None:
    commands = published()
    assert sorted(commands) == evidence.commands()
    assert commands["soak"] == "python -m tests.proofs.soak --json docs/evidence/soak.json"


def main() -> None:
    """Write the page."""
    evidence.PAGE.write_text(evidence.page(evidence.load()), encoding="utf-8")


if __name__ == "__main__":
    main()
