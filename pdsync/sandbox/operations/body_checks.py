"""Checks what was sent against the types that the documents give the values of a body.

Assumption: null is allowed wherever a value is, but not inside a list; a list of plain values may come as text with
commas.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from pdsync.sandbox.protocol.errors import bad_request

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pdsync.sandbox.company.table import Record

TYPES: dict[str, Any] = {"int": (int,), "num": (int, float), "bool": (bool, int)}
TYPES |= dict.fromkeys(("str", "date", "time", "uuid"), (str,))


def check_types(sent: Record, shape: Any, *, is_form: bool = False) -> None:
    """Check each value of an object that `shape` knows; those of a form are texts, of which choices are checked.

    Raises:
        Refused: 400, a value is not of the type that the documents give it.
    """
    for name, value in sent.items() if isinstance(shape, dict) else ():
        _check(name, value, shape.get(name), is_form=is_form)


def _check(name: str, value: Any, shape: Any, *, is_form: bool) -> None:
    if value is None or shape is None:
        return
    if isinstance(shape, str) and ("|" in shape or shape.startswith("#")):
        _check_choice(name, value, shape)
    elif not is_form and not _has_type(value, shape):
        raise bad_request(f"{name} is not of the right type", name)
    elif isinstance(value, dict):
        check_types(value, shape)
    elif isinstance(value, list):
        _check_list(name, value, shape)


def _check_list(name: str, values: list[Any], shape: Any) -> None:
    for each in values if shape else ():
        if each is None:
            raise bad_request(f"{name} has a null", name)
        _check(name, each, shape[0], is_form=False)


def _check_choice(name: str, value: Any, shape: str) -> None:
    choices = shape.removeprefix("#").split("|")  # after # they are numbers, and flags are numbers too
    if str(int(value) if isinstance(value, bool) and shape.startswith("#") else value) not in choices:
        raise bad_request(f"{name} must be one of {', '.join(choices)}", name)


def _has_type(value: Any, shape: Any) -> bool:
    if isinstance(shape, dict):
        return isinstance(value, dict)
    if isinstance(shape, list):
        return isinstance(value, list) or (isinstance(value, str) and not (shape and isinstance(shape[0], dict)))
    if not isinstance(value, TYPES.get(shape, object)) or (isinstance(value, bool) and shape in ("int", "num")):
        return False
    return shape != "date" or not value or _is_date(value)


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text[:10])
    except ValueError:
        return False
    return True


def labels_of(sent: Any) -> list[str]:
    """The labels of a field's options, which come as objects or, in v1, as plain texts; none if nothing was sent."""
    if not isinstance(sent, list | None):
        raise bad_request("options must be a list", "options")
    given = [each.get("label") if isinstance(each, dict) else each for each in sent or ()]
    labels = [label for label in given if isinstance(label, str) and label]
    if len(labels) < len(given):
        raise bad_request("Each option needs a label", "options")
    return labels


def check_option_ids(ids: Iterable[Any], options: Iterable[Record] | None, field_code: str) -> None:
    """Refuse an id that none of the field's options has."""
    known = [option.get("id") for option in options or ()]
    if any(id is None or isinstance(id, bool) or id not in known for id in ids):
        raise bad_request("Each option needs an id that the field has", field_code)
