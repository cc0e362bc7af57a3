"""The index of the raw archive: where each page is, and what is restored from the files where control.db was lost."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from pdsync.core.control import ONLY_ARCHIVED, Control, SealedPage

from .kit import NOW, open_walk, page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def restored(tmp_path: Path) -> Iterator[Control]:
    """Another control.db, which knows nothing."""
    control = Control(tmp_path / "restored.db")
    yield control
    control.close()


def sealed(control: Control, *, run: str = "run") -> list[SealedPage]:
    """The three pages of a new walk."""
    walk = open_walk(control, run=run)
    control.record_pages([page(walk, seq, str(seq) if seq < 2 else None) for seq in range(3)])
    return control.sealed_pages(walk.id)


def test_the_index_lists_every_page_and_walk(control: Control) -> None:
    assert (control.pages(), control.walks(), control.newest_time(), control.indexed_sizes()) == ([], [], None, {})
    pages = sealed(control) + sealed(control)
    assert control.pages() == pages
    assert [(walk.id, state) for walk, state in control.walks()] == [
        (pages[0].walk, "sealed"),
        (pages[3].walk, "sealed"),
    ]
    assert control.newest_time() == NOW + timedelta(seconds=2)
    assert control.indexed_sizes() == {"run.zst": 290}


def test_pages_of_a_rewritten_file_are_found_at_their_new_positions(control: Control) -> None:
    first, second, third = sealed(control)
    other = sealed(control)
    moved = [msgspec.structs.replace(first, file="run.1.zst", at=7, length=5, rows=1, sha256=b"new")]
    control.replace_pages(moved, [(second.walk, 1)], [(first.walk, 0, "run-9", "forget 42")])
    assert control.pages() == [moved[0], third, *other]
    assert control.resealed() == {(first.walk, 0)}
    assert control.indexed_sizes() == {"run.1.zst": 12, "run.zst": 290}


def test_s1_an_index_that_can_not_be_changed_as_a_whole_is_unchanged(control: Control) -> None:
    first, *_ = pages = sealed(control)
    moved = [msgspec.structs.replace(first, file="run.1.zst")]
    with pytest.raises(Exception, match="binding"):
        control.replace_pages(moved, [(first.walk, 1)], [(first.walk, 0, "too few")])  # type: ignore[list-item]
    assert control.pages() == pages


def test_s14_a_lost_state_is_restored_from_what_the_files_tell(control: Control, restored: Control) -> None:
    control.start_run("run", "sync", NOW)
    pages = sealed(control)
    for _ in range(2):  # the second time changes nothing
        restored.restore_from_archive([("run", NOW)], control.walks(), control.pages(), {"run.zst": 290, "other": 5})
        assert restored.walks() == control.walks()
        assert restored.pages() == pages
        assert restored.indexed_sizes() == {"run.zst": 290, "other": 5}
        assert [(each.run_id, each.command) for each in restored.receipts(9)] == [("run", ONLY_ARCHIVED)]


def test_s14_an_older_state_keeps_what_it_knows_and_gets_what_it_lacks(control: Control) -> None:
    control.start_run("run", "sync", NOW)
    walk = open_walk(control)
    control.record_pages([page(walk, 0, "a")])
    known = control.walk(walk.id)
    later = msgspec.structs.replace(known, started_at=NOW + timedelta(hours=1))
    added = msgspec.structs.replace(known, id=walk.id + 1, run_id="next", started_at=None)
    moved = msgspec.structs.replace(control.pages()[0], file="run.1.zst")
    news = [moved, msgspec.structs.replace(moved, seq=1, next=None), msgspec.structs.replace(moved, walk=added.id)]
    control.restore_from_archive(
        [("run", NOW), ("next", NOW + timedelta(hours=1))], [(later, "sealed"), (added, "open")], news, {}
    )
    assert control.walks() == [(known, "sealed"), (added, "open")]
    assert control.pages() == news
    assert [(each.run_id, each.command) for each in control.receipts(9)] == [("next", ONLY_ARCHIVED), ("run", "sync")]
