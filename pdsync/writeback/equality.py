"""Decides whether a record shows what was sent: the API returns the same value in several forms.

A reference comes as an id or as an object with one, a number as text, a list as text with commas, a time with or
without milliseconds, an unset field as null, "" or not at all. These rules hold for all operations.
"""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_HEX = re.compile(r"[0-9a-f]{40}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?")
_CLOCK = re.compile(r"\d\d?:\d\d(:\d\d)?")


def fields(payload: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields of a payload, those inside `custom_fields` as `custom_fields/<code>`."""
    for name, value in payload.items():
        if name == "custom_fields" and isinstance(value, dict):
            yield from ((f"custom_fields/{code}", inner) for code, inner in value.items())
        else:
            yield name, value


def value_in(record: Mapping[str, Any], field: str) -> tuple[bool, Any]:
    """Whether a record shows `field`, and its value. An unset custom field may be left out."""
    name, _, code = field.partition("/")
    if code:
        stored = record.get(name)
        if isinstance(stored, dict):
            return True, stored.get(code)
        return (True, record[code]) if code in record else (False, None)
    if _HEX.fullmatch(name[:40]):  # v1 leaves unset ones out
        return True, record.get(name)
    return name in record, record.get(name)


def snapshot_fields(record: Mapping[str, Any], payload: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a record has in the fields that `payload` sets."""
    return {field: value for field, _ in fields(payload) for is_shown, value in [value_in(record, field)] if is_shown}


def changed_fields(record: Mapping[str, Any], desired: Mapping[str, Any], *, exact: bool = False) -> list[str]:
    """The fields of `desired` (by their names in `fields`) in which a record shows something else: see `equivalent`."""
    changed = []
    for field, value in desired.items():
        is_shown, stored = value_in(record, field)
        if is_shown and not equivalent(value, stored, exact=exact):
            changed.append(field)
    return changed


def fields_not_returned(record: Mapping[str, Any], payload: Mapping[str, Any]) -> list[str]:
    """The fields of a payload that a record does not have: whether they were applied is not known."""
    return [field for field, _ in fields(payload) if not value_in(record, field)[0]]


def equivalent(sent: Any, stored: Any, *, exact: bool = False) -> bool:
    """Whether `stored`, the value that a record shows, is the value that was `sent`.

    A text that was sent may be cleaned on arrival: its spaces, and its tags. A flag that was emptied may be off. With
    `exact` only the spaces around a text may differ from what is sent: this decides whether it has to be sent at all.
    """
    if _is_blank(sent) or _is_blank(stored):
        return _is_blank(sent) and (_is_blank(stored) or (stored is False and not exact))
    if isinstance(sent, bool) or isinstance(stored, bool):
        return _parse_flag(sent) is not None and _parse_flag(sent) == _parse_flag(stored)
    if isinstance(sent, dict):
        return _parts_match(sent, stored, exact=exact)
    if isinstance(sent, list):
        return _items_match(sent, stored, exact=exact)
    if isinstance(stored, dict):  # a reference that came as an object
        inner = next((stored[key] for key in ("value", "id") if key in stored), None)
        return inner is not None and equivalent(sent, inner, exact=exact)
    if isinstance(stored, list):  # a set that was sent as text
        return isinstance(sent, str | int) and _items_match(str(sent).split(","), stored, exact=exact)
    return _texts_match(sent, stored, exact=exact)


def as_reference(value: Any) -> Any:
    """A reference that the API returned as an object, as the id that it takes; any other value as it is."""
    if isinstance(value, dict) and ("id" in value or "value" in value) and ("name" in value or "email" in value):
        return value.get("id", value.get("value"))
    return value


def _parts_match(sent: dict[str, Any], stored: Any, *, exact: bool) -> bool:
    if isinstance(stored, dict):
        if "label" in sent and "value" not in sent and "label" in stored:  # an option: Pipedrive sets id and colour
            return str(sent["label"]).split() == str(stored["label"]).split()
        return all(
            equivalent(value, stored.get(part), exact=exact)
            for part, value in sent.items()
            if part != "currency" or part in stored
        )
    return set(sent) == {"value"} and equivalent(sent["value"], stored, exact=exact)


def _items_match(sent: list[Any], stored: Any, *, exact: bool) -> bool:
    if isinstance(stored, str | int | float):
        stored = str(stored).split(",")
    if not isinstance(stored, list) or len(sent) != len(stored):
        return False
    unmatched = list(stored)
    for item in sent:
        match = next((i for i, other in enumerate(unmatched) if equivalent(item, other, exact=exact)), None)
        if match is None:
            return False
        del unmatched[match]
    return True


def _texts_match(sent: Any, stored: Any, *, exact: bool) -> bool:
    one, other = str(sent).strip(), str(stored) if exact else str(stored).strip()
    if one == other:
        return True
    # Two texts are no numbers: the postcode "0012" is not "12", and the phone number "+49 30" is not "49 30".
    if not (isinstance(sent, str) and isinstance(stored, str)):
        numbers = _parse_number(one), _parse_number(other)
        if None not in numbers:
            return numbers[0] == numbers[1]
    moments = _parse_moment(one), _parse_moment(other)
    if None not in moments:
        return moments[0] == moments[1]
    if _CLOCK.fullmatch(one) and _CLOCK.fullmatch(other):
        return _parse_clock(one) == _parse_clock(other)
    if exact:  # what Pipedrive does to every text does not have to be sent again
        return one.splitlines() == html.unescape(other).splitlines()
    if "<" in one or "&" in other:  # rich text: it is cleaned on arrival
        return _split_words(one) == _split_words(other)
    return one.split() == other.split()


def _is_blank(value: Any) -> bool:
    """Whether a value is empty, or an object without a part that is set: `{"value": null, "currency": null}`."""
    if isinstance(value, dict):
        return all(_is_blank(part) for part in value.values())
    return value is None or value in ("", [])


def _parse_flag(value: Any) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower())


def _parse_number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _parse_moment(text: str) -> datetime | None:
    if not _TIME.match(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).replace(microsecond=0)


def _parse_clock(text: str) -> tuple[int, ...]:
    parts = [int(part) for part in text.split(":")]
    return tuple([*parts, 0][:3])


def _split_words(text: str) -> list[str]:
    return html.unescape(re.sub(r"<[^>]*>", " ", text)).split()
