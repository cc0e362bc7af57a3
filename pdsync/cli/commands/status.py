"""`pdsync status`: whether the data is right and fresh, and what needs attention. Makes no request."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
import msgspec

from pdsync.cli import receipts, tables
from pdsync.cli.app import App, Command
from pdsync.cli.layout import Line, Rows
from pdsync.cli.text_width import wrap
from pdsync.core.log import clean
from pdsync.core.wording import counted
from pdsync.runner.report.freshness import format_age
from pdsync.runner.status import Status, measure_status

if TYPE_CHECKING:
    from pdsync.model import Receipt
    from pdsync.runner.pipelines.installed import NextRun

_LABELS = 10  # cells of the labels
_INDENT = 4
_FILES = 2  # kept ones that are named
_LONGEST_COMMAND = 24  # of the last run
_COLUMNS = ("stream", "rows", "deleted", "complete_until", "age", "unverified", "last_full", "observed_from")


@click.command(cls=Command)
@click.option("--streams", "by_stream", is_flag=True, help="List every stream.")
@click.pass_obj
def status(app: App, by_stream: bool) -> None:
    """Show whether the data is right and fresh, and what to do next.

    Five lines: until when the data is complete, and for how many streams it is not; how many rows were compared with
    Pipedrive within the verify cycle; the tokens that are left today; the last and the next run; the queue. A sixth
    line names files that were kept because a reader had created tables in them. Below
    them, what needs attention, each with the command that comes next. Makes no request.

    With --json: an object for each stream, one named "status", and one named "budget".
    """
    settings = app.settings
    if not settings.control.exists() and not settings.warehouse.exists():
        app.note("Nothing has been synced yet: pdsync sync")
        return
    now = datetime.now(UTC)
    state = measure_status(settings, now)
    if app.json:
        if state.error:
            raise state.error
        for facts in _facts(state):
            app.emit(facts)
        return
    if by_stream:
        names = [name.replace("_", " ") for name in _COLUMNS]
        rows = [[getattr(each, name) for name in _COLUMNS] for each in state.streams]
        tables.show(app, Rows(names, rows, counts=True, hints=tables.JSON))
    else:
        tables.show_lines(app, lay_out_status(state, now, tables.terminal_width(app.out)))
        app.note("\nStream by stream: pdsync status --streams")
    if state.error:
        raise click.exceptions.Exit(state.error.exit_code)


def _facts(state: Status) -> list[dict[str, Any]]:
    last = state.last_run
    names = ("run_id", "command", "started_at", "finished_at", "exit_code", "complete")
    return [
        *({"name": each.stream, **msgspec.to_builtins(each)} for each in state.streams),
        {
            "name": "status",
            "complete_until": state.complete_until,
            "incomplete": state.incomplete,
            "in_turn": state.in_turn,
            "in_turn_until": state.in_turn_until,
            "rows": state.rows,
            "unverified": state.unverified,
            "oldest_verified_at": state.oldest_verified_at,
            "verify_cycle": state.verify_cycle,
            "last_run": {name: getattr(last, name) for name in names} if last else None,
            "token": {name: getattr(state.reader, name) for name in ("user_id", "user", "is_admin")}
            if state.reader
            else None,
            "running": state.running,
            "next_run": msgspec.to_builtins(state.next_run),
            "queue": state.queue,
            "attention": msgspec.to_builtins(state.notices),
        },
        {"name": "budget", "left": state.tokens_left, "limit": state.token_limit},
    ]


def lay_out_status(state: Status, now: datetime, width: int | None) -> list[Line]:
    """The lines of the screen, none wider than `width`; commands stay whole."""
    facts = [
        ("Data", _describe_data(state, now)),
        ("Verified", _describe_verified(state, now)),
        ("Budget", _describe_budget(state)),
        ("Runs", _describe_runs(state, now)),
        ("Queue", _describe_queue(state)),
        *([("Kept", _describe_kept(state.kept))] if state.kept else []),
    ]
    lines = []
    for label, text in facts:
        first, *more = _wrap(text, width, _LABELS)
        lines += [Line(f"{label:{_LABELS}}{first}"), *(Line(" " * _LABELS + line) for line in more)]
    if not state.notices:
        return [*lines, Line(""), Line("Nothing needs attention.", "green")]
    lines += [Line(""), Line("Needs attention", "bold")]
    for notice in state.notices:
        first, *more = _wrap(f"{notice.subject}: {notice.problem}", width, 2)
        lines += [Line(f"✗ {first}", "yellow"), *(Line(f"  {line}", "yellow") for line in more)]
        lines.append(Line(" " * _INDENT + clean(notice.command)))
    return lines


def _wrap(text: str, width: int | None, indent: int) -> list[str]:
    text = clean(text)
    return [text] if width is None else wrap(text, max(width - indent, 20))


def _describe_data(state: Status, now: datetime) -> str:
    until = state.complete_until
    if until is None:
        return "nothing has been synced yet (pdsync sync)"
    streams = len(state.incomplete)
    reader = f", read as {receipts.describe_user(state.reader)}" if state.reader and state.reader.user else ""
    gaps = f"except {streams} stream{'' if streams == 1 else 's'}" if streams else "no gaps"
    in_turn = ""
    if state.in_turn_until and state.in_turn_until < until:
        age = format_age(now - state.in_turn_until)
        in_turn = f"; {counted(len(state.in_turn), 'stream')} read in turn, the oldest {age} ago"
    return f"complete until {_format_time(until)} ({format_age(now - until)} ago), {gaps}{in_turn}{reader}"


def _describe_verified(state: Status, now: datetime) -> str:
    if not state.rows:
        return "no rows yet"
    share = math.floor(1000 * (state.rows - state.unverified) / state.rows) / 10  # 100 % only if it is all of them
    oldest = state.oldest_verified_at
    age = f", the oldest {format_age(now - oldest)} ago" if oldest else ""
    return f"{share:g} % of {counted(state.rows, 'row')} within {state.verify_cycle} days{age}"


def _describe_budget(state: Status) -> str:
    if state.tokens_left is None:
        return "no daily limit is set"
    return f"about {state.tokens_left:,} of {counted(state.token_limit, 'token')} left today"


def _describe_runs(state: Status, now: datetime) -> str:
    following = _describe_next(state.next_run, now) if state.next_run else "next: none (pdsync schedule)"
    if state.last_run is None:
        return f"none yet; {following}"
    return f"{_describe_run(state.last_run, state.running, now)}; {following}"


def _describe_next(run: NextRun, now: datetime) -> str:
    when = "at %H:%M UTC" if run.at - now < timedelta(days=1) else "on %Y-%m-%d"
    return f"next {run.pipeline} in {format_age(run.at - now)}, {run.at:{when}}"


def _describe_run(run: Receipt, running: int | None, now: datetime) -> str:
    command = run.command if len(run.command) <= _LONGEST_COMMAND else f"{run.command.split(' ', 1)[0]} …"
    if run.finished_at is None:
        state = f"running (process {running})" if running else "killed"
        return f"{command}, begun {format_age(now - run.started_at)} ago: {state}"
    ended = {0: "complete", 130: "interrupted", 3: "stopped by a guard"}.get(
        run.exit_code, f"exit code {run.exit_code}"
    )
    if ended == "complete" and run.gaps:
        ended = "finished, with gaps"
    return f"last {command} {format_age(now - run.finished_at)} ago: {ended}"


def _describe_queue(state: Status) -> str:
    waiting = sum(state.queue.get(name, 0) for name in ("queued", "approved", "armed"))
    parts = [
        f"{waiting:,} to send (pdsync push)" if waiting else "",
        f"{state.queue.get('unknown', 0):,} without an answer" if state.queue.get("unknown") else "",
        f"{state.queue.get('needs_review', 0):,} to review" if state.queue.get("needs_review") else "",
        f"{state.queue.get('conflict', 0):,} in conflict" if state.queue.get("conflict") else "",
        f"{state.queue.get('rejected', 0):,} rejected" if state.queue.get("rejected") else "",
    ]
    return ", ".join(part for part in parts if part) or "empty"


def _describe_kept(files: list[str]) -> str:
    more = f" and {len(files) - _FILES} more" if len(files) > _FILES else ""
    return f"{', '.join(files[:_FILES])}{more}: your own tables of earlier warehouses (docs/own-tables.md)"


def _format_time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
