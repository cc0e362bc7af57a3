"""The company itself: the same for the same seed, as large as asked, and believable."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pdsync.sandbox import Company, Limits, Sizes, generate_company, running
from pdsync.sandbox.server.admin import DUMPED
from pdsync.sandbox.server.truth import dump, summary

from .api import Api
from .conftest import NOW

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.sandbox.company.table import Row

EVERY_TYPE = {
    *("varchar", "varchar_auto", "text", "double", "monetary", "date", "daterange", "time", "timerange"),
    *("enum", "set", "user", "org", "people", "phone", "address", "int", "boolean", "visible_to"),
}


def everything(company: Company) -> list[object]:
    return [entry for kind in DUMPED for entry in dump(company, kind)]


@pytest.fixture(scope="module")
def large() -> Company:
    return generate_company(seed=3, sizes=Sizes(deals=3000), now=NOW)


def test_the_same_seed_gives_the_same_company() -> None:
    first, second = (generate_company(seed=5, sizes=Sizes(deals=60), now=NOW) for _ in range(2))
    assert everything(first) == everything(second)
    other = generate_company(seed=6, sizes=Sizes(deals=60), now=NOW)
    assert everything(other) != everything(first)
    assert set(other.fields["deals"].custom).isdisjoint(first.fields["deals"].custom)


@pytest.mark.parametrize("days", [1, 5, 40, 300])
def test_the_company_of_another_day_has_the_same_records(days: int) -> None:
    today, then = (
        generate_company(seed=5, sizes=Sizes(deals=300), now=NOW + timedelta(days=late, hours=late))
        for late in (0, days)
    )
    for kind in ("deals", "persons", "organizations", "activities", "products", "files"):
        assert {id: (row.state, names(row)) for id, row in then[kind].rows.items()} == {
            id: (row.state, names(row)) for id, row in today[kind].rows.items()
        }
        assert then[kind].removed.keys() == today[kind].removed.keys()


def names(row: Row) -> dict[str, object]:
    """What a record says that no time can change."""
    told = ("title", "name", "subject", "owner_id", "person_id", "org_id", "value", "currency", "emails")
    return {name: row.record[name] for name in told if name in row.record}


def test_more_files_do_not_change_the_deals() -> None:
    few, many = (generate_company(seed=5, sizes=Sizes(deals=60, files=n), now=NOW) for n in (0, 50))
    assert next(iter(dump(few, "deals")))["record"]["title"] == next(iter(dump(many, "deals")))["record"]["title"]
    assert [row.body for row in few["deals"].rows.values()] == [row.body for row in many["deals"].rows.values()]


@pytest.mark.parametrize(
    "none", ["deals", "persons", "organizations", "products", "activities", "files", "mail_threads", "pipelines"]
)
def test_a_company_may_lack_anything(none: str) -> None:
    company = generate_company(seed=1, sizes=Sizes(**{"deals": 20, none: 0}), now=NOW)
    assert not company[none].rows
    with running(company, limits=Limits(burst=None)) as box:
        path = "/v1/mailbox/mailThreads" if none == "mail_threads" else f"/v1/{none}"
        assert Api(box).get(path).data is None
        box.change(share=0.2)
        assert len(everything(company)) > 0


def test_ids_may_be_sparse_and_deals_mostly_archived() -> None:
    usual, sparse, archived = (
        generate_company(seed=2, sizes=Sizes(deals=400, purged=purged, archived=share), now=NOW)
        for purged, share in ((0.0, None), (0.75, None), (0.0, 0.9))
    )
    for kind in ("deals", "persons", "activities"):
        assert 0.2 < len(sparse.tables[kind].rows) / len(usual.tables[kind].rows) < 0.3
        assert sparse.last_ids[kind] == usual.last_ids[kind]
    states = Counter(entry["state"] for entry in map(dict, dump(archived, "deals")))
    assert states["archived"] > 0.8 * states.total()
    oldest = sorted((entry["id"], entry["state"]) for entry in map(dict, dump(archived, "deals")))
    assert {state for id, state in oldest if id > 360}.isdisjoint({"archived"})


def test_one_user_is_the_least() -> None:
    assert list(generate_company(sizes=Sizes(deals=2, users=0), now=NOW).tokens) == ["admin"]


def test_two_companies_are_told_apart() -> None:
    with (
        running(generate_company(sizes=Sizes(deals=2), company_id=1)) as one,
        running(generate_company(sizes=Sizes(deals=2), company_id=2)) as two,
    ):
        assert Api(one).get("/v1/users/me").data["company_id"] == 1
        assert Api(two).get("/v1/users/me").data["company_id"] == 2
        assert Api(two, one.token).get("/v1/users/me").status == 401


def test_values_are_skewed_and_times_are_those_of_work(large: Company) -> None:
    records = [entry["record"] for entry in dump(large, "deals")]
    values = [record["value"] for record in records if record["currency"] == "EUR" and record["value"]]
    assert statistics.mean(values) > 1.3 * statistics.median(values)
    assert len({record["currency"] for record in records}) >= 5
    born = [datetime.fromisoformat(record["add_time"]) for record in records]
    assert born == sorted(born)
    assert sum(moment.weekday() < 5 for moment in born) > 0.9 * len(born)
    assert sum(7 <= moment.hour <= 17 for moment in born) > 0.9 * len(born)
    years = Counter((NOW - moment).days // 365 for moment in born)
    assert years[0] > years[1] > years[2] > 0
    assert all(record["update_time"] is None or record["update_time"] <= "2026-11-22T12:00:00Z" for record in records)
    assert max(born) <= datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_imports_and_bulk_edits_share_a_second(large: Company) -> None:
    records = [entry["record"] for entry in dump(large, "deals")]
    for name in ("add_time", "update_time"):
        (_, most), *_ = Counter(record[name] for record in records).most_common(1)
        assert most > 60


def test_shares_are_about_right(large: Company) -> None:
    counts = summary(large)["deals"]
    total = sum(counts.values())
    assert total == 3000
    assert 0.02 < (counts["deleted"] + counts["purged"]) / total < 0.04
    assert 0.03 < counts["archived"] / total < 0.05
    assert 0.005 < counts["merged"] / total < 0.015
    records = [entry["record"] for entry in dump(large, "deals")]
    status = Counter(record["status"] for record in records)
    assert all(status[name] > 0.1 * total for name in ("open", "won", "lost"))
    assert 0.05 < sum(r["update_time"] in (None, r["add_time"]) for r in records) / total < 0.2
    assert any(record["update_time"] is None for record in records)


def test_times_and_status_of_deals_hold_together(large: Company) -> None:
    for entry in dump(large, "deals"):
        record = entry["record"]
        assert (record["won_time"] is not None) == (record["status"] == "won")
        assert (record["lost_time"] is not None) == (record["status"] == "lost")
        assert (record["close_time"] is None) == (record["status"] == "open")
        for name in ("won_time", "lost_time", "stage_change_time"):
            if record[name]:
                assert record["add_time"] <= record[name] <= record["update_time"]
        stage = large["stages"].rows[record["stage_id"]]
        assert large["stages"].facet(stage, "pipeline_id") == record["pipeline_id"]


def test_links_point_to_what_is_or_was_deleted_lately(large: Company) -> None:
    for kind, links in {
        "deals": {"person_id": "persons", "org_id": "organizations", "owner_id": "users"},
        "persons": {"org_id": "organizations"},
        "activities": {"deal_id": "deals", "person_id": "persons", "org_id": "organizations"},
        "files": {"deal_id": "deals", "person_id": "persons"},
    }.items():
        for entry in dump(large, kind):
            for name, target in links.items():
                id = entry["record"][name]
                assert id is None or id in large[target].rows, (kind, entry["id"], name)


def test_custom_fields_are_of_every_type_and_unset_in_two_ways(large: Company) -> None:
    fields = large.fields["deals"]
    types = {field.type for field in fields.custom.values()}
    assert types == EVERY_TYPE
    labels = Counter(field.name for field in fields)
    assert max(labels.values()) > 1
    assert {"select", " ", "Line\nbreak"} <= set(labels)
    filled: Counter[str] = Counter()
    nulls = missing = 0
    for entry in dump(large, "deals"):
        values = entry["record"]["custom_fields"]
        filled.update(code for code, value in values.items() if value is not None)
        nulls += sum(value is None for value in values.values())
        missing += len(fields.custom) - len(values)
    assert set(filled) == set(fields.custom)
    assert nulls
    assert missing
    assert all(len(code) == 40 and int(code, 16) for code in fields.custom)


def test_people_have_names_in_several_scripts_and_several_addresses(large: Company) -> None:
    persons = [entry["record"] for entry in dump(large, "persons")]
    text = "".join(person["name"] for person in persons)
    for letters in ("éü", "Ł", "佐", "Ш", "م", "'", "🚀"):
        assert any(letter in text for letter in letters), letters
    sizes = Counter(len(person["emails"]) for person in persons)
    assert sizes[0]
    assert sizes[1]
    assert sizes[2]
    assert max(Counter(person["org_id"] for person in persons if person["org_id"]).values()) > 5
    users = [entry["record"] for entry in dump(large, "users")]
    assert any(user["is_deleted"] for user in users)
    assert any(not user["active_flag"] and not user["is_deleted"] for user in users)


SERVE = """
import sys
from pathlib import Path
from pdsync.sandbox import Sizes, generate_company, serve_forever
ready = lambda url, token: print(url, token, flush=True)
serve_forever(generate_company(seed=1, sizes=Sizes(deals=5)), faults_file=Path(sys.argv[1]), on_ready=ready)
"""


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_server_in_another_process_starts_and_stops_cleanly(tmp_path: Path, stop: signal.Signals) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text('[{"kind": "status", "status": 503, "path": "/users/me"}]')
    command = [sys.executable, "-c", SERVE, str(faults)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url, token = process.stdout.readline().split()
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{url}/v1/users/me?api_token={token}")
        process.send_signal(stop)
        assert process.wait(10) == 0
