"""A file that was queued before is recognised, and one that had no effect, or other values, is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.errors import ConfigError
from pdsync.writeback import adoption, repeated_imports
from pdsync.writeback.outbox import Entry, Reference
from tests.writeback.kit import bring_to, entry, open_outbox

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.model import State


def rows(*titles: str, **options: Any) -> list[Entry]:
    return [entry(payload={"id": 12 + n, "title": each}, **options) for n, each in enumerate(titles)]


def family(person: str) -> list[Entry]:
    """A person, and a note about the person, who does not exist yet."""
    note = {"content": "Met", "person_id": Reference("eve"), "org_id": Reference("#1")}
    return [entry("v2 addPerson", {"name": person}, name="eve"), entry("v1 addNote", note)]


def test_the_same_changes_are_recognised_and_others_are_not(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    assert repeated_imports.find_earlier(outbox, rows("A", "B")) == []
    queued = outbox.add(rows("A", "B"))
    assert repeated_imports.find_earlier(outbox, rows("A", "B")) == queued
    for other in (rows("A"), rows("A", "C"), rows("B", "A"), rows("A", "B", "C"), []):
        assert repeated_imports.find_earlier(outbox, other) == []


def test_the_newest_of_several_is_named(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.add(rows("A"))
    newest = outbox.add(rows("A"))
    assert repeated_imports.find_earlier(outbox, rows("A")) == newest


def test_references_count_by_what_they_refer_to(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.add([entry("v2 addOrganization", {"name": "Acme"})])
    queued = outbox.add(family("Eve"))
    assert repeated_imports.find_earlier(outbox, family("Eve")) == queued
    assert repeated_imports.find_earlier(outbox, family("Adam")) == []


def test_rows_with_keys_of_their_own_are_left_to_their_keys(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.add(rows("A", key="k"))
    assert repeated_imports.find_earlier(outbox, rows("A", key="k")) == []


@pytest.mark.parametrize(
    ("state", "is_repeated"),
    [("queued", True), ("unknown", True), ("applied", True), ("needs_review", True),
     ("cancelled", False), ("rejected", False), ("conflict", False)],
)  # fmt: skip
def test_only_what_may_have_an_effect_stands_against_a_second_time(
    tmp_path: Path, state: State, is_repeated: bool
) -> None:
    outbox = open_outbox(tmp_path)
    bring_to(outbox, state, outbox.add(rows("A"))[0])
    assert bool(repeated_imports.find_earlier(outbox, rows("A"))) is is_repeated


def test_a_file_is_recognised_after_control_db_was_lost(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.add([entry("v2 addOrganization", {"name": "Acme"})])
    outbox.add(family("Eve"))
    (tmp_path / "other").mkdir()
    restored = open_outbox(tmp_path / "other", journal=False)
    adoption.adopt(restored, [outbox.snapshot(each.id) for each in outbox.mutations()])
    assert len(repeated_imports.find_earlier(restored, family("Eve"))) == 2


def test_single_changes_that_wait_in_the_queue_are_found(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    assert repeated_imports.find_unsent(outbox, rows("A")) == []
    first, *_, last = outbox.add([*rows("A", "B"), *rows("A")])
    bring_to(outbox, "applied", outbox.add(rows("A"))[0])
    found = repeated_imports.find_unsent(outbox, [*rows("A", "C"), *rows("X", key="k")])
    assert [each.id for each in found] == [first.id, last.id]
    assert repeated_imports.find_unsent(outbox, rows("A", key="k")) == []


def test_what_became_of_them_is_said_in_words(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    queued = outbox.add(rows("A", "B", "C"))
    bring_to(outbox, "needs_review", queued[0])
    batch = outbox.batches_of(3)[0]
    text = repeated_imports.describe(batch)
    assert text.endswith(" UTC as #1 to #3 (2 still in the queue, 1 needs review)")
    assert repeated_imports.describe(batch[1:2]).endswith(" UTC as #2 (1 still in the queue)")


def test_all_of_a_file_is_refused_and_a_part_is_told(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    assert repeated_imports.check(outbox, rows("A", "B"), "a.csv") is None
    outbox.add(rows("A", "B"))
    with pytest.raises(ConfigError, match=r"(?s)What a\.csv changes was queued before, .* as #1 to #2 .*--again"):
        repeated_imports.check(outbox, rows("A", "B"), "a.csv")
    note = repeated_imports.check(outbox, rows("A", "C"), "a.csv")
    assert note is not None
    assert note.startswith("a.csv: changes that are in the queue already, 1 of them, the first as #1, are queued a sec")
