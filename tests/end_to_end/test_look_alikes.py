"""Texts that look alike are different values: leading zeros, a plus, spaces and tags are sent, not "already so"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.world import Project, Remote

PUSH = ("push", "--yes", "--json", "--settle-seconds", "0.05")


def push(project: Project, *words: str) -> None:
    assert project.here("queue", "add", *words).code == 0
    ran = project.here(*PUSH)
    assert ran.code == 0, ran


def product(remote: Remote) -> dict[str, Any]:
    return next(each["record"] for each in remote.dump("products") if each["state"] == "live")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("12", "0012"),
        ("0012", "12"),
        ("49301234", "+49301234"),
        ("100", "1E2"),
        ("1.10", "1.1"),
        ("A  1", "A 1"),
        (" A1", "A1"),
        ("A 1", "A\n1"),
    ],
)
def test_w7_a_text_that_looks_alike_is_sent(remote: Remote, bare: Project, before: str, after: str) -> None:
    id = product(remote)["id"]
    push(bare, "updateProduct", f"id={id}", "code=other")
    push(bare, "updateProduct", f"id={id}", f"code={before}")
    assert product(remote)["code"] == before
    push(bare, "updateProduct", f"id={id}", f"code={after}")
    assert product(remote)["code"] == after


def test_w7_a_phone_number_gets_its_plus(remote: Remote, bare: Project) -> None:
    id = next(each["record"]["id"] for each in remote.dump("persons") if each["state"] == "live")
    for number in ("49301234", "+49301234"):
        push(bare, "updatePerson", f"id={id}", f"phones={number}")
    (person,) = (each["record"] for each in remote.dump("persons") if each["record"]["id"] == id)
    assert [each["value"] for each in person["phones"]] == ["+49301234"]


def test_w7_w12_a_note_gets_other_tags_and_undo_takes_them_back(remote: Remote, bare: Project) -> None:
    id = next(each["record"]["id"] for each in remote.dump("notes") if each["state"] == "live")

    def content() -> str:
        return next(str(each["record"]["content"]) for each in remote.dump("notes") if each["record"]["id"] == id)

    links = [f'See <a href="https://{host}.example/">this</a>' for host in ("old", "new", "newest")]
    push(bare, "updateNote", f"id={id}", f"content={links[0]}")
    push(bare, "updateNote", f"id={id}", f"content={links[1]}")
    assert content() == links[1]
    assert bare.here("undo", "last").code == 0
    assert bare.here(*PUSH).code == 0
    assert content() == links[0]
    push(bare, "updateNote", f"id={id}", f"content={links[1]}")
    assert bare.here("undo", "last").code == 0
    remote.post("act", method="PUT", path=f"/v1/notes/{id}", body={"content": links[2]})
    assert bare.here(*PUSH).code == 5
    assert content() == links[2]


def test_w7_w12_a_flag_that_is_off_can_be_emptied_and_undo_does_so(remote: Remote, bare: Project) -> None:
    fields = [each["record"] for each in remote.dump("deal_fields")]
    code = next(
        each["field_code"] for each in fields if each["field_type"] == "boolean" and len(each["field_code"]) == 40
    )
    id = next(each["record"]["id"] for each in remote.dump("deals") if each["state"] == "live")

    def flag() -> bool | None:
        (found,) = (each["record"] for each in remote.dump("deals") if each["record"]["id"] == id)
        return dict(found["custom_fields"]).get(code)

    push(bare, "updateDeal", f"id={id}", "--body", f'{{"custom_fields": {{"{code}": true}}}}')
    push(bare, "updateDeal", f"id={id}", "--body", f'{{"custom_fields": {{"{code}": false}}}}')
    push(bare, "updateDeal", f"id={id}", "--body", f'{{"custom_fields": {{"{code}": null}}}}')
    assert flag() is None
    push(bare, "updateDeal", f"id={id}", "--body", f'{{"custom_fields": {{"{code}": false}}}}')
    assert flag() is False
    assert bare.here("undo", "last").code == 0
    assert bare.here(*PUSH).code == 0
    assert flag() is None


@pytest.mark.parametrize("fault", ["reset_before", "reset_after"])
def test_w2_w4_a_lost_answer_to_other_tags_is_no_proof_of_them(remote: Remote, bare: Project, fault: str) -> None:
    id = next(each["record"]["id"] for each in remote.dump("notes") if each["state"] == "live")
    push(bare, "updateNote", f"id={id}", f"content=plain {fault}")
    before = len(remote.lines("journal"))
    remote.fault(kind=fault, method="PUT", nth=1)
    push(bare, "updateNote", f"id={id}", f"content=<b>plain</b> {fault}")
    (note,) = (each["record"] for each in remote.dump("notes") if each["record"]["id"] == id)
    assert note["content"] == f"<b>plain</b> {fault}"
    assert len(remote.lines("journal")) == before + 1
