"""`pdsync status`: one screen of what is right and fresh, and of what needs attention, with the next command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pdsync.cli.commands.status import lay_out_status
from pdsync.core import config
from pdsync.core.control import Control
from pdsync.model import IncompleteStream, Proof, Receipt, StreamReceipt
from pdsync.runner.loader import Loader
from pdsync.runner.pipelines import schedule
from pdsync.runner.status import measure_status
from pdsync.writeback.enqueue import copy_for_retry
from pdsync.writeback.outbox import Entry, Outbox
from tests.runner.kit import deal, load_rows
from tests.support.world import run_here

if TYPE_CHECKING:
    from pdsync.core.config import Settings

NOW = datetime(2026, 11, 29, 11, 15, tzinfo=UTC)
SYNCED = NOW - timedelta(minutes=7)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine in UTC whose user has no schedule yet."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose two streams were synced seven minutes ago."""
    settings = config.load(tmp_path_factory.mktemp("synced"))
    settings.warehouse.parent.mkdir(parents=True)
    loader = Loader(settings.warehouse)
    loader.open(1, "Example")
    load_rows(loader, "deals", *map(deal, range(1, 1001)), deal(1001, is_deleted=True), at=SYNCED)
    load_rows(loader, "users", number=2, at=SYNCED)
    loader.connection.execute("UPDATE meta.checkpoints SET watermark = ?, full_at = ?", [SYNCED, SYNCED])
    asyncio.run(loader.close())
    save_run(settings, Receipt("run-1", "sync", SYNCED - timedelta(minutes=1), SYNCED, {
        "deals": StreamReceipt(complete=True, proof=Proof(1000)), "users": StreamReceipt(complete=True),
    }, exit_code=0))  # fmt: skip
    return settings.project


@pytest.fixture
def settings(synced: Path, tmp_path: Path) -> Settings:
    """Those of a copy of that project."""
    return config.load(Path(shutil.copytree(synced, tmp_path / "project")))


def save_run(settings: Settings, receipt: Receipt, *, is_finished: bool = True) -> None:
    control = Control(settings.control)
    control.start_run(receipt.run_id, receipt.command, receipt.started_at)
    if is_finished:
        control.finish_run(receipt)
    control.close()


def execute(settings: Settings, *statements: tuple[str, list[object]]) -> None:
    """Change the warehouse."""
    loader = Loader(settings.warehouse)
    loader.open(1, "Example")
    for query, values in statements:
        loader.connection.execute(query, values)
    asyncio.run(loader.close())


def install_nightly(settings: Settings) -> None:
    """What `pdsync schedule --as systemd --install` leaves."""
    job = schedule.Job("nightly", settings.project, "day", 2, 15)
    for path, text in schedule.render_files("systemd", job).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    wanted = schedule.systemd_folder() / "timers.target.wants"
    wanted.mkdir()
    (wanted / f"{job.name}.timer").symlink_to(schedule.systemd_folder() / f"{job.name}.timer")


def queue_changes(settings: Settings) -> None:
    """Queue two changes that wait, and one that a person must look at."""
    control = Control(settings.control)
    outbox = Outbox(control)
    entries = [
        Entry("v2 updateDeal", "update", "deals", f"deals/{id}", {"id": id, "title": "New"}) for id in (1, 2, 3)
    ]  # fmt: skip
    mutations = outbox.add(entries)
    outbox.settle(mutations[0].id, "needs_review", "uncertain", "no answer")
    control.close()


def screen(settings: Settings, width: int | None) -> list[str]:
    lines = [line.text for line in lay_out_status(measure_status(settings, NOW), NOW, width)]
    assert width is None or all(len(line) <= width for line in lines if not line.startswith("    pdsync"))
    return lines


HEALTHY = """\
Data      complete until 2026-11-29 11:08 UTC (7 min ago), no gaps
Verified  100 % of 1,000 rows within 7 days, the oldest 7 min ago
Budget    about 30,000 of 30,000 tokens left today
Runs      last sync 7 min ago: complete; next nightly in 15 h, at 02:15 UTC
Queue     empty

Nothing needs attention."""


def test_a_healthy_project_is_six_lines(settings: Settings) -> None:
    install_nightly(settings)
    for width in (80, 120, None):
        assert "\n".join(screen(settings, width)) == HEALTHY


def test_files_that_were_kept_for_a_reader_are_named(settings: Settings) -> None:
    for name in ("1", "2", "3"):
        (settings.state / f"warehouse.own-{name}.duckdb").touch()
    lines = screen(settings, None)
    assert [line for line in lines if "warehouse.own-" in line] == [
        "Kept      warehouse.own-3.duckdb, warehouse.own-2.duckdb and 1 more: your own tables of earlier warehouses"
        " (docs/own-tables.md)"
    ]


TROUBLED = """\
Data      complete until 2026-11-29 11:08 UTC (7 min ago), except 2 streams
Verified  97.5 % of 1,000 rows within 7 days, the oldest 9 d ago
Budget    about 30,000 of 30,000 tokens left today
Runs      last sync files notes 2 min ago: exit code 1; next: none (pdsync schedule)
Queue     2 to send (pdsync push), 1 to review

Needs attention
✗ files, notes: failed: the server answered 500 to getFiles, five times, and this is what it said last
    pdsync sync files notes
✗ deals: 3 of its rows differed from Pipedrive when last compared (7 min ago)
    pdsync reconcile deals --repair
✗ deals: 25 rows not compared with Pipedrive for 7 days
    pdsync reconcile deals
✗ token: it is not an administrator's: records that are hidden from its user are missing
    pdsync auth login
✗ queue: 1 change needs a review: it is not certain what became of it
    pdsync queue list --state needs_review"""

TROUBLED_80 = TROUBLED.replace("(pdsync schedule", "(pdsync\n          schedule").replace("and this", "and\n  this")
TROUBLED_80 = TROUBLED_80.replace("user are missing", "user are\n  missing")


def test_gaps_and_a_review_are_named_with_the_next_command(settings: Settings) -> None:
    detail = "the server answered 500 to getFiles, five times, and this is what it said last\nmore of it"
    save_run(settings, Receipt(
        "run-2", "sync files notes", NOW - timedelta(minutes=3), NOW - timedelta(minutes=2),
        {name: StreamReceipt() for name in ("files", "notes")},
        [IncompleteStream(name, "failed", detail) for name in ("files", "notes")], is_admin=False,
    ))  # fmt: skip
    execute(
        settings,
        ("UPDATE deals SET _verified_at = ? WHERE id <= 25", [NOW - timedelta(days=9)]),
        ("INSERT INTO meta.sweeps VALUES ('run-1', ?, 'deals', 997, 1000, 997, 3, true)", [SYNCED]),
    )
    queue_changes(settings)
    assert "\n".join(screen(settings, 120)) == TROUBLED
    assert "\n".join(screen(settings, 80)) == TROUBLED_80


def test_an_interrupted_push_and_unresolved_ends_are_named_until_they_are_resolved(settings: Settings) -> None:
    control = Control(settings.control)
    outbox = Outbox(control)
    entries = [
        Entry("v2 updateDeal", "update", "deals", f"deals/{id}", {"id": id, "title": "New"}) for id in (1, 2, 3)
    ]  # fmt: skip
    conflict, rejected, left = outbox.add(entries)
    outbox.settle(conflict.id, "conflict", "changed")
    outbox.settle(rejected.id, "rejected", "refused")
    outbox.approve([left.id], "push-0", 1)
    assert {(problem.partition(":")[0], command) for subject, problem, command in notices(settings)} == {
        ("a push was interrupted", "pdsync push --dry-run"),
        ("1 change met a conflict and was not sent again", "pdsync queue list --state conflict"),
        ("1 change was rejected and was not sent again", "pdsync queue list --state rejected"),
    }
    assert any(line.endswith("1 in conflict, 1 rejected") for line in screen(settings, None))
    (settings.state / "push.lock").write_text(f"process {os.getpid()} since today\n")
    assert len(notices(settings)) == 2
    outbox.add([copy_for_retry(conflict)])
    outbox.settle(outbox.add([entries[1]])[0].id, "applied")
    control.close()
    assert notices(settings) == []


@pytest.mark.parametrize("is_admin", [True, False])
def test_s9_the_screen_names_the_user_whose_token_it_was(settings: Settings, is_admin: bool) -> None:
    save_run(settings, Receipt(
        "run-2", "sync", NOW - timedelta(minutes=3), NOW - timedelta(minutes=2),
        {"deals": StreamReceipt(complete=True)}, exit_code=0, is_admin=is_admin, user_id=12, user="Mia Lopez",
    ))  # fmt: skip
    rights = "an administrator" if is_admin else "who is not an administrator"
    lines = screen(settings, None)
    assert lines[0].endswith(f"no gaps, read as Mia Lopez (user 12), {rights}")
    notice = "✗ token: Mia Lopez (user 12) is not an administrator: records that are hidden from its user are missing"
    assert (notice in lines) is not is_admin
    assert screen(settings, 80)[:2] == [
        "Data      complete until 2026-11-29 11:08 UTC (7 min ago), no gaps, read as Mia",
        f"          Lopez (user 12), {rights}",
    ]


def status_of(settings: Settings, *arguments: str) -> tuple[int, str, str]:
    ran = run_here(("--project", str(settings.project), "status", *arguments), {"PATH": "/nowhere"})
    return ran.code, ran.out, ran.err


def test_a_fresh_project_says_how_to_begin(tmp_path: Path) -> None:
    settings = config.load(tmp_path)
    assert status_of(settings) == (0, "", "Nothing has been synced yet: pdsync sync\n")
    assert status_of(settings, "--json") == (0, "", "Nothing has been synced yet: pdsync sync\n")
    queue_changes(settings)
    assert screen(settings, 80)[:5] == [
        "Data      nothing has been synced yet (pdsync sync)",
        "Verified  no rows yet",
        "Budget    about 30,000 of 30,000 tokens left today",
        "Runs      none yet; next: none (pdsync schedule)",
        "Queue     2 to send (pdsync push), 1 to review",
    ]


def add_run(settings: Settings, command: str, *gaps: tuple[str, str], **more: Any) -> None:
    """Save a run that ended a minute ago, with gaps: stream and kind."""
    ended = NOW - timedelta(minutes=1)
    streams = {name: StreamReceipt(complete=not gaps) for name in {name for name, _ in gaps} or {"deals", "users"}}
    listed = [IncompleteStream(name, kind, f"{kind} detail") for name, kind in gaps]
    save_run(settings, Receipt(f"run-{command}", command, ended, **{
        "finished_at": ended, "streams": streams, "gaps": listed, "exit_code": 0, **more,
    }))  # fmt: skip


def notices(settings: Settings, now: datetime = NOW) -> list[tuple[str, str, str]]:
    return [(each.subject, each.problem, each.command) for each in measure_status(settings, now).notices]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([("sync", [])], []),
        ([("sync", [("deals", "failed")]), ("sync deals", [])], []),  # a later run has closed it
        ([("sync", [("deals", "failed")]), ("sync deals --since=2026-11-29T11:00:00+00:00", [])],
         [("deals", "pdsync sync deals")]),
        ([("sync", [("deals", "failed")]), ("reconcile deals", [])], [("deals", "pdsync sync deals")]),
        ([("sync", [("deals", "fewer")])], [("deals", "pdsync reconcile deals")]),
        ([("sync", [("deals", "forbidden")])],
         [("deals", "pdsync auth login  (with the token of a user who may read it)")]),
        ([("reconcile", [("deals", "stopped"), ("users", "stopped")])],
         [("deals, users", "pdsync reconcile deals users")]),
        ([("backfill deals --since=2020-01-01", [("deals", "stopped")])],
         [("deals", "pdsync backfill deals --since=2020-01-01")]),
        ([("backfill deals", [("deals", "stopped")]), ("sync", [])], []),
    ],
)  # fmt: skip
def test_a_gap_is_named_until_a_run_closes_it(
    settings: Settings, runs: list[tuple[str, list[tuple[str, str]]]], expected: list[tuple[str, str]]
) -> None:
    for command, gaps in runs:
        add_run(settings, command, *gaps)
    assert [(subject, command) for subject, _, command in notices(settings)] == expected
    assert bool(measure_status(settings, NOW).incomplete) == bool(expected)


def test_a_run_that_did_not_end_is_continued_unless_it_works(settings: Settings) -> None:
    add_run(settings, "sync deals", exit_code=130)
    problem = "nothing that it has read is lost"
    assert notices(settings) == [("last run", f"sync deals was interrupted; {problem}", "pdsync sync deals")]
    add_run(settings, "sync deals --full=deals", finished_at=None)
    assert notices(settings) == [("last run", f"sync deals --full=deals was killed; {problem}", "pdsync sync")]
    (settings.state / "pdsync.lock").write_text(f"process {os.getpid()} since today\n")
    assert notices(settings) == []
    assert f"running (process {os.getpid()})" in " ".join(screen(settings, 120))


def test_s9_what_a_killed_run_has_read_in_part_is_a_gap_until_a_sync_has_read_it(settings: Settings) -> None:
    add_run(settings, "sync", finished_at=None)
    with contextlib.closing(Control(settings.control)) as control:
        walk = control.open_walk("run-sync", "deals", "archived", "v2", "getArchivedDeals", None)
    assert [subject for subject, *_ in notices(settings)] == ["last run"]
    add_run(settings, "sync users")
    problem = "stopped: the run was killed before its last page"
    assert notices(settings) == [("deals", problem, "pdsync sync deals")]
    assert measure_status(settings, NOW).incomplete == ["deals"]
    with contextlib.closing(Control(settings.control)) as control:
        control.end_walk(walk.id, "applied")
    assert notices(settings) == []


@pytest.mark.parametrize("is_killed", [False, True])
def test_s9_a_gap_of_the_night_is_named_however_many_runs_came_since(settings: Settings, is_killed: bool) -> None:
    with contextlib.closing(Control(settings.control)) as control:
        if is_killed:
            control.start_run("night", "sync", NOW)
            control.open_walk("night", "deals", "live", "v2", "getDeals", None)
        else:
            add_run(settings, "sync", ("deals", "failed"))
        often = Receipt("often", "sync users", NOW, NOW, {"users": StreamReceipt(complete=True)}, exit_code=0)
        for number in range(210):
            control.start_run(f"often-{number}", often.command, NOW)
            control.finish_run(replace(often, run_id=f"often-{number}"))
    assert measure_status(settings, NOW).incomplete == ["deals"]


def test_data_is_stale_when_the_schedule_has_not_brought_any(settings: Settings) -> None:
    later = NOW + timedelta(hours=40)
    assert notices(settings, NOW + timedelta(hours=30)) == []
    assert notices(settings, later) == [
        ("every stream", "no change after 2026-11-29 11:08 UTC is loaded (2 d)", "pdsync sync")
    ]
    execute(settings, ("UPDATE meta.checkpoints SET watermark = ? WHERE stream = 'users'", [later]))
    assert [(subject, command) for subject, _, command in notices(settings, later)] == [("deals", "pdsync sync deals")]


def test_s6_streams_that_take_turns_are_dated_apart_and_stale_only_after_the_cycle(settings: Settings) -> None:
    read_at = SYNCED - timedelta(days=6)
    execute(settings, ("UPDATE meta.checkpoints SET stream = 'roles', watermark = ? WHERE stream = 'users'", [read_at]),
            ("ALTER TABLE main.users RENAME TO roles", []))  # fmt: skip
    [data] = [line for line in screen(settings, None) if line.startswith("Data")]
    assert data.endswith(
        "complete until 2026-11-29 11:08 UTC (7 min ago), no gaps; 1 stream read in turn, the oldest 6 d ago"
    )
    assert notices(settings) == []
    assert [each[2] for each in notices(settings, NOW + timedelta(days=2))] == ["pdsync sync", "pdsync sync roles"]
    settings = replace(settings, verify_cycle=0)  # every sync reads them
    assert [each[2] for each in notices(settings)] == ["pdsync sync roles"]


def test_records_that_cannot_be_read_are_named_until_the_stream_is_read_whole(settings: Settings) -> None:
    row = "INSERT INTO meta.quarantine VALUES ('bad', 'deals', 1, 0, 0, 'has no usable id', 'x'::BLOB)"
    run = "INSERT INTO meta.runs BY NAME SELECT 'bad' AS run_id, ?::TIMESTAMPTZ AS finished_at"
    execute(settings, (row, []), (run, [SYNCED]))
    assert notices(settings) == [("deals", "1 record can't be read", 'pdsync sql "from meta.quarantine"')]
    execute(settings, ("UPDATE meta.checkpoints SET full_at = ?", [NOW]))
    assert notices(settings) == []


@pytest.mark.parametrize(("name", "command"), [("warehouse.duckdb", "pdsync sync"), ("control.db", "pdsync doctor")])
def test_a_damaged_store_is_named_and_the_other_is_still_read(settings: Settings, name: str, command: str) -> None:
    (settings.state / name).write_bytes(b"no database" * 1000)
    for journal in settings.state.glob("control.db-*"):
        journal.unlink()
    assert (name.removesuffix(".duckdb"), command) in [(subject, command) for subject, _, command in notices(settings)]
    code, out, _ = status_of(settings)
    assert code == 1
    assert command in out
    assert status_of(settings, "--json")[0] == 1


def test_programs_read_a_line_for_each_stream_the_project_and_the_budget(settings: Settings) -> None:
    queue_changes(settings)
    code, out, _ = status_of(settings, "--json")
    *streams, project, budget = map(json.loads, out.splitlines())
    assert code == 0
    assert [(each["name"], each["stream"], each["rows"], each["deleted"]) for each in streams] == [
        ("deals", "deals", 1000, 1), ("users", "users", 0, 0),
    ]  # fmt: skip
    names = {"complete_until", "age", "last_full", "unverified", "oldest_verified_at", "observed_from"}
    assert names < streams[0].keys()
    assert budget == {"name": "budget", "left": 30_000, "limit": 30_000}
    assert (project["name"], project["rows"], project["queue"]) == ("status", 1000, {"queued": 2, "needs_review": 1})
    assert project["last_run"]["run_id"] == "run-1"
    assert project["attention"][-1]["command"] == "pdsync queue list --state needs_review"


def test_each_stream_is_listed_on_request(settings: Settings) -> None:
    lines = status_of(settings, "--streams")[1].splitlines()
    assert lines[0].split() == [
        "stream", "rows", "deleted", "complete", "until", "age", "unverified", "last", "full", "observed", "from"
    ]  # fmt: skip
    assert [line.split()[:3] for line in lines[1:]] == [["deals", "1000", "1"], ["users", "0", "0"]]
