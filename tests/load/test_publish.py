"""A finished warehouse takes the place of the last one in one step, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from pdsync.errors import StorageError
from pdsync.load import warehouse
from pdsync.load.publish import copy, publish, put
from tests.support.synced import Synced


def write(path: Path, value: int) -> None:
    connection = warehouse.connect(path)
    connection.execute("CREATE OR REPLACE TABLE main.t AS SELECT ? AS x FROM range(1000)", [value])
    connection.execute("CHECKPOINT warehouse")
    connection.close()


def values(path: Path) -> set[int]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return {row[0] for row in connection.execute("SELECT x FROM t").fetchall()}


def test_s11_a_reader_goes_on_with_the_old_file_and_the_next_one_sees_the_new(tmp_path: Path) -> None:
    work, public = tmp_path / "work.duckdb", tmp_path / "warehouse.duckdb"
    write(work, 1)
    publish(work, public)
    # In a process of its own: within one process DuckDB takes a path for the same database.
    code = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True)\n"
        "print(c.execute('SELECT min(x) FROM t').fetchall()[0][0], flush=True); input()\n"
        "print(c.execute('SELECT min(x), max(x) FROM t').fetchall()[0], flush=True)"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", code, str(public)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "1\n"

    write(work, 2)
    publish(work, public)

    assert values(public) == {2}
    printed, _ = reader.communicate("\n", timeout=20)
    assert printed == "(1, 1)\n"


def test_s11_until_the_copy_is_on_disk_the_warehouse_is_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, public = tmp_path / "work", tmp_path / "warehouse"
    work.write_bytes(b"new" * 1000)
    public.write_bytes(b"old")
    seen, synced = list[bytes](), Synced()

    def look_and_sync(handle: int) -> None:
        seen.append(public.read_bytes())
        synced.fsync(handle)

    monkeypatch.setattr(os, "fsync", look_and_sync)
    publish(work, public)
    assert seen[0] == b"old"
    assert public.read_bytes() == work.read_bytes()
    assert synced.bytes_of(public) == work.stat().st_size


def test_x5_what_is_published_is_the_owners_alone(tmp_path: Path) -> None:
    write(tmp_path / "work.duckdb", 1)
    before = os.umask(0)
    try:
        publish(tmp_path / "work.duckdb", tmp_path / "warehouse.duckdb")
    finally:
        os.umask(before)
    assert (tmp_path / "warehouse.duckdb").stat().st_mode & 0o777 == 0o600


def test_o3_where_nothing_can_be_put_the_old_warehouse_stays(tmp_path: Path) -> None:
    """The name of the copy is taken by a folder: the copy can't be made, whoever runs this test."""
    work, public = tmp_path / "work.duckdb", tmp_path / "warehouse.duckdb"
    write(work, 1)
    publish(work, public)
    write(work, 2)
    (tmp_path / ".warehouse.duckdb.new").mkdir()
    with pytest.raises(StorageError) as caught:
        publish(work, public)
    assert "Readers still see the last one" in str(caught.value)
    assert values(public) == {1}


def test_o3_a_rebuilt_file_that_can_not_be_put_in_place_leaves_the_work_file(tmp_path: Path) -> None:
    """The work file's name is taken by a folder that is not empty."""
    fresh, work = tmp_path / "fresh.duckdb", tmp_path / "work.duckdb"
    write(fresh, 1)
    (work / "inside").mkdir(parents=True)
    with pytest.raises(StorageError, match="Readers still see the last warehouse"):
        put(fresh, work)
    assert (values(fresh), (work / "inside").is_dir()) == ({1}, True)


def test_a_rebuilt_file_takes_the_place_of_the_work_file(tmp_path: Path) -> None:
    fresh, work = tmp_path / "fresh.duckdb", tmp_path / "work.duckdb"
    write(fresh, 1)
    write(work, 2)
    put(fresh, work)
    assert values(work) == {1}
    assert not fresh.exists()


def test_x7_a_copy_replaces_a_file_and_follows_no_link(tmp_path: Path) -> None:
    source, target, elsewhere = (tmp_path / name for name in ("source", "target", "elsewhere"))
    source.write_bytes(b"new")
    target.write_bytes(b"older and longer")
    copy(source, target)
    assert target.read_bytes() == b"new"
    elsewhere.write_bytes(b"not ours")
    (tmp_path / "link").symlink_to(elsewhere)
    with pytest.raises(OSError, match="link"):
        copy(source, tmp_path / "link")
    assert elsewhere.read_bytes() == b"not ours"


def test_o2_a_full_disk_leaves_the_old_warehouse(tmp_path: Path) -> None:
    """A real full disk: a small tmpfs in a mount namespace of its own."""
    code = """
import os, sys
from pathlib import Path
from tests.load.test_publish import values, write
from pdsync.errors import StorageError
from pdsync.load.publish import publish
disk = Path(sys.argv[1])
work = disk.parent / "work.duckdb"
write(work, 1)
publish(work, disk / "warehouse.duckdb")
write(work, 2)
with (disk / "filler").open("wb", buffering=0) as filler:
    try:
        while True:
            filler.write(b"x" * 4096)
    except OSError:
        pass
try:
    publish(work, disk / "warehouse.duckdb")
except StorageError as error:
    print("room for one more copy" in str(error), values(disk / "warehouse.duckdb"), sorted(os.listdir(disk)))
"""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs of its own")
    script = 'mount -t tmpfs -o size=4m none "$1" && exec "$2" -c "$3" "$1"'
    run = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", str(disk), sys.executable, code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "True {1} ['filler', 'warehouse.duckdb']\n", run.stderr
