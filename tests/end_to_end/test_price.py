"""The price of a first sync is known before it: of companies of five kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.world import Project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.proof

COMPANIES = {
    "dense": (3, Sizes(deals=2_000)),
    "sparse": (7, Sizes(deals=8_000, purged=0.75)),
    "without deals": (5, Sizes(deals=0)),
    "long, in windows": (13, Sizes(deals=25_000, activities=500, persons=300, organizations=200)),
    "mostly archived": (11, Sizes(deals=4_000, archived=0.9, activities=2_000, persons=1_000, organizations=500)),
}


@pytest.mark.parametrize("name", COMPANIES)
def test_a_first_sync_costs_what_the_plan_says(name: str, tmp_path: Path) -> None:
    seed, sizes = COMPANIES[name]
    with running(generate_company(seed, sizes), limits=Limits(burst=None, daily_tokens=None)) as box:
        project = Project(tmp_path / "project", burst=0, daily_tokens=0)
        project.configure(base_url=box.url, api_token=box.token)
        plan = project.here("plan", "--json")
        assert sum(seen.cost for seen in box.log) == plan.summary["measured"]["tokens"] <= 150
        box.clear_log()
        assert project.here("sync", "-q").code == 0
        for spent, unit in ((len(box.log), "requests"), (sum(seen.cost for seen in box.log), "tokens")):
            assert 0.9 * plan.summary[unit] <= spent <= 1.25 * plan.summary[unit], unit
            assert spent <= plan.summary[f"most_{unit}"]
        by_stream: dict[str, list[int]] = {}
        for line in plan.events[:-1]:
            by_stream.setdefault(line["name"], []).append(line["most_requests"] or 0)
        asked = project.ask("SELECT stream, requests FROM meta.streams")
        assert [(stream, n) for stream, n in asked if n > sum(by_stream[stream])] == []
