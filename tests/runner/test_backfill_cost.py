"""What is left of a backfill is estimated by the rows of its windows in the warehouse, without a request."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import duckdb
import pytest

from pdsync.core import config
from pdsync.core.control import Control
from pdsync.core.control.windows import Windows
from pdsync.runner.pipelines.backfill_cost import estimate_backfill
from pdsync.runner.sync.backfill import BackfillRequest, names_of

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.core.config import Settings

JANUARY, MARCH, JUNE = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 3, 6))
REQUEST = BackfillRequest(JANUARY, JUNE, ("deals",))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A project with 3,000 deals of a day each from January on, of which every fifth is archived."""
    settings = config.load(tmp_path)
    settings.warehouse.parent.mkdir(parents=True)
    with duckdb.connect(settings.warehouse) as connection:
        connection.execute(
            "CREATE TABLE deals AS SELECT range AS id, range % 5 = 0 AS is_archived,"
            " TIMESTAMPTZ '2026-01-01 00:00:00+00' + INTERVAL 1 HOUR * range AS update_time FROM range(3000)"
        )
    return settings


def test_a_backfill_costs_what_its_rows_take_and_the_definitions_before_it(settings: Settings) -> None:
    definitions, deals = estimate_backfill(settings, REQUEST)
    assert (definitions.stream, definitions.requests, definitions.tokens) == ("deal_fields", 1, 10)
    assert (deals.stream, deals.requests, deals.tokens, deals.at_least) == ("deals", 5 + 2, 50 + 40, False)
    assert sum(each.requests for each in estimate_backfill(settings, BackfillRequest(MARCH, JUNE, ("deals",)))) < 8


def test_an_interrupted_one_costs_what_its_windows_have_left(settings: Settings) -> None:
    control = Control(settings.control)
    control.start_run("job", REQUEST.command, JUNE)
    windows = Windows(control)
    windows.plan("job", names_of(REQUEST.lists("v2")), JANUARY, MARCH)
    [archived] = [window for window, _ in windows.unfinished("job") if window.source == "archived"]
    control.end_walk(windows.begin(archived, "job").id, "applied")
    control.close()
    [deals] = estimate_backfill(settings, REQUEST)
    assert (deals.requests, deals.tokens) == (3, 30)  # four fifths of 59 days of 24


def test_a_stream_without_a_table_has_a_lower_bound(settings: Settings) -> None:
    found = {each.stream: each for each in estimate_backfill(settings, BackfillRequest(JANUARY, JUNE, ("persons",)))}
    assert found["persons"].at_least
    assert not found["person_fields"].at_least
