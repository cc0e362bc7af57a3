"""State that survives a kill at any instant, and that several processes share."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pdsync.core.control import ONLY_ARCHIVED, VERSION, Control, Lock, SealedPage
from pdsync.core.control import db as control_db
from pdsync.errors import ProjectLocked, StorageError, WrongCompany
from pdsync.model import IncompleteStream, Page, Receipt, StreamReceipt

from .servers import ended, python

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.model import Walk

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
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


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    control = Control(tmp_path / "data" / "control.db")
    yield control
    control.close()


def open_walk(control: Control, *, stream: str = "deals", run: str = "run", since: datetime | None = None) -> Walk:
    return control.open_walk(run, stream, "all", "v2", "getDeals", since)


def page(walk: Walk, seq: int, following: str | None) -> tuple[Page, SealedPage]:
    served = NOW + timedelta(seconds=seq)
    return (
        Page(walk.id, seq, b"{}", 2, following, served),
        SealedPage(walk.id, seq, "run.zst", 100 * seq, 90, 2, bytes([seq, 0, 255]), following, served),
    )


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


def test_s4_no_walk_gets_an_id_again_whatever_happened_to_the_file_or_the_clock(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = [Control(Path(shutil.copy(control.path, tmp_path / f"copy-{number}.db"))) for number in range(2)]
    lives = [control, *copies]
    seen = [open_walk(each).id for each in lives]
    now = time.time
    for moved in (0, -86_400, 86_400, -86_400):  # a clock set back, and one set ahead
        monkeypatch.setattr(time, "time", lambda moved=moved: now() + moved)
        for each in lives:
            seen.append(open_walk(each).id)
            assert seen[-1] > seen[-1 - len(lives)]
    for each in copies:
        each.close()
    assert len(set(seen)) == len(seen)
    assert max(seen) < 2**62


def test_runs_that_the_archive_tells_are_put_where_they_belong_and_the_others_keep_their_order(
    control: Control,
) -> None:
    for name, hour in (("second", 2), ("clock set back", 1), ("fifth", 5)):
        control.start_run(name, "sync", NOW.replace(hour=hour))
    control.restore_from_archive(
        [("first", NOW.replace(hour=0)), ("fourth", NOW.replace(hour=4)), ("fifth", NOW)], [], [], {}
    )
    assert list(control.run_order()) == ["first", "second", "clock set back", "fourth", "fifth"]
    assert [receipt.command for receipt in control.receipts(-1)] == [
        "sync",
        ONLY_ARCHIVED,
        "sync",
        "sync",
        ONLY_ARCHIVED,
    ]


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


# The company.


def test_x1_a_project_belongs_to_one_company_for_good(control: Control) -> None:
    assert control.company() is None
    control.check_company(7, "anyone")
    control.bind_company(7, "Acme", "acme")
    control.bind_company(7, "Acme & Co", "acme-and-co")  # names and domains may change
    assert control.company() == (7, "Acme & Co")
    before = control.path.read_bytes(), control.path.with_name("control.db-wal").read_bytes()
    with pytest.raises(WrongCompany) as caught:
        control.bind_company(8, "Acme & Co", "acme-and-co")
    with pytest.raises(WrongCompany):
        control.check_company(8, "Acme & Co")
    assert (caught.value.expected, caught.value.found) == (7, 8)
    assert (control.path.read_bytes(), control.path.with_name("control.db-wal").read_bytes()) == before


# Runs.


def test_s9_a_run_that_was_killed_has_a_receipt_without_an_end(control: Control) -> None:
    done = Receipt(
        "b",
        "sync",
        NOW,
        NOW + timedelta(minutes=1),
        {"deals": StreamReceipt(read=3)},
        [IncompleteStream("x", "failed", "no")],
        10,
    )
    control.start_run("a", "sync deals", NOW - timedelta(hours=1))
    control.start_run("b", "sync", NOW)
    control.start_run("c", "replay", NOW + timedelta(hours=1))
    control.finish_run(done)
    killed, finished, oldest = control.receipts(9)
    assert (killed.run_id, killed.command, killed.finished_at, killed.complete) == ("c", "replay", None, False)
    assert finished == done
    assert oldest.run_id == "a"
    assert [receipt.run_id for receipt in control.receipts(1)] == ["c"]


# Walks and pages.


def test_s3_a_walk_stands_since_the_server_s_time_at_its_first_page(control: Control) -> None:
    walk = open_walk(control)
    assert walk.started_at is None
    control.record_pages([page(walk, 0, "a")])
    control.record_pages([page(walk, 1, None)])
    assert control.walk(walk.id).started_at == NOW


def test_a_walk_is_open_until_its_last_page_is_recorded(control: Control) -> None:
    deals, persons = open_walk(control), open_walk(control, stream="persons", since=NOW)
    assert control.unfinished_walks() == [(deals, "open"), (persons, "open")]
    control.record_pages([page(deals, 0, "a"), page(deals, 1, "b"), page(persons, 0, None)])
    assert [(walk.id, state) for walk, state in control.unfinished_walks()] == [
        (deals.id, "open"),
        (persons.id, "sealed"),
    ]
    assert [walk.id for walk, _ in control.unfinished_walks("persons")] == [persons.id]
    assert control.finished_lists("run") == {("persons", "all")}
    assert control.finished_lists("another") == set()
    control.end_walk(persons.id, "applied")
    control.end_walk(deals.id, "dropped")
    assert control.unfinished_walks() == []
    assert control.finished_lists("run") == {("persons", "all")}


def test_s15_a_resume_finds_the_last_page_and_where_it_goes_on(control: Control) -> None:
    walk, other = open_walk(control), open_walk(control)
    assert control.last_page(walk.id) is None
    recorded = [page(walk, seq, f"after {seq}") for seq in range(12)]
    control.record_pages([*recorded[:5], page(other, 0, "elsewhere")])
    control.record_pages(recorded[5:])
    assert control.sealed_pages(walk.id) == [sealed for _, sealed in recorded]
    assert control.sealed_pages(walk.id, 10) == [sealed for _, sealed in recorded[10:]]
    assert control.sealed_pages(walk.id, 12) == []
    last = control.last_page(walk.id)
    assert last == recorded[-1][1]
    assert last is not None
    assert last.next == "after 11"


def test_pages_of_a_walk_that_is_not_there_are_refused(control: Control) -> None:
    walk = open_walk(control)
    stray = Page(walk.id + 1, 0, b"{}", 2, None, NOW)
    with pytest.raises(sqlite3.IntegrityError):
        control.record_pages([(stray, SealedPage(walk.id + 1, 0, "f", 0, 1, 2, b"", None, NOW))])


def test_s14_walks_that_a_warehouse_lost_are_loaded_again(control: Control) -> None:
    kept, partly, lost, unapplied = (open_walk(control) for _ in range(4))
    control.record_pages(
        [page(walk, seq, None if seq else "a") for walk in (kept, partly, lost, unapplied) for seq in (0, 1)]
    )
    for walk in (kept, partly, lost):
        control.end_walk(walk.id, "applied")
    held = {(kept.run_id, kept.id): 1, (partly.run_id, partly.id): 0, ("another life", lost.id): 1}
    assert control.requeue_missing_walks(held) == 2
    assert [walk.id for walk, state in control.unfinished_walks() if state == "sealed"] == [
        partly.id,
        lost.id,
        unapplied.id,
    ]
    assert control.requeue_missing_walks(held) == 0


def test_s4_a_walk_of_which_the_warehouse_holds_more_is_never_continued(control: Control) -> None:
    overtaken, level, fresh = (open_walk(control) for _ in range(3))
    control.record_pages([page(walk, 0, "a") for walk in (overtaken, level, fresh)])
    held = {(overtaken.run_id, overtaken.id): 3, (level.run_id, level.id): 0, ("another life", fresh.id): 9}
    assert control.drop_outdated_walks(held) == 1
    assert [walk.id for walk, _ in control.unfinished_walks()] == [level.id, fresh.id]


def test_a_forecast_finds_the_newest_applied_walk_of_each_list(control: Control) -> None:
    full, newer, changes, open_one = (open_walk(control, since=since) for since in (None, None, NOW, NOW))
    control.record_pages([page(full, 0, "a"), page(full, 1, None)])
    control.record_pages([page(newer, seq, str(seq) if seq < 2 else None) for seq in range(3)])
    control.record_pages([page(changes, 0, None), page(open_one, 0, "a")])
    for walk in (full, newer, changes):
        control.end_walk(walk.id, "applied")
    assert control.pages_of_last_walks() == {("deals", "all", True): (3, 6), ("deals", "all", False): (1, 2)}


# The lock.


def test_o1_a_second_run_leaves_and_is_told_who_holds_the_project(tmp_path: Path) -> None:
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
