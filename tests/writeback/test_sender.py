"""One mutation, from the fresh read to its end: what is sent, what is stored before, and how each answer ends it."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from pdsync.core import catalogue
from pdsync.errors import AuthError, GuardTripped, ServerTrouble
from pdsync.writeback.fresh_reads import FreshRecord
from pdsync.writeback.journal import Journal
from pdsync.writeback.plan import Step
from pdsync.writeback.prepared import HeldBack
from pdsync.writeback.sender import MAX_READ_AGE_S, Sender
from tests.writeback.api import LOST, answering
from tests.writeback.kit import COMPANY, entry, open_outbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pdsync.errors import PdsyncError
    from pdsync.model import Mutation, State
    from pdsync.writeback.outbox import Outbox
    from tests.writeback.api import Answers, Api

ME, PUSH = 1, "push-1"
ME_PATH, DEALS, DEAL = "/v1/users/me", "/api/v2/deals", "/api/v2/deals/12"
PRODUCTS, FOLLOWERS = f"{DEAL}/products", f"{DEAL}/followers"
OLD, NEW = {"id": 12, "title": "Old"}, {"id": 12, "title": "New"}
ADDED = {"id": 9, "title": "New", "creator_user_id": ME, "owner_id": ME}
UPDATE = ("v2 updateDeal", {"id": 12, "title": "New"})
DELETE = ("v2 deleteDeal", {"id": 12})
ADD = ("v2 addDeal", {"title": "New"})
FOLLOW = ("v2 addDealFollower", {"id": 12, "user_id": 3})
EMPTY = ("v2 deleteManyDealProducts", {"id": 12})
PATCH, POST, REMOVE = f"PATCH {DEAL}", f"POST {DEALS}", f"DELETE {DEAL}"


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return open_outbox(tmp_path)


def queue(outbox: Outbox, change: tuple[str, dict[str, Any]]) -> Mutation:
    """An approved mutation."""
    mutation = outbox.add([entry(*change)])[0]
    outbox.approve([mutation.id], PUSH, COMPANY)
    return outbox.get(mutation.id)


def step(mutation: Mutation, **options: Any) -> Step:
    """The step that a plan has for a mutation; `base` is what the plan saw before, `seen` whether it saw the record."""
    facts: dict[str, Any] = {
        "title": None, "base": None, "changes": (), "records": 1, "cost": 1, "fate": "send", "seen": True, **options
    }  # fmt: skip
    return Step(
        mutation.id, mutation.seq, mutation.operation, mutation.verb, mutation.kind, mutation.target,
        payload=mutation.payload, **facts,
    )  # fmt: skip


@asynccontextmanager
async def sending(
    outbox: Outbox, answers: Answers, stops: list[PdsyncError] | None = None
) -> AsyncIterator[tuple[Sender, Api]]:
    """A sender that waits for nothing, and a server that gives `answers`; as in a push, its time is known."""
    errors: list[PdsyncError] = [] if stops is None else stops
    async with answering(outbox.control.path.parent, {ME_PATH: {"id": ME}} | answers) as api:
        await api.http.call(catalogue.operation("v1 getCurrentUser"))
        api.requests.clear()
        yield (
            Sender(
                api.http, outbox, PUSH, me=ME, policy="field", settle_s=0, create_doubt="probe", on_stop=errors.append
            ),
            api,
        )


async def send(
    outbox: Outbox, answers: Answers, mutation: Mutation, stops: list[PdsyncError] | None = None, **options: Any
) -> tuple[State, Api]:
    """Carry out a mutation."""
    async with sending(outbox, answers, stops) as (sender, api):
        planned = step(mutation, **options)
        return await sender.carry_out(planned, sender.prepare(planned), {}), api


# What is sent.


@pytest.mark.parametrize(
    ("change", "answers", "end", "writes"),
    [
        (UPDATE, {DEAL: OLD, PATCH: NEW}, ("applied", None), [PATCH]),
        (UPDATE, {DEAL: NEW}, ("applied", "already_so"), []),
        (UPDATE, {DEAL: 404}, ("conflict", "target_gone"), []),
        (UPDATE, {DEAL: 403}, ("rejected", "permission"), []),
        (UPDATE, {DEAL: {"id": 12, "title": "Hers"}, PATCH: NEW}, ("conflict", "changed"), []),
        (UPDATE, {DEAL: {**OLD, "is_archived": True}}, ("conflict", "archived"), []),
        (DELETE, {DEAL: (OLD, 404), REMOVE: {"id": 12}}, ("applied", None), [REMOVE]),
        (DELETE, {DEAL: 404}, ("applied", "already_so"), []),
        (ADD, {DEALS: [{"id": 8}], POST: ADDED}, ("applied", None), [POST]),
        (ADD, {DEALS: 403, POST: ADDED}, ("applied", None), [POST]),  # the list is only for a probe
        (FOLLOW, {FOLLOWERS: [{"user_id": 4}], f"POST {FOLLOWERS}": {"user_id": 3}}, ("applied", None),
         [f"POST {FOLLOWERS}"]),
        (FOLLOW, {FOLLOWERS: [{"user_id": 3}]}, ("applied", "already_so"), []),
        (EMPTY, {PRODUCTS: ([{"id": 1}], []), f"DELETE {PRODUCTS}": None}, ("applied", None), [f"DELETE {PRODUCTS}"]),
        (EMPTY, {PRODUCTS: []}, ("applied", "already_so"), []),
        (EMPTY, {PRODUCTS: [{"id": 1}, {"id": 2}]}, ("conflict", "changed"), []),  # the plan showed one
        (EMPTY, {PRODUCTS: 403}, ("rejected", "permission"), []),
        (("v2 archiveProject", {"id": 7}), {"/api/v2/projects/7": {"archive_time": "2026-01-01"}},
         ("applied", "already_so"), []),
        (("v1 duplicateDeal", {"id": 12}), {"POST /v1/deals/12/duplicate": {"id": 34}, "/api/v2/deals/34": {"id": 34}},
         ("applied", None), ["POST /v1/deals/12/duplicate"]),
        (("v2 updateDeal", {"id": 12, "titel": "New"}), {DEAL: OLD}, ("rejected", "not_valid"), []),
    ],
)  # fmt: skip
async def test_w6_a_mutation_is_sent_where_a_fresh_read_allows_it(
    outbox: Outbox, change: tuple[str, dict[str, Any]], answers: Answers, end: tuple[str, str | None], writes: list[str]
) -> None:
    mutation = queue(outbox, change)
    state, api = await send(outbox, answers, mutation, base={"title": "Old"} if change is UPDATE else None)
    found = outbox.get(mutation.id)
    assert (found.state, found.reason) == end
    assert state == found.state
    assert api.writes == writes
    assert len(outbox.attempts(mutation.id)) == len(writes)


async def test_a_read_of_the_plan_is_used_while_it_is_fresh_and_repeated_when_it_is_not(outbox: Outbox) -> None:
    for age_s, reads in ((0.0, 0), (MAX_READ_AGE_S * 2, 1)):
        mutation = queue(outbox, UPDATE)
        async with sending(outbox, {DEAL: OLD, PATCH: NEW}) as (sender, api):
            planned = step(mutation)
            read = FreshRecord(OLD, time.monotonic() - age_s, "deals")
            assert await sender.carry_out(planned, sender.prepare(planned), {"deals/12": read}) == "applied"
        assert api.requests == [DEAL] * reads + [PATCH]
        assert len(outbox.attempts(mutation.id)) == 1


async def test_w6_what_changed_since_an_old_read_is_not_overwritten(outbox: Outbox) -> None:
    mutation = queue(outbox, UPDATE)
    async with sending(outbox, {DEAL: {"id": 12, "title": "Hers"}, PATCH: NEW}) as (sender, api):
        planned = step(mutation, base={"title": "Old"})
        read = FreshRecord(OLD, time.monotonic() - MAX_READ_AGE_S * 2, "deals")
        assert await sender.carry_out(planned, sender.prepare(planned), {"deals/12": read}) == "conflict"
    assert api.writes == []
    assert outbox.attempts(mutation.id) == []


# What is stored before it is sent.


@pytest.mark.parametrize(
    ("change", "answers", "write", "base", "seen"),
    [
        (UPDATE, {DEAL: OLD}, PATCH, OLD, None),
        (ADD, {DEALS: [{"id": 8}, {"id": 7}]}, POST, None, 8),
        (FOLLOW, {FOLLOWERS: [{"user_id": 4}]}, f"POST {FOLLOWERS}", None, ["4"]),
        (EMPTY, {PRODUCTS: ([{"id": 1}], [])}, f"DELETE {PRODUCTS}", {"entries": [{"id": 1}]}, None),
    ],
)
async def test_w3_when_a_write_arrives_its_attempt_is_on_disk_with_what_was_there_before(
    outbox: Outbox, change: tuple[str, dict[str, Any]], answers: Answers, write: str, base: Any, seen: Any
) -> None:
    mutation, stored = queue(outbox, change), list[Any]()

    def on_arrival(_: object) -> object:
        attempt, found = outbox.attempts(mutation.id)[-1], outbox.get(mutation.id)
        ((_name, _size, lines),) = Journal(outbox.control.path.parent / "raw").read({})
        request = f"{attempt.method} {attempt.path}"
        stored.append((found.state, attempt.closed_as, request, found.base_image, attempt.seen, len(lines)))
        return ADDED

    await send(outbox, answers | {write: on_arrival}, mutation)
    assert stored == [("armed", None, write, base, seen, 2)]  # the journal has it queued, and armed


async def test_w2_a_lead_carries_a_marker_by_which_it_is_recognised(outbox: Outbox) -> None:
    mutation = queue(outbox, ("v1 addLead", {"title": "New", "person_id": 3}))
    lead = {"id": "a", "title": "New", "person_id": 3, "origin_id": f"pdsync:{mutation.id}"}
    _, api = await send(outbox, {"/v1/leads": [], "POST /v1/leads": lead}, mutation)
    assert outbox.attempts(mutation.id)[0].marker == f"pdsync:{mutation.id}"
    assert api.bodies == [{"title": "New", "person_id": 3, "origin_id": f"pdsync:{mutation.id}"}]


async def test_the_list_before_is_read_once_for_additions_of_one_kind(outbox: Outbox) -> None:
    async with sending(outbox, {DEALS: [{"id": 8}], POST: (ADDED, {**ADDED, "id": 10})}) as (sender, api):
        for mutation in (queue(outbox, ADD), queue(outbox, ADD)):
            planned = step(mutation)
            assert await sender.carry_out(planned, sender.prepare(planned), {}) == "applied"
            assert outbox.attempts(mutation.id)[0].seen == 8
    assert api.requests == [DEALS, POST, POST]


async def test_nothing_is_sent_once_the_push_is_stopped(outbox: Outbox) -> None:
    mutation = queue(outbox, UPDATE)
    async with sending(outbox, {DEAL: OLD, PATCH: NEW}) as (sender, api):
        planned = step(mutation)
        prepared = sender.prepare(planned)
        sender.closed = True
        with pytest.raises(HeldBack, match="the push was stopped"):
            await sender.carry_out(planned, prepared, {})
    assert api.writes == []
    assert outbox.get(mutation.id).state == "approved"
    assert outbox.attempts(mutation.id) == []


# How a refusal ends it.


@pytest.mark.parametrize(
    ("change", "status", "end"),
    [
        (UPDATE, 400, ("rejected", "not_valid")),
        (UPDATE, 402, ("rejected", "account_closed")),
        (UPDATE, 403, ("rejected", "permission")),
        (UPDATE, 404, ("conflict", "target_gone")),
        (UPDATE, 409, ("conflict", "refused")),
        (UPDATE, 412, ("conflict", "refused")),
        (UPDATE, 413, ("rejected", "too_large")),
        (UPDATE, 415, ("rejected", "not_in_plan")),
        (UPDATE, 418, ("rejected", "refused")),
        (UPDATE, 422, ("rejected", "not_valid")),
        (DELETE, 404, ("applied", "already_so")),  # somebody was faster
        (DELETE, 403, ("rejected", "permission")),
        (ADD, 404, ("rejected", "target_gone")),
    ],
)
async def test_how_a_mutation_ends_that_pipedrive_refuses(
    outbox: Outbox, change: tuple[str, dict[str, Any]], status: int, end: tuple[str, str]
) -> None:
    mutation = queue(outbox, change)
    answers = {DEAL: OLD, DEALS: [], PATCH: status, POST: status, REMOVE: status}
    await send(outbox, answers, mutation)
    found = outbox.get(mutation.id)
    assert (found.state, found.reason) == end
    assert (found.push_id, found.detail is None) == (PUSH, found.state == "applied")
    (attempt,) = outbox.attempts(mutation.id)
    assert (attempt.status, attempt.closed_as) == (status, "answered")


@pytest.mark.parametrize(("user", "reason"), [(ME, None), (ME + 1, "already_so")])
async def test_w2_a_deletion_that_was_tried_before_is_ours_unless_another_user_has_made_it(
    outbox: Outbox, user: int, reason: str | None
) -> None:
    mutation = queue(outbox, DELETE)
    outbox.arm(mutation, PUSH, method="DELETE", path="/", body={}, base=OLD, marker=None, seen=None)
    outbox.mark_unknown(mutation.id, "no answer")
    outbox.record_probe(mutation.id, "a read", None, "absent", again=True)  # it was still there
    deleted = [{"field_key": "status", "new_value": "deleted", "actor_user_id": user}]
    await send(outbox, {DEAL: 404, "/v1/deals/12/changelog": deleted}, outbox.get(mutation.id))
    assert (outbox.get(mutation.id).state, outbox.get(mutation.id).reason) == ("applied", reason)


async def test_w2_a_refused_deletion_of_what_never_was_there_is_no_success(outbox: Outbox) -> None:
    mutation = queue(outbox, ("v1 deleteUserProviderLink", {"id": "00000000-0000-4000-8000-000000000000"}))
    await send(outbox, {}, mutation, seen=False)
    assert (outbox.get(mutation.id).state, outbox.get(mutation.id).reason) == ("rejected", "not_found")


async def test_after_the_companys_plan_is_full_no_addition_of_the_kind_is_tried(outbox: Outbox) -> None:
    capped = {"success": False, "error": "The limit is reached.", "code": "feature_capping_deals_limit"}
    answers = {DEALS: [], POST: lambda _: web.json_response(capped, status=403)}
    async with sending(outbox, answers) as (sender, api):
        first, second = (step(queue(outbox, ADD)) for _ in range(2))
        assert await sender.carry_out(first, sender.prepare(first), {}) == "rejected"
        with pytest.raises(HeldBack, match="the company's plan allows no more of these"):
            await sender.carry_out(second, sender.prepare(second), {})
    assert outbox.get(first.mutation).reason == "cap"
    assert api.writes == [POST]
    assert outbox.get(second.mutation).state == "approved"


# When no success comes back.


@pytest.mark.parametrize("failure", [LOST, 500, 503])
async def test_w4_a_lost_answer_is_probed_before_anything_is_sent_again(outbox: Outbox, failure: object) -> None:
    for shown, writes, probes in ((NEW, 1, ["happened"]), (OLD, 2, ["absent"])):
        mutation = queue(outbox, UPDATE)
        state, api = await send(outbox, {DEAL: (OLD, shown), PATCH: (failure, NEW)}, mutation)
        assert state == "applied"
        assert api.writes == [PATCH] * writes
        assert [each["verdict"] for each in outbox.probes(mutation.id)] == probes
        assert outbox.attempts(mutation.id)[0].closed_as == "unknown"


@pytest.mark.parametrize("answer", [b"<html>", b'{"success": true, "data": null}', b"[]"])
async def test_w7_an_answer_that_shows_nothing_leaves_the_outcome_to_a_probe(outbox: Outbox, answer: bytes) -> None:
    mutation = queue(outbox, ADD)
    state, _ = await send(outbox, {DEALS: ([{"id": 8}], [ADDED, {"id": 8}]), POST: answer}, mutation)
    assert state == "applied"
    assert (outbox.get(mutation.id).reason, outbox.get(mutation.id).remote_id) == ("seen", "9")


async def test_w4_a_request_that_never_arrived_was_not_carried_out(outbox: Outbox) -> None:
    mutation, stops = queue(outbox, UPDATE), list[Any]()
    async with sending(outbox, {DEAL: OLD}, stops) as (sender, api):
        planned = step(mutation)
        read = {"deals/12": FreshRecord(OLD, time.monotonic(), "deals")}
        api.http.base_url = "http://127.0.0.1:1"  # where no server listens
        with pytest.raises(HeldBack):
            await sender.carry_out(planned, sender.prepare(planned), read)
    assert [type(each) for each in stops] == [ServerTrouble]
    assert outbox.get(mutation.id).state == "approved"
    assert {each.closed_as for each in outbox.attempts(mutation.id)} == {"not_executed"}


async def test_w14_a_refused_token_stops_the_push_and_the_mutation_was_not_carried_out(outbox: Outbox) -> None:
    mutation = queue(outbox, UPDATE)
    with pytest.raises(AuthError):
        await send(outbox, {DEAL: OLD, PATCH: 401}, mutation)
    assert outbox.get(mutation.id).state == "approved"
    assert [each.closed_as for each in outbox.attempts(mutation.id)] == ["not_executed"]


async def test_w14_the_outcome_of_a_request_that_is_interrupted_is_unknown(outbox: Outbox) -> None:
    mutation, arrived = queue(outbox, UPDATE), asyncio.Event()

    async def never(_: object) -> object:
        arrived.set()
        return await asyncio.Event().wait()

    task = asyncio.create_task(send(outbox, {DEAL: OLD, PATCH: never}, mutation))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outbox.get(mutation.id).state == "unknown"
    assert outbox.attempts(mutation.id)[0].error == "the push was interrupted"


async def test_w7_a_field_that_pipedrive_ignores_stops_the_push(outbox: Outbox) -> None:
    mutation, stops = queue(outbox, UPDATE), list[Any]()
    state, _ = await send(outbox, {DEAL: OLD, PATCH: OLD}, mutation, stops)
    assert (state, outbox.get(mutation.id).reason) == ("rejected", "ignored_fields")
    assert [(type(each), each.guard) for each in stops] == [(GuardTripped, "ignored_fields")]


async def test_w2_a_repeated_deletion_that_finds_nothing_was_carried_out_by_an_earlier_attempt(outbox: Outbox) -> None:
    mutation = queue(outbox, DELETE)
    answers = {DEAL: (OLD, OLD, OLD), REMOVE: (LOST, 404)}
    state, _ = await send(outbox, answers, mutation)
    assert (state, outbox.get(mutation.id).reason) == ("applied", None)


async def test_w2_a_deletion_that_was_only_refused_before_is_not_claimed_where_nothing_is_there(outbox: Outbox) -> None:
    mutation = queue(outbox, DELETE)
    burst = web.json_response({"success": False}, status=429, headers={"x-ratelimit-reset": "1"})
    state, api = await send(outbox, {DEAL: OLD, REMOVE: (lambda request: burst, 404)}, mutation)
    assert api.writes == [REMOVE, REMOVE]
    assert [each.closed_as for each in outbox.attempts(mutation.id)] == ["not_executed", "answered"]
    assert (state, outbox.get(mutation.id).reason) == ("applied", "already_so")
