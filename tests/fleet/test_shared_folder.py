"""A folder that many write to and empty at once loses nothing of what any of them writes."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pdsync.fleet import shared_folder
from pdsync.fleet.store import open_store

if TYPE_CHECKING:
    from pathlib import Path


def test_o1_emptying_a_folder_leaves_the_lock_and_the_file_that_another_is_writing(tmp_path: Path) -> None:
    store, folder = open_store(str(tmp_path)), tmp_path / "acme"
    assert store.create("acme/probe", b"1")
    part = folder / ".pointer.0123.part"
    part.touch()
    with shared_folder.locked(folder / "lease.json") as lock:
        store.remove(["acme/probe"])
        assert lock.exists()
        assert part.exists()
        assert not (folder / "probe").exists()


def test_a_folder_without_objects_is_removed_with_what_a_killed_writer_left(tmp_path: Path) -> None:
    store, folder = open_store(str(tmp_path)), tmp_path / "acme" / "0001"
    assert store.create("acme/0001/a", b"1")
    assert store.create("acme/0001/b", b"1")
    part = folder / ".c.0123.part"
    part.touch()
    os.utime(part, (0, 0))
    store.remove(["acme/0001/a"])
    assert [each.key for each in store.list("acme")] == ["acme/0001/b"]
    store.remove(["acme/0001/b", "acme/0001/none", "other/none"])
    assert list(tmp_path.iterdir()) == []


def test_o1_of_many_that_create_and_remove_at_once_one_wins_each_time(tmp_path: Path) -> None:
    store, won_by, rounds = open_store(str(tmp_path)), list[int](), 40

    def take(number: int) -> None:
        while len(won_by) < rounds:
            if store.create("acme/lease", str(number).encode()):
                won_by.append(number)
                stored = store.read("acme/lease")
                assert stored
                assert stored.data == str(number).encode()
                store.remove(["acme/lease"])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(take, range(6)))
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_removed_before_it_was_taken_is_not_taken_for_one(tmp_path: Path) -> None:
    target = tmp_path / "lease"
    with shared_folder.locked(target) as lock:
        lock.unlink()
        with shared_folder.locked(target) as again:  # it is another file
            assert again.exists()
