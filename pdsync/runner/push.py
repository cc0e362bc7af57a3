"""Carries out a push: resolves unknown outcomes, plans the queue, checks guards and consent, sends, and syncs.

One push at a time has the project's outbox; a sync may run at the same time. What was applied is read back into the
warehouse, so that a query shows it, and the history of every mutation is in meta.mutations.
"""

from __future__ import annotations

import asyncio
import secrets
import shlex
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.account import fetch_account
from pdsync.core.control import Control, Lock
from pdsync.core.log import log
from pdsync.core.wording import counted, number_ranges
from pdsync.errors import AuthError, ConfigError, GuardTripped, PdsyncError, ProjectLocked, Stopped, WrongCompany
from pdsync.model import LEFT_BY_PUSH
from pdsync.runner import connection as client
from pdsync.runner import project, unlocked
from pdsync.runner.queue_recovery import open_outbox, recover
from pdsync.runner.read_back import find_late, read_back
from pdsync.runner.report.applied_changes import find_read_until
from pdsync.sql import first
from pdsync.writeback import guards, planner, undo
from pdsync.writeback.executor import Limits, PushExecutor
from pdsync.writeback.guards import Consent
from pdsync.writeback.known_records import KnownRecords
from pdsync.writeback.plan import load as load_plan
from pdsync.writeback.resolver import NameResolver
from pdsync.writeback.retries import follow_retries
from pdsync.writeback.shapes import find_stream
from pdsync.writeback.unknown_outcomes import UnknownOutcomes, hold_back_later, probe_waits_s

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
    from pathlib import Path

    import duckdb

    from pdsync.core.account import Account
    from pdsync.core.config import Settings
    from pdsync.core.http import Http
    from pdsync.model import Mutation, State
    from pdsync.writeback.outbox import Outbox
    from pdsync.writeback.plan import Plan
    from pdsync.writeback.precondition import Policy

FREEZE = "pdsync.freeze"  # a file in the project that stops every push
ENDS = ("applied", "rejected", "conflict", "needs_review")
LOOKED_UP_FIRST = "it is not known whether this happened already: it is looked up before anything is sent"


class PushRequest(Struct, frozen=True):
    """The options of a push."""

    plan: Path | None = None  # a saved one; None plans the queue
    policy: Policy = "field"
    operation: str | None = None  # only mutations of this one
    batch: str | None = None  # only those that were queued together
    limit: int | None = None  # the number of mutations
    budget: int | None = None  # tokens
    consent: Consent = Consent()
    settle_s: float = 5.0
    create_doubt: str = "probe"  # or "review"
    check_lost_updates: bool = False  # read the changelog of each updated record for edits that it overwrote
    limits: Limits = Limits()
    read_back: bool = True


class PushReceipt(Struct):
    """What a push did."""

    push_id: str
    started_at: datetime
    finished_at: datetime | None = None
    outcomes: dict[str, int] = {}  # applied, rejected, conflict, needs_review
    already_so: int = 0  # applied ones that nothing had to be sent for
    unverified: int = 0  # applied ones that were sent and answered, but that no read shows
    open: int = 0  # planned ones that have not ended
    looked_up: dict[str, int] = {}  # those that an earlier push left with an unknown outcome: how they are known to end
    undoable: int = 0  # those that `undo` can take back
    not_undoable: list[str] = []  # why it can't take back others, each reason once
    requests: int = 0
    tokens: int = 0
    estimated_tokens: int = 0  # as the plan estimated them
    read_back_tokens: int = 0  # of the sync that brings what was written into the warehouse
    stopped: str | None = None
    exit_code: int = 1
    streams: tuple[str, ...] = ()  # that were read back to their ends

    @property
    def complete(self) -> bool:
        """Whether all of it was applied."""
        return self.exit_code == 0


class PushSession(Struct):
    """The resources of a push."""

    settings: Settings
    control: Control
    outbox: Outbox
    http: Http
    identity: Account
    names: NameResolver
    warehouse: duckdb.DuckDBPyConnection | None


@contextmanager
def _warehouse(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection | None]:
    if not settings.warehouse.exists():
        yield None
        return
    connection = unlocked.open_warehouse(settings)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def opened(
    settings: Settings, on_message: Callable[[str], None] = log.warning
) -> Iterator[tuple[Outbox, NameResolver]]:
    """Open the queue, and the names that may be used in it. No request is made.

    What the raw archive and the warehouse know of the queue and control.db does not is restored first; `on_message`
    gets a line about it.
    """
    with unlocked.open_control(settings) as control, _warehouse(settings) as warehouse:
        outbox = open_outbox(settings, control)
        for note in recover(outbox, warehouse, files=[project.work_path(settings)]):
            on_message(note)
        yield outbox, NameResolver(warehouse)


@asynccontextmanager
async def _session(
    settings: Settings, request: PushRequest, on_message: Callable[[str], None] = log.warning
) -> AsyncIterator[PushSession]:
    with unlocked.open_control(settings) as control, _warehouse(settings) as warehouse:
        async with client.connect(settings, run_tokens=request.budget) as http:
            identity = await fetch_account(http)
            control.check_company(identity.company_id, identity.company_name)
            _check_warehouse(warehouse, identity)
            outbox = open_outbox(settings, control)
            for note in recover(outbox, warehouse, files=[project.work_path(settings)]):
                on_message(note)
            outbox.read_until = find_read_until(control, warehouse, http.clock)
            yield PushSession(settings, control, outbox, http, identity, NameResolver(warehouse), warehouse)


def _check_warehouse(warehouse: duckdb.DuckDBPyConnection | None, identity: Account) -> None:
    if warehouse is None:
        return
    row = first(warehouse.execute("SELECT company_id FROM meta.company"))
    if row and row[0] != identity.company_id:
        raise WrongCompany(expected=int(row[0]), found=identity.company_id, name=identity.company_name)


async def dry_run(
    settings: Settings,
    request: PushRequest,
    on_message: Callable[[str], None] = log.warning,
    *,
    out: Path | None = None,
) -> tuple[Plan, str | None]:
    """Plan the queue. Nothing but reads is sent; the hash of the plan is stored.

    What control.db has lost of the queue is restored first, as by `opened`. The plan has what the next push may send,
    also what an interrupted push left; `on_message` gets a line about that.

    Args:
        settings: of the project.
        request: what to plan, and under which limits.
        on_message: is called with a line for people.
        out: where the plan will be saved, for the command that carries it out.

    Returns:
        The plan, and why a guard would refuse it now; None if none would.

    Raises:
        WrongCompany, ConfigError, PdsyncError: there is no plan.
    """
    async with _session(settings, request, on_message) as session:
        left = [] if _is_pushing(settings) else session.outbox.mutations(LEFT_BY_PUSH, images=False)
        if left:
            on_message(_describe_left(left))
        plan = await _make(session, request, left)
        session.outbox.push_log.save_plan(plan.hash, plan.company_id, len(plan.steps))
        try:
            _guard(session, plan, replace(request, plan=out))
        except GuardTripped as error:
            return plan, str(error)
        return plan, None


def _is_pushing(settings: Settings) -> bool:
    """Whether a push is under way: what it has approved is its own."""
    try:
        with Lock(settings.state / "push.lock"):
            return False
    except ProjectLocked:
        return True


def _describe_left(left: Sequence[Mutation]) -> str:
    """A line about the mutations that an interrupted push left."""
    unknown = sum(each.state != "approved" for each in left)
    remain = f"A push was interrupted: {counted(len(left), 'change')} {'remains' if len(left) == 1 else 'remain'}"
    if not unknown:
        return f"{remain}."
    return f"{remain}, {unknown:,} of them looked up first because it is not known whether they happened."


async def push(
    settings: Settings,
    request: PushRequest,
    confirm: Callable[[Plan], bool],
    on_end: Callable[[Mutation], None] = lambda mutation: None,
    on_message: Callable[[str], None] = log.warning,
) -> PushReceipt | None:
    """Carry out the queue, or a saved plan.

    Args:
        settings: of the project.
        request: what to push, and under which limits.
        confirm: is shown the plan, unless it is empty, before anything is sent; False ends the push.
        on_end: is called with each mutation that has ended, and with each one whose outcome stays unknown.
        on_message: is called with a line for people.

    Returns:
        The receipt; None where `confirm` said no. An interruption while it sends is not raised: the exit code is 130.

    Raises:
        ProjectLocked: another push is running.
        GuardTripped: a guard refuses it. Nothing was sent.
        WrongCompany: the token is another company's. Nothing was sent.
        ConfigError: the plan can't be used. Nothing was sent.
        PdsyncError: what has to be read before could not be read. Nothing was sent.
    """
    guards.check_freeze(settings.project / FREEZE)
    with Lock(settings.state / "push.lock"):
        async with _session(settings, request, on_message) as session:
            push_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
            resolved = await _resolve_unknown(session, request, push_id, on_message)
            for each in _looked_up(session.outbox, resolved):
                on_end(each)
            plan = await _plan(session, request, resolved, _hold_back_later(session, on_message))
            if plan.steps:
                _guard(session, plan, request)
                if not confirm(plan):
                    return None
            receipt = await _apply(session, plan, push_id, request, on_end, resolved)
            done = session.outbox.mutations_of_push(push_id, images=False)
            done += find_late(session.outbox, session.warehouse, push_id)
        if request.read_back:
            receipt.streams, receipt.read_back_tokens = await read_back(settings, done, on_message)
        return receipt


async def _resolve_unknown(
    session: PushSession, request: PushRequest, push_id: str, on_message: Callable[[str], None]
) -> set[str]:
    """Find out what became of the mutations that the last push left with an unknown outcome, before planning.

    Returns:
        The ids of those mutations.
    """
    unknown = session.outbox.recover_after_crash()
    if not unknown:
        return set()
    on_message(
        f"The outcome of {counted(len(unknown), 'change')} of the last push is unknown: checking in Pipedrive"
        f" whether {'it was' if len(unknown) == 1 else 'they were'} carried out."
    )
    trouble: list[PdsyncError] = []
    outcomes = UnknownOutcomes(
        session.http, session.outbox, push_id, me=session.identity.id, waits_s=probe_waits_s(request.settle_s),
        create_doubt=request.create_doubt, on_stop=trouble.append,
    )  # fmt: skip
    await asyncio.gather(*(outcomes.resolve(each) for each in unknown))
    session.outbox.release()
    if trouble:
        raise trouble[0]
    return {each.id for each in unknown}


def _looked_up(outbox: Outbox, resolved: set[str]) -> list[Mutation]:
    """Those of the `resolved` mutations that are not to be sent again; of some the outcome is still unknown."""
    found = (outbox.get(id) for id in resolved)
    return sorted((each for each in found if each.state in (*ENDS, "unknown")), key=lambda each: each.seq)


def _hold_back_later(session: PushSession, on_message: Callable[[str], None]) -> Collection[str]:
    """The ids of the queued mutations that would overtake one whose outcome is still unknown."""
    waiting = hold_back_later(session.outbox)
    if waiting:
        numbers = number_ranges(waiting.values())
        on_message(f"Not sent as long as the outcome of a change before it is unknown: {numbers}.")
    return waiting.keys()


async def _plan(session: PushSession, request: PushRequest, resolved: set[str], waiting: Collection[str]) -> Plan:
    """The plan of the queue, or the saved one without those of the `resolved` mutations that are not to be sent."""
    if request.plan is None:
        return await _make(session, request, waiting=waiting)
    plan = load_plan(request.plan)
    if plan.company_id != session.identity.company_id:
        raise WrongCompany(
            expected=plan.company_id, found=session.identity.company_id, name=session.identity.company_name
        )
    saved = session.outbox.push_log.plan(plan.hash)
    if saved is None:
        raise ConfigError(f"{request.plan} was not made in this project. Nothing was sent. Make one: push --dry-run")
    if saved[1] is not None:
        raise ConfigError(f"{request.plan} was carried out already, by push {saved[1]}. Nothing was sent.")
    steps = []
    for step in plan.steps:
        mutation = session.outbox.get(step.mutation)
        if mutation.state == "queued":
            steps += [step] if mutation.id not in waiting else []
        elif mutation.id not in resolved:
            raise ConfigError(
                f"{request.plan}: #{step.seq} is {mutation.state} now.\n"
                f"Nothing was sent. Make a new plan: push --dry-run"
            )
    return replace(plan, steps=tuple(steps))


async def _make(
    session: PushSession, request: PushRequest, left: Sequence[Mutation] = (), waiting: Collection[str] = ()
) -> Plan:
    """The plan of what is queued, without those `waiting`, and of what an interrupted push `left`."""
    operation = catalogue.operation(request.operation).name if request.operation else None
    states: tuple[State, ...] = ("queued", *LEFT_BY_PUSH) if left else ("queued",)
    queued = session.outbox.mutations(states, operation=operation, batch=request.batch)
    mutations = follow_retries(session.outbox, (each for each in queued if each.id not in waiting))
    is_pipedrive = (urlsplit(session.settings.base_url).hostname or "").endswith("pipedrive.com")  # and no sandbox
    identity = session.identity
    company = (identity.company_id, identity.company_name, identity.company_domain if is_pipedrive else None)
    plan = await planner.make_plan(
        session.http, session.names, mutations[: request.limit], company=company, policy=request.policy,
        currency=identity.default_currency, known_records=KnownRecords(session.warehouse, session.outbox),
    )  # fmt: skip
    unknown = {each.id for each in left if each.state != "approved"}
    steps = tuple(
        replace(step, warnings=(*step.warnings, LOOKED_UP_FIRST)) if step.mutation in unknown else step
        for step in plan.steps
    )
    return replace(plan, steps=steps).sealed() if unknown else plan


def _guard(session: PushSession, plan: Plan, request: PushRequest) -> None:
    def rows(kind: str) -> int | None:
        stream = find_stream(kind)
        return session.names.names.count_rows(stream) if stream else None

    left, _ = session.http.budget.left()
    if request.budget is not None:
        own = request.budget - session.http.budget.spent
        left = min(own, left) if left is not None else own
    guards.check(
        plan,
        request.consent,
        rows,
        tokens_left=left,
        now=datetime.now(UTC),
        freeze=session.settings.project / FREEZE,
        command=_command(request),
    )


def _command(request: PushRequest) -> str:
    """The command line of a push, without the options that are consent."""
    chosen = {"--operation": request.operation, "--batch": request.batch, "--limit": request.limit}
    policy = {} if request.policy == "field" else {"--policy": request.policy}
    options = {**({} if request.plan else {**policy, **chosen}), "--budget": request.budget}
    words = [word for name, value in options.items() if value for word in (name, str(value))]
    return shlex.join(["pdsync", "push", *([str(request.plan)] if request.plan else []), *words])


async def _apply(
    session: PushSession,
    plan: Plan,
    push_id: str,
    request: PushRequest,
    on_end: Callable[[Mutation], None],
    resolved: set[str],
) -> PushReceipt:
    outbox, identity = session.outbox, session.identity
    receipt = PushReceipt(push_id, datetime.now(UTC).replace(microsecond=0), estimated_tokens=plan.total_tokens)
    receipt.looked_up = dict(Counter(each.state for each in _looked_up(outbox, resolved)))
    session.control.bind_company(identity.company_id, identity.company_name, identity.company_domain)
    outbox.push_log.save_plan(plan.hash, plan.company_id, len(plan.steps))
    outbox.push_log.start_push(push_id, plan.hash)
    outbox.approve([step.mutation for step in plan.steps], push_id, identity.company_id)
    executor = PushExecutor(
        session.http, outbox, plan, push_id, me=identity.id, settle_s=request.settle_s, limits=request.limits,
        create_doubt=request.create_doubt, check_lost_updates=request.check_lost_updates, on_end=on_end,
    )  # fmt: skip
    interrupted = False
    try:
        await executor.run()
    except asyncio.CancelledError:
        interrupted = True
    ended = [each for each in outbox.mutations_of_push(push_id, images=False) if each.state in ENDS]
    receipt.outcomes = {end: sum(each.state == end for each in ended) for end in ENDS}
    receipt.already_so = sum(each.reason == "already_so" for each in ended)
    receipt.unverified = sum(each.reason == "unverified" for each in ended)
    receipt.open = len({step.mutation for step in plan.steps} - {each.id for each in ended})
    receipt.requests, receipt.tokens = session.http.budget.requests, session.http.budget.spent
    receipt.stopped = str(executor.stopped) if executor.stopped else None
    receipt.exit_code = _exit_code(receipt, executor.stopped, interrupted=interrupted)
    receipt.finished_at = datetime.now(UTC).replace(microsecond=0)
    outbox.push_log.finish_push(push_id, receipt)
    _find_way_back(outbox, receipt)
    return receipt


def _find_way_back(outbox: Outbox, receipt: PushReceipt) -> None:
    """Find out what of a push can be undone. A failure here does not change anything else in the receipt."""
    try:
        undos, stuck = undo.make_undo(outbox, receipt.push_id)
    except Exception as error:  # the push is over, and must not seem to have failed
        log.warning("What of push %s can be undone is not known: %s", receipt.push_id, error)
        return
    receipt.undoable, receipt.not_undoable = len(undos), list(dict.fromkeys(each.why for each in stuck))


def _exit_code(receipt: PushReceipt, stopped: PdsyncError | None, *, interrupted: bool) -> int:
    if interrupted:
        return 130
    if isinstance(stopped, Stopped | AuthError):
        return stopped.exit_code
    if stopped:
        return 1
    counts = (*receipt.outcomes.items(), *receipt.looked_up.items())
    failed = sum(count for end, count in counts if end != "applied")
    return 5 if failed or receipt.open else 0
