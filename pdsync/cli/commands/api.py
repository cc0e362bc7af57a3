"""`pdsync api`: any operation of the catalogue, or a raw request. What may change data asks first."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from pdsync.cli import render
from pdsync.cli.app import App, Command
from pdsync.cli.response_output import Output
from pdsync.core import catalogue, raw_request
from pdsync.core.account import fetch_account
from pdsync.core.http import ATTEMPTS, RetryPolicy
from pdsync.core.log import clean
from pdsync.core.request_builder import check
from pdsync.errors import ConfigError
from pdsync.extract.pages import REPEATS
from pdsync.extract.records import records as all_records
from pdsync.runner import connection, project

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping

    from pdsync.core.http import Answer, Http
    from pdsync.core.request_builder import Call
    from pdsync.core.upload_download import Form
    from pdsync.model import Operation

T = TypeVar("T")
_SHOWN = 2000  # bytes of a body, with -v
_OTHER_HOSTS = {"oauth.pipedrive.com"}


@click.command(cls=Command)
@click.argument("operation", required=False)
@click.argument("values", nargs=-1, metavar="[KEY=VALUE]…")
@click.option("--request", nargs=2, metavar="METHOD PATH", help="A raw request in place of an operation.")
@click.option("--all", "everything", is_flag=True, help="Follow the pages of a list to its end.")
@click.option(
    "--body", metavar="JSON", help="The body, or more of its fields; - reads it from stdin, @FILE from a file."
)
@click.option("--query", multiple=True, metavar="K=V", help="Raw: a parameter behind the question mark.")
@click.option("--form", multiple=True, metavar="K=V", help="Raw: a field of a form.")
@click.option("--file", "parts", multiple=True, metavar="K=@PATH", help="Raw: a file of a multipart form.")
@click.option(
    "--file-name", "names", multiple=True, metavar="K=NAME", help="Raw: what the server is told it is called."
)
@click.option("--multipart", is_flag=True, help="Raw: send the form as multipart, also without a file.")
@click.option("--header", multiple=True, metavar="K=V", help="One more header. Those that authenticate are pdsync's.")
@click.option(
    "--response-type", type=click.Choice(["json", "text", "binary"]), help="[default: as the operation has it]"
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the answer to this file.")
@click.option("--timeout", type=click.FloatRange(min=0.1), metavar="S", help="Seconds for an attempt.  [default: 60]")
@click.option(
    "--retries", type=click.IntRange(min=0, max=20), help=f"How often to try again.  [default: {ATTEMPTS - 1}]"
)
@click.option("--backoff", type=click.FloatRange(min=0), metavar="S", help="Seconds before the first retry.")
@click.option("--constant", is_flag=True, help="Wait as long before each retry, not twice as long each time.")
@click.option("--retry-all", is_flag=True, help="Try again after a refusal too: what is not there yet may come.")
@click.option("--force", is_flag=True, help="Call an operation that is no longer in Pipedrive's documents.")
@click.option("--yes", is_flag=True, help="Send what may change data without asking.")
@click.pass_obj
def api(
    app: App,
    operation: str | None,
    values: tuple[str, ...],
    request: tuple[str, str] | None,
    everything: bool,
    body: str | None,
    query: tuple[str, ...],
    form: tuple[str, ...],
    parts: tuple[str, ...],
    names: tuple[str, ...],
    multipart: bool,
    header: tuple[str, ...],
    response_type: str | None,
    out: Path | None,
    timeout: float | None,
    retries: int | None,
    backoff: float | None,
    constant: bool,
    retry_all: bool,
    force: bool,
    yes: bool,
) -> None:
    """Carry out OPERATION and print what it answers, as JSON; files as they are.

    Whatever the options, a request that may have changed something is never sent twice. -v shows what is sent.

    \b
    pdsync api getDeal id=42
    pdsync api getDeals status=won --all
    pdsync api addFile file=@offer.pdf deal_id=42
    pdsync api --request GET /v1/currencies --query term=euro
    """
    if request and operation and "=" in operation:  # there is no operation: the first word is a parameter already
        values = (operation, *values)
        operation = None
    if (operation is None) == (request is None):
        raise ConfigError("Name an operation (pdsync operations lists them), or use --request METHOD PATH.")
    given = [raw_request.pair(value, "a parameter") for value in values]
    patience = RetryPolicy(
        attempts=ATTEMPTS if retries is None else retries + 1,
        timeout_s=timeout,
        backoff_s=backoff,
        exponential=not constant,
        all_errors=retry_all,
    )
    headers = raw_request.headers(header)
    output = Output(app, out, response_type)
    if request:
        asked = raw_request.Request.of(
            *request,
            query=[*given, *(raw_request.pair(each, "--query") for each in query)],
            headers=headers,
            body=body,
            form=form,
            files=parts,
            names=names,
            multipart=multipart,
        )
        if everything:
            raise ConfigError("--all follows the lists of operations: pdsync operations names them.")
        if asked.method != "GET":
            consent(app, f"{asked.method} {asked.path}{_says_files(asked.form)}", yes=yes)
        run(app, _raw(app, asked, patience, output), doubtful=asked.label if asked.method != "GET" else None)
        return
    if query or form or parts or names or multipart:
        raise ConfigError(
            "--query, --form, --file and --multipart are of raw requests. To an operation, give key=value;"
            " it knows where each belongs."
        )
    called = catalogue.operation(operation or "")
    _look(app, called, everything=everything, force=force)
    call = check(called, raw_request.values(called, given, body))
    if called.mutates:
        files = f" with {', '.join(path.name for path in call.files.values())}" if call.files else ""
        consent(app, f"{called.method} {call.path}{files}", yes=yes)
    work = _carry_out(app, call, headers, patience, output, everything=everything)
    run(app, work, doubtful=called.id if called.mutates else None)


def consent(app: App, what: str, *, yes: bool) -> None:
    """Ask before something is sent that may change data. It can't be undone by pdsync: the queue can."""
    if yes:
        return
    if app.no_input or not sys.stdin.isatty():
        raise ConfigError(f"{what} may change data. Nothing was sent; add --yes if you mean it.")
    click.confirm(clean(f"{what} may change data. Send it?"), abort=True, err=True)


def run(app: App, work: Coroutine[Any, Any, T], *, doubtful: str | None = None) -> T:
    """Carry out `work`; Ctrl-C and SIGTERM end it in good order.

    Args:
        doubtful: what may have been carried out when it is interrupted, without anybody knowing.
    """

    async def interruptible() -> T:
        task = asyncio.current_task()
        if task:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(interruptible())
    except (KeyboardInterrupt, asyncio.CancelledError):
        if doubtful is None:
            raise KeyboardInterrupt from None
        message = f"Interrupted. Whether {doubtful} was carried out is not known. Look before you repeat it."
        click.echo(clean(message), err=True)
        if app.json:
            app.emit({"event": "error", "complete": False, "exit_code": 130, "message": clean(message)})
        raise click.exceptions.Exit(130) from None


def _look(app: App, operation: Operation, *, everything: bool, force: bool) -> None:
    """Say what speaks against calling `operation`.

    Raises:
        ConfigError: it can't, or should not, be called.
    """
    if operation.host in _OTHER_HOSTS:
        raise ConfigError(
            f"{operation.name} is a step of OAuth 2.0 with {operation.host}, where no token of a company is sent.\n"
            f"Nothing was called. `pdsync auth login` takes these steps, and keeps what they give."
        )
    if everything and operation.paging == "none":
        raise ConfigError(f"{operation.id} has no pages: leave --all out.")
    instead = f" Use {operation.replaced_by} in its place." if operation.replaced_by else " Nothing replaces it."
    if operation.removed and not force:
        raise ConfigError(
            f"{operation.name} is no longer in Pipedrive's documents.{instead}\n"
            f"Nothing was called. If it must be this one: --force"
        )
    if operation.deprecated:
        state = "no longer in Pipedrive's documents" if operation.removed else "deprecated"
        app.note(f"{operation.name} is {state}.{instead}")


async def _carry_out(
    app: App, call: Call, headers: dict[str, str], patience: RetryPolicy, output: Output, *, everything: bool
) -> None:
    operation = call.operation
    _debug(app, operation.method, call.path, call.query, headers, call.body, list(call.files.values()))
    async with session(app) as http:
        if operation.mutates:
            await _right_company(app, http)
        if everything:
            attempts = min(REPEATS, patience.attempts)
            patient = _Patient(http, headers, patience)
            await output.records(all_records(patient, operation, call.path, call.query, attempts=attempts))
        elif operation.binary or (output.kind == "binary" and not operation.mutates):
            await output.file(http, operation, call.path, patience, query=call.query, headers=headers)
        else:
            answer = await http.carry_out(call, headers=headers, patience=patience)
            _debug_answer(app, answer)
            output.answer(answer)


class _Patient:
    """A client that makes every call with the headers and the patience that were asked for."""

    def __init__(self, http: Http, headers: dict[str, str], patience: RetryPolicy) -> None:
        self._http, self._headers, self._patience = http, headers, patience

    async def call(self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None) -> Answer:
        return await self._http.call(operation, path, query=query, headers=self._headers, patience=self._patience)


async def _raw(app: App, asked: raw_request.Request, patience: RetryPolicy, output: Output) -> None:
    _debug(app, asked.method, asked.path, asked.query, asked.headers, asked.body, [p.path for p in asked.form_files])
    async with session(app) as http:
        if asked.method == "GET" and output.kind == "binary":
            path, query, headers = asked.path, asked.query, asked.headers
            await output.file(http, asked.operation, path, patience, query=query, headers=headers)
            return
        if asked.method != "GET":
            await _right_company(app, http)
        answer = await http.request(
            asked.method,
            asked.path,
            cost=asked.cost,
            search=asked.searches,
            label=asked.label,
            query=asked.query,
            body=asked.body,
            form=asked.form,
            headers=asked.headers,
            patience=patience,
        )
    _debug_answer(app, answer)
    output.answer(answer)


async def _right_company(app: App, http: Http) -> None:
    """See that what is about to change is of the project's company, where the project has one yet: 2 tokens."""
    with project.opened(app.settings) as control:
        if control.company():
            identity = await fetch_account(http)
            control.check_company(identity.company_id, identity.company_name)


def _debug(app: App, method: str, path: str, query: Any, headers: dict[str, str], body: Any, files: list[Path]) -> None:
    """With -v, what will be sent; the headers that authenticate are named, and no more."""
    if app.verbosity <= 0:
        return
    lines = [f"> {method} {app.settings.base_url}{path}"]
    lines += [f">   ?{key}={value}" for key, value in (query.items() if isinstance(query, dict) else query)]
    lines += [f">   {name}: {value}" for name, value in headers.items()]
    lines += ["> (and the token's header)"]
    if body is not None:
        shown = body if isinstance(body, bytes) else msgspec.json.encode(body)
        lines.append(f">   {shown[:_SHOWN].decode(errors='replace')}{' …' if len(shown) > _SHOWN else ''}")
    lines += [f">   {path} ({path.stat().st_size:,} bytes)" for path in files if path.exists()]
    app.note("\n".join(lines))


def _debug_answer(app: App, answer: Answer) -> None:
    """With -v, what came: the status, the headers that matter, the length."""
    if app.verbosity > 0:
        lines = [f"< {answer.status}, {len(answer.body):,} bytes"]
        app.note("\n".join(lines + [f"<   {name}: {value}" for name, value in answer.headers.items()]))


def _says_files(form: Form | None) -> str:
    """The files that are sent, in words."""
    if form is None or not form.files:
        return ""
    return f" with {', '.join(part.file_name for part in form.files)} ({render.size(form.size)})"


@asynccontextmanager
async def session(app: App, *, run_tokens: int | None = None) -> AsyncIterator[Http]:
    """A session with the project's company, without the project's lock: calls may be made beside a sync."""
    with project.opened(app.settings):  # the ledger lives in control.db
        pass
    async with connection.connect(app.settings, run_tokens=run_tokens) as http:
        yield http
