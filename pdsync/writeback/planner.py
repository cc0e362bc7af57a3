"""Makes the plan of a push: reads each record, decides what becomes of each mutation, and shows before → after.

Nothing but reads is sent. A mutation is planned against its record as the mutations planned before it leave it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from pdsync.core.wording import counted
from pdsync.errors import WrongCompany
from pdsync.writeback import fresh_reads, merge_preview
from pdsync.writeback.amounts import find_currency
from pdsync.writeback.completion import complete
from pdsync.writeback.dependencies import find_predecessors
from pdsync.writeback.display import display_in_full
from pdsync.writeback.effects import read_entries_to_delete
from pdsync.writeback.equality import equivalent, fields, snapshot_fields, value_in
from pdsync.writeback.estimate import estimate_read_tokens
from pdsync.writeback.plan import LIFE, RECORD, Change, Fate, Plan, Step
from pdsync.writeback.precondition import Before, Decision, EntriesState, Now, RecordState, decide
from pdsync.writeback.prepared import prepare
from pdsync.writeback.shapes import count_records, record_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pdsync.core.http import Http
    from pdsync.model import Mutation
    from pdsync.writeback.effects import EntriesToDelete
    from pdsync.writeback.known_records import KnownRecords
    from pdsync.writeback.precondition import Policy
    from pdsync.writeback.prepared import PreparedMutation
    from pdsync.writeback.resolver import NameResolver

_SHOWN = 5  # titles of deleted entries in a step
_TITLES = ("title", "name", "subject", "field_name", "content", "label")
_TITLE_LENGTH = 80


async def make_plan(
    http: Http,
    names: NameResolver,
    mutations: Sequence[Mutation],
    *,
    company: tuple[int, str, str | None],
    policy: Policy = "field",
    currency: str | None = None,
    known_records: KnownRecords,
) -> Plan:
    """Read the records of `mutations`, and work out what sending them does.

    Args:
        http: the session.
        names: the labels of fields, options and ids.
        mutations: in the order in which they were queued.
        company: id, name and domain of the company that the token belongs to.
        policy: what to do if another user has changed the same fields meanwhile.
        currency: of amounts for which nothing else names one.
        known_records: which records are known to have existed.

    Raises:
        WrongCompany: one of them was queued for another company. Nothing was read.
        PdsyncError: a read failed; nothing was changed.
    """
    for each in mutations:
        if each.company_id not in (None, company[0]):
            raise WrongCompany(expected=each.company_id or 0, found=company[0], name=company[1])
    names.pending |= {each.id: f"that of #{each.seq}" for each in mutations}
    prepared = [prepare(each) for each in mutations]
    valid = [each for each in prepared if each.fault is None]
    reads = await fresh_reads.read(http, [address for one in valid for address in one.addresses])
    planner = Planner(names, policy, currency, reads, known_records)
    for one in valid:
        id = one.mutation.id
        if one.mutation.verb == "merge" and one.addresses:
            planner.moves[id] = await merge_preview.read_children(http, one.shape, one.payload, known_records.children)
        if not one.mutation.references and (
            to_delete := await read_entries_to_delete(http, one.operation, one.payload)
        ):
            planner.to_delete[id] = to_delete
    steps = _mark_waiting(mutations, [planner.plan(one) for one in prepared])
    now = datetime.now(UTC).replace(microsecond=0)
    carried_out = [
        one.with_payload(step.payload)
        for one, step in zip(prepared, steps, strict=True)
        if step.fate == "send" or step.after is not None
    ]
    read_tokens = estimate_read_tokens(carried_out, {step.mutation for step in steps if step.fate == "send"})
    plan = Plan(
        company[0], company[1], now, now + LIFE, policy, steps, read_tokens, domain=company[2],
        spent_tokens=http.budget.spent,
    )  # fmt: skip
    return plan.sealed()


class _Preview(Struct, frozen=True):
    """What a step shows of the record: its title, before → after, what to warn of, and the values to compare with."""

    title: str | None = None
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
    base: dict[str, Any] | None = None


class Planner:
    """Plans the mutations of one push, in queue order.

    Args:
        names: the labels of fields, options and ids.
        policy: what to do if another user has changed the same fields.
        currency: of amounts for which nothing else names one.
        reads: target → the record as it was just read.
        known_records: which records are known to have existed.
    """

    def __init__(
        self,
        names: NameResolver,
        policy: Policy,
        currency: str | None,
        reads: Mapping[str, fresh_reads.FreshRecord],
        known_records: KnownRecords,
    ) -> None:
        self.names, self.policy, self.currency, self.known_records = names, policy, currency, known_records
        self.moves: dict[str, dict[str, list[str]]] = {}  # by merge: what belongs to the loser
        self.to_delete: dict[str, EntriesToDelete] = {}  # by mutation: the entries that it deletes
        # The records as the mutations planned so far leave them; None where one of them deletes it.
        self._images: dict[str, fresh_reads.FreshRecord | None] = dict(reads)
        self._writers: dict[str, dict[str, int]] = {}  # target → field → the number of the last mutation that sets it
        self._sent: set[str] = set()  # ids of the mutations planned so far that are sent
        self._merged: dict[str, str] = {}  # target of a loser → the id of the record that it will be merged into
        self._never_shown = {target for target, read in reads.items() if read.record is None and not read.is_hidden}
        self._changed_roots: set[str] = set()

    def plan(self, prepared: PreparedMutation) -> Step:
        """The step of a mutation."""
        mutation = prepared.mutation
        record = self._record_of(prepared)
        if mutation.verb == "update" and record is not None:
            completed = complete(
                prepared.operation, prepared.payload, record, append=self.policy == "append", currency=self.currency
            )
            prepared = prepared.with_payload(completed)
        decision = decide(prepared, self._before(prepared), self._now(prepared), self.policy)
        after = self._find_decisive(prepared, decision)
        preview = self._preview(prepared, record, decision)
        seen = self._is_known(prepared)
        parent = self._warn_of_parent(prepared, decision)
        self._apply(prepared, decision)
        to_delete = self.to_delete.get(mutation.id)
        return Step(
            mutation=mutation.id,
            seq=mutation.seq,
            operation=mutation.operation,
            verb=mutation.verb,
            kind=mutation.kind,
            target=mutation.target,
            title=preview.title,
            payload=prepared.payload,
            base=preview.base,
            changes=preview.changes,
            records=len(to_delete.entries) if to_delete else count_records(prepared.operation, prepared.payload),
            cost=prepared.operation.cost or 0,
            fate=_decide_fate(decision),
            seen=seen,
            reason=decision.reason,
            detail=self._detail(prepared, decision, after),
            warnings=(*preview.warnings, *parent),
            moves=self.moves.get(mutation.id, {}),
            into=prepared.addresses[1].target if mutation.verb == "merge" and prepared.addresses else None,
            after=after,
            waits=bool(parent),
        )

    # What the decision is made from.

    def _before(self, prepared: PreparedMutation) -> Before:
        into = None
        if prepared.mutation.verb == "merge" and prepared.addresses:
            loser = prepared.addresses[0]
            into = self._merged.get(loser.target) or self.known_records.merged_into(
                prepared.shape.kind, loser.values[-1]
            )
        return Before(may_have_happened=self.known_records.may_have_happened(prepared.mutation.id), merged_into=into)

    def _now(self, prepared: PreparedMutation) -> Now:
        may_change = not self._changed_roots.isdisjoint(_find_roots(prepared))
        if to_delete := self.to_delete.get(prepared.mutation.id):
            return Now(entries=EntriesState(to_delete, self._is_known(prepared), may_change))
        return Now(tuple(self._state(prepared, each.target, may_change=may_change) for each in prepared.addresses))

    def _find_decisive(self, prepared: PreparedMutation, decision: Decision) -> int | None:
        """The number of the last mutation before it on whose effect `decision` rests; None if there is none."""
        if decision.outcome not in ("already_so", "conflict"):
            return None
        compared = {RECORD, "is_archived", *dict(fields(prepared.body)), *(prepared.mutation.expected or {})}
        writers = [self._writers.get(each.target, {}) for each in prepared.addresses]
        return max((seq for each in writers for field, seq in each.items() if field in compared), default=None)

    def _state(self, prepared: PreparedMutation, target: str, *, may_change: bool) -> RecordState:
        image = self._images[target]
        if image is not None and image.is_gone and may_change:  # a mutation before this one may add it
            image = None
        return RecordState(target, image, self._existed(prepared.mutation.kind, target))

    def _existed(self, kind: str, target: str) -> bool:
        return target not in self._never_shown or self.known_records.existed(kind, target)

    def _is_known(self, prepared: PreparedMutation) -> bool:
        """Whether the record of a mutation is there, or is known to have been there, or another mutation adds it."""
        mutation = prepared.mutation
        to_delete = self.to_delete.get(mutation.id)
        if to_delete and to_delete.entries:
            return True
        if mutation.target is None or mutation.verb not in ("update", "delete", "merge"):
            return mutation.target is None and bool(mutation.references)
        is_read = mutation.target in self._images and mutation.target not in self._never_shown
        return is_read or self.known_records.existed(mutation.kind, mutation.target)

    def _apply(self, prepared: PreparedMutation, decision: Decision) -> None:
        """Change the images of the records as the mutation will change the records."""
        mutation = prepared.mutation
        self._changed_roots |= _find_roots(prepared)
        if decision.outcome == "send" and self.known_records.find_not_added(mutation, self._sent) is None:
            self._sent.add(mutation.id)
        if mutation.verb == "add" and mutation.target:  # it may add what is not there yet
            inside = f"{mutation.target}/"
            self._never_shown = {each for each in self._never_shown if not each.startswith(inside)}
        if decision.outcome != "send" or not prepared.addresses:
            return
        target = prepared.addresses[0].target
        image = self._images[target]
        written = [RECORD] if mutation.verb in ("delete", "merge") else dict(fields(prepared.body))
        self._writers.setdefault(target, {}).update(dict.fromkeys(written, mutation.seq))
        if mutation.verb == "merge":
            self._merged[target] = prepared.addresses[1].values[-1]
        if mutation.verb in ("delete", "merge"):
            self._images[target] = None
        elif image is not None:
            self._images[target] = replace(image, record=_apply_update(image.record or {}, prepared.body))

    # What people see of it.

    def _warn_of_parent(self, prepared: PreparedMutation, decision: Decision) -> tuple[str, ...]:
        """A warning about a mutation that will be held back: the record that it refers to is not added."""
        parent = self.known_records.find_not_added(prepared.mutation, self._sent)
        if parent is None or decision.outcome != "send":
            return ()
        return (f"not sent as long as #{parent}, which it refers to, is not applied",)

    def _preview(self, prepared: PreparedMutation, record: Mapping[str, Any] | None, decision: Decision) -> _Preview:
        if prepared.fault:
            return _Preview()
        sends = decision.outcome == "send"
        if to_delete := self.to_delete.get(prepared.mutation.id):
            return _Preview(changes=_deleted_entries(to_delete)) if sends else _Preview()
        if prepared.mutation.verb == "merge":
            return self._preview_merge(prepared) if sends else _Preview()
        if prepared.mutation.verb not in ("update", "delete") or not prepared.addresses:
            return self._preview_unread(prepared, decision)
        if record is None:
            return _Preview()
        title = title_of(record)
        if prepared.mutation.verb == "delete":
            if not sends:
                return _Preview(title)
            change = Change(RECORD, title or prepared.addresses[0].target, None)
            return _Preview(title, (change,), base=snapshot_fields(record, prepared.mutation.expected or {}))
        base = snapshot_fields(record, prepared.body)
        if self.policy == "record":
            base["update_time"] = record.get("update_time")
        changes = self._changes(prepared, prepared.body, record) if sends else ()
        return _Preview(title, changes, base=base)

    def _preview_unread(self, prepared: PreparedMutation, decision: Decision) -> _Preview:
        """What is shown of a mutation whose record is not read: all that is sent, beside the ids in its target."""
        mutation = prepared.mutation
        in_target = prepared.operation.path_params if mutation.target else ()
        sent = {name: value for name, value in prepared.payload.items() if name not in in_target}
        changes = self._changes(prepared, sent, None)
        if mutation.verb == "delete" and decision.outcome == "send":
            changes = (Change(RECORD, mutation.target or mutation.kind, None), *changes)
        return _Preview(title_of(sent), changes)

    def _preview_merge(self, prepared: PreparedMutation) -> _Preview:
        operation = prepared.operation
        loser, winner = ((image.record if image else None) or {} for image in self._addressed(prepared))
        filled, dropped = merge_preview.preview_outcome(loser, winner)
        lost = [f"{self._label(prepared, name)} {self._read(prepared, name, value)!r}" for name, value in dropped]
        moves = self.moves.get(prepared.mutation.id, {})
        moving = [merge_preview.describe_count(listing, len(ids)) for listing, ids in moves.items() if ids]
        return _Preview(
            " → ".join(
                f"{title_of(record) or each.target} ({each.values[-1]}{stays})"
                for record, each, stays in zip((loser, winner), prepared.addresses, ("", ", stays"), strict=True)
            ),
            tuple(
                Change(
                    self.names.label(operation, name),
                    self._read(prepared, name, before),
                    self._read(prepared, name, after),
                )
                for name, before, after in filled
            ),
            (
                *((f"lost for good: {', '.join(lost)}",) if lost else ()),
                *((f"moves to the other: {', '.join(moving)}",) if moving else ()),
                "a merge can't be undone",
            ),
            merge_preview.stamp(loser, winner),
        )

    def _changes(
        self, prepared: PreparedMutation, values: Mapping[str, Any], record: Mapping[str, Any] | None
    ) -> tuple[Change, ...]:
        """The fields of `values` that change; all of them where there is no record yet."""
        changes = []
        for name, value in fields(values):
            shown, before = value_in(record, name) if record is not None else (False, None)
            if shown and equivalent(value, before, exact=True):
                continue
            was, becomes = self._read(prepared, name, before), self._read(prepared, name, value)
            if shown and was == becomes:  # they differ in a part that is usually left out
                was, becomes = display_in_full(before), display_in_full(value)
            currencies = (
                find_currency(prepared.operation, name, before, record or {}),
                find_currency(prepared.operation, name, value, {**(record or {}), **values}),
            )
            changes.append(Change(self._label(prepared, name), was, becomes, *currencies))
        return tuple(changes)

    def _detail(self, prepared: PreparedMutation, decision: Decision, after: int | None) -> str | None:
        detail = decision.message(lambda name: self._label(prepared, name))
        if after is not None and detail:
            return f"after #{after}, {detail.removesuffix(' already').removesuffix(' before')}"
        missing = next((each.target for each in prepared.addresses if each.target in self._never_shown), None)
        if decision.reason == "not_found" and missing:
            return f"{detail}: {self.known_records.hint(prepared.mutation.kind, missing)}"
        return detail

    def _label(self, prepared: PreparedMutation, name: str) -> str:
        return self.names.label(prepared.operation, name)

    def _read(self, prepared: PreparedMutation, name: str, value: Any) -> Any:
        """A value as people read it."""
        return self.names.display_value(prepared.operation, name, value)

    def _addressed(self, prepared: PreparedMutation) -> list[fresh_reads.FreshRecord | None]:
        return [self._images[each.target] for each in prepared.addresses]

    def _record_of(self, prepared: PreparedMutation) -> dict[str, Any] | None:
        """The record that a mutation is about, as the mutations before it leave it; None if it is not there."""
        image = next(iter(self._addressed(prepared)), None)
        return image.record if image and not image.is_gone else None


def _mark_waiting(mutations: Sequence[Mutation], steps: Sequence[Step]) -> tuple[Step, ...]:
    """`steps`, those marked that are held back because one before them is refused, in conflict, or waits itself."""
    marked = {step.mutation: step for step in steps}
    failed: dict[str, int] = {}
    for id, before in find_predecessors(mutations).items():
        step = marked[id]
        first = min((failed[other] for other in before if other in failed), default=None)
        if first is not None and step.fate == "send" and not step.waits:
            warning = f"not sent as long as #{first} before it is not applied"
            step = marked[id] = replace(step, warnings=(*step.warnings, warning), waits=True)
        if step.waits or (step.fate in ("rejected", "conflict") and step.after is None):
            failed[id] = step.seq
    return tuple(marked.values())


def title_of(record: Mapping[str, Any]) -> str | None:
    """What people call a record."""
    titles = (record[key][:_TITLE_LENGTH] for key in _TITLES if isinstance(record.get(key), str) and record[key])
    return next(titles, None)


def _decide_fate(decision: Decision) -> Fate:
    """The fate of a step. What only a person can decide is left to the sender, which reads once more before it ends."""
    return "send" if decision.outcome == "needs_review" else decision.outcome


def _find_roots(prepared: PreparedMutation) -> set[str]:
    """The outermost record that a mutation changes, if it is there already."""
    shaped = prepared.shape
    return {f"{shaped.root}/{prepared.payload.get(shaped.path_params[0])}"} if shaped.path_params else set()


def _apply_update(record: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """A record after an update."""
    after = dict(record)
    for name, value in fields(body):
        outer, _, code = name.partition("/")
        after[outer] = {**(after.get(outer) or {}), code: value} if code else value
    return after


def _deleted_entries(to_delete: EntriesToDelete) -> tuple[Change, ...]:
    titles = [str(title_of(each) or record_key(each)) for each in to_delete.entries[:_SHOWN]]
    more = f" and {len(to_delete.entries) - _SHOWN:,} more" if len(to_delete.entries) > _SHOWN else ""
    return (Change(f"({counted(len(to_delete.entries), 'record')})", ", ".join(titles) + more, None),)
