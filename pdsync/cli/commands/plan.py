"""`pdsync plan`: what a sync would cost. It measures lists that were never read, for at most 150 tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from pdsync.cli import layout, overview, tables
from pdsync.cli.app import App, Command
from pdsync.cli.job import measure_unread
from pdsync.cli.layout import Line, Rows
from pdsync.core.wording import counted
from pdsync.errors import ConfigError
from pdsync.runner.pipelines import forecast, pipeline

if TYPE_CHECKING:
    from pdsync.runner.pipelines.forecast import Forecast

_SHOWN = 10  # streams


@click.command(cls=Command)
@click.argument("streams", nargs=-1)
@click.option("--full", is_flag=True, help="Estimate a full read.")
@click.option("--pipeline", "name", help="Which file of pipelines/ to follow.  [default: nightly]")
@click.option("--all", "everything", is_flag=True, help="Show every list, on a terminal too.")
@click.option("--api", type=click.Choice(["v1", "v2"]), help="v1: use API v1 wherever it still answers.")
@click.option("--no-requests", "is_offline", is_flag=True, help="Measure nothing: an unread list counts as a page.")
@click.pass_obj
def plan(
    app: App,
    streams: tuple[str, ...],
    full: bool,
    name: str | None,
    everything: bool,
    api: str | None,
    is_offline: bool,
) -> None:
    """Show what a sync of STREAMS would cost: requests, tokens, share of the daily budget, time.

    Without STREAMS, a terminal shows the totals and the streams that cost most; --all, a file or a pipe has every list.

    The estimate is based on the last runs, and makes no request. Lists that were never read are measured once a day,
    for at most 150 tokens in all: their newest pages, the largest ids, samples. They have a likely price and an upper
    bound; what was not worth measuring is assumed, and named.
    """
    app.flags["account.api"] = api
    selected = pipeline.load(name or pipeline.DEFAULT, app.project)
    if selected.job != "sync":
        raise ConfigError(
            f"plan needs a pipeline with the job sync; {name} has the job {selected.job}. Nothing was called."
        )
    request = selected.to_sync_request(streams, full=full, since=None, budget=None)
    measured = None if is_offline else measure_unread(app, app.settings, request)
    estimate = forecast.forecast(app.settings, request, with_verification=selected.verify and not (streams or full))
    if app.json:
        for line in (*estimate.lines, *estimate.optional):
            app.emit({"name": line.stream, **msgspec.to_builtins(line), "optional": line in estimate.optional})
        summary = {"event": "summary", "complete": True, "exit_code": 0, **estimate.totals()}
        spent = {"requests": measured.requests, "tokens": measured.tokens} if measured else None
        more = {"unverified": estimate.unverified, "deferred": estimate.deferred, "measured": spent}
        app.emit({**summary, **more})
        return
    if overview.is_wanted(app, everything=everything or bool(streams)):
        overview.show(app, *lay_out_forecast(estimate, app.out.width))
        return
    headers = ["stream", "requests", "tokens", "how", "list", "based on"]
    rows = [[x.stream, x.requests, x.tokens, x.way, x.operation, x.basis] for x in estimate.lines]
    if any(x.most_tokens is not None for x in estimate.lines):
        headers.insert(3, "at most")
        for row, x in zip(rows, estimate.lines, strict=True):
            row.insert(3, x.most_tokens)
    tables.show(app, Rows(headers, rows, hints=tables.JSON))
    app.note("\n" + estimate.summary())
    if estimate.deferred:
        app.note(_describe_deferred(estimate))
    for stream, tokens in estimate.unverified.items():
        app.note(
            f"{stream} takes no turn in the verification: a request for each record costs"
            f" {counted(tokens, 'token')}, more than limits.dependents_share allows in a run."
        )
    if estimate.optional:
        rows = [[x.stream, x.requests, x.tokens, x.operation, x.basis] for x in estimate.optional]
        app.note("\nRead only when named, as each costs one request per parent (pdsync plan STREAM shows one):\n")
        tables.show_aside(
            app, Rows(["stream", "requests", "tokens", "list", "based on"], rows, counts=True, hints=tables.JSON)
        )


def lay_out_forecast(estimate: Forecast, width: int) -> list[list[Line]]:
    """The overview: totals, the streams that cost most, the others together, and what is read only when named."""
    streams = sorted(forecast.sum_by_stream(estimate.lines), key=lambda each: -each.tokens)
    optional = sorted(forecast.sum_by_stream(estimate.optional), key=lambda each: -each.tokens)
    headers = ["stream", "requests", "tokens", "how"]
    rows: list[list[Any]] = [[each.stream, each.requests, each.tokens, each.way] for each in streams[:_SHOWN]]
    rest = streams[_SHOWN:]
    if rest:
        rows.append([f"… {len(rest):,} more", sum(x.requests for x in rest), sum(x.tokens for x in rest), ""])
    if any(each.most_tokens is not None for each in streams):
        headers.insert(3, "at most")
        bounds = [each.most_tokens for each in streams]
        left = None if None in bounds[_SHOWN:] else sum(each or 0 for each in bounds[_SHOWN:])
        for row, bound in zip(rows, [*bounds[:_SHOWN], left], strict=False):
            row.insert(3, bound)
    parts = [
        overview.lay_out_text(estimate.summary(), width),
        layout.lay_out(Rows(headers, rows, counts=True), width),
    ]
    if estimate.deferred:
        parts.append(overview.lay_out_text(_describe_deferred(estimate), width))
    if estimate.unverified:
        tokens = sum(estimate.unverified.values())
        text = (
            f"Not verified in turn, as it costs more than limits.dependents_share allows in a run"
            f" ({counted(tokens, 'token')}): {', '.join(estimate.unverified)}."
        )
        parts.append(overview.lay_out_text(text, width, "yellow"))
    if optional:
        tokens = sum(each.tokens for each in optional)
        about = "at least " if any(each.at_least for each in optional) else ""
        most = ", ".join(f"{each.stream} {each.tokens:,}" for each in optional[:3])
        text = f"Read only when named: {counted(len(optional), 'stream')}, {about}{counted(tokens, 'token')} in all."
        text += f" The most: {most}."
        parts.append(overview.lay_out_text(text, width))
    commands = [
        ("Each list of one stream", f"pdsync plan {streams[0].stream}" if streams else "pdsync plan deals"),
        ("If everything were read", "pdsync plan --full"),
        ("Every list", "pdsync plan --all"),
    ]
    return [*parts, overview.lay_out_commands(commands, width)]


def _describe_deferred(estimate: Forecast) -> str:
    """What the streams save whose turn is in another night."""
    saved, streams = counted(sum(estimate.deferred.values()), "token"), counted(len(estimate.deferred), "stream")
    return (
        f"Not read, which saves {saved}: {streams} whose turn in the verify cycle is another night:"
        f" {', '.join(estimate.deferred)}."
    )
