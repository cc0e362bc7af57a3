"""Finds out whether a write whose answer was lost was carried out, and whether it may be sent again.

A write is sent again only after a probe has shown that it was not carried out: two probes for an addition, because a
list may lag.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pdsync.core.log import log
from pdsync.errors import AuthError, PdsyncError, Stopped
from pdsync.writeback import lost_updates
from pdsync.writeback.dependencies import find_waiting
from pdsync.writeback.prepared import HeldBack, prepare_to_send
from pdsync.writeback.probe import probe_write
from pdsync.writeback.shapes import record_key
from pdsync.writeback.verification import MACHINE_ERRORS, Ending, bound_name, give_up, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pdsync.core.http import Http
    from pdsync.model import Mutation, State
    from pdsync.writeback.outbox import Outbox
    from pdsync.writeback.prepared import PreparedMutation
    from pdsync.writeback.probe import ProbeOutcome

_MAX_ATTEMPTS = 3
_WAIT_FACTORS = (1, 1, 6, 60)


def probe_waits_s(settle_s: float) -> tuple[float, ...]:
    """Seconds before each probe, where a lost write may take `settle_s` seconds to show."""
    return tuple(settle_s * factor for factor in _WAIT_FACTORS)


def hold_back_later(outbox: Outbox) -> dict[str, int]:
    """The queued mutations that would overtake one whose outcome is unknown, by id with their numbers.

    The queue says of each what it waits for.
    """
    queued = {each.id: each for each in outbox.mutations(["queued"], images=False)}
    waiting = find_waiting(queued.values(), outbox.mutations(["unknown"], images=False))
    outbox.release({id: f"#{seq} before it has an unknown outcome" for id, seq in waiting.items()})
    return {id: queued[id].seq for id in waiting}


class UnknownOutcomes:
    """Resolves the mutations of one push whose outcome is unknown.

    Args:
        http: the session.
        outbox: where every probe is recorded.
        push_id: of this push.
        me: the id of the user whose token it is.
        waits_s: seconds before each probe.
        create_doubt: `review` where an addition with an unknown outcome is never sent again.
        on_stop: is called when nothing more should be sent, with the reason.
    """

    def __init__(
        self,
        http: Http,
        outbox: Outbox,
        push_id: str,
        *,
        me: int,
        waits_s: Sequence[float],
        create_doubt: str,
        on_stop: Callable[[PdsyncError], None],
    ) -> None:
        self.http, self.outbox, self.push_id, self.me = http, outbox, push_id, me
        self.waits_s, self.create_doubt, self._on_stop = waits_s, create_doubt, on_stop

    async def resolve(self, mutation: Mutation, prepared: PreparedMutation | None = None) -> State:
        """Probe until it is known whether a mutation was carried out, or the last wait is over.

        Args:
            mutation: with an unknown outcome.
            prepared: what was sent; None where only the queue knows, after a crash.

        Returns:
            How it ended; `approved` where it may be sent again; `unknown` where no probe showed anything, or `on_stop`
            was called.
        """
        absent = 0
        for wait_s in self.waits_s:
            await asyncio.sleep(wait_s)
            try:
                state = await self._probe(prepared or self._prepare(mutation), absent)
            except (Stopped, AuthError) as error:
                self._on_stop(error)
                return "unknown"
            except (PdsyncError, HeldBack) as error:
                log.info("#%s: the probe failed: %s", mutation.seq, error)
                continue
            except MACHINE_ERRORS:
                raise
            except Exception as error:  # it would fail again in every push
                return give_up(self.outbox, self.push_id, mutation.id, error)
            if state != "unknown":
                return state
            absent += 1
        return "unknown"

    async def is_removed_by_other(self, deletion: PreparedMutation) -> bool:
        """Whether another mutation, or another user, has removed the record that `deletion` was to delete."""
        address = deletion.addresses[0]
        by = await lost_updates.find_deleter(self.http, address.shape.kind, address.values[-1])
        return by not in (None, self.me) or self.outbox.is_removed_by_other(deletion.mutation)

    def _prepare(self, mutation: Mutation) -> PreparedMutation:
        prepared = prepare_to_send(self.outbox, mutation, mutation.payload)
        attempts = self.outbox.attempts(mutation.id)
        if attempts and mutation.verb == "update" and isinstance(attempts[-1].body, dict):
            return prepared.with_payload({**prepared.payload, **attempts[-1].body})  # as the plan had completed it
        if attempts and attempts[0].marker:
            return prepared.with_payload({**prepared.payload, "origin_id": attempts[0].marker})
        return prepared

    async def _probe(self, prepared: PreparedMutation, absent: int) -> State:
        mutation = prepared.mutation
        attempts = self.outbox.attempts(mutation.id)
        outcome = await probe_write(
            self.http,
            prepared,
            base=self.outbox.get(mutation.id).base_image,
            seen=attempts[0].seen if attempts else None,
            me=self.me,
            bound=self.outbox.bound_ids(mutation.kind),
            sent_at=attempts[-1].armed_at if attempts else None,
        )
        is_add = mutation.verb == "add"
        not_carried_out = outcome.verdict == "absent" and (not is_add or absent > 0)
        may_resend = len(attempts) < _MAX_ATTEMPTS and not (is_add and self.create_doubt == "review")
        again = not_carried_out and may_resend
        self.outbox.record_probe(mutation.id, outcome.request, outcome.found, outcome.verdict, again=again)
        if again:
            return "approved"
        if not_carried_out:
            detail = f"it was not carried out ({len(attempts)} attempts)"
            used_up = Ending("needs_review", "attempts_used_up", detail)
            return settle(self.outbox, self.push_id, mutation, used_up)
        ending = self._ending(prepared, outcome)
        return settle(self.outbox, self.push_id, mutation, ending) if ending else "unknown"

    def _ending(self, prepared: PreparedMutation, outcome: ProbeOutcome) -> Ending | None:
        """How a mutation ends by a probe; None where the next probe may show more."""
        if outcome.verdict == "happened":
            key = record_key(outcome.record) if outcome.record and prepared.mutation.verb == "add" else None
            bound = bound_name(prepared, key)
            if bound and self.outbox.is_bound(bound, to_other_than=prepared.mutation.id):
                return Ending("needs_review", "several", f"{outcome.request}: {key} was added by another mutation")
            is_ours = not (outcome.by_other or self.outbox.is_removed_by_other(prepared.mutation))
            reason = "seen" if is_ours else "already_so"
            return Ending("applied", reason, after=outcome.record or {}, remote_id=key, bound=bound)
        if outcome.verdict == "moved":
            return Ending("conflict", "changed", "another user has changed it meanwhile", after=outcome.record)
        if outcome.verdict in ("several", "undecidable"):
            return Ending("needs_review", outcome.verdict, f"{outcome.request}: {outcome.found}")
        return None
