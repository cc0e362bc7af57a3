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
    left_out = {main, main and "until", "timezone_id" if value.get("timezone_name") else None}
    rest = [f"{name} {_text(part)}" for name, part in value.items() if name not in left_out and _is_set(part)]
    if main is None:
        return ", ".join(rest) or None
    begin = None if value[main] is None else _text(value[main])
    if "until" in value:
        begin = f"{begin or '…'} – {value['until'] or '…'}" if begin or value["until"] else None
    return f"{begin or '–'} ({', '.join(rest)})" if rest else begin


def display_entries(entries: list[Any]) -> list[Any]:
    """A list of objects as people read it. Of contact data the label is shown if it is not the usual one."""
    return [
        _contact(each, _USUAL_LABEL, is_alone=len(entries) == 1)
        if _is_contact(each)
        else display_object(each)
        if isinstance(each, dict)
        else each
        for each in entries
    ]


def display_in_full(value: Any) -> Any:
    """A value with what is usually left out: the usual label of a contact, and which of them is the main one."""
    return [_contact(each) if _is_contact(each) else each for each in value] if isinstance(value, list) else value


def _is_contact(entry: Any) -> bool:
    return isinstance(entry, dict) and "value" in entry


def _contact(entry: Mapping[str, Any], usual_label: str = "", *, is_alone: bool = False) -> Any:
    """An e-mail address or a phone number, with its label and whether it is the main one, where that says something."""
    label = entry.get("label")
    notes = [None if label == usual_label else label, "main" if entry.get("primary") and not is_alone else None]
    shown = ", ".join(str(note) for note in notes if note)
    return f"{entry['value']} ({shown})" if shown else entry["value"]


def _is_set(part: Any) -> bool:
    return part is not None and part not in ("", [])


def _text(part: Any) -> str:
    if isinstance(part, dict):
        return str(display_object(part))
    return ", ".join(map(_text, part)) if isinstance(part, list) else str(part)
