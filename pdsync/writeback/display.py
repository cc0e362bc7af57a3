"""Shows the values of a change as people read them, with every part that a record keeps: nothing is written unseen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.writeback.equality import as_reference

if TYPE_CHECKING:
    from collections.abc import Mapping

_USUAL_LABEL = "work"  # of an e-mail address or a phone number
_MONEY = {"value", "amount", "currency"}
_MAIN = ("value", "label", "name")


def display_object(value: Mapping[str, Any]) -> Any:
    """An object as people read it: the main part, then the others that are set.

    A reference is its id, and an amount of money its number, as people see the currency beside it. A range is shown
    from its beginning to its end.
    """
    reference = as_reference(value)
    if reference is not value:
        return reference
    if "currency" in value and set(value) <= _MONEY and len(value) > 1:
        return value.get("value", value.get("amount"))
    main = next((name for name in _MAIN if name in value), None)
    left_out = {main, "timezone_id" if value.get("timezone_name") else None}
    rest = [f"{name} {_text(part)}" for name, part in value.items() if name not in left_out and _is_set(part)]
    if main is None:
        return ", ".join(rest) or None
    begin = None if value[main] is None else _text(value[main])
    if "until" in value:
        rest = [each for each in rest if not each.startswith("until ")]
        begin = f"{begin or '…'} – {value['until'] or '…'}" if begin or value["until"] else None
    return f"{begin or '–'} ({', '.join(rest)})" if rest else begin


def display_entries(entries: list[Any]) -> list[Any]:
    """A list of objects as people read it. Of contact data the label is shown if it is not the usual one."""
    return [
        _contact(each, is_one_of_many=len(entries) > 1)
        if isinstance(each, dict) and "value" in each
        else display_object(each)
        if isinstance(each, dict)
        else each
        for each in entries
    ]


def display_in_full(value: Any) -> Any:
    """A value with what is usually left out: the usual label of a contact, and which of them is the main one."""
    if not isinstance(value, list):
        return value
    return [
        _with_notes(each["value"], [each.get("label"), "main" if each.get("primary") else None])
        if isinstance(each, dict) and "value" in each
        else each
        for each in value
    ]


def _contact(entry: Mapping[str, Any], *, is_one_of_many: bool) -> Any:
    label = entry.get("label")
    notes = [None if label == _USUAL_LABEL else label, "main" if entry.get("primary") and is_one_of_many else None]
    return _with_notes(entry["value"], notes)


def _with_notes(value: Any, notes: list[Any]) -> Any:
    shown = ", ".join(str(note) for note in notes if note)
    return f"{value} ({shown})" if shown else value


def _is_set(part: Any) -> bool:
    return part is not None and part not in ("", [])


def _text(part: Any) -> str:
    if isinstance(part, dict):
        return str(display_object(part))
    return ", ".join(map(_text, part)) if isinstance(part, list) else str(part)
