"""Where an export goes: which addresses are taken, and that a file there is whole or absent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core.log import clean
from pdsync.errors import ConfigError, StorageError
from pdsync.load.export_target import NOTED, note, noted, open_store

if TYPE_CHECKING:
    from pdsync.load.export_target import Store


@pytest.fixture(params=["folder", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A folder, and an object store that pyarrow keeps in memory."""
    if request.param == "folder":
        return open_store(str(tmp_path / "lake"), state=tmp_path / "state")
    made: Any = open_store("mock:///lake", state=tmp_path / "state")
    made._files.create_dir("lake/deals/_snapshot=1")  # a real object store needs no folders
    return made  # type: ignore[no-any-return]


def put(store: Store, content: bytes, path: str) -> None:
    with store.scratch() as scratch:
        (scratch / "file").write_bytes(content)
        store.put(scratch / "file", path)


# -- addresses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_path_names_a_folder_and_so_does_its_uri(tmp_path: Path, form: str) -> None:
    put(open_store(form.format(tmp_path / "lake"), state=tmp_path), b"x", "deals/data.parquet")
    assert (tmp_path / "lake" / "deals" / "data.parquet").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("out", "endpoint", "message"),
    [
        ("lake", "http://127.0.0.1:9000", "--endpoint belongs to an object store"),
        ("ftp://somewhere/x", None, "--out ftp://somewhere/x: "),
    ],
)
def test_another_address_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, endpoint: str | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        open_store(out, endpoint, state=tmp_path / "state")
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("Nothing was written.")
    assert list(tmp_path.iterdir()) == []


def test_x2_access_keys_in_an_address_are_shown_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store("ftp://me:C4N4RY-KEY@somewhere/x?token=C4N4RY-TOO", state=tmp_path)
    assert "C4N4RY" not in str(caught.value)
    assert str(caught.value).startswith("--out ftp://somewhere/x: ")
    assert "C4N4RY" not in clean("an error with C4N4RY-KEY in it")


# -- files -------------------------------------------------------------------------------------------


def test_a_file_is_moved_read_replaced_and_removed(store: Store) -> None:
    path = "deals/_snapshot=1/data.parquet"
    assert store.read(path) is None
    with store.scratch() as scratch:
        file = scratch / "file"
        file.write_bytes(b"first")
        store.put(file, path)
        assert not file.exists()
    assert store.read(path) == b"first"
    put(store, b"second", path)
    assert store.read(path) == b"second"
    for _ in range(2):
        store.remove(path)
        assert store.read(path) is None


def test_a_folder_that_becomes_empty_is_removed_with_its_last_file(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), state=tmp_path)
    for name in ("a", "b"):
        put(store, b"x", f"deals/{name}.parquet")
    store.remove("deals/a.parquet")
    assert [path.name for path in (tmp_path / "deals").iterdir()] == ["b.parquet"]
    store.remove("deals/b.parquet")
    assert list(tmp_path.iterdir()) == []


def test_x5_a_folder_that_is_made_is_the_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        put(open_store(str(tmp_path / "lake"), state=tmp_path), b"x", "deals/data.parquet")
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "lake", tmp_path / "lake" / "deals")] == [0o700, 0o700]


def test_o2_an_export_that_fails_leaves_the_last_whole_one(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "lake"), state=tmp_path)
    put(store, b"x", "deals")
    with pytest.raises(StorageError, match="still names the last whole export"):
        put(store, b"y", "deals/data.parquet")
    with pytest.raises(StorageError):
        store.read("deals/data.parquet")
    assert store.read("deals") == b"x"


# -- the folder for files that are being written ------------------------------------------------------


def test_the_folder_for_temporary_files_is_gone_afterwards(store: Store, tmp_path: Path) -> None:
    with store.scratch() as scratch:
        (scratch / "file").write_bytes(b"x")
        note(scratch, ["deals/a.parquet"])
    assert not scratch.exists()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_killed_exports_noted_is_known_to_the_next_one(store: Store) -> None:
    with store.scratch() as scratch:
        note(scratch, ["deals/a.parquet"])
        (scratch / "half a file").write_bytes(b"x")
        with store.scratch() as second:  # the first one was killed: it did not end
            assert noted(second) == ["deals/a.parquet"]
            assert not scratch.exists()
            note(second, ["deals/b.parquet"])
            with store.scratch() as third:
                assert sorted(noted(third)) == ["deals/a.parquet", "deals/b.parquet"]


@pytest.mark.parametrize("noted_path", ["deals/a.parquet", None])
def test_an_export_that_fails_leaves_its_notes_and_nothing_else(store: Store, noted_path: str | None) -> None:
    folder = None

    def fail() -> None:
        nonlocal folder
        with store.scratch() as folder:
            (folder / "half a file").write_bytes(b"x")
            note(folder, [noted_path] if noted_path else [])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert isinstance(folder, Path)
    if noted_path:
        assert [path.name for path in folder.iterdir()] == [NOTED]
    else:
        assert not folder.exists()
    with store.scratch() as scratch:
        assert noted(scratch) == ([noted_path] if noted_path else [])


def test_exports_to_other_object_stores_are_not_disturbed(tmp_path: Path) -> None:
    one, other = (open_store(f"mock:///{name}", state=tmp_path) for name in ("lake", "pond"))
    with one.scratch() as scratch:
        note(scratch, ["deals/a.parquet"])
        with other.scratch() as second:
            assert noted(second) == []
            assert scratch.exists()


@pytest.mark.parametrize(
    "path", ["catalog.json", "../elsewhere.parquet", "/etc/x.parquet", "deals/../../x.parquet", "deals//x.parquet", ""]
)
def test_x7_a_note_of_a_path_outside_of_the_exports_files_is_not_followed(tmp_path: Path, path: str) -> None:
    note(tmp_path, [path, "deals/_snapshot=1/data.parquet"])
    assert noted(tmp_path) == ["deals/_snapshot=1/data.parquet"]
