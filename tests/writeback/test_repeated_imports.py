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


def test_single_changes_that_wait_in_the_queue_are_left_out_and_each_stands_for_one(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    assert repeated_imports.split_waiting(outbox, rows("A")) == (rows("A"), [])
    first, *_, last = outbox.add([*rows("A", "B"), *rows("A")])
    bring_to(outbox, "applied", outbox.add(rows("A"))[0])
    kept, waiting = repeated_imports.split_waiting(outbox, [*rows("A", "C"), *rows("A"), *rows("A")])
    assert [each.id for each in waiting] == [first.id, last.id]
    assert kept == [rows("A", "C")[1], *rows("A")]
    assert repeated_imports.split_waiting(outbox, rows("A", key="k")) == (rows("A", key="k"), [])


def test_a_row_that_refers_to_one_left_out_refers_to_its_mutation(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.add([entry("v2 addOrganization", {"name": "Acme"})])
    person, note = outbox.add(family("Eve"))
    eve, met = family("Eve")
    kept, waiting = repeated_imports.split_waiting(
        outbox, [eve, met, entry("v1 addNote", {"person_id": met.payload["person_id"]})]
    )
    assert [each.id for each in waiting] == [person.id, note.id]
    assert outbox.add(kept)[0].payload == {"person_id": {"$ref": person.id}}


def test_what_became_of_them_is_said_in_words(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    queued = outbox.add(rows("A", "B", "C"))
    bring_to(outbox, "needs_review", queued[0])
    batch = outbox.batches_of(3)[0]
    text = repeated_imports.describe(batch)
    assert text.endswith(" UTC as #1 to #3 (2 still in the queue, 1 needs review)")
    assert repeated_imports.describe(batch[1:2]).endswith(" UTC as #2 (1 still in the queue)")


def test_all_of_a_file_is_refused_and_of_a_part_the_rest_is_queued(tmp_path: Path) -> None:
    outbox, notes = open_outbox(tmp_path), list[str]()

    def left(entries: list[Entry]) -> list[Entry]:
        return repeated_imports.leave_out_repeated(outbox, entries, "a.csv", notes.append)

    assert left(rows("A", "B")) == rows("A", "B")
    outbox.add(rows("A", "B", "C", "D", "E"))
    for repeated in (rows("A", "B", "C", "D", "E"), rows("A", "B")):
        with pytest.raises(ConfigError, match=r"(?s)What a\.csv changes was queued before, .* as #1 to #\d .*--again"):
            left(repeated)
    assert not notes
    assert left(rows("A", "B", "X", "D")) == rows("A", "B", "X")[2:]
    assert len(notes) == 1
    assert notes[0].startswith("3 of 4 changes of a.csv left out: in the queue already as #1 to #2, #4.")
    assert "--again" in notes[0]


def test_w5_what_another_change_of_its_record_comes_after_is_queued_again(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    one, other = rows("A")[0], rows("B")[0]
    outbox.add([one])
    kept, waiting = repeated_imports.split_waiting(outbox, [other, one])
    assert (kept, waiting) == ([other, one], [])
    outbox.add([other])
    kept, waiting = repeated_imports.split_waiting(outbox, [one])
    assert (kept, waiting) == ([one], [])
    kept, waiting = repeated_imports.split_waiting(outbox, [other])
    assert (kept, [each.seq for each in waiting]) == ([], [2])
