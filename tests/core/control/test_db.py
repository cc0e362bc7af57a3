"""State that survives a kill at any instant, and that several processes share."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest

from pdsync.core.control import VERSION, Control, Lock
from pdsync.core.control import db as control_db
from pdsync.errors import ProjectLocked, StorageError
from tests.core.servers import ended, python

from .kit import NOW, open_walk, page

if TYPE_CHECKING:
    from pathlib import Path

OPENER = """
import sys
from pathlib import Path
from pdsync.core.control import Control
sys.stdin.readline()
Control(Path(sys.argv[1])).close()
"""
WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from pdsync.core.control import Control
control = Control(Path(sys.argv[1]))
for number in range(30):
    control.start_run(f"{sys.argv[2]}-{number}", "sync", datetime.now(UTC))
    control.open_walk(sys.argv[2], "deals", "all", "v2", "getDeals", None)
print("done")
"""
DYING = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from pdsync.core.control import Control
control = Control(Path(sys.argv[1]))
control.start_run("kept", "sync", datetime.now(UTC))
with control.transaction() as db:
    db.execute("DELETE FROM runs")
    db.execute("INSERT INTO company VALUES (1, 'x', NULL)")
    os.kill(os.getpid(), signal.SIGKILL)
"""
HOLDER = """
import sys
from pathlib import Path
from pdsync.core.control import Lock
with Lock(Path(sys.argv[1])):
    print("holding", flush=True)
    sys.stdin.readline()
"""


# The file.


def test_x5_only_the_owner_can_read_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        control = Control(tmp_path / "data" / "control.db")
        open_walk(control)
        with Lock(tmp_path / "locks" / "lock"):
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
        control.close()
    finally:
        os.umask(before)
    folder = tmp_path / "data"
    assert {folder / f"control.db{end}" for end in ("", "-wal", "-shm")} <= modes.keys()
    assert {oct(mode) for path, mode in modes.items() if path.is_file() or path.name.startswith("control")} == {"0o600"}
    assert modes[folder] == modes[tmp_path / "locks"] == 0o700


@pytest.mark.parametrize("content", [b"export PATH=...", None])
def test_x7_a_link_in_the_place_of_the_lock_or_the_state_is_not_written_through(
    tmp_path: Path, content: bytes | None
) -> None:
    target = tmp_path / "profile"
    if content is not None:
        target.write_bytes(content)
    for name in ("pdsync.lock", "control.db"):
        (tmp_path / name).symlink_to(target)
    with pytest.raises(StorageError, match="symbolic link"), Lock(tmp_path / "pdsync.lock"):
        pass
    with pytest.raises(StorageError, match="symbolic link"):
        Control(tmp_path / "control.db")
    assert (target.read_bytes() if target.exists() else None) == content


def test_what_was_written_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    first = Control(tmp_path / "control.db")
    walk = open_walk(first, since=NOW)
    first.close()
    second = Control(tmp_path / "control.db")
    assert second.walk(walk.id) == walk
    assert walk.since == NOW
    second.close()


def test_o8_a_newer_state_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    Control(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(f"PRAGMA user_version={VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(StorageError, match=rf"newer pdsync \(state {VERSION + 1}, this one knows {VERSION}\)"):
        Control(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"no database at all" * 300, b"SQLite format 3\0" + b"\xff" * 4096])
def test_o4_a_damaged_state_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "control.db"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"control\.db can't be opened"):
        Control(path)
    assert path.read_bytes() == content


def test_o3_a_state_folder_that_can_t_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(StorageError, match=r"data/control\.db can't be opened"):
        Control(tmp_path / "data" / "control.db")
    with pytest.raises(StorageError, match="can't be written"), Lock(tmp_path / "data" / "lock"):
        pass


def test_processes_that_open_a_new_state_at_once_agree_on_it(tmp_path: Path) -> None:
    openers = [python(OPENER, tmp_path / "control.db") for _ in range(3)]
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("go\n")
        opener.stdin.flush()
    assert [ended(opener)[::2] for opener in openers] == [(0, "")] * 3
    control = Control(tmp_path / "control.db")
    assert control.receipts(5) == []
    control.close()


def test_processes_that_write_at_once_lose_nothing(control: Control) -> None:
    writers = [python(WRITER, control.path, name) for name in ("one", "two")]
    assert [ended(writer) for writer in writers] == [(0, "done\n", "")] * 2
    assert {receipt.run_id for receipt in control.receipts(100)} == {
        f"{name}-{number}" for name in ("one", "two") for number in range(30)
    }
    assert len({walk.id for walk, _ in control.unfinished_walks()}) == 60


def test_s1_a_kill_inside_a_transaction_leaves_what_was_before(control: Control) -> None:
    assert ended(python(DYING, control.path))[0] == -9
    assert [receipt.run_id for receipt in control.receipts(5)] == ["kept"]
    assert control.company() is None


def test_s1_an_error_inside_a_transaction_takes_all_of_it_back(control: Control) -> None:
    first, second = open_walk(control), open_walk(control)
    with pytest.raises(sqlite3.IntegrityError):
        control.record_pages([page(first, 0, "a"), page(second, 0, None), page(first, 0, "a")])
    assert control.last_page(first.id) is None
    assert [state for _, state in control.unfinished_walks()] == ["open", "open"]
    control.record_pages([page(first, 0, "a")])  # and it can be written to again


# The lock.


def test_o1_a_second_run_leaves_with_the_owner_of_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = python(HOLDER, path)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "holding\n"
        with pytest.raises(ProjectLocked, match=rf"process {holder.pid} since 20\d\d-"), Lock(path):
            pass
        with pytest.raises(ProjectLocked), Lock(path):  # asking did not break it
            pass
    finally:
        holder.kill()
        ended(holder)
    with Lock(path), pytest.raises(ProjectLocked, match=f"process {os.getpid()} "), Lock(path):
        pass
    with Lock(path):
        pass


def test_o1_a_child_process_does_not_inherit_the_lock(tmp_path: Path) -> None:
    with Lock(tmp_path / "lock"):
        child = python("import sys; sys.stdin.readline()")
    try:
        with Lock(tmp_path / "lock"):
            pass
    finally:
        child.kill()
        ended(child)


def test_w2_followers_bound_by_an_earlier_pdsync_are_bound_no_more(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    before = next(number for number, step in enumerate(control_db.STEPS) if "SET bound = NULL" in step)
    rows = [("deals", "deals/5"), ("persons/followers", "persons/followers/5/12"), ("deals/products", "deals/5/7")]
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.executescript("".join(control_db.STEPS[:before]))
        db.executemany(
            "INSERT INTO mutations (id, batch, operation, verb, kind, payload, queued_at, queued_by, state, bound)"
            " VALUES (?2, 'b', 'o', 'add', ?1, '{}', 't', 'me', 'applied', ?2)",
            rows,
        )
        db.execute(f"PRAGMA user_version={before}")
    control = Control(path)
    assert control.rows("SELECT bound FROM mutations ORDER BY seq") == [("deals/5",), (None,), ("deals/5/7",)]
    control.close()
