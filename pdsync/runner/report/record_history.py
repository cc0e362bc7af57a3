"""The history of one record: what changed when, with names in place of ids where the warehouse knows them.

Two sources tell of it. The versions of its row: what the syncs have seen, several edits between two of them as one
change. And the changelog of Pipedrive itself, where the stream of it was synced: each edit with its author, also from
before the first sync. What both contain is shown once, as the changelog has it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.load import history
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    import duckdb

    from pdsync.load.history import Row
    from pdsync.model import Stream

# What the value of a custom field of these types points to.
_POINTS_TO = {"user": "users", "people": "persons", "org": "organizations", "deal": "deals", "stage": "stages"}
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Change(Struct, frozen=True):
    """One event of a record. Labels are today's names; None where there is none."""

    at: datetime | str  # text where Python has no such time
    event: str  # first_seen, changed, edited (as the changelog has it: values are text), deleted, restored
    field: str | None
    before: Any
    after: Any
    before_label: str | None = None
    after_label: str | None = None
    run_id: str | None = None  # the run that brought it
    by: str | None = None  # who edited it


def timeline(connection: duckdb.DuckDBPyConnection, stream: Stream, id: str) -> list[Change]:
    """What happened to the record `id` of `stream`, oldest first.

    Raises:
        ConfigError: the stream was never synced, or there is no such record.
    """
    if not history.has_table(connection, stream.name):
        raise ConfigError(f"{stream.name} has never been synced: pdsync sync {stream.name}")
    found = history.versions(connection, stream.name, stream.key, id)
    if not found:
        raise ConfigError(
            f"There is no record {id!r} in {stream.name}: none with this {stream.key} was ever synced.\n"
            f'Look for it: pdsync sql "from {stream.name} limit 10"'
        )
    labels = _Labels(connection, stream)
    edits = _edits(connection, stream, id, labels)
    born = found[0]
    changes = [
        Change(
            at=_utc(born["_valid_from"]),
            event="first_seen",
            field=None,
            before=None,
            after=born.get(stream.title),
            run_id=born["_run_id"],
        )
    ]
    if born["_deleted_at"]:
        changes.append(_end(born, "deleted"))
    for before, after in pairwise(found):
        if bool(before["_deleted_at"]) != bool(after["_deleted_at"]):
            changes.append(_end(after, "deleted" if after["_deleted_at"] else "restored"))
        changes += [
            Change(
                at=_utc(after["_valid_from"]),
                event="changed",
                field=change.field,
                before=change.before,
                after=change.after,
                before_label=labels.of(change.field, change.before, before),
                after_label=labels.of(change.field, change.after, after),
                run_id=after["_run_id"],
            )
            for change in history.changed_fields(before, after, labels.columns)
            if not any(
                edit.field == change.field
                and _order(before["_valid_from"]) < _order(edit.at) <= _order(after["_valid_from"])
                for edit in edits
            )
        ]
    return sorted([*edits, *changes], key=lambda change: _order(change.at))


def _edits(connection: duckdb.DuckDBPyConnection, stream: Stream, id: str, labels: _Labels) -> list[Change]:
    """The edits of a record in its changelog, as far as that was synced."""
    if not stream.changelog or not history.has_table(connection, stream.changelog):
        return []
    changelog = catalogue.stream(stream.changelog)
    owner = next(column for column, other in changelog.labels.items() if other == stream.name)
    rows = connection.execute(
        "SELECT time, field_key, old_value, new_value, actor_user_id::VARCHAR, _run_id"
        f" FROM {quoted('main', changelog.name)} WHERE {quoted(owner)}::VARCHAR = ? AND time IS NOT NULL"
        " ORDER BY time, id",
        [id],
    ).fetchall()
    return [
        Change(
            at=_utc(time),
            event="edited",
            field=labels.column_of(key),
            before=old,
            after=new,
            before_label=labels.of_text(key, old),
            after_label=labels.of_text(key, new),
            run_id=run_id,
            by=labels.name("users", actor) if actor else None,
        )
        for time, key, old, new, actor, run_id in rows
    ]


def _end(row: Row, event: str) -> Change:
    return Change(_utc(row["_valid_from"]), event, None, None, None, run_id=row["_run_id"])


def _utc(moment: datetime | str) -> datetime | str:
    return moment if isinstance(moment, str) else moment.astimezone(UTC)


def _order(moment: datetime | str) -> datetime:
    """Where a time stands among others; all before the year 1 and all after 9999 stand together."""
    if isinstance(moment, datetime):
        return moment
    return _FIRST if moment.startswith("-") or moment.endswith("(BC)") else _LAST


class _Labels:
    """Looks up what people call the value of a column."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, stream: Stream) -> None:
        self._connection = connection
        self._references = dict(stream.labels)
        self._beside: dict[str, str] = {}  # column of option ids → the column that holds their labels
        self._columns = {stream.column(name).path(name, "v1").partition("/")[0]: name for name in stream.columns}
        rows = connection.execute(
            "SELECT column_name, field_type, field_code FROM meta.custom_fields WHERE entity = ?", [stream.name]
        ).fetchall()
        types = catalogue.field_types()
        for column, kind, code in rows:
            self._columns[code] = column
            if kind in _POINTS_TO:
                self._references[column] = _POINTS_TO[kind]
            elif kind in types and types[kind].options:
                many = types[kind].columns["value"].endswith("[]")
                self._beside[column] = f"{column}_labels" if many else f"{column}_label"
        self._options = {
            (code, option): label
            for code, option, label in connection.execute(
                "SELECT field_code, option_id, label FROM meta.field_options WHERE entity = ?", [stream.name]
            ).fetchall()
        }
        self._names: dict[tuple[str, str], str | None] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that hold nothing but labels."""
        return tuple(self._beside.values())

    def of(self, field: str, value: Any, row: Row) -> str | None:
        """The label of `value`, which `field` has in `row`."""
        if value is None or field.startswith("_extra"):
            return None
        if field in self._beside:
            label = row.get(self._beside[field])
            return ", ".join(str(each) for each in label if each) if isinstance(label, list) else label
        if field in self._references:
            return self.name(self._references[field], str(value))
        code = "label" if field == "label_ids" and not any(c == field for c, _ in self._options) else field
        found = [self._options.get((code, str(each))) for each in (value if isinstance(value, list) else [value])]
        return ", ".join(label for label in found if label) or None

    def column_of(self, key: str) -> str:
        """The column of what v1 calls `key`; `key` itself where there is none."""
        return self._columns.get(key, key)

    def of_text(self, key: str, value: str | None) -> str | None:
        """The label of a value that the changelog has written as text, of the field that v1 calls `key`."""
        if value is None:
            return None
        column = self.column_of(key)
        if column in self._references:
            return self.name(self._references[column], value)
        codes = (key, column)
        found = [next(filter(None, (self._options.get((c, each)) for c in codes)), None) for each in value.split(",")]
        return ", ".join(label for label in found if label) or None

    def name(self, other: str, id: str) -> str | None:
        """What people call the record `id` of the stream `other`, where the warehouse knows it."""
        if (other, id) not in self._names:
            stream = catalogue.stream(other)
            row = None
            if history.has_table(self._connection, other):
                row = first(
                    self._connection.execute(
                        f"SELECT {quoted(stream.title)}::VARCHAR FROM {quoted('main', other)}"
                        f" WHERE {quoted(stream.key)}::VARCHAR = ?",
                        [id],
                    )
                )
            self._names[other, id] = row[0] if row else None
        return self._names[other, id]
