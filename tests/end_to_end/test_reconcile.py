"""Reconcile: what it finds, how it classifies and repairs it, and what it never marks as deleted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.drift import KINDS, Drift
from tests.support.world import Project, broken_history, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox
    from tests.support.world import Ran

pytestmark = pytest.mark.proof

STREAMS = (*KINDS, "pipelines", "users", "stages")


@pytest.fixture
def box() -> Iterator[RunningSandbox]:
    company = generate_company(seed=8, sizes=Sizes(deals=110, files=60, products=40), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        yield box


@pytest.fixture
def project(box: RunningSandbox, tmp_path: Path) -> Project:
    project = Project(tmp_path / "project")
    project.configure(base_url=box.url, api_token=box.token)
    assert project.here("sync", "-q", *STREAMS).code == 0
    box.clock.advance(3600)
    return project


def reconcile(project: Project, *options: str, code: int = 0) -> Ran:
    ran = project.here("reconcile", "--json", *options)
    assert ran.code == code, ran
    return ran


def findings(ran: Ran) -> list[dict[str, Any]]:
    return ran.events[:-1]


def tombstones(project: Project) -> dict[str, int]:
    return {kind: project.ask(f"SELECT count(*) FROM {kind} WHERE _deleted_at IS NOT NULL")[0][0] for kind in KINDS}


def test_s7_a_clean_pair_shows_no_difference_and_changes_nothing(box: RunningSandbox, project: Project) -> None:
    tables = fingerprint(project)
    ran = reconcile(project, "--deep", "--repair", "--exit-code")
    assert findings(ran) == []
    assert ran.summary["complete"]
    assert fingerprint(project) == tables
    seen = project.ask("SELECT min(_verified_at) > max(_synced_at) - INTERVAL 1 DAY FROM deals")
    assert seen == [(True,)]


def test_s7_every_difference_is_found_classified_and_repaired(box: RunningSandbox, project: Project) -> None:
    drift = Drift(project, box, count=2)
    drift.make()
    ran = reconcile(project, "--exit-code", code=4)
    assert drift.wrong(findings(ran)) == []
    assert set(drift.by_class()) == {
        "missing", "extra", "restored", "stale", "backdated", "soft_deleted", "purged", "archived", "merged",
        "converted",
    }  # fmt: skip
    reconcile(project, "--repair", "--deep", "--exit-code", "--max-tombstones", "100")
    assert findings(reconcile(project, "--deep", "--exit-code")) == []
    fresh = Project(project.folder.with_name("fresh"))
    fresh.configure(base_url=box.url, api_token=box.token)
    assert fresh.here("sync", "-q", *STREAMS).code == 0
    for kind in KINDS:  # what is alive here is what a new project reads
        columns = "* EXCLUDE (_synced_at, _verified_at, _run_id, _valid_from, _row_hash)"
        sql = f"SELECT {columns} FROM {kind} WHERE _deleted_at IS NULL ORDER BY id"
        assert project.ask(sql) == fresh.ask(sql), kind
    merged = {(e, str(loser)) for e, loser in project.ask("SELECT entity, loser_id FROM meta.merges")}
    assert merged == {place for place, kind in drift.expected.items() if kind == "merged"}
    # And all of it is in the archive.
    tables = fingerprint(project)
    assert project.here("replay", "-q").code == 0
    alive = "SELECT count(*) FROM deals WHERE _deleted_at IS NULL"
    assert project.ask(alive) == fresh.ask(alive)
    assert fingerprint(project).keys() == tables.keys()


def test_s8_hidden_pipelines_and_lost_rights_are_no_deletions(box: RunningSandbox, project: Project) -> None:
    before = tombstones(project)
    busiest = project.ask("SELECT pipeline_id, count(*) FROM deals GROUP BY 1 ORDER BY 2 DESC")[0][0]
    viewer = box.company.viewers["admin"]
    viewer.hidden_pipelines, viewer.admin = {busiest}, False
    ran = reconcile(project, "--repair", "--max-tombstones", "10000")
    kinds = {each["kind"] for each in findings(ran)}
    assert kinds <= {"hidden", "absent_unknown"}
    assert kinds
    assert tombstones(project) == before


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "permission_403"},
        {"kind": "401"},
        {"kind": "html_403"},
        {"kind": "null_data"},
        {"kind": "daily_429"},
        {"kind": "mutate", "find": '"id":[0-9]+,"title"', "replace": '"id":"?","title"'},
    ],
    ids=lambda fault: fault["kind"],
)
def test_s8_a_list_that_fails_marks_nothing_as_deleted(
    box: RunningSandbox, project: Project, fault: dict[str, Any]
) -> None:
    before = tombstones(project)
    box.faults.add({**fault, "path": "^/api/v2/(deals|persons)"})  # the lists, and single records too
    ran = project.here("reconcile", "--json", "--repair", "--max-tombstones", "10000", "deals", "persons")
    assert ran.code != 0 or fault["kind"] in ("permission_403", "null_data")
    assert not [each for each in findings(ran) if each.get("repaired")]
    box.faults.clear()
    assert tombstones(project) == before


@pytest.mark.parametrize("kind", ["cursor_loop", "repeat_page"])
def test_s8_a_list_without_an_end_marks_nothing(box: RunningSandbox, project: Project, kind: str) -> None:
    before = tombstones(project)
    box.faults.add({"kind": kind, "path": "^/api/v2/deals"})
    small = "knobs.small_pages(30)"
    ran = project.run("reconcile", "deals", "--json", "--repair", "--max-tombstones", "10000", first=small)
    assert ran.code == 1, ran
    assert findings(ran) == []
    assert tombstones(project) == before


def test_s8_a_mass_of_deletions_is_held_back(box: RunningSandbox, project: Project) -> None:
    ids = [row[0] for row in project.ask("SELECT id FROM activities WHERE _deleted_at IS NULL ORDER BY id LIMIT 15")]
    with box.company.lock:
        for id in ids:
            box.company.remove("activities", id, "purged")
    ran = reconcile(project, "activities", "--repair", code=3)
    assert "--max-tombstones 15" in ran.summary["held"]
    assert project.ask("SELECT count(*) FROM activities WHERE _deleted_at IS NOT NULL") == [(0,)]
    reconcile(project, "activities", "--repair", "--max-tombstones", "15")
    gone = project.ask("SELECT id FROM activities WHERE _deleted_at IS NOT NULL ORDER BY id")
    assert [row[0] for row in gone] == ids


def test_s6_a_change_that_moves_no_time_is_seen_by_deep_and_by_a_sample(box: RunningSandbox, project: Project) -> None:
    deal = next(entry["record"] for entry in box.dump("deals") if entry["state"] == "live")
    with box.company.lock:
        record = box.company["deals"].rows[deal["id"]].record
        box.company.put("deals", "silent", {**record, "title": "changed in silence"})
    assert findings(reconcile(project, "deals")) == []
    assert [(e["key"], e["kind"]) for e in findings(reconcile(project, "deals", "--deep"))] == [
        (str(deal["id"]), "stale")
    ]
    sampled = reconcile(project, "deals", "--sample", "10000", "--repair")
    assert [(e["key"], e["repaired"]) for e in findings(sampled)] == [(str(deal["id"]), True)]
    assert project.ask("SELECT title FROM deals WHERE id = ?", deal["id"]) == [("changed in silence",)]


@pytest.mark.parametrize("skew_s", [-900, 900])
def test_s3_a_restored_record_is_alive_again_whatever_our_clock_says(tmp_path: Path, skew_s: int) -> None:
    now = datetime.now(UTC) + timedelta(seconds=skew_s)
    company = generate_company(seed=8, sizes=Sizes(deals=20, persons=12), now=now)
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        project = Project(tmp_path / "project").configure(base_url=box.url, api_token=box.token)
        assert project.here("sync", "-q", "persons").code == 0
        box.clock.advance(2)
        deleted = box.dump("persons")[0]["id"]
        box.act("DELETE", f"/api/v2/persons/{deleted}")
        reconcile(project, "persons", "--repair")
        dead = "SELECT id FROM persons WHERE _deleted_at IS NOT NULL"
        assert project.ask(dead) == [(deleted,)]
        box.clock.advance(2)
        with box.company.lock:
            record = box.company["persons"].rows[deleted].record
            restored = {**record, "is_deleted": False, "update_time": box.clock.stamp()}
            box.company.put("persons", "restore", restored, "live")
        assert project.here("sync", "-q", "persons").code == 0
        assert project.ask(dead) == []
        assert broken_history(project) == []


def test_s9_a_stream_whose_differences_were_not_looked_into_does_not_count_as_compared(
    box: RunningSandbox, project: Project
) -> None:
    """The lists of both are read, and the budget ends with the first request for a record that they lack."""
    with box.company.lock:
        for kind in ("persons", "products"):
            box.company.remove(kind, min(box.company[kind].rows), "purged")
    ran = project.here("reconcile", "persons", "products", "--repair", "--budget", "30")
    assert ran.code == 3, ran
    assert project.here("sync", "-q", "persons").code == 0  # it publishes what that run has left
    compared = dict(project.ask("SELECT stream, arg_max(here - at_source, swept_at) FROM meta.sweeps GROUP BY stream"))
    assert (compared["persons"], compared["products"]) == (0, 0)  # by the first sync, which read them whole


def test_s9_a_stream_that_the_plan_no_longer_includes_was_not_compared(box: RunningSandbox, project: Project) -> None:
    box.faults.add({"kind": "status", "status": 402, "path": "^/api/v2/products"})
    ran = reconcile(project, "products", "persons", code=1)
    assert not ran.summary["complete"]
    assert [(gap["stream"], gap["kind"]) for gap in ran.summary["gaps"]] == [("products", "forbidden")]
    assert set(ran.summary["swept"]) == {"persons"}


def test_s7_a_field_that_is_gone_ends_no_reconciliation_in_v1(box: RunningSandbox, tmp_path: Path) -> None:
    project = Project(tmp_path / "old").configure(base_url=box.url, api_token=box.token, api="v1")
    assert project.here("sync", "-q", "deal_fields").code == 0
    mine = next(entry["id"] for entry in box.dump("deal_fields") if entry["record"]["is_custom_field"])
    assert box.act("DELETE", f"/api/v2/dealFields/{mine}")["success"]
    found = findings(reconcile(project, "deal_fields", "--repair"))
    assert [(each["key"], each["kind"]) for each in found if not each["repaired"]] == [(mine, "absent_unknown")]


def test_findings_can_be_queried(box: RunningSandbox, project: Project) -> None:
    box.act("DELETE", f"/api/v2/products/{box.dump('products')[0]['id']}")
    reconcile(project, "products", "--repair")
    assert project.ask("SELECT stream, kind, repaired FROM meta.findings") == [("products", "soft_deleted", True)]
    swept = project.ask("SELECT stream, at_source < here, complete FROM meta.sweeps ORDER BY swept_at DESC LIMIT 1")
    assert swept == [("products", True, True)]


def test_s3_a_company_that_never_rests_is_complete_when_it_does(box: RunningSandbox, project: Project) -> None:
    """Every third request finds the company changed: a full sync, an incremental one and a repair run meanwhile."""
    box.live(every=3, records=2)
    for words in (("sync", "--full"), ("sync",), ("reconcile", "--repair", "--max-tombstones", "100")):
        ran = project.here(words[0], "-q", *words[1:], *STREAMS)
        assert ran.code == 0, ran
        box.clock.advance(60)
    box.live(None)
    assert project.here("sync", "-q", *STREAMS).code == 0
    reconcile(project, "--repair", "--deep", "--max-tombstones", "100")
    for kind in KINDS:
        live = {str(entry["id"]) for entry in box.dump(kind) if entry["state"] in ("live", "archived")}
        here = {str(key) for (key,) in project.ask(f"SELECT id FROM {kind} WHERE _deleted_at IS NULL")}
        assert here == live, kind
    assert findings(reconcile(project, "--deep", "--exit-code")) == []


def test_s7_records_that_two_pages_share_count_once_at_the_source(tmp_path: Path) -> None:
    company = generate_company(seed=8, sizes=Sizes(deals=20, files=230), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        project = Project(tmp_path / "project")
        project.configure(base_url=box.url, api_token=box.token)
        assert project.here("sync", "-q", "files").code == 0
        swept = reconcile(project, "files").summary["swept"]["files"]
        ((rows,),) = project.ask("SELECT count(*) FROM files WHERE _deleted_at IS NULL")
        assert rows > 100
        assert (swept["at_source"], swept["here"]) == (rows, rows)


def test_s9_a_token_that_sees_less_than_it_did_is_no_complete_copy(box: RunningSandbox, project: Project) -> None:
    before = tombstones(project)
    box.company.viewers["admin"].admin = False

    told = project.here("sync", "deals", "--full", "--fail-on-gap", "--json")
    assert told.code == 4, told
    assert not told.summary["complete"]
    assert told.summary["is_admin"] is False
    gaps = {gap["stream"]: gap for gap in told.summary["gaps"]}
    assert gaps["deals"]["kind"] == "fewer"
    ((rows, seen),) = project.ask(
        "SELECT count(*), count(*) FILTER (_run_id = ? OR _verified_at > _synced_at) FROM deals"
        " WHERE _deleted_at IS NULL",
        told.summary["run_id"],
    )
    assert f"the list shows {seen} of {rows} rows" in gaps["deals"]["detail"]
    assert "was an administrator's on" in gaps["deals"]["detail"]
    assert "pdsync reconcile deals" in gaps["deals"]["detail"]
    assert gaps["account"]["kind"] == "rights"
    assert tombstones(project) == before
    assert project.ask("SELECT complete, len(gaps) FROM meta.runs ORDER BY started_at DESC LIMIT 1") == [(False, 2)]

    again = project.here("sync", "deals", "--full")  # not asked to fail: it says it all the same
    assert again.code == 0, again
    assert "Not complete" in again.err
    assert "deals: fewer: " in again.err
    assert "account: rights" not in again.err  # the run before had as few

    reconcile(project, "deals")  # now somebody has looked, and the findings say of each what is known
    known = project.here("sync", "deals", "--full", "--fail-on-gap", "--json")
    assert known.code == 0, known
    assert tombstones(project) == before


def test_s9_lost_rights_are_reported_even_if_only_changes_are_read(box: RunningSandbox, project: Project) -> None:
    assert project.here("sync", "deals", "--fail-on-gap").code == 0
    box.company.viewers["admin"].admin = False
    told = project.here("sync", "deals", "--fail-on-gap")
    assert told.code == 4, told
    assert "account: rights: The token was an administrator's on" in told.err
    assert "finished, with gaps" in (state := project.here("status").out)
    user, name = box.company.viewers["admin"].user_id, project.ask("SELECT user_name FROM meta.runs")[0][0]
    assert f"token: {name} (user {user}) is not an administrator: " in state
    assert f"Read as {name} (user {user}), who is not an administrator: records that this user may" in told.err
    (shown,) = [each for each in project.here("status", "--json").events if each["name"] == "status"]
    assert shown["token"] == {"user_id": user, "user": name, "is_admin": False}
    runs = project.ask("SELECT user_id, user_name, is_admin FROM meta.runs ORDER BY started_at DESC LIMIT 2")
    assert runs == [(user, name, False), (user, name, True)]
    box.company.viewers["admin"].admin = True
    assert project.here("sync", "deals", "--fail-on-gap").code == 0


def test_s9_a_few_deletions_are_no_gap(box: RunningSandbox, project: Project) -> None:
    with box.company.lock:
        for id in sorted(box.company["deals"].rows)[:10]:
            box.company.remove("deals", id, "purged")
    ran = project.here("sync", "deals", "--full", "--fail-on-gap", "--json")
    assert ran.code == 0, ran
    assert ran.summary["complete"]


def test_s7_a_repair_that_did_not_land_is_not_claimed(box: RunningSandbox, project: Project) -> None:
    """The list shows what records asked for by their ids do not show yet: their old state is loaded, and differs."""
    changed = box.change(0.3, seed=3, kinds=["deals"], only=["updated"])["deals"]["updated"]
    old = {"find": r'"update_time": ?"[^"]+"', "replace": '"update_time":"2020-01-01T00:00:00Z"'}
    box.faults.add({"kind": "mutate", "path": "[?&]ids=", **old})
    ran = reconcile(project, "deals", "--repair", code=4)
    left = [each for each in findings(ran) if not each["repaired"]]
    assert {each["kind"] for each in left} == {"stale"}
    assert {int(each["key"]) for each in left} == set(changed)
    assert (ran.summary["left"], ran.summary["complete"]) == (len(changed), False)
    said = project.here("reconcile", "deals", "--repair")
    assert said.code == 4
    assert "all were repaired" not in said.err
    assert project.ask("SELECT complete, exit_code FROM meta.runs ORDER BY started_at DESC LIMIT 1") == [(False, 4)]
    box.faults.clear()
    assert all(each["repaired"] for each in findings(reconcile(project, "deals", "--repair")))
    assert findings(reconcile(project, "deals", "--deep")) == []


def test_s7_a_record_that_vanished_before_its_repair_is_left(box: RunningSandbox, project: Project) -> None:
    added = box.change(0.1, seed=4, kinds=["products"], only=["added"])["products"]["added"]
    box.faults.add({"kind": "mutate", "path": "products[?].*ids=", "find": r'"data":\[.*\],', "replace": '"data":[],'})
    ran = reconcile(project, "products", "--repair", "--exit-code", code=4)
    assert {int(each["key"]) for each in findings(ran) if not each["repaired"]} == set(added)
