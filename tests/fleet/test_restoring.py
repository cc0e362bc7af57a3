"""A folder and the store that have both changed: what only one side has stays, and what was removed stays removed."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pdsync.core.control import Lock
from pdsync.errors import ConfigError, ProjectLocked, StorageError
from pdsync.fleet import contents, pointer
from pdsync.fleet.mirror import mirrored
from pdsync.fleet.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.fleet.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


class Worker:
    """A disk with the account's folder, whose control.db has a table of pages, as a project's has."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder, self.data, self.notes = store, folder, folder / "data", list[str]()

    def run(self, **changes: bytes | None) -> Worker:
        """A command that writes these files, by the names of `PATHS`; None removes one."""
        with mirrored(self.store, "acme", self.folder, owner="worker", on_note=self.notes.append):
            self.change(**changes)
        return self

    def change(self, **changes: bytes | None) -> Worker:
        """What a command writes that no publication follows."""
        for name, content in changes.items():
            path = self.folder / PATHS[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content)
        return self

    def index(self, *names: str, run: str = "") -> Worker:
        """Let control.db have pages of these raw files, and no others; and a run."""
        with closing(sqlite3.connect(self.data / "control.db")) as control:
            control.execute("PRAGMA journal_mode = wal")
            control.execute("CREATE TABLE IF NOT EXISTS pages (file TEXT, at INTEGER, bytes INTEGER)")
            control.execute("CREATE TABLE IF NOT EXISTS runs (id TEXT)")
            control.execute("DELETE FROM pages")
            control.executemany("INSERT INTO pages VALUES (?, 0, 3)", [(f"{name}.zst",) for name in names])
            control.execute("INSERT INTO runs VALUES (?)", [run])
            control.commit()
        return self

    def runs(self, name: str = "control.db") -> list[str]:
        with closing(sqlite3.connect(self.data / name)) as control:
            return [row[0] for row in control.execute("SELECT id FROM runs")]

    def files(self) -> dict[str, bytes]:
        return {
            name: (self.folder / path).read_bytes() for name, path in PATHS.items() if (self.folder / path).exists()
        }


PATHS = {
    "one": "data/raw/one.zst",
    "two": "data/raw/two.zst",
    "journal": "data/raw/outbox/2026-11.ndjson",
    "warehouse": "data/warehouse.duckdb",
    "view": "views/own.sql",
    "toml": "pdsync.toml",
}
NIGHT = {"one": b"one", "journal": b"1\n2\n", "warehouse": b"first", "view": b"SELECT 1"}


@pytest.fixture
def first(store: Store, tmp_path: Path) -> Worker:
    """A worker after a night."""
    worker = Worker(store, tmp_path / "first" / "acme")
    worker.data.mkdir(parents=True)
    return worker.index("one", run="first").run(**NIGHT)


@pytest.fixture
def second(store: Store, tmp_path: Path, first: Worker) -> Worker:
    """Another one, after the next night."""
    worker = Worker(store, tmp_path / "second" / "acme").run()
    assert worker.files() == NIGHT
    return worker.index("one", "two", run="second").run(two=b"two", journal=b"1\n2\n3\n", warehouse=b"second")


def test_a_worker_takes_what_another_one_has_done_since(first: Worker, second: Worker) -> None:
    first.run()
    assert first.files() == second.files() == {**NIGHT, "two": b"two", "journal": b"1\n2\n3\n", "warehouse": b"second"}
    assert first.runs() == second.runs() == ["first", "second"]
    assert first.notes == []
    assert not list(first.data.glob("*-wal")), "what was beside the old control.db is gone with it"


def test_what_a_worker_that_was_cut_off_has_besides_stays(first: Worker, second: Worker, store: Store) -> None:
    cut = b"1\n2\nmine\ntorn"
    (first.data / "raw" / "mine.zst").write_bytes(b"mine")
    first.index("one", "mine", run="cut").change(journal=cut, warehouse=b"cut")
    first.run()
    assert first.files() == {**second.files(), "journal": b"1\n2\n3\nmine\n"}
    assert (first.data / "raw" / "mine.zst").read_bytes() == b"mine"
    assert first.runs() == ["first", "second"]
    (aside,) = first.data.glob("control.db.apart-*")
    assert first.runs(aside.name) == ["first", "cut"]
    assert [aside.name in note for note in first.notes] == [True]
    second.run()
    assert second.files() == first.files(), "and is in the store then"


def test_a_folder_that_is_ahead_of_the_store_goes_on(first: Worker) -> None:
    """As after a worker that was killed before it published, whose disk is whole."""
    first.index("one", "two", run="cut").change(
        one=b"one, and more", two=b"two", warehouse=b"cut", journal=b"1\n2\n3\n"
    )
    ahead = first.files()
    first.run()
    assert first.files() == ahead
    assert first.runs() == ["first", "cut"]
    assert first.notes == []


def test_what_one_worker_removes_the_others_remove_too(first: Worker, second: Worker) -> None:
    second.index("two", run="pruned").run(one=None, view=None)
    first.run()
    assert {"one", "view"}.isdisjoint(first.files())
    second.run(journal=b"2\n")  # a person was forgotten
    first.run()
    assert first.files()["journal"] == b"2\n"


def test_a_removal_that_was_not_published_is_not_undone(first: Worker) -> None:
    first.index("two", run="pruned").change(one=None, two=b"two", view=None)
    first.run()
    assert {"one", "view"}.isdisjoint(first.files())


def test_what_was_lost_comes_back(first: Worker) -> None:
    first.change(one=None, journal=None, warehouse=None)
    first.run()
    assert first.files() == NIGHT
    first.change(one=b"", warehouse=b"")
    contents.remove_database(first.data / "control.db")
    first.run()
    assert first.files()["one"] == b"one"
    assert first.runs() == ["first"]


def test_what_a_person_edits_stays(first: Worker, second: Worker) -> None:
    second.run(view=b"SELECT 2")
    first.run()
    assert first.files()["view"] == b"SELECT 2"
    first.change(view=b"SELECT 3")
    second.run(view=b"SELECT 4")
    first.run()
    assert first.files()["view"] == b"SELECT 3"
    second.run()
    assert second.files()["view"] == b"SELECT 3"


def test_an_account_that_was_removed_from_the_store_is_published_again(first: Worker, store: Store) -> None:
    from pdsync.fleet import lease  # noqa: PLC0415

    store.create("acmetwo/current.json", b"{}")
    store.create("rollup/catalog/acmetwo.json", b"{}")
    with lease.acquire(store, "acme", owner="remover") as held:
        removed = pointer.remove(store, "acme", held)
    assert removed == 7
    assert {entry.key for entry in store.list("")} == {"acmetwo/current.json", "rollup/catalog/acmetwo.json"}
    assert pointer.accounts(store) == ["acmetwo"]
    assert pointer.published(store, "acme") is None
    first.run()
    assert first.files() == NIGHT, "nothing was removed here"
    assert pointer.accounts(store) == ["acme", "acmetwo"]


@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_a_damaged_object_is_named_and_changes_nothing(store: Store, tmp_path: Path, first: Worker, harm: str) -> None:
    current = pointer.read(store, "acme")
    assert current is not None
    object = tmp_path / "store" / "acme" / current[0].files[PATHS["one"]].parts[0].key
    object.unlink() if harm == "missing" else object.write_bytes(b"two")
    other = Worker(store, tmp_path / "other" / "acme").change(view=b"SELECT 9")
    with pytest.raises(StorageError, match=rf"one.zst@0 is {harm}"):
        other.run()
    assert "one" not in other.files()
    assert other.files()["view"] == b"SELECT 9"
    first.run()  # whose disk has it


@pytest.mark.parametrize(
    "path", ["../x.zst", "/etc/passwd", "data/credentials.json", "data/raw/../../x.zst", "data/.a"]
)
def test_a_pointer_writes_no_other_file(store: Store, tmp_path: Path, first: Worker, path: str) -> None:
    file = tmp_path / "store" / "acme" / "current.json"
    file.write_bytes(file.read_bytes().replace(b"data/raw/one.zst", path.encode()))
    with pytest.raises(StorageError, match="which no account has"):
        Worker(store, tmp_path / "other" / "acme").run()
    assert not (tmp_path / "other" / "acme" / "pdsync.toml").exists()


def test_x8_an_object_that_is_longer_than_its_pointer_says_ends_the_download(
    store: Store, tmp_path: Path, first: Worker
) -> None:
    current = pointer.read(store, "acme")
    assert current is not None
    object = tmp_path / "store" / "acme" / current[0].files[PATHS["one"]].parts[0].key
    object.unlink()
    object.symlink_to("/dev/zero")
    with pytest.raises(StorageError, match=r"one\.zst@0 is damaged"):
        Worker(store, tmp_path / "other" / "acme").run()


def test_x7_a_pointer_that_names_an_object_of_another_account_is_refused(
    store: Store, tmp_path: Path, first: Worker
) -> None:
    file = tmp_path / "store" / "acme" / "current.json"
    current = pointer.read(store, "acme")
    assert current is not None
    key = current[0].files[PATHS["one"]].parts[0].key
    file.write_bytes(file.read_bytes().replace(key.encode(), b"../bolt/" + key.encode()))
    with pytest.raises(StorageError, match="no key of an object"):
        Worker(store, tmp_path / "other" / "acme").run()


@pytest.mark.parametrize("link", ["views", "data/raw", "data/files/7", "data"])
def test_x7_no_file_of_this_machine_gets_into_the_store_by_a_link(store: Store, tmp_path: Path, link: str) -> None:
    private = tmp_path / "private"
    private.mkdir()
    for name in ("secret.sql", "secret.zst"):
        (private / name).write_bytes(b"secret")
    worker = Worker(store, tmp_path / "here" / "acme")
    (worker.folder / link).parent.mkdir(parents=True)
    (worker.folder / link).symlink_to(private)
    with pytest.raises(ConfigError, match=rf"{link} is a symbolic link"):
        worker.run()
    assert list(store.list("")) == []
    assert sorted(path.name for path in private.iterdir()) == ["secret.sql", "secret.zst"]


def test_a_folder_in_which_a_command_runs_is_left_alone(first: Worker, second: Worker) -> None:
    with Lock(first.data / "pdsync.lock"), pytest.raises(ProjectLocked):
        first.run()
    assert first.files() == NIGHT


def test_an_account_whose_data_is_elsewhere_is_refused(first: Worker) -> None:
    with pytest.raises(ConfigError, match=r"warehouse\.path"):
        first.change(toml=b'[warehouse]\npath = "elsewhere.duckdb"\n').run()


def test_a_retired_warehouse_stays_for_an_hour(first: Worker, store: Store, tmp_path: Path) -> None:
    before = pointer.published(store, "acme")
    assert before is not None
    first.run(warehouse=b"second")
    first.run(warehouse=b"third")
    after = pointer.published(store, "acme")
    assert after is not None
    assert b"".join(store.download(before.key)) == b"first", "a reader may have it open"
    assert b"".join(store.download(after.key)) == b"third"
    for entry in list(store.list("acme")):
        if entry.key != after.key:
            os.utime(tmp_path / "store" / entry.key, (0, 0))
    first.run(warehouse=b"fourth")
    keys = [entry.key for entry in store.list("acme") if entry.key.endswith("/warehouse.duckdb")]
    left = [b"".join(store.download(key)) for key in sorted(keys)]
    assert left == [b"second", b"third", b"fourth"], "the first one was replaced long ago"
