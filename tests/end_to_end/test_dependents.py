"""Streams with a request per parent: only when named, only for changed parents, within their share of the day."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from tests.support.world import Project, broken_history, fingerprint, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.world import Ran, Remote


pytestmark = pytest.mark.proof


@pytest.fixture
def remote() -> Iterator[Remote]:
    with serving("--deals", "60", "--mail-threads", "40", "--seed", "4") as remote:
        remote.advance(3600)
        yield remote


def asked_for(remote: Remote) -> list[str]:
    """Of which threads the messages were asked for, in order."""
    return [entry["path"].split("/")[-2] for entry in remote.log() if entry["operation"] == "getMailThreadMessages"]


def messages(project: Project) -> list[tuple[Any, ...]]:
    return project.ask("SELECT mail_thread_id, count(*) FROM mail_messages GROUP BY 1 ORDER BY 1 DESC")


def test_messages_come_of_each_thread_once_and_then_of_changed_threads_only(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote)
    first = project.here("sync", "mail_threads", "mail_messages", "--json")
    assert first.code == 0, first
    threads = project.ask("SELECT id, message_count FROM mail_threads WHERE _deleted_at IS NULL ORDER BY id DESC")
    assert messages(project) == [thread for thread in threads if thread[1]]
    asked = asked_for(remote)
    assert sorted(asked) == sorted(str(id) for id, count in threads if count)

    remote.advance(3600)
    remote.clear_log()
    again = project.here("sync", "mail_threads", "mail_messages", "--json")
    assert again.code == 0, again
    assert again.written == {"mail_threads": 0, "mail_messages": 0}
    assert asked_for(remote) == []

    changed = asked[3]
    edit = ("api", "updateMailThreadDetails", f"id={changed}", "read_flag=1", "shared_flag=1", "--yes")
    assert project.here(*edit).code == 0
    assert project.here("sync", "mail_threads", "mail_messages", "--json").code == 0
    assert asked_for(remote) == [changed]


def test_a_parent_loaded_just_before_is_not_requested_again(tmp_path: Path) -> None:
    with serving("--deals", "60", "--mail-threads", "40", "--seed", "4") as remote:  # its clock is ours
        project = Project(tmp_path / "project", remote)
        command = ("sync", "mail_threads", "mail_messages")
        assert project.here(*command).code == 0
        assert len(asked_for(remote)) > 5
        remote.clear_log()
        assert project.here(*command).code == 0
        late = project.ask("SELECT id::VARCHAR FROM mail_threads WHERE update_time > now() - INTERVAL 20 MINUTE")
        assert set(asked_for(remote)) <= {id for (id,) in late}
        assert len(late) < 5


def test_dependent_streams_are_read_only_when_named(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote)
    plan = project.here("plan", "--json")
    lines = {line["name"]: line for line in plan.events[:-1]}
    assert lines["mail_messages"]["optional"]
    assert not lines["mail_threads"]["optional"]
    total = sum(line["tokens"] for line in plan.events[:-1] if not line["optional"])
    assert plan.summary["tokens"] == total + 2  # and whose token it is

    assert project.here("sync", "mail_threads").code == 0
    threads = project.ask("SELECT count(*) FROM mail_threads WHERE _deleted_at IS NULL AND message_count > 0")[0][0]
    named = project.here("plan", "mail_messages", "--json")
    assert [line["requests"] for line in named.events[:-1]] == [threads]


def test_l5_their_share_of_the_day_stops_them_and_the_next_run_goes_on(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote).configure(daily_tokens=2000, dependents_share=3)
    runs, first, asked = [], list[str](), list[str]()
    for _ in range(20):
        remote.clear_log()
        ran = project.here("sync", "mail_threads", "mail_messages", "--json")
        here = asked_for(remote)
        assert len(here) <= 2000 * 3 // 100 // 20
        first = first or here
        asked += here
        runs.append(ran.code)
        if ran.code == 0:
            break
        assert ran.code == 3, ran
        assert ran.summary["streams"]["mail_threads"]["complete"]
    threads = project.ask("SELECT id FROM mail_threads WHERE _deleted_at IS NULL AND message_count > 0")
    assert runs[-1] == 0
    assert len(runs) > 1
    assert sorted(asked) == sorted(str(id) for (id,) in threads)  # each once, over all runs
    newest = sorted((id for (id,) in threads), reverse=True)[: len(first)]
    assert set(first) == {str(id) for id in newest}
    assert len(messages(project)) == len(threads)


def test_a_parent_that_was_never_synced_is_named(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote)
    ran = project.here("sync", "mail_messages", "--json")
    assert ran.code == 1
    assert "pdsync sync mail_threads" in ran.summary["gaps"][0]["detail"]


@pytest.mark.proof
def test_s1_a_kill_between_two_parents_repeats_no_request(remote: Remote, tmp_path: Path) -> None:
    calm = Project(tmp_path / "calm", remote)
    assert calm.here("sync", "mail_threads", "mail_messages").code == 0
    project = Project(tmp_path / "project", remote)
    assert project.here("sync", "mail_threads").code == 0
    remote.clear_log()
    # Pages are sealed in groups as large as the disk is slow: only the first group is certain to come.
    died = project.run(
        "sync", "mail_messages", first="knobs.die('pdsync.core.control', 'Control.record_pages', after=True)"
    )
    assert died.code == -9
    contexts = project.control(
        "SELECT pages.context FROM pages JOIN walks ON walks.id = pages.walk WHERE walks.stream = 'mail_messages'"
    )
    sealed = {str(id) for (context,) in contexts for id in json.loads(context).values()}
    remote.clear_log()
    ran = project.here("sync", "mail_messages", "--json")
    assert ran.code == 0, ran
    assert sealed | set(asked_for(remote)) == {str(id) for id, _ in messages(calm)}
    assert sealed
    assert sealed.isdisjoint(asked_for(remote))
    assert messages(project) == messages(calm)


SOLD = ("sync", "deals", "deal_products", "deal_followers", "--json")


def off_the_deal(remote: Remote, project: Project) -> tuple[set[int], int]:
    """Take one line item off a deal of several, and all off another: the items, and how many there were of all."""
    items = project.ask("SELECT deal_id, list(id ORDER BY id) FROM deal_products GROUP BY 1 ORDER BY count(*), 1")
    several = next(items for items in items if len(items[1]) > 1)
    other = next(items for items in items if items[0] != several[0])
    gone = [(several[0], several[1][0]), *((other[0], item) for item in other[1])]
    for deal, item in gone:
        done = project.here("api", "deleteDealProduct", f"id={deal}", f"product_attachment_id={item}", "--yes")
        assert done.code == 0, done
    return {item for _, item in gone}, sum(len(items[1]) for items in items)


def alive(project: Project) -> set[int]:
    return {row[0] for row in project.ask("SELECT id FROM deal_products WHERE _deleted_at IS NULL")}


def test_s8_line_items_missing_from_their_deal_are_marked_and_the_others_are_not(
    remote: Remote, tmp_path: Path
) -> None:
    project = Project(tmp_path / "project", remote)
    assert project.here(*SOLD).code == 0
    gone, before = off_the_deal(remote, project)
    remote.advance(3600)
    ran = project.here(*SOLD)
    assert ran.code == 0, ran
    assert ran.summary["streams"]["deal_products"]["deleted"] == len(gone)
    marked = project.ask("SELECT id FROM deal_products WHERE _deleted_at IS NOT NULL")
    assert {row[0] for row in marked} == gone
    assert alive(project) <= {int(entry["id"].split("/")[1]) for entry in remote.dump("deal_products")}
    assert len(alive(project)) == before - len(gone)
    assert broken_history(project) == []

    remote.advance(3600)
    again = project.here(*SOLD)
    assert not any(again.written.values())
    with_marks = fingerprint(project)
    assert project.here("replay").code == 0
    assert fingerprint(project) == with_marks


def test_s8_a_list_that_lacks_what_its_parent_counts_marks_nothing(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote)
    assert project.here(*SOLD).code == 0
    before = alive(project)
    remote.fault(kind="mutate", path="deals/products", find=r'(?s)"data":\[.*\]', replace='"data":[]')
    remote.advance(3600)
    ran = project.here(*SOLD, "--full")
    assert ran.code == 0, ran
    assert remote.struck() > 0
    assert ran.summary["streams"]["deal_products"]["read"] == 0
    assert alive(project) == before


@pytest.mark.parametrize(
    "death",
    [
        "'pdsync.runner.sync.removed_children', 'find_missing', 1, after=False",
        "'pdsync.runner.sync.walk_loader', 'tombstone', 1, after=False",
        "'pdsync.load.tombstones', 'tombstone', 1, after=True",
    ],
)
@pytest.mark.proof
def test_s1_a_kill_before_they_are_marked_loses_no_mark(remote: Remote, tmp_path: Path, death: str) -> None:
    project = Project(tmp_path / "project", remote)
    assert project.here(*SOLD).code == 0
    gone, _ = off_the_deal(remote, project)
    remote.advance(3600)
    assert project.run(*SOLD, first=f"knobs.die({death})").code == -9
    assert project.here(*SOLD).code == 0
    marked = project.ask("SELECT id FROM deal_products WHERE _deleted_at IS NOT NULL")
    assert {row[0] for row in marked} == gone
    assert project.control("SELECT count(*) FROM walks WHERE state NOT IN ('applied', 'dropped')") == [(0,)]


RECONCILE = ("reconcile", "--json")


def findings(ran: Ran) -> dict[str, list[str]]:
    """By kind: the keys of line items that differ."""
    found: dict[str, list[str]] = {}
    for event in ran.events:
        if "kind" in event and event["stream"] == "deal_products":
            found.setdefault(event["kind"], []).append(event["key"])
    return found


def test_s7_a_reconciliation_requests_only_deals_with_other_counts(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote)
    assert project.here(*SOLD).code == 0
    whole = fingerprint(project)
    clean = project.here(*RECONCILE)
    assert clean.code == 0, clean
    assert not [event for event in clean.events if "kind" in event]
    gone, _ = off_the_deal(remote, project)
    deal = project.ask("SELECT min(deal_id) FROM deal_products")[0][0]
    added = project.here("api", "addDealProduct", f"id={deal}", "product_id=1", "item_price=5", "quantity=2", "--yes")
    assert added.code == 0, added

    remote.clear_log()
    told = project.here(*RECONCILE, "--exit-code")
    assert told.code == 4
    found = findings(told)
    assert set(found) == {"purged", "missing"}
    assert {int(key) for key in found["purged"]} == gone
    asked = [entry for entry in remote.log() if entry["operation"] == "getDealsProducts"]
    assert len(asked) == 1
    assert len(asked[0]["query"].split("deal_ids=")[1].split("&")[0].split("%2C")) <= 3

    assert project.here(*RECONCILE, "--repair").code == 0
    assert alive(project) & gone == set()
    assert int(found["missing"][0]) in alive(project)
    assert project.here(*RECONCILE, "--exit-code").code == 0
    assert fingerprint(project) != whole
    mended = fingerprint(project)
    assert project.here("replay").code == 0
    assert fingerprint(project) == mended


@pytest.mark.parametrize(
    "death",
    [
        "'pdsync.runner.sync.walk_loader', 'seal_and_load', 1, after=False",
        "'pdsync.core.control', 'Control.record_pages', 1, after=True",
        "'pdsync.load.tombstones', 'tombstone', 1, after=False",
    ],
)
@pytest.mark.proof
def test_s1_a_kill_during_the_repair_of_line_items_leaves_nothing_unrepaired(
    remote: Remote, tmp_path: Path, death: str
) -> None:
    project = Project(tmp_path / "project", remote)
    assert project.here(*SOLD).code == 0
    gone, before = off_the_deal(remote, project)
    deal = project.ask("SELECT min(deal_id) FROM deal_products")[0][0]
    add = ("api", "addDealProduct", f"id={deal}", "product_id=1", "item_price=5", "quantity=2", "--yes")
    assert project.here(*add).code == 0
    assert project.run(*RECONCILE, "--repair", first=f"knobs.die({death})").code == -9
    assert project.here(*RECONCILE, "--repair").code == 0
    assert len(alive(project)) == before - len(gone) + 1
    assert project.here(*RECONCILE, "--exit-code").code == 0
    mended = fingerprint(project)
    assert project.here("replay").code == 0
    assert fingerprint(project) == mended


def test_s8_a_list_that_shows_less_than_its_record_counts_is_no_evidence(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote)
    assert project.here(*SOLD).code == 0
    off_the_deal(remote, project)
    before = alive(project)
    remote.fault(kind="mutate", path="deals/products", find=r'(?s)"data":\[.*\]', replace='"data":[]')
    told = project.here(*RECONCILE, "--repair")
    found = findings(told)
    assert "absent_unknown" in found
    # The deal that counts none and lists none is another matter.
    assert before - alive(project) == {int(key) for key in found.get("purged", [])}
    none = {row[0] for row in project.ask("SELECT id FROM deals WHERE products_count = 0")}
    assert set(project.ask("SELECT DISTINCT deal_id FROM deal_products WHERE _deleted_at IS NOT NULL")) <= {
        (deal,) for deal in none
    }


def test_l5_records_with_other_counts_stop_at_their_share_of_the_day(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote)
    assert project.here("sync", "deals", "deal_followers").code == 0
    for row in project.ask("SELECT id FROM deals WHERE _deleted_at IS NULL ORDER BY id LIMIT 12"):
        done = project.here("api", "addDealFollower", f"id={row[0]}", "user_id=5550003", "--yes")
        assert done.code == 0, done
    project.configure(daily_tokens=2000, dependents_share=3)
    ran = project.here("reconcile", "--repair", "--json")
    assert ran.code == 3, ran
    assert "dependents_share" in ran.err + ran.out
    assert ran.summary["streams"]["deals"]["complete"]


def test_s7_s8_a_stream_without_counts_is_compared_record_by_record_when_named(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote)
    assert project.here("sync", "products", "product_variations").code == 0
    clean = project.here("reconcile", "product_variations", "--json", "--exit-code")
    assert clean.code == 0, clean
    assert clean.summary["swept"]["product_variations"]["at_source"] == len(project.ask("FROM product_variations"))
    ((changed, product), (gone, other), *_) = project.ask("SELECT id, product_id FROM product_variations ORDER BY id")
    for call in (
        ("updateProductVariation", f"id={product}", f"product_variation_id={changed}", "name=Another name"),
        ("deleteProductVariation", f"id={other}", f"product_variation_id={gone}"),
        ("addProductVariation", f"id={product}", "name=Brand new"),
    ):
        done = project.here("api", *call, "--yes")
        assert done.code == 0, done

    told = project.here("reconcile", "product_variations", "--json", "--exit-code")
    assert told.code == 4, told
    kinds = {event["kind"]: event["key"] for event in told.events if "kind" in event}
    assert kinds.keys() == {"stale", "missing", "absent_unknown"}
    assert (kinds["stale"], kinds["absent_unknown"]) == (str(changed), str(gone))
    assert project.here("reconcile", "product_variations", "--repair").code == 0
    names = dict(project.ask("SELECT id, name FROM product_variations WHERE _deleted_at IS NULL"))
    assert names[changed] == "Another name"
    assert names[int(kinds["missing"])] == "Brand new"
    assert gone in names  # that a list lacks it is no evidence
    left = project.here("reconcile", "product_variations", "--json")
    assert [event["kind"] for event in left.events if "kind" in event] == ["absent_unknown"]


def test_a_stream_that_can_not_be_compared_is_named_and_is_no_success(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote)
    assert project.here("sync", "deals", "deal_followers", "deal_files").code == 0
    of_all = project.here(*RECONCILE)
    assert of_all.code == 0, of_all
    assert of_all.summary["left_out"].keys() == {"deal_files"}
    assert "pdsync reconcile deal_files" in of_all.summary["left_out"]["deal_files"]
    assert of_all.summary["swept"]["deal_followers"]["by_count"]
    for command, hint in (
        (("reconcile", "deals", "role_pipelines"), "pdsync sync role_pipelines"),
        (("reconcile", "persons"), "pdsync sync persons"),
        (("reconcile", "deal_followers", "--sample", "5"), "omit --sample"),
    ):
        ran = project.here(*command)
        assert ran.code == 1, ran
        assert hint in ran.err


ASSIGNED = ("permission_sets", "permission_set_assignments")


def lists_read(remote: Remote, operation: str) -> int:
    read = len([entry for entry in remote.log() if entry["operation"] == operation])
    remote.clear_log()
    return read


def keys_of(ran: Ran, stream: str) -> tuple[int, int]:
    """How many there are at the source and here, as a reconciliation says."""
    swept: dict[str, int] = ran.summary["swept"][stream]
    return swept["at_source"], swept["here"]


def test_s7_records_whose_count_differs_from_their_list_are_named_and_not_read_every_night(
    remote: Remote, tmp_path: Path
) -> None:
    """Each permission set counts more assignments than it lists."""
    path, counted_as = "/v1/permissionSets(\\?|$)", '"assignment_count":137'
    remote.fault(kind="mutate", path=path, find=r'"assignment_count":\d+', replace=counted_as)
    project = Project(tmp_path / "project", remote)
    assert project.here("sync", *ASSIGNED, "--json").code == 0
    ((counted,),) = project.ask("SELECT sum(assignment_count) FROM permission_sets")
    ((rows,),) = project.ask("SELECT count(*) FROM permission_set_assignments")
    assert counted > rows
    lists_read(remote, "getPermissionSetAssignments")

    first = project.here("reconcile", "--json", "--exit-code")
    assert first.code == 0, first
    assert keys_of(first, "permission_set_assignments") == (rows, rows)  # as "no difference" says
    off = first.summary["counts_off"]["permission_set_assignments"]
    assert (off["counted"], off["listed"]) == (counted, rows)
    read = lists_read(remote, "getPermissionSetAssignments")
    assert read

    again = project.here("reconcile", "--json", "--exit-code")
    assert again.code == 0, again
    assert keys_of(again, "permission_set_assignments") == keys_of(first, "permission_set_assignments")
    assert again.summary["counts_off"] == first.summary["counts_off"]
    assert lists_read(remote, "getPermissionSetAssignments") == 0
    told = project.here("reconcile")
    assert f"report {counted}, but their complete lists contain {rows}" in told.err
    assert "no difference" in told.err
    assert project.ask("SELECT sum(says), sum(listed), sum(here) FROM meta.counts_off") == [(counted, rows, rows)]

    lists_read(remote, "getPermissionSetAssignments")
    assert project.here("reconcile", "--deep").code == 0
    assert lists_read(remote, "getPermissionSetAssignments") == read
    with duckdb.connect(str(project.data / "warehouse.work.duckdb")) as work:
        work.execute("UPDATE meta.counts_off SET read_at = read_at - INTERVAL 8 DAY")
    assert project.here("reconcile").code == 0
    assert lists_read(remote, "getPermissionSetAssignments") == read
    with duckdb.connect(str(project.data / "warehouse.work.duckdb")) as work:
        work.execute("UPDATE meta.counts_off SET says = says - 1")
    assert project.here("reconcile").code == 0
    assert lists_read(remote, "getPermissionSetAssignments") == read


def test_s8_a_row_that_stays_unknown_is_not_requested_again(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote)
    remote.fault(kind="mutate", path="/api/v2/deals\\?", find=r'"products_count":\d+', replace='"products_count":77')
    assert project.here(*SOLD).code == 0
    gone, before = off_the_deal(remote, project)
    lists_read(remote, "getDealsProducts")

    first = project.here(*RECONCILE, "--exit-code")
    assert first.code == 4, first
    assert findings(first).get("absent_unknown")
    assert keys_of(first, "deal_products") == (before - len(gone), before)
    assert lists_read(remote, "getDealsProducts")
    again = project.here(*RECONCILE, "--exit-code")
    assert again.code == 4, again
    assert findings(again) == findings(first)
    assert keys_of(again, "deal_products") == keys_of(first, "deal_products")
    assert lists_read(remote, "getDealsProducts") == 0

    remote.clear_faults()  # the counts are right again: they have moved
    mended = project.here(*RECONCILE, "--repair", "--exit-code")
    assert mended.code == 0, mended
    assert lists_read(remote, "getDealsProducts")
    assert alive(project) & gone == set()
    clean = project.here(*RECONCILE, "--exit-code")
    assert clean.code == 0, clean
    assert not clean.summary["counts_off"]
