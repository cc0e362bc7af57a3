"""What `import pdsync` offers: the work of the command line, for programs and notebooks."""

from __future__ import annotations

import asyncio
import shlex
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pdsync.core import actions, catalogue, config
from pdsync.core.answer import PLAIN_CAP
from pdsync.core.log import log
from pdsync.core.project_folder import load_settings
from pdsync.core.request import request_of_call
from pdsync.core.request_builder import check
from pdsync.core.sinks import MemorySink
from pdsync.errors import ConfigError
from pdsync.extract.records import records
from pdsync.runner import push as pushing
from pdsync.runner.actions import change
from pdsync.runner.actions import read as reading
from pdsync.runner.actions.caller import Caller
from pdsync.runner.actions.prepare import prepare
from pdsync.runner.connection import connect
from pdsync.runner.sync.sync import sync as sync_streams
from pdsync.runner.sync.sync_request import SyncRequest
from pdsync.runner.sync.walk_reader import default_params
from pdsync.runner.unlocked import open_control
from pdsync.runner.unlocked import open_warehouse as open_published
from pdsync.writeback import enqueue, undo
from pdsync.writeback.typed_values import detect_styles

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
    from types import TracebackType

    import duckdb

    from pdsync.core.config import Settings
    from pdsync.core.http import Http
    from pdsync.model import Mutation, Operation, Receipt, State
    from pdsync.writeback.plan import Plan


T = TypeVar("T")


def _complete(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end; in a thread of its own where a loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="pdsync") as threads:
        return threads.submit(asyncio.run, work).result()


def _find_operation(name: str) -> Operation:
    """The operation called `name`. One that Pipedrive has replaced may still answer, and is called as it was meant.

    Raises:
        CatalogueError: there is none with this name.
        ConfigError: Pipedrive has ended it. Nothing was called.
    """
    operation = catalogue.operation(name)
    if operation.ended:
        raise ConfigError(f"{catalogue.why_removed(operation)}\nNothing was called.")
    return operation


def _settings(
    project: str | Path,
    settings: dict[str, str | int | None] | None = None,
    *,
    create: bool = False,
    can_create: bool = True,
) -> Settings:
    """The settings of the project of a call.

    Raises:
        ConfigError: as `load_settings`.
    """
    advice = f"To make it a project: pdsync --project {shlex.quote(str(project))} init"
    if can_create:
        advice += "\nOr pass create=True, which uses it without a pdsync.toml."
    if str(project) in catalogue.streams():
        advice = f"The first argument is the project. Did you mean sync(streams=[{str(project)!r}])?\n{advice}"
    return load_settings(Path(project), settings, create=create, advice=advice)


def sync(
    project: str | Path = ".",
    streams: Iterable[str] = (),
    *,
    full: bool = False,
    since: datetime | None = None,
    budget: int | None = None,
    settings: dict[str, str | int | None] | None = None,
    create: bool = False,
) -> Receipt:
    """Bring a project's warehouse up to date; blocks until it is done.

    What the command line would note is logged as a warning of the logger "pdsync".

    Args:
        project: its folder; by default the current one. Streams are named with `streams=["deals"]`.
        streams: which to sync; when none is named, all but the optional ones, which are read only by name.
        full: read everything again.
        since: ask for changes from this time on.
        budget: stop before spending more tokens than this.
        settings: as flags of the command line would give them: `{"limits.burst": 40}`.
        create: use the folder although it is missing, or has other files and is no project.

    Returns:
        The receipt; `exit_code` is 0 only if nothing is missing.

    Raises:
        ConfigError: the folder is missing or is no project, or there is no such stream. Nothing was called.
        PdsyncError: see `pdsync.errors`; nothing is half-written.
    """
    request = SyncRequest(tuple(streams), full, since, budget)
    return _complete(sync_streams(_settings(project, settings, create=create), request))


def open_warehouse(project: str | Path = ".") -> duckdb.DuckDBPyConnection:
    """A read-only connection to a warehouse: of a project's folder, or a file. It can read no other file.

    Raises:
        ConfigError: the folder is missing or is no project, or there is no warehouse yet.
        StorageError: it can't be opened.
    """
    path = Path(project)
    if path.suffix == ".duckdb":
        return open_published(msgspec.structs.replace(config.load(path.parent), warehouse=path.absolute()))
    return open_published(_settings(project, can_create=False))


class Queue:
    """Changes that wait to be sent, as `pdsync queue` and `pdsync push` treat them.

    Args:
        project: its folder.
        settings: as for `sync`.
        create: use the folder although it is missing, or has other files and is no project.

    Raises:
        ConfigError: the folder is missing or is no project.
    """

    def __init__(
        self,
        project: str | Path = ".",
        settings: dict[str, str | int | None] | None = None,
        *,
        create: bool = False,
    ) -> None:
        self._settings = _settings(project, settings, create=create)

    def add(self, operation: str, *, key: str | None = None, **values: object) -> Mutation:
        """Queue one change; it is on disk after this call, and nothing is sent.

        Args:
            operation: such as `updateDeal`.
            key: a second one with the same key is not queued, and the first is returned, unless that was dropped,
                rejected or met a conflict.
            values: parameters by their API names, by the tables' columns; labels of custom fields in `**{...}`.

        Raises:
            ConfigError: a name or a value is wrong. Nothing was queued.
        """
        return self.add_many(operation, [values], keys=[key])[0]

    def add_many(
        self, operation: str, rows: Iterable[dict[str, object]], *, keys: Iterable[str | None] = ()
    ) -> list[Mutation]:
        """Queue one change a row: all of them, or none. A row's `_as` names what it adds; others refer to it as @name.

        Args:
            operation: such as `updateDeal`.
            rows: values as for `add`.
            keys: as for `add`, one a row in the same order, None for a row without one; there may be fewer than rows.

        Raises:
            ConfigError: a row is wrong. Nothing was queued.
        """
        found = enqueue.find_operation(operation)
        given = list(rows)
        styles = detect_styles(given, None)
        with pushing.opened(self._settings) as (outbox, names):
            entries = [
                enqueue.make_entry(names, found, {k: v for k, v in row.items() if k != enqueue.AS}, key=key,
                              name=str(row[enqueue.AS]) if enqueue.AS in row else None, styles=styles)
                for row, key in zip_longest(given, list(keys))
            ]  # fmt: skip
            return outbox.add(entries)

    def mutations(self, *states: State) -> list[Mutation]:
        """What is queued and what has become of it, in order; of all states where none is named."""
        with pushing.opened(self._settings) as (outbox, _):
            return outbox.mutations(states or None)

    def drop(self, *ids: str) -> list[Mutation]:
        """Take back what was not sent yet.

        Raises:
            ConfigError: one of them was, or may have been. None was dropped.
        """
        with pushing.opened(self._settings) as (outbox, _):
            return outbox.drop(ids)

    def plan(self, request: pushing.PushRequest | None = None) -> Plan:
        """What a push would do: before → after, cost, and which changes would be refused. Only reads are sent.

        The plan does not say whether a guard would stop the push.
        """
        return _complete(pushing.dry_run(self._settings, request or pushing.PushRequest()))[0]

    def push(
        self, request: pushing.PushRequest | None = None, confirm: Callable[[Plan], bool] = lambda plan: True
    ) -> pushing.PushReceipt | None:
        """Carry the queue out; blocks until it is done.

        Args:
            request: what to push, what is allowed, and the limits.
            confirm: is called with the plan before anything is sent, unless it has no steps; False ends the push.

        Returns:
            The receipt; None where `confirm` returned False. A push that stopped after it began to send has a receipt
            too, with the reason in `stopped`.

        Raises:
            GuardTripped: a guard stopped it before it began. Nothing was sent.
            PdsyncError: see `pdsync.runner.push`.
        """
        return _complete(pushing.push(self._settings, request or pushing.PushRequest(), confirm))

    def undo(self, push_id: str) -> list[Mutation]:
        """Queue the changes that undo a push, and return them; a change that can't be undone is left out."""
        with pushing.opened(self._settings) as (outbox, _):
            return outbox.add(undo.make_undo(outbox, push_id)[0])


class Client:
    """Calls to a company's API, under the project's limits. Use it inside `async with`.

    Args:
        project: its folder.
        settings: as for `sync`.
        create: use the folder although it is missing, or has other files and is no project.

    Raises:
        ConfigError: the folder is missing or is no project.
    """

    def __init__(
        self,
        project: str | Path = ".",
        settings: dict[str, str | int | None] | None = None,
        *,
        create: bool = False,
    ) -> None:
        self._settings = _settings(project, settings, create=create)
        self._stack = AsyncExitStack()
        self._http: Http | None = None

    async def __aenter__(self) -> Client:
        with open_control(self._settings):  # the ledger of requests lives in control.db
            pass
        self._http = await self._stack.enter_async_context(connect(self._settings))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        self._http = None

    @property
    def _session(self) -> Http:
        if self._http is None:
            raise RuntimeError("Client is used inside `async with`.")
        return self._http

    async def call(self, operation: str, **values: object) -> Any:
        """Carry out an operation of the catalogue and return its answer, decoded; bytes for a file.

        A change is sent at once: it is not queued, planned, guarded or verified, and `Queue.undo` can't take it back.

        Raises:
            ConfigError: there is no such operation any more, or a value does not fit; nothing was called.
            PdsyncError: see `core.http.Http.call`.
        """
        call = check(_find_operation(operation), dict(values))
        if call.operation.binary:
            file = MemorySink()
            await self._session.download(request_of_call(call), file, most_bytes=PLAIN_CAP)
            return bytes(file.body)
        return (await self._session.carry_out(call)).json()

    async def action(
        self,
        key: str,
        *,
        now: bool | pushing.PushRequest = False,
        confirm: Callable[[Plan], bool] = lambda plan: True,
        as_today: bool = False,
        replacement: bool = False,
        out: str | Path | None = None,
        **inputs: object,
    ) -> dict[str, Any]:
        """Carry out one of the component's actions by its own name, and return its answer in the component's shape.

        A change is queued, and with `now` pushed at once. docs/actions.md has every action with its inputs.

        Args:
            key: such as `getDeals`.
            now: send a change: with the limits and consents of a push, where those are not the usual ones.
            confirm: is shown the plan of a change before it is sent; False leaves it in the queue.
            as_today: show records as today's operation has them, and not with the keys of v1.
            replacement: of an action that Pipedrive removed, carry out what gives the same today.
            out: stream a downloaded file to this path; the answer's `data` is then the path.
            inputs: by the component's names or in snake_case.

        Raises:
            ConfigError: there is no such action or input, or one can't be honoured; says why, and what to use.
            GuardTripped: a guard stopped a change; it stays in the queue.
            PdsyncError: see `core.http.Http.call`.
        """
        chosen = actions.replacement_of(actions.action(key)) if replacement else actions.action(key)
        given = actions.read_inputs(chosen, inputs)
        debug = actions.is_true(chosen, actions.DEBUG, given.inputs.get(actions.DEBUG, False))
        caller = Caller(self._session, log.warning if debug else None)
        if chosen.kind == "raw":
            return await reading.raw_request(chosen, given.inputs, caller)
        made = await prepare(chosen, given, caller, as_today=as_today)
        if out is not None:
            return await reading.download_to(made, Path(out))
        if not chosen.is_queued:
            return await reading.read(made)
        mutation = change.queue(self._settings, made)
        if now is False:
            return change.queued_answer(mutation)
        request = pushing.PushRequest() if now is True else now
        mutation = await change.push(self._settings, mutation, request, confirm)
        return await change.pushed_answer(caller, mutation, as_today=as_today)

    async def list(
        self, name: str, *, archived: bool = True, deleted: bool = False, **values: object
    ) -> AsyncGenerator[dict[str, Any]]:
        """Every record of a stream (`deals`) or a list operation (`getDeals`), from the API, each once, page by page.

        Of a stream come the records that its table has after a sync where `_deleted_at` is NULL: of all its lists, so
        archived ones too, and none that is deleted. A stream that has a list for each record of another one needs the
        key of that record: `client.list("deal_followers", id=1)`, or several where the API takes them:
        `client.list("deal_products", deal_ids=[1, 2])`. A list operation gives what the API gives by default:
        `getDeals` has no archived deals.

        Args:
            name: of the stream or operation.
            archived: of a stream: archived records too.
            deleted: of a stream: also records that a list shows as deleted: deals for 30 days, former users.
            values: parameters of its lists; they override the stream's own: `status="won"`.

        Raises (when the first record is asked for, and not at the call):
            ConfigError: there is no such stream or operation, it changes data, or a parameter is missing or does not
                fit; nothing was called.
            BadAnswer: the list can't be walked to its end.
            PdsyncError: see `core.http.Http.call`.
        """
        if name in catalogue.streams():
            stream = catalogue.stream(name)
            version, sources = stream.sources(self._settings.api)
            operations = catalogue.operations(version)
            today = datetime.now(UTC).date()
            lists = [
                (operations[source.operation], {**source.query, **default_params(source, today), **values})
                for source in sources
                if archived or source.name != "archived"
            ]
        else:
            operation = _find_operation(name)
            stream, version, lists = None, operation.version, [(operation, dict(values))]
        for operation, _ in lists:
            if operation.mutates:
                raise ConfigError(f"{operation.id} is no list. Nothing was called.")
        calls = [check(operation, dict(parameters)) for operation, parameters in lists]
        seen = set[object]()  # a record that moves from one list to another meanwhile is met in both
        for call in calls:
            async for raw in records(self._session, call.operation, call.path, call.query):
                record = msgspec.json.decode(raw)
                if stream and isinstance(record, dict):
                    if stream.says_deleted(record, version) and not deleted:
                        continue
                    if record.get("is_archived") and not archived:
                        continue
                key = record.get("id") if isinstance(record, dict) and len(calls) > 1 else None
                if key is None or key not in seen:
                    seen.add(key)
                    yield record
