"""Texts of mails: read when named, once each, with the price known before; a forgotten person's texts are removed."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox

SYNC = ("sync", "mail_threads", "mail_messages", "mail_message_bodies", "--json")
TOKENS = 2  # a message


@pytest.fixture(scope="module")
def box() -> Iterator[RunningSandbox]:
    company = generate_company(
        seed=9, sizes=Sizes(deals=20, products=2, files=2, mail_threads=40), now=datetime.now(UTC)
    )
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        yield box


@pytest.fixture
def project(box: RunningSandbox, tmp_path: Path) -> Project:
    box.log.clear()
    return Project(tmp_path / "project").configure(base_url=box.url, api_token=box.token)


@pytest.fixture(scope="module")
def synced(box: RunningSandbox, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that has read the texts, and the persons."""
    project = Project(tmp_path_factory.mktemp("mail") / "project").configure(base_url=box.url, api_token=box.token)
    assert project.here("sync", "persons", *SYNC[1:]).code == 0
    return project


def requests(box: RunningSandbox) -> list[tuple[int, str]]:
    """The messages that were requested, as they arrived, and with which parameters."""
    return [(int(entry.path.split("/")[-1]), entry.query) for entry in box.log if entry.operation == "getMailMessage"]


def messages(project: Project) -> set[int]:
    return {id for (id,) in project.ask("SELECT id FROM mail_messages WHERE _deleted_at IS NULL")}


def test_each_text_is_read_once_for_the_price_that_the_plan_shows(box: RunningSandbox, project: Project) -> None:
    assert project.here(*SYNC[:3]).code == 0
    optional = {line["name"]: line["optional"] for line in project.here("plan", "--json").events[:-1]}
    assert optional["mail_message_bodies"]  # not read unless it is named
    planned = project.here("plan", "mail_message_bodies", "--json")

    ran = project.here(*SYNC)

    assert ran.code == 0, ran
    ids = messages(project)
    assert len(ids) > 10
    assert Counter(requests(box)) == dict.fromkeys(((id, "include_body=1") for id in ids), 1)
    rows = project.ask("SELECT id, body FROM mail_message_bodies ORDER BY id")
    assert rows == [(id, body_of(box, id)) for id in sorted(ids)]
    assert project.ask("SELECT count(*) FROM mail_message_bodies WHERE _extra IS NOT NULL") == [(0,)]
    spent = ran.summary["streams"]["mail_message_bodies"]["tokens"]
    assert planned.events[0]["tokens"] == spent == TOKENS * len(ids)

    box.log.clear()
    box.clock.advance(3600)
    thread = change_thread(box, more_messages=1)
    again = project.here(*SYNC)

    assert again.code == 0, again
    [added] = messages(project) - ids
    assert added // 10 == thread
    assert requests(box) == [(added, "include_body=1")]  # the other messages of the thread changed, but not their texts
    planned = project.here("plan", "mail_message_bodies", "--json")
    assert planned.events[0]["requests"] == 0
    assert planned.events[0]["basis"] == "new mail_messages: 0"


def body_of(box: RunningSandbox, id: int) -> str:
    """The text of a message, as the sandbox tells it."""
    owner = box.company.viewers["admin"].user_id
    body: str = box.act("GET", f"/v1/mailbox/mailMessages/{id}?include_body=1", user_id=owner)["data"]["body"]
    return body


def change_thread(box: RunningSandbox, *, more_messages: int) -> int:
    """A thread of the token's user gets further messages; its id."""
    owner = box.company.viewers["admin"].user_id
    row = next(
        row for row in box.company["mail_threads"].rows.values()
        if row.state == "live" and row.record["user_id"] == owner and 0 < row.record["message_count"] < 8
    )  # fmt: skip
    now = box.company.clock.stamp()
    count = row.record["message_count"] + more_messages
    box.company.put("mail_threads", "update", {**row.record, "message_count": count, "update_time": now})
    return row.id


def test_l5_texts_are_read_within_the_share_of_the_day_and_the_next_run_continues(
    box: RunningSandbox, project: Project
) -> None:
    assert project.here(*SYNC[:3]).code == 0
    ids = messages(project)
    box.log.clear()
    project.configure(daily_tokens=1000, dependents_share=2)  # ten messages a run
    first = project.here("sync", "mail_message_bodies", "-q").code
    newest = {id for id, _ in requests(box)}
    codes = [first, *(project.here("sync", "mail_message_bodies", "-q").code for _ in range(-(-len(ids) // 10) - 1))]

    assert newest == set(sorted(ids)[-10:])
    assert codes == [3] * (len(codes) - 1) + [0]
    assert Counter(id for id, _ in requests(box)) == dict.fromkeys(ids, 1)
    assert project.ask("SELECT count(*) FROM mail_message_bodies") == [(len(ids),)]


def test_texts_are_not_compared_and_survive_a_replay(box: RunningSandbox, synced: Project) -> None:
    project = synced
    rows = project.ask("SELECT id, body FROM mail_message_bodies ORDER BY id")
    box.log.clear()
    ran = project.here("reconcile", "--json")
    assert ran.code == 0, ran
    assert "mail_message_bodies" not in ran.summary["swept"]
    assert requests(box) == []
    assert project.here("replay", "-q").code == 0
    assert project.ask("SELECT id, body FROM mail_message_bodies ORDER BY id") == rows


def test_threat_13_texts_of_a_forgotten_person_are_removed(synced: Project) -> None:
    project = synced
    parties = project.ask(
        "SELECT id, [p.linked_person_id FOR p IN list_concat(senders, recipients)], senders[1].linked_person_id"
        " FROM mail_message_bodies"
    )
    senders = Counter(sender for *_, sender in parties if sender)
    person = senders.most_common()[-1][0]
    theirs = {id for id, persons, _ in parties if person in persons}
    name, emails = project.ask("SELECT name, [e.value FOR e IN emails] FROM persons WHERE id = ?", person)[0]
    assert any(email in body for (body,) in project.ask("SELECT body FROM mail_message_bodies") for email in emails)

    assert project.here("forget", "person", str(person), "--yes").code == 0

    left = project.ask("SELECT id, to_json(b)::VARCHAR FROM mail_message_bodies b")
    assert {id for id, _ in left} == {id for id, *_ in parties} - theirs
    assert not [id for id, text in left if name in text or any(email in text for email in emails)]
