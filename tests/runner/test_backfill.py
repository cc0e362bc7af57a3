"""Which lists a backfill reads, with how many walks side by side, and what of a day's budget is left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pdsync.core import catalogue, config
from pdsync.core.http import Http
from pdsync.errors import ConfigError
from pdsync.model import Page
from pdsync.runner.connection import concurrency
from pdsync.runner.sync.backfill import BackfillRequest, BackfillRun, _check_times, backfill
from tests.runner.kit import T0, deal, encode, open_session

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox

SINCE = datetime(2026, 1, 1, tzinfo=UTC)


def test_all_lists_that_take_a_time_are_read_when_none_is_named() -> None:
    lists = BackfillRequest(SINCE).lists("v2")
    assert {"deals", "persons", "activities"} <= {stream.name for stream, *_ in lists}
    for stream, version, source, operation in lists:
        assert operation is catalogue.operations(version)[source.operation]
        assert "updated_since" in operation.query
        assert stream.cursor
        assert not stream.parents("v2")


def test_a_stream_whose_list_takes_no_time_is_refused_and_the_others_are_named() -> None:
    with pytest.raises(ConfigError, match=r"(?s)deal_fields.*Nothing was called.*A backfill can read: .*deals"):
        BackfillRequest(SINCE, streams=("deals", "deal_fields")).lists("v2")


def test_s1_the_command_names_what_is_read_and_no_budget() -> None:
    until = datetime(2026, 2, 1, tzinfo=UTC)
    request = BackfillRequest(SINCE, until, ("deals",), budget=10, per_day=True)
    assert request.command == ("backfill deals --since=2026-01-01T00:00:00+00:00 --until=2026-02-01T00:00:00+00:00")
    assert BackfillRequest(SINCE).command == "backfill --since=2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize("until", [SINCE, SINCE - timedelta(days=1)])
def test_an_end_before_the_beginning_is_refused(until: datetime) -> None:
    with pytest.raises(ConfigError, match="Nothing was called"):
        _check_times(BackfillRequest(SINCE, until))


def test_a_beginning_in_the_future_is_refused() -> None:
    with pytest.raises(ConfigError, match="Nothing was called"):
        _check_times(BackfillRequest(datetime.now(UTC) + timedelta(days=1)))


@pytest.mark.parametrize(
    ("flags", "walks"),
    [
        ({"limits.burst": 0}, 16),  # no limit to use up
        ({"limits.burst": 20}, 7),
        ({"limits.burst": 80}, 22),
        ({"limits.burst": 400}, 32),
        ({"limits.burst": 400, "limits.concurrency": 3}, 3),  # what the user says is kept
        ({"limits.burst": 20, "limits.concurrency": 50}, 32),
    ],
)
def test_walks_side_by_side_use_up_the_rate_limit(
    tmp_path: Path, flags: dict[str, str | int | None], walks: int
) -> None:
    (tmp_path / "pdsync.toml").write_text("")
    settings = config.load(tmp_path, flags)
    usual = config.load(tmp_path).concurrency
    assert concurrency(settings) == (walks if "limits.concurrency" in flags else max(walks, usual))


async def test_s1_what_a_stopped_backfill_has_fetched_of_a_window_is_in_the_table(
    box: RunningSandbox, tmp_path: Path
) -> None:
    box.faults.clear()
    async with open_session(tmp_path, box) as session:
        deals = catalogue.stream("deals")
        operation = catalogue.operations("v2")[deals.v2[0].operation]
        run = BackfillRun(session, [(deals, "v2", deals.v2[0], operation)])
        run.windows.plan(session.receipt.run_id, [("deals", "live", "v2", operation.id)], SINCE, T0)
        [(window, _)] = run.windows.unfinished(session.receipt.run_id)
        walk = run.windows.begin(window, session.receipt.run_id)
        page = Page(walk.id, 0, encode([deal(1), deal(2)]), 2, "more", T0)
        await session.archive.seal(replace(walk, started_at=T0), page)
        box.faults.add(kind="daily_429")
        await run.read_all()
        box.faults.clear()
        rows = session.loader.connection.execute("SELECT id FROM deals ORDER BY id").fetchall()
        assert rows == [(1,), (2,)]
        assert session.receipt.streams["deals"].read == 2
        assert session.receipt.exit_code == 3
        assert [state for _, state in session.control.walks()] == ["open"]  # the next run continues it


async def test_s9_a_backfill_of_one_version_is_not_continued_with_the_other(
    box: RunningSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDSYNC_API_TOKEN", box.token)
    monkeypatch.setitem(Http.__init__.__kwdefaults__ or {}, "backoff_s", 0.001)
    v2, v1 = (
        config.load(tmp_path, {"account.base_url": box.url, "account.api": version, "limits.burst": 0})
        for version in ("v2", "v1")
    )
    request = BackfillRequest(datetime(2000, 1, 1, tzinfo=UTC))
    box.faults.clear()
    box.faults.add(kind="status", status=503, path="updated_since")
    stopped = await backfill(v1, request)  # leads and notes are left: the only lists of v1 that take a time
    assert stopped.exit_code == 1
    box.faults.clear()
    receipt = await backfill(v2, request)
    assert receipt.complete
    assert receipt.streams["deals"].read == 8
    assert (await backfill(v1, request)).resumed
