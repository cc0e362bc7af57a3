"""A push carries out its plan in an order that is safe, and stops where too much goes wrong."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.errors import AuthError, GuardTripped, Stopped
from pdsync.writeback.executor import Limits, PushExecutor
from pdsync.writeback.outbox import Reference
from pdsync.writeback.plan import Plan, Step
from tests.writeback.api import LOST, answering
from tests.writeback.kit import COMPANY, entry, open_outbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from pdsync.model import Mutation
    from pdsync.writeback.outbox import Entry, Outbox
    from pdsync.writeback.plan import Fate
    from tests.writeback.api import Answers, Api

ME, PUSH, DEALS = 1, "push-1", "/api/v2/deals"
BOOKED = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return open_outbox(tmp_path, journal=False)


def update(id: object, title: str = "New") -> Entry:
    return entry("v2 updateDeal", {"id": id, "title": title})


def deals(count: int, refused: Mapping[int, Any] | None = None) -> Answers:
    """A server with deals from 1 to `count`, which all take the title "New"; `refused` has other answers by id."""

    def listed(request: Any) -> list[dict[str, Any]]:
        return [{"id": int(id), "title": "Old"} for id in request.query["ids"].split(",")]

    ids = range(1, count + 1)
    answers: Answers = {f"{DEALS}/{id}": {"id": id, "title": "Old"} for id in ids}
    answers |= {f"PATCH {DEALS}/{id}": (refused or {}).get(id, {"id": id, "title": "New"}) for id in ids}
    return answers | {DEALS: listed}


def plan(outbox: Outbox, entries: Sequence[Entry], fates: Mapping[int, Fate] | None = None) -> Plan:
    """The plan of `entries`, which are approved; `fates` by position, for those that are not sent."""
    steps = tuple(
        Step(
            each.id, each.seq, each.operation, each.verb, each.kind, each.target, None, each.payload, None, (), 1, 1,
            (fates or {}).get(number, "send"), seen=True, reason="refused" if number in (fates or {}) else None,
        )
        for number, each in enumerate(outbox.add(entries))
    )  # fmt: skip
    outbox.approve([each.mutation for each in steps], PUSH, COMPANY)
    return Plan(COMPANY, "Acme", BOOKED, BOOKED, "field", steps, 0)


@asynccontextmanager
async def pushing(
    outbox: Outbox, planned: Plan, answers: Answers, limits: Limits | None = None
) -> AsyncIterator[tuple[PushExecutor, Api, list[Mutation]]]:
    """An executor, its server, and the mutations that it has reported as ended."""
    ended: list[Mutation] = []
    async with answering(outbox.control.path.parent, {"/v1/users/me": {"id": ME}} | answers) as api:
        await api.http.call(catalogue.operation("v1 getCurrentUser"))
        api.requests.clear()
        yield (
            PushExecutor(api.http, outbox, planned, PUSH, me=ME, settle_s=0, limits=limits, on_end=ended.append),
            api,
            ended,
        )


async def push(
    outbox: Outbox, planned: Plan, answers: Answers, limits: Limits | None = None
) -> tuple[PushExecutor, Api, list[Mutation]]:
    """Carry out a plan."""
    async with pushing(outbox, planned, answers, limits) as (executor, api, ended):
        await executor.run()
        return executor, api, ended


def states(outbox: Outbox) -> list[str]:
    return [each.state for each in outbox.mutations()]


# The order.


async def test_w5_mutations_of_one_record_are_sent_in_queue_order_and_others_beside_them(outbox: Outbox) -> None:
    arrived: list[str] = []
    meeting = asyncio.Barrier(2)

    def on_patch(title: str, *, meets: bool = False) -> Any:
        async def answer(_: object) -> dict[str, Any]:
            arrived.append(title)
            if meets:  # the answer comes only when both are under way
                await asyncio.wait_for(meeting.wait(), 10)
            return {"id": 1, "title": title}

        return answer

    answers = deals(2) | {
        f"{DEALS}/1": ({"id": 1, "title": "Old"}, {"id": 1, "title": "One"}, {"id": 1, "title": "Two"}),
        f"PATCH {DEALS}/1": (on_patch("One", meets=True), on_patch("Two"), on_patch("Three")),
        f"PATCH {DEALS}/2": on_patch("Other", meets=True),
    }
    entries = [update(1, "One"), update(1, "Two"), update(2, "Other"), update(1, "Three")]
    _, _, ended = await push(outbox, plan(outbox, entries), answers)
    assert states(outbox) == ["applied"] * 4
    assert [each for each in arrived if each != "Other"] == ["One", "Two", "Three"]
    assert len(ended) == 4


async def test_w5_what_follows_a_failed_mutation_is_held_back_however_far_behind(outbox: Outbox) -> None:
    entries = [update(1), update(1, "Two"), update(1, "Three"), update(2)]
    executor, api, ended = await push(outbox, plan(outbox, entries), deals(2, {1: 400}))
    assert states(outbox) == ["rejected", "queued", "queued", "applied"]
    assert [each.detail for each in outbox.mutations(["queued"])] == [
        "#1 before it was not applied", "#2 before it was not applied",
    ]  # fmt: skip
    assert [each.reason for each in outbox.mutations(["queued"])] == ["blocked", "blocked"]
    assert api.writes.count(f"PATCH {DEALS}/1") == 1
    assert {each.seq for each in ended} == {1, 4}
    assert executor.stopped is None


async def test_w5_what_the_plan_has_decided_is_stored_and_holds_back_what_follows_a_failure(outbox: Outbox) -> None:
    entries = [update(1), update(1, "Two"), update(2), update(2, "Two"), update(3), update(3, "Two"), update(3, "New")]
    planned = plan(outbox, entries, {0: "rejected", 2: "already_so", 4: "conflict"})
    answers = deals(3) | {f"PATCH {DEALS}/2": {"id": 2, "title": "Two"}}
    _, api, ended = await push(outbox, planned, answers)
    assert states(outbox) == ["rejected", "queued", "applied", "applied", "conflict", "queued", "queued"]
    assert api.writes == [f"PATCH {DEALS}/2"]
    assert [each.seq for each in ended] == [1, 3, 5, 4]
    assert {each.push_id for each in outbox.mutations(["rejected", "conflict", "applied"])} == {PUSH}


@pytest.mark.parametrize(
    ("answer", "reread", "expected", "detail"),
    [
        ({"id": 1, "title": "New"}, "New", ["applied", "applied"], "every field has that value already"),
        (400, "Old", ["rejected", "queued"], "#1 before it was not applied"),
        ({"id": 1, "title": "New"}, "Else", ["applied", "queued"],
         "#1 before it did not have the effect that the plan showed: push again"),
    ],
)  # fmt: skip
async def test_w5_what_rests_on_an_unsent_mutation_is_decided_after_it_and_not_sent(
    outbox: Outbox, answer: Any, reread: str, expected: list[str], detail: str
) -> None:
    planned = plan(outbox, [update(1), update(1)], {1: "already_so"})
    planned = replace(planned, steps=(planned.steps[0], replace(planned.steps[1], after=1)))
    reads = ({"id": 1, "title": "Old"}, {"id": 1, "title": reread})
    _, api, _ = await push(outbox, planned, {f"{DEALS}/1": reads, f"PATCH {DEALS}/1": answer})
    assert states(outbox) == expected
    assert (outbox.get(2).detail, api.writes) == (detail, [f"PATCH {DEALS}/1"])


async def test_w5_what_refers_to_an_added_record_is_sent_with_its_id(outbox: Outbox) -> None:
    added = entry("v2 addOrganization", {"name": "Acme"}, name="acme")
    person = entry("v2 addPerson", {"name": "Ann", "org_id": Reference("acme")})
    organizations, persons = "/api/v2/organizations", "/api/v2/persons"
    answers = {
        organizations: [], f"POST {organizations}": {"id": 7, "name": "Acme"},
        persons: [], f"POST {persons}": {"id": 9, "name": "Ann", "org_id": 7},
    }  # fmt: skip
    _, api, _ = await push(outbox, plan(outbox, [added, person]), answers)
    assert states(outbox) == ["applied", "applied"]
    assert api.bodies == [{"name": "Acme"}, {"name": "Ann", "org_id": 7}]


async def test_w4_what_follows_a_mutation_in_doubt_waits_in_the_queue(outbox: Outbox) -> None:
    answers = deals(1, {1: 500}) | {f"{DEALS}/1": ({"id": 1, "title": "Old"}, 403)}
    await push(outbox, plan(outbox, [update(1), update(1, "Two")]), answers)
    assert states(outbox) == ["unknown", "queued"]
    assert outbox.get(2).detail == "#1 before it has an unknown outcome"


# When it stops.


@pytest.mark.parametrize(
    ("count", "refused", "limits", "guard", "most"),
    [
        (8, {1: 400, 2: 400}, Limits(canary=2), "canary", 2),
        (8, {1: 400}, Limits(canary=2), None, 8),  # one of the first ones was applied
        (2, {1: 400, 2: 400}, Limits(canary=2), None, 2),  # nothing is left to be stopped
        (8, dict.fromkeys(range(3, 9), 400), Limits(canary=2, in_a_row=6), "breaker", 8),
        (8, dict.fromkeys(range(3, 9), 400), Limits(canary=2, in_a_row=7), None, 8),
        (8, {3: 400, 6: 400}, Limits(canary=2, of_last=8, share=0.2), "breaker", 8),
        (8, {3: 400, 6: 400}, Limits(canary=2, of_last=8, share=0.25), None, 8),
        (8, {3: 400, 6: 400}, Limits(canary=2, of_last=9, share=0.0), None, 8),  # too few to judge
    ],
)
async def test_w8_too_many_failures_stop_a_push(
    outbox: Outbox, count: int, refused: dict[int, int], limits: Limits, guard: str | None, most: int
) -> None:
    planned = plan(outbox, [update(id) for id in range(1, count + 1)])
    executor, api, _ = await push(outbox, planned, deals(count, refused), limits)
    assert (executor.stopped.guard if isinstance(executor.stopped, GuardTripped) else None) == guard
    assert len(api.writes) == most
    left = outbox.mutations(["queued"])
    assert len(left) == count - most
    assert {each.detail for each in left} <= {"the push was stopped before it"}


async def test_w8_reviews_stop_a_push(outbox: Outbox) -> None:
    added = [entry("v2 addDeal", {"title": f"New {number}"}) for number in range(4)]
    answers = {DEALS: [], f"POST {DEALS}": {"id": 1, "title": "Something else"}}
    executor, api, _ = await push(outbox, plan(outbox, added), answers, Limits(canary=1, reviews=1))
    assert isinstance(executor.stopped, GuardTripped)
    assert executor.stopped.guard == "needs_review"
    assert states(outbox) == ["needs_review", "queued", "queued", "queued"]
    assert len(api.writes) == 1


async def test_w8_where_there_are_merges_one_mutation_goes_first(outbox: Outbox) -> None:
    entries = [*(update(id) for id in range(1, 5)), entry("v1 mergeDeals", {"id": 5, "merge_with_id": 6})]
    executor, api, _ = await push(outbox, plan(outbox, entries), deals(6, {1: 400}))
    assert isinstance(executor.stopped, GuardTripped)
    assert executor.stopped.guard == "canary"
    assert api.writes == [f"PATCH {DEALS}/1"]
    assert states(outbox) == ["rejected"] + ["queued"] * 4


async def test_w14_a_refused_token_leaves_the_rest_in_the_queue(outbox: Outbox) -> None:
    planned = plan(outbox, [update(id) for id in range(1, 4)])
    executor, api, ended = await push(outbox, planned, deals(3, {1: 401}), Limits(canary=1))
    assert isinstance(executor.stopped, AuthError)
    assert states(outbox) == ["queued"] * 3
    assert (api.writes, ended) == ([f"PATCH {DEALS}/1"], [])


@pytest.mark.parametrize("answer", [409, 500])
async def test_w14_a_read_that_fails_stops_the_push_before_anything_is_sent(outbox: Outbox, answer: int) -> None:
    planned = plan(outbox, [update(1), update(2)])
    executor, api, _ = await push(outbox, planned, deals(2) | {f"{DEALS}/2": answer})
    assert executor.stopped
    assert api.writes == []
    assert states(outbox) == ["queued", "queued"]


async def test_w1_one_mutation_at_which_pdsync_fails_does_not_end_the_push_of_the_others(outbox: Outbox) -> None:
    planned = plan(outbox, [update(1), update(2)])
    with outbox.control.transaction() as db:
        db.execute(
            "CREATE TRIGGER stumble BEFORE UPDATE ON mutations WHEN new.state = 'applied' AND new.seq = 1"
            " BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    executor, _, ended = await push(outbox, planned, deals(2))
    assert states(outbox) == ["needs_review", "applied"]
    assert outbox.get(1).reason == "local_error"
    assert len(ended) == 2
    assert executor.stopped is None


async def test_w1_a_reference_to_nothing_does_not_end_the_push_of_the_others(outbox: Outbox) -> None:
    lost = entry("v2 addPerson", {"name": "Anna", "org_id": {"$ref": "00000000-0000-0000-0000-000000000000"}})
    executor, _, ended = await push(outbox, plan(outbox, [lost, update(1)]), deals(1))
    assert states(outbox) == ["rejected", "applied"]
    first = outbox.mutations()[0]
    assert (first.reason, executor.blocked, len(ended)) == ("not_valid", {}, 2)
    assert "which is not queued. Queue it again." in str(first.detail)


@pytest.mark.parametrize("failure", [500, LOST, 401])
async def test_w7_an_update_whose_changelog_cannot_be_read_is_applied(outbox: Outbox, failure: Any) -> None:
    answers = {"/v1/users/me": {"id": ME}, "/v1/deals/1/changelog": failure} | deals(1)
    planned = plan(outbox, [update(1)])
    async with answering(outbox.control.path.parent, answers) as api:
        await api.http.call(catalogue.operation("v1 getCurrentUser"))
        executor = PushExecutor(api.http, outbox, planned, PUSH, me=ME, settle_s=0, check_lost_updates=True)
        await executor.run()
    assert "/v1/deals/1/changelog" in api.requests
    assert (states(outbox), executor.blocked) == (["applied"], {})


async def test_w14_an_interrupted_push_waits_for_its_requests_and_starts_no_more(outbox: Outbox) -> None:
    arrived, answer = asyncio.Event(), asyncio.Event()

    async def slow(_: object) -> dict[str, Any]:
        arrived.set()
        await answer.wait()
        return {"id": 1, "title": "New"}

    planned = plan(outbox, [update(1), update(2)])
    async with pushing(outbox, planned, deals(2, {1: slow}), Limits(canary=1)) as (executor, api, _):
        task = asyncio.create_task(executor.run())
        await arrived.wait()
        task.cancel()
        await asyncio.sleep(0)
        answer.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert api.writes == [f"PATCH {DEALS}/1"]
    assert type(executor.stopped) is Stopped
    assert states(outbox) == ["applied", "queued"]
