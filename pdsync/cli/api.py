"""`pdsync api`: any operation of the catalogue, or a raw request. What may change data asks first."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click
import msgspec

from pdsync.cli.app import App, Command
from pdsync.core import catalogue
from pdsync.core.calls import check
from pdsync.errors import ConfigError
from pdsync.extract.pages import records
from pdsync.runner import client, project

if TYPE_CHECKING:
    from pdsync.core.calls import Call
    from pdsync.core.http import Http


@click.command(cls=Command)
@click.argument("operation", required=False)
@click.argument("values", nargs=-1, metavar="[KEY=VALUE]…")
@click.option("--request", nargs=2, metavar="METHOD PATH", help="A raw request in place of an operation.")
@click.option("--all", "everything", is_flag=True, help="Follow the pages of a list to its end.")
@click.option("--body", help="JSON for the body of a raw request; - reads it from stdin.")
@click.option("--yes", is_flag=True, help="Send what may change data without asking.")
@click.pass_obj
def api(
    app: App,
    operation: str | None,
    values: tuple[str, ...],
    request: tuple[str, str] | None,
    everything: bool,
    body: str | None,
    yes: bool,
) -> None:
    """Carry out OPERATION and print what it answers, as JSON.

    \b
    pdsync api getDeal id=42
    pdsync api getDeals status=won --all
    pdsync api --request GET /v1/currencies
    """
    if (operation is None) == (request is None):
        raise ConfigError("Name an operation (pdsync operations lists them), or use --request METHOD PATH.")
    given = dict(_pair(value) for value in values)
    if request:
        answer = asyncio.run(_raw(app, request[0].upper(), request[1], given, body, yes=yes))
    else:
        call = check(catalogue.operation(operation or ""), dict(given))
        if call.operation.mutates:
            _consent(app, f"{call.operation.method} {call.path}", yes=yes)
        answer = asyncio.run(_carry_out(app, call, everything=everything))
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.write(b"" if answer.endswith(b"\n") else b"\n")


def _pair(value: str) -> tuple[str, str]:
    key, sign, rest = value.partition("=")
    if not sign or not key:
        raise ConfigError(f"{value!r} is no parameter. Write it like key=value.")
    return key, rest


def _consent(app: App, what: str, *, yes: bool) -> None:
    """Ask before something is sent that may change data. It can't be undone by pdsync: the queue can."""
    if yes:
        return
    if app.no_input or not sys.stdin.isatty():
        raise ConfigError(f"{what} may change data. Nothing was sent; add --yes if you mean it.")
    click.confirm(f"{what} may change data. Send it?", abort=True, err=True)


async def _carry_out(app: App, call: Call, *, everything: bool) -> bytes:
    async with _session(app) as http:
        if not everything:
            answer = await http.call(call.operation, call.path, query=call.query, body=call.body)
            return _shown(answer.body, binary=call.operation.binary)
        if call.operation.paging == "none":
            raise ConfigError(f"{call.operation.id} has no pages: leave --all out.")
        listed = msgspec.structs.replace(call.operation, path=call.path)
        return msgspec.json.format(
            msgspec.json.encode([each async for each in records(http, listed, call.query)]), indent=2
        )


async def _raw(app: App, method: str, path: str, query: dict[str, str], body: str | None, *, yes: bool) -> bytes:
    if method not in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        raise ConfigError(f"{method!r} is no method: GET, POST, PUT, PATCH or DELETE.")
    if not path.startswith(("/v1/", "/api/v1/", "/api/v2/")):
        raise ConfigError(f"{path!r} is no path of the API. It begins with /v1/ or /api/v2/; pdsync adds the host.")
    if method != "GET":
        _consent(app, f"{method} {path}", yes=yes)
    try:
        content = None if body is None else msgspec.json.decode(sys.stdin.read() if body == "-" else body)
    except msgspec.DecodeError as error:
        raise ConfigError(f"--body is no JSON: {error}. Nothing was sent.") from error
    async with _session(app) as http:
        cost = 20 if method == "GET" else 10  # nobody knows: the dearest of the common ones
        answer = await http.request(method, path, cost=cost, label=f"{method} {path}", query=query, body=content)
    return _shown(answer.body, binary=False)


class _session:  # noqa: N801 - reads as a function where it is used
    """A session with the project's company, without the project's lock: calls may be made beside a sync."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __aenter__(self) -> Http:
        with project.opened(self._app.settings):  # the ledger lives in control.db
            pass
        self._connection = client.connect(self._app.settings)
        return await self._connection.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self._connection.__aexit__(*error)  # type: ignore[arg-type]


def _shown(body: bytes, *, binary: bool) -> bytes:
    if binary:
        return body
    try:
        return msgspec.json.format(body, indent=2)
    except msgspec.DecodeError:
        return body
