"""Sends one mutation: reads its record, decides, records the attempt, sends, verifies.

No request leaves before its attempt is on disk. A write whose outcome is unknown is not sent again before a probe has
shown that it was not carried out (`unknown_outcomes`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from pdsync.core.log import log
from pdsync.core.request import request_of_call
from pdsync.core.request_builder import check
from pdsync.errors import (
    ApiError,
    AuthError,
    ConfigError,
    Forbidden,
    GuardTripped,
    NotFound,
    PdsyncError,
    ServerTrouble,
    Stopped,
)
from pdsync.writeback import fresh_reads
from pdsync.writeback.completion import append_again
from pdsync.writeback.effects import is_state, read_effect, read_entries_to_delete
from pdsync.writeback.precondition import Before, EntriesState, Now, RecordState, decide, may_have_happened
from pdsync.writeback.prepared import HeldBack, PreparedMutation, prepare_to_send
from pdsync.writeback.probe import ADDITIONS_PER_SNAPSHOT, find_relation, list_snapshot, read_list
from pdsync.writeback.shapes import record_key
from pdsync.writeback.unknown_outcomes import UnknownOutcomes, probe_waits_s
from pdsync.writeback.verification import MACHINE_ERRORS, Ending, Verifier, describe_error, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.core.answer import Answer
    from pdsync.core.http import Http
    from pdsync.core.request_builder import Call
    from pdsync.model import State
    from pdsync.writeback.outbox import Outbox
    from pdsync.writeback.plan import Step
    from pdsync.writeback.precondition import Policy

MAX_READ_AGE_S = 5.0  # of the read that an update is decided by
_REFUSED: dict[int, str] = {400: "not_valid", 402: "account_closed", 403: "permission", 413: "too_large",
                            415: "not_in_plan", 422: "not_valid", 429: "limit"}  # fmt: skip


class _ReadTooOld(Exception):
    """The read that the mutation was decided by is too old to send by it."""


class _Sending(Struct):
    """A mutation that is being sent: its step of the plan, its payload, and the reads before it."""

    step: Step
    prepared: PreparedMutation
    reads: dict[str, fresh_reads.FreshRecord]
    base: Any = None  # the record as it was read before
    seen: Any = None  # of an addition: what the list showed before (`probe.list_snapshot`)


class Sender:
    """Sends the mutations of one push.

    Args:
        http: the session.
        outbox: where every attempt is recorded before it is made.
        push_id: of this push.
        me: the id of the user whose token it is.
        policy: what to do if another user has changed the same fields.
        settle_s: how long a lost write may take to show, in seconds; later probes wait 6 and 60 times as long.
        create_doubt: `review` where an addition with an unknown outcome is never sent again.
        check_lost_updates: read the changelog of each updated record for edits that the update overwrote.
        on_stop: is called when nothing more should be sent, with the reason, and has to set `closed`; may be called
            several times.
    """

    def __init__(
        self,
        http: Http,
        outbox: Outbox,
        push_id: str,
        *,
        me: int,
        policy: Policy,
        settle_s: float,
        create_doubt: str,
        check_lost_updates: bool = False,
        on_stop: Callable[[PdsyncError], None],
    ) -> None:
        self.http, self.outbox, self.push_id, self.policy, self._on_stop = http, outbox, push_id, policy, on_stop
        waits_s = probe_waits_s(settle_s)
        self._verifier = Verifier(
            http, me=me, waits_s=(0.0, waits_s[0], waits_s[2]), check_lost_updates=check_lost_updates
        )
        self._unknown_outcomes = UnknownOutcomes(
            http, outbox, push_id, me=me, waits_s=waits_s, create_doubt=create_doubt, on_stop=on_stop
        )
        self._snapshots: dict[str, tuple[Any, int]] = {}  # list → its snapshot, and for how many more additions
        self._snapshot_locks: dict[str, asyncio.Lock] = {}
        self._full_kinds: set[str] = set()  # of which the company's plan allows no more
        self._own_times: dict[str, Any] = {}  # target → its update_time after our last update of it
        self.closed = False  # nothing more is sent

    def prepare(self, step: Step) -> PreparedMutation:
        """Prepare the mutation of a step.

        Raises:
            HeldBack: it refers to a record that was not added.
            ConfigError: it can never be sent.
        """
        return prepare_to_send(self.outbox, self.outbox.get(step.mutation), step.payload)

    async def carry_out(
        self, step: Step, prepared: PreparedMutation, reads: dict[str, fresh_reads.FreshRecord]
    ) -> State:
        """Bring one mutation to its end.

        Args:
            step: of the plan.
            prepared: the mutation (`prepare`).
            reads: target → the record as it was just read.

        Returns:
            How it ended; `unknown` where that can't be found out yet.

        Raises:
            HeldBack: it was not sent; also where the plan showed that there would be nothing to send.
            Stopped, AuthError: nothing more may be sent; this one was not carried out.
            PdsyncError: a read failed, or nothing can be stored. It may have been sent only if it is `armed`.
        """
        while True:
            sending = _Sending(step, prepared, reads)
            state = await self._attempt(sending)
            if state == "unknown":
                state = await self._unknown_outcomes.resolve(prepared.mutation, sending.prepared)
            if state != "approved":
                return state
            reads = {}

    async def _attempt(self, sending: _Sending) -> State:
        mutation = sending.prepared.mutation
        if mutation.verb == "add" and mutation.kind in self._full_kinds:
            raise HeldBack("the company's plan allows no more of these")
        while True:
            if state := await self._check_precondition(sending):
                return state
            try:
                call = check(sending.prepared.operation, sending.prepared.payload)
                request = request_of_call(call, before_send=lambda: self._arm(sending, call))  # noqa: B023
                answer = await self.http.send(request)
            except _ReadTooOld:
                sending.reads = {}
                continue
            except (PdsyncError, asyncio.CancelledError) as error:
                return self._after_failure(sending, error)
            self.outbox.record_answer(mutation.id, answer)
            return await self._verify(sending, answer)

    # Before.

    async def _check_precondition(self, sending: _Sending) -> State | None:
        """Decide by a fresh read whether the mutation is sent; if it is not, how it ended."""
        prepared, step = sending.prepared, sending.step
        attempts = self.outbox.attempts(prepared.mutation.id)
        now = await self._read_now(sending, is_first=not attempts)
        if self.policy == "append" and step.verb == "update" and sending.base is not None:
            prepared = self._append_again(prepared, sending.base)
            sending.prepared = prepared
        tried = may_have_happened(attempts)
        if tried and prepared.shape.verb == "delete" and now.records and now.records[0].is_absent:
            tried = not await self._unknown_outcomes.is_removed_by_other(prepared)
        planned = dict(step.base or {})
        for name, target in _times_of(prepared).items():
            if name in planned and target in self._own_times:  # this push has moved it
                planned[name] = self._own_times[target]
        before = Before(
            planned=planned,
            planned_entries=step.records,
            may_have_happened=tried,
            merged_into=self.outbox.merged_into(step.target) if step.verb == "merge" and step.target else None,
        )
        if attempts:
            sending.seen = attempts[0].seen
        decision = decide(prepared, before, now, self.policy)
        if decision.outcome == "send":
            if step.fate != "send":
                raise HeldBack(f"#{step.after} before it did not have the effect that the plan showed: push again")
            return None
        state: State = "applied" if decision.outcome == "already_so" else decision.outcome
        ending = Ending(state, decision.reason, decision.message())
        if state == "applied" and step.verb in ("add", "update", "other") and not now.entries:
            ending = replace(ending, after=sending.base)
        elif decision.fields and step.verb == "update":
            ending = replace(ending, base=sending.base)
        return self._settle(sending, ending)

    def _append_again(self, prepared: PreparedMutation, record: dict[str, Any]) -> PreparedMutation:
        """The mutation with its lists appended to those of the record as it was just read."""
        queued = prepared.mutation.payload
        return prepared.with_payload(append_again(prepared.operation, prepared.payload, queued, record))

    async def _read_now(self, sending: _Sending, *, is_first: bool) -> Now:
        """Read what the decision depends on; `sending.base` is what the attempt stores of it."""
        prepared = sending.prepared
        if not prepared.addresses:
            sending.reads = {}
            if prepared.fault or (prepared.mutation.verb == "add" and not is_first):
                return Now()
            return await (self._read_list if prepared.mutation.verb == "add" else self._read_effect)(sending)
        targets = [each.target for each in prepared.addresses]
        if any(target not in sending.reads for target in targets):
            sending.reads = await fresh_reads.read(self.http, prepared.addresses)
        sending.reads = {target: sending.reads[target] for target in targets}
        records = [sending.reads[target].record for target in targets]
        if prepared.mutation.verb == "merge":
            sending.base = {"loser": records[0], "winner": records[1], "moves": sending.step.moves}
        else:
            sending.base = records[0]
        return Now(tuple(RecordState(target, sending.reads[target], self._existed(sending.step)) for target in targets))

    async def _read_effect(self, sending: _Sending) -> Now:
        """Read the state that an operation without a record of its own sets."""
        prepared = sending.prepared
        if not is_state(prepared.operation):
            return Now()
        if to_delete := await read_entries_to_delete(self.http, prepared.operation, prepared.payload):
            sending.base = {"entries": to_delete.entries}
            return Now(entries=EntriesState(to_delete, self._existed(sending.step)))
        try:
            reading = await read_effect(self.http, prepared.operation, prepared.payload)
        except ApiError as error:
            log.info("#%s: what it would change can't be read: %s", prepared.mutation.seq, error)
            return Now()
        sending.base = reading.after
        return Now(effect_shows=reading.verdict == "shown")

    async def _read_list(self, sending: _Sending) -> Now:
        """Read the list that an addition adds to: to recognise new records later, and relations that exist already."""
        prepared = sending.prepared
        if not prepared.shape.relation:
            sending.seen = await self._snapshot(prepared)
            return Now()
        try:
            records = await read_list(self.http, prepared.shape, prepared.payload)
        except ApiError as error:
            log.info("the list of %s can't be read: %s", prepared.mutation.kind, error)
            return Now()
        sending.seen = sorted(key for each in records if (key := record_key(each)))
        link = find_relation(prepared.body, records)
        sending.base = link
        return Now(effect_shows=link is not None)

    async def _snapshot(self, prepared: PreparedMutation) -> Any:
        """What a list shows before the first attempt; one snapshot is used for several additions."""
        parents = [str(prepared.payload[name]) for name in prepared.shape.path_params]
        name = "/".join([prepared.mutation.kind, *parents])
        async with self._snapshot_locks.setdefault(name, asyncio.Lock()):
            snapshot, uses_left = self._snapshots.get(name, (None, 0))
            if uses_left <= 0:
                try:
                    snapshot = await list_snapshot(self.http, prepared.shape, prepared.payload)
                except ApiError as error:
                    log.info("the list of %s can't be read: %s", name, error)
                    snapshot = None
                uses_left = ADDITIONS_PER_SNAPSHOT
            self._snapshots[name] = (snapshot, uses_left - 1)
        return snapshot

    def _existed(self, step: Step) -> bool:
        """Whether the record of a step is known to have been there, before this push or by it."""
        return step.seen or (step.target is not None and self.outbox.has_seen(step.kind, step.target))

    async def _arm(self, sending: _Sending, call: Call) -> None:
        """Record the attempt: the request is sent when this returns."""
        if self.closed:
            raise HeldBack("the push was stopped")
        if any(read.age_s > MAX_READ_AGE_S for read in sending.reads.values()):
            raise _ReadTooOld

        def write() -> None:
            mutation = sending.prepared.mutation
            if self.outbox.get(mutation.id).state == "armed":
                self.outbox.mark_not_executed(mutation.id, "refused before it was carried out")
            self.outbox.arm(
                mutation, self.push_id, method=call.operation.method, path=call.path, body=call.body,
                base=sending.base, seen=sending.seen, at=self.http.clock.now(),
                marker=sending.prepared.payload.get("origin_id") if mutation.verb == "add" else None,
            )  # fmt: skip

        await asyncio.to_thread(write)

    # After.

    async def _verify(self, sending: _Sending, answer: Answer) -> State:
        mutation = sending.prepared.mutation
        try:
            ending = await self._verifier.verify(sending.prepared, answer, sending.base)
        except MACHINE_ERRORS:
            raise
        except Exception as error:  # the answer came, and the mutation must not stay armed
            log.debug("#%s: the answer could not be understood", mutation.seq, exc_info=True)
            self.outbox.doubt_answer(mutation.id, describe_error(error))
            return "unknown"
        changed = {"update": "update_time", "merge": "winner"}.get(mutation.verb, "")
        if (target := _times_of(sending.prepared).get(changed)) and ending.after and "update_time" in ending.after:
            self._own_times[target] = ending.after["update_time"]
        if ending.alarm:
            self._on_stop(GuardTripped("ignored_fields", ending.alarm))
        return self._settle(sending, ending)

    def _after_failure(self, sending: _Sending, error: BaseException) -> State:
        """Record an attempt that failed, and return the state of the mutation.

        Raises:
            HeldBack, Stopped, AuthError: it was not carried out, and nothing more is sent.
            CancelledError: if it was armed, its outcome is unknown; otherwise it was not sent.
        """
        id = sending.prepared.mutation.id
        is_armed = self.outbox.get(id).state == "armed"
        if isinstance(error, asyncio.CancelledError):
            if is_armed:
                self.outbox.mark_unknown(id, "the push was interrupted")
            raise error
        message = str(error).split("\n", 1)[0]
        if isinstance(error, Stopped | AuthError) or (isinstance(error, ServerTrouble) and not error.doubtful):
            if is_armed:  # refused before it was carried out
                self.outbox.mark_not_executed(id, message)
            if isinstance(error, ServerTrouble):
                self._on_stop(error)
                raise HeldBack(message) from error
            raise error
        if isinstance(error, ConfigError):  # a file that was there when it was queued
            return self._settle(sending, Ending("rejected", "not_valid", message))
        if isinstance(error, ApiError) and error.status < 500:
            self.outbox.record_refusal(id, error.status, message)
            return self._settle(sending, self._refusal(sending, error, message))
        self.outbox.mark_unknown(id, message)
        return "unknown"

    def _refusal(self, sending: _Sending, error: ApiError, message: str) -> Ending:
        """How a mutation ends that Pipedrive refused."""
        mutation = sending.prepared.mutation
        if isinstance(error, NotFound) and mutation.verb == "delete":
            is_repeated = may_have_happened(self.outbox.attempts(mutation.id)[:-1])
            if is_repeated or self._existed(sending.step):
                return Ending("applied", None if is_repeated else "already_so")
            return Ending("rejected", "not_found", message)
        if isinstance(error, NotFound):
            return Ending("conflict" if mutation.verb in ("update", "merge") else "rejected", "target_gone", message)
        if error.status in (409, 412):
            return Ending("conflict", "refused", message)
        if isinstance(error, Forbidden) and "feature_capping" in message and mutation.verb == "add":
            self._full_kinds.add(mutation.kind)
            return Ending("rejected", "cap", message)
        return Ending("rejected", _REFUSED.get(error.status, "refused"), message)

    def _settle(self, sending: _Sending, ending: Ending) -> State:
        return settle(self.outbox, self.push_id, sending.prepared.mutation, ending)


def _times_of(prepared: PreparedMutation) -> dict[str, str]:
    """The times of change that a precondition compares, as the plan calls them → the targets of their records."""
    names = {"update": ("update_time",), "merge": ("loser", "winner")}.get(prepared.mutation.verb, ())
    return {name: each.target for name, each in zip(names, prepared.addresses, strict=False)}
