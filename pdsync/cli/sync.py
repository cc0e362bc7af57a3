"""`pdsync sync` and `pdsync plan`: the main job, and what it will cost."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from pdsync.cli import render
from pdsync.cli.app import App, Command
from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.runner import forecast, load_files, pipeline, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pdsync.core.config import Settings
    from pdsync.model import Receipt, Version
    from pdsync.runner.run import Asked


class Moment(click.ParamType[datetime]):
    """A point in time: a date, or a date and time; UTC where nothing else is said."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse ISO 8601."""
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time. Write it like 2026-01-31 or 2026-01-31T18:00:00Z.", param, ctx)
        return found if found.tzinfo else found.replace(tzinfo=UTC)


@click.command(cls=Command)
@click.argument("streams", nargs=-1)
@click.option("--full", is_flag=True, help="Read everything again, whatever was read before.")
@click.option("--since", type=Moment(), help="Ask for changes from this time on.")
@click.option("--pipeline", "name", help="Which file of pipelines/ to follow.  [default: nightly]")
@click.option("--budget", type=click.IntRange(min=1), help="Stop before spending more tokens than this.")
@click.option("--api", type=click.Choice(["v1", "v2"]), help="v1: use API v1 wherever it still answers.")
@click.option(
    "--param", "params", multiple=True, metavar="NAME=VALUE", help="For streams that can be asked for otherwise."
)
@click.option("--fail-on-gap", is_flag=True, help="End with 4 when anything is missing, whatever the cause.")
@click.pass_obj
def sync(
    app: App,
    streams: tuple[str, ...],
    full: bool,
    since: datetime | None,
    name: str | None,
    budget: int | None,
    api: str | None,
    params: tuple[str, ...],
    fail_on_gap: bool,
) -> None:
    """Bring STREAMS up to date: all of them, when none is named.

    Reads what has changed since the last run; everything, the first time. Goes on from where the last run stopped. Safe
    to interrupt, and safe to repeat.
    """
    app.flags["account.api"] = api
    asked = pipeline.load(name or "nightly", app.project).asked(
        streams, full=full, since=since, budget=budget, params=_params(params)
    )
    done, seconds = carry_out(app, app.settings, asked)
    code = 4 if fail_on_gap and done.gaps and done.exit_code not in (0, 3, 130) else done.exit_code
    show(app, done, seconds, code)
    if code:
        raise click.exceptions.Exit(code)


@click.command(cls=Command)
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--stream", required=True, help="Whose records they are: deals, persons, ….")
@click.option(
    "--api", type=click.Choice(["v1", "v2"]), help="The version they came from.  [default: told by their keys]"
)
@click.option("--as-of", type=Moment(), help="When they were saved.  [default: each file's own time]")
@click.option("--company", type=int, help="The company's id, where this project has none yet.")
@click.pass_obj
def load(
    app: App, files: tuple[Path, ...], stream: str, api: Version | None, as_of: datetime | None, company: int | None
) -> None:
    """Load saved list answers into a stream's table: JSON or NDJSON, plain, .gz or .zst.

    Makes no request. What the table knows from a later moment stays; loading a file twice changes nothing.
    """
    began = time.monotonic()
    done = asyncio.run(
        load_files.load(app.settings, catalogue.stream(stream), files, version=api, as_of=as_of, company=company)
    )
    show(app, done, time.monotonic() - began, done.exit_code)
    if done.exit_code:
        raise click.exceptions.Exit(done.exit_code)


def _params(given: tuple[str, ...]) -> dict[str, str]:
    known = {name for stream in catalogue.streams().values() for s in (*stream.v1, *stream.v2) for name in s.params}
    found = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or name not in known:
            raise ConfigError(
                f"--param {text}: write it like NAME=VALUE, with one of {', '.join(sorted(known))}. Nothing was called."
            )
        found[name] = value
    return found


def carry_out(app: App, settings: Settings, asked: Asked) -> tuple[Receipt, float]:
    """Run a sync with live progress; the receipt, and the seconds it took."""
    return watched(app, lambda progress: run.sync(settings, asked, progress))


def watched(app: App, work: Callable[[render.Progress], Awaitable[Receipt]]) -> tuple[Receipt, float]:
    """Do `work` with live progress; its receipt, and the seconds it took."""
    began = time.monotonic()
    with render.Progress(app) as progress:

        async def interruptible() -> Receipt:
            task = asyncio.current_task()
            if task:  # as Ctrl-C does: what is under way is settled, then the receipt is written
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
            return await work(progress)

        done = asyncio.run(interruptible())
    return done, time.monotonic() - began


def show(app: App, done: Receipt, seconds: float, code: int) -> None:
    """The receipt: a table for people, the summary line for programs."""
    if app.json:
        facts = msgspec.to_builtins(done)
        app.emit(
            {"event": "summary", "complete": done.complete, **facts, "exit_code": code, "seconds": round(seconds, 3)}
        )
    elif app.verbosity >= 0:
        render.receipt(app, done, seconds, (None, app.settings.daily_tokens))


@click.command(cls=Command)
@click.argument("streams", nargs=-1)
@click.option("--full", is_flag=True, help="As if everything were read again.")
@click.option("--pipeline", "name", help="Which file of pipelines/ to follow.  [default: nightly]")
@click.option("--api", type=click.Choice(["v1", "v2"]), help="v1: use API v1 wherever it still answers.")
@click.pass_obj
def plan(app: App, streams: tuple[str, ...], full: bool, name: str | None, api: str | None) -> None:
    """What a sync of STREAMS would ask for: requests, tokens, share of the day's budget, time.

    Makes no request: it goes by what the last runs read. A list that was never read counts as one page at least.
    """
    app.flags["account.api"] = api
    asked = pipeline.load(name or "nightly", app.project).asked(streams, full=full, since=None, budget=None)
    found = forecast.forecast(app.settings, asked)
    if app.json:
        for line in (*found.lines, *found.optional):
            app.emit({"name": line.stream, **msgspec.to_builtins(line), "optional": line in found.optional})
        app.emit({"event": "summary", "complete": True, "exit_code": 0, **found.totals()})
        return
    headers = ["stream", "list", "how", "requests", "tokens", "based on"]
    rows = [[x.stream, x.operation, x.way, x.requests, x.tokens, x.basis] for x in found.lines]
    app.out.print(render.table(headers, rows))
    app.note("\n" + found.sentence())
    if found.optional:
        rows = [[x.stream, x.operation, x.requests, x.tokens, x.basis] for x in found.optional]
        app.note("\nNot read unless named, as each costs a request a parent (pdsync plan STREAM shows one):\n")
        app.err.print(render.table(["stream", "list", "requests", "tokens", "based on"], rows, counts=True))
