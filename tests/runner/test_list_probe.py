"""The size of a list from a few requests: exact where its end was seen, never above the bound, near for any ids."""

from __future__ import annotations

from random import Random

import pytest

from pdsync.core import catalogue
from pdsync.runner.pipelines.list_probe import ListProbe

RANDOM = Random(5)


def probe_of(stream: str, source: str = "all") -> ListProbe:
    entry = catalogue.stream(stream)
    version, sources = entry.sources("v2")
    found = next(each for each in sources if each.name == source)
    probe = ListProbe(entry, found, version, catalogue.operations(version)[found.operation])
    probe.assume(10_000)
    return probe


def answer(probe: ListProbe, ids: list[int]) -> None:
    """Answer the next request of `probe` as a list of `ids` does."""
    query = probe.next_query()
    size = probe.operation.page_size or 1
    if "ids" in query:
        wanted = set(map(int, query["ids"].split(",")))
        assert len(wanted) <= 100
        probe.learn([each for each in ids if each in wanted], more=False)
        return
    is_newest = query.get("sort_direction") == "desc" or query.get("sort") == "id DESC"
    start = int(query.get("start", 0))
    rest = (ids[::-1] if is_newest else ids)[start:]
    probe.learn(rest[:size], more=len(rest) > size)


COMPANIES = {
    "none": [],
    "one page": list(range(1, 401)),
    "a page and one": list(range(1, 502)),
    "dense": [each for each in range(1, 20_001) if each % 20],
    "sparse": sorted(RANDOM.sample(range(1, 400_001), 20_000)),
    "very sparse": sorted(RANDOM.sample(range(1, 10**7), 20_000)),
    "old ones are gone": [*RANDOM.sample(range(1, 15_001), 1_500), *range(15_001, 20_001)],
    "new ones are few": [*range(1, 10_001), *sorted(RANDOM.sample(range(10_001, 60_001), 5_000))],
}


@pytest.mark.parametrize("stream", ["persons", "notes", "leads"])
@pytest.mark.parametrize("name", COMPANIES)
def test_the_size_is_near_and_never_above_the_bound(name: str, stream: str) -> None:
    ids = sorted(COMPANIES[name])
    probe = probe_of(stream, "live" if stream == "leads" else "all")
    while probe.can_be_probed:
        answer(probe, ids)
    size = probe.size()
    assert size.rows <= size.most
    assert len(ids) <= size.most or size.is_assumed
    if stream == "leads":  # no ids to go by: three requests are near only within what they leave open
        assert abs(size.rows - len(ids)) <= max(size.most - probe.seen, 0)
    elif probe.is_exact or name in ("none", "one page"):
        assert size.rows == size.most == len(ids)
    elif stream == "persons" or "few" not in name:  # notes take no ids, so three requests find no such end
        assert 0.8 * len(ids) <= size.rows <= (1.25 if stream == "persons" else 1.3) * len(ids)


def test_nothing_is_requested_once_the_size_is_exact() -> None:
    probe = probe_of("persons")
    answer(probe, [3, 4, 9])
    assert (probe.size().rows, probe.size().most, probe.is_exact, probe.can_be_probed) == (3, 3, True, False)
    assert probe.doubt(10) == 0


def test_a_refused_list_takes_one_request() -> None:
    probe = probe_of("call_logs")
    probe.refuse()
    assert (probe.size().rows, probe.size().most, probe.size().is_assumed) == (0, 0, False)


def test_a_list_that_can_not_be_measured_stays_assumed() -> None:
    probe = probe_of("tasks")
    assumed = probe.size()
    probe.give_up()
    assert not probe.can_be_probed
    assert probe.size() == assumed
    assert assumed.is_assumed


def test_ids_that_a_list_lacks_may_be_in_its_twin() -> None:
    live, archived = probe_of("deals", "live"), probe_of("deals", "archived")
    answer(live, [*range(1, 100), *range(3_901, 4_001)])
    assert live.is_exact
    archived.assume(200, live.missing_ids)
    assert live.missing_ids == 4_000 - 199
    assert archived.size().rows > 1_000
    assert archived.size().most >= 3_801
    assert archived.doubt(0) > 0
