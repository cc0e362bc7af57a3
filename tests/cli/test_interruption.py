"""Ctrl-C and SIGTERM end each job in the same way: exit code 130, no stack trace, and the same command completes it."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pdsync.cli.interruption import run_interruptible, sigterm_as_ctrl_c
from tests.support.world import Project

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox

SIGNALS = [signal.SIGTERM, signal.SIGINT]
# Runs for minutes, most of them in single steps.
LONG = "SELECT hash(range) % 100000000 AS x, sum(range) FROM range(200000000) GROUP BY x ORDER BY 2 DESC LIMIT 5"
JOBS = {  # command line → the place in the middle of it where the signal comes
    "sync deals --full": ("pdsync.runner.sync.walk_reader", "WalkReader.read_source"),
    "backfill deals --since 2020-01-01": ("pdsync.runner.sync.window_reader", "WindowReader.read_all"),
    "reconcile deals": ("pdsync.runner.reconcile.comparison", "Comparison.read"),
    "reconcile deals --repair --deep": ("pdsync.runner.reconcile.repair", "Repair.repair_all"),
    "push --dry-run": ("pdsync.runner.push", "_make"),
    "push --yes": ("pdsync.writeback.executor", "PushExecutor.run"),
    "replay": ("pdsync.runner.archive.replay", "_load_archive"),
    "export parquet": ("pdsync.load.export", "describe"),
    "files download --all": ("pdsync.core.http", "Http.download"),
    "raw verify": ("pdsync.runner.archive.upkeep", "verify"),
}


@pytest.fixture
def synced(box: RunningSandbox, tmp_path: Path) -> Project:
    """A project with two streams and a change that waits in the queue."""
    project = Project(tmp_path / "project").configure(base_url=box.url, api_token=box.token)
    assert project.here("sync", "deals", "files", "-q").code == 0
    id = next(entry["id"] for entry in box.dump("deals") if entry["state"] == "live")
    assert project.here("queue", "add", "updateDeal", f"id={id}", "title=Interrupted").code == 0
    return project


def interrupted_by(project: Project, number: int, place: tuple[str, str], *arguments: str) -> None:
    ran = project.run(*arguments, first=f"knobs.interrupt({place[0]!r}, {place[1]!r}, {int(number)})")
    assert ran.code == 130, ran
    assert "Traceback" not in ran.err
    assert "bug" not in ran.err


@pytest.mark.proof
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("job", JOBS)
def test_o7_an_interrupted_job_ends_with_130_and_is_completed_by_the_same_command(
    synced: Project, job: str, number: signal.Signals
) -> None:
    interrupted_by(synced, number, JOBS[job], *job.split())
    again = synced.here(*job.split())
    assert again.code == 0, again


@pytest.mark.proof
@pytest.mark.parametrize("number", SIGNALS)
def test_o7_a_sync_that_is_interrupted_while_it_verifies_ends_with_130(
    box: RunningSandbox, tmp_path: Path, number: signal.Signals
) -> None:
    project = Project(tmp_path / "project").configure(base_url=box.url, api_token=box.token)
    assert project.here("sync", "-q").code == 0
    box.clock.advance(8 * 86_400)  # every stream is due
    interrupted_by(project, number, ("pdsync.runner.reconcile.comparison", "Comparison.read"), "sync", "--json")
    assert project.here("sync", "-q").code == 0


@pytest.mark.parametrize("number", SIGNALS)
def test_a_long_sort_is_ended_at_once(synced: Project, number: signal.Signals) -> None:
    first = f"knobs.interrupt('pdsync.cli.commands.sql', 'ask', {int(number)}, in_s=0.5)"
    ran = synced.run("sql", LONG, first=first)
    assert ran.code == 130, ran
    assert "Traceback" not in ran.err


def test_a_query_of_the_shell_that_is_interrupted_ends_the_query_only(synced: Project) -> None:
    typed = f"{LONG};\nSELECT 6 * 7;\n"
    first = (
        f"knobs.interrupt('pdsync.cli.commands.sql', 'ask', {int(signal.SIGINT)}, in_s=0.5)\n"
        f"import io, sys; sys.stdin = io.StringIO({typed!r})"
    )
    ran = synced.run("shell", first=first)
    assert ran.code == 0, ran
    assert "Interrupted." in ran.err
    assert "42" in ran.out


@pytest.mark.proof
def test_what_duckdb_makes_of_a_signal_is_known_as_an_interruption(tmp_path: Path) -> None:
    script = (
        "import duckdb, os, signal, threading\nfrom pdsync.cli.interruption import is_interrupted_query\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        f"query = \"COPY (SELECT hash(range) FROM range(500000000)) TO '{tmp_path / 'x.parquet'}'\"\n"
        "try:\n    duckdb.execute(query)\nexcept Exception as error:\n    print(is_interrupted_query(error))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "True\n"


def test_a_sigterm_that_the_parent_has_ignored_stays_ignored() -> None:
    script = (
        "import os, signal\nfrom pdsync.cli.interruption import sigterm_as_ctrl_c\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "with sigterm_as_ctrl_c():\n    os.kill(os.getpid(), signal.SIGTERM)\nprint('done')"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "done\n"


def test_a_job_leaves_the_handlers_of_its_process_as_they_were() -> None:
    async def nothing() -> int:
        return 7

    before = signal.getsignal(signal.SIGTERM)
    with sigterm_as_ctrl_c():
        within = signal.getsignal(signal.SIGTERM)
        assert run_interruptible(nothing()) == 7
        assert signal.getsignal(signal.SIGTERM) == within
    assert signal.getsignal(signal.SIGTERM) == before
