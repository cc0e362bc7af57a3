"""Starts and stops the sandbox: on a thread for tests, in the foreground for the command line."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from pdsync.sandbox.activity.simulate import LiveChanges, simulate_changes
from pdsync.sandbox.company.company import ADMIN, Company
from pdsync.sandbox.company.population import generate_company
from pdsync.sandbox.server import admin, truth
from pdsync.sandbox.server.faults import BadFaults, Fault
from pdsync.sandbox.server.server import MAX_BODY_BYTES, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pdsync.sandbox.company.clock import Clock
    from pdsync.sandbox.company.company import Entry
    from pdsync.sandbox.company.table import Record
    from pdsync.sandbox.server.faults import Faults
    from pdsync.sandbox.server.limits import Limits
    from pdsync.sandbox.server.oauth import OAuth, Settings
    from pdsync.sandbox.server.request_log import Log

START_S = 10  # how long a start or a stop may take


class RunningSandbox:
    """A running sandbox with what tests need of it. Safe to use from any thread."""

    def __init__(self, sandbox: Sandbox, url: str) -> None:
        self.sandbox, self.url = sandbox, url
        self.company: Company = sandbox.company
        self.tokens: dict[str, str] = sandbox.company.tokens  # by name: admin, member, limited
        self.token: str = self.tokens[ADMIN]
        self.faults: Faults = sandbox.faults
        self.limits: Limits = sandbox.limiter.limits
        self.oauth: OAuth = sandbox.oauth
        self.clock: Clock = sandbox.company.clock
        self.log: Log = sandbox.log

    @property
    def journal(self) -> list[Entry]:
        return self.company.journal

    @property
    def spent_tokens(self) -> int:
        return self.sandbox.limiter.spent_tokens

    def window(self) -> dict[str, Any]:
        return self.log.window()

    def clear_log(self) -> None:
        self.log.clear()

    def dump(self, kind: str) -> list[Record]:
        with self.company.lock:
            return list(truth.dump(self.company, kind))

    def change(self, share: float = 0.01, **options: Any) -> dict[str, dict[str, list[Any]]]:
        """Simulate changes by users; see `simulate.simulate_changes`."""
        return simulate_changes(self.company, share=share, **options)

    def act(
        self, method: str, target: str, body: Any = None, user_id: int | None = None, *, is_bulk: bool = False
    ) -> Any:
        """Do what another user does in the app, see `Sandbox.act`. Returns the JSON of the answer or the refusal."""
        return msgspec.json.decode(self.sandbox.act(method, target, body, user_id, is_bulk=is_bulk).body)

    def live(self, every: int | None, **options: Any) -> None:
        """Change records at every n-th request from now on; None stops it."""
        self.sandbox.live_changes = LiveChanges(every=every, **options) if every else None

    def spend(self, tokens: int) -> None:
        self.sandbox.limiter.charge(tokens)


@contextlib.contextmanager
def running(
    company: Company | None = None,
    *,
    limits: Limits | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    oauth: Settings | None = None,
    live_changes: LiveChanges | None = None,
    gzip: bool = False,
) -> Iterator[RunningSandbox]:
    """A sandbox over HTTP for the length of a `with`, on a thread and an event loop of its own."""
    sandbox = Sandbox(company or generate_company(), limits, oauth=oauth, live_changes=live_changes, gzip=gzip)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="sandbox", daemon=True)
    thread.start()

    def wait(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(START_S)

    try:
        runner, url = wait(_open(sandbox, host, port))
        try:
            yield RunningSandbox(sandbox, url)
        finally:
            wait(runner.cleanup())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_S)
        loop.close()


def serve_forever(
    company: Company,
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    limits: Limits | None = None,
    gzip: bool = False,
    faults_file: Path | None = None,
    on_ready: Callable[[str, str], None] = lambda url, token: None,
) -> None:
    """Serve `company` until SIGTERM or SIGINT. `on_ready` gets the URL and the admin's token.

    Raises:
        OSError: the port is taken.
        BadFaults: `faults_file` can't be read, is no JSON list of faults, or has one that `Faults.add` refuses.
    """
    sandbox = Sandbox(company, limits, gzip=gzip)
    if faults_file:
        _add_faults(sandbox.faults, faults_file)
    asyncio.run(_serve(sandbox, host, port, on_ready))


def _add_faults(faults: Faults, file: Path) -> None:
    try:
        listed = msgspec.json.decode(file.read_bytes(), type=list[Fault])
    except OSError as error:
        raise BadFaults(f"{file} can't be read: {error.strerror or error}") from error
    except msgspec.DecodeError as error:
        raise BadFaults(f"{file} is no JSON list of faults: {error}") from error
    for number, fault in enumerate(listed, 1):
        try:
            faults.add(fault)
        except ValueError as error:
            raise BadFaults(f"{file}, fault {number} of {len(listed)}: {error}") from error


async def _serve(sandbox: Sandbox, host: str, port: int, on_ready: Callable[[str, str], None]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stopped.set)
        except NotImplementedError:  # Windows has no signals in its loop
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopped.set))
    runner, url = await _open(sandbox, host, port)
    try:
        on_ready(url, sandbox.company.tokens[ADMIN])
        await stopped.wait()
    finally:
        await runner.cleanup()


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    """A request whose body may be a large file; aiohttp's own limit is one megabyte."""
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES)


async def _open(sandbox: Sandbox, host: str, port: int) -> tuple[web.ServerRunner, str]:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.rel_url.path.startswith("/_admin"):
            return await admin.serve(sandbox, request)
        return await sandbox.serve(request)

    runner = web.ServerRunner(web.Server(answer, request_factory=_request, access_log=None), shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    bound = runner.addresses[0][1]
    url = f"http://{f'[{host}]' if ':' in host else host}:{bound}"
    sandbox.oauth.api_domain = url
    return runner, url
