"""Servers that misbehave in ways the sandbox can't, and pdsync's own client to talk to them."""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from pdsync.core.budget import Budget
from pdsync.core.control import Control
from pdsync.core.credentials import ApiToken
from pdsync.core.http import Http

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

TOKEN = "c4n4ry-0123456789abcdef"


def ledger(folder: Path) -> Path:
    """A control.db in `folder`."""
    path = folder / "control.db"
    Control(path).close()
    return path


@asynccontextmanager
async def server(handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """An HTTP server that answers every request with `handler`; its URL."""
    runner = web.ServerRunner(web.Server(handler, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client(
    url: str,
    folder: Path,
    *,
    token: str = TOKEN,
    burst: int = 0,
    daily_tokens: int = 0,
    run_tokens: int | None = None,
    timeout_s: float = 20.0,
) -> AsyncIterator[Http]:
    """A session with the server at `url` whose ledger is in `folder`; it waits little between attempts."""
    budget = Budget(ledger(folder), token, burst=burst, daily_tokens=daily_tokens, run_tokens=run_tokens)
    try:
        async with Http(url, ApiToken(token), budget, timeout_s=timeout_s, backoff_s=0.001) as http:
            yield http
    finally:
        budget.close()


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    """`script` in a process of its own, with `arguments` in sys.argv[1:]."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `process`, at its end."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err
