"""The custom fields of a company: their types, their columns, and how they changed."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - part of a struct

from msgspec import Struct


class FieldType(Struct, frozen=True, forbid_unknown_fields=True):
    """The columns of a type of custom field, by the parts of a value, the part "value" first."""

    columns: dict[str, str]
    options: bool = False  # the value is an option's id, or a list of them
    ref: bool = False  # the value may come as an object with the id


class CustomField(Struct, frozen=True):
    """A custom field, and its column, which never changes."""

    stream: str
    code: str  # 40 hexadecimal digits; the only name of a field that never changes
    type: str
    label: str
    column: str
    first_seen: datetime
    last_seen: datetime


class SchemaChange(Struct, frozen=True):
    """A difference in a stream's fields from the run before."""

    stream: str
    kind: str  # field_added, field_renamed, field_retyped, field_gone, unknown_key, unfit_value
    name: str
    detail: str
