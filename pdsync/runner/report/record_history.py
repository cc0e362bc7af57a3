"""Builds the history of one record: what changed when, with the names of records that ids point to.

It has two sources. The versions of its row are what the syncs have seen: several edits between two syncs are one
change. Pipedrive's changelog, if its stream was synced, has each edit with its author, also from before the first sync.
An edit that both contain is shown once, as in the changelog.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.load import history
from pdsync.runner.report.observed import observed_from
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb

    from pdsync.load.history import Row
    from pdsync.model import Stream

# Type of a custom field → the stream that its values point to.
_POINTS_TO = {"user": "users", "people": "persons", "org": "organizations", "deal": "deals", "stage": "stages"}
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Change(Struct, frozen=True):
    """One event of a record. Labels are today's names; None if there is none."""

    at: datetime | str  # text if the time is outside Python's range
    # created (by its add_time), first_observed (by a sync), changed, edited (from the changelog: values are text),
    # deleted, restored; merged: `after` is the id of the record that it was merged into
    event: str
    field: str | None
    before: Any
    after: Any
    before_label: str | None = None
    after_label: str | None = None
    run_id: str | None = None  # the run that loaded it
    by: str | None = None  # who edited it
    basis: str = "history"  # what it is known from: changelog, history (versions), estimate (the present row)


def build_timeline(connection: duckdb.DuckDBPyConnection, stream: Stream, id: str) -> list[Change]:
    """The events of the record `id` of `stream`, oldest first.

    Raises:
        ConfigError: the stream was never synced, or there is no such record.
    """
    if not history.has_table(connection, stream.name):
        raise ConfigError(f"{stream.name} has never been synced: pdsync sync {stream.name}")
    versions = history.versions(connection, stream.name, stream.key, id)
    if not versions:
        raise ConfigError(
            f"There is no record {id!r} in {stream.name}: none with this {stream.key} was synced.\n"
            f'Look for it: pdsync sql "from {stream.name} limit 10"'
        )
    labels = _Labels(connection, stream)
    edits = _load_edits(connection, stream, id, labels)
    first_version = versions[0]
    changes = _describe_beginning(first_version, stream, edits)
    if first_version["_deleted_at"]:
        changes.append(_lifecycle_change(first_version, "deleted"))
    for before, after in pairwise(versions):
        if bool(before["_deleted_at"]) != bool(after["_deleted_at"]):
            changes.append(_lifecycle_change(after, "deleted" if after["_deleted_at"] else "restored"))
        changes += [
            Change(
                at=_to_utc(after["_valid_from"]),
                event="changed",
                field=change.field,
                before=change.before,
                after=change.after,
                before_label=labels.label_of(change.field, change.before, before),
                after_label=labels.label_of(change.field, change.after, after),
                run_id=after["_run_id"],
            )
            for change in history.changed_fields(before, after, labels.columns)
            if not any(
                edit.field == change.field
                and _sort_key(before["_valid_from"]) < _sort_key(edit.at) <= _sort_key(after["_valid_from"])
                for edit in edits
            )
        ]
    if versions[-1]["_deleted_at"] and (winner := _find_winner(connection, stream, id)):
        last = max(number for number, change in enumerate(changes) if change.event == "deleted")
        label = labels.name_of(stream.name, winner)
        changes[last] = replace(changes[last], event="merged", after=winner, after_label=label)
    return sorted([*edits, *changes], key=lambda change: _sort_key(change.at))


def _describe_beginning(version: Row, stream: Stream, edits: list[Change]) -> list[Change]:
    """When a record was created, where it or its changelog says so, and when a sync first observed it."""
    observed = version["_synced_at"]
    beginning = [
        Change(_to_utc(observed), "first_observed", None, None, version.get(stream.title), run_id=version["_run_id"])
    ]
    created = version.get("add_time")
    if created and not any(edit.event == "created" for edit in edits):
        beginning.insert(0, Change(_to_utc(created), "created", None, None, None, basis="estimate"))
    return beginning


def column_names(connection: duckdb.DuckDBPyConnection, stream: Stream) -> Callable[[str], str]:
    """What gives the column of a field in the changelog of `stream`."""
    return _Labels(connection, stream).column_of


def unknown_until(connection: duckdb.DuckDBPyConnection, stream: Stream, id: str) -> datetime | None:
    """The time from which on the values of a record are known; None: they are for all of its life.

    They are where its first version is as old as the record, where the synced changelog has an entry of it, or where it
    has no time of creation and appeared after its stream's history became complete. The record must have a row.
    """
    first_version = history.versions(connection, stream.name, stream.key, id)[0]
    begins, created = first_version["_valid_from"], first_version.get("add_time")
    if isinstance(begins, str) or isinstance(created, str) or created == begins:
        return None
    if stream.changelog and history.has_table(connection, stream.changelog):
        column = next(name for name, other in catalogue.stream(stream.changelog).labels.items() if other == stream.name)
        query = f"SELECT count(*) FROM {quoted('main', stream.changelog)} WHERE {quoted(column)}::VARCHAR = ?"
        if first(connection.execute(query, [id]))[0]:
            return None
    if created is None:
        since = observed_from(connection).get(stream.name)
        if since and begins > since:
            return None
    moment: datetime = begins.astimezone(UTC)
    return moment


def _find_winner(connection: duckdb.DuckDBPyConnection, stream: Stream, id: str) -> str | None:
    """The id of the record that a record was merged into; None if it was not, or if that is not known."""
    row = connection.execute(
        "SELECT winner_id::VARCHAR FROM meta.merges WHERE entity = ? AND loser_id::VARCHAR = ?", [stream.name, id]
    ).fetchone()
    return row[0] if row else None


def _load_edits(connection: duckdb.DuckDBPyConnection, stream: Stream, id: str, labels: _Labels) -> list[Change]:
    """The edits of a record in its changelog, if that was synced."""
    if not stream.changelog or not history.has_table(connection, stream.changelog):
        return []
    changelog = catalogue.stream(stream.changelog)
    record_column = next(column for column, other in changelog.labels.items() if other == stream.name)
    rows = connection.execute(
        "SELECT time, field_key, old_value, new_value, actor_user_id::VARCHAR, _run_id"
        f" FROM {quoted('main', changelog.name)} WHERE {quoted(record_column)}::VARCHAR = ? AND time IS NOT NULL"
        " ORDER BY time, id",
        [id],
    ).fetchall()
    edits = [
        Change(
            at=_to_utc(time),
            event="edited",
            field=labels.column_of(key),
            before=old,
            after=new,
            before_label=labels.label_of_text(key, old),
            after_label=labels.label_of_text(key, new),
            run_id=run_id,
            by=labels.name_of("users", actor) if actor else None,
            basis="changelog",
        )
        for time, key, old, new, actor, run_id in rows
    ]
    return [
        replace(edit, event="created", field=None, after=None) if edit.field == "add_time" and not edit.before else edit
        for edit in edits
    ]


def _lifecycle_change(row: Row, event: str) -> Change:
    return Change(_to_utc(row["_valid_from"]), event, None, None, None, run_id=row["_run_id"])


def _to_utc(moment: datetime | str) -> datetime | str:
    return moment if isinstance(moment, str) else moment.astimezone(UTC)


def _sort_key(moment: datetime | str) -> datetime:
    """The time to sort by; times before the year 1 are equal, and times after 9999."""
    if isinstance(moment, datetime):
        return moment
    return _FIRST if moment.startswith("-") or moment.endswith("(BC)") else _LAST


class _Labels:
    """Looks up the labels of values: the names of options and of the records that ids point to."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, stream: Stream) -> None:
        self._connection = connection
        self._references = dict(stream.labels)
        self._label_columns: dict[str, str] = {}  # column of option ids → the column of their labels
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
                self._label_columns[column] = f"{column}_labels" if many else f"{column}_label"
        self._options = {
            (code, option): label
            for code, option, label in connection.execute(
                "SELECT field_code, option_id, label FROM meta.field_options WHERE entity = ?", [stream.name]
            ).fetchall()
        }
        self._names: dict[tuple[str, str], str | None] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of labels, which are not compared themselves."""
        return tuple(self._label_columns.values())

    def label_of(self, field: str, value: Any, row: Row) -> str | None:
        """The label of `value`, the value of `field` in `row`."""
        if value is None or field.startswith("_extra"):
            return None
        if field in self._label_columns:
            label = row.get(self._label_columns[field])
            return ", ".join(str(each) for each in label if each) if isinstance(label, list) else label
        if field in self._references:
            return self.name_of(self._references[field], str(value))
        code = "label" if field == "label_ids" and not any(c == field for c, _ in self._options) else field
        found = [self._options.get((code, str(each))) for each in (value if isinstance(value, list) else [value])]
        return ", ".join(label for label in found if label) or None

    def column_of(self, key: str) -> str:
        """The column of the v1 field `key`; `key` itself if there is none."""
        return self._columns.get(key, key)

    def label_of_text(self, key: str, value: str | None) -> str | None:
        """The label of a value in the changelog, which is text, of the v1 field `key`."""
        if value is None:
            return None
        column = self.column_of(key)
        if column in self._references:
            return self.name_of(self._references[column], value)
        codes = (key, column)
        found = [next(filter(None, (self._options.get((c, each)) for c in codes)), None) for each in value.split(",")]
        return ", ".join(label for label in found if label) or None

    def name_of(self, other: str, id: str) -> str | None:
        """The name of the record `id` of the stream `other`, if the warehouse has it."""
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
