"""`pdsync history` and `pdsync diff`: the changes of a record, and the differences between two times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from msgspec import structs

from pdsync.cli import render, tables
from pdsync.cli.app import App, Command
from pdsync.cli.layout import Rows
from pdsync.cli.moment import Moment
from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.load import history as past
from pdsync.runner import unlocked
from pdsync.runner.report.observed import observed_from, past_of, unobserved
from pdsync.runner.report.record_history import build_timeline, column_names, unknown_until

if TYPE_CHECKING:
    import duckdb

    from pdsync.load.history import FieldChange
    from pdsync.model import Stream
    from pdsync.runner.report.record_history import Change

_WIDEST = 60  # characters of a value in a table
_SHOWN_FIELDS = 4  # of a changed row


_EVENTS = {"first_observed": "first observed", "merged": "merged into"}


@click.command(cls=Command)
@click.argument("table")
@click.argument("id")
@click.option("--strict", is_flag=True, help="Exit with 4 if what it was before the first sync is not known.")
@click.pass_obj
def history(app: App, table: str, id: str, strict: bool) -> None:
    """Show the changes of the record ID of TABLE: time, field, before and after.

    \b
    pdsync history deals 42
    pdsync history deals 42 --json

    Several edits between two syncs are one change, unless the changelog was synced too (`pdsync sync deals
    deal_changelog`): then each edit is shown with its author, also edits before the first sync. Names are today's.
    A record was created at its add_time, and first observed by a sync: what it was between them is not known.
    """
    stream = catalogue.stream(table)
    with unlocked.open_warehouse(app.settings) as warehouse:
        changes = build_timeline(warehouse, stream, id)
        until = unknown_until(warehouse, stream, id)
        since = observed_from(warehouse).get(stream.name)
    if app.json:
        for change in changes:
            facts = {field: getattr(change, field) for field in change.__struct_fields__}
            app.emit({"name": table, "id": id, **facts, "observed_from": since})
    else:
        _show_changes(app, changes)
    if until:
        hint = f": pdsync sync {stream.changelog} reads its changelog" if stream.changelog else ""
        app.note(
            f"What it was before {until:%Y-%m-%d %H:%M} UTC, its last change before it was read, is not known{hint}."
        )
        if strict:
            raise click.exceptions.Exit(4)


def _show_changes(app: App, changes: list[Change]) -> None:
    rows = [
        [change.at, change.field or _EVENTS.get(change.event, change.event), change.by, _before_and_after(change)]
        for change in changes
    ]
    headers = ["when (UTC)", "field", "by", "before → after"]
    if not any(change.by for change in changes):
        headers, rows = [headers[0], headers[1], headers[3]], [[row[0], row[1], row[3]] for row in rows]
    tables.show(app, Rows(headers, rows, notes=True))


def _before_and_after(change: Change) -> list[str]:
    if change.event in ("created", "deleted", "restored"):
        return []
    before = "" if change.event in ("first_observed", "merged") else _shorten(change.before, change.before_label)
    return [f"{before} → {_shorten(change.after, change.after_label)}".strip()]


def _shorten(value: Any, label: str | None = None) -> str:
    """A value, truncated to _WIDEST characters, with its name in front."""
    text = render.cell(value, exact=True)
    text = text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
    return f"{label} ({text})" if label and label != text else text or "–"


@click.command(cls=Command)
@click.argument("tables", nargs=-1)
@click.option("--from", "--since", "earlier", type=Moment(), required=True, help="The earlier time.")
@click.option("--to", "--until", "later", type=Moment(), help="The later time.  [default: now]")
@click.option("--strict", is_flag=True, help="Exit with 4 if the earlier time is before the first sync.")
@click.option("--rows", is_flag=True, help="Show each row and its changed fields.")
@click.pass_obj
def diff(
    app: App, tables: tuple[str, ...], earlier: datetime, later: datetime | None, strict: bool, rows: bool
) -> None:
    """Show what was added, changed and deleted in TABLES between two times; without TABLES, in all.

    \b
    pdsync diff --from 2026-01-01
    pdsync diff deals persons --from 2026-01-01 --to 2026-02-01 --rows

    Added was what was created in that time. An older record whose values are known only since then is first observed,
    unless its changelog was synced (`pdsync sync deal_changelog`) and has the changes. Unknown is what existed at
    both times, with values that are known at neither. Deleted rows count as gone.
    """
    moments = (earlier, later or datetime.now(UTC))
    if moments[0] > moments[1]:
        raise ConfigError("--from is later than --to. Nothing was compared.")
    selected = [catalogue.stream(name) for name in tables] or list(catalogue.streams().values())
    with unlocked.open_warehouse(app.settings) as warehouse:
        synced = [stream for stream in selected if past.has_table(warehouse, stream.name)]
        if missing := [stream.name for stream in selected if tables and stream not in synced]:
            raise ConfigError(f"{', '.join(missing)} has never been synced: pdsync sync {' '.join(missing)}")
        if rows:
            _show_rows(app, warehouse, synced, moments)
        else:
            _show_counts(app, warehouse, synced, moments, everything=bool(tables))
        warning = unobserved(observed_from(warehouse), [stream.name for stream in synced], moments[0])
    if warning:
        app.note(warning)
        if strict:
            raise click.exceptions.Exit(4)


def _show_counts(
    app: App,
    warehouse: duckdb.DuckDBPyConnection,
    streams: list[Stream],
    moments: tuple[datetime, datetime],
    *,
    everything: bool,
) -> None:
    since = observed_from(warehouse)
    rows = []
    for stream in streams:
        past_of_it = past_of(warehouse, stream, since.get(stream.name))
        counts = past.count_differences(warehouse, stream.name, stream.key, moments, past_of_it)
        kinds, bases = counts["kinds"], counts["bases"]
        if app.json:
            app.emit({"name": stream.name, **kinds, "basis": bases, "observed_from": since.get(stream.name)})
        elif everything or any(kinds.values()):
            basis = ", ".join(f"{basis} {count:,}" for basis, count in sorted(bases.items()))
            rows.append([stream.name, *kinds.values(), basis])
    if rows:
        names = ["table", "added", "changed", "gone", "first observed", "unknown", "basis"]
        tables.show(app, Rows(names, rows, counts=True))
    elif not app.json:
        app.note("Nothing differs.")


def _show_rows(
    app: App, warehouse: duckdb.DuckDBPyConnection, streams: list[Stream], moments: tuple[datetime, datetime]
) -> None:
    since = observed_from(warehouse)
    shown = []
    for stream in streams:
        past_of_it = past_of(warehouse, stream, since.get(stream.name))
        column_of = column_names(warehouse, stream)
        for difference in past.differences(warehouse, stream.name, stream.key, moments, past_of_it):
            changes = difference.fields()
            if difference.basis == "changelog":
                changes = [structs.replace(change, field=column_of(change.field)) for change in changes]
            if app.json:
                row = None if difference.kind == "changed" else difference.after or difference.before
                app.emit(
                    {
                        "name": stream.name,
                        "id": difference.key,
                        "change": difference.kind,
                        "fields": [{"field": c.field, "before": c.before, "after": c.after} for c in changes],
                        "row": row,
                        "basis": difference.basis,
                        "observed_from": since.get(stream.name),
                    }
                )
            else:
                kind = _EVENTS.get(difference.kind, difference.kind)
                cells = [_shorten(difference.title), _describe_fields(changes)]
                shown.append([stream.name, kind, difference.key, difference.basis, *cells])
    if shown:
        tables.show(app, Rows(["table", "change", "id", "basis", "record", "fields"], shown, notes=True))
    elif not app.json:
        app.note("Nothing differs.")


def _describe_fields(changes: list[FieldChange]) -> list[str]:
    """The first changed fields of a row, and the number of the others."""
    fields = [f"{c.field}: {_shorten(c.before)} → {_shorten(c.after)}" for c in changes]
    more = [f"and {len(fields) - _SHOWN_FIELDS} more"] if len(fields) > _SHOWN_FIELDS else []
    return [*fields[:_SHOWN_FIELDS], *more]
