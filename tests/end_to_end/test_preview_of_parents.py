"""A preview says of what refers to a record that is not added that it will not be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.world import Project, Remote


def test_w10_a_preview_says_what_is_held_back_because_its_parent_was_dropped(bare: Project) -> None:
    file = bare.folder / "rows.csv"
    file.write_text("_operation,_as,name,org_id\naddOrganization,a,A,\naddOrganization,b,B,\naddPerson,,P,@a\n"
                    "addPerson,,Q,@b\n", encoding="utf-8")  # fmt: skip
    assert bare.here("queue", "import", str(file)).code == 0
    assert bare.here("queue", "drop", "1").code == 0
    steps = [each for each in bare.here("push", "--dry-run", "--json").events if each["event"] == "step"]
    why = "not sent as long as #1, which it refers to, is not applied"
    assert [(each["seq"], each["warnings"]) for each in steps] == [(2, []), (3, [why]), (4, [])]
    assert bare.here("push", "--yes").code == 5
    assert bare.control("SELECT seq, state FROM mutations ORDER BY seq") == [
        (1, "cancelled"), (2, "applied"), (3, "queued"), (4, "applied"),
    ]  # fmt: skip
    plan = bare.here("push", "--dry-run", "--json").summary
    assert (plan["requests"], plan["waiting"]) == (0, 1)
    assert "1 change: 0 to send, 1 held back." in bare.here("push", "--dry-run").err


def test_w10_a_preview_says_what_is_held_back_because_a_change_before_it_is_in_conflict(
    remote: Remote, bare: Project
) -> None:
    made = remote.post("act", method="POST", path="/api/v2/deals", body={"title": "Archived"})["data"]["id"]
    remote.post("act", method="PATCH", path=f"/api/v2/deals/{made}", body={"is_archived": True})
    for words in (
        ["updateDeal", f"id={made}", "title=New"],
        ["addNote", f"deal_id={made}", "content=x"],
        ["addOrganization", "name=Free"],
    ):
        assert bare.here("queue", "add", *words).code == 0
    preview = bare.here("push", "--dry-run", "--json", "--html", str(bare.folder / "plan.html"))
    steps = [each for each in preview.events if each["event"] == "step"]
    why = "not sent as long as #1 before it is not applied"
    assert [(each["fate"], each["warnings"]) for each in steps] == [("conflict", []), ("send", [why]), ("send", [])]
    assert (preview.summary["requests"], preview.summary["waiting"]) == (1, 1)
    assert "1 change will be sent; 2 will not." in (bare.folder / "plan.html").read_text("utf-8")
    ran = bare.here("push", "--yes", "--json")
    assert (ran.code, ran.summary["outcomes"]["applied"], ran.summary["open"]) == (5, 1, 1)
