"""An undo brings back all that a push has changed, or says what it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.queueing import push, queue

if TYPE_CHECKING:
    from tests.support.world import Project, Remote


def record(remote: Remote, kind: str, id: Any) -> dict[str, Any]:
    return next(each["record"] for each in remote.dump(kind) if str(each["record"]["id"]) == str(id))


def deal(remote: Remote, **body: Any) -> int:
    """A deal of its own."""
    return int(remote.post("act", method="POST", path="/api/v2/deals", body={"title": "Mine", **body})["data"]["id"])


def test_w12_a_deal_returns_to_its_stage_when_its_pipeline_is_undone(remote: Remote, bare: Project) -> None:
    stages = [each["record"] for each in remote.dump("stages") if each["state"] == "live"]
    pipelines = sorted({each["pipeline_id"] for each in stages})
    last = [each["id"] for each in stages if each["pipeline_id"] == pipelines[0]][-1]
    id = deal(remote, stage_id=last)
    queue(bare, "updateDeal", f"id={id}", f"pipeline_id={pipelines[1]}")
    push(bare)
    assert bare.here("undo", "last").code == 0
    push(bare)
    now = record(remote, "deals", id)
    assert (now["pipeline_id"], now["stage_id"]) == (pipelines[0], last)


def test_w12_a_reopened_deal_gets_its_reason_and_times_back(remote: Remote, bare: Project) -> None:
    id = deal(remote, status="lost", lost_reason="Too dear", lost_time="2026-01-05T10:00:00Z")
    was = record(remote, "deals", id)
    queue(bare, "updateDeal", f"id={id}", "status=open")
    push(bare)
    assert bare.here("undo", "last").code == 0
    push(bare)
    now = record(remote, "deals", id)
    for name in ("status", "lost_reason", "lost_time", "close_time"):
        assert now[name] == was[name], name


def test_w12_what_was_added_and_then_changed_by_the_same_push_is_deleted(remote: Remote, bare: Project) -> None:
    added = queue(bare, "addDeal", "title=First")
    (seq,) = bare.control("SELECT seq FROM mutations WHERE id = ?", added)[0]
    queue(bare, "updateDeal", f"id=@#{seq}", "title=Second")
    push(bare)
    (id,) = bare.control("SELECT remote_id FROM mutations WHERE id = ?", added)[0]
    assert record(remote, "deals", id)["title"] == "Second"
    assert bare.here("undo", "last").code == 0
    push(bare)
    states = {str(each["record"]["id"]): each["state"] for each in remote.dump("deals")}
    assert states[id] != "live"


def test_w12_an_addition_that_was_applied_in_part_is_deleted(remote: Remote, bare: Project) -> None:
    remote.fault(kind="mutate", path="/api/v2/deals", find='"Half done"', replace='"Half"')
    added = queue(bare, "addDeal", "title=Half done")
    push(bare, code=5)
    ((state, id),) = bare.control("SELECT state, remote_id FROM mutations WHERE id = ?", added)
    assert state == "needs_review"
    ran = bare.here("undo", "last", "--json")
    assert ran.summary["queued"] == 1, ran
    push(bare)
    assert {str(each["record"]["id"]): each["state"] for each in remote.dump("deals")}[id] != "live"


def test_w12_an_update_that_was_applied_in_part_is_undone(remote: Remote, bare: Project) -> None:
    id = deal(remote, value=5)
    remote.fault(kind="mutate", path=f"/api/v2/deals/{id}", find='"value":77', replace='"value":5')
    queue(bare, "updateDeal", f"id={id}", "value=77", "title=Taken")
    push(bare, code=3)
    assert record(remote, "deals", id)["title"] == "Taken"
    remote.clear_faults()
    ran = bare.here("undo", "last", "--json")
    assert ran.summary["queued"] == 1, ran
    push(bare)
    assert record(remote, "deals", id)["title"] == "Mine"


def test_w12_what_may_have_been_carried_out_is_named_until_a_person_knows(remote: Remote, bare: Project) -> None:
    remote.fault(kind="reset_before", method="POST", path="/api/v2/deals", nth=1)
    doubtful = queue(bare, "addDeal", "title=In doubt")
    push(bare, "--create-doubt", "review", code=5)
    undone = bare.here("undo", "last")
    assert undone.code == 4, undone
    assert "may have been carried out: pdsync queue show" in undone.err
    assert bare.here("queue", "resolve", doubtful, "--as", "rejected").code == 0
    assert bare.here("undo", "last").code == 0
