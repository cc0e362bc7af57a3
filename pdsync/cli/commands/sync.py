"""`pdsync sync`, `plan` and `load`: the main job, what it will cost, and saved answers in place of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from pdsync.cli import render, webhook
from pdsync.cli.app import App, Command
from pdsync.cli.commands import backfill, reconcile
from pdsync.cli.job import (
    Moment,
    leave,
    show,
    watched,
)
from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.runner.pipelines import forecast, pipeline
from pdsync.runner.reconcile import findings, rotation
from pdsync.runner.reconcile import reconcile as reconciling
from pdsync.runner.sync import load_files
from pdsync.runner.sync import sync as run

if TYPE_CHECKING:
    from datetime import datetime

    from pdsync.core.config import Settings
    from pdsync.model import Receipt, Version
    from pdsync.runner.sync.sync import SyncRequest


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
    to interrupt, and safe to repeat. When no stream is named, it also holds a share of them against the source again,
    so that within the verify cycle (7 days) every row was seen there.
    """
    app.flags["account.api"] = api
    name = name or pipeline.DEFAULT
    followed = pipeline.load(name, app.project)
    with webhook.about(app, name, followed.notify):
        if followed.job != "sync":
            if streams or full or since or params:
                raise ConfigError(
                    f"The pipeline {name} says itself what it reads: leave out streams, --full, --since and --param."
                    f" Nothing was called."
                )
            if followed.job == "reconcile":
                reconcile.carry_out(app, followed.asked_reconcile(budget), followed.fail_on_gap or fail_on_gap)
            else:
                backfill.carry_out(app, followed.asked_backfill(budget))
            return
        asked = followed.asked(streams, full=full, since=since, budget=budget, params=_params(params))
        plain = followed.verify and not (streams or full or since)
        _sync(app, asked, verify_too=plain, fail_on_gap=followed.fail_on_gap or fail_on_gap)


def _sync(app: App, asked: SyncRequest, *, verify_too: bool, fail_on_gap: bool) -> None:
    done, seconds = carry_out(app, app.settings, asked)
    code = 4 if fail_on_gap and done.gaps and done.exit_code not in (3, 130) else done.exit_code
    verified = None
    if verify_too and code == 0:
        verified, took = _verify(app, asked, done)
        seconds += took
    if verified and code == 0:
        code = verified.receipt.exit_code
        stopped_by_budget = code == 3 and not verified.held
        code = 0 if stopped_by_budget else 4 if code == 0 and fail_on_gap and verified.left else code
    facts = {"verified": _facts(verified)} if verified else {}
    show(app, done, seconds, code, **facts)
    if verified and not app.json:
        app.note(_told(verified))
    webhook.heard(app, done, code)
    leave(code)


def _verify(app: App, asked: SyncRequest, done: Receipt) -> tuple[findings.Result | None, float]:
    """Hold the streams whose turn it is against the source, with what the sync has left of its budget."""
    left = asked.budget - done.tokens if asked.budget else None
    turns = rotation.due(app.settings, list(done.streams))
    if not turns or (left is not None and left < min(turn.tokens for turn in turns)):
        return None, 0.0
    wanted = findings.ReconcileRequest(tuple(turn.stream for turn in turns), repair=True, deep=True, budget=left)
    app.note(f"Verifying {', '.join(wanted.streams)}: it is their turn.")
    return watched(app, lambda progress: reconciling.reconcile(app.settings, wanted, *([] if app.json else [progress])))


def _facts(verified: findings.Result) -> dict[str, object]:
    return {
        "run_id": verified.receipt.run_id,
        "streams": {name: seen[2] for name, seen in verified.swept.items()},
        "differences": len(verified.findings),
        "left": len(verified.left),
        "held": verified.held,
        "requests": verified.receipt.requests,
        "tokens": verified.receipt.tokens,
    }


def _told(verified: findings.Result) -> str:
    seen = ", ".join(f"{name} {count:,}" for name, (_, _, count) in verified.swept.items())
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(each.kind for each in verified.findings).items())
    mended = len(verified.findings) - len(verified.left)
    lines = [f"Verified against the source: {seen or 'nothing'}; {verified.receipt.tokens:,} tokens."]
    if kinds:
        lines.append(f'It differed: {kinds}; mended: {mended}. pdsync sql "from meta.findings"')
    lines += [f"Held back: {verified.held}"] if verified.held else []
    lines += [f"{gap.stream}: {gap.detail}" for gap in verified.receipt.gaps]
    return "\n".join(lines)


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

    Makes no request. What the table knows from a later moment stays; loading a file twice changes nothing. Answers that
    say success is false, and records that are another stream's by their keys, are refused with all files.
    """
    began = time.monotonic()
    done = asyncio.run(
        load_files.load(app.settings, catalogue.stream(stream), files, version=api, as_of=as_of, company=company)
    )
    show(app, done, time.monotonic() - began, done.exit_code)
    leave(done.exit_code)


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


def carry_out(app: App, settings: Settings, asked: SyncRequest) -> tuple[Receipt, float]:
    """Run a sync with live progress; the receipt, and the seconds it took."""
    return watched(app, lambda progress: run.sync(settings, asked, progress))


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
    followed = pipeline.load(name or pipeline.DEFAULT, app.project)
    if followed.job != "sync":
        raise ConfigError(f"plan is for pipelines that sync; {name} is a {followed.job}. Nothing was called.")
    asked = followed.asked(streams, full=full, since=None, budget=None)
    found = forecast.forecast(app.settings, asked, verify_too=followed.verify and not (streams or full))
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
