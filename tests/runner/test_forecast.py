"""A forecast goes by what the last walks read, asks nothing of anybody, and says when it does not know."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue, config
from pdsync.core.control import Control, SealedPage
from pdsync.core.control.sizes import ListSize, ListSizes
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


def test_l5_lists_of_parents_with_more_than_a_page_cost_what_they_cost_last_time(settings: Settings) -> None:
    remember(settings, "role_settings", 7, 1)
    assert line(settings, "role_settings").requests == 7


def test_the_newest_walk_counts(settings: Settings) -> None:
    remember(settings, "persons", 12, 500)
    remember(settings, "persons", 2, 500)
    assert line(settings, "persons", full=True).requests == 2


def test_the_sentence_tells_share_and_time() -> None:
    lines = [ListForecast("deals", "getDeals", "v2", "full", 1199, 2998, "last time", False)]
    found = Forecast(lines, burst=20, daily_tokens=30_000)
    assert found.totals() == {
        "requests": 1200, "tokens": 3000, "daily_tokens": 30_000, "share": 0.1, "seconds": 120.0, "at_least": False,
        "most_requests": None, "most_tokens": None, "assumed": [],
    }  # fmt: skip
    assert found.summary() == (
        "About 1,200 requests, 3,000 tokens, 10.0% of a day's 30,000, 2 min at 20 requests per 2 s."
    )
    unlimited = Forecast(lines, burst=0, daily_tokens=0)
    assert unlimited.summary() == "About 1,200 requests, 3,000 tokens."
    assert (unlimited.totals()["share"], unlimited.totals()["seconds"]) == (None, None)


def measure(settings: Settings, *sizes: ListSize) -> None:
    control = Control(settings.control)
    ListSizes(control).save(sizes)
    control.close()


def test_a_list_that_was_measured_has_a_likely_price_and_an_upper_bound(settings: Settings) -> None:
    measure(settings, ListSize("persons", "all", "v2", 7_116, 7_473, "measured"))
    found = line(settings, "persons")
    assert (found.way, found.rows, found.requests, found.tokens, found.at_least) == ("full", 7_116, 16, 160, False)
    assert (found.most_rows, found.most_requests, found.most_tokens) == (7_473, 17, 170)
    remember(settings, "persons", 12, 500)
    assert line(settings, "persons", full=True).requests == 12  # what was read counts, once there is something
    assert line(settings, "persons", full=True).most_requests is None


def test_the_lists_of_measured_parents_have_a_price(settings: Settings) -> None:
    sizes = [
        ListSize("deals", "live", "v2", 1_500, 2_000, "measured"),
        ListSize("deals", "archived", "v2", 500, 1_000, "measured"),
    ]
    measure(settings, *sizes)
    assert (line(settings, "deal_products").requests, line(settings, "deal_products").most_requests) == (20, 30)
    assert line(settings, "deal_flow").tokens == 2_000 * 40
    measure(settings, ListSize("deals", "products_count", "v2", 450, 900, "22 % of the deals"))
    assert (line(settings, "deal_products").requests, line(settings, "deal_products").most_requests) == (5, 9)


def test_the_total_has_a_bound_only_if_each_list_has_one(settings: Settings) -> None:
    bounded = ListForecast(
        "deals", "getDeals", "v2", "full", 20, 200, "measured", False, most_requests=30, most_tokens=300
    )
    assumed = ListForecast("roles", "getRoles", "v1", "full", 1, 20, "assumed", False, None, None, 2, 40, True)
    totals = Forecast([bounded, assumed], 20, 30_000).totals()
    assert (totals["most_requests"], totals["most_tokens"], totals["assumed"]) == (33, 342, ["roles"])
    assert (
        "At most 33 requests, 342 tokens, if what was not measured is no larger than assumed (roles)."
        in Forecast([bounded, assumed], 20, 30_000).summary()
    )
    read = ListForecast("users", "getUsers", "v1", "full", 1, 20, "last time", False)
    assert Forecast([bounded, read], 20, 30_000).totals()["most_tokens"] is None
    assert "At most" not in Forecast([bounded, read], 20, 30_000).summary()
