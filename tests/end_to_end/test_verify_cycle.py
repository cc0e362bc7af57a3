"""Every stream is verified within the cycle: by each sync, or when its turn comes; no stream is left out."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from msgspec.structs import replace

from pdsync.core import catalogue, config
from pdsync.model import Page, Walk
from pdsync.runner.loader import Loader
from pdsync.runner.pipelines import forecast
from pdsync.runner.reconcile import rotation
from pdsync.runner.reconcile.rotation import way_of
from pdsync.runner.sync.sync_request import SyncRequest
from pdsync.sandbox import Limits, Sizes, generate_company, running
from pdsync.sandbox.company.table import encode
from pdsync.sandbox.operations.generic_records import records_at
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.model import Version
    from pdsync.sandbox import RunningSandbox

pytestmark = pytest.mark.proof

DAY = 86_400
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
NIGHTLY = ["deals", "deal_products", "deal_installments", "roles", "deal_files", "deal_followers"]
RECORDS = {
    "deals": b'{"data":[%b]}'
    % b",".join(
        b'{"id":%d,"products_count":1,"files_count":2,"followers_count":3,"participants_count":0}' % id
        for id in range(1, 31)
    ),
    "deal_products": b'{"data":[%b]}' % b",".join(b'{"id":%d,"deal_id":%d}' % (id, id) for id in range(1, 31)),
}
STREAMS = catalogue.streams()
# Whose content depends on a period, a currency or a status that is chosen when it is read.
CHOSEN = {
    "archived_deals_summary", "archived_deals_timeline", "deals_summary", "deals_timeline", "goal_results",
    "pipeline_conversion_statistics", "pipeline_movement_statistics",
}  # fmt: skip


def streams_of(*ways: str, api: Version = "v2") -> set[str]:
    return {name for name, stream in STREAMS.items() if way_of(stream, api) in ways}


@pytest.mark.parametrize("api", ["v1", "v2"])
def test_s6_no_stream_is_left_out_but_those_that_depend_on_what_is_chosen(api: Version) -> None:
    assert streams_of("never", api=api) == CHOSEN
    assert streams_of("once", api=api) == {"mail_message_bodies"}  # what was read does not change
    assert streams_of("every_sync", "in_turn", "by_count", "by_record", "once", "never", api=api) == STREAMS.keys()


def test_streams_take_turns_unless_every_sync_reads_all_of_them() -> None:
    read_whole = {
        name for name, stream in STREAMS.items()
        if all(source.way == "full" and not source.params for source in stream.sources("v2")[1])
    }  # fmt: skip
    assert streams_of("every_sync") == read_whole
    assert {"deals", "persons", "notes", "files", "deal_products", "deal_installments"} <= streams_of("in_turn")
    assert {"deal_participants", "deal_followers", "mail_messages"} <= streams_of("by_count")
    assert {"deal_files", "note_comments", "deal_permitted_users"} <= streams_of("by_record")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has read every stream, nine days ago; and users now, which tells the time."""
    folder = tmp_path_factory.mktemp("rotation")
    loader = Loader(config.load(folder).warehouse)
    loader.path.parent.mkdir()
    loader.open(1, "Example")
    number = 0
    for at in (NOW - timedelta(days=9), NOW):
        for stream in STREAMS.values() if at < NOW else [STREAMS["users"]]:
            version, sources = stream.sources("v2")
            for source in sources:
                number += 1
                walk = Walk(number, "run", stream.name, source.name, version, source.operation, None, at)
                body = RECORDS.get(stream.name, b"") if source == sources[0] else b""
                asyncio.run(loader.add(stream, walk, [Page(number, 0, body, 0, None, at)]))
    asyncio.run(loader.close())
    return folder


@pytest.fixture
def settings(folder: Path) -> Settings:
    return config.load(folder)


def due(settings: Settings) -> dict[str, int]:
    """The streams whose turn it is: name → tokens."""
    return {turn.stream: turn.tokens for turn in rotation.select_due(settings, list(STREAMS))}


def test_s6_every_stream_that_takes_turns_is_due_within_the_cycle(settings: Settings) -> None:
    assert due(settings).keys() == streams_of("in_turn", "by_count", "by_record")
    assert due(replace(settings, verify_cycle=0)) == {}


def test_l5_the_price_of_a_turn_is_that_of_its_lists(settings: Settings) -> None:
    prices = due(settings)
    assert prices["deal_products"] == prices["deal_installments"] == 10  # a hundred deals a request
    assert prices["deal_files"] == 30 * 20
    assert prices["deal_followers"] == 30 * 10  # the counts say three, and there is no row
    assert prices["deal_participants"] == 0  # the counts say none


def test_l5_lists_of_each_record_take_a_turn_as_far_as_their_share_suffices(settings: Settings) -> None:
    everything = due(replace(settings, daily_tokens=0))
    dependents = {name for name in everything if STREAMS[name].parents("v2")}
    for share, dear in ((25, {"deal_files"}), (3, {"deal_files", "deal_followers"}), (0, {"deal_installments"})):
        chosen = due(replace(settings, daily_tokens=1000, dependents_share=share))
        assert chosen.keys() - dependents == everything.keys() - dependents
        assert sum(chosen[name] for name in chosen.keys() & dependents) <= 1000 * share // 100
        assert not dear & chosen.keys()
        assert "deal_products" in chosen
    assert chosen["deal_products"] == 0  # the counts of the deals cost nothing, and none differs


def test_l5_what_costs_more_than_the_share_is_named_with_its_price(settings: Settings) -> None:
    tight = replace(settings, daily_tokens=1000, dependents_share=25)
    assert rotation.find_too_expensive(tight, list(STREAMS))["deal_files"] == 30 * 20
    assert rotation.find_too_expensive(tight, ["deal_products", "deal_followers", "users"]) == {}
    assert rotation.find_too_expensive(replace(settings, daily_tokens=0), list(STREAMS)) == {}
    request = SyncRequest(("deals", "deal_files"))
    assert forecast.forecast(tight, request, with_verification=True).unverified == {"deal_files": 600}
    assert forecast.forecast(tight, request).unverified == {}


def test_s6_rows_of_deleted_parents_are_not_due_again_every_night(folder: Path, settings: Settings) -> None:
    with duckdb.connect(str(settings.warehouse)) as connection:
        connection.begin()
        connection.execute("UPDATE meta.checkpoints SET full_at = ? WHERE stream = 'deal_products'", [NOW])
        connection.execute("UPDATE main.deal_products SET _verified_at = ? WHERE deal_id <> 5", [NOW])
        connection.commit()
    assert "deal_products" in due(settings)  # one row was not seen
    with duckdb.connect(str(settings.warehouse)) as connection:
        connection.execute("UPDATE main.deals SET _deleted_at = ? WHERE id = 5", [NOW])
    assert "deal_products" not in due(settings)


@pytest.fixture(scope="module")
def box() -> Iterator[RunningSandbox]:
    company = generate_company(seed=11, sizes=Sizes(deals=14, products=6, files=4, mail_threads=3), now=NOW)
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        yield box


@pytest.fixture(scope="module")
def project(box: RunningSandbox, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that has read deals and what hangs on them, nine days ago."""
    project = Project(tmp_path_factory.mktemp("night") / "project")
    project.configure(base_url=box.url, api_token=box.token)
    (project.folder / "pipelines").mkdir()
    text = f'description = "x"\nverify = true\nstreams = {json.dumps(NIGHTLY)}\n'
    (project.folder / "pipelines" / "nightly.toml").write_text(text)
    assert project.here("sync", "-q").code == 0
    box.clock.advance(9 * DAY)
    assert project.here("sync", "-q", "deals").code == 0  # the server's time is known
    return project


@pytest.fixture(scope="module")
def night(box: RunningSandbox, project: Project) -> dict[str, Any]:
    """What moved no time of change, and a nightly run later."""
    items = project.ask("SELECT deal_id, min(id) FROM deal_products GROUP BY 1 ORDER BY 1")
    deal, item = items[0]
    silently_change(box, "deal_products", deal, item, quantity=77.0)
    parts = project.ask("SELECT deal_id, min(id) FROM deal_installments GROUP BY 1 ORDER BY 1")
    dealt, part = parts[-1]
    silently_change(box, "deal_installments", dealt, part, description="another text")
    role = project.ask("SELECT max(id) FROM roles")[0][0]
    box.act("DELETE", f"/v1/roles/{role}")
    planned = project.here("plan", "--json")
    box.log.clear()
    ran = project.here("sync", "--json")
    assert ran.code == 0, ran
    return {"item": item, "part": part, "role": role, "planned": planned, "ran": ran, "log": list(box.log)}


def silently_change(box: RunningSandbox, kind: str, deal: int, id: int, **values: object) -> None:
    """Change a record of a deal without the deal, or any time, telling of it."""
    parts = ("deals", "{}", kind.removeprefix("deal_"))
    rows = dict(records_at(box.company, parts, (str(deal),)))
    row = rows[str(id)]
    rows[str(id)] = replace(row, body=encode({**row.record, **values}))
    box.company.collections[kind, (str(deal),)] = rows


def test_s6_line_items_and_installments_are_compared_value_by_value(night: dict[str, Any], project: Project) -> None:
    assert project.ask("SELECT quantity FROM deal_products WHERE id = ?", night["item"]) == [(77.0,)]
    assert project.ask("SELECT description FROM deal_installments WHERE id = ?", night["part"]) == [("another text",)]
    verified = night["ran"].summary["verified"]["streams"]
    assert verified.keys() >= {"deals", "deal_products", "deal_installments", "deal_files", "deal_followers"}
    found = project.ask("SELECT stream, key, repaired FROM meta.findings WHERE kind = 'stale' ORDER BY 1")
    assert found == [
        ("deal_installments", str(night["part"]), True),
        ("deal_products", str(night["item"]), True),
    ]


def test_s6_the_lists_of_a_hundred_deals_are_one_request(night: dict[str, Any], project: Project) -> None:
    deals = project.ask("SELECT count(DISTINCT deal_id) FROM deal_products")[0][0]
    assert 0 < deals < 100
    requests = [entry for entry in night["log"] if entry.operation == "getDealsProducts"]
    assert len(requests) == 2  # all of them, and those of the difference once more
    assert requests[0].query.count("%2C") == deals - 1


def test_s6_what_left_a_list_that_every_sync_reads_is_looked_into(night: dict[str, Any], project: Project) -> None:
    rows = project.ask("SELECT _deleted_at IS NOT NULL FROM roles WHERE id = ?", night["role"])
    assert rows == [(True,)]
    assert "roles" in night["ran"].summary["verified"]["streams"]


def test_s6_the_plan_has_the_price_of_every_turn(night: dict[str, Any]) -> None:
    planned = {each["name"]: each["tokens"] for each in night["planned"].events[:-1] if each["way"] == "verify"}
    verified = night["ran"].summary["verified"]
    # The sync had not seen yet that a role is missing.
    assert planned.keys() == verified["streams"].keys() - {"roles"}
    assert sum(planned.values()) <= verified["tokens"] <= sum(planned.values()) + 100
