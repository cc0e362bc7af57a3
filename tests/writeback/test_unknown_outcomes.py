"""A write whose answer was lost is sent again only after probes have shown that it was not carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.errors import AuthError
from pdsync.writeback.outbox import Reference
from pdsync.writeback.unknown_outcomes import UnknownOutcomes, probe_waits_s
from tests.writeback.api import answering
from tests.writeback.kit import COMPANY, entry, open_outbox

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.errors import PdsyncError
    from pdsync.model import Mutation, State
    from pdsync.writeback.outbox import Outbox
    from tests.writeback.api import Answers

ME, OTHER, PUSH = 1, 2, "push-2"
DEAL, DEALS, LEADS = "/api/v2/deals/12", "/api/v2/deals", "/v1/leads"
OLD, NEW = {"id": 12, "title": "Old"}, {"id": 12, "title": "New"}
UPDATE = ("v2 updateDeal", {"id": 12, "title": "New"})
DELETE = ("v2 deleteDeal", {"id": 12})
ADD = ("v2 addDeal", {"title": "New"})
OURS = {"id": 9, "title": "New", "creator_user_id": ME, "owner_id": ME}
EARLIER = {**OURS, "id": 8}


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return open_outbox(tmp_path, journal=False)


def lose_answer(
    outbox: Outbox, mutation: Mutation, *, attempts: int = 1, marker: str | None = None, seen: Any = 8
) -> Mutation:
    """Bring a mutation to where its last attempt has no answer."""
    outbox.approve([mutation.id], "push-1", COMPANY)
    method = catalogue.operation(mutation.operation).method
    for left in reversed(range(attempts)):
        outbox.arm(mutation, "push-1", method=method, path="/", body={}, base=OLD, marker=marker, seen=seen)
        outbox.mark_unknown(mutation.id, "no answer")
        if left:
            outbox.record_probe(mutation.id, "a read", None, "absent", again=True)
    return outbox.get(mutation.id)


async def resolve(
    outbox: Outbox,
    answers: Answers,
    mutation: Mutation,
    *,
    create_doubt: str = "probe",
    stops: list[PdsyncError] | None = None,
) -> State:
    """What the probes find out, without a wait between them."""
    errors: list[PdsyncError] = [] if stops is None else stops
    async with answering(outbox.control.path.parent, answers) as api:
        outcomes = UnknownOutcomes(
            api.http, outbox, PUSH, me=ME, waits_s=probe_waits_s(0), create_doubt=create_doubt, on_stop=errors.append
        )
        return await outcomes.resolve(mutation)


def test_the_first_probe_comes_soon_and_the_last_one_late() -> None:
    assert probe_waits_s(5) == (5, 5, 30, 300)


@pytest.mark.parametrize(
    ("change", "answers", "state", "reason", "probes"),
    [
        (UPDATE, {DEAL: OLD}, "approved", None, 1),  # sent again: it sets the same values
        (UPDATE, {DEAL: NEW}, "applied", "seen", 1),
        (UPDATE, {DEAL: {"id": 12, "title": "Hers"}}, "conflict", "changed", 1),
        (UPDATE, {DEAL: {"id": 12}}, "needs_review", "undecidable", 1),
        (UPDATE, {DEAL: 403}, "unknown", None, 4),
        (UPDATE, {DEAL: (403, 403, NEW)}, "applied", "seen", 3),
        (DELETE, {DEAL: 404, DEALS: [EARLIER]}, "applied", "seen", 1),
        (DELETE, {DEAL: 404, DEALS: [EARLIER], "/v1/deals/12/changelog": [
            {"field_key": "status", "new_value": "deleted", "actor_user_id": OTHER}]}, "applied", "already_so", 1),
        (DELETE, {DEAL: OLD}, "approved", None, 1),
        (ADD, {DEALS: [EARLIER]}, "approved", None, 2),  # a list may lag: one look does not prove that it is absent
        (ADD, {DEALS: ([EARLIER], [OURS, EARLIER])}, "applied", "seen", 2),
        (ADD, {DEALS: [{**OURS, "id": 10}, OURS, EARLIER]}, "needs_review", "several", 1),
        (("v1 duplicateDeal", {"id": 12}), {}, "needs_review", "undecidable", 1),
    ],
)  # fmt: skip
async def test_w4_how_an_unknown_outcome_ends(
    outbox: Outbox, change: tuple[str, dict[str, Any]], answers: Answers, state: State, reason: str | None, probes: int
) -> None:
    mutation = lose_answer(outbox, outbox.add([entry(*change)])[0])
    assert await resolve(outbox, answers, mutation) == state
    found = outbox.get(mutation.id)
    assert (found.state, found.reason) == (state, reason)
    assert len(outbox.probes(mutation.id)) == probes
    assert found.push_id == "push-1"


async def test_w2_a_record_that_was_found_is_bound_to_its_mutation(outbox: Outbox) -> None:
    first, second = (lose_answer(outbox, outbox.add([entry(*ADD)])[0]) for _ in range(2))
    assert await resolve(outbox, {DEALS: [OURS, EARLIER]}, first) == "applied"
    assert (outbox.get(first.id).remote_id, outbox.key_and_binding(first.id)[1]) == ("9", "deals/9")
    # The same record is no proof that the second one was carried out as well.
    assert await resolve(outbox, {DEALS: [OURS, EARLIER]}, second) == "approved"
    assert outbox.get(second.id).remote_id is None


@pytest.mark.parametrize(
    ("change", "attempts", "create_doubt", "state"),
    [
        (UPDATE, 2, "probe", "approved"),
        (UPDATE, 3, "probe", "needs_review"),
        (ADD, 3, "probe", "needs_review"),
        (ADD, 1, "review", "needs_review"),
        (UPDATE, 1, "review", "approved"),  # an update that is sent twice does no harm
    ],
)
async def test_w4_after_three_attempts_a_person_has_to_look(
    outbox: Outbox, change: tuple[str, dict[str, Any]], attempts: int, create_doubt: str, state: State
) -> None:
    mutation = lose_answer(outbox, outbox.add([entry(*change)])[0], attempts=attempts)
    answers = {DEAL: OLD, DEALS: [EARLIER]}
    assert await resolve(outbox, answers, mutation, create_doubt=create_doubt) == state
    found = outbox.get(mutation.id)
    if state == "needs_review":
        assert found.reason == "attempts_used_up"
        assert found.detail == f"it was not carried out ({attempts} attempts)"


async def test_w4_a_read_that_fails_is_no_probe_and_proves_nothing(outbox: Outbox) -> None:
    mutation = lose_answer(outbox, outbox.add([entry(*ADD)])[0])
    assert await resolve(outbox, {DEALS: 409}, mutation) == "unknown"
    assert outbox.get(mutation.id).state == "unknown"


async def test_a_refused_token_ends_the_probes_at_once(outbox: Outbox) -> None:
    mutation = lose_answer(outbox, outbox.add([entry(*UPDATE)])[0])
    stops: list[PdsyncError] = []
    assert await resolve(outbox, {DEAL: 401}, mutation, stops=stops) == "unknown"
    assert [type(each) for each in stops] == [AuthError]
    assert outbox.probes(mutation.id) == []


async def test_w1_a_mutation_at_which_pdsync_fails_does_not_fail_in_every_push(outbox: Outbox) -> None:
    mutation = lose_answer(outbox, outbox.add([entry(*UPDATE)])[0])
    with outbox.control.transaction() as db:
        db.execute("CREATE TRIGGER stumble BEFORE INSERT ON probes BEGIN SELECT RAISE(ABORT, 'no'); END")
    assert await resolve(outbox, {DEAL: NEW}, mutation) == "needs_review"
    found = outbox.get(mutation.id)
    assert found.reason == "local_error"
    assert found.detail == "it may have been carried out; then pdsync failed with IntegrityError: no"


async def test_w4_after_a_crash_a_lead_is_recognised_by_its_marker(outbox: Outbox) -> None:
    (lead,) = outbox.add([entry("v1 addLead", {"title": "New", "person_id": 3})])
    mutation = lose_answer(outbox, lead, marker="pdsync:mine", seen=["z"])
    ours, theirs = ({"id": id, "title": "New", "person_id": 3, "origin_id": f"pdsync:{id}"} for id in ("mine", "hers"))
    assert await resolve(outbox, {LEADS: [ours, theirs, {"id": "z"}]}, mutation) == "applied"
    assert outbox.get(mutation.id).remote_id == "mine"


async def test_w5_what_refers_to_an_addition_in_doubt_waits_for_it(outbox: Outbox) -> None:
    added = entry("v2 addOrganization", {"name": "Acme"}, name="acme")
    _, person = outbox.add([added, entry("v2 addPerson", {"name": "Ann", "org_id": Reference("acme")})])
    assert await resolve(outbox, {}, lose_answer(outbox, person)) == "unknown"
    assert outbox.probes(person.id) == []


@pytest.mark.parametrize("other", [DELETE, ("v1 mergeDeals", {"id": 12, "merge_with_id": 13})])
async def test_w2_of_two_mutations_that_remove_a_record_only_one_claims_it(
    outbox: Outbox, other: tuple[str, dict[str, Any]]
) -> None:
    first, second = outbox.add([entry(*DELETE), entry(*other)])
    first, second = lose_answer(outbox, first), lose_answer(outbox, second)
    outbox.settle(second.id, "applied", push_id=PUSH)
    answers: Answers = {DEAL: 404, DEALS: [{"id": 1}], "/v1/deals/12/changelog": []}
    assert await resolve(outbox, answers, first) == "applied"
    assert outbox.get(first.id).reason == "already_so"
