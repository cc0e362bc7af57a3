"""What was never read is measured for at most 150 tokens, once a day; what can't be measured is assumed and says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue, config
from pdsync.core.control import Control
from pdsync.core.control.sizes import ListSizes
from pdsync.errors import AuthError
from pdsync.runner.pipelines.forecast import forecast
from pdsync.runner.pipelines.list_cost import Assumption, assumption
from pdsync.runner.pipelines.measure import MOST_TOKENS, measure_unread
from pdsync.runner.sync.sync_request import SyncRequest

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.sandbox import RunningSandbox


@pytest.fixture
def settings(tmp_path: Path, box: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for setting in config.SETTINGS.values():
        monkeypatch.delenv(setting.env, raising=False)
    monkeypatch.setenv("PDSYNC_API_TOKEN", box.token)
    box.clear_log()
    return config.load(tmp_path, {"account.base_url": box.url, "limits.burst": "0"})


async def test_a_measurement_costs_at_most_150_tokens_and_is_good_for_a_day(
    settings: Settings, box: RunningSandbox
) -> None:
    measurement = await measure_unread(settings, SyncRequest())
    assert measurement is not None
    assert sum(seen.cost for seen in box.log) == measurement.tokens <= MOST_TOKENS == 150
    assert len(box.log) == measurement.requests
    assert {seen.method for seen in box.log} == {"GET"}
    box.clear_log()
    assert await measure_unread(settings, SyncRequest()) is None
    assert await measure_unread(settings, SyncRequest(("persons", "deal_products"))) is None
    assert len(box.log) == 0
    control = Control(settings.control)
    with control.transaction() as db:
        db.execute("UPDATE list_sizes SET measured_at = '2026-01-01'")
    control.close()
    assert await measure_unread(settings, SyncRequest()) is not None


async def test_every_list_of_a_sync_then_has_a_price_and_a_bound(settings: Settings) -> None:
    await measure_unread(settings, SyncRequest())
    found = forecast(settings, SyncRequest())
    assert [line.stream for line in found.lines if line.most_tokens is None or line.at_least] == []
    assert all(line.tokens <= (line.most_tokens or 0) for line in found.lines)
    assert found.totals()["most_tokens"] >= found.totals()["tokens"]
    assert "mail_threads" in found.totals()["assumed"]
    assert "persons" not in found.totals()["assumed"]
    assert not any(line.at_least for line in found.optional if line.stream == "deal_flow")


@pytest.mark.parametrize("status", [403, 415])
async def test_a_list_that_is_refused_takes_one_request(settings: Settings, box: RunningSandbox, status: int) -> None:
    box.faults.add(kind="status", status=status, path=r"/persons\?")
    try:
        await measure_unread(settings, SyncRequest(("persons", "organizations")))
    finally:
        box.faults.clear()
    control = Control(settings.control)
    sizes = ListSizes(control).load()
    control.close()
    assert (sizes["persons", "all"].rows, sizes["persons", "all"].is_assumed) == (0, False)
    assert not sizes["organizations", "all"].is_assumed


async def test_without_a_token_nothing_is_measured(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDSYNC_API_TOKEN", "0" * 40)
    with pytest.raises(AuthError):
        await measure_unread(settings, SyncRequest(("persons",)))
    assert forecast(settings, SyncRequest(("persons",))).totals()["at_least"]


def test_all_lists_that_a_nightly_sync_measures_are_assumed_in_sizes_toml() -> None:
    missing = [
        f"{stream.name}.{source.name}"
        for stream in catalogue.streams().values()
        if not stream.optional
        for version, sources in [stream.sources("v2")]
        for source in sources
        if catalogue.operations(version)[source.operation].paging != "none" and not source.parent
        if assumption(stream.name, source.name) == Assumption()
    ]
    assert missing == []
