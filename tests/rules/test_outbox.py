"""The queue against a plain server: whatever is lost, refused or killed, each change ends once, and truthfully.

The server has deals and a list of the effects that it carried out. The sender, the probes and the store are pdsync's
own; a process that is killed loses its memory, and control.db stays. Each move of a state is recorded by a trigger.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from pdsync.core.answer import Answer
from pdsync.core.control import Control
from pdsync.core.request import request_of, request_of_call
from pdsync.errors import ApiError, BudgetSpent, ConfigError, Forbidden, NotFound, PdsyncError, ServerTrouble, Stopped
from pdsync.writeback.enqueue import copy_for_retry
from pdsync.writeback.equality import snapshot_fields
from pdsync.writeback.outbox import Outbox
from pdsync.writeback.plan import Step
from pdsync.writeback.prepared import HeldBack
from pdsync.writeback.sender import Sender
from pdsync.writeback.undo import make_undo
from pdsync.writeback.unknown_outcomes import UnknownOutcomes, probe_waits_s
from tests.rules import running
from tests.rules.choices import Choices, names, numbers
from tests.writeback.kit import COMPANY, entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pdsync.core.http import Http
    from pdsync.core.request import Request
    from pdsync.core.request_builder import Call
    from pdsync.model import Mutation, Operation

ME, OTHER = 1, 2
AT = datetime(2026, 1, 5, tzinfo=UTC)
ENDS = ("applied", "rejected", "conflict", "needs_review")
# RELIABILITY's state machine: what a state may become.
MOVES = {
    ("queued", "approved"), ("queued", "cancelled"), ("approved", "queued"), ("approved", "armed"),
    ("armed", "approved"), ("armed", "unknown"), ("unknown", "approved"),
    *((state, end) for state in ("queued", "approved", "armed", "unknown") for end in ENDS),
}  # fmt: skip
READ_FATES = (*("well",) * 6, "500", "killed", "no budget", "late", "others add")
WRITE_FATES = (
    *("well",) * 5, "lost before", "lost after", "lost after", "500 after", "429", "403", "409", "cut", "killed before",
    "killed after", "no budget", "edited first",
)  # fmt: skip


class Killed(BaseException):
    """The process ends here; what it had in memory is lost."""


class InThisThread(ThreadPoolExecutor):
    """Runs what is handed to a thread at once: a step takes no switch of threads."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class MortalControl(Control):
    """A control.db whose process can die before or after any of its transactions."""

    left: int | None = None  # transactions' ends until it dies

    def strike(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise Killed

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        self.strike()
        with super().transaction() as db:
            yield db
        self.strike()


@cache
def loop() -> asyncio.AbstractEventLoop:
    own = asyncio.new_event_loop()
    own.set_default_executor(InThisThread(1))
    return own


@cache
def control() -> MortalControl:
    """One store for all examples, each of which empties it; its file is not synchronised, as no machine dies here."""
    folder = tempfile.TemporaryDirectory(prefix="pdsync-rules-")
    own = MortalControl(Path(folder.name) / "control.db")
    own.rows("PRAGMA synchronous=OFF")
    own.bind_company(COMPANY, "Acme", None)
    own.folder = folder  # type: ignore[attr-defined]  # lives as long
    with own.transaction() as db:
        db.execute("CREATE TABLE moves (id TEXT, before TEXT, after TEXT)")
        db.execute(
            "CREATE TRIGGER note_move AFTER UPDATE OF state ON mutations WHEN OLD.state <> NEW.state"
            " BEGIN INSERT INTO moves VALUES (NEW.id, OLD.state, NEW.state); END"
        )
    return own


@dataclass
class Server:
    """Deals, and what was carried out for which mutation. `fates` says what happens to the next requests."""

    control: MortalControl
    deals: dict[int, dict[str, Any]] = field(default_factory=dict)
    deleted_by: dict[int, int] = field(default_factory=dict)  # deal → who, as its changelog says
    effects: dict[str, int] = field(default_factory=dict)  # mutation → how often it was carried out
    lost: dict[str, int] = field(default_factory=dict)  # mutation → absent probes, when its last answer was lost
    newest: int = 0
    seconds: int = 0
    sending: str = ""  # the mutation
    fates: Choices = field(default_factory=lambda: Choices(0))
    late: list[dict[str, Any]] | None = None  # what the lists show once more
    clock: Any = None

    def __post_init__(self) -> None:
        self.clock = self
        for _ in range(3):
            self.add({"title": "Deal", "value": 1}, OTHER)

    def now(self) -> datetime:
        return AT + timedelta(seconds=self.seconds)

    def add(self, values: dict[str, Any], by: int) -> dict[str, Any]:
        self.newest += 1
        at = self.tick()
        plain = {"owner_id": by, "creator_user_id": by, "is_deleted": False, "is_archived": False}
        self.deals[self.newest] = {
            "id": self.newest,
            "value": None,
            **plain,
            **values,
            "add_time": at,
            "update_time": at,
        }
        return self.deals[self.newest]

    def change(self, id: int, values: dict[str, Any]) -> dict[str, Any]:
        self.deals[id] = {**self.deals[id], **values, "update_time": self.tick()}
        return self.deals[id]

    def delete(self, id: int, by: int) -> dict[str, Any]:
        self.deleted_by[id] = by
        return self.change(id, {"is_deleted": True})

    def tick(self) -> str:
        self.seconds += 1
        return self.now().isoformat()

    def live(self) -> list[int]:
        return [id for id, deal in self.deals.items() if not deal["is_deleted"]]

    # As the client of pdsync.

    async def call(self, operation: Operation, path: str | None = None, **options: Any) -> Answer:
        return await self.send(request_of(operation, path, **options))

    async def carry_out(self, call: Call) -> Answer:
        return await self.send(request_of_call(call))

    async def send(self, request: Request) -> Answer:
        return self.read(request) if request.method == "GET" else await self.write(request)

    def read(self, request: Request) -> Answer:
        match self.fates.one(READ_FATES):
            case "500":
                raise ServerTrouble("no usable answer")
            case "killed":
                raise Killed
            case "no budget":
                raise BudgetSpent(spent=1, limit=1, resets_at=None)
            case "others add":
                self.add({"title": "New", "value": 7}, ME)  # by the same user, in the web
            case "late" if self.late is not None and request.path.endswith("/deals"):
                late, self.late = self.late, None  # a list may lag once
                return answer(late)
        if request.path.endswith("/deals"):
            return answer([self.deals[id] for id in sorted(self.live(), reverse=True)])
        if request.path.endswith("/changelog"):
            by = self.deleted_by.get(int(request.path.split("/")[-2]))
            return answer([{"field_key": "status", "new_value": "deleted", "actor_user_id": by}] if by else [])
        deal = self.deals.get(int(request.path.rpartition("/")[2]))
        if deal is None:
            raise NotFound("no such deal", status=404, operation="getDeal")
        return answer(deal)

    async def write(self, request: Request) -> Answer:
        if request.before_send:
            await request.before_send()
        self.check_intent()
        fate = self.fates.one(WRITE_FATES)
        match fate:
            case "lost before":
                self.lose()
                raise ServerTrouble("no answer", doubtful=True)
            case "429":
                raise ServerTrouble("too many requests", doubtful=False)
            case "403":
                raise Forbidden("not allowed", status=403, operation="x")
            case "409":
                raise ApiError("conflict", status=409, operation="x")
            case "no budget":
                raise BudgetSpent(spent=1, limit=1, resets_at=None)
            case "killed before":
                self.lose()
                raise Killed
            case "edited first" if self.live():
                self.change(self.live()[0], {"title": f"Edit {self.seconds}"})
        self.late = [self.deals[id] for id in sorted(self.live(), reverse=True)]
        record = self.carry_out_write(request)
        self.effects[self.sending] = self.effects.get(self.sending, 0) + 1
        match fate:
            case "lost after" | "500 after":
                self.lose()
                raise ServerTrouble("no answer", doubtful=True)
            case "killed after":
                self.lose()
                raise Killed
            case "cut":
                self.lose()
                return answer(None, body=b'{"success": true, "da')
        self.late = None
        return answer(record)

    def carry_out_write(self, request: Request) -> dict[str, Any]:
        body = cast("dict[str, Any]", request.body or {})
        if request.path.endswith("/duplicate"):
            original = self.deals[int(request.path.split("/")[-2])]
            return self.add({"title": original["title"], "value": original["value"]}, ME)
        if request.method == "POST":
            return self.add(body, ME)
        id = int(request.path.rpartition("/")[2])
        if id not in self.live():
            raise NotFound("no such deal", status=404, operation="x")
        return self.delete(id, ME) if request.method == "DELETE" else self.change(id, body)

    def lose(self) -> None:
        self.lost[self.sending] = self.absent_probes()

    def absent_probes(self) -> int:
        rows = self.control.rows("SELECT count(*) FROM probes WHERE mutation = ? AND verdict = 'absent'", self.sending)
        return int(str(rows[0][0]))

    def check_intent(self) -> None:
        """W3 and W4: the attempt is on disk, and none is sent again without proof that the last one did nothing."""
        rows = self.control.rows(
            "SELECT m.state, m.verb, (SELECT count(*) FROM attempts a WHERE a.mutation = m.id AND a.closed_as IS NULL)"
            " FROM mutations m WHERE id = ?", self.sending,
        )  # fmt: skip
        state, verb, open_attempts = rows[0]
        assert (state, open_attempts) == ("armed", 1), f"W3: {rows}"
        if self.sending in self.lost:
            proofs = self.absent_probes() - self.lost.pop(self.sending)
            assert proofs >= (2 if verb == "add" else 1), f"W4: {verb} is sent again after {proofs} probes"


def answer(data: Any, *, body: bytes | None = None) -> Answer:
    content = msgspec.json.encode({"success": True, "data": data}) if body is None else body
    return Answer(200, {"date": "Mon, 05 Jan 2026 00:00:00 GMT"}, content, AT)


def step_of(mutation: Mutation, base: dict[str, Any] | None) -> Step:
    return Step(
        mutation.id, mutation.seq, mutation.operation, mutation.verb, mutation.kind, mutation.target, None,
        mutation.payload, base, (), 1, 1, "send", seen=True,
    )  # fmt: skip


STEPS = {
    "queue_addition": 2, "queue_update": 2, "queue_deletion": 1, "queue_duplicate": 1, "push": 6, "push_killed": 2,
    "drop": 1, "resolve": 1, "retry": 1, "undo": 1, "colleague_edits": 1, "colleague_adds": 1, "colleague_deletes": 1,
}  # fmt: skip


class Queue(running.Machine):
    """One queue, its pushes, and a server with other users."""

    @initialize()
    def found(self) -> None:
        store = control()
        store.left = None
        with store.transaction() as db:
            for table in ("attempts", "probes", "resolutions", "moves", "mutations"):
                db.execute(f"DELETE FROM {table}")
        self.outbox, self.server = Outbox(store), Server(store)
        self.ended: dict[str, tuple[str, str | None]] = {}
        self.queued: set[str] = set()
        self.pushes: list[str] = []

    @rule(name=names(STEPS), number=numbers, fates=st.one_of(st.just(0), numbers))
    def take(self, name: str, number: int, fates: int) -> None:
        self.server.fates = Choices(fates)
        getattr(self, name)(Choices(number))
        self.check()

    # By a person.

    def queue_addition(self, choices: Choices) -> None:
        self._queue("v2 addDeal", {"title": choices.one(("New", "Newer")), "value": choices.one((5, 6))})

    def queue_update(self, choices: Choices) -> None:
        if live := self.server.live():
            self._queue("v2 updateDeal", {"id": choices.one(live), "title": f"Ours {self.server.seconds}"})

    def queue_deletion(self, choices: Choices) -> None:
        if live := self.server.live():
            self._queue("v2 deleteDeal", {"id": choices.one(live)})

    def queue_duplicate(self, choices: Choices) -> None:
        if live := self.server.live():
            self._queue("v1 duplicateDeal", {"id": choices.one(live)})

    def _queue(self, operation: str, payload: dict[str, Any]) -> None:
        self._add([entry(operation, payload)])

    def _add(self, entries: list[Any]) -> None:
        self.server.tick()
        self.queued |= {each.id for each in self.outbox.add(entries)}

    def drop(self, choices: Choices) -> None:
        if not (open_ones := self._in("queued", "approved", "armed", "unknown")):
            return
        chosen = choices.one(open_ones)
        was_sent = any(each.closed_as != "not_executed" for each in self.outbox.attempts(chosen.id))
        try:
            self.outbox.drop([chosen.id])
        except ConfigError:
            assert chosen.state != "queued" or was_sent, "what was never sent can be dropped"
        else:
            assert chosen.state == "queued", f"it was {chosen.state}"
            assert not was_sent, "it was sent, and is cancelled"

    def resolve(self, choices: Choices) -> None:
        if reviewed := self._in("needs_review"):
            self.outbox.resolve(choices.one(reviewed).id, "happened", None, None)

    def retry(self, choices: Choices) -> None:
        if failed := self._in("rejected", "conflict"):
            self._add([copy_for_retry(choices.one(failed))])

    def undo(self, choices: Choices) -> None:
        if self.pushes:
            entries, _ = make_undo(self.outbox, choices.one(self.pushes))
            self._add(entries)

    # By others.

    def colleague_edits(self, choices: Choices) -> None:
        if live := self.server.live():
            self.server.change(choices.one(live), {"title": f"Theirs {self.server.seconds}"})

    def colleague_adds(self, choices: Choices) -> None:
        """A deal that looks a little like ours, added by another or, in the web, by the same user."""
        values = {"title": choices.one(("New", "Newer")), "value": 7}
        self.server.add(values, choices.one((ME, OTHER)))

    def colleague_deletes(self, choices: Choices) -> None:
        if len(live := self.server.live()) > 2:
            self.server.delete(choices.one(live), OTHER)

    # A push.

    def push_killed(self, choices: Choices) -> None:
        """A push that dies before or after one of its transactions."""
        control().left = choices.one(range(24))
        self.push(choices)

    def push(self, choices: Choices) -> None:
        push_id = f"push-{len(self.pushes)}"
        self.pushes.append(push_id)
        try:
            self._push(push_id, choices)
        except Killed:
            self.outbox = Outbox(control())
        control().left = None
        self.check_moves()

    def _push(self, push_id: str, choices: Choices) -> None:
        stops: list[PdsyncError] = []
        http = cast("Http", self.server)
        waits_s = probe_waits_s(0)
        outcomes = UnknownOutcomes(
            http, self.outbox, push_id, me=ME, waits_s=waits_s, create_doubt="probe", on_stop=stops.append
        )
        for each in self.outbox.recover_after_crash():
            self.server.sending = each.id
            self._run(outcomes.resolve(each))
        self.outbox.release()
        if stops or not (queued := self._in("queued")):
            return
        chosen = queued if choices.one((True, False)) else [choices.one(queued)]
        bases = {each.id: self._base(each) for each in chosen}
        self.outbox.approve([each.id for each in chosen], push_id, COMPANY)
        sender = Sender(
            http, self.outbox, push_id, me=ME, policy="field", settle_s=0, create_doubt="probe", on_stop=stops.append
        )
        for each in chosen:
            if stops:
                break
            self.server.sending = each.id
            step = step_of(each, bases[each.id])
            try:
                self._run(sender.carry_out(step, sender.prepare(step), {}))
            except HeldBack:
                continue
            except (Stopped, PdsyncError):
                break
        self.outbox.release()

    def _base(self, mutation: Mutation) -> dict[str, Any] | None:
        """What a plan stores of the record."""
        if mutation.verb != "update":
            return None
        deal = self.server.deals[int(mutation.payload["id"])]
        return snapshot_fields(deal, mutation.payload)

    def _run(self, work: Any) -> Any:
        return loop().run_until_complete(work)

    def _in(self, *states: str) -> list[Mutation]:
        return self.outbox.mutations(cast("Any", states), images=False)

    # What must hold.

    def check(self) -> None:
        rows = control().rows("SELECT id, seq, verb, state, reason FROM mutations")
        assert {row[0] for row in rows} == self.queued, "W1: what was queued is there, and nothing else"
        for id, seq, verb, state, reason in cast("list[tuple[str, int, str, str, str | None]]", rows):
            if id in self.ended:
                assert (state, reason) == self.ended[id], f"W1: #{seq} had ended as {self.ended[id]}, and is {state}"
            elif state in (*ENDS, "cancelled"):
                self.ended[id] = (state, reason)
            effects = self.server.effects.get(id, 0)
            if verb == "delete" and state == "applied":
                continue  # checked below, by record: no read shows which of several deleted it
            assert _is_true(verb, state, reason, effects), f"W2: #{seq} is {state} ({reason}), with {effects} effects"

        deletions = cast(
            "list[tuple[str, str, str, str | None]]",
            control().rows("SELECT target, id, state, reason FROM mutations WHERE verb = 'delete' ORDER BY target"),
        )
        for target, several in itertools.groupby(deletions, lambda row: row[0]):
            group = list(several)
            carried_out = sum(self.server.effects.get(id, 0) for _, id, _, _ in group)
            claimed = sum(state == "applied" and reason != "already_so" for _, _, state, reason in group)
            is_open = any(state in ("armed", "unknown", "needs_review") for _, _, state, _ in group)
            right = claimed <= carried_out <= 1 if is_open else claimed == carried_out <= 1
            assert right, f"W2: {target}: deleted {carried_out} times, and {claimed} of {group} say so"

    def check_moves(self) -> None:
        for before, after in control().rows("SELECT DISTINCT before, after FROM moves"):
            assert (before, after) in MOVES, f"{before} became {after}"
        with control().transaction() as db:
            db.execute("DELETE FROM moves")


def _is_true(verb: str, state: str, reason: str | None, effects: int) -> bool:
    """W2: whether the state of a mutation fits how often the server carried it out."""
    match state:
        case "applied":
            return effects == (0 if reason == "already_so" else 1)
        case "conflict":  # ours, whose answer was lost, may have been overwritten
            return effects == 0 or (verb == "update" and effects == 1)
        case "armed" | "unknown" | "needs_review":
            return effects <= 1
    return effects == 0


MACHINE = Queue


def test_w1_w2_w3_w4_each_change_ends_once_and_truthfully() -> None:
    running.check(Queue, running.SLICE)


@pytest.mark.proof
def test_w1_w2_w3_w4_each_change_ends_once_and_truthfully_in_a_share_of_100_000_steps() -> None:
    running.check(Queue, running.SHARE)
