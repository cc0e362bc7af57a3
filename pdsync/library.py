"""What `import pdsync` offers: the same work as the command line, for programs.

import pdsync

receipt = pdsync.sync("my-project")                      # as `pdsync sync`
warehouse = pdsync.open_warehouse("my-project")          # a DuckDB connection, read-only
async with pdsync.Client("my-project") as client:
    deal = await client.call("getDeal", id=42)
    async for record in client.list("deals", status="won"):
        ...
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pdsync.core import catalogue, config
from pdsync.core.calls import check
from pdsync.core.http import PLAIN_CAP
from pdsync.core.transfer import Memory
from pdsync.errors import ConfigError
from pdsync.extract.pages import records
from pdsync.runner import client as sessions
from pdsync.runner import project as projects
from pdsync.runner import run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from datetime import datetime
    from types import TracebackType

    import duckdb

    from pdsync.core.http import Http
    from pdsync.model import Receipt


def sync(
    project: str | Path = ".",
    streams: Iterable[str] = (),
    *,
    full: bool = False,
    since: datetime | None = None,
    budget: int | None = None,
    settings: dict[str, str | int | None] | None = None,
) -> Receipt:
    """Bring a project's warehouse up to date; blocks until it is done.

    Args:
        project: its folder.
        streams: which to sync; all, when none is named.
        full: read everything again.
        since: ask for changes from this time on.
        budget: stop before spending more tokens than this.
        settings: as flags of the command line would give them: `{"limits.burst": 40}`.

    Returns:
        The receipt; `exit_code` is 0 only if nothing is missing.

    Raises:
        PdsyncError: see `pdsync.errors`; nothing is half-written.
    """
    asked = run.Asked(tuple(streams), full, since, budget)
    return asyncio.run(run.sync(config.load(Path(project), settings), asked))


def open_warehouse(project: str | Path = ".") -> duckdb.DuckDBPyConnection:
    """A read-only connection to a warehouse: of a project's folder, or a file.

    Raises:
        ConfigError: there is none yet.
        StorageError: it can't be opened.
    """
    path = Path(project)
    settings = config.load(path.parent if path.suffix == ".duckdb" else path)
    if path.suffix == ".duckdb":
        settings = msgspec.structs.replace(settings, warehouse=path.absolute())
    return projects.open_warehouse(settings)


class Client:
    """Calls to a company's API, under the project's limits. Use it inside `async with`."""

    def __init__(self, project: str | Path = ".", settings: dict[str, str | int | None] | None = None) -> None:
        self._settings = config.load(Path(project), settings)
        self._stack = AsyncExitStack()
        self._http: Http | None = None

    async def __aenter__(self) -> Client:
        with projects.opened(self._settings):  # the ledger of requests lives in control.db
            pass
        self._http = await self._stack.enter_async_context(sessions.connect(self._settings))
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

        Raises:
            ConfigError: there is no such operation, or a value does not fit; nothing was called.
            PdsyncError: see `core.http.Http.call`.
        """
        call = check(catalogue.operation(operation), dict(values))
        if call.operation.binary:
            file = Memory()
            await self._session.download(call.operation, call.path, file, most_bytes=PLAIN_CAP)
            return bytes(file.body)
        return (await self._session.carry_out(call)).json()

    async def list(self, name: str, **values: object) -> AsyncGenerator[dict[str, Any]]:
        """Every record of a stream (`deals`) or a list operation (`getDeals`), page by page.

        Raises:
            ConfigError: there is no such list, or it has no pages; nothing was called.
            BadAnswer: the list can't be walked to its end.
        """
        if name in catalogue.streams():
            version, sources = catalogue.stream(name).sources(self._settings.api)
            operation = catalogue.operations(version)[sources[0].operation]
            values = {**sources[0].query, **values}
        else:
            operation = catalogue.operation(name)
        call = check(operation, dict(values))
        if operation.mutates:
            raise ConfigError(f"{operation.id} is no list. Nothing was called.")
        listed = msgspec.structs.replace(operation, path=call.path)
        async for record in records(self._session, listed, call.query):
            yield msgspec.json.decode(record)
