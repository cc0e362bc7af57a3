"""Preconditions against a plain company: a mutation is sent where the record still has what was previewed, else not.

The company knows what each field means. Each read writes the same meanings in another form: 5 as "5.00", a set in
another order, an empty value as null, "" or not at all. The decision must not depend on the form.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from pdsync.model import Mutation
from pdsync.writeback.equality import snapshot_fields
from pdsync.writeback.fresh_reads import FreshRecord
from pdsync.writeback.merge_preview import stamp
from pdsync.writeback.precondition import Before, Now, RecordState, decide
from pdsync.writeback.prepared import PreparedMutation, prepare
from pdsync.writeback.undo import make_undo
from tests.rules import running
from tests.rules.choices import Choices, names, numbers
from tests.writeback.kit import entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.writeback.outbox import Outbox
    from pdsync.writeback.precondition import Policy

AT = datetime(2026, 1, 5, tzinfo=UTC)
TEXT, MONEY, CHOICE, MANY, CLOCK = (letter * 40 for letter in "abcde")
IDS = (12, 7)
Meaning = Any  # of a value, whatever its form; None where it is empty


# What a value means, and the forms in which the API shows it. The structure of a form depends on the operation, so it
# is the same in every read of an example; the notation is not.


def _number(value: Any) -> Decimal:
    return Decimal(str(value)).normalize()


def _reference(value: Any) -> int:
    return int(value["id" if "id" in value else "value"] if isinstance(value, dict) else value)


def _members(value: Any) -> frozenset[int] | None:
    return frozenset(int(each) for each in (value.split(",") if isinstance(value, str) else value)) or None


def _money(value: Any) -> tuple[Decimal, str] | None:
    return None if value["value"] is None else (_number(value["value"]), value["currency"])


def _minutes(value: str) -> int:
    hours, minutes = value.split(":")[:2]
    return int(hours) * 60 + int(minutes)


def _numbers(meaning: Decimal, random: Random, style: int) -> Any:
    number = int(meaning) if meaning % 1 == 0 and random.choice((False, True)) else float(meaning)
    return (number, str(meaning), f"{meaning:.2f}")[style]


def _references(meaning: int, random: Random, style: int) -> Any:
    return (meaning, {"id": meaning, "name": random.choice(("Ann", "Bo"))}, {"value": meaning, "name": "Ann"})[style]


def _sets(meaning: frozenset[int], random: Random, style: int) -> Any:
    if style == 2:
        return ",".join(map(str, sorted(meaning)))
    items = random.sample(sorted(meaning), len(meaning))
    return [str(each) if style == 1 else each for each in items]


def _amounts(meaning: tuple[Decimal, str], random: Random, style: int) -> Any:
    return {"value": _numbers(meaning[0], random, style), "currency": meaning[1]}


def _clocks(meaning: int, random: Random, style: int) -> Any:
    return f"{meaning // 60:02}:{meaning % 60:02}" + random.choice(("", ":00"))


def _texts(meaning: str, random: Random, style: int) -> Any:
    return meaning  # another number of spaces is another text


def _days(meaning: str, random: Random, style: int) -> Any:
    return meaning


@dataclass(frozen=True)
class Kind:
    """A type of field: some meanings, how each is read from a form and shown in one, and the forms of nothing."""

    meanings: tuple[Meaning, ...]
    parse: Callable[[Any], Meaning]
    show: Callable[[Meaning, Random, int], Any]
    blanks: tuple[Any, ...] = (None, "")

    @property
    def possible(self) -> tuple[Meaning, ...]:
        return (*self.meanings, None) if self.blanks else self.meanings

    def means(self, value: Any) -> Meaning:
        return None if value in (None, "", []) else self.parse(value)


def _text(value: str) -> str:
    return " ".join(value.split())


FIELDS: dict[str, Kind] = {
    "title": Kind(("Big deal", "Small deal", "5 seats"), _text, _texts, (None, "")),
    "value": Kind((Decimal(5), Decimal("7.5"), Decimal(0), Decimal(50)), _number, _numbers, (None,)),
    "expected_close_date": Kind(("2026-01-05", "2026-05-01"), str, _days),
    "owner_id": Kind((1, 2, 12), _reference, _references, (None,)),
    "label_ids": Kind(
        (frozenset({1}), frozenset({1, 2}), frozenset({1, 2, 12})), _members, _sets, (None, [], "")
    ),
    f"custom_fields/{TEXT}": Kind(("red", "red car", "0"), _text, _texts),
    f"custom_fields/{MONEY}": Kind(
        ((Decimal(5), "EUR"), (Decimal(5), "USD"), (Decimal(0), "EUR")), _money, _amounts,
        (None, {"value": None, "currency": None}),
    ),
    f"custom_fields/{CHOICE}": Kind((1, 2, 21), _reference, lambda meaning, random, style: random.choice(
        (meaning, str(meaning)))),
    f"custom_fields/{MANY}": Kind((frozenset({1}), frozenset({2, 3}), frozenset({1, 2, 3})), _members, _sets,
                                  (None, [], "")),
    f"custom_fields/{CLOCK}": Kind((570, 615), _minutes, _clocks),
    "is_archived": Kind((False, True), bool, lambda meaning, random, style: meaning, ()),
}  # fmt: skip


@dataclass
class Deal:
    """A deal as the company has it. `writers`: field → whether a colleague wrote it last."""

    values: dict[str, Meaning]
    version: int = 0
    state: str = "there"  # deleted (shown as such), absent, hidden
    theirs: set[str] = field(default_factory=set)

    @property
    def is_there(self) -> bool:
        return self.state == "there"

    def write(self, name: str, meaning: Meaning, *, by_colleague: bool) -> None:
        self.version += 1
        self.values[name] = meaning
        (self.theirs.add if by_colleague else self.theirs.discard)(name)


@dataclass
class Job:
    """One mutation: what it sets, and what was seen of its records when."""

    prepared: PreparedMutation
    wanted: dict[str, Meaning]
    policy: Policy
    targets: tuple[int, ...]
    expected: dict[str, Meaning] = field(default_factory=dict)  # of an undo: our own values
    planned: dict[str, Any] | None = None  # as the plan stored it
    previewed: dict[str, Meaning] = field(default_factory=dict)
    versions: tuple[int, ...] = ()  # of its records, when it was previewed
    is_tried: bool = False
    base: dict[str, Meaning] = field(default_factory=dict)  # when it was sent
    images: tuple[dict[str, Any], dict[str, Any]] = ({}, {})  # the record before and after, as it was read


class PushedOnce:
    """The queue as `make_undo` reads it: one push with one mutation."""

    def __init__(self, mutation: Mutation) -> None:
        self.mutation = mutation

    def mutations_of_push(self, push_id: str) -> list[Mutation]:
        return [self.mutation]


CHANGES = tuple((name, meaning) for name, kind in FIELDS.items() for meaning in kind.possible)
POLICIES: tuple[Policy, ...] = ("field", "field", "record", "theirs", "ours")
STATES = (*("there",) * 6, "deleted", "absent", "hidden")
FATES = (*("answered",) * 5, "lost", "lost before", "refused")
STEPS = {
    "queue_update": 3, "queue_removal": 1, "preview": 4, "send": 5, "undo": 2, "colleague_edits": 2,
    "colleague_edits_ours": 4, "record_changes_state": 1,
}  # fmt: skip


class Preconditions(running.Machine):
    """Two deals, colleagues who change them, and mutations that are previewed and sent in any order."""

    @initialize(style=st.integers(0, 2), seed=st.integers(0, 2**16))
    def found(self, style: int, seed: int) -> None:
        self.style, self.random = style, Random(seed)
        self.deals = {id: Deal({name: kind.meanings[0] for name, kind in FIELDS.items()}) for id in IDS}
        self.merged: dict[int, int] = {}
        self.jobs: list[Job] = []
        self.sent: list[Job] = []
        self.seq = 0

    @rule(name=names(STEPS), number=numbers)
    def take(self, name: str, number: int) -> None:
        getattr(self, name)(Choices(number))

    # Colleagues.

    def colleague_edits(self, choices: Choices) -> None:
        deal = self.deals[choices.one(IDS)]
        if deal.is_there:
            deal.write(*choices.one(CHANGES), by_colleague=True)

    def colleague_edits_ours(self, choices: Choices) -> None:
        """Edit a field that a mutation sets: to the same value, or to another."""
        if not self.jobs:
            return
        job = choices.one(self.jobs)
        deal = self.deals[job.targets[0]]
        if job.wanted and deal.is_there:
            name = choices.one(sorted(job.wanted))
            deal.write(name, choices.one(FIELDS[name].possible), by_colleague=True)

    def record_changes_state(self, choices: Choices) -> None:
        id = choices.one(IDS)
        self.deals[id].state = choices.one(STATES)
        self.merged.pop(id, None)

    # The queue.

    def queue_update(self, choices: Choices) -> None:
        """An update of one or two fields."""
        id, policy = choices.one(IDS), choices.one(POLICIES)
        change = dict(choices.one(CHANGES) for _ in range(choices.one((1, 2))))
        payload: dict[str, Any] = {"id": id}
        for name, meaning in change.items():
            outer, _, code = name.partition("/")
            value = FIELDS[name].show(meaning, self.random, 0) if meaning is not None else None
            if outer == "value" and isinstance(value, str):
                value = float(value)
            if code:
                payload.setdefault(outer, {})[code] = value
            else:
                payload[outer] = value
        self._queue("v2 updateDeal", payload, Job(cast("Any", None), change, policy, (id,)))

    def queue_removal(self, choices: Choices) -> None:
        """A deletion, or a merge into the other."""
        id, other = choices.one((IDS, IDS[::-1]))
        if choices.one((False, True)):
            payload = {"id": id, "merge_with_id": other}
            self._queue("v1 mergeDeals", payload, Job(cast("Any", None), {}, "field", (id, other)))
        else:
            self._queue("v2 deleteDeal", {"id": id}, Job(cast("Any", None), {}, "field", (id,)))

    def _queue(self, operation: str, payload: dict[str, Any], job: Job, expected: dict[str, Any] | None = None) -> None:
        one = entry(operation, payload)
        self.seq += 1
        mutation = Mutation(
            self.seq, f"m{self.seq}", "b1", None, operation, one.verb, one.kind, one.target, payload, expected, AT,
            "someone", "queued",
        )  # fmt: skip
        prepared = prepare(mutation)
        assert prepared.fault is None, prepared.fault
        self.jobs = [*self.jobs[-2:], replace(job, prepared=prepared)]

    def preview(self, choices: Choices) -> None:
        """What the plan stores: the fields that are set, with `record` the time of change, of a merge both times."""
        if not self.jobs:
            return
        job = choices.one(self.jobs)
        self._check(job)
        verb = job.prepared.mutation.verb
        deals = [self.deals[id] for id in job.targets]
        if all(deal.is_there for deal in deals):
            records = [self._read(id) for id in job.targets]
            if verb == "merge":
                job.planned = stamp(*records)
            else:
                job.planned = snapshot_fields(records[0], job.prepared.body if verb == "update" else {})
                if verb == "update" and job.policy == "record":
                    job.planned["update_time"] = records[0]["update_time"]
            job.previewed = {name: deals[0].values[name] for name in job.wanted}
            job.versions = tuple(deal.version for deal in deals)
            for name in job.wanted:
                deals[0].theirs.discard(name)

    def send(self, choices: Choices) -> None:
        """Send a mutation where the decision allows it."""
        if not self.jobs:
            return
        job, fate = choices.one(self.jobs), choices.one(FATES)
        outcome = self._check(job)
        if outcome != "send":
            self.jobs.remove(job)
            return
        if fate == "refused":  # before it was looked at
            return
        before = self._read(job.targets[0])
        base = dict(self.deals[job.targets[0]].values)
        if fate != "lost before":
            self._carry_out(job)
        if fate != "answered":
            job.is_tried = True
            return
        self.jobs.remove(job)
        if job.prepared.mutation.verb == "update":
            self.sent.append(replace(job, base=base, images=(before, self._read(job.targets[0]))))

    def undo(self, choices: Choices) -> None:
        """Queue what undoes an update; the old values must be the ones that it overwrote."""
        if not self.sent:
            return
        job = self.sent.pop(self.sent.index(choices.one(self.sent)))
        done = replace_mutation(job.prepared.mutation, *job.images)
        entries, _ = make_undo(cast("Outbox", PushedOnce(done)), "push-1")
        changed = {name for name, meaning in job.wanted.items() if job.base[name] != meaning}
        if not entries:
            assert not changed, f"an undo is missing of {changed}"
            return
        restored = meanings_of(entries[0].payload)
        assert restored == {name: job.base[name] for name in changed}
        expected = {name: job.wanted[name] for name in changed}
        undone = Job(cast("Any", None), restored, job.policy, job.targets, expected=expected)
        self._queue(entries[0].operation, entries[0].payload, undone, entries[0].expected)

    # What must hold.

    def _check(self, job: Job) -> str:
        """The outcome, after it was compared with the promise."""
        states = tuple(self._state(id) for id in job.targets)
        into = str(self.merged[job.targets[0]]) if job.targets[0] in self.merged else None
        before = Before(planned=job.planned, may_have_happened=job.is_tried, merged_into=into)
        decision = decide(job.prepared, before, Now(states), job.policy)
        promised = self._promised(job)
        assert (decision.outcome, decision.reason) == promised, (
            f"{decision}, promised {promised}: {job.prepared.payload} on {states}, planned {job.planned}"
        )
        if decision.outcome == "send" and job.prepared.mutation.verb == "update":
            self._check_nothing_lost(job)
        return decision.outcome

    def _promised(self, job: Job) -> tuple[str, str | None]:
        """W6 and W12: what becomes of a mutation, by what the company has."""
        verb, deals = job.prepared.mutation.verb, [self.deals[id] for id in job.targets]
        done = ("already_so", None if job.is_tried else "already_so")
        if verb == "merge":
            return self._promised_of_merge(job, deals)
        deal = deals[0]
        if deal.state == "hidden":
            return "rejected", "permission"
        if verb == "delete":
            return done if not deal.is_there else ("send", None)
        if not deal.is_there:
            return "conflict", "target_gone"
        if all(deal.values[name] == meaning for name, meaning in job.wanted.items()):
            return done
        if deal.values["is_archived"] and job.wanted.get("is_archived") is not False:
            return "conflict", "archived"
        if job.planned is not None and job.policy != "ours":
            moved = [name for name, was in job.previewed.items() if deal.values[name] not in (was, job.wanted[name])]
            if moved or (job.policy == "record" and deal.version != job.versions[0]):
                return "conflict", "kept_theirs" if job.policy == "theirs" else "changed"
        if any(deal.values[name] not in (ours, job.wanted[name]) for name, ours in job.expected.items()):
            return "conflict", "changed"
        return "send", None

    def _promised_of_merge(self, job: Job, deals: list[Deal]) -> tuple[str, str | None]:
        missing = [id for id, deal in zip(job.targets, deals, strict=True) if deal.state != "there"]
        if not missing:
            is_changed = job.planned is not None and tuple(deal.version for deal in deals) != job.versions
            return ("conflict", "changed") if is_changed else ("send", None)
        if job.is_tried:
            return "needs_review", "undecidable"
        if missing[0] == job.targets[0] and self.merged.get(missing[0]) == job.targets[1]:
            return "already_so", "already_so"
        return "conflict", "target_gone"

    def _check_nothing_lost(self, job: Job) -> None:
        """Nothing that a colleague wrote since the preview is overwritten, unless the policy says so."""
        deal = self.deals[job.targets[0]]
        if job.policy == "ours" or job.planned is None:
            return
        for name in deal.theirs & job.wanted.keys():
            assert deal.values[name] in (job.previewed[name], job.wanted[name]), (
                f"{name}: a colleague's {deal.values[name]} would be overwritten"
            )

    def _carry_out(self, job: Job) -> None:
        deal = self.deals[job.targets[0]]
        match job.prepared.mutation.verb:
            case "delete":
                deal.state = "deleted"
            case "merge":
                deal.state = "absent"
                self.merged[job.targets[0]] = job.targets[1]
                self.deals[job.targets[1]].version += 1
            case _:
                for name, meaning in job.wanted.items():
                    deal.write(name, meaning, by_colleague=False)

    # Reads.

    def _state(self, id: int) -> RecordState:
        deal = self.deals[id]
        record = None if deal.state in ("absent", "hidden") else self._read(id)
        return RecordState(f"deals/{id}", FreshRecord(record, time.monotonic(), "deals", deal.state == "hidden"))

    def _read(self, id: int) -> dict[str, Any]:
        """The record in some form; unset custom fields may be left out."""
        deal = self.deals[id]
        record: dict[str, Any] = {
            "id": id, "is_deleted": deal.state == "deleted",
            "update_time": (AT + timedelta(seconds=deal.version)).isoformat(), "custom_fields": {},
        }  # fmt: skip
        for name, kind in FIELDS.items():
            meaning, (outer, _, code) = deal.values[name], name.partition("/")
            if meaning is None and code and self.random.random() < 0.3:
                continue
            value = self.random.choice(kind.blanks) if meaning is None else kind.show(meaning, self.random, self.style)
            if code:
                record["custom_fields"][code] = value
            else:
                record[outer] = value
        return record


def replace_mutation(mutation: Mutation, base: dict[str, Any], after: dict[str, Any]) -> Mutation:
    """The mutation as it has ended."""
    return Mutation(
        mutation.seq, mutation.id, mutation.batch, None, mutation.operation, mutation.verb, mutation.kind,
        mutation.target, mutation.payload, mutation.expected, AT, "someone", "applied", base_image=base,
        after_image=after, push_id="push-1",
    )  # fmt: skip


def meanings_of(payload: dict[str, Any]) -> dict[str, Meaning]:
    """What a payload sets."""
    flat = {name: value for name, value in payload.items() if name in FIELDS}
    flat |= {f"custom_fields/{code}": value for code, value in payload.get("custom_fields", {}).items()}
    return {name: FIELDS[name].means(value) for name, value in flat.items()}


MACHINE = Preconditions


def test_w6_w12_a_mutation_is_sent_where_the_record_has_what_was_previewed() -> None:
    running.check(Preconditions, running.SLICE)


@pytest.mark.proof
def test_w6_w12_a_mutation_is_sent_where_the_record_has_what_was_previewed_in_a_share_of_100_000_steps() -> None:
    running.check(Preconditions, running.SHARE)
