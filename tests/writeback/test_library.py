"""`pdsync.Queue`: what programs queue, see and send is what the command line queues, shows and sends."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

import pdsync
from pdsync.core.control import Control
from pdsync.errors import ConfigError, GuardTripped
from pdsync.runner.push import PushRequest
from pdsync.sandbox import Limits, Sizes, generate_company, running
from pdsync.writeback.guards import Consent
from pdsync.writeback.outbox import Outbox
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox


@pytest.fixture(scope="module")
def box() -> Iterator[RunningSandbox]:
    company = generate_company(seed=6, sizes=Sizes(deals=30, files=3, mail_threads=2), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        yield box


@pytest.fixture(scope="module")
def synced(box: RunningSandbox, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("library") / "project")
    project.configure(base_url=box.url, api_token=box.token)
    assert project.here("sync", "-q", "deals", "persons", "organizations", "users", "stages", "pipelines").code == 0
    return project


@pytest.fixture
def queue(synced: Project, monkeypatch: pytest.MonkeyPatch) -> pdsync.Queue:
    for name, value in synced.env.items():
        if name.startswith("PDSYNC_"):
            monkeypatch.setenv(name, value)
    synced.here("queue", "drop", "--all")
    return pdsync.Queue(synced.folder)


def held(box: RunningSandbox, kind: str, id: int) -> dict[str, object]:
    record: dict[str, object] = next(entry["record"] for entry in box.dump(kind) if entry["id"] == id)
    return record


def test_w13_a_change_goes_from_the_queue_to_the_source_and_back_again(
    box: RunningSandbox, queue: pdsync.Queue
) -> None:
    deal = next(entry["record"] for entry in box.dump("deals") if entry["state"] == "live")
    queued = queue.add("updateDeal", id=deal["id"], title="By a program")
    assert [each.id for each in queue.mutations("queued")] == [queued.id]
    plan = queue.plan()
    assert [(step.mutation, step.fate) for step in plan.steps] == [(queued.id, "send")]
    assert held(box, "deals", deal["id"])["title"] == deal["title"]
    receipt = queue.push()
    assert receipt is not None
    assert receipt.complete
    assert held(box, "deals", deal["id"])["title"] == "By a program"
    (back,) = queue.undo(receipt.push_id)
    assert back.undo_of == queued.id
    undone = queue.push()
    assert undone is not None
    assert undone.complete
    assert held(box, "deals", deal["id"])["title"] == deal["title"]


def test_records_that_are_added_together_may_point_to_each_other(box: RunningSandbox, queue: pdsync.Queue) -> None:
    (org,) = queue.add_many("addOrganization", [{"name": "Hooli", "_as": "hooli"}])
    (person,) = queue.add_many("addPerson", [{"name": "Gavin", "org_id": f"@#{org.seq}"}])
    assert person.references == {org.id}
    receipt = queue.push()
    assert receipt is not None
    assert receipt.outcomes["applied"] == 2
    added = {each.id: each.remote_id for each in queue.mutations("applied")}
    assert str(held(box, "persons", int(added[person.id] or 0))["org_id"]) == added[org.id]


def test_w1_the_same_key_is_queued_once(queue: pdsync.Queue) -> None:
    first = queue.add("addPerson", name="Once", key="crm-1")
    assert queue.add("addPerson", name="Once", key="crm-1").id == first.id
    assert queue.drop(first.id)[0].state == "cancelled"


def test_all_rows_are_queued_or_none(queue: pdsync.Queue) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'title'"):
        queue.add_many("updateDeal", [{"id": 1, "title": "fine"}, {"id": 2, "titel": "wrong"}])
    assert queue.mutations("queued") == []


def test_w8_a_guard_holds_back_programs_too(box: RunningSandbox, queue: pdsync.Queue) -> None:
    deal = next(entry["id"] for entry in box.dump("deals") if entry["state"] == "live")
    queue.add("deleteDeal", id=deal)
    with pytest.raises(GuardTripped):
        queue.push()
    assert queue.push(PushRequest(consent=Consent(frozenset({"delete"}), None, 5)), confirm=lambda plan: False) is None
    assert next(entry["state"] for entry in box.dump("deals") if entry["id"] == deal) == "live"


def test_the_last_push_is_the_last_even_within_a_second(tmp_path: Path) -> None:
    with contextlib.closing(Control(tmp_path / "control.db")) as control:
        outbox = Outbox(control)
        for id in ("20260101T000000-f", "20260101T000000-0", "20260101T000000-7"):
            outbox.push_log.start_push(id, "hash")
        assert [each["id"][-1] for each in outbox.push_log.pushes()] == ["7", "0", "f"]


def test_a_choice_that_does_not_exist_is_refused_when_a_program_queues_it(queue: pdsync.Queue) -> None:
    with pytest.raises(ConfigError, match=r"status is 'lostt', and that is none of its options\. Did you mean 'Lost'"):
        queue.add("updateDeal", id=1, status="lostt")
    assert queue.mutations("queued") == []


def test_the_receipt_counts_a_repeated_change_as_already_so_and_says_what_can_be_undone(
    box: RunningSandbox, queue: pdsync.Queue
) -> None:
    deal = [entry["id"] for entry in box.dump("deals") if entry["state"] == "live"][5]
    queue.add_many("updateDeal", [{"id": deal, "title": "Twice"}] * 2)
    planned = queue.plan()
    assert [(step.fate, step.after is not None) for step in planned.steps] == [("send", False), ("already_so", True)]
    before = box.spent_tokens
    receipt = queue.push()
    assert receipt is not None
    assert (receipt.outcomes["applied"], receipt.already_so, receipt.undoable) == (2, 1, 1)
    charged = box.spent_tokens - before
    assert (receipt.tokens + receipt.read_back_tokens, receipt.estimated_tokens) == (charged, receipt.tokens)
