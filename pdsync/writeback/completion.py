"""Completes the payload of an update with the parts that only the record has.

Those are the currency of an amount and other parts that the payload leaves out, the labels of e-mail addresses and
phone numbers, and, under policy `append`, the entries that a list has already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.writeback.equality import equivalent
from pdsync.writeback.typed_values import complete_contacts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pdsync.model import Operation


def complete(
    operation: Operation,
    payload: Mapping[str, Any],
    record: Mapping[str, Any],
    *,
    append: bool,
    currency: str | None,
) -> dict[str, Any]:
    """The payload of an update of `record`, completed.

    Args:
        operation: the update.
        payload: its parameters by name.
        record: as it is now.
        append: add to the lists of the record instead of replacing them.
        currency: of amounts for which neither the payload nor the record names one.
    """
    completed = {
        name: complete_contacts(value, _only_objects(record.get(name))) if _lacks_labels(value) else value
        for name, value in payload.items()
    }
    for name, value in completed.items():
        if name in operation.body and name != "custom_fields" and _is_amount_or_address(record.get(name)):
            completed[name] = _add_parts(value, record[name])
    custom = completed.get("custom_fields")
    if isinstance(custom, dict):
        current = record.get("custom_fields") or {}
        completed["custom_fields"] = {
            code: _complete_custom(value, current.get(code), record, append=append, currency=currency)
            for code, value in custom.items()
        }
    if append:
        for name, value in completed.items():
            if name in operation.body and name != "custom_fields":
                completed[name] = _append(value, record.get(name))
    return completed


def append_again(
    operation: Operation, planned: Mapping[str, Any], queued: Mapping[str, Any], record: Mapping[str, Any]
) -> dict[str, Any]:
    """The payload of a plan with its lists appended to those that `record` has by now.

    Args:
        operation: the update.
        planned: the payload as the plan has completed it.
        queued: the payload before that.
        record: as it is now.
    """
    now = complete(operation, queued, record, append=True, currency=None)
    lists: dict[str, Any] = {
        name: value for name, value in now.items() if name in operation.body and isinstance(value, list)
    }
    custom = now.get("custom_fields")
    if isinstance(custom, dict):
        own = {code: value for code, value in custom.items() if isinstance(value, list)}
        lists["custom_fields"] = {**planned["custom_fields"], **own}
    return {**planned, **lists}


def _complete_custom(value: Any, current: Any, record: Mapping[str, Any], *, append: bool, currency: str | None) -> Any:
    """The value of a custom field, completed: a list under policy `append`, an object always."""
    if append and isinstance(value, list):
        return _append(value, current)
    return _add_currency(_add_parts(value, current), current, record, currency)


def _add_currency(value: Any, current: Any, record: Mapping[str, Any], default: str | None) -> Any:
    if not isinstance(value, dict) or set(value) != {"value"} or not isinstance(value["value"], int | float):
        return value
    own = current.get("currency") if isinstance(current, dict) else None
    return {**value, "currency": own or record.get("currency") or default}


def _add_parts(value: Any, current: Any) -> Any:
    """A value of several parts with the parts that only the record has: the API empties those that it isn't sent.

    The parts of an address belong to one address: a new address gets none of the old one's parts.
    """
    if not isinstance(value, dict) or "$ref" in value or not isinstance(current, dict):
        return value
    if "value" in value and "formatted_address" in current:
        return value
    kept = {part: inner for part, inner in current.items() if inner is not None and part != "timezone_id"}
    return {**kept, **value}


def _is_amount_or_address(current: Any) -> bool:
    """Whether a built-in value is the amount of a lead, or an address: other objects are settings, sent as they are."""
    return isinstance(current, dict) and ("amount" in current or "formatted_address" in current)


def _append(value: Any, current: Any) -> Any:
    """The current list and the new entries, each once; a value that is no list as it is."""
    if not isinstance(value, list):
        return value
    kept = list(current) if isinstance(current, list) else []
    return kept + [
        {**each, "primary": False} if isinstance(each, dict) and kept and "primary" in each else each
        for each in value
        if not any(_is_same_entry(each, other) for other in kept)
    ]


def _is_same_entry(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict) and "value" in one:
        return str(one["value"]).lower() == str(other.get("value")).lower()
    return equivalent(one, other)


def _lacks_labels(value: Any) -> bool:
    """Whether it is a list of contacts in which a label is missing, or in which none is the main one."""
    if not isinstance(value, list) or not value:
        return False
    if not all(isinstance(each, dict) and "value" in each for each in value):
        return False
    return not all("label" in each for each in value) or not any("primary" in each for each in value)


def _only_objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
