"""The stores: an object is whole or absent, and of two conditional writes one succeeds."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.errors import ConfigError, StorageError
from pdsync.fleet.store import Version, open_store

if TYPE_CHECKING:
    from pdsync.fleet.store import Store
    from tests.support.object_store import S3


def test_an_object_is_read_as_it_was_written(store: Store) -> None:
    assert store.read("a/b.json") is None
    version = store.create("a/b.json", b"one")
    found = store.read("a/b.json")
    assert found is not None
    assert (found.data, found.version) == (b"one", version)
    assert abs((store.modified("a/b.json") - found.modified).total_seconds()) < 1


def test_an_object_is_created_only_where_there_is_none(store: Store) -> None:
    assert store.create("a", b"one")
    assert store.create("a", b"two") is None
    assert getattr(store.read("a"), "data", None) == b"one"


def test_an_object_is_replaced_only_if_it_is_the_version_that_was_read(store: Store) -> None:
    first = store.create("a", b"one")
    assert first is not None
    second = store.replace("a", b"two", first)
    assert second not in (None, first)
    assert store.replace("a", b"three", first) is None
    assert store.replace("b", b"three", first) is None, "there is none"
    assert getattr(store.read("a"), "data", None) == b"two"


def test_of_many_writers_at_once_one_succeeds(store: Store) -> None:
    first = store.create("a", b"0")
    assert first is not None
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: store.replace("a", b"%d" % n, first), range(1, 9)))
        created = list(pool.map(lambda n: store.create("b", b"%d" % n), range(8)))
    assert [result is not None for result in results].count(True) == 1
    assert [result is not None for result in created].count(True) == 1
    assert getattr(store.read("a"), "version", None) in results


@pytest.mark.parametrize("size", [0, 10, 9 * 2**20])
def test_a_part_of_a_file_is_uploaded_and_comes_back(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("pdsync.fleet.store._RANGE", 4 * 2**20)
    file = tmp_path / "file"
    content = bytes(range(256)) * (size // 256 + 1)
    file.write_bytes(b"before" + content[:size] + b"after")
    store.upload("x/part", file, 6, size)
    assert b"".join(store.download("x/part")) == content[:size]


def test_s11_an_object_that_is_replaced_while_it_is_read_is_not_mixed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdsync.fleet.store._RANGE", 2**20)
    file = tmp_path / "file"
    file.write_bytes(b"a" * 3 * 2**20)
    store.upload("rollup/part", file, 0, 3 * 2**20)
    pieces = store.download("rollup/part")
    read = next(pieces)
    file.write_bytes(b"b" * 3 * 2**20)
    store.upload("rollup/part", file, 0, 3 * 2**20)
    with contextlib.suppress(StorageError):  # or it goes on with what it began with
        read += b"".join(pieces)
    assert set(read) == {ord("a")}


def test_a_file_that_is_too_short_becomes_no_object(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"short")
    with pytest.raises(StorageError, match="shorter"):
        store.upload("x/part", file, 0, 100)
    assert store.read("x/part") is None
    with pytest.raises(FileNotFoundError):
        list(store.download("x/part"))


def test_a_prefix_is_listed_and_removed(store: Store, tmp_path: Path) -> None:
    assert store.folders() == ()
    for key in ("one/a", "one/b/c", "onetwo/a", "zero"):
        store.create(key, key.encode())
    assert store.folders() == ("one", "onetwo")
    listed = list(store.list("one"))
    assert {(entry.key, entry.bytes) for entry in listed} == {("one/a", 5), ("one/b/c", 7)}
    store.remove([entry.key for entry in listed] + ["one/none"])
    assert list(store.list("one")) == []
    assert sorted(entry.key for entry in store.list("")) == ["onetwo/a", "zero"]


@pytest.mark.parametrize("key", ["../file", "one/../../file", "one//a", "./file"])
def test_x7_a_key_that_leads_out_of_the_store_is_refused(store: Store, tmp_path: Path, key: str) -> None:
    store.create("one/a", b"a")
    outside = tmp_path / "file"
    outside.write_bytes(b"precious")
    for use in (store.read, lambda key: list(store.download(key)), lambda key: store.remove([key])):
        with pytest.raises(StorageError):
            use(key)
    assert outside.read_bytes() == b"precious"
    assert [entry.key for entry in store.list("")] == ["one/a"]


def test_x7_a_key_is_no_absolute_path(tmp_path: Path) -> None:
    store, outside = open_store(str(tmp_path / "store")), tmp_path / "file"
    outside.write_bytes(b"precious")
    with pytest.raises(StorageError, match="no key of an object"):
        store.remove([str(outside)])
    assert outside.read_bytes() == b"precious"


def test_an_object_that_vanishes_while_a_folder_is_listed_is_not_listed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    keys = {f"one/{name}" for name in "abcd"}
    for key in keys:
        store.create(key, b"1")
    listing = store.list("one")
    first = next(listing).key
    store.remove(keys - {first})
    assert list(listing) == []
    assert [entry.key for entry in store.list("one")] == [first]


def test_folders_are_told_while_others_appear_and_vanish(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.create("stays/a", b"1")
    names = [str(tmp_path / "store" / f"goes{number}") for number in range(40)]
    come_and_go = "import os, sys\nwhile 1:\n    for act in (os.mkdir, os.rmdir):\n        [*map(act, sys.argv[1:])]\n"
    other = subprocess.Popen([sys.executable, "-c", come_and_go, *names])
    try:
        while not Path(names[0]).exists():
            assert other.poll() is None
        assert {store.folders() for _ in range(2_000)} == {("stays",)}
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_the_time_of_an_object_that_another_has_removed_is_refused_with_its_name(store: Store) -> None:
    with pytest.raises(StorageError, match="acme/clock-1"):
        store.modified("acme/clock-1")


def test_a_part_that_another_removes_while_it_is_uploaded_is_no_error(tmp_path: Path) -> None:
    store, file = open_store(str(tmp_path / "store")), tmp_path / "file"
    file.write_bytes(b"1")
    ended = threading.Event()

    def remove() -> None:
        while not ended.is_set():
            store.remove(["acme/a"])

    with ThreadPoolExecutor(2) as pool:
        removing = [pool.submit(remove) for _ in range(2)]
        try:
            for _ in range(500):
                store.upload("acme/a", file, 0, 1)
        finally:
            ended.set()
        for each in removing:
            each.result()


def test_a_removed_folder_has_no_trace(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    first = store.create("one/a", b"a")
    assert first is not None
    store.replace("one/a", b"b", first)
    store.remove(["one/a"])
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("ftp://somewhere/x", {}, "can't be understood"),
        ("s3://", {}, "can't be understood"),
        ("s3://me:C4N4RY-KEY@lake/x", {}, "AWS_SECRET_ACCESS_KEY"),
        ("abfss://me:C4N4RY-KEY@account.dfs.core.windows.net", {}, "has keys in it"),
        ("s3://lake/x?secret=C4N4RY-KEY", {}, "can't be understood"),
        ("s3://lake", {"endpoint": "http://192.0.2.1:9000"}, "not encrypted"),
        ("stores", {"region": "eu"}, "is a folder"),
    ],
)
def test_x2_a_wrong_address_is_refused_without_repeating_its_keys(
    url: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_store(url, **options)
    assert "C4N4RY" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["gs://bucket/x", "az://container/x", "abfss://container@account.dfs.core.windows.net/x"]
)
def test_other_vendors_are_opened_without_a_request(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv(
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        '{"disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}',
    )
    store = open_store(url)
    assert store.url("a/b") == f"{url}/a/b"


def test_a_store_that_refuses_says_where_and_what_is_safe(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    store = open_store("s3://no-such-bucket/x")
    with pytest.raises(StorageError) as caught:
        store.modified("a")
    assert "s3://no-such-bucket/x" in str(caught.value)
    assert not re.search(r"Debug|<\?xml|RetryError", str(caught.value))
    assert store.replace("a", b"1", Version('"x"')) is None


def test_o4_a_folder_that_can_not_be_listed_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path / "store"))
    assert store.create("acme/00000001-a-0/data", b"1")
    scan = os.scandir

    def fail(path: Any) -> Any:
        if str(path).endswith("00000001-a-0"):
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(StorageError, match="Stale file handle"):
        list(store.list("acme"))
