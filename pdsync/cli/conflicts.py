"""Says in plain lines what a conflict is about: the value as planned, as it is now, and as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.cli import render
from pdsync.core import catalogue
from pdsync.writeback.equality import equivalent, fields, value_in

if TYPE_CHECKING:
    from pdsync.model import Mutation
    from pdsync.writeback.resolver import NameResolver


def describe_conflict(names: NameResolver, mutation: Mutation) -> list[str]:
    """Of a mutation that met a conflict, a line for each field whose value was another by then."""
    if mutation.state != "conflict" or not mutation.after_image:
        return []
    operation, record = catalogue.operation(mutation.operation), mutation.after_image
    planned = {**(mutation.base_image or {}), **(mutation.expected or {})}
    body = {name: value for name, value in mutation.payload.items() if name not in operation.path_params}
    lines = []
    for field, wanted in fields(body):
        is_planned, before = value_in(planned, field)
        is_shown, now = value_in(record, field)
        if not (is_planned and is_shown) or equivalent(before, now):
            continue
        texts = [render.brief(_amount(names.display_value(operation, field, each))) for each in (before, now, wanted)]
        when = f" (record changed at {record['update_time']})" if record.get("update_time") else ""
        lines.append(
            f"{names.label(operation, field)} was {texts[0]} when planned, now {texts[1]}{when}, you want {texts[2]}"
        )
    return lines


def _amount(value: Any) -> str:
    return render.cell(value, counts=True) or "empty"
