"""Sends one mutation: looks at the record, arms, sends, verifies; and where the answer is lost, looks what happened.

Nothing is written before the attempt is on disk. A write whose fate is unknown is not sent again before a look has
shown that it did not happen: twice for what adds a record, because a list may lag.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.list_response import record_in
from pdsync.core.log import log
from pdsync.core.request_builder import check
from pdsync.errors import (
    ApiError,
    AuthError,
    BadAnswer,
    ConfigError,
    Forbidden,
    GuardTripped,
    NotFound,
    PdsyncError,
    ServerTrouble,
    Stopped,
    StorageError,
)
from pdsync.writeback import fresh_reads, lost_updates, merge_preview
from pdsync.writeback.effects import Shown, entries_to_go, is_state, look_at_effect
from pdsync.writeback.equality import (
    changed_fields,
    equivalent,
    fields,
    fields_not_returned,
    value_in,
)
from pdsync.writeback.plan import body_of
from pdsync.writeback.probe import find_relation, list_snapshot, probe_write, read_list
from pdsync.writeback.shapes import key_of, shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.core.http import Answer, Http
    from pdsync.core.request_builder import Call
    from pdsync.model import Mutation, Operation, State
    from pdsync.writeback.outbox import Outbox
    from pdsync.writeback.plan import Policy, Step

UNVERIFIED = "sent, not verifiable"  # what the reason `unverified` means, in words
_FRESH_S = 5.0  # how old what is known of a record may be when it is changed
_ATTEMPTS = 3
MACHINE = (OSError, MemoryError, StorageError, sqlite3.OperationalError)  # it fails: nothing can be written down either
_SEEN_LASTS = 50  # additions for which one look at a list does
_REFUSED: dict[int, str] = {400: "not_valid", 402: "account_closed", 403: "permission", 413: "too_large",
                            415: "not_in_plan", 422: "not_valid", 429: "limit"}  # fmt: skip


class HeldBack(Exception):
    """It can't be sent now: another one failed, or the push was stopped."""


class _Stale(Exception):
    """What is known of the record is too old by now."""


class _Ready(Struct):
    """A mutation on its way: what will be sent, and what is known of its record."""

    step: Step
    mutation: Mutation
    payload: dict[str, Any]
    known: dict[str, fresh_reads.FreshRecord]
    base: Any = None
    seen: Any = None


class Sender:
    """Sends the mutations of one push.

    Args:
        http: the session.
        outbox: where every step is written down before it is taken.
        push_id: of this push.
        me: the id of the user whose token it is.
        policy: what to do where somebody else has changed the same fields.
        settle_s: how long a lost write may take to show, in seconds; later looks wait 6 and 60 times as long.
        create_doubt: `review` where an addition in doubt is never sent again.
        audit: ask the changelog of each updated record for edits that the update wrote over.
        stop: is called when nothing more should be sent, with the reason.
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
        audit: bool = False,
        stop: Callable[[PdsyncError], None],
    ) -> None:
        self.http, self.outbox, self.push_id, self.me, self.policy = http, outbox, push_id, me, policy
        self.create_doubt, self.audit, self._stop = create_doubt, audit, stop
        self._waits_s = (settle_s, settle_s, settle_s * 6, settle_s * 60)
        self._seen: dict[str, tuple[Any, int]] = {}  # list → what it held, and for how many more that does
        self._looking: dict[str, asyncio.Lock] = {}
        self._full: set[str] = set()  # kinds of which the company's plan allows no more
        self.closed = False  # nothing more goes out

    async def carry_out(self, step: Step, known: dict[str, fresh_reads.FreshRecord]) -> State:
        """Bring one mutation to its end; `known` is what was just read of its records.

        Returns:
            How it ended; `unknown` where nobody can tell yet.

        Raises:
            Blocked: it was not sent.
            Stopped, AuthError: nothing more may be sent; this one was not carried out.
        """
        while True:
            state = await self._attempt(step, known)
            if state == "unknown":
                state = await self.settle_doubt(self.outbox.get(step.mutation), step.payload)
            if state != "approved":
                return state
            known = {}

    def places(self, step: Step) -> list[fresh_reads.RecordAddress]:
        """The records to look at before `step` is sent."""
        shaped = shape(catalogue.operation(step.operation))
        if shaped.verb not in ("update", "delete", "merge"):
            return []
        found = fresh_reads.place(shaped, self._with_ids(step.payload))
        if found and shaped.verb == "merge":
            return [found, merge_preview.winner(shaped, step.payload)]
        return [found] if found else []

    # One attempt.

    async def _attempt(self, step: Step, known: dict[str, fresh_reads.FreshRecord]) -> State:
        operation = catalogue.operation(step.operation)
        payload = self._with_ids(step.payload)
        if step.verb == "add" and "origin_id" in operation.body:  # a mark that no other record bears
            payload.setdefault("origin_id", f"pdsync:{step.mutation}")
        ready = _Ready(replace(step, payload=payload), self.outbox.get(step.mutation), payload, known)
        if step.verb == "add" and step.kind in self._full:
            raise HeldBack("the company's plan allows no more of these")
        while True:
            if state := await self._precondition(ready):
                return state
            if step.verb == "add" and (state := await self._look_before_adding(ready)):
                return state
            try:
                call = check(operation, payload)
                answer = await self.http.carry_out(call, before=lambda: self._arm(ready, call))  # noqa: B023
            except _Stale:
                ready.known = {}
                continue
            except (PdsyncError, asyncio.CancelledError) as error:
                return self._failed(ready, error)
            self.outbox.record_answer(step.mutation, answer)
            try:
                return await self._verified(ready, answer)
            except (PdsyncError, *MACHINE):
                raise
            except Exception as error:  # the answer came, and must not be left hanging
                log.debug("#%s: the answer could not be made sense of", step.seq, exc_info=True)
                self.outbox.doubt_answer(step.mutation, _said(error))
                return "unknown"

    def give_up(self, id: str, error: Exception) -> State:
        """End a mutation with which pdsync itself can't go on, so that it does not fail again in every push."""
        log.debug("mutation %s: an unexpected error", id, exc_info=error)
        mutation = self.outbox.get(id)
        if mutation.state in ("armed", "unknown"):
            detail = f"it may have been carried out; then pdsync failed with {_said(error)}"
            return self._settle(mutation, "needs_review", "local_error", detail)
        return self._settle(mutation, "rejected", "local_error", f"not sent: pdsync failed with {_said(error)}")

    async def _arm(self, ready: _Ready, call: Call) -> None:
        """Write down that the request goes out now."""
        if self.closed:
            raise HeldBack("the push was stopped")
        if any(read.age_s > _FRESH_S for read in ready.known.values()):
            raise _Stale

        def write() -> None:
            id = ready.mutation.id
            if self.outbox.get(id).state == "armed":
                self.outbox.mark_not_executed(id, "turned away before it was looked at")
            self.outbox.arm(
                ready.mutation, self.push_id, method=call.operation.method, path=call.path, body=call.body,
                base=ready.base, marker=ready.payload.get("origin_id") if ready.step.verb == "add" else None,
                seen=ready.seen, at=self.http.clock.now(),
            )  # fmt: skip

        await asyncio.to_thread(write)

    def _failed(self, ready: _Ready, error: BaseException) -> State:
        """What an attempt that brought no success means.

        Raises:
            Blocked, Stopped, AuthError, CancelledError: it does not go on.
        """
        id = ready.mutation.id
        is_armed = self.outbox.get(id).state == "armed"
        if isinstance(error, asyncio.CancelledError):
            if is_armed:
                self.outbox.mark_unknown(id, "the push was interrupted")
            raise error
        said = str(error).split("\n", 1)[0]
        if isinstance(error, Stopped | AuthError) or (isinstance(error, ServerTrouble) and not error.doubtful):
            if is_armed:  # refused at the door, before it was looked at
                self.outbox.mark_not_executed(id, said)
            if isinstance(error, ServerTrouble):
                self._stop(error)
                raise HeldBack(said) from error
            raise error
        if isinstance(error, ConfigError):  # a file that was there when it was queued
            return self._settle(ready.mutation, "rejected", "not_valid", said)
        if isinstance(error, ApiError) and error.status < 500:
            self.outbox.record_refusal(id, error.status, said)
            return self._refused(ready, error, said)
        self.outbox.mark_unknown(id, said)
        return "unknown"

    def _refused(self, ready: _Ready, error: ApiError, said: str) -> State:
        """What a refusal means for a mutation."""
        mutation = ready.mutation
        if isinstance(error, NotFound) and mutation.verb == "delete":
            again = len(self.outbox.attempts(mutation.id)) > 1
            if again or self._was_there(ready.step):
                return self._settle(mutation, "applied", None if again else "already_so")
            return self._settle(mutation, "rejected", "not_found", said)
        if isinstance(error, NotFound):
            state: State = "conflict" if mutation.verb in ("update", "merge") else "rejected"
            return self._settle(mutation, state, "target_gone", said)
        if error.status in (409, 412):
            return self._settle(mutation, "conflict", "refused", said)
        if isinstance(error, Forbidden) and "feature_capping" in said and mutation.verb == "add":
            self._full.add(mutation.kind)
            return self._settle(mutation, "rejected", "cap", said)
        return self._settle(mutation, "rejected", _REFUSED.get(error.status, "refused"), said)

    # Before.

    async def _precondition(self, ready: _Ready) -> State | None:
        """Look at the record once more; how the mutation ended, if it must not be sent."""
        places = self.places(ready.step)
        if not places:
            ready.known = {}
            return await self._effect_before(ready)
        if any(place.target not in ready.known for place in places):
            ready.known = await fresh_reads.read(self.http, places)
        ready.known = {place.target: ready.known[place.target] for place in places}
        read = ready.known[places[0].target]
        if ready.step.verb == "merge":
            return self._merge_allowed(ready)
        again = bool(self.outbox.attempts(ready.mutation.id))
        if read.hidden:
            return self._settle(ready.mutation, "rejected", "permission", "this token may not see it")
        if ready.step.verb == "delete":
            if read.gone and read.record is None and not (again or self._was_there(ready.step)):
                return self._settle(ready.mutation, "rejected", "not_found", f"there is no {ready.step.target}")
            if read.gone:
                return self._settle(ready.mutation, "applied", None if again else "already_so")
            if changed_fields(read.record or {}, ready.step.base or {}):
                return self._settle(ready.mutation, "conflict", "changed", "it was changed since the plan")
        elif read.gone or read.record is None:
            return self._settle(ready.mutation, "conflict", "target_gone", "it was deleted or merged away")
        else:
            ready.base = read.record
            return self._update_allowed(ready, read.record, again=again)
        ready.base = read.record
        return None

    async def _effect_before(self, ready: _Ready) -> State | None:
        """Look whether there is anything to do, where that is no record's own business."""
        mutation, operation = ready.mutation, catalogue.operation(ready.step.operation)
        if not is_state(operation):
            return None
        again = bool(self.outbox.attempts(mutation.id))
        try:
            going = await entries_to_go(self.http, operation, ready.payload)
            found = None if going else await look_at_effect(self.http, operation, ready.payload)
        except ApiError as error:
            log.info("#%s: what it would change can't be read: %s", mutation.seq, error)
            return None
        if going is None:
            if found and found.verdict == "shown":
                return self._settle(mutation, "applied", None if again else "already_so", after=found.after)
            ready.base = found.after if found else None
            return None
        entries, named = going
        ready.base = {"entries": entries}
        if not entries and named and not (again or self._was_there(ready.step)):
            return self._settle(mutation, "rejected", "not_found", "none of what it names is there")
        if not entries:
            return self._settle(mutation, "applied", None if again else "already_so")
        if len(entries) > ready.step.records:
            said = f"{len(entries)} would go by now; the plan showed {ready.step.records}"
            return self._settle(mutation, "conflict", "changed", said)
        return None

    def _update_allowed(self, ready: _Ready, record: dict[str, Any], *, again: bool) -> State | None:
        body = body_of(catalogue.operation(ready.step.operation), ready.payload)
        wanted = dict(fields(body))
        if not changed_fields(record, wanted) and not fields_not_returned(record, body):
            return self._settle(ready.mutation, "applied", None if again else "already_so", after=record)
        if self.policy in ("ours", "append"):
            return None
        moved = [
            name
            for name in changed_fields(record, ready.step.base or {})
            if name not in wanted or not equivalent(wanted[name], value_in(record, name)[1])
        ]
        if not moved:
            return None
        reason = "kept_theirs" if self.policy == "theirs" else "changed"
        detail = f"somebody has changed {', '.join(moved)} since the plan"
        return self._settle(ready.mutation, "conflict", reason, detail, base=record)

    def _merge_allowed(self, ready: _Ready) -> State | None:
        if len(ready.known) < 2:
            return self._settle(ready.mutation, "rejected", "not_valid", "a record can't be merged with itself")
        loser, winner = ready.known.values()
        is_gone = loser.gone or winner.gone or loser.record is None or winner.record is None
        if is_gone and any(each.closed_as != "not_executed" for each in self.outbox.attempts(ready.mutation.id)):
            detail = "one of the two is not there any more: an earlier attempt, or somebody else, may have done it"
            return self._settle(ready.mutation, "needs_review", "undecidable", detail)
        if loser.gone or winner.gone or loser.record is None or winner.record is None:
            return self._settle(ready.mutation, "conflict", "target_gone", "one of the two is not there any more")
        if merge_preview.stamp(loser.record, winner.record) != ready.step.base:
            return self._settle(ready.mutation, "conflict", "changed", "one of the two was changed since the plan")
        ready.base = {"loser": loser.record, "winner": winner.record, "moves": ready.step.moves}
        return None

    async def _look_before_adding(self, ready: _Ready) -> State | None:
        """Keep what the list holds before the first attempt; how the mutation ended, if nothing is to be added."""
        operation = catalogue.operation(ready.step.operation)
        earlier = self.outbox.attempts(ready.mutation.id)
        if earlier:
            ready.seen = earlier[0].seen
        elif not shape(operation).relation:
            ready.seen = await self._seen_before(ready)
        else:
            try:
                records = await read_list(self.http, shape(operation), ready.payload)
            except ApiError as error:
                log.info("the list of %s can't be read: %s", ready.step.kind, error)
                return None
            if found := find_relation(operation, ready.payload, records):
                return self._settle(ready.mutation, "applied", "already_so", after=found)
            ready.seen = sorted(key for each in records if (key := key_of(each)))
        return None

    async def _seen_before(self, ready: _Ready) -> Any:
        """What the list holds before the first attempt; one look does for several additions."""
        shaped = shape(catalogue.operation(ready.step.operation))
        where = "/".join([ready.step.kind, *(str(ready.payload[name]) for name in shaped.places)])
        async with self._looking.setdefault(where, asyncio.Lock()):
            seen, lasts = self._seen.get(where, (None, 0))
            if lasts <= 0:
                try:
                    seen = await list_snapshot(self.http, shaped, ready.payload)
                except ApiError as error:
                    log.info("the list of %s can't be read: %s", where, error)
                    seen = None
                lasts = _SEEN_LASTS
            self._seen[where] = (seen, lasts - 1)
        return seen

    # Afterwards.

    async def _verified(self, ready: _Ready, answer: Answer) -> State:
        """See in the answer, or in a read where that shows too little, that all was taken over."""
        mutation = ready.mutation
        try:
            record = record_in(answer.body) if answer.body.strip() else {}
        except BadAnswer as error:
            self.outbox.doubt_answer(mutation.id, str(error))
            return "unknown"
        if mutation.verb in ("delete", "other", "merge"):
            return await self._effect_verified(ready, answer, record)
        operation = catalogue.operation(mutation.operation)
        body = body_of(operation, ready.payload)
        wanted = dict(fields(body))
        if record is None or fields_not_returned(record, body) or changed_fields(record, wanted):
            record = await self._read_back(ready, record) or record
        if record is None:
            self.outbox.doubt_answer(mutation.id, "the answer shows no record")
            return "unknown"
        ignored = ", ".join(changed_fields(record, wanted))
        if mutation.verb == "update":
            if not ignored:
                lost = await self._overwritten(ready, wanted)
                if lost:
                    said = f"meanwhile somebody had written {lost}; it was overwritten"
                    return self._settle(mutation, "conflict", "detected_late", said, after=record)
                reason, unseen = _unverified(operation, record, body)
                return self._settle(mutation, "applied", reason, unseen, after=record)
            self._stop(GuardTripped("ignored_fields", f"Pipedrive accepted #{mutation.seq} and ignored {ignored}."))
            return self._settle(mutation, "rejected", "ignored_fields", f"not taken over: {ignored}", after=record)
        key = key_of(record)
        state: State = "needs_review" if ignored else "applied"
        reason, detail = _unverified(operation, record, body)
        if ignored:
            reason, detail = "ignored_fields", f"it was added as {key}, but {ignored} was not taken over"
        return self._settle(
            mutation,
            state,
            reason,
            detail,
            after=record,
            remote_id=key,
            bound=_bound(mutation, ready.payload, key),
        )

    async def _effect_verified(self, ready: _Ready, answer: Answer, record: dict[str, Any] | None) -> State:
        """See by a read that what was answered for was done; where none can, or none could, say so."""
        mutation, operation = ready.mutation, catalogue.operation(ready.mutation.operation)
        made = str(ready.payload["merge_with_id"]) if mutation.verb == "merge" else None
        if made is None and record and operation.method == "POST":
            made = key_of(record)
        found = Shown("unreadable", "nothing in the API shows it")
        for wait_s in (0.0, self._waits_s[0], self._waits_s[2]):
            await asyncio.sleep(wait_s)
            try:
                found = await self._shown(ready, operation, answer)
            except PdsyncError as error:
                found = Shown("unreadable", str(error).split("\n", 1)[0])
            if found.verdict in ("shown", "failed", "unreadable"):
                break
        after = record or found.after
        if found.verdict == "shown":
            return self._settle(mutation, "applied", after=after, remote_id=found.made or made)
        if found.verdict in ("unreadable", "running"):
            said = f"{UNVERIFIED}: {found.detail}"
            return self._settle(mutation, "applied", "unverified", said, after=after, remote_id=made)
        if found.verdict == "failed":
            return self._settle(mutation, "rejected", "failed", found.detail, after=after)
        said = f"Pipedrive accepted it, and does not show it: {found.detail}"
        if found.verdict == "missing" and is_state(operation):
            self._stop(GuardTripped("ignored_fields", f"#{mutation.seq}: {said}."))
            return self._settle(mutation, "rejected", "ignored_fields", said, after=after)
        return self._settle(mutation, "needs_review", "not_shown", said, after=after, remote_id=made)

    async def _shown(self, ready: _Ready, operation: Operation, answer: Answer) -> Shown:
        places = self.places(ready.step)
        if not places:
            return await look_at_effect(self.http, operation, ready.payload, answer.body)
        gone = places[0]  # the record that was deleted, or merged into another
        read = (await fresh_reads.read(self.http, [gone]))[gone.target]
        if read.hidden:
            return Shown("unreadable", "this token may not see it")
        is_gone = read.gone or _is_flagged(read.record or {})
        return Shown("shown") if is_gone else Shown("missing", f"{gone.target} is still there")

    async def _overwritten(self, ready: _Ready, wanted: dict[str, Any]) -> str:
        """What our write has replaced that we had not seen, in words; nothing where nobody asked for that."""
        if not self.audit or not isinstance(ready.base, dict) or ready.step.target is None:
            return ""
        key = ready.step.target.rpartition("/")[2]
        try:
            lost = await lost_updates.overwritten(
                self.http, ready.step.kind, key, base=ready.base, wanted=wanted, me=self.me
            )
        except ApiError as error:
            log.info("#%s: its changelog can't be read: %s", ready.mutation.seq, error)
            return ""
        return ", ".join(f"{field} = {value!r}" for field, value in lost.items())

    async def _read_back(self, ready: _Ready, record: dict[str, Any] | None) -> dict[str, Any] | None:
        """The record as it is after the write."""
        shaped = shape(catalogue.operation(ready.step.operation))
        key = key_of(record) if record else None
        places = self.places(ready.step)
        if ready.step.verb == "add":
            if key is None or (shaped.item is None and shaped.listing is None):
                return None
            values = tuple(str(ready.payload[name]) for name in shaped.places)
            places = [fresh_reads.RecordAddress(shaped, f"{ready.step.kind}/{key}", (*values, key))]
        try:
            read = (await fresh_reads.read(self.http, places))[places[0].target] if places else None
        except PdsyncError as error:
            log.info("#%s could not be read back: %s", ready.mutation.seq, error)
            return None
        return read.record if read else None

    # Doubt.

    async def settle_doubt(self, mutation: Mutation, payload: dict[str, Any] | None = None) -> State:
        """Look what became of a mutation whose answer was lost, as often as that makes sense.

        Returns:
            How it ended; `approved` where it may be sent again; `unknown` where no look told anything.
        """
        absent = 0
        for wait_s in self._waits_s:
            await asyncio.sleep(wait_s)
            try:
                state = await self._look(mutation, payload or mutation.payload, absent)
            except (Stopped, AuthError) as error:
                self._stop(error)
                return "unknown"
            except (PdsyncError, HeldBack) as error:
                log.info("#%s: the look failed: %s", mutation.seq, error)
                continue
            except MACHINE:
                raise
            except Exception as error:  # it would fail again in every push
                return self.give_up(mutation.id, error)
            if state != "unknown":
                return state
            absent += 1
        return "unknown"

    async def _look(self, mutation: Mutation, payload: dict[str, Any], absent: int) -> State:
        attempts = self.outbox.attempts(mutation.id)
        payload = self._with_ids(payload)
        if attempts and attempts[0].marker:
            payload["origin_id"] = attempts[0].marker
        finding = await probe_write(
            self.http,
            catalogue.operation(mutation.operation),
            payload,
            base=self.outbox.get(mutation.id).base_image,
            seen=attempts[0].seen if attempts else None,
            me=self.me,
            bound=self.outbox.bound_ids(mutation.kind),
            sent_at=attempts[-1].armed_at if attempts else None,
        )
        sure = finding.verdict == "absent" and (mutation.verb != "add" or absent > 0)
        may_resend = len(attempts) < _ATTEMPTS and not (mutation.verb == "add" and self.create_doubt == "review")
        again = sure and may_resend
        self.outbox.record_probe(mutation.id, finding.request, finding.found, finding.verdict, again=again)
        if finding.verdict == "happened":
            key = key_of(finding.record) if finding.record and mutation.verb == "add" else None
            bound = _bound(mutation, payload, key)
            if bound and self.outbox.is_bound(bound, to_other_than=mutation.id):
                detail = f"{finding.request}: {key} was added by another mutation"
                return self._settle(mutation, "needs_review", "several", detail)
            reason = "already_so" if finding.by_other else "seen"
            return self._settle(mutation, "applied", reason, after=finding.record or {}, remote_id=key, bound=bound)
        if finding.verdict == "moved":
            detail = "somebody has changed it meanwhile"
            return self._settle(mutation, "conflict", "changed", detail, after=finding.record)
        if finding.verdict in ("several", "undecidable"):
            detail = f"{finding.request}: {finding.found}"
            return self._settle(mutation, "needs_review", finding.verdict, detail)
        if again:
            return "approved"
        if sure:
            detail = f"it was not carried out in {len(attempts)} attempts"
            return self._settle(mutation, "needs_review", "attempts_used_up", detail)
        return "unknown"

    # Small things.

    def _settle(
        self,
        mutation: Mutation,
        state: State,
        reason: str | None = None,
        detail: str | None = None,
        *,
        after: dict[str, Any] | None = None,
        base: dict[str, Any] | None = None,
        remote_id: str | None = None,
        bound: str | None = None,
    ) -> State:
        self.outbox.settle(
            mutation.id,
            state,
            reason,
            detail,
            push_id=self.push_id,
            after=after,
            base=base,
            remote_id=remote_id,
            bound=bound,
        )
        return state

    def _was_there(self, step: Step) -> bool:
        """Whether the record of a step is known to have been there, before this push or by it."""
        return step.seen or (step.target is not None and self.outbox.has_seen(step.kind, step.target))

    def _with_ids(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The payload with the ids of records that other mutations have added.

        Raises:
            Blocked: one of them was not applied.
        """
        known = dict(payload)
        for name, value in payload.items():
            if isinstance(value, dict) and "$ref" in value:
                other = self.outbox.get(value["$ref"])
                if other.state != "applied" or other.remote_id is None:
                    raise HeldBack(f"#{other.seq}, which it refers to, was not applied")
                known[name] = other.remote_id
        return known


def _is_flagged(record: dict[str, Any]) -> bool:
    """Whether a record that was just deleted says so by a flag. Assumption: v1 shows those of any kind so."""
    return any(record.get(flag) in (True, 1) for flag in ("is_deleted", "deleted", "deleted_flag")) or (
        record.get("active_flag") in (False, 0)
    )


def _unverified(
    operation: Operation, record: dict[str, Any], body: dict[str, Any]
) -> tuple[str, str] | tuple[None, None]:
    """The reason and the words for fields that no read shows; nothing where all of them show."""
    files = {name for name, param in operation.body.items() if param.type == "string:binary"}
    unseen = [
        name
        for name in fields_not_returned(record, body)
        if name not in files and body.get(name) not in (None, "", [], {})
    ]
    if not unseen:
        return None, None
    return "unverified", f"{UNVERIFIED}: no read shows {', '.join(unseen)}"


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")


def _bound(mutation: Mutation, payload: dict[str, Any], key: str | None) -> str | None:
    """What names the record that an addition made: no second mutation can have made it. A relation has no such name."""
    shaped = shape(catalogue.operation(mutation.operation))
    if key is None or mutation.verb != "add" or shaped.relation:
        return None
    places = [str(payload[name]) for name in shaped.places]
    return "/".join([mutation.kind, *places, key])
