"""Verifies a write that was answered: every value must show in the answer, or in a read where the answer shows less.

What Pipedrive accepts and a read does not show is no success. Where nothing in the API shows it, the reason is
`unverified`. The verdict is an `Ending`; `settle` stores it, for those that a refusal or a probe ends as well.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core.list_response import record_in
from pdsync.core.log import log
from pdsync.errors import BadAnswer, PdsyncError, StorageError
from pdsync.model import State  # noqa: TC001 - msgspec reads it at run time
from pdsync.writeback import fresh_reads, lost_updates
from pdsync.writeback.effects import EffectReading, is_state, read_effect
from pdsync.writeback.equality import changed_fields, fields, fields_not_returned
from pdsync.writeback.shapes import record_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pdsync.core.answer import Answer
    from pdsync.core.http import Http
    from pdsync.model import Mutation
    from pdsync.writeback.outbox import Outbox
    from pdsync.writeback.prepared import PreparedMutation

UNVERIFIED = "sent, not verifiable"  # the reason `unverified` in words
MACHINE_ERRORS = (OSError, MemoryError, StorageError, sqlite3.OperationalError)  # nothing can be stored either
_EMPTY: tuple[Any, ...] = (None, "", [], {})
_DELETED_FLAGS = ("is_deleted", "deleted", "deleted_flag")


class Ending(Struct, frozen=True):
    """The end of a mutation, before it is stored."""

    state: State  # or `unknown`: `detail` says why the answer does not show whether it was carried out
    reason: str | None = None
    detail: str | None = None
    after: dict[str, Any] | None = None  # the record as it is now
    base: dict[str, Any] | None = None  # the record as it was before
    remote_id: str | None = None  # of the record that it added; of a merge that of the record that stays
    bound: str | None = None  # the name of the record that it added, which no second mutation may have
    alarm: str | None = None  # why the rest of the push must stop: Pipedrive ignores what it is sent


class Verifier:
    """Verifies the writes of one push.

    Args:
        http: the session.
        me: the id of the user whose token it is.
        waits_s: seconds before each read that looks for an effect.
        check_lost_updates: read the changelog of each updated record for edits that the update overwrote.
    """

    def __init__(self, http: Http, *, me: int, waits_s: Sequence[float], check_lost_updates: bool) -> None:
        self.http, self.me, self.waits_s, self.check_lost_updates = http, me, waits_s, check_lost_updates

    async def verify(self, prepared: PreparedMutation, answer: Answer, base: Any) -> Ending:
        """Verify that a mutation was carried out in full.

        Args:
            prepared: what was sent.
            answer: of the server, a success.
            base: the record as it was read before.

        Returns:
            How it ends; `unknown` where the answer shows nothing.
        """
        try:
            record = record_in(answer.body) if answer.body.strip() else {}
        except BadAnswer as error:
            return Ending("unknown", detail=str(error))
        if prepared.mutation.verb in ("delete", "other", "merge"):
            return await self._verify_effect(prepared, answer, record)
        desired = dict(fields(prepared.body))
        if record is None or fields_not_returned(record, prepared.body) or changed_fields(record, desired):
            record = await self._read_back(prepared, record) or record
        if record is None:
            return Ending("unknown", detail="the answer shows no record")
        if prepared.mutation.verb == "add":
            return judge_addition(prepared, record)
        ending = judge_update(prepared, record)
        if ending.state == "applied" and (lost := await self._overwritten(prepared, base, desired)):
            detail = f"another user had written {lost} meanwhile; it was overwritten"
            return Ending("conflict", "detected_late", detail, after=record)
        return ending

    async def _verify_effect(self, prepared: PreparedMutation, answer: Answer, record: dict[str, Any] | None) -> Ending:
        """Verify by reads what the answer itself does not show."""
        added_id = str(prepared.payload["merge_with_id"]) if prepared.mutation.verb == "merge" else None
        if added_id is None and record and prepared.operation.method == "POST":
            added_id = record_key(record)
        shown = EffectReading("unreadable", "nothing in the API shows it")
        for wait_s in self.waits_s:
            await asyncio.sleep(wait_s)
            try:
                shown = await self._read_effect(prepared, answer)
            except PdsyncError as error:
                shown = EffectReading("unreadable", str(error).split("\n", 1)[0])
            if shown.verdict in ("shown", "failed", "unreadable"):
                break
        if prepared.mutation.verb == "merge":  # its answer may have nothing but an id
            record = shown.after or record
        return judge_effect(prepared, shown, record, added_id)

    async def _read_effect(self, prepared: PreparedMutation, answer: Answer) -> EffectReading:
        if not prepared.addresses:
            return await read_effect(self.http, prepared.operation, prepared.payload, answer.body)
        removed, *others = prepared.addresses  # the record that was deleted, or merged into another; that other one
        reads = await fresh_reads.read(self.http, prepared.addresses)
        read = reads[removed.target]
        after = next((dict(reads[each.target].record or {}) for each in others), {})
        if read.is_hidden:
            return EffectReading("unreadable", "this token may not see it", after)
        if read.is_gone or _is_flagged_deleted(read.record or {}):
            return EffectReading("shown", after=after)
        return EffectReading("missing", f"{removed.target} is still there", after)

    async def _overwritten(self, prepared: PreparedMutation, base: Any, desired: dict[str, Any]) -> str:
        """The values of other users that our update overwrote, as text; empty if none, or if not checked.

        That the changelog can't be read does not change how the update ends: it was carried out.
        """
        if not self.check_lost_updates or not isinstance(base, dict) or not prepared.addresses:
            return ""
        key = prepared.addresses[0].target.rpartition("/")[2]
        try:
            lost = await lost_updates.find_overwritten(
                self.http, prepared.mutation.kind, key, base=base, desired=desired, me=self.me
            )
        except PdsyncError as error:
            log.info("#%s: its changelog can't be read: %s", prepared.mutation.seq, error)
            return ""
        return ", ".join(f"{field} = {value!r}" for field, value in lost.items())

    async def _read_back(self, prepared: PreparedMutation, record: dict[str, Any] | None) -> dict[str, Any] | None:
        """The record as a read shows it after the write; None if it can't be read."""
        addresses = list(prepared.addresses)
        if prepared.mutation.verb == "add":
            key, shape = record_key(record) if record else None, prepared.shape
            if key is None or (shape.item is None and shape.listing is None):
                return None
            values = tuple(str(prepared.payload[name]) for name in shape.path_params)
            addresses = [fresh_reads.RecordAddress(shape, f"{prepared.mutation.kind}/{key}", (*values, key))]
        if not addresses:
            return None
        try:
            read = (await fresh_reads.read(self.http, addresses))[addresses[0].target]
        except PdsyncError as error:
            log.info("#%s could not be read back: %s", prepared.mutation.seq, error)
            return None
        return read.record


def judge_update(prepared: PreparedMutation, record: dict[str, Any]) -> Ending:
    """How an update ends, given the record after it."""
    if ignored := ", ".join(changed_fields(record, dict(fields(prepared.body)))):
        alarm = f"Pipedrive accepted #{prepared.mutation.seq} and ignored {ignored}."
        return Ending("rejected", "ignored_fields", f"not applied: {ignored}", after=record, alarm=alarm)
    reason, detail = _unverified(prepared, record)
    return Ending("applied", reason, detail, after=record)


def judge_addition(prepared: PreparedMutation, record: dict[str, Any]) -> Ending:
    """How an addition ends, given the record that it added."""
    key = record_key(record)
    bound = bound_name(prepared, key)
    reason, detail = _unverified(prepared, record)
    state: State = "applied"
    if ignored := ", ".join(changed_fields(record, dict(fields(prepared.body)))):
        state, reason = "needs_review", "ignored_fields"
        detail = f"it was added as {key}, but {ignored} was not applied"
    return Ending(state, reason, detail, after=record, remote_id=key, bound=bound)


def judge_effect(
    prepared: PreparedMutation, shown: EffectReading, record: dict[str, Any] | None, added_id: str | None
) -> Ending:
    """How a deletion, a merge or any other operation ends, given what a read shows of its effect.

    Args:
        prepared: what was sent.
        shown: what a read shows.
        record: of the answer, if it has one.
        added_id: the id of the record that was added, by the answer; of a merge that of the winner.
    """
    after = record or shown.after
    if shown.verdict == "shown":
        return Ending("applied", after=after, remote_id=shown.added_id or added_id)
    if shown.verdict in ("unreadable", "running"):
        return Ending("applied", "unverified", f"{UNVERIFIED}: {shown.detail}", after=after, remote_id=added_id)
    if shown.verdict == "failed":
        return Ending("rejected", "failed", shown.detail, after=after)
    detail = f"Pipedrive accepted it, and does not show it: {shown.detail}"
    if shown.verdict == "missing" and is_state(prepared.operation):
        alarm = f"#{prepared.mutation.seq}: {detail}."
        return Ending("rejected", "ignored_fields", detail, after=after, alarm=alarm)
    return Ending("needs_review", "not_shown", detail, after=after, remote_id=added_id)


def bound_name(prepared: PreparedMutation, key: str | None) -> str | None:
    """The name of the record that an addition made ("deals/12"): no second mutation can have made it.

    None for a relation, which can be removed and added again under the same name.
    """
    if key is None or prepared.mutation.verb != "add" or prepared.shape.relation:
        return None
    parents = [str(prepared.payload[name]) for name in prepared.shape.path_params]
    return "/".join([prepared.mutation.kind, *parents, key])


def settle(outbox: Outbox, push_id: str, mutation: Mutation, ending: Ending) -> State:
    """Store the end of a mutation.

    Returns:
        Its state.

    Raises:
        ConfigError: it has ended already.
    """
    if ending.state == "unknown":
        outbox.doubt_answer(mutation.id, ending.detail or "")
        return "unknown"
    outbox.settle(
        mutation.id, ending.state, ending.reason, ending.detail, push_id=push_id, after=ending.after,
        base=ending.base, remote_id=ending.remote_id, bound=ending.bound,
    )  # fmt: skip
    return ending.state


def give_up(outbox: Outbox, push_id: str, id: str, error: Exception) -> State:
    """End a mutation at which pdsync itself fails, so that it does not fail again in every push."""
    log.debug("mutation %s: an unexpected error", id, exc_info=error)
    mutation = outbox.get(id)
    if mutation.state in ("armed", "unknown"):
        detail = f"it may have been carried out; then pdsync failed with {describe_error(error)}"
        return settle(outbox, push_id, mutation, Ending("needs_review", "local_error", detail))
    detail = f"not sent: pdsync failed with {describe_error(error)}"
    return settle(outbox, push_id, mutation, Ending("rejected", "local_error", detail))


def describe_error(error: Exception) -> str:
    """The type of an error and its first line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")


def _unverified(prepared: PreparedMutation, record: dict[str, Any]) -> tuple[str, str] | tuple[None, None]:
    """Reason and detail for values that no read shows; nothing where all of them show."""
    files = {name for name, param in prepared.operation.body.items() if param.type == "string:binary"}
    unseen = [
        name
        for name in fields_not_returned(record, prepared.body)
        if name not in files and prepared.body.get(name) not in _EMPTY
    ]
    return ("unverified", f"{UNVERIFIED}: no read shows {', '.join(unseen)}") if unseen else (None, None)


def _is_flagged_deleted(record: dict[str, Any]) -> bool:
    """Whether a record is flagged as deleted. Assumption: v1 does so for every kind in one of these ways."""
    return any(record.get(flag) in (True, 1) for flag in _DELETED_FLAGS) or record.get("active_flag") in (False, 0)
