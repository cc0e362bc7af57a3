"""Makes entries of the outbox from the values of people, files and queries: every name resolved, every value checked.

Every error that can be found without a request is reported: an unknown operation, field, option or name, a missing or
wrong value, a file that can't be read.
"""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from msgspec import Struct, structs

from pdsync.core import catalogue, cells
from pdsync.core.request_builder import check
from pdsync.errors import ConfigError
from pdsync.writeback.equality import fields
from pdsync.writeback.messages import row_reason
from pdsync.writeback.outbox import Entry, Reference
from pdsync.writeback.prepared import body_of
from pdsync.writeback.shapes import describe_self_link, is_field_of_record, shape
from pdsync.writeback.typed_values import InvalidValue, refuse_not_finite

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pdsync.model import Mutation, Operation
    from pdsync.writeback.resolver import NameResolver
    from pdsync.writeback.typed_values import NumberStyle

# Columns of a row that are not sent: its name in the batch, its deduplication key, its operation, and the values that
# the record has to have, or the change is a conflict.
AS, KEY, OPERATION, EXPECTED = "_as", "_key", "_operation", "_expected"
NOT_SENT = (AS, KEY, OPERATION, EXPECTED)
_SAMPLES: dict[str, Any] = {"integer": 1, "string:uuid": "00000000-0000-0000-0000-000000000000"}


class BadRow(Struct, frozen=True):
    """A row that can't be queued, and why."""

    number: int  # from 1 on
    row: dict[str, Any]
    why: str


def find_operation(name: str) -> Operation:
    """The operation with this name; it changes data and still exists.

    Raises:
        CatalogueError: there is none with this name.
        ConfigError: it only reads, is gone, or is a step of signing in; says what to use instead.
    """
    operation = catalogue.operation(name)
    if why := catalogue.why_removed(operation):
        raise ConfigError(f"{why}\nNothing was queued.")
    if not operation.mutates:
        raise ConfigError(f"{operation.name} only reads: run it with pdsync api {operation.id}. Nothing was queued.")
    if operation.host:
        raise ConfigError(f"{operation.name} is part of signing in: run pdsync auth login. Nothing was queued.")
    return operation


def make_entry(
    names: NameResolver,
    operation: Operation,
    given: Mapping[str, object],
    *,
    key: str | None = None,
    name: str | None = None,
    styles: Mapping[str, NumberStyle] | None = None,
) -> Entry:
    """One change, as an entry of the outbox.

    Args:
        names: of the company.
        given: parameters by name: of the API, of the table's columns, or labels of custom fields.
        key: a second entry with this key is not queued.
        name: by which other entries of the batch refer to the record that it adds.
        styles: by column, how its numbers are written; without it each value has to be unambiguous.

    Raises:
        ConfigError: a name or a value is wrong; says which, and what would be right. Nothing was queued.
    """
    shaped = shape(operation)
    params = _as_json(names.resolve(operation, _refuse_infinite(operation, given), styles))
    params |= {  # "012" is the record 12: changes of one record are sent in order
        field: str(int(value))
        for field, param in operation.path_params.items()
        if param.type == "integer" and isinstance(value := params.get(field), str) and value.isdecimal()
    }
    if name is not None and shaped.verb != "add":
        raise ConfigError(
            f"{operation.name} adds no record that others could refer to as {name!r}. Nothing was queued."
        )
    declared = {**operation.path_params, **operation.query, **operation.body}
    references = {
        field: Reference(value[1:])
        for field, value in params.items()
        if isinstance(value, str)
        and value.startswith("@")
        and field in declared  # v1 has custom fields beside the parameters
        and declared[field].type in _SAMPLES
        and not declared[field].enum
    }
    sample = {field: _SAMPLES[declared[field].type] for field in references}
    call = check(operation, params | sample)
    if shaped.verb == "update" and not call.body:
        raise ConfigError(f"{operation.name} would set nothing. Nothing was queued. Name a field: key=value.")
    for path in call.files.values():
        if not path.is_file():
            raise ConfigError(f"{path} is not a file. Nothing was queued.")
    body = {"body": call.body} if operation.body_list else call.body if isinstance(call.body, dict) else {}
    payload = (
        {field: value for field, value in params.items() if field not in operation.body or operation.body_list}
        | body
        | {field: str(path.absolute()) for field, path in call.files.items()}
        | references
    )
    if wrong := describe_self_link(operation, payload):
        raise ConfigError(f"{operation.name}: {wrong}. Nothing was queued.")
    ids = {field: None if field in references else value for field, value in payload.items()}
    target = None if shaped.verb == "add" and not shaped.path_params else shaped.target(ids)
    return Entry(operation.name, shaped.verb, shaped.kind, target, payload, key, name)


def make_entries(
    names: NameResolver,
    operation: Operation,
    rows: Iterable[Mapping[str, Any]],
    *,
    null_clears: bool,
    key: str | None = None,
    styles: Mapping[str, NumberStyle] | None = None,
) -> tuple[list[Entry], list[BadRow]]:
    """One change for each row.

    Args:
        rows: columns by name. Values that are missing (an empty cell) are left out.
        null_clears: whether a null empties the field; otherwise it is left out, too.
        key: the column of deduplication keys.
        styles: by column, how its numbers are written.

    Returns:
        The changes, and the rows that can't be queued.
    """
    good: list[Entry] = []
    bad: list[BadRow] = []
    for number, row in enumerate(rows, 1):
        given = {field: value for field, value in row.items() if field not in NOT_SENT}
        given = {field: value for field, value in given.items() if value is not None or null_clears}
        own_key = row.get(key) if key else row.get(KEY)
        try:
            if key and own_key is None:
                raise ConfigError(f"the column {key!r} is empty, but it should keep rows from being queued twice")
            prefixed = f"{operation.name}:{own_key}" if own_key is not None else None
            as_name = row.get(AS)
            entry = make_entry(
                names,
                operation,
                given,
                key=prefixed,
                name=str(as_name) if as_name is not None else None,
                styles=styles,
            )
            good.append(structs.replace(entry, expected=_expected(names, operation, row.get(EXPECTED))))
        except ConfigError as error:
            bad.append(BadRow(number, dict(row), row_reason(error)))
    return good, bad


def copy_for_retry(mutation: Mutation) -> Entry:
    """A second try of a mutation, as an entry that supersedes it."""
    return Entry(
        mutation.operation,
        mutation.verb,
        mutation.kind,
        mutation.target,
        mutation.payload,
        expected=mutation.expected,
        undo_of=mutation.undo_of,
        supersedes=mutation.id,
    )


def export_rows(mutations: Sequence[Mutation]) -> Iterator[dict[str, Any]]:
    """Rows from which `make_entries` makes the same changes; a record that others refer to gets a name.

    Keys, and what undo and retries refer to (`undo_of`, `supersedes`), are left out. A reference can be resolved
    only if the mutation that it refers to is one of `mutations`.
    """
    referred = {id for each in mutations for id in each.references}
    for each in mutations:
        name: dict[str, Any] = {AS: each.id} if each.id in referred else {}
        expected = {EXPECTED: each.expected} if each.expected else {}
        yield (
            {OPERATION: each.operation}
            | name
            | expected
            | {
                field: f"@{value['$ref']}" if isinstance(value, dict) and "$ref" in value else value
                for field, value in each.payload.items()
            }
        )


def _expected(names: NameResolver, operation: Operation, value: object) -> dict[str, Any] | None:
    """The values that a record has to have, from a row, by the fields as the record shows them.

    In a text file they are JSON. A name that the record does not show would never be compared, so it is refused.
    """
    if value is None or value == "":
        return None
    try:
        read = msgspec.json.decode(value) if isinstance(value, str) else _as_json(value)
        given = msgspec.convert(read, dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"the column {EXPECTED!r} is no JSON object: it has fields with their values") from error
    if shape(operation).verb not in ("update", "delete"):
        raise ConfigError(f"{operation.name} takes no {EXPECTED!r}: only an update or a deletion compares them")
    expected: dict[str, Any] = {}
    for name, wanted in given.items():
        if is_field_of_record(operation, name):
            expected[name] = wanted
        else:
            expected |= dict(fields(body_of(operation, names.resolve(operation, {name: wanted}))))
    return expected


def _refuse_infinite(operation: Operation, given: Mapping[str, object]) -> dict[str, Any]:
    """The values as JSON has them; NaN and infinities, which JSON does not have, are refused."""
    for field, value in given.items():
        try:
            refuse_not_finite(value)
        except InvalidValue as error:
            raise ConfigError(f"{operation.name}: {field} is {value}, and {error}. Nothing was queued.") from error
    return {field: value if isinstance(value, cells.Numeral) else _as_json(value) for field, value in given.items()}


def _as_json(value: object) -> Any:
    """A value of a query or a Parquet file as JSON."""
    if isinstance(value, cells.Numeral):  # it has been read as a number before, where the field is one
        return str(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, dict):
        return {key: _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    return value
