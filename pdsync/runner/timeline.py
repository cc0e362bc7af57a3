"""Tells the life of one record: what changed in it when, with names in place of ids where the warehouse knows them."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.load import history
from pdsync.sql import first
from pdsync.sql import name as quoted

if TYPE_CHECKING:
    import duckdb

    from pdsync.load.history import Row
    from pdsync.model import Stream

# What the value of a custom field of these types points to.
_POINTS_TO = {"user": "users", "people": "persons", "org": "organizations", "deal": "deals", "stage": "stages"}


class Change(Struct, frozen=True):
    """One thing that happened to a record. Labels are today's names; None where there is none."""

    at: datetime
    event: str  # first_seen, changed, deleted, restored
    field: str | None
    before: Any
    after: Any
    before_label: str | None = None
    after_label: str | None = None
    run_id: str | None = None  # the run that brought it


def timeline(connection: duckdb.DuckDBPyConnection, stream: Stream, id: str) -> list[Change]:
    """What happened to the record `id` of `stream`, oldest first.

    Raises:
        ConfigError: the stream was never synced, or there is no such record.
    """
    if not history.has_table(connection, stream.name):
        raise ConfigError(f"{stream.name} was never synced: pdsync sync {stream.name}")
    found = history.versions(connection, stream.name, stream.key, id)
    if not found:
        raise ConfigError(
            f"There is no record {id!r} in {stream.name}: none with this {stream.key} was ever synced.\n"
            f'Look for it: pdsync sql "from {stream.name} limit 10"'
        )
    labels = _Labels(connection, stream)
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
        ]
    return changes


def _end(row: Row, event: str) -> Change:
    return Change(_utc(row["_valid_from"]), event, None, None, None, run_id=row["_run_id"])


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


class _Labels:
    """Looks up what people call the value of a column."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, stream: Stream) -> None:
        self._connection = connection
        self._references = dict(stream.labels)
        self._beside: dict[str, str] = {}  # column of option ids → the column that holds their labels
        rows = connection.execute(
            "SELECT column_name, field_type FROM meta.custom_fields WHERE entity = ?", [stream.name]
        ).fetchall()
        types = catalogue.field_types()
        for column, kind in rows:
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
            return self._name(self._references[field], str(value))
        code = "label" if field == "label_ids" and not any(c == field for c, _ in self._options) else field
        found = [self._options.get((code, str(each))) for each in (value if isinstance(value, list) else [value])]
        return ", ".join(label for label in found if label) or None

    def _name(self, other: str, id: str) -> str | None:
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
