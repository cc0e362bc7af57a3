"""Says in plain lines what a conflict is about: the value as planned, as it is now, and as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.cli import render
from pdsync.core import catalogue
from pdsync.writeback.amounts import find_currency
from pdsync.writeback.equality import equivalent, fields, value_in

if TYPE_CHECKING:
    from pdsync.model import Mutation
    from pdsync.writeback.resolver import NameResolver


def describe_conflict(names: NameResolver, mutation: Mutation) -> list[str]:
    """Of a mutation that met a conflict, a line for each field whose value was another by then."""
    record = mutation.after_image or mutation.base_image  # without an attempt only the record at its end is stored
    if mutation.state != "conflict" or not record:
        return []
    operation = catalogue.operation(mutation.operation)
    planned = {**((mutation.base_image or {}) if mutation.after_image else {}), **(mutation.expected or {})}
    body = {name: value for name, value in mutation.payload.items() if name not in operation.path_params}
    lines = []
    for field, wanted in fields(body):
        is_planned, before = value_in(planned, field)
        is_shown, now = value_in(record, field)
        if not is_shown or equivalent(wanted, now) or (is_planned and equivalent(before, now)):
            continue
        values = (before, now, wanted)
        currencies = [
            find_currency(operation, field, each, {**record, **(body if each is wanted else {})}) for each in values
        ]
        exact = render.exact_texts([names.display_value(operation, field, each) for each in values], currencies)
        texts = [render.brief(each or "empty") for each in exact]
        when = f" (record changed at {record['update_time']})" if record.get("update_time") else ""
        was = f"was {texts[0]} when planned, now {texts[1]}" if is_planned else f"is {texts[1]} now"
        lines.append(f"{names.label(operation, field)} {was}{when}, you want {texts[2]}")
    return lines
