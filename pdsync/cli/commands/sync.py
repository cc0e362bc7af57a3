"""`pdsync sync` and `load`: the main job, and saved answers as its input."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pdsync.cli import webhook
from pdsync.cli.app import App, Command
from pdsync.cli.commands import backfill, reconcile, report
from pdsync.cli.interruption import run_interruptible
from pdsync.cli.job import exit_with, expect_requests, measure_for_progress, run_with_progress, show_receipt
from pdsync.cli.moment import Moment
from pdsync.cli.progress import Expected, Progress
from pdsync.core import catalogue
from pdsync.errors import BudgetSpent, ConfigError, CoolingDown, ProjectLocked
from pdsync.runner import unlocked
from pdsync.runner.pipelines import pipeline
from pdsync.runner.reconcile import findings, rotation
from pdsync.runner.reconcile.reconcile import reconcile as reconcile_streams
from pdsync.runner.sync import load_files
from pdsync.runner.sync.sync import sync as sync_streams
from pdsync.runner.sync.turns import price_turns_of

if TYPE_CHECKING:
    from datetime import datetime

    from pdsync.core.config import Settings
    from pdsync.model import Receipt, Version
    from pdsync.runner.sync.sync_request import SyncRequest


@click.command(cls=Command)
@click.argument("streams", nargs=-1)
@click.option("--full", is_flag=True, help="Read everything again, not only changes.")
@click.option("--since", type=Moment(), help="Read changes from this time on.")
@click.option("--pipeline", "name", help="Which file of pipelines/ to follow.  [default: nightly]")
@click.option("--budget", type=click.IntRange(min=1), help="Stop before spending more tokens than this.")
@click.option("--api", type=click.Choice(["v1", "v2"]), help="v1: use API v1 wherever it still answers.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of a stream that takes one.")
@click.option("--fail-on-gap", is_flag=True, help="Exit code 4 if anything is missing, whatever the cause.")
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
    """Bring STREAMS up to date; without STREAMS, all of them.

    Reads everything on the first run, later only changes. Continues where the last run stopped; safe to interrupt and
    to repeat. Without STREAMS, lists that hardly ever change take turns, and a share of the streams is compared with
    the source, so that every row is verified within the verify cycle (7 days).
    """
    app.flags["account.api"] = api
    name = name or pipeline.DEFAULT
    selected = pipeline.load(name, app.project)
    with report.reporting_to(app, selected.report), webhook.reporting(app, name, selected.notify):
        if selected.job != "sync":
            if streams or full or since or params:
                raise ConfigError(
                    f"The pipeline {name} defines what it reads: omit streams, --full, --since and --param."
                    f" Nothing was called."
                )
            if selected.job == "reconcile":
                reconcile.carry_out(app, selected.to_reconcile_request(budget), selected.fail_on_gap or fail_on_gap)
            else:
                backfill.carry_out(app, selected.to_backfill_request(budget))
            return
        request = selected.to_sync_request(streams, full=full, since=since, budget=budget, params=_parse_params(params))
        with_verification = selected.verify and not (streams or full or since)
        _sync(app, request, with_verification=with_verification, fail_on_gap=selected.fail_on_gap or fail_on_gap)


def _sync(app: App, request: SyncRequest, *, with_verification: bool, fail_on_gap: bool) -> None:
    receipt = carry_out(app, app.settings, request)
    code = 4 if fail_on_gap and receipt.gaps and receipt.exit_code not in (3, 130) else receipt.exit_code
    verified = None
    if with_verification and receipt.exit_code not in (3, 130):  # nothing more may be requested then
        verified = _verify(app, request, receipt)
    if verified and code == 0:
        code = verified.receipt.exit_code
        stopped_by_budget = code == 3 and not verified.held_back
        code = 0 if stopped_by_budget else 4 if code == 0 and fail_on_gap and verified.left else code
    facts = {"verified": _describe_verification(verified)} if verified else {}
    show_receipt(app, receipt, code, **facts)
    if verified and not app.json:
        app.note(_summarize_verification(verified))
    webhook.report_end(app, receipt, code)
    exit_with(code)


def _verify(app: App, request: SyncRequest, receipt: Receipt) -> findings.ReconcileResult | None:
    """Reconcile the streams that are due, within the rest of the budget; not those in which the sync left a gap."""
    left = request.budget - receipt.tokens if request.budget else None
    with unlocked.open_control(app.settings) as control:
        tonight = price_turns_of(control, app.settings.api, receipt.run_id)
    complete = [name for name, entry in receipt.streams.items() if entry.complete]
    due = rotation.select_due(app.settings, [*complete, *receipt.deferred], tonight)
    if not due or (left is not None and left < min(each.tokens for each in due)):
        return None
    reconciliation = findings.ReconcileRequest(tuple(each.stream for each in due), repair=True, deep=True, budget=left)
    app.note(f"Verifying {', '.join(reconciliation.streams)}: as part of the verify cycle.")
    try:
        return run_with_progress(
            app,
            lambda progress: reconcile_streams(app.settings, reconciliation, *([] if app.json else [progress])),
            {each.stream: Expected(each.requests, tokens=each.tokens) for each in due},
        )
    except (BudgetSpent, CoolingDown, ProjectLocked) as error:  # the sync is complete all the same
        app.note(f"The verification stopped, and a later night continues it: {str(error).splitlines()[0]}")
        return None


def _describe_verification(verified: findings.ReconcileResult) -> dict[str, object]:
    return {
        "run_id": verified.receipt.run_id,
        "streams": {name: seen[2] for name, seen in verified.swept.items()},
        "differences": len(verified.findings),
        "left": len(verified.left),
        "held": verified.held_back,
        "requests": verified.receipt.requests,
        "tokens": verified.receipt.tokens,
    }


def _summarize_verification(verified: findings.ReconcileResult) -> str:
    seen = ", ".join(f"{name} {count:,}" for name, (_, _, count) in verified.swept.items())
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(each.kind for each in verified.findings).items())
    repaired = len(verified.findings) - len(verified.left)
    lines = [
        f"Verified against the source: {seen or 'nothing'}; {verified.receipt.tokens:,} tokens,"
        f" {verified.receipt.duration:.1f} s."
    ]
    if kinds:
        lines.append(f'Differences: {kinds}; repaired: {repaired}. pdsync sql "from meta.findings"')
    lines += [f"Held back: {verified.held_back}"] if verified.held_back else []
    lines += [f"{gap.stream}: {gap.detail}" for gap in verified.receipt.gaps]
    return "\n".join(lines)


@click.command(cls=Command)
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--stream", required=True, help="The stream of the records: deals, persons, …")
@click.option(
    "--api",
    type=click.Choice(["v1", "v2"]),
    help="The API version of the answers.  [default: detected from their keys]",
)
@click.option("--as-of", type=Moment(), help="When they were saved.  [default: each file's own time]")
@click.option("--company", type=int, help="The company's id, if this project has none yet.")
@click.pass_obj
def load(
    app: App, files: tuple[Path, ...], stream: str, api: Version | None, as_of: datetime | None, company: int | None
) -> None:
    """Load saved list answers into a stream's table: JSON or NDJSON, plain, .gz or .zst.

    Makes no request. Newer rows of the table are kept; loading a file twice changes nothing. Answers may stand in an
    envelope of another program, {"data": {"success": true, "data": […]}}; for other envelopes, the message has the
    command that opens them. If an answer says success is false, or a record has the keys of another stream, no file is
    loaded.
    """
    chosen = catalogue.stream(stream)
    with Progress(app) as progress:
        receipt = run_interruptible(
            load_files.load(app.settings, chosen, files, progress, version=api, as_of=as_of, company=company)
        )
    show_receipt(app, receipt, receipt.exit_code)
    exit_with(receipt.exit_code)


def _parse_params(texts: tuple[str, ...]) -> dict[str, str]:
    parameters = {
        name for stream in catalogue.streams().values() for s in (*stream.v1, *stream.v2) for name in s.params
    }
    params = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or name not in parameters:
            raise ConfigError(
                f"--param {text}: write it like NAME=VALUE,"
                f" with one of {', '.join(sorted(parameters))}. Nothing was called."
            )
        params[name] = value
    return params


def carry_out(app: App, settings: Settings, request: SyncRequest) -> Receipt:
    """Run a sync with live progress; returns the receipt. On a terminal a first sync is measured before it."""
    request = measure_for_progress(app, settings, request)
    return run_with_progress(
        app,
        lambda progress: sync_streams(settings, request, progress),
        expect_requests(settings, request) if app.is_watched else None,
    )
