"""A forecast goes by what the last walks read, asks nothing of anybody, and says when it does not know."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue, config
from pdsync.core.control import Control, SealedPage
from pdsync.model import Page
from pdsync.runner.pipelines.forecast import (
    IDENTITY_TOKENS,
    Forecast,
    ListForecast,
    forecast,
)
from pdsync.runner.sync.sync_request import SyncRequest

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.core.config import Settings

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for setting in config.SETTINGS.values():
        monkeypatch.delenv(setting.env, raising=False)
    return config.load(tmp_path)


def remember(
    settings: Settings, stream: str, pages: int, rows: int, *, since: datetime | None = None, source: str = "all"
) -> None:
    """A walk that was read to its end and applied."""
    control = Control(settings.control)
    walk = control.open_walk("run", stream, source, "v2", "x", since)
    for seq in range(pages):
        last = seq == pages - 1
        page = Page(walk.id, seq, b"", rows, None if last else "next", NOW)
        sealed = SealedPage(walk.id, seq, "f", 0, 0, rows, b"", page.next, NOW)
        control.record_pages([(page, sealed)])
    control.end_walk(walk.id, "applied")
    control.close()


def line(settings: Settings, stream: str, *, full: bool = False) -> ListForecast:
    return next(each for each in forecast(settings, SyncRequest((stream,), full)).lines if each.stream == stream)


def test_nothing_is_created_by_looking(settings: Settings) -> None:
    forecast(settings, SyncRequest())
    assert list(settings.project.iterdir()) == []


def test_what_was_never_read_is_a_page_at_least(settings: Settings) -> None:
    found = forecast(settings, SyncRequest())
    costs = {}
    for stream in catalogue.streams().values():
        version, sources = stream.sources("v2")
        if not stream.optional:
            costs[stream.name] = sum(catalogue.operations(version)[source.operation].cost or 0 for source in sources)
    totals = found.totals()
    assert totals["tokens"] == IDENTITY_TOKENS + sum(costs.values())
    assert totals["requests"] == 1 + len(found.lines)
    assert totals["at_least"] is True
    assert found.summary().startswith("At least ")


def test_the_next_sync_costs_what_the_last_changes_cost(settings: Settings) -> None:
    remember(settings, "persons", 12, 500)
    first = line(settings, "persons")
    assert (first.way, first.requests, first.tokens, first.at_least) == ("changes", 1, 10, False)
    remember(settings, "persons", 3, 500, since=NOW)
    again = line(settings, "persons")
    assert (again.way, again.requests, again.tokens) == ("changes", 3, 30)
    assert "1,500 rows" in again.basis


def test_a_full_sync_costs_what_the_last_full_one_cost(settings: Settings) -> None:
    remember(settings, "persons", 12, 500)
    remember(settings, "persons", 1, 3, since=NOW)
    found = line(settings, "persons", full=True)
    assert (found.way, found.requests, found.tokens) == ("full", 12, 120)


def test_a_list_that_is_always_read_whole_costs_the_same_each_time(settings: Settings) -> None:
    remember(settings, "pipelines", 1, 7)
    found = line(settings, "pipelines")
    assert (found.way, found.requests, found.tokens) == ("full", 1, 5)


def test_the_newest_walk_counts(settings: Settings) -> None:
    remember(settings, "persons", 12, 500)
    remember(settings, "persons", 2, 500)
    assert line(settings, "persons", full=True).requests == 2


def test_the_sentence_tells_share_and_time() -> None:
    lines = [ListForecast("deals", "getDeals", "v2", "full", 1199, 2998, "last time", False)]
    found = Forecast(lines, burst=20, daily_tokens=30_000)
    assert found.totals() == {
        "requests": 1200, "tokens": 3000, "daily_tokens": 30_000, "share": 0.1, "seconds": 120.0, "at_least": False,
    }  # fmt: skip
    assert found.summary() == (
        "About 1,200 requests, 3,000 tokens, 10.0% of a day's 30,000, 2 min at 20 requests per 2 s."
    )
    unlimited = Forecast(lines, burst=0, daily_tokens=0)
    assert unlimited.summary() == "About 1,200 requests, 3,000 tokens."
    assert (unlimited.totals()["share"], unlimited.totals()["seconds"]) == (None, None)
