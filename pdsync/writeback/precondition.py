"""Decides whether a mutation may be sent, given its records as they are now; the plan and the sender both use it.

The plan decides with what it has read; the sender decides again with a read that is at most five seconds old, and with
what the plan saw as the state before. This module reads and writes nothing.

    fault              rejected      the request itself is not valid, or the operation is gone from the API
    hidden             rejected      `permission`, for an update or a deletion; for a merge it counts as absent
    absent             rejected      `not_found` where nothing shows that the record ever existed; otherwise
                       already_so    for a deletion, and for a merge into the same winner
                       conflict      `target_gone` for an update or a merge
    as requested       already_so    there is nothing to send
    archived           conflict      an archived record takes no update except to be taken out of the archive
    changed            conflict      by another user since the plan (`changed`, `kept_theirs`), or since it was queued
    merge, attempted   needs_review  `undecidable`: one record is gone, and an earlier attempt may have done it
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from pdsync.writeback import merge_preview
from pdsync.writeback.effects import EntriesToDelete  # noqa: TC001 - msgspec reads them at run time
from pdsync.writeback.equality import as_reference, changed_fields, equivalent, fields, fields_not_returned, value_in
from pdsync.writeback.fresh_reads import FreshRecord  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pdsync.writeback.prepared import PreparedMutation
    from pdsync.writeback.snapshot import Attempt

Policy = Literal["field", "record", "theirs", "ours", "append"]
Outcome = Literal["send", "already_so", "rejected", "conflict", "needs_review"]


class Decision(Struct, frozen=True):
    """What becomes of a mutation: sent, or ended for a reason."""

    outcome: Outcome
    reason: str | None = None
    detail: str | None = None  # for people; `{fields}` stands for the names of `fields`
    fields: tuple[str, ...] = ()  # that another user has changed

    def message(self, label: Callable[[str], str] = str) -> str | None:
        """The detail with the names of the fields, each as `label` writes it."""
        return self.detail and self.detail.replace("{fields}", ", ".join(map(label, self.fields)))


class RecordState(Struct, frozen=True):
    """One record of a mutation, as it is now."""

    target: str
    read: FreshRecord | None  # None: an earlier mutation of the same plan deletes it, or may add it
    existed: bool = True  # it is there, or is known to have been there

    @property
    def is_absent(self) -> bool:
        """Whether there is no record to change: deleted, merged into another, never there, or not visible."""
        return self.read is None or self.read.is_gone or self.read.record is None


class EntriesState(Struct, frozen=True):
    """The entries of a list that a mutation would delete, as they are now."""

    to_delete: EntriesToDelete
    existed: bool = False  # the named entries are known to have been there
    may_change: bool = False  # an earlier mutation of the same plan changes the record they belong to


class Before(Struct, frozen=True):
    """What is known from before the records were read."""

    planned: Mapping[str, Any] | None = None  # field → value, as the plan saw it; of a merge `merge_preview.stamp`
    planned_entries: int | None = None  # how many entries the plan counted as going
    may_have_happened: bool = False  # an earlier attempt may have carried it out
    merged_into: str | None = None  # of a merge: the id of the record that the loser is known to be merged into


class Now(Struct, frozen=True):
    """What a read shows. A default means that it was not, or can't be, read: it prevents nothing."""

    records: tuple[RecordState, ...] = ()  # the record; of a merge the loser and the winner
    entries: EntriesState | None = None
    effect_shows: bool = False  # the state that is requested, or the relation to be added, is there already


def decide(prepared: PreparedMutation, before: Before, now: Now, policy: Policy) -> Decision:
    """Decide whether `prepared` may be sent.

    Args:
        prepared: the mutation, its payload completed.
        before: what is known from before.
        now: what a read shows.
        policy: what to do if another user has changed the same fields.
    """
    if prepared.fault:
        return Decision("rejected", *prepared.fault)
    if now.effect_shows:
        return _already_so(before, "it is so already")
    if now.entries:
        return _decide_entries(before, now.entries)
    if prepared.mutation.verb == "merge":
        return _decide_merge(prepared, before, now.records)
    if not now.records or prepared.mutation.verb not in ("update", "delete"):
        return Decision("send")
    record = now.records[0]
    if record.read and record.read.is_hidden:
        return Decision("rejected", "permission", "this token may not see it")
    if prepared.mutation.verb == "delete":
        return _decide_delete(prepared, before, record)
    return _decide_update(prepared, before, record, policy)


def may_have_happened(attempts: Iterable[Attempt]) -> bool:
    """Whether one of a mutation's attempts may have been carried out."""
    return any(each.closed_as != "not_executed" for each in attempts)


def _decide_update(prepared: PreparedMutation, before: Before, state: RecordState, policy: Policy) -> Decision:
    if state.is_absent:
        if not state.existed:
            return _not_found(state)
        gone = "it was deleted, merged into another, or can't be seen"
        return Decision("conflict", "target_gone", gone if state.read else "it is deleted or merged into another")
    record = _record(state)
    desired = dict(fields(prepared.body))
    # What an earlier attempt has written may have been cleaned on arrival; but then it is not as it was before.
    exact = not (before.may_have_happened and changed_fields(record, before.planned or {}, exact=True))
    if not changed_fields(record, desired, exact=exact) and not fields_not_returned(record, prepared.body):
        return _already_so(before, "every field has that value already")
    if state.read and state.read.is_archived and desired.get("is_archived") is not False:
        return Decision("conflict", "archived", "it is archived; un-archive it first (is_archived=false)")
    planned = before.planned or {}
    if policy == "append":  # what is added to a list fits whatever others have made of it
        planned = {name: value for name, value in planned.items() if not isinstance(desired.get(name), list)}
    reason = "kept_theirs" if policy == "theirs" else "changed"
    return (
        (_changed(record, planned, desired, reason, "since the plan") if policy != "ours" else None)
        or _changed(record, prepared.mutation.expected, desired, "changed", "since it was queued", exact=True)
        or Decision("send")
    )


def _decide_delete(prepared: PreparedMutation, before: Before, state: RecordState) -> Decision:
    if state.read is None:  # whether it is there depends on an earlier mutation of the same plan
        return Decision("send")
    if state.is_absent:
        never_there = state.read.record is None and not state.existed and not before.may_have_happened
        return _not_found(state) if never_there else _already_so(before, "it is not there any more")
    record = _record(state)
    return (
        _changed(record, before.planned, {}, "changed", "since the plan")
        or _changed(record, prepared.mutation.expected, {}, "changed", "since it was queued", exact=True)
        or Decision("send")
    )


def _decide_entries(before: Before, state: EntriesState) -> Decision:
    to_delete = state.to_delete
    if to_delete.unreadable:
        return Decision("rejected", "permission", f"what it would delete can't be counted: {to_delete.unreadable}")
    if to_delete.entries:
        count, planned = len(to_delete.entries), before.planned_entries
        if planned is not None and count > planned:
            return Decision("conflict", "changed", f"it would delete {count} by now; the plan showed {planned}")
        return Decision("send")
    if state.may_change:
        return Decision("send")
    if to_delete.are_named and not state.existed and not before.may_have_happened:
        return Decision("rejected", "not_found", "none of what it names is there")
    return _already_so(before, "it is gone" if to_delete.are_named else "there is nothing left to delete")


def _decide_merge(prepared: PreparedMutation, before: Before, records: tuple[RecordState, ...]) -> Decision:
    if len(records) < 2:
        return Decision("conflict", "target_gone", "one of the two does not exist yet")
    loser, winner = records
    missing = next((each for each in records if each.is_absent), None)
    if missing is None:
        if before.planned is not None and not equivalent(
            before.planned, merge_preview.stamp(_record(loser), _record(winner))
        ):
            return Decision("conflict", "changed", "one of the two was changed since the plan")
        return Decision("send")
    if before.may_have_happened:
        detail = "one of the two is not there any more: an earlier attempt, or another user, may have removed it"
        return Decision("needs_review", "undecidable", detail)
    if not missing.existed:
        return _not_found(missing)
    into = before.merged_into if missing is loser else None
    if into and f"{prepared.shape.kind}/{into}" == winner.target:
        return _already_so(before, f"{loser.target} was merged into {into} before")
    what = f"was merged into {into}" if into else "was deleted, merged into another"
    return Decision("conflict", "target_gone", f"{missing.target} {what}, or can't be seen")


def _record(state: RecordState) -> Mapping[str, Any]:
    return (state.read.record if state.read else None) or {}


def _changed(
    record: Mapping[str, Any],
    base: Mapping[str, Any] | None,
    desired: Mapping[str, Any],
    reason: str,
    since: str,
    *,
    exact: bool = False,
) -> Decision | None:
    """The conflict where a record differs from `base` in a field that does not have its desired value either.

    With `exact` a text that is cleaned differs: `base` is as Pipedrive returned it. The plan's may be what an earlier
    mutation of the plan sends.
    Of a record that it refers to only the id counts: another name of that one is no change of this one.
    """
    expected = {name: as_reference(value) for name, value in (base or {}).items()}
    changed = tuple(
        name
        for name in changed_fields(record, expected, exact=exact)
        if name not in desired or not equivalent(desired[name], value_in(record, name)[1], exact=True)
    )
    return Decision("conflict", reason, f"another user has changed {{fields}} {since}", changed) if changed else None


def _already_so(before: Before, detail: str) -> Decision:
    """Nothing has to be sent: it is so without us, or an earlier attempt has done it, which is no reason to name."""
    return Decision("already_so", None if before.may_have_happened else "already_so", detail)


def _not_found(state: RecordState) -> Decision:
    return Decision("rejected", "not_found", f"there is no {state.target}")
