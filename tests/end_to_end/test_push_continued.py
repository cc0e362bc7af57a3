"""A push that looks up what an earlier one left says how that ended, and does not end as complete where it did not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.world import Project, Remote

pytestmark = pytest.mark.proof

PUSH = ("push", "--yes", "--settle-seconds", "0.05")
ORGANIZATIONS = "/api/v2/organizations"


def leave_unknown(remote: Remote, project: Project, kind: str = "reset_before") -> None:
    """Push one addition whose answer is lost, while the list can't be read."""
    assert project.here("queue", "add", "addOrganization", "name=In doubt").code == 0
    remote.fault(kind=kind, method="POST", path=ORGANIZATIONS, nth=1)
    remote.fault(kind="status", status=500, method="GET", path=ORGANIZATIONS, nth=2, times=999)
    assert project.here(*PUSH).code == 5
    assert project.control("SELECT state FROM mutations") == [("unknown",)]
    remote.clear_faults()


def test_o7_w1_an_outcome_that_stays_unknown_is_no_success(remote: Remote, bare: Project) -> None:
    leave_unknown(remote, bare)
    remote.fault(kind="status", status=500, method="GET", path=ORGANIZATIONS, nth=1, times=999)
    ran = bare.here(*PUSH, "--json")
    assert (ran.code, ran.summary["complete"], ran.summary["looked_up"]) == (5, False, {"unknown": 1}), ran
    assert [(each["name"], each["state"]) for each in ran.events[:-1]] == [("#1", "unknown")]


def test_o7_w1_what_needs_a_review_after_it_was_looked_up_is_no_success(remote: Remote, bare: Project) -> None:
    leave_unknown(remote, bare)
    ran = bare.here(*PUSH, "--create-doubt", "review")
    assert ran.code == 5, ran
    assert "#1 v2 addOrganization: needs review, it was not carried out" in ran.err
    assert "Of an earlier push, whose answers were lost: 1 needs review." in ran.err
    assert bare.here(*PUSH).code == 0  # the next one has nothing to do with it


def test_o7_w1_what_had_been_carried_out_after_all_is_a_success(remote: Remote, bare: Project) -> None:
    leave_unknown(remote, bare, "reset_after")
    ran = bare.here(*PUSH)
    assert ran.code == 0, ran
    assert "Of an earlier push, whose answers were lost: 1 applied." in ran.err


@pytest.mark.parametrize("saved", [False, True])
def test_w5_a_later_change_does_not_overtake_one_whose_outcome_is_unknown(
    remote: Remote, bare: Project, *, saved: bool
) -> None:
    body = {"title": "Mine"}
    id = int(remote.post("act", method="POST", path="/api/v2/deals", body=body)["data"]["id"])
    read = {"kind": "status", "status": 500, "method": "GET", "path": f"/api/v2/deals/{id}"}

    def title() -> str:
        return str(next(each["record"]["title"] for each in remote.dump("deals") if each["record"]["id"] == id))

    assert bare.here("queue", "add", "updateDeal", f"id={id}", "title=New").code == 0
    remote.fault(kind="reset_before", method="PATCH", nth=1)
    remote.fault(**read, nth=3, times=999)
    assert bare.here(*PUSH).code == 5
    remote.clear_faults()
    for words in (["updateDeal", f"id={id}", "title=Mine"], ["addNote", f"deal_id={id}", "content=Titled"]):
        assert bare.here("queue", "add", *words).code == 0
    plan: list[str] = []
    if saved:
        plan = [str(bare.folder / "plan.json")]
        assert bare.here("push", "--dry-run", "--out", *plan).code == 0
    remote.fault(**read, nth=1, times=24)  # every probe fails, and what is read after them does not
    ran = bare.here(*PUSH, *plan)
    assert ran.code == 5, ran
    assert "Not sent as long as the outcome of a change before it is unknown: #2 to #3." in ran.err
    why = "#1 before it has an unknown outcome"
    assert bare.control("SELECT state, detail FROM mutations WHERE seq > 1") == [("queued", why)] * 2
    remote.clear_faults()
    assert bare.here(*PUSH).code == 0
    assert title() == "Mine"
