"""`pdsync reconcile`: compares the warehouse with Pipedrive, record by record, and repairs differences."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click
import msgspec

from pdsync.cli import overview, tables, webhook
from pdsync.cli.app import App, Command
from pdsync.cli.job import exit_with, expect_requests, run_with_progress
from pdsync.cli.layout import Rows
from pdsync.cli.progress import Expected
from pdsync.core import catalogue
from pdsync.core.wording import counted
from pdsync.runner.reconcile import findings, rotation
from pdsync.runner.reconcile.reconcile import reconcile as reconcile_streams
from pdsync.runner.sync.sync_request import SyncRequest

_SHOWN = 40


@click.command(cls=Command)
@click.argument("streams", nargs=-1)
@click.option(
    "--repair", is_flag=True, help="Read records that differ again, and mark those that are known to be deleted."
)
@click.option("--deep", is_flag=True, help="Compare values too, not only keys, times and flags.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Compare only N records of each stream.")
@click.option("--exit-code", is_flag=True, help="Exit code 4 if differences are left.")
@click.option("--fail-on-gap", is_flag=True, help="The same as --exit-code.")
@click.option("--max-tombstones", type=click.IntRange(min=0), metavar="N",
              help="Mark at most N records of a stream as deleted.  [default: 100 or 2 %, the smaller]")  # fmt: skip
@click.option("--budget", type=click.IntRange(min=1), metavar="TOKENS", help="Stop before spending more than this.")
@click.pass_obj
def reconcile(
    app: App,
    streams: tuple[str, ...],
    repair: bool,
    deep: bool,
    sample: int | None,
    exit_code: bool,
    fail_on_gap: bool,
    max_tombstones: int | None,
    budget: int | None,
) -> None:
    """Compare every record of STREAMS with the source; without STREAMS, of all that were synced.

    A record that is missing from a list is not assumed to be deleted: it is requested, and only evidence counts.
    Nothing is changed without --repair.
    """
    request = findings.ReconcileRequest(streams, repair, deep, sample, max_tombstones, budget)
    carry_out(app, request, exit_code or fail_on_gap)


def carry_out(app: App, request: findings.ReconcileRequest, fail_on_differences: bool) -> None:
    """Run a reconciliation, show what it found, and end with its exit code."""
    # With --json the findings are the listing, without progress events between them.
    result = run_with_progress(
        app,
        lambda progress: reconcile_streams(app.settings, request, *([] if app.json else [progress])),
        _expect(app, request),
    )
    code = result.receipt.exit_code
    if code == 0 and fail_on_differences and (result.left or result.uneven):
        code = 4
    _show(app, result, code)
    webhook.report_end(app, result.receipt, code)
    exit_with(code)


def _expect(app: App, request: findings.ReconcileRequest) -> dict[str, Expected] | None:
    """The requests for each stream: as many as read its lists whole; fewer where only some records' lists are read."""
    if not app.is_watched or request.sample:
        return None
    expected = expect_requests(app.settings, SyncRequest(request.streams, full=True))
    by_record = {
        name
        for name in expected
        if rotation.way_of(catalogue.stream(name), app.settings.api) in ("by_count", "by_record")
    }
    prices = {} if request.deep else rotation.price_streams(app.settings, by_record)
    return {
        name: each
        if name not in by_record
        else Expected(max(prices[name].requests, 1), tokens=prices[name].tokens)
        if name in prices
        else Expected(1, at_least=True)
        for name, each in expected.items()
    }


def _show(app: App, result: findings.ReconcileResult, code: int) -> None:
    kinds = Counter(each.kind for each in result.findings)
    if app.json:
        for each in result.findings:
            app.emit({"name": f"{each.stream}/{each.key}", **msgspec.to_builtins(each)})
        app.emit({"event": "summary", "exit_code": code,
                  "complete": not result.left and not result.uneven and not result.receipt.gaps,
                  "run_id": result.receipt.run_id, "streams": msgspec.to_builtins(result.receipt.streams),
                  "kinds": dict(kinds), "left": len(result.left), "held": result.held_back,
                  "gaps": msgspec.to_builtins(result.receipt.gaps),
                  "requests": result.receipt.requests, "tokens": result.receipt.tokens,
                  "swept": {name: {"at_source": swept[0], "here": swept[1], "verified": swept[2],
                                   "by_count": name in result.by_count,
                                   "not_compared": result.not_compared.get(name, 0)}
                            for name, swept in result.swept.items()},
                  "uneven": sorted(result.uneven),
                  "left_out": result.left_out,
                  "counts_off": {name: {"records": len(off), "counted": sum(each.reported for each in off),
                                        "listed": sum(each.listed for each in off)}
                                 for name, off in result.counts_off.items() if off},
                  "seconds": round(result.receipt.duration, 3)})  # fmt: skip
        return
    is_short = overview.is_wanted(app, everything=app.verbosity > 0)
    tables.show(app, lay_out_streams(result, app.out.height if is_short else None))
    if result.findings:
        shown = [
            [each.stream, each.key, each.kind, each.winner or "", "repaired" if each.repaired else "", [each.evidence]]
            for each in result.findings[:_SHOWN]
        ]
        tables.show(app, Rows(["", "", "", "now", "", "evidence"], shown, notes=True))
        if len(result.findings) > _SHOWN:
            app.note(f'… and {len(result.findings) - _SHOWN:,} more: pdsync sql "from meta.findings"')
    for gap in result.receipt.gaps:
        app.note(f"{gap.stream}: {gap.detail}")
    for name in result.left_out.keys() - {gap.stream for gap in result.receipt.gaps}:
        app.note(f"{name} was not compared: {result.left_out[name]}")
    for text in (
        *_describe_not_compared(result),
        *_describe_mismatches(result),
        *_describe_uneven(result),
        *_describe_other_values(result),
    ):
        app.note(text)
    if result.held_back:
        app.note(f"Held back: {result.held_back}")
    left = f"{_format_count(len(result.left))} left" if result.left else "all were repaired"
    if result.left and not result.receipt.gaps and not result.held_back:
        left += "; repair them: pdsync reconcile --repair"
    outcome = (
        f"{_format_count(len(result.findings))} found, {left}"
        if result.findings
        else f"the numbers of {', '.join(result.uneven)} differ"
        if result.uneven
        else f"no difference from the lists; {counted(mismatches, 'record')} with another count"
        if (mismatches := sum(map(len, result.counts_off.values())))
        else "no difference of keys, times and flags"
        if result.other_values
        else "no difference"
        if result.swept
        else "nothing was compared"
    )
    app.note(
        f"\n{outcome}. {counted(result.receipt.requests, 'request')},"
        f" {counted(result.receipt.tokens, 'token')}, {result.receipt.duration:.1f} s."
    )


def lay_out_streams(result: findings.ReconcileResult, height: int | None) -> Rows:
    """The streams that were compared; if a screen of `height` lines is too low, those that differ, and a sum."""
    counts = Counter((each.stream, each.kind) for each in result.findings)
    rows: list[list[Any]] = []
    same: list[list[Any]] = []
    for name, (at_source, here, verified) in result.swept.items():
        kinds = ", ".join(f"{n} {kind}" for (stream, kind), n in counts.items() if stream == name)
        if name in result.uneven:
            kinds = f"{at_source - here:+,} at the source"
        is_same = not kinds and at_source == here and not result.counts_off.get(name)
        if off := result.counts_off.get(name):
            kinds = f"{kinds}, {counted(len(off), 'count')} off".removeprefix(", ")
        row = [name, at_source, here, "by count" if name in result.by_count else verified, kinds]
        (same if is_same and height is not None and len(result.swept) > height // 2 else rows).append(row)
    if same:
        sums = [sum(row[column] for row in same) for column in (1, 2)]
        rows.append([f"{counted(len(same), 'stream')} without a difference", *sums, "", ""])
    return Rows(["stream", "at the source", "here", "the same", "differences"], rows, counts=True)


def _describe_not_compared(result: findings.ReconcileResult) -> list[str]:
    """A sentence per stream with rows whose parents' lists were not read."""
    return [
        f"{name}: {counted(rows, 'more row')} not compared: what {'it belongs' if rows == 1 else 'they belong'} to is"
        f" deleted, or shows no count, so {'its' if rows == 1 else 'their'} list was not read."
        for name, rows in result.not_compared.items()
        if rows and not result.is_sample
    ]


def _describe_other_values(result: findings.ReconcileResult) -> list[str]:
    if not result.other_values:
        return []
    rows = ", ".join(f"{count:,} {name}" for name, count in result.other_values.items())
    return [
        f"Rows whose values are not shown to be the same, such as counters: {rows}. Keys, times and flags are."
        " Compare the values too: pdsync reconcile --deep"
    ]


def _describe_uneven(result: findings.ReconcileResult) -> list[str]:
    """A sentence per stream whose numbers differ though no record does."""
    return [
        f"{name}: {at_source:,} at the source and {in_warehouse:,} here, and no list shows which differ. Read it again:"
        f" pdsync sync {name} --full"
        for name, (at_source, in_warehouse) in result.uneven.items()
    ]


def _describe_mismatches(result: findings.ReconcileResult) -> list[str]:
    """A sentence per stream in which the counts of parents differ from their lists."""
    return [
        f"{name}: {len(off):,} {off[0].parent} report {sum(each.reported for each in off):,}, but their complete lists"
        f" contain {sum(each.listed for each in off):,}. The lists are taken as true; they are read again when a"
        f' count changes, once per verify cycle, or with --deep: pdsync sql "from meta.counts_off"'
        for name, off in result.counts_off.items()
        if off
    ]


def _format_count(count: int) -> str:
    return f"{count:,} difference{'s' * (count != 1)}"
