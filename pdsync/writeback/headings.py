"""Resolves the heading of a column, as Pipedrive's own exports write it, to a parameter: `Deal - Title` is `title`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.errors import ConfigError
from pdsync.writeback.param_values import find_parameter, find_part
from pdsync.writeback.shapes import find_stream, shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pdsync.model import Operation, Stream
    from pdsync.writeback.company_names import CompanyNames, Field


def resolve_heading(names: CompanyNames, operation: Operation, heading: str) -> str:
    """The parameter or the label of the custom field that a heading means.

    A heading that is a parameter, a column or a custom field already is returned as it is; so is one that means
    nothing, or several parameters.

    Raises:
        ConfigError: it means both a built-in field and a custom field.
    """
    stream = find_stream(shape(operation).kind)
    params = {**operation.path_params, **operation.query, **operation.body}
    if heading.startswith("_") or stream is None or _is_key(names, operation, stream, heading, params):
        return heading
    entity, dash, rest = heading.partition(" - ")
    label = rest if dash and entity.strip().lower() == _singular(stream) else heading
    custom = _custom_field(names, operation, stream, label) if label != heading else None
    found = {
        name for code in (label.strip().lower().replace(" ", "_"), *names.built_in_codes(stream, label))
        if (name := find_parameter(operation, stream, code, params))
    }  # fmt: skip
    if custom and found:
        raise ConfigError(
            f"{operation.name}: the column {heading!r} means {min(found)}, or the custom field {label!r}. Nothing was"
            f" queued.\nName it {min(found)}, or {custom.column}."
        )
    return label if custom else (found.pop() if len(found) == 1 else heading)


def _singular(stream: Stream) -> str:
    """The name of one record of a stream, as exports write it before the dash."""
    name = f"{stream.name[:-3]}y" if stream.name.endswith("ies") else stream.name.removesuffix("s")
    return name.replace("_", " ")


def _is_key(names: CompanyNames, operation: Operation, stream: Stream, key: str, params: Mapping[str, object]) -> bool:
    """Whether `key` names a parameter, a column or a custom field as it is."""
    return bool(
        key in params
        or find_part(operation, stream, key, "", params)
        or find_parameter(operation, stream, key, params)
        or _custom_field(names, operation, stream, key)
    )


def _custom_field(names: CompanyNames, operation: Operation, stream: Stream, key: str) -> Field | None:
    """The first custom field that `key` may mean."""
    for each in names.custom_fields(stream) if operation.custom_fields else ():
        is_label = each.exists and key.strip().lower() == each.label.strip().lower()
        if is_label or key[:40] == each.code or key.startswith(each.column):
            return each
    return None
