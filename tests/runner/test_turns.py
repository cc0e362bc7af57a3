"""Streams that hardly ever change are read in turn within the verify cycle, and no later than it allows."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from typing import TYPE_CHECKING

import duckdb
import pytest
from msgspec.structs import replace

from pdsync.core import catalogue, config
from pdsync.core.control import Control
from pdsync.model import IncompleteStream, Receipt, StreamReceipt
from pdsync.runner.loader import Loader
from pdsync.runner.report.receipt import save_receipt
from pdsync.runner.sync.sync_request import SyncRequest
from pdsync.runner.sync.turns import Turns, plan_turns
from tests.runner.kit import T0

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.core.config import Settings

STREAMS = catalogue.streams()
TURNING = {name: stream for name, stream in STREAMS.items() if stream.takes_turns}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A project that has read every stream whole at T0."""
    settings = config.load(tmp_path_factory.mktemp("turns"))
    settings.warehouse.parent.mkdir(parents=True)
    loader = Loader(settings.warehouse)
    loader.open(1, "Example")
    loader.connection.executemany(
        "INSERT INTO meta.checkpoints VALUES (?, ?, ?, ?, ?, 1, 'run', NULL)",
        [
            [name, source.name, version, T0, T0]
            for name, stream in STREAMS.items()
            for version, sources in [stream.sources("v2")]
            for source in sources
        ],
    )
    asyncio.run(loader.close())
    Control(settings.control).close()
    return settings


@pytest.fixture
def project(made: Settings) -> Iterator[tuple[duckdb.DuckDBPyConnection, Control, Settings]]:
    """Its stores; the warehouse is restored afterwards."""
    control = Control(made.control)
    with duckdb.connect(str(made.warehouse)) as connection:
        connection.execute("BEGIN")
        yield connection, control, made
        connection.execute("ROLLBACK")
    control.close()


def plan(
    project: tuple[duckdb.DuckDBPyConnection, Control, Settings],
    days: float,
    request: SyncRequest | None = None,
    **settings: int | str,
) -> Turns:
    """The turns of a sync so many days after T0."""
    connection, control, existing = project
    return plan_turns(
        connection, control, replace(existing, **settings), request or SyncRequest(), T0 + timedelta(days=days)
    )


def test_s6_every_stream_has_its_turn_within_the_cycle_and_a_night_to_spare(
    project: tuple[duckdb.DuckDBPyConnection, Control, Settings],
) -> None:
    connection = project[0]
    read_on = {name: [0.0] for name in TURNING}
    costs = []
    late = itertools.cycle((0.0, 0.1, -0.1))  # the nights do not begin at the same time of the day
    for night in range(1, 22):
        days = night + next(late)
        turns = plan(project, days)
        assert turns.due.keys() | turns.deferred.keys() == TURNING.keys()
        costs.append(sum(turns.due.values()))
        for name in turns.due:
            read_on[name].append(days)
            at = T0 + timedelta(days=days)
            connection.execute("UPDATE meta.checkpoints SET full_at = ? WHERE stream = ?", [at, name])
    gaps = {later - before for days in read_on.values() for before, later in itertools.pairwise(days)}
    assert max(gaps) <= 6.3
    assert all(days[-1] > 14 for days in read_on.values())
    whole = sum(plan(project, 22).due.values()) + sum(plan(project, 22).deferred.values())
    assert max(costs) < whole / 2, "the nights share the cost"
    assert sum(costs) <= whole * 4, "in 21 nights each is read at most four times"


@pytest.mark.parametrize(
    ("request_", "settings"),
    [
        (SyncRequest(full=True), {}),
        (SyncRequest(since=T0), {}),
        (SyncRequest(tuple(TURNING)), {}),
        (SyncRequest(refetch=tuple(TURNING)), {}),
        (SyncRequest(), {"verify_cycle": 0}),
        (SyncRequest(), {"verify_cycle": 1}),
    ],
)
def test_what_is_named_or_to_be_read_whole_waits_for_no_turn(
    project: tuple[duckdb.DuckDBPyConnection, Control, Settings],
    request_: SyncRequest,
    settings: dict[str, int],
) -> None:
    assert not plan(project, 0.1, request_, **settings).deferred


def test_streams_that_a_pipeline_leaves_out_make_the_others_not_named(
    project: tuple[duckdb.DuckDBPyConnection, Control, Settings],
) -> None:
    request = SyncRequest(("deals", "currencies"), are_named=False)
    assert plan(project, 0.1, request).deferred.keys() == {"currencies"}


def test_a_stream_that_was_never_read_whole_is_read(
    project: tuple[duckdb.DuckDBPyConnection, Control, Settings],
) -> None:
    connection, control, settings = project
    assert plan_turns(None, control, settings, SyncRequest(), T0).due.keys() == TURNING.keys()
    connection.execute("DELETE FROM meta.checkpoints WHERE stream = 'goals' AND source = 'sum_inactive'")
    assert plan(project, 0.1).due.keys() == {"goals"}
    connection.execute("UPDATE meta.checkpoints SET version = 'v2' WHERE stream = 'webhooks'")  # API v1 is to be read
    assert plan(project, 0.1).due.keys() == {"goals", "webhooks"}
    connection.execute("UPDATE meta.checkpoints SET full_at = ? WHERE stream = 'filters'", [T0 + timedelta(days=2)])
    assert plan(project, 0.1).due.keys() == {"goals", "webhooks", "filters"}, "a wrong clock has dated it"


@pytest.mark.parametrize("gap", [True, False])
@pytest.mark.parametrize("is_complete", [True, False])
def test_s9_a_gap_is_read_in_the_next_night_with_what_depends_on_it(
    made: Settings, tmp_path: Path, *, gap: bool, is_complete: bool
) -> None:
    loader = Loader(tmp_path / "work.duckdb")
    loader.open(1, "Example")
    loader.connection.execute(f"ATTACH '{made.warehouse}' AS read (READ_ONLY)")
    loader.connection.execute("INSERT INTO meta.checkpoints SELECT * FROM read.meta.checkpoints")
    entry = StreamReceipt(complete=is_complete)
    gaps = [IncompleteStream("roles", "fewer", "the list shows 2 of 900 rows")] if gap else []
    receipt = Receipt("run", "sync", T0, T0, {"roles": entry, "webhooks": StreamReceipt(complete=True)}, gaps)
    save_receipt(loader, receipt)
    control = Control(tmp_path / "control.db")
    due = plan_turns(loader.connection, control, made, SyncRequest(), T0 + timedelta(hours=1)).due
    is_due = gap or not is_complete
    assert due.keys() == ({"roles", "role_settings", "role_assignments"} if is_due else set())
    save_receipt(loader, Receipt("later", "sync", T0 + timedelta(1), T0, {"roles": StreamReceipt(complete=True)}))
    assert not plan_turns(loader.connection, control, made, SyncRequest(), T0 + timedelta(hours=1)).due
    control.close()
    asyncio.run(loader.close())


def test_a_reading_that_is_not_finished_is_continued(
    project: tuple[duckdb.DuckDBPyConnection, Control, Settings],
) -> None:
    control = project[1]
    walk = control.open_walk("run", "filters", "all", "v1", "getFilters", None)
    assert plan(project, 0.1).due.keys() == {"filters"}
    control.end_walk(walk.id, "applied")
    assert not plan(project, 0.1).due
    connection, control, settings = project
    resumed = plan_turns(connection, control, settings, SyncRequest(), T0 + timedelta(hours=2), "run")
    assert resumed.due.keys() == {"filters"}, "the run that has read it names it in its receipt"


def test_only_what_needs_no_request_of_its_own_order_takes_turns() -> None:
    """What others need every night does not take turns, and what takes turns is read whole."""
    definitions = {stream.fields for stream in STREAMS.values()}
    for name, stream in TURNING.items():
        for api in ("v1", "v2"):
            assert all(source.way == "full" and not source.params for source in stream.sources(api)[1]), name
        assert not stream.optional, name
        assert name not in definitions, "columns depend on it"
    for name, stream in STREAMS.items():
        if not stream.optional and (parents := stream.parents("v2") & TURNING.keys()):
            assert stream.takes_turns, f"{name} has to be read in the night of {parents}"
