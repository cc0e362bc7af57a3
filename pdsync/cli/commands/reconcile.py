"""`pdsync reconcile`: is everything here that is there, and only that?"""

from __future__ import annotations

from collections import Counter

import click
import msgspec

from pdsync.cli import render, webhook
from pdsync.cli.app import App, Command
from pdsync.cli.job import leave, watched
from pdsync.runner.reconcile import findings
from pdsync.runner.reconcile import reconcile as reconciling

_SHOWN = 40


@click.command(cls=Command)
@click.argument("streams", nargs=-1)
@click.option("--repair", is_flag=True, help="Read again what differs, and mark what is known to be gone.")
@click.option("--deep", is_flag=True, help="Compare values too, not only keys, times and flags.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Look at N records of each stream only.")
@click.option("--exit-code", is_flag=True, help="End with 4 where differences are left.")
@click.option("--fail-on-gap", is_flag=True, help="The same.")
@click.option("--max-tombstones", type=click.IntRange(min=0), metavar="N",
              help="Mark so many records of a stream as gone.  [default: 100 or 2 %, the smaller]")  # fmt: skip
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
    """Hold every record of STREAMS against the source, and say what differs and why: all that were read, by default.

    That a list does not show a record means nothing by itself: it is asked for, and only what is known to be gone
    counts as gone. Nothing is changed without --repair.
    """
    asked = findings.ReconcileRequest(streams, repair, deep, sample, max_tombstones, budget)
    carry_out(app, asked, exit_code or fail_on_gap)


def carry_out(app: App, asked: findings.ReconcileRequest, fail_on_differences: bool) -> None:
    """Run a reconciliation, show what it found, and end with its exit code."""
    # With --json the findings are the listing: nothing else stands between them.
    result, seconds = watched(
        app, lambda progress: reconciling.reconcile(app.settings, asked, *([] if app.json else [progress]))
    )
    code = result.receipt.exit_code
    if code == 0 and fail_on_differences and result.left:
        code = 4
    _show(app, result, seconds, code)
    webhook.heard(app, result.receipt, code)
    leave(code)


def _show(app: App, result: findings.Result, seconds: float, code: int) -> None:
    kinds = Counter(each.kind for each in result.findings)
    if app.json:
        for each in result.findings:
            app.emit({"name": f"{each.stream}/{each.key}", **msgspec.to_builtins(each)})
        app.emit({"event": "summary", "complete": not result.left and not result.receipt.gaps, "exit_code": code,
                  "run_id": result.receipt.run_id, "streams": msgspec.to_builtins(result.receipt.streams),
                  "kinds": dict(kinds), "left": len(result.left), "held": result.held,
                  "gaps": msgspec.to_builtins(result.receipt.gaps),
                  "requests": result.receipt.requests, "tokens": result.receipt.tokens,
                  "swept": {name: {"at_source": one[0], "here": one[1], "verified": one[2],
                                   "by_count": name in result.by_count} for name, one in result.swept.items()},
                  "left_out": result.left_out,
                  "counts_off": {name: {"records": len(off), "counted": sum(each.says for each in off),
                                        "listed": sum(each.listed for each in off)}
                                 for name, off in result.counts_off.items() if off},
                  "seconds": round(seconds, 3)})  # fmt: skip
        return
    counts = Counter((each.stream, each.kind) for each in result.findings)
    rows = [
        [
            name,
            at_source,
            here,
            "by count" if name in result.by_count else verified,
            ", ".join(f"{n} {kind}" for (of, kind), n in counts.items() if of == name),
        ]
        for name, (at_source, here, verified) in result.swept.items()
    ]
    app.out.print(render.table(["stream", "at the source", "here", "the same", "differences"], rows, counts=True))
    if result.findings:
        shown = [
            [each.stream, each.key, each.kind, each.winner or "", each.evidence, "repaired" if each.repaired else ""]
            for each in result.findings[:_SHOWN]
        ]
        app.out.print(render.table(["", "", "", "now", "evidence", ""], shown))
        if len(result.findings) > _SHOWN:
            app.note(f'… and {len(result.findings) - _SHOWN:,} more: pdsync sql "from meta.findings"')
    for gap in result.receipt.gaps:
        app.note(f"{gap.stream}: {gap.detail}")
    for name in result.left_out.keys() - {gap.stream for gap in result.receipt.gaps}:
        app.note(f"{name} was not compared: {result.left_out[name]}")
    for text in _counts_off(result):
        app.note(text)
    if result.held:
        app.note(f"Held back: {result.held}")
    left = f"{_counted(len(result.left))} left" if result.left else "none is left"
    if result.left and not result.receipt.gaps and not result.held:
        left += "; repair them: pdsync reconcile --repair"
    said = (
        f"{_counted(len(result.findings))} found, {left}"
        if result.findings
        else "no difference"
        if result.swept
        else "nothing was compared"
    )
    app.note(f"\n{said}. {result.receipt.requests:,} requests, {result.receipt.tokens:,} tokens, {seconds:.1f} s.")


def _counts_off(result: findings.Result) -> list[str]:
    """A sentence for each stream whose parents count otherwise than they list."""
    return [
        f"{name}: {len(off):,} {off[0].parent} count {sum(each.says for each in off):,} where their own lists, read to"
        f" the end, show {sum(each.listed for each in off):,}. The lists are what counts; they are read again when a"
        f' count moves, once in a verify cycle, or with --deep: pdsync sql "from meta.counts_off"'
        for name, off in result.counts_off.items()
        if off
    ]


def _counted(count: int) -> str:
    return f"{count:,} difference{'s' * (count != 1)}"
