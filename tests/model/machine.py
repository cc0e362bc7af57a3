"""A company, its warehouse and its queue, through any sequence of steps that Hypothesis generates.

Users change the source, sometimes silently; pdsync syncs, reconciles, replays, pushes and undoes, sometimes with a
server that fails or a budget that is spent. After each step the invariants of `oracle` must hold. At the end a full
sync and a reconciliation must make the tables equal to the source.

The source is the real sandbox on a thread, pdsync runs in this process through the functions of its runner, and both
speak HTTP. Only the wait between two attempts is shorter than by default.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import pdsync
from pdsync.core import config
from pdsync.core.http import Http
from pdsync.errors import ConfigError, GuardTripped, PdsyncError
from pdsync.runner import push
from pdsync.runner.archive import replay
from pdsync.runner.reconcile import findings, reconcile
from pdsync.runner.sync.sync import sync
from pdsync.runner.sync.sync_request import SyncRequest
from pdsync.sandbox import Limits, running
from pdsync.writeback.guards import Consent
from tests.model import oracle
from tests.model.company import KINDS, MERGED, TITLES, Work, generate_small
from tests.model.cost import counted
from tests.support.truth import differences
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.runner.session import Event
    from tests.model.company import Place

P = ParamSpec("P")
DAY_S = 86_400
SETTLE_S = 0.01
ALLOWED = Consent(frozenset(("delete", "merge")), max_changes=1000, max_deletes=1000)

kinds = st.sampled_from(KINDS)
numbers = st.integers(0, 12)  # select among the existing records, modulo their number
some = st.sets(kinds, min_size=1, max_size=2).map(lambda chosen: tuple(sorted(chosen)))
streams = some | some | some | st.just(KINDS)
TROUBLES = (
    {"kind": "reset_before"},
    {"kind": "reset_after"},
    {"kind": "status", "status": 500},
    {"kind": "truncate"},
    {"kind": "burst_429", "headers": {"x-ratelimit-reset": "1"}, "times": 1},
)
faults = st.builds(
    lambda fault, nth, times: {"nth": nth, "times": times, **fault},
    st.sampled_from(TROUBLES),
    st.integers(2, 9),
    st.sampled_from((1, 3, 30)),
)
lost = st.builds(  # the request of a write, or its answer
    lambda fault, method, nth: {"nth": nth, "method": method, **fault},
    st.sampled_from(({"kind": "reset_after"}, {"kind": "reset_before"}, {"kind": "truncate"})),
    st.sampled_from(("POST", "PATCH", "DELETE")),
    st.integers(1, 2),
)
LABELS = ("Size", "size", 'a "b"', "select", "id", "🙂")
changes = st.tuples(
    st.sampled_from(("update", "add", "delete", "purge", "merge", "archive", "unarchive", "restore", "backdate")),
    kinds,
    numbers,
    numbers,
)
# The name of each step and its arguments; a step that is listed twice is drawn twice as often. Rules of Hypothesis are
# disabled at random in each sequence, so that most sequences would consist of the cheapest steps only.
_steps: list[st.SearchStrategy[tuple[str, dict[str, Any]]]] = []


def step(weight: int, **given: st.SearchStrategy[Any]) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Register a method as a step. `weight`: how often it is drawn, compared with the others."""

    def register(method: Callable[P, None]) -> Callable[P, None]:
        _steps.extend([st.tuples(st.just(method.__name__), st.fixed_dictionaries(given))] * weight)
        return method

    return register


class Life(RuleBasedStateMachine):
    """One company from its first sync to the last."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.queued: set[str] = set()
        self.ended: dict[str, oracle.Fate] = {}
        self.pushes: list[str] = []
        self.last_published: oracle.Published | None = None  # after the last step
        self.read: oracle.Published | None = None  # the last read, with its version
        self.version: tuple[int, int] | None = None
        self.gone: dict[Place, int] = {}  # the last step of pdsync at which it did not exist
        self.step = 0
        self.read_whole = dict.fromkeys(KINDS, 0)  # the last step without pages of an older walk

    @initialize(skew_s=st.sampled_from((0, 0, -900, 5 * DAY_S)), synced=st.sampled_from((True, True, False)))
    @counted
    def found(self, skew_s: int, synced: bool) -> None:
        """Make a company on a server whose clock differs from this machine's."""
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="pdsync-model-")))
        free = Limits(burst=None, search_burst=None, daily_tokens=None)
        self.box = self.stack.enter_context(running(generate_small(skew_s), limits=free))
        project = Project(folder / "project").configure(base_url=self.box.url, api_token=self.box.token)
        self.stack.enter_context(patch.dict(os.environ, project.env, clear=True))
        self.stack.enter_context(patch.dict(Http.__init__.__kwdefaults__, {"backoff_s": 0.001}))
        self.settings = config.load(project.folder)
        self.work = Work(self.box)
        self.queue = pdsync.Queue(project.folder)
        if synced:
            self.sync(KINDS, full=False)

    # At the source.

    @step(7, changes=st.lists(changes, min_size=1, max_size=3))
    @counted
    def people_work(self, changes: list[tuple[str, str, int, int]]) -> None:
        for what, kind, number, other in changes:
            self._change(what, kind, number, other)

    def _change(self, what: str, kind: str, number: int, other: int) -> None:
        match what:
            case "merge":
                self.work.merge(kind if kind in MERGED else "persons", number, other)
            case "archive":
                self.work.archive(number)
            case "unarchive":
                self.work.unarchive(number)
            case "backdate":
                self.work.backdate(kind, number, days=1 + 30 * other)
            case _:
                getattr(self.work, what)(kind, number)

    @step(2, number=numbers, kind=kinds)
    @counted
    def people_bring_back(self, number: int, kind: str) -> None:
        self.work.restore(kind, number)
        self.work.restore("deals", number)
        self.work.unarchive(number)

    @step(2, seconds=st.sampled_from((1, 59, 700, 3600, DAY_S, 31 * DAY_S)))
    @counted
    def time_passes(self, seconds: int) -> None:
        self.work.wait(seconds)

    @step(1, kind=kinds, number=numbers, what=st.sampled_from(("field", "option", "new")))
    @counted
    def admin_changes_fields(self, kind: str, number: int, what: str) -> None:
        if what == "new":
            self.work.add_field(kind, LABELS[number % len(LABELS)])
        elif what == "option":
            self.work.rename_option(kind, number)
        else:
            self.work.rename_field(kind, number)

    # pdsync.

    @step(4, streams=streams, full=st.booleans())
    @counted
    def sync(self, streams: tuple[str, ...], full: bool) -> None:
        receipt = self._sync(SyncRequest(streams, full))
        assert receipt is not None
        assert receipt.exit_code == 0, receipt
        if not receipt.resumed:
            for kind in streams:
                self.read_whole[kind] = self.step
                if full:
                    self.work.silent = {place for place in self.work.silent if place[0] != kind}

    @step(2, streams=streams, full=st.booleans(), fault=faults)
    @counted
    def sync_fails(self, streams: tuple[str, ...], full: bool, fault: dict[str, Any]) -> None:
        self.box.faults.add(fault)
        receipt = self._sync(SyncRequest(streams, full))
        self.box.faults.clear()
        assert receipt is None or receipt.exit_code in (0, 1), receipt

    @step(1, streams=streams, full=st.booleans(), tokens=st.integers(5, 80))
    @counted
    def sync_runs_out_of_budget(self, streams: tuple[str, ...], full: bool, tokens: int) -> None:
        receipt = self._sync(SyncRequest(streams, full, budget=tokens))
        assert receipt is None or receipt.exit_code in (0, 3), receipt

    @step(1, streams=streams, full=st.booleans(), events=st.integers(1, 12))
    @counted
    def sync_is_interrupted(self, streams: tuple[str, ...], full: bool, events: int) -> None:
        receipt = self._sync(SyncRequest(streams, full), events=events)
        assert receipt is None or receipt.exit_code in (0, 130), receipt

    def _sync(self, request: SyncRequest, events: int = 0) -> Any:
        """The receipt; None where the run could not start. `events`: interrupt it after this many events."""
        events_left = events

        async def work() -> Any:
            task = asyncio.current_task()

            def on_event(event: Event) -> None:
                nonlocal events_left
                events_left -= 1
                if events_left == 0 and task is not None:
                    task.cancel()

            return await sync(self.settings, request, on_event)

        try:
            return asyncio.run(work())
        except (PdsyncError, asyncio.CancelledError):
            return None

    @step(2, streams=streams, deep=st.booleans(), fault=st.none() | faults)
    @counted
    def reconcile(self, streams: tuple[str, ...], deep: bool, fault: dict[str, Any] | None) -> None:
        if not self.last_published or not self.last_published.rows:
            return
        if fault:
            self.box.faults.add(fault)
        request = findings.ReconcileRequest(streams, repair=True, deep=deep, max_tombstones=1000)
        try:
            result = asyncio.run(reconcile.reconcile(self.settings, request))
        except PdsyncError:
            if not fault:
                raise
        else:
            read = {stream for stream, _ in self._published().watermarks}
            assert result.left_out.keys() == set(streams) - read, result.left_out
            assert result.receipt.exit_code == (0 if read.issuperset(streams) else 1) or fault, result.receipt
        finally:
            self.box.faults.clear()

    @step(1)
    @counted
    def replay(self) -> None:
        before = self.last_published
        if not before or not before.rows:
            return
        is_whole = not oracle.unfinished(
            self.settings.control
        )  # else a replay loads pages that the next sync would load
        receipt = asyncio.run(replay.replay(self.settings))
        assert receipt.exit_code == 0, receipt
        if is_whole:
            assert not oracle.differing_records(before, self._published())

    @step(3, verb=st.sampled_from(("update", "add", "delete", "update")), kind=kinds, number=numbers)
    @counted
    def queue_change(self, verb: str, kind: str, number: int) -> None:
        operation = f"{verb}{kind.removesuffix('s').replace('ie', 'y').title()}"
        values: dict[str, Any] = {} if verb == "delete" else {TITLES[kind]: self.work.word()}
        if verb != "add":
            values["id"] = self.work.any_id(kind, number)
        if verb != "delete" or len(self.work.rows(kind, "live")) > 5:
            self.queued.add(self.queue.add(operation, **values).id)

    @step(1, kind=st.sampled_from(sorted(MERGED)), loser=numbers, winner=numbers)
    @counted
    def queue_merge(self, kind: str, loser: int, winner: int) -> None:
        loser_id, winner_id = self.work.any_id(kind, loser), self.work.any_id(kind, winner)
        if loser_id != winner_id and len(self.work.rows(kind, "live")) > 5:
            name = f"merge{kind.title()}"
            self.queued.add(self.queue.add(name, id=loser_id, merge_with_id=winner_id).id)

    @step(1, number=numbers)
    @counted
    def drop(self, number: int) -> None:
        waiting = sorted(self.waiting)
        if not waiting:
            return
        try:
            self.queue.drop(waiting[number % len(waiting)])
        except ConfigError:  # it was sent before, and its outcome is unknown
            assert self.queue.mutations("unknown", "queued")

    @step(3, fault=st.none() | faults | lost | lost)
    @counted
    def push(self, fault: dict[str, Any] | None) -> None:
        if not self.waiting:
            self.queue_change("add" if fault and fault.get("method") == "POST" else "update", "deals", len(self.queued))
        if fault:
            self.box.faults.add(fault)
        try:
            receipt = self.queue.push(push.PushRequest(consent=ALLOWED, settle_s=SETTLE_S))
        except GuardTripped:
            pass
        except PdsyncError:
            if not fault:
                raise
        else:
            assert receipt is not None
            self.pushes.append(receipt.push_id)
        finally:
            self.box.faults.clear()

    @step(1, number=numbers)
    @counted
    def undo(self, number: int) -> None:
        if self.pushes:
            self.queued |= {each.id for each in self.queue.undo(self.pushes[number % len(self.pushes)])}

    @rule(step=st.deferred(lambda: st.sampled_from(_steps).flatmap(lambda chosen: chosen)))
    def take(self, step: tuple[str, dict[str, Any]]) -> None:
        name, given = step
        getattr(self, name)(**given)
        self.work.wait(1)

    # Invariants.

    @invariant()
    @counted
    def promises_hold(self) -> None:
        if not self.stack_is_open:
            return
        outbox = oracle.Outbox(self.settings.control)
        wrong = outbox.lost(self.queued, self.ended) + outbox.effects(self.work)
        self.ended = outbox.ended()
        published = self._published()
        wrong += oracle.outdated_rows(published, self.work)
        if published is not self.last_published:
            self.step += 1
            states = self.work.states()
            self.gone |= {place: self.step for place, state in states.items() if state not in ("live", "archived")}
            wrong += published.wrong + oracle.circles(published) + oracle.false_merges(published, self.work)
            before = self.last_published.tombstones if self.last_published else set()
            wrong += [
                f"S8: {place} is marked as deleted and was not gone"
                for place in published.tombstones - before
                if self.gone.get(place, -1) < self.read_whole[place[0]]
            ]
            self.last_published = published
        assert not wrong, "\n".join(wrong)

    @property
    def waiting(self) -> set[str]:
        """The mutations that have not ended."""
        return self.queued - self.ended.keys()

    @property
    def stack_is_open(self) -> bool:
        return hasattr(self, "queue")

    def _published(self) -> oracle.Published:
        """The published warehouse, read again only when the file was replaced."""
        path = self.settings.warehouse
        version = (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None
        if self.read is None or version != self.version:
            self.version, self.read = version, oracle.Published(path)
        return self.read

    # The end.

    @counted
    def teardown(self) -> None:
        with self.stack:
            if self.stack_is_open:
                self._converges()

    def _converges(self) -> None:
        """A full sync and a reconciliation make the tables equal to the source."""
        self.work.wait(2)
        for _ in range(2):  # the first may continue an interrupted run, and not read again the lists that it had read
            receipt = self._sync(SyncRequest(KINDS, full=True))
            assert receipt is not None
            assert receipt.exit_code == 0, receipt
            if not receipt.resumed:
                break
        request = findings.ReconcileRequest(KINDS, repair=True, max_tombstones=1000)
        result = asyncio.run(reconcile.reconcile(self.settings, request))
        assert result.receipt.exit_code == 0, result
        assert not result.left, result.left
        published = self._published()
        states = self.work.states()
        wrong = oracle.circles(published) + oracle.outdated_rows(published, self.work) + published.wrong
        with pdsync.open_warehouse(self.settings.project) as warehouse:
            for kind in KINDS:
                alive = {
                    id for (of, id), (_, tombstoned) in published.rows.items() if of == kind and tombstoned is None
                }
                true = {id for (of, id), state in states.items() if of == kind and state in ("live", "archived")}
                wrong += [f"{kind} {id} is missing" for id in true - alive]
                wrong += [f"{kind} {id} is {states.get((kind, id))}, and not here" for id in alive - true]
                tombstoned = {id for of, id in published.tombstones if of == kind}
                wrong += differences(warehouse, kind, self.box.dump(kind), gone=tombstoned)
        assert not wrong, "\n".join(wrong)
