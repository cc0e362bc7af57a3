"""One fault each: the run gives the same tables, or names the incomplete stream; it never loses a row silently.

The rows of the fault matrix that a reading run can meet. `retried`: the run cures it by itself. `gap`: that stream
fails, the others are committed, and the next run brings what is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support import knobs
from tests.support.truth import differences
from tests.support.world import Project, Remote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.sandbox import RunningSandbox

LISTS = ("deals", "stages")
DEALS = "/api/v2/deals\\?"
PAGE_ROWS = 25

RETRIED: dict[str, dict[str, Any]] = {
    "4 reset before the answer": {"kind": "reset_before", "path": DEALS, "nth": 2},
    "5 reset in place of the answer": {"kind": "reset_after", "path": DEALS, "nth": 2},
    "6 truncated body": {"kind": "truncate", "path": DEALS, "nth": 2},
    "6 truncated to nothing": {"kind": "truncate", "path": DEALS, "nth": 1, "at": 0},
    "6 wrong length": {"kind": "wrong_length", "path": DEALS, "nth": 2},
    "7 500": {"kind": "status", "status": 500, "path": DEALS, "nth": 1},
    "7 502 as HTML": {"kind": "status", "status": 502, "html": True, "path": DEALS, "nth": 2, "times": 3},
    "7 503": {"kind": "status", "status": 503, "path": DEALS, "nth": 3, "times": 2},
    "7 504": {"kind": "status", "status": 504, "path": DEALS, "nth": 2},
    "8 burst 429": {"kind": "burst_429", "path": DEALS, "nth": 2},
    "15 no additional_data, once": {"kind": "missing_additional_data", "path": DEALS, "nth": 1},
    "15 null in place of records, once": {"kind": "null_data", "path": DEALS, "nth": 2},
    "24 HTML with status 200, once": {"kind": "html_200", "path": DEALS, "nth": 2},
}
GAPS: dict[str, dict[str, Any]] = {
    "4 reset every time": {"kind": "reset_before", "path": DEALS},
    "6 truncated every time": {"kind": "truncate", "path": DEALS},
    "7 a storm of 503": {"kind": "status", "status": 503, "path": DEALS},
    "11 403 for the stream": {"kind": "permission_403", "path": DEALS},
    "14 cursor refused": {"kind": "invalid_cursor", "path": f"{DEALS}.*cursor="},
    "15 cursor loop": {"kind": "cursor_loop", "path": DEALS},
    "15 the same page again": {"kind": "repeat_page", "path": DEALS, "nth": 3, "times": 99},
    "15 no additional_data": {"kind": "missing_additional_data", "path": DEALS},
    "15 null in place of records": {"kind": "null_data", "path": DEALS},
    "24 HTML with status 200": {"kind": "html_200", "path": DEALS},
    "34 redirect": {"kind": "redirect", "path": DEALS, "to": "http://127.0.0.1:1/elsewhere"},
}
CODES = {"11 403 for the stream": 4}


@pytest.fixture(scope="module")
def company() -> Iterator[RunningSandbox]:
    with running(
        generate_company(seed=4, sizes=Sizes(deals=100)),
        limits=Limits(burst=None, search_burst=None, daily_tokens=None),
    ) as box:
        yield box


@pytest.fixture(autouse=True)
def _small(company: RunningSandbox) -> Iterator[None]:
    with knobs.smaller_pages(PAGE_ROWS):
        yield
    company.faults.clear()
    company.clear_log()


@pytest.fixture
def ready(company: RunningSandbox, project: Project) -> Project:
    return project.configure(base_url=company.url, api_token=company.token)


def wrong_in(project: Project, box: RunningSandbox) -> list[str]:
    with project.warehouse() as warehouse:
        return [line for stream in LISTS for line in differences(warehouse, stream, box.dump(stream))]


@pytest.mark.parametrize("fault", RETRIED.values(), ids=RETRIED)
def test_s9_a_transient_fault_leaves_no_trace(company: RunningSandbox, ready: Project, fault: dict[str, Any]) -> None:
    company.faults.add(fault)
    ran = ready.here("sync", *LISTS, "--json")
    assert ran.code == 0, ran
    assert company.faults.scripted[0].struck > 0
    assert ran.summary["complete"] is True
    assert wrong_in(ready, company) == []


@pytest.mark.parametrize("name", GAPS)
def test_s9_s10_a_permanent_fault_is_named_and_leaves_the_other_streams_alone(
    company: RunningSandbox, ready: Project, name: str
) -> None:
    company.faults.add(GAPS[name])
    ran = ready.here("sync", *LISTS, "--json")
    assert company.faults.scripted[0].struck > 0
    assert ran.code == CODES.get(name, 1), ran
    assert ran.summary["complete"] is False
    assert [gap["stream"] for gap in ran.summary["gaps"]] == ["deals"]
    assert ran.summary["gaps"][0]["detail"]
    told = {stream: receipt["complete"] for stream, receipt in ran.summary["streams"].items()}
    assert told == {"deal_fields": True, "deals": False, "stages": True}
    with ready.warehouse() as warehouse:
        assert differences(warehouse, "stages", company.dump("stages")) == []
    # S4: no watermark stands where a row is missing.
    assert ready.ask("SELECT count(*) FROM meta.checkpoints WHERE stream = 'deals' AND source = 'live'") == [(0,)]

    company.faults.clear()
    again = ready.here("sync", *LISTS, "--json")
    assert again.code == 0, again
    assert wrong_in(ready, company) == []


def test_s9_an_unreachable_server_fails_and_the_next_run_brings_everything(
    company: RunningSandbox, ready: Project
) -> None:
    """Row 3, in the middle of a run: the sandbox is away from the third request on."""
    company.faults.add(kind="reset_before", nth=3, times=10**6)
    ran = ready.here("sync", *LISTS, "--json")
    assert ran.code == 1, ran
    assert {gap["stream"] for gap in ran.summary["gaps"]} >= {"deals", "stages"}
    company.faults.clear()
    assert ready.here("sync", *LISTS).code == 0
    assert wrong_in(ready, company) == []


def test_s9_a_token_that_is_refused_in_the_middle_names_the_streams_that_it_cost(
    company: RunningSandbox, ready: Project
) -> None:
    """Row 13, for a token that can't be refreshed."""
    company.faults.add(kind="401", path=DEALS, nth=3, times=10**6)
    ran = ready.here("sync", *LISTS, "--json")
    assert ran.code != 0, ran
    assert "deals" in {gap["stream"] for gap in ran.summary["gaps"]}
    company.faults.clear()
    assert ready.here("sync", *LISTS).code == 0
    assert wrong_in(ready, company) == []


def test_s9_a_cursor_that_expired_between_two_runs_starts_the_list_again(
    company: RunningSandbox, ready: Project
) -> None:
    """Row 14: the place where a stopped run left off is no longer there."""
    company.faults.add(kind="daily_429", path=DEALS, nth=3, times=10**6)
    assert ready.here("sync", *LISTS).code == 3
    company.faults.clear()
    company.faults.add(kind="invalid_cursor", path=f"{DEALS}.*cursor=", nth=1)
    ran = ready.here("sync", *LISTS, "--json")
    assert company.faults.scripted[0].struck == 1
    assert ran.code == 0, ran
    assert wrong_in(ready, company) == []


def test_s9_a_record_that_no_column_fits_is_kept_and_reported(company: RunningSandbox, ready: Project) -> None:
    """Row 24: an id that is no number. The rest of the page is loaded, and the run says what it left out."""
    company.faults.add(kind="mutate", path="/api/v2/products", nth=1, find='"id":2,', replace='"id":"two",')
    ran = ready.here("sync", "products", "--json")
    assert company.faults.scripted[0].struck == 1
    assert ran.code == 1, ran
    assert [(gap["stream"], gap["kind"]) for gap in ran.summary["gaps"]] == [("products", "quarantined")]
    kept = ready.ask("SELECT stream, decode(record) FROM meta.quarantine")
    assert [(stream, '"two"' in record) for stream, record in kept] == [("products", True)]
    with ready.warehouse() as warehouse:
        assert differences(warehouse, "products", company.dump("products")) == ["products: 2 is missing"]


# Companies that move while they are read.


@pytest.fixture
def moving(project: Project) -> Iterator[RunningSandbox]:
    with running(
        generate_company(seed=8, sizes=Sizes(deals=200)),
        limits=Limits(burst=None, search_burst=None, daily_tokens=None),
    ) as box:
        project.configure(base_url=box.url, api_token=box.token)
        yield box


@pytest.mark.parametrize("api", ["v2", "v1"])
@pytest.mark.proof
def test_s3_what_changes_while_it_is_read_is_there_after_the_next_run(
    moving: RunningSandbox, project: Project, api: str
) -> None:
    lists = ("deals", "persons", "products", "activities", "files")
    with knobs.smaller_pages(12):
        moving.live(every=3, records=2)
        assert project.here("sync", *lists, "--api", api).code == 0
        moving.live(None)
        assert len(moving.journal) > 60  # it did move
        assert project.here("sync", *lists, "--api", api).code == 0
    found = []
    with project.warehouse() as warehouse:
        for stream in lists:
            rows = warehouse.execute(f"SELECT id, update_time FROM main.{stream}").fetchall()
            have = dict(rows)
            assert len(have) == len(rows)
            for entry in moving.dump(stream):
                if entry["state"] not in ("live", "archived"):
                    continue
                id, wanted = entry["id"], entry["record"]["update_time"]
                moment = f"{have[id]:%Y-%m-%dT%H:%M:%SZ}" if have.get(id) else None
                if id not in have or moment != wanted:
                    found.append(f"{stream} {id}: {moment if id in have else 'missing'}, the truth is {wanted}")
    assert found == []


def test_s3_more_deletions_between_two_pages_than_pages_overlap_let_nothing_slip_through(
    moving: RunningSandbox, project: Project
) -> None:
    """Offsets count from the start: whatever leaves the list before them moves the rest towards it."""
    with knobs.smaller_pages(12):
        moving.live(every=1, records=36, kinds=("deals",), only=("deleted",))
        ran = project.here("sync", "deals", "--api", "v1", "--json")
        moving.live(None)
    assert ran.code == 0, ran
    entries = moving.dump("deals")
    assert sum(entry.op == "delete" for entry in moving.journal) > 20
    have = {row[0] for row in project.ask("SELECT id FROM main.deals")}
    assert {entry["id"] for entry in entries if entry["state"] in ("live", "archived")} - have == set()


def test_s5_records_of_one_second_are_each_stored_once_across_pages_and_runs(
    moving: RunningSandbox, project: Project
) -> None:
    remote = Remote(moving.url, moving.token)
    instant = moving.company.clock.stamp()
    ids = [entry["id"] for entry in moving.dump("deals") if entry["state"] == "live"]
    for id in ids:
        remote.post("edit", kind="deals", id=id, set={"update_time": instant})
    with knobs.smaller_pages(12):
        assert project.here("sync", "deals").code == 0
        for id in ids[::2]:  # a second edit within the same second
            remote.post("edit", kind="deals", id=id, set={"title": f"again {id}", "update_time": instant})
        assert project.here("sync", "deals").code == 0
        third = project.here("sync", "deals", "--json")
    assert third.written["deals"] == 0
    assert project.ask("SELECT count(*), count(DISTINCT id) FROM main.deals WHERE id IN ?", ids) == [(len(ids),) * 2]
    assert project.ask("SELECT id FROM main.deals WHERE title = 'again ' || id ORDER BY id") == [(i,) for i in ids[::2]]
    with project.warehouse() as warehouse:
        assert differences(warehouse, "deals", moving.dump("deals")) == []
