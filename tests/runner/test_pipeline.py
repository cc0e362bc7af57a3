"""Pipelines are found by name, the project's own first, and say no more than they may."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue
from pdsync.errors import CatalogueError
from pdsync.runner.pipelines import pipeline
from pdsync.runner.sync.sync_request import SyncRequest

if TYPE_CHECKING:
    from pathlib import Path


def write(project: Path, name: str, text: str) -> None:
    (project / "pipelines").mkdir(exist_ok=True)
    (project / "pipelines" / f"{name}.toml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("path", sorted(pipeline.shipped_folder().glob("*.toml")), ids=lambda path: path.stem)
def test_each_pipeline_that_is_shipped_asks_for_streams_that_there_are(tmp_path: Path, path: Path) -> None:
    found = pipeline.load(path.stem, tmp_path)
    assert found.description
    if found.job == "sync":
        assert found.to_sync_request((), full=False, since=None, budget=None).selected()
    elif found.job == "backfill":
        assert found.to_backfill_request(None).lists("v2")
    else:
        assert found.to_reconcile_request(None).repair


def test_the_project_s_own_pipeline_comes_first(tmp_path: Path) -> None:
    write(tmp_path, "nightly", 'description = "mine"\nstreams = ["users"]\nbudget = 50\n')
    found = pipeline.load("nightly", tmp_path)
    assert (found.description, found.streams, found.budget) == ("mine", ("users",), 50)


def test_the_command_line_beats_the_pipeline(tmp_path: Path) -> None:
    write(tmp_path, "small", 'description = "x"\nstreams = ["users"]\nbudget = 50\n')
    small = pipeline.load("small", tmp_path)
    since = datetime(2026, 1, 1, tzinfo=UTC)
    assert small.to_sync_request((), full=False, since=None, budget=None) == SyncRequest(("users",), False, None, 50)
    assert small.to_sync_request(("deals",), full=True, since=since, budget=7) == SyncRequest(
        ("deals",), True, since, 7
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("description = ", "this is not TOML"),
        ('description = "x"\nstream = ["users"]\n', "Did you mean 'streams'"),
        ('streams = ["users"]\n', "description"),
        ('description = "x"\nbudget = "many"\n', "budget"),
        ('description = "x"\nbudget = 0\n', "budget is 0"),
        ('description = "x"\nstreams = ["deels"]\n', "Did you mean 'deals'"),
        ('description = "x"\nfull = ["deels"]\n', "Did you mean 'deals'"),
        ('description = "x"\nleave_out = ["deels"]\n', "Did you mean 'deals'"),
        ('description = "x"\njob = "reconsile"\n', "Did you mean 'reconcile'"),
        ('description = "x"\nrepair = true\n', "`repair` is a key of a reconcile, and this pipeline's job is 'sync'"),
        ('description = "x"\njob = "reconcile"\nmax_tombstones = 5000\n', "can only lower this limit"),
        ('description = "x"\nreport = "/tmp/report.html"\n', "an .html file in the project"),
        ('description = "x"\nreport = "../report.html"\n', "an .html file in the project"),
        ('description = "x"\nreport = "pdsync.toml"\n', "an .html file in the project"),
        ('description = "x"\njob = "backfill"\n', "needs `since`"),
        ('description = "x"\njob = "backfill"\nsince = 2024-01-01\nper_day = true\n', "budget"),
        ('description = "x"\nbase_url = "https://elsewhere.example"\n', "base_url"),
    ],
)
def test_a_file_that_can_t_be_understood_is_named(tmp_path: Path, text: str, says: str) -> None:
    write(tmp_path, "odd", text)
    with pytest.raises(CatalogueError, match=r"pipelines/odd\.toml") as caught:
        pipeline.load("odd", tmp_path)
    assert says in str(caught.value)


def test_a_name_that_is_not_there_gets_a_guess(tmp_path: Path) -> None:
    write(tmp_path, "weekly", 'description = "x"\n')
    with pytest.raises(CatalogueError, match="Did you mean 'weekly'"):
        pipeline.load("wekly", tmp_path)
    with pytest.raises(CatalogueError, match="There are: backfill, hourly, nightly, reconcile, weekly"):
        pipeline.load("zzz", tmp_path)
    for path in ("../weekly", "/etc/passwd", "a/b", "..", ""):
        with pytest.raises(CatalogueError, match="There is no pipeline"):
            pipeline.load(path, tmp_path / "sub")


@pytest.mark.parametrize("name", ["x;reboot", "$(reboot)", "`x`", "-o", "a b", "x\nExecStartPre=y", "x'y"])
def test_x10_a_name_that_a_shell_would_obey_is_no_pipeline(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, 'description = "x"\n')
    with pytest.raises(CatalogueError, match="There is no pipeline"):
        pipeline.load(name, tmp_path)


def test_streams_can_be_left_out_or_read_whole(tmp_path: Path) -> None:
    write(tmp_path, "most", 'description = "x"\nleave_out = ["files"]\nfull = ["deals"]\n')
    request = pipeline.load("most", tmp_path).to_sync_request((), full=False, since=None, budget=None)
    names = {stream.name for stream in request.selected()}
    assert names == {name for name, each in catalogue.streams().items() if not each.optional} - {"files"}
    assert request.reads_whole("deals")
    assert not request.reads_whole("persons")
    assert request.command != SyncRequest(request.streams).command


def test_a_pipeline_of_another_job_becomes_the_request_of_that_job(tmp_path: Path) -> None:
    write(
        tmp_path,
        "past",
        'description = "x"\njob = "backfill"\nsince = 2024-01-01\nuntil = 2024-02-01\nstreams = ["deals"]\nbudget = 9\n'
        "per_day = true\n",
    )
    past = pipeline.load("past", tmp_path).to_backfill_request(None)
    assert (past.since, past.until) == (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC))
    assert (past.streams, past.budget, past.per_day) == (("deals",), 9, True)
    assert pipeline.load("past", tmp_path).to_backfill_request(5).budget == 5
    write(
        tmp_path,
        "check",
        'description = "x"\njob = "reconcile"\nrepair = true\ndeep = true\nsample = 3\nmax_tombstones = 0\n'
        'leave_out = ["files"]\n',
    )
    check = pipeline.load("check", tmp_path).to_reconcile_request(7)
    assert (check.repair, check.deep, check.sample, check.max_tombstones) == (True, True, 3, 0)
    assert (check.leave_out, check.budget) == (("files",), 7)
