"""`pdsync queue`: changes that wait to be pushed. Nothing here makes a request."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
import msgspec
from msgspec import structs

from pdsync.cli import ids, overview, queue_overview, render, tables
from pdsync.cli.app import App, Group
from pdsync.cli.commands.sql import ask
from pdsync.cli.conflicts import describe_conflict
from pdsync.cli.ids import IdCommand
from pdsync.core import catalogue, cells, raw_request
from pdsync.core.wording import counted, number_ranges
from pdsync.errors import ConfigError
from pdsync.load import results
from pdsync.model import OPEN, State
from pdsync.runner import push, unlocked
from pdsync.writeback import enqueue, import_files, missing_records, repeated_imports
from pdsync.writeback.retries import make_retries
from pdsync.writeback.shapes import shape
from pdsync.writeback.typed_values import detect_styles

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pdsync.model import Mutation, Operation
    from pdsync.writeback.outbox import Entry, Outbox
    from pdsync.writeback.resolver import NameResolver

_SHOWN = 10  # bad rows
_DECIMAL = "The decimal mark of numbers in text.  [default: as the file or the column shows]"


@click.group(cls=Group)
def queue() -> None:
    """Queue changes, list them, drop them; nothing is sent.

    \b
    pdsync queue add updateDeal id=42 stage="Proposal made" "Deal size"=Large
    pdsync queue import leavers.csv --operation updateDeal
    pdsync queue from-sql "select id, 'lost' as status from deals where …" --operation updateDeal
    pdsync push --dry-run
    """


@queue.command("add")
@click.argument("operation")
@click.argument("values", nargs=-1, metavar="[KEY=VALUE]…")
@click.option("--body", metavar="JSON", help="More parameters, as a JSON object; - reads it from stdin, @FILE a file.")
@click.option(
    "--as", "name", metavar="NAME", help="Others may refer to the record it adds as @#N; in a file, as @NAME."
)
@click.option("--key", metavar="TEXT", help="A second change with the same key is not queued.")
@click.option("--decimal", type=click.Choice([".", ","]), help=_DECIMAL)
@click.pass_obj
def add(
    app: App,
    operation: str,
    values: tuple[str, ...],
    body: str | None,
    name: str | None,
    key: str | None,
    decimal: str | None,
) -> None:
    """Queue one change: OPERATION with its parameters.

    Fields by their API names, by the columns of the tables, custom ones by their labels; options, users, stages and
    pipelines by name or id. @#12 stands for the record that mutation #12 adds. null empties a field.
    """
    found = enqueue.find_operation(operation)
    pairs = [raw_request.pair(value, "a parameter") for value in values]
    given: dict[str, Any] = raw_request.values(found, pairs, body)
    given |= {name: None for name, value in pairs if value == "null"}
    with push.opened(app.settings) as (outbox, names):
        styles = detect_styles([given], decimal)
        entry = enqueue.make_entry(names, found, given, key=key, name=name, styles=styles)
        _add(app, outbox, [entry], names)


@queue.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--operation", help="What to do with each row.  [default: the column _operation says]")
@click.option("--format", "kind", type=click.Choice(import_files.FORMATS), help="[default: as the file's ending says]")
@click.option(
    "--null", default=cells.NULL, show_default=True, metavar="WORD", help="A cell that says this empties the field."
)
@click.option("--header", type=click.IntRange(1), metavar="N",
              help="The line or row that names the columns.  [default: the first that is not empty]")  # fmt: skip
@click.option("--encoding", metavar="NAME", help="Of a text file, such as windows-1252.  [default: UTF-8 or UTF-16]")
@click.option("--raw-csv", is_flag=True,
              help="Take cells as they are, also a quote before a formula.")  # fmt: skip
@click.option("--decimal", type=click.Choice([".", ","]), help=_DECIMAL)
@click.option("--key", metavar="COLUMN", help="The column that keeps a row from being queued twice.")
@click.option("--skip-bad", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Queue the good rows, and write the bad ones to FILE with reasons.")  # fmt: skip
@click.option("--again", is_flag=True, help="Queue a file whose changes were queued before.")
@click.pass_obj
def import_(
    app: App,
    file: Path,
    operation: str | None,
    kind: str | None,
    null: str,
    header: int | None,
    encoding: str | None,
    raw_csv: bool,
    decimal: str | None,
    key: str | None,
    skip_bad: Path | None,
    again: bool,
) -> None:
    """Queue one change for each row of FILE: CSV, NDJSON, JSON, Parquet or a spreadsheet.

    The first line names the parameters, as for `queue add`. A column _as names the record that a row adds, and @NAME in
    another row stands for it. One bad row refuses the whole file, unless --skip-bad. A file that was queued before is
    refused, and rows that are in the queue already are left out, unless --again.
    """
    read = import_files.read(file, import_files.Format(kind, null, encoding, header, raw_csv))
    for note in read.notes:
        app.note(note)
    _queue(app, read, operation, decimal=decimal, key=key, skip_bad=skip_bad, again=again, where=str(file))


@queue.command("from-sql")
@click.argument("query")
@click.option("--operation", help="What to do with each row.  [default: the column _operation says]")
@click.option("--decimal", type=click.Choice([".", ","]), help=_DECIMAL)
@click.option("--key", metavar="COLUMN", help="The column that keeps a row from being queued twice.")
@click.option("--nulls", type=click.Choice(["skip", "clear"]), default="skip", show_default=True,
              help="A null leaves the field alone, or empties it.")  # fmt: skip
@click.option("--skip-bad", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Queue the good rows, and write the bad ones to FILE with reasons.")  # fmt: skip
@click.option("--again", is_flag=True, help="Queue rows whose changes were queued before.")
@click.pass_obj
def from_sql(
    app: App,
    query: str,
    operation: str | None,
    decimal: str | None,
    key: str | None,
    nulls: str,
    skip_bad: Path | None,
    again: bool,
) -> None:
    """Queue one change for each row of QUERY in the warehouse; its columns are the parameters."""
    with unlocked.open_warehouse(app.settings) as warehouse:
        answer = ask(warehouse, sys.stdin.read() if query == "-" else query)
    import_files.refuse_duplicate_columns("The query", answer.column_names)
    read = import_files.Rows(results.python_rows(answer), null_clears=nulls == "clear", numbers=[])
    _queue(app, read, operation, decimal=decimal, key=key, skip_bad=skip_bad, again=again, where="the query")


@queue.command("list")
@click.option("--all", "everything", is_flag=True, help="Each change, also those that have ended.")
@click.option("--state", "states", multiple=True, type=click.Choice(get_args(State)), help="Only those in this state.")
@click.option("--operation", help="Only those of this operation.")
@click.option("--batch", help="Only those that were queued together.")
@click.pass_obj
def list_(app: App, everything: bool, states: tuple[State, ...], operation: str | None, batch: str | None) -> None:
    """List the queue, in order. On a terminal a long queue is shown by operation; --all, or an option, lists it."""
    wanted = states or (None if everything else (*OPEN, "needs_review"))
    name = catalogue.operation(operation).name if operation else None
    with push.opened(app.settings) as (outbox, names):
        found = [
            each
            for each in outbox.mutations(wanted, operation=name, batch=batch)
            if everything or states or each.state != "needs_review" or not outbox.resolution(each.id)
        ]
        if app.json:
            for each in found:
                app.emit(_facts(each))
            return
        counts = outbox.counts()
        is_whole = len(found) <= queue_overview.SHORT or bool(everything or states or operation or batch)
        if overview.is_wanted(app, everything=is_whole):
            overview.show(app, *queue_overview.lay_out_queue(found, app.out.width))
        elif found:
            tables.show(app, queue_overview.list_mutations(found, names))
    summary_line = ", ".join(f"{count:,} {state.replace('_', ' ')}" for state, count in sorted(counts.items()))
    app.note(f"\n{summary_line or 'The queue is empty.'}")


@queue.command("show", cls=IdCommand)
@click.argument("mutation")
@click.pass_obj
def show(app: App, mutation: str) -> None:
    """Show one MUTATION: every attempt and probe, the record before and after.

    MUTATION, here and elsewhere, is its number, its id or the beginning of that, `last`, or -2 for the one before it.
    """
    with push.opened(app.settings) as (outbox, names):
        found = _find(outbox, mutation)
        conflict = describe_conflict(names, found)
        facts = {
            **_facts(found),
            "attempts": msgspec.to_builtins(outbox.attempts(found.id)),
            "probes": outbox.probes(found.id),
        }
    if app.json:
        app.emit(facts)
        return
    for line in conflict:
        app.out.print(line)
    if found.state == "conflict":
        app.out.print(f"To send it all the same: pdsync queue retry {found.seq}\n")
    for name, value in facts.items():
        if value not in (None, [], {}):
            text = value if isinstance(value, str | int) else msgspec.json.format(msgspec.json.encode(value)).decode()
            app.out.print(f"{name}: {render.cell(text, exact=True)}")


@queue.command("drop", cls=IdCommand)
@click.argument("mutations", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that are queued.")
@click.option("--batch", help="Those that were queued together.")
@click.pass_obj
def drop(app: App, mutations: tuple[str, ...], everything: bool, batch: str | None) -> None:
    """Cancel MUTATIONS that were not sent yet."""
    with push.opened(app.settings) as (outbox, _):
        wanted = _find_all(outbox, mutations)
        if everything or batch:
            wanted += [each.id for each in outbox.mutations(["queued"], batch=batch)]
        if not wanted and not everything:
            raise ConfigError("Name what to drop: pdsync queue list shows the numbers. --all drops all.")
        dropped = outbox.drop(dict.fromkeys(wanted))
        for each in dropped if app.json else ():
            app.emit(_facts(each))
    app.note(f"Dropped {len(dropped):,} of the queue. Nothing was sent." if dropped else "Nothing is queued.")


@queue.command("retry", cls=IdCommand)
@click.argument("mutations", nargs=-1, required=True)
@click.pass_obj
def retry(app: App, mutations: tuple[str, ...]) -> None:
    """Queue MUTATIONS again that were rejected, met a conflict or need a review. The old ones do not change."""
    with push.opened(app.settings) as (outbox, names):
        _add(app, outbox, make_retries(outbox, [_find(outbox, each) for each in mutations]), names)


@queue.command("resolve", cls=IdCommand)
@click.argument("mutation")
@click.option("--as", "verdict", type=click.Choice(["applied", "rejected"]), required=True, help="What you found out.")
@click.option("--record", metavar="ID", help="The record that it added: no other addition is taken for it.")
@click.option("--note", metavar="TEXT", help="How you know.")
@click.pass_obj
def resolve(app: App, mutation: str, verdict: str, record: str | None, note: str | None) -> None:
    """Record what you found out about MUTATION, which needs a review. Its state does not change."""
    with push.opened(app.settings) as (outbox, _):
        found = _find(outbox, mutation)
        outbox.resolve(found.id, verdict, record, note)
    if app.json:
        app.emit({"name": f"#{found.seq}", "id": found.id, "verdict": verdict, "remote_id": record, "note": note})
    app.note(f"#{found.seq}: recorded as {verdict}.")


@queue.command("export")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.pass_obj
def export(app: App, file: Path | None) -> None:
    """Write the queue as NDJSON, which `queue import` reads back, to FILE or stdout."""
    with push.opened(app.settings) as (outbox, _):
        found = list(enqueue.export_rows(outbox.mutations(["queued"])))
    if file:
        file.write_text("".join(msgspec.json.encode(row).decode() + "\n" for row in found), encoding="utf-8")
        app.note(f"Wrote {len(found):,} to {file}.")
    else:
        for row in found:
            app.emit(row)


def _find(outbox: Outbox, text: str) -> Mutation:
    """The mutation with a number, an id, the beginning of one, or a position from the last one."""
    if ids.from_last(text) is None:
        return outbox.get(text)
    newest = [each.id for each in reversed(outbox.mutations(images=False))]
    return outbox.get(ids.find("mutation", newest, text, "List them: pdsync queue list --all"))


def _find_all(outbox: Outbox, mutations: tuple[str, ...]) -> list[str]:
    """The ids of mutations to drop; all of them exist."""
    if "all" in mutations:
        raise ConfigError("Nothing was dropped. To drop all that are queued: pdsync queue drop --all")
    try:
        return [_find(outbox, each).id for each in mutations]
    except ConfigError as error:
        raise ConfigError(f"{error}\nNothing was dropped.") from error


def _queue(
    app: App,
    read: import_files.Rows,
    operation: str | None,
    *,
    decimal: str | None,
    key: str | None,
    skip_bad: Path | None,
    again: bool,
    where: str,
) -> None:
    if not read.rows:
        raise ConfigError(f"{where} has no rows. Nothing was queued.")
    styles = detect_styles(read.rows, decimal, read.decimal)
    with push.opened(app.settings) as (outbox, names):
        good: list[Entry] = []
        bad: list[enqueue.BadRow] = []
        idle: list[int] = []
        for name, part, before in _group_by_operation(read, operation, where):
            headings = {
                heading: names.resolve_heading(name, heading)
                for heading in dict.fromkeys(heading for row in part for heading in row)
            }
            _refuse_duplicate_columns(where, name, headings)
            renamed = [
                (number, {headings[heading]: value for heading, value in row.items()})
                for number, row in enumerate(part, before + 1)
            ]
            setting = [each for each in renamed if not _is_idle(name, each[1], null_clears=read.null_clears)]
            idle += {number for number, _ in renamed} - {number for number, _ in setting}
            key_column = headings.get(key, key) if key else None
            entries, wrong = enqueue.make_entries(
                names,
                name,
                [row for _, row in setting],
                null_clears=read.null_clears,
                key=key_column,
                styles={headings[heading]: style for heading, style in styles.items() if heading in headings},
            )
            good += entries
            for each in wrong:
                number = setting[each.number - 1][0]
                bad.append(structs.replace(each, row=read.rows[number - 1], number=number))
        if len(idle) == len(read.rows):
            raise ConfigError(f"{where} sets nothing: its rows name records, but no values. Nothing was queued.")
        if idle:
            app.note(
                f"{counted(len(idle), 'row')} set nothing and {'was' if len(idle) == 1 else 'were'} left out,"
                f" the first of them {read.position(min(idle))}."
            )
        if bad and skip_bad is None:
            shown = "\n".join(f"  {read.position(each.number)}: {each.why}" for each in bad[:_SHOWN])
            more = f"\n  … and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""
            raise ConfigError(
                f"{len(bad):,} of {counted(len(read.rows), 'row')} of {where} can't be queued. None was."
                f"\n{shown}{more}\n"
                f"Correct them, or queue the others: --skip-bad FILE"
            )
        if not again:
            good = repeated_imports.leave_out_repeated(outbox, good, where, app.note)
        if bad and skip_bad:
            _write_bad(skip_bad, bad, read)
            app.note(f"{counted(len(bad), 'row')} not queued: {skip_bad} says why.")
        _add(app, outbox, good, names)


def _group_by_operation(
    read: import_files.Rows, operation: str | None, where: str
) -> Iterable[tuple[Operation, list[dict[str, Any]], int]]:
    """The rows in order, by operation, and the number of rows before them."""
    if operation:
        yield enqueue.find_operation(operation), read.rows, 0
        return
    for before, row in enumerate(read.rows):
        if not isinstance(row.get(enqueue.OPERATION), str):
            raise ConfigError(f"The rows of {where} name no operation. Name it: --operation updateDeal")
        plain = {name: value for name, value in row.items() if name != enqueue.OPERATION}
        yield enqueue.find_operation(row[enqueue.OPERATION]), [plain], before


def _is_idle(operation: Operation, row: dict[str, Any], *, null_clears: bool) -> bool:
    """Whether a row names a record to update, but no value to set."""
    given = {name for name, value in row.items() if value is not None or null_clears}
    return shape(operation).verb == "update" and given <= {*operation.path_params, "id", *enqueue.NOT_SENT}


def _refuse_duplicate_columns(where: str, operation: Operation, headings: dict[str, str]) -> None:
    """Refuse two columns that mean the same parameter."""
    for heading, means in headings.items():
        other = next((each for each, same in headings.items() if same == means and each != heading), None)
        if other is not None:
            raise ConfigError(
                f"{where}: the columns {heading!r} and {other!r} both mean {means} of {operation.name}."
                f" Nothing was queued.\nRemove one of them."
            )


def _write_bad(path: Path, bad: list[enqueue.BadRow], read: import_files.Rows) -> None:
    """Write the bad rows with reasons, as CSV that `queue import` reads once they are corrected.

    Commas between the cells would say that `.` is the decimal mark: only where those of the file said so, too.
    """

    def cell(value: Any, is_given: bool) -> str:
        if value is None:
            return cells.NULL if is_given and read.null_clears else ""
        return cells.guarded(cells.cell_text(value))

    columns = list(dict.fromkeys(name for each in bad for name in each.row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="," if read.decimal == "." else ";")
        writer.writerow([*map(cells.guarded, columns), *import_files.BAD])
        for each in bad:
            given = [cell(each.row.get(name), name in each.row) for name in columns]
            writer.writerow([*given, each.number, cells.guarded(each.why)])


def _add(app: App, outbox: Outbox, entries: list[Entry], names: NameResolver) -> None:
    """Queue entries and show them; apart from those whose keys were used before."""
    before = outbox.newest()
    found = {each.id: each for each in outbox.add(entries)}
    queued = [each for each in found.values() if each.seq > before]
    _show(app, outbox, list(found.values()), queued, names)
    left_out = len(entries) - len(queued)
    if left_out:
        others = [each.seq for each in found.values() if each.seq <= before]
        by = f", by {number_ranges(sorted(others))}" if others else " in the same file"
        app.note(
            f"{counted(left_out, 'change')} not queued: {'its key was' if left_out == 1 else 'their keys were'} used"
            f" before{by}. Another value needs another key."
        )


def _show(app: App, outbox: Outbox, found: list[Mutation], queued: list[Mutation], names: NameResolver) -> None:
    if missing := missing_records.find_missing(names.names, outbox, queued):
        app.note(missing_records.describe_missing(missing))
    if app.json:
        for each in found:
            app.emit(_facts(each))
        return
    if not queued:
        app.note("Nothing was queued.")
        return
    tables.show(app, queue_overview.list_mutations(queued[:20], names))
    more = f" ({len(queued) - 20:,} more)" if len(queued) > 20 else ""
    app.note(f"\nQueued {len(queued):,}{more}. Nothing was sent. Preview it: pdsync push --dry-run")


def _facts(mutation: Mutation) -> dict[str, Any]:
    version, _, id = mutation.operation.partition(" ")
    facts = msgspec.to_builtins(mutation)
    facts.pop("operation")
    return {"operation_id": id, "version": version, "name": f"#{mutation.seq}", **facts}
