"""Writing back, end to end: what is queued, shown, sent and stored, compared with the sandbox's own journal."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.world import Project, fingerprint, serving, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.world import Ran, Remote

YES = ("push", "--yes", "--json", "--settle-seconds", "0.1")


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "80", "--seed", "5") as remote:
        yield remote


@pytest.fixture
def project(remote: Remote, synced: Project, tmp_path: Path) -> Iterator[Project]:
    """The synced project, with an empty queue and an untouched log."""
    synced.here("queue", "drop", "--all")
    remote.clear_log()
    yield synced
    remote.clear_faults()


@pytest.fixture(scope="module")
def synced(remote: Remote, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("push") / "project", remote)
    ran = project.here("sync", "-q", "deals", "persons", "organizations", "activities", "users", "stages", "pipelines")
    assert ran.code == 0, ran
    return project


def live(remote: Remote, kind: str) -> list[dict[str, Any]]:
    return [entry["record"] for entry in remote.dump(kind) if entry["state"] == "live"]


def record(remote: Remote, kind: str, id: int) -> dict[str, Any]:
    found: dict[str, Any] = next(entry["record"] for entry in remote.dump(kind) if entry["id"] == id)
    return found


def queue(project: Project, *words: str) -> dict[str, Any]:
    ran = project.here("queue", "add", *words, "--json")
    assert ran.code == 0, ran
    return ran.summary


def push(project: Project, *options: str, code: int = 0) -> Ran:
    ran = project.here(*YES, *options)
    assert ran.code == code, ran
    return ran


def writes(remote: Remote) -> list[dict[str, Any]]:
    return [entry for entry in remote.log() if entry["method"] != "GET"]


def journal(remote: Remote) -> int:
    return len(remote.lines("journal"))


def made_by_another_way(remote: Remote, **person: object) -> int:
    made = remote.post("act", method="POST", path="/api/v2/persons", body=person)
    return int(made["data"]["id"])


def test_w2_a_hidden_record_does_not_count_as_deleted(remote: Remote, project: Project) -> None:
    me = json.loads(project.here("api", "getCurrentUser").out)["data"]["id"]
    hidden = next(each for each in live(remote, "mail_threads") if each["user_id"] != me and not each["shared_flag"])
    queued = queue(project, "deleteMailThread", f"id={hidden['id']}")
    before = journal(remote)
    push(project, "--allow", "delete", "--max-deletes", "9", code=5)
    assert fate(project, queued) == ("rejected", "permission")
    assert (writes(remote), journal(remote)) == ([], before)


def test_w15_a_duplicate_that_shows_too_late_is_found_by_the_next_sync(remote: Remote, project: Project) -> None:
    queued = queue(project, "addPerson", "name=Late Show", "emails=late@example.com")
    remote.fault(kind="reset_before", method="POST", path="/api/v2/persons$", nth=1)
    push(project)
    assert len(project.control("SELECT 1 FROM attempts WHERE mutation = ?", queued["id"])) == 2
    late = made_by_another_way(remote, name="Late Show")  # the first one, after all
    ran = project.here("sync", "persons")
    assert ran.code == 0, ran
    assert f"pdsync queue add deletePerson id={late}" in ran.err
    told = "SELECT key, winner FROM meta.findings WHERE kind = 'duplicate_found'"
    original = project.control("SELECT remote_id FROM mutations WHERE id = ?", queued["id"])[0][0]
    assert project.ask(told) == [(str(late), original)]
    assert "Late Show" not in project.here("sync", "persons").err  # it is told once
    assert project.ask(told) == [(str(late), original)]


def test_w6_an_overwritten_edit_is_found_in_the_changelog(remote: Remote, project: Project) -> None:
    deal = live(remote, "deals")[12]
    queued = queue(project, "updateDeal", f"id={deal['id']}", "title=Ours", "probability=44")
    remote.fault(kind="latency", method="GET", path="/api/v2/deals", ms=1500, nth=2)
    process = project.start(*YES, "--check-lost-updates")
    while sum(entry["path"].startswith("/api/v2/deals") for entry in remote.log()) < 2:
        time.sleep(0.02)  # behind this, what we see of it just before the write is under way to us
    remote.post("act", method="PATCH", path=f"/api/v2/deals/{deal['id']}", body={"title": "Theirs"})
    ran = wait_for(process)
    assert ran.code == 5, ran
    assert fate(project, queued) == ("conflict", "detected_late")
    detail = project.control("SELECT detail FROM mutations WHERE id = ?", queued["id"])[0][0]
    assert "title = 'Theirs'" in detail
    assert "probability" not in detail
    again = queue(project, "updateDeal", f"id={deal['id']}", "title=Ours again")
    push(project, "--check-lost-updates")
    assert fate(project, again) == ("applied", None)


def test_the_verdict_of_a_person_is_kept_next_to_the_outcome(remote: Remote, project: Project) -> None:
    queued = queue(project, "addPerson", "name=In doubt")
    remote.fault(kind="reset_after", method="POST", path="/api/v2/persons$", nth=1)
    push(project, "--create-doubt", "review", code=0)
    other = queue(project, "addNote", "content=about nobody", "org_id=1")
    remote.fault(kind="status", status=502, method="POST", path="/v1/notes$", times=9)
    ran = project.here(*YES, "--create-doubt", "review")
    assert ran.code == 5, ran
    assert project.here("queue", "resolve", queued["id"], "--as", "rejected").code == 2  # nobody has to look at it
    assert fate(project, other)[0] == "needs_review"
    done = project.here("queue", "resolve", other["id"], "--as", "rejected", "--note", "it is not there", "--json")
    assert done.code == 0, done
    assert fate(project, other)[0] == "needs_review"
    assert project.here("sync", "-q", "users").code == 0
    trail = "SELECT state, resolution->>'verdict', resolution->>'note' FROM meta.mutations WHERE id = ?"
    assert project.ask(trail, other["id"]) == [("needs_review", "rejected", "it is not there")]


def fate(project: Project, queued: dict[str, Any]) -> tuple[str, str | None]:
    state, reason = project.control("SELECT state, reason FROM mutations WHERE id = ?", queued["id"])[0]
    return state, reason


def test_w10_a_dry_run_shows_before_and_after_and_sends_only_reads(remote: Remote, project: Project) -> None:
    deal, user = live(remote, "deals")[0], live(remote, "users")[-1]
    queue(project, "updateDeal", f"id={deal['id']}", "title=Renamed", f"owner={user['name']}")
    before = journal(remote)
    ran = project.here("push", "--dry-run", "--json")
    assert ran.code == 0, ran
    (step,) = [event for event in ran.events if event["event"] == "step"]
    changes = {change["field"]: (change["before"], change["after"]) for change in step["changes"]}
    assert changes["title"] == (deal["title"], "Renamed")
    assert changes["owner_id"][1] == f"{user['name']} ({user['id']})"
    assert writes(remote) == []
    assert journal(remote) == before
    assert ran.summary["tokens"] > 0


def test_w13_what_was_applied_is_in_the_warehouse_with_its_log(remote: Remote, project: Project) -> None:
    deal = live(remote, "deals")[1]
    queued = queue(project, "updateDeal", f"id={deal['id']}", "title=Shown at once")
    person = queue(project, "addPerson", "name=New person", "emails=new@example.com")
    summary = push(project).summary
    assert summary["complete"]
    assert summary["mutations"]["applied"] == 2
    assert project.ask("SELECT title FROM deals WHERE id = ?", deal["id"]) == [("Shown at once",)]
    new = project.control("SELECT remote_id FROM mutations WHERE id = ?", person["id"])[0][0]
    assert project.ask("SELECT name FROM persons WHERE id = ?", int(new)) == [("New person",)]
    trail = project.ask("SELECT outcome, base_image->>'title', after_image->>'title', attempts, push_id"
                        " FROM meta.mutations WHERE id = ?", queued["id"])  # fmt: skip
    assert trail == [("applied", deal["title"], "Shown at once", 1, summary["run_id"])]


def test_w13_s9_a_stream_that_could_not_be_read_back_is_named_and_not_called_read(
    remote: Remote, project: Project
) -> None:
    deal = live(remote, "deals")[3]
    queue(project, "updateDeal", f"id={deal['id']}", "title=Shown later")
    queue(project, "addPerson", "name=Shown at once")
    remote.fault(kind="status", status=500, path=r"/api/v2/deals\?")  # the list
    ran = push(project)
    remote.clear_faults()
    assert ran.summary["mutations"]["applied"] == 2  # the push itself is complete
    assert [*ran.summary["streams"]] == ["persons"]
    assert "does not show all of this push yet: deals" in ran.err
    assert "pdsync sync" in ran.err
    assert project.ask("SELECT title FROM deals WHERE id = ?", deal["id"]) == [(deal["title"],)]
    assert project.here("sync", "deals").code == 0
    assert project.ask("SELECT title FROM deals WHERE id = ?", deal["id"]) == [("Shown later",)]


def test_a_custom_field_is_set_by_its_label_or_column_and_its_option_by_name(remote: Remote, project: Project) -> None:
    deal = live(remote, "deals")[2]
    column, code = project.ask(
        "SELECT column_name, field_code FROM meta.custom_fields WHERE entity = 'deals' AND field_type = 'enum'"
        " ORDER BY 1"
    )[0]
    label, text = project.ask(
        "SELECT label, field_code FROM meta.custom_fields WHERE entity = 'deals' AND field_type = 'text' AND label IN"
        " (SELECT label FROM meta.custom_fields WHERE entity = 'deals' GROUP BY 1 HAVING count(*) = 1)"
    )[0]
    option, name = project.ask(
        "SELECT min(option_id), label FROM meta.field_options WHERE entity = 'deals' AND field_code = ?"
        " GROUP BY label HAVING count(*) = 1 AND min(option_id) <> ?",
        code,
        str(deal["custom_fields"].get(code)),
    )[0]
    queue(project, "updateDeal", f"id={deal['id']}", f"{column}={name}", f"{label}=By its label")
    push(project)
    held = record(remote, "deals", deal["id"])["custom_fields"]
    assert (held[code], held[text]) == (int(option), "By its label")
    assert project.ask(f'SELECT "{column}", "{column}_label" FROM deals WHERE id = ?', deal["id"]) == [
        (int(option), name)
    ]
    ran = project.here("queue", "add", "updateDeal", f"id={deal['id']}", f"{column}={name}x")
    assert ran.code == 2
    assert repr(name) in ran.err  # it is suggested


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("updateDeal", "id=1", "titel=x"), "Did you mean 'title'"),
        (("updateDeal", "id=1"), "would set nothing"),
        (("updateDeal", "title=x"), "needs id"),
        (("updateDeal", "id=x", "title=x"), "should be a whole number"),
        (("updateDeal", "id=1", "owner=Nobody At All"), "none of the users is called"),
        (("v1:updateDeal", "id=1", "title=x"), "Use v2 updateDeal instead"),
        (("cancelRecurringSubscription", "id=1"), "Pipedrive removed subscriptions on 2025-06-27"),
        (("addChannel", "name=x", "provider_channel_id=y"), "Pipedrive ended its Channels API on 2026-02-01"),
        (("getDeal", "id=1"), "only reads"),
        (("updateDeals", "id=1"), "Did you mean 'updateDeal'"),
        (("addPerson", "name=x", "org_id=@nothing"), "refers to nothing"),
        (("addFile", "file=/nowhere/at/all", "deal_id=1"), "is not a file"),
    ],
)
def test_errors_that_can_be_found_early_are_found_when_queued(
    remote: Remote, project: Project, words: tuple[str, ...], said: str
) -> None:
    before = project.control("SELECT count(*) FROM mutations")
    ran = project.here("queue", "add", *words)
    assert ran.code == 2, ran
    assert said in ran.err
    assert project.control("SELECT count(*) FROM mutations") == before
    assert remote.log() == []


def test_one_bad_row_refuses_the_file_and_skip_bad_keeps_the_good(project: Project, tmp_path: Path) -> None:
    path, bad = tmp_path / "rows.csv", tmp_path / "bad.csv"
    path.write_text("name;emails\nGood One;good@example.com\n;no@example.com\nGood Two;\n", encoding="utf-8")
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("id,value\n1,12\n2,much\n", encoding="utf-8")
    ran = project.here("queue", "import", str(wrong), "--operation", "updateDeal")
    assert ran.code == 2
    assert "row 2" in ran.err
    assert project.here("queue", "list", "--json").out == ""
    ran = project.here("queue", "import", str(wrong), "--operation", "updateDeal", "--skip-bad", str(bad), "--json")
    assert ran.code == 0, ran
    assert [event["target"] for event in ran.events] == ["deals/1"]
    assert "much" in bad.read_text("utf-8")
    assert "Nothing was queued" not in bad.read_text("utf-8")
    ran = project.here("queue", "import", str(path), "--operation", "addPerson", "--json")
    assert ran.code == 0, ran
    assert [event["payload"].get("name") for event in ran.events] == ["Good One", None, "Good Two"]


def test_a_record_that_the_warehouse_does_not_have_is_named_when_queued(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,title\n3,There\n999999,Not there\n", encoding="utf-8")
    for words, missing in (
        (("import", str(path), "--operation", "updateDeal"), {"999999"}),
        (("add", "deleteDeal", "id=999998"), {"999998"}),
        (("add", "mergeDeals", "id=3", "merge_with_id=99999"), {"99999"}),
        (("add", "updateDeal", "id=3", "title=There too"), set()),
    ):
        ran = project.here("queue", *words, "--json")
        assert ran.code == 0, ran
        assert {id for id in ("3", "99999", "999998", "999999") if f"deals/{id} (#" in ran.err} == missing, ran


def test_drop_says_that_nothing_was_dropped_and_how_all_are(project: Project) -> None:
    name = queue(project, "updateDeal", "id=3", "title=Stays")["name"]
    for words, hint in ((("777777", name), "777777"), ((name, "777777"), "777777"), (("all",), "--all")):
        ran = project.here("queue", "drop", *words)
        assert (ran.code, "Nothing was dropped." in ran.err, hint in ran.err) == (2, True, True), ran
    assert project.control("SELECT count(*) FROM mutations WHERE state = 'queued'") == [(1,)]


def test_rows_of_one_file_refer_to_each_other(remote: Remote, project: Project, tmp_path: Path) -> None:
    path = tmp_path / "rows.ndjson"
    rows = [
        {"_operation": "addPerson", "name": "Their person", "org_id": "@acme"},
        {"_operation": "addOrganization", "_as": "acme", "name": "Their company"},
    ]
    path.write_text("\n".join(map(json.dumps, reversed(rows))), encoding="utf-8")
    assert project.here("queue", "import", str(path)).code == 0
    push(project)
    org = next(each for each in live(remote, "organizations") if each["name"] == "Their company")
    assert next(each for each in live(remote, "persons") if each["name"] == "Their person")["org_id"] == org["id"]


def test_w5_mutations_that_depend_on_a_failed_one_are_held_back(remote: Remote, project: Project) -> None:
    deal = live(remote, "deals")[3]
    first = queue(project, "updateDeal", f"id={deal['id']}", "stage_id=987654")  # there is no such stage
    second = queue(project, "updateDeal", f"id={deal['id']}", "title=Behind it")
    other = queue(project, "updateDeal", f"id={live(remote, 'deals')[4]['id']}", "title=Beside it")
    push(project, code=5)
    assert fate(project, first)[0] == "rejected"
    assert fate(project, second) == ("queued", "blocked")
    assert fate(project, other) == ("applied", None)
    assert record(remote, "deals", deal["id"])["title"] == deal["title"]


def test_an_update_that_would_change_nothing_is_not_sent(remote: Remote, project: Project) -> None:
    deal = live(remote, "deals")[5]
    queued = queue(project, "updateDeal", f"id={deal['id']}", f"title={deal['title']}")
    push(project)
    assert fate(project, queued) == ("applied", "already_so")
    assert writes(remote) == []


def test_w2_deleting_a_deleted_record_is_no_effect_of_ours(remote: Remote, project: Project) -> None:
    gone = live(remote, "persons")[-1]["id"]
    remote.post("act", method="DELETE", path=f"/api/v2/persons/{gone}")
    remote.post("clock", advance_s=31 * 86_400)  # and purged
    queued = queue(project, "deletePerson", f"id={gone}")
    summary = push(project, "--allow", "delete").summary
    assert fate(project, queued) == ("applied", "already_so")
    assert writes(remote) == []
    assert project.ask("SELECT _deleted_at FROM persons WHERE id = ?", gone) == [(None,)]  # for reconcile to find out
    undone = project.here("undo", summary["run_id"], "--json")
    assert f"persons/{gone}" not in undone.out, undone


def test_w5_a_second_deletion_waits_for_the_outcome_of_the_first(
    remote: Remote, project: Project, tmp_path: Path
) -> None:
    added = queue(project, "addActivity", "subject=Deleted twice")
    pushed = push(project).summary["run_id"]
    id = project.control("SELECT remote_id FROM mutations WHERE id = ?", added["id"])[0][0]
    assert project.here("undo", pushed).code == 0
    undo = project.control("SELECT id FROM mutations WHERE undo_of = ?", added["id"])[0][0]
    second = queue(project, "deleteActivity", f"id={id}")
    plan = tmp_path / "plan.json"
    assert project.here("push", "--dry-run", "--out", str(plan)).code == 0
    remote.advance(60)
    remote.post("act", method="PATCH", path=f"/api/v2/activities/{id}", body={"subject": "Still needed"})
    push(project, str(plan), "--allow", "delete", "--max-deletes", "9", code=5)
    assert fate(project, {"id": undo})[0] == "conflict"
    assert fate(project, second) == ("queued", "blocked")
    assert record(remote, "activities", int(id))["subject"] == "Still needed"


def test_w6_an_edit_of_the_same_field_is_a_conflict_of_another_field_is_not(
    remote: Remote, project: Project, tmp_path: Path
) -> None:
    same, other = live(remote, "deals")[6:8]
    first = queue(project, "updateDeal", f"id={same['id']}", "title=Ours")
    second = queue(project, "updateDeal", f"id={other['id']}", "title=Ours")
    plan = tmp_path / "plan.json"
    assert project.here("push", "--dry-run", "--out", str(plan)).code == 0
    for id, field in ((same["id"], "title=Theirs"), (other["id"], "value=4321")):
        assert project.here("api", "updateDeal", f"id={id}", field, "--yes").code == 0
    push(project, str(plan), code=5)
    assert fate(project, first) == ("conflict", "changed")
    assert fate(project, second) == ("applied", None)
    assert record(remote, "deals", same["id"])["title"] == "Theirs"
    assert record(remote, "deals", other["id"])["value"] == 4321


def test_w9_only_the_plan_that_was_saved_is_carried_out_and_only_once(
    remote: Remote, project: Project, tmp_path: Path
) -> None:
    deal = live(remote, "deals")[8]
    queue(project, "updateDeal", f"id={deal['id']}", "title=As planned")
    plan, edited = tmp_path / "plan.json", tmp_path / "edited.json"
    assert project.here("push", "--dry-run", "--out", str(plan)).code == 0
    edited.write_text(plan.read_text("utf-8").replace("As planned", "Not planned"), encoding="utf-8")
    remote.clear_log()
    for path, said in ((edited, "was changed since"), (tmp_path / "none.json", "does not exist")):
        ran = project.here(*YES, str(path))
        assert ran.code == 2, ran
        assert said in ran.err
    assert writes(remote) == []
    push(project, str(plan))
    again = project.here(*YES, str(plan))
    assert again.code == 2
    assert "carried out already" in again.err


def test_w8_guards_hold_a_push_back_before_anything_is_sent(remote: Remote, project: Project) -> None:
    activity = live(remote, "activities")[0]
    queue(project, "deleteActivity", f"id={activity['id']}")
    ran = project.here(*YES)
    assert ran.code == 3
    assert "--allow delete" in ran.err
    assert project.here(*YES, "--allow", "delete", "--max-deletes", "0").code == 3
    assert project.here(*YES, "--allow", "delete", "--max-changes", "0").code == 3
    (project.folder / "pdsync.freeze").write_text("month's end", encoding="utf-8")
    frozen = project.here(*YES, "--allow", "delete")
    (project.folder / "pdsync.freeze").unlink()
    assert frozen.code == 3
    assert "month's end" in frozen.err
    assert writes(remote) == []
    push(project, "--allow", "delete")
    assert project.ask("SELECT _deleted_at IS NOT NULL FROM activities WHERE id = ?", activity["id"]) == [(True,)]


def test_consent_is_asked_for_and_a_script_has_to_give_it(remote: Remote, project: Project) -> None:
    queue(project, "updateDeal", f"id={live(remote, 'deals')[9]['id']}", "title=Not without --yes")
    ran = project.here("push")
    assert ran.code == 2
    assert "--yes" in ran.err
    assert writes(remote) == []


def test_a_merge_shows_what_is_lost_and_leaves_its_trail(remote: Remote, project: Project) -> None:
    loser, winner = live(remote, "persons")[:2]
    queued = queue(project, "mergePersons", f"id={loser['id']}", f"merge_with_id={winner['id']}")
    dry = project.here("push", "--dry-run", "--json")
    (step,) = [event for event in dry.events if event["event"] == "step"]
    assert any(loser["name"] in warning for warning in step["warnings"])
    assert project.here(*YES).code == 3
    ran = project.here("push", "--yes", "--allow", "merge", "--settle-seconds", "0.1")
    assert ran.code == 0, ran
    assert (f"persons/{loser['id']} → {winner['id']}" in ran.err, "can't be undone: a merge is final" in ran.err,
            "pdsync undo" in ran.err) == (True, True, False), ran.err  # fmt: skip
    assert fate(project, queued) == ("applied", None)
    assert project.ask("SELECT loser_id, winner_id, confidence FROM meta.merges WHERE entity = 'persons'"
                       " AND loser_id = ?", loser["id"]) == [(loser["id"], winner["id"], "exact")]  # fmt: skip
    assert project.ask("SELECT _deleted_at IS NOT NULL FROM persons WHERE id = ?", loser["id"]) == [(True,)]
    base = json.loads(project.control("SELECT base_image FROM mutations WHERE id = ?", queued["id"])[0][0])
    assert base["loser"]["name"] == loser["name"]
    undone = project.here("undo", project.control("SELECT push_id FROM mutations WHERE id = ?", queued["id"])[0][0])
    assert (undone.code, "can be undone. Nothing was queued." in undone.err) == (4, True), undone


def test_w12_undo_restores_what_still_holds_our_value_and_nothing_else(remote: Remote, project: Project) -> None:
    ours, theirs = live(remote, "deals")[10:12]
    for deal in (ours, theirs):
        queue(project, "updateDeal", f"id={deal['id']}", "title=Ours", "value=77")
    added = queue(project, "addOrganization", "name=Soon gone")
    push_id = push(project).summary["run_id"]
    assert project.here("api", "updateDeal", f"id={theirs['id']}", "title=Edited since", "--yes").code == 0
    ran = project.here("undo", push_id, "--json")
    assert ran.code == 0, ran
    assert ran.summary["queued"] == 3
    push(project, "--allow", "delete", code=5)
    back = record(remote, "deals", ours["id"])
    assert (back["title"], back["value"]) == (ours["title"], ours["value"])
    assert record(remote, "deals", theirs["id"])["title"] == "Edited since"
    id = int(project.control("SELECT remote_id FROM mutations WHERE id = ?", added["id"])[0][0])
    assert id not in {each["id"] for each in live(remote, "organizations")}
    assert project.here("undo", push_id, "--json").summary["queued"] == 1  # only what met a conflict is left to undo


def test_w7_a_field_that_the_server_ignores_is_no_success(remote: Remote, project: Project) -> None:
    deal, behind = live(remote, "deals")[12:14]
    queued = queue(project, "updateDeal", f"id={deal['id']}", "title=Never taken over")
    waiting = queue(project, "updateDeal", f"id={behind['id']}", "title=Stays in the queue")
    lie = {"find": "Never taken over", "replace": deal["title"].replace("\\", "")}
    remote.fault(kind="mutate", path="deals", **lie)  # every answer shows the old title
    push(project, code=3)
    assert fate(project, queued) == ("rejected", "ignored_fields")
    assert fate(project, waiting)[0] in ("queued", "applied")  # it flew beside, or was held back


@pytest.mark.parametrize("words", [("updateDeal", "title=Lost answer"), ("addDeal", "title=Lost answer"),
                                   ("deleteActivity",), ("addNote", "content=Lost answer")])  # fmt: skip
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset_after"},
        {"kind": "reset_before"},
        {"kind": "status", "status": 502, "when": "after"},
        {"kind": "status", "status": 503},
        {"kind": "truncate"},
        {"kind": "html_200"},
    ],
    ids=lambda fault: f"{fault['kind']}{fault.get('status', '')}",
)
def test_w2_w4_a_lost_answer_is_probed_and_the_effect_happens_once(
    remote: Remote, project: Project, words: tuple[str, ...], fault: dict[str, Any]
) -> None:
    deal, activity = live(remote, "deals")[15], live(remote, "activities")[-1]
    extra = {"updateDeal": [f"id={deal['id']}", f"value={journal(remote)}"], "addDeal": [], "deleteActivity":
             [f"id={activity['id']}"], "addNote": [f"deal_id={deal['id']}"]}[words[0]]  # fmt: skip
    queued = queue(project, *words, *extra)
    before = journal(remote)
    method = {"updateDeal": "PATCH", "deleteActivity": "DELETE"}.get(words[0], "POST")
    remote.fault(**fault, path="^/(v1|api/v2)/(deals|activities|notes)", method=method, nth=1)
    push(project, "--allow", "delete")
    assert fate(project, queued)[0] == "applied"
    kind = {"deleteActivity": "activities", "addNote": "notes"}.get(words[0], "deals")
    effects = [entry for entry in remote.lines("journal")[before:] if entry["kind"] == kind]
    assert len(effects) == 1
    probes = project.control("SELECT verdict FROM probes WHERE mutation = ?", queued["id"])
    assert probes  # nothing was sent again without a look


def test_create_doubt_review_never_resends(remote: Remote, project: Project) -> None:
    queued = queue(project, "addOrganization", "name=Sent but once")
    remote.fault(kind="reset_before", method="POST", nth=1)
    push(project, "--create-doubt", "review", code=5)
    assert fate(project, queued)[0] == "needs_review"
    assert [entry["method"] for entry in writes(remote)] == ["POST"]


def test_x1_another_companys_token_reaches_neither_queue_nor_plan_nor_warehouse(
    remote: Remote, project: Project, tmp_path: Path
) -> None:
    queue(project, "updateDeal", f"id={live(remote, 'deals')[16]['id']}", "title=In the wrong company")
    plan = tmp_path / "plan.json"
    assert project.here("push", "--dry-run", "--out", str(plan)).code == 0
    with serving("--deals", "20", "--company-id", "7777") as other:
        project.configure(base_url=other.url, api_token=other.token)
        try:
            kept = project.kept()
            for command in (YES, (*YES, str(plan)), ("push", "--dry-run")):
                ran = project.here(*command)
                assert ran.code == 2, ran
                assert "belongs to company 7777" in ran.err
            assert writes(other) == []
            assert project.kept() == kept
        finally:
            project.configure(base_url=remote.url, api_token=remote.token)


def test_x10_a_page_for_a_manager_escapes_what_it_shows_and_runs_nothing(
    remote: Remote, project: Project, tmp_path: Path
) -> None:
    queue(project, "updateDeal", f"id={live(remote, 'deals')[17]['id']}", "title=<script>alert(1)</script>")
    page = tmp_path / "plan.html"
    assert project.here("push", "--dry-run", "--html", str(page)).code == 0
    text = page.read_text("utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script" not in text
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', text)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert policy
    assert style
    allowed = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy[1].split("; ") == [
        "default-src 'none'", f"style-src 'sha256-{allowed}'", "base-uri 'none'", "form-action 'none'"
    ]  # fmt: skip
    assert text.index(policy[0]) < text.index("<style>")
    assert not re.search(r"""style=|on[a-z]+=|javascript:|https?://""", text.partition("<body>")[2])


def test_the_queue_can_be_written_out_and_read_in_again(project: Project, tmp_path: Path) -> None:
    org = queue(project, "addOrganization", "name=Exported")
    queue(project, "addPerson", "name=Hers", f"org_id=@#{org['seq']}")
    path = tmp_path / "queue.ndjson"
    assert project.here("queue", "export", str(path)).code == 0
    assert project.here("queue", "drop", "--all").code == 0
    ran = project.here("queue", "import", str(path), "--json")
    assert ran.code == 0, ran
    first, second = ran.events
    assert second["payload"]["org_id"] == {"$ref": first["id"]}


def test_what_a_change_expects_of_its_record_is_written_out_and_read_in_again(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "queue.ndjson"
    row = {"_operation": "v2 updateDeal", "_expected": {"title": "Ours"}, "id": 3, "title": "Old"}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    for _ in range(2):
        assert project.here("queue", "drop", "--all").code == 0
        ran = project.here("queue", "import", str(path))
        assert ran.code == 0, ran
        queued = project.control("SELECT expected FROM mutations WHERE state = 'queued'")
        assert [json.loads(each[0]) for each in queued] == [{"title": "Ours"}]
        assert project.here("queue", "export", str(path)).code == 0


def test_a_file_or_query_that_was_queued_before_is_refused_unless_again(project: Project, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,title\n3,One\n4,Two\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("id;title\n3;One\n4;Two\n", encoding="utf-8")  # the same, saved anew
    imported = ("queue", "import", str(tmp_path / "a.csv"), "--operation", "updateDeal")
    assert project.here(*imported).code == 0
    query = "select * from (values (3, 'One'), (4, 'Two')) rows (id, title)"
    for repeated in (
        imported,
        ("queue", "import", str(tmp_path / "b.csv"), "--operation", "updateDeal"),
        ("queue", "from-sql", query, "--operation", "updateDeal"),
    ):
        ran = project.here(*repeated)
        assert (ran.code, "(2 still in the queue). Nothing was queued.\n" in ran.err) == (2, True), ran
        assert "To queue it a second time: --again" in ran.err
    queued = "SELECT count(*) FROM mutations WHERE state = 'queued'"
    assert project.control(queued) == [(2,)]
    (tmp_path / "c.csv").write_text("id,title\n5,Three\n3,One\n", encoding="utf-8")  # one row of it is the same
    ran = project.here("queue", "import", str(tmp_path / "c.csv"), "--operation", "updateDeal")
    assert (ran.code, "c.csv left out: in the queue already as #" in ran.err) == (0, True), ran
    assert project.control(queued) == [(3,)]
    ran = project.here(*imported, "--again")
    assert (ran.code, "already" in ran.err) == (0, False), ran
    assert project.control(queued) == [(5,)]
    assert project.here("queue", "drop", "--all").code == 0
    assert project.here(*imported).code == 0  # those that were dropped had no effect


def test_a_key_keeps_a_row_from_being_queued_twice(project: Project) -> None:
    first = queue(project, "addOrganization", "name=Once", "--key", "once")
    assert queue(project, "addOrganization", "name=Once", "--key", "once")["id"] == first["id"]


@pytest.mark.proof
def test_s14_a_record_deleted_by_a_push_is_deleted_after_a_replay_too(remote: Remote, project: Project) -> None:
    person, organization = live(remote, "persons")[-1], live(remote, "organizations")[:2]
    queue(project, "deletePerson", f"id={person['id']}")
    queue(project, "mergeOrganizations", f"id={organization[0]['id']}", f"merge_with_id={organization[1]['id']}")
    push(project, "--allow", "delete,merge")
    tables, merges = fingerprint(project), project.ask("FROM meta.merges ORDER BY ALL")
    assert project.ask("SELECT _deleted_at IS NOT NULL FROM persons WHERE id = ?", person["id"]) == [(True,)]
    assert project.here("replay", "-q").code == 0
    assert fingerprint(project) == tables
    assert project.ask("FROM meta.merges ORDER BY ALL") == merges


def test_the_older_names_of_two_options_still_work_and_are_not_shown(project: Project) -> None:
    ran = project.here("push", "--yes", "--json", "--settle", "0.1", "--audit", "changelog")
    assert ran.code == 0, ran
    shown = project.here("push", "--help").out
    assert {"--settle-seconds", "--check-lost-updates"} <= set(shown.split())
    assert not {"--settle", "--audit"} & set(shown.split())
