"""`pdsync api`: any operation of the catalogue, or a raw request. What may change data needs consent."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec
from msgspec.structs import replace

from pdsync.cli import render
from pdsync.cli.app import App, Command
from pdsync.cli.interruption import run_interruptible
from pdsync.cli.response_output import Output
from pdsync.core import catalogue, raw_request
from pdsync.core.account import fetch_account
from pdsync.core.log import clean
from pdsync.core.request import ATTEMPTS, RetryPolicy, request_of, request_of_call
from pdsync.core.request_builder import check
from pdsync.errors import ConfigError
from pdsync.extract.pages import REPEATS
from pdsync.extract.records import records as all_records
from pdsync.runner import connection, unlocked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping

    from pdsync.core.answer import Answer
    from pdsync.core.http import Http
    from pdsync.core.request_builder import Call
    from pdsync.core.uploads import Form
    from pdsync.model import Operation

T = TypeVar("T")
_SHOWN = 2000  # bytes of a body, with -v
_OTHER_HOSTS = {"oauth.pipedrive.com"}


@click.command(cls=Command)
@click.argument("operation", required=False)
@click.argument("values", nargs=-1, metavar="[KEY=VALUE]…")
@click.option("--request", nargs=2, metavar="METHOD PATH", help="Send a raw request instead of an operation.")
@click.option("--all", "everything", is_flag=True, help="Follow the pages of a list to its end.")
@click.option("--body", metavar="JSON", help="The body, or some of its fields, as JSON; - reads stdin, @FILE a file.")
@click.option("--query", multiple=True, metavar="K=V", help="Raw: a query parameter.")
@click.option("--form", multiple=True, metavar="K=V", help="Raw: a field of a form.")
@click.option("--file", "parts", multiple=True, metavar="K=@PATH", help="Raw: a file of a multipart form.")
@click.option("--file-name", "names", multiple=True, metavar="K=NAME", help="Raw: the file name that the server sees.")
@click.option("--multipart", is_flag=True, help="Raw: send the form as multipart even without a file.")
@click.option(
    "--header", multiple=True, metavar="K=V", help="An additional header; pdsync sets those that authenticate."
)
@click.option("--response-type", type=click.Choice(["json", "text", "binary"]), help="[default: that of the operation]")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the answer to this file.")
@click.option("--timeout", type=click.FloatRange(min=0.1), metavar="S", help="Seconds per attempt.  [default: 60]")
@click.option("--retries", type=click.IntRange(min=0, max=20), help=f"How often to retry.  [default: {ATTEMPTS - 1}]")
@click.option("--backoff", type=click.FloatRange(min=0), metavar="S", help="Seconds before the first retry.")
@click.option("--constant", is_flag=True, help="Wait the same time before each retry, instead of doubling it.")
@click.option(
    "--retry-all", is_flag=True, help="Retry after a refusal too, such as a 404 of a record that is about to appear."
)
@click.option("--force", is_flag=True, help="Call an operation that Pipedrive no longer documents.")
@click.option("--yes", is_flag=True, help="Send a request that may change data without asking.")
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
    """Call OPERATION and print its answer as JSON; files are printed unchanged.

    A request that may have changed data is never sent twice, whatever the options. -v shows what is sent.

    \b
    pdsync api getDeal id=42
    pdsync api getDeals status=won --all
    pdsync api addFile file=@offer.pdf deal_id=42
    pdsync api --request GET /v1/currencies --query term=euro
    """
    if request and operation and "=" in operation:  # without an operation, the first argument is a parameter
        values = (operation, *values)
        operation = None
    if (operation is None) == (request is None):
        raise ConfigError("Name an operation (pdsync operations lists them), or use --request METHOD PATH.")
    parameters = [raw_request.pair(value, "a parameter") for value in values]
    attempts = ATTEMPTS if retries is None else retries + 1
    retry = RetryPolicy(attempts, timeout, backoff, exponential=not constant, all_errors=retry_all)
    headers = raw_request.headers(header)
    output = Output(app, out, response_type)
    if request:
        raw = raw_request.RawRequest.of(
            *request,
            query=[*parameters, *(raw_request.pair(each, "--query") for each in query)],
            headers=headers,
            body=body,
            form=form,
            files=parts,
            names=names,
            multipart=multipart,
        )
        if everything:
            raise ConfigError("--all works with list operations only: pdsync operations lists them.")
        _run_raw(app, raw, retry, output, yes=yes)
        return
    if query or form or parts or names or multipart:
        raise ConfigError(
            "--query, --form, --file and --multipart are for raw requests. Parameters of an operation are key=value."
        )
    called = catalogue.operation(operation or "")
    _check_callable(app, called, everything=everything, force=force)
    call = check(called, raw_request.values(called, parameters, body))
    _run_call(app, call, headers, retry, output, everything=everything, yes=yes)


def _run_raw(app: App, raw: raw_request.RawRequest, retry: RetryPolicy, output: Output, *, yes: bool) -> None:
    """Send a raw request and write its answer; one that may change data needs consent."""
    may_write = raw.method != "GET"
    if output.kind == "binary":
        output.refuse_terminal()
    if may_write:
        consent(app, f"{raw.method} {raw.path}{_describe_files(raw.form)}", yes=yes)
    run(app, _send_raw(app, raw, retry, output), doubtful=raw.label if may_write else None)


def _run_call(
    app: App,
    call: Call,
    headers: dict[str, str],
    retry: RetryPolicy,
    output: Output,
    *,
    everything: bool,
    yes: bool,
) -> None:
    """Call an operation and write its answer, or with `everything` all pages; a write needs consent."""
    operation = call.operation
    if not everything and (operation.binary or output.kind == "binary"):
        output.refuse_terminal()
    if operation.mutates:
        files = f" with {', '.join(path.name for path in call.files.values())}" if call.files else ""
        consent(app, f"{operation.method} {call.path}{files}", yes=yes)
    work = _carry_out(app, call, headers, retry, output, everything=everything)
    run(app, work, doubtful=operation.id if operation.mutates else None)


def consent(app: App, what: str, *, yes: bool) -> None:
    """Ask before sending a request that may change data. Only changes from the queue can be undone.

    Raises:
        ConfigError: there is no terminal to ask at, and `yes` was not given.
        click.Abort: the answer is no.
    """
    if yes:
        return
    if app.no_input or not sys.stdin.isatty():
        raise ConfigError(f"{what} may change data. Nothing was sent; add --yes if you mean it.")
    click.confirm(clean(f"{what} may change data. Send it?"), abort=True, err=True)


def run(app: App, work: Coroutine[Any, Any, T], *, doubtful: str | None = None) -> T:
    """Run `work`; Ctrl-C and SIGTERM cancel it cleanly.

    Args:
        doubtful: the name of a write whose outcome is unknown after an interruption.

    Raises:
        KeyboardInterrupt: it was interrupted, and nothing is doubtful.
        click.exceptions.Exit: it was interrupted, with 130; what is doubtful was said.
    """

    try:
        return run_interruptible(work)
    except KeyboardInterrupt:
        if doubtful is None:
            raise
        message = f"Interrupted. It is unknown whether {doubtful} took effect. Check before you repeat it."
        click.echo(clean(message), err=True)
        if app.json:
            app.emit({"event": "error", "complete": False, "exit_code": 130, "message": clean(message)})
        raise click.exceptions.Exit(130) from None


def _check_callable(app: App, operation: Operation, *, everything: bool, force: bool) -> None:
    """Check that `operation` may be called; warn if it is deprecated.

    Raises:
        ConfigError: it can't be called, or only with --force.
    """
    if operation.host in _OTHER_HOSTS:
        raise ConfigError(
            f"{operation.name} is a step of OAuth 2.0 with {operation.host}, which must not get a company's token.\n"
            f"Nothing was called. `pdsync auth login` carries out these steps and stores the result."
        )
    if everything and operation.paging == "none":
        raise ConfigError(f"{operation.id} has no pages: omit --all.")
    why = catalogue.why_removed(operation)
    if why and not force:
        raise ConfigError(f"{why}\nNothing was called. To call it anyway: --force")
    if operation.deprecated:
        instead = f"Use {operation.replaced_by} instead." if operation.replaced_by else "Nothing replaces it."
        app.note(why or f"{operation.name} is deprecated. {instead}")


async def _carry_out(
    app: App, call: Call, headers: dict[str, str], retry: RetryPolicy, output: Output, *, everything: bool
) -> None:
    operation = call.operation
    async with session(app) as http:  # which knows the token, so that what is shown does not have it
        _debug(app, operation.method, call.path, call.query, headers, call.body, list(call.files.values()))
        if operation.mutates:
            await check_company(app, http)
        if everything:
            attempts = min(REPEATS, retry.attempts)
            client = _ConfiguredClient(http, headers, retry)
            await output.records(all_records(client, operation, call.path, call.query, attempts=attempts))
        elif operation.binary or (output.kind == "binary" and not operation.mutates):
            await output.file(http, request_of_call(call, headers=headers, retry=retry))
        else:
            answer = await http.send(request_of_call(call, headers=headers, retry=retry))
            _debug_answer(app, answer)
            output.answer(answer)


class _ConfiguredClient:
    """A client that makes every call with the headers and the retry policy of the command line."""

    def __init__(self, http: Http, headers: dict[str, str], retry: RetryPolicy) -> None:
        self._http, self._headers, self._retry = http, headers, retry

    async def call(self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None) -> Answer:
        request = request_of(operation, path, query=query)
        return await self._http.send(replace(request, headers=self._headers, retry=self._retry))


async def _send_raw(app: App, raw: raw_request.RawRequest, retry: RetryPolicy, output: Output) -> None:
    async with session(app) as http:  # which knows the token, so that what is shown does not have it
        _debug(app, raw.method, raw.path, raw.query, raw.headers, raw.body, [p.path for p in raw.form_files])
        if raw.method == "GET" and output.kind == "binary":
            await output.file(http, raw.request(retry))
            return
        if raw.method != "GET":
            await check_company(app, http)
        answer = await http.send(raw.request(retry))
    _debug_answer(app, answer)
    output.answer(answer)


async def check_company(app: App, http: Http) -> None:
    """Check that the token is of the project's company, if the project has one: one request, 2 tokens."""
    with unlocked.open_control(app.settings) as control:
        if control.company():
            identity = await fetch_account(http)
            control.check_company(identity.company_id, identity.company_name)


def _debug(app: App, method: str, path: str, query: Any, headers: dict[str, str], body: Any, files: list[Path]) -> None:
    """With -v, show the request; of headers that authenticate only the fact that they are sent."""
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
    """With -v, show the status, length and headers of the answer."""
    if app.verbosity > 0:
        lines = [f"< {answer.status}, {len(answer.body):,} bytes"]
        app.note("\n".join(lines + [f"<   {name}: {value}" for name, value in answer.headers.items()]))


def _describe_files(form: Form | None) -> str:
    """The names and total size of the files, for messages; empty without files."""
    if form is None or not form.files:
        return ""
    return f" with {', '.join(part.file_name for part in form.files)} ({render.size(form.size)})"


@asynccontextmanager
async def session(app: App, *, run_tokens: int | None = None) -> AsyncIterator[Http]:
    """A client with the project's token, without the project's lock: calls work during a sync.

    It does not check that the token is of the project's company: see `check_company`.

    Args:
        app: has the project.
        run_tokens: what the calls may spend; None: the limits of the settings alone.
    """
    with unlocked.open_control(app.settings):  # the ledger lives in control.db
        pass
    async with connection.connect(app.settings, run_tokens=run_tokens) as http:
        yield http
