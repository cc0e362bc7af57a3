"""Decides whether a value sent for a field is valid, and normalises it.

A check is named in `resources` as `kind`, `kind:argument`; a trailing "?" lets null through, "!" marks what a
new record must have. Each returns the value to store or raises a 400 that names the field.
"""

from __future__ import annotations

import math
import re
from datetime import date
from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.clock import from_v1_time, parse_rfc3339
from pdsync.sandbox.company.custom_values import ZONES
from pdsync.sandbox.company.fields import ADDRESS_PARTS
from pdsync.sandbox.protocol.errors import bad_request
from pdsync.sandbox.protocol.messages import is_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.fields import Field

HOUR = re.compile(r"\d{1,3}:[0-5]\d(:[0-5]\d)?")
CURRENCY = re.compile(r"[A-Z]{3}")


def check(spec: str, value: Any, code: str, company: Company, kind: str) -> Any:
    name, _, argument = spec.rstrip("?!").partition(":")
    if value is None:
        if spec.endswith("?") or name in ("labels", "contacts", "custom", "prices"):
            return {"custom": {}}.get(name, [] if name in ("labels", "contacts", "prices") else None)
        raise bad_request(f"{code} cannot be null", code)
    return CHECKS[name](value, code, company, argument or kind)


def _text(value: Any, code: str, *_: Any) -> str:
    if not isinstance(value, str):
        raise bad_request(f"{code} must be a string", code)
    if code in ("title", "name", "subject") and not value.strip():
        raise bad_request(f"{code} must not be empty", code)
    return value


def _number(value: Any, code: str, *_: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise bad_request(f"{code} must be a number", code)
    return value


def _integer(value: Any, code: str, *_: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise bad_request(f"{code} must be an integer", code)
    return value


def _percent(value: Any, code: str, *_: Any) -> float:
    if not 0 <= _number(value, code) <= 100:
        raise bad_request(f"{code} must be from 0 to 100", code)
    return float(value) if isinstance(value, float) else int(value)


def _bool(value: Any, code: str, *_: Any) -> bool:
    if not isinstance(value, bool):
        raise bad_request(f"{code} must be true or false", code)
    return value


def _date(value: Any, code: str, *_: Any) -> str:
    try:
        return date.fromisoformat(_text(value, code)).isoformat()
    except ValueError:
        raise bad_request(f"{code} must be a date, YYYY-MM-DD", code) from None


def _time(value: Any, code: str, *_: Any) -> str:
    text = _text(value, code)
    try:
        return parse_rfc3339(text) if "T" in text else from_v1_time(text)
    except ValueError:
        raise bad_request(f"{code} must be a time in RFC3339 format", code) from None


def _hour(value: Any, code: str, *_: Any) -> str:
    text = _text(value, code)
    if not HOUR.fullmatch(text):
        raise bad_request(f"{code} must be HH:MM or HH:MM:SS", code)
    return text if text.count(":") == 2 else f"{text}:00"


def _one_of(value: Any, code: str, _: Company, allowed: str) -> str:
    if value not in allowed.split(","):
        raise bad_request(f"{code} must be one of {allowed.replace(',', ', ')}", code)
    return str(value)


def _currency(value: Any, code: str, *_: Any) -> str:
    if not isinstance(value, str) or not CURRENCY.fullmatch(value):
        raise bad_request(f"{code} must be a currency code such as EUR", code)
    return value


def _visible_to(value: Any, code: str, *_: Any) -> int:
    if value not in (1, 3, 5, 7) or isinstance(value, bool):
        raise bad_request(f"{code} must be 1, 3, 5 or 7", code)
    return int(value)


def _reference(value: Any, code: str, company: Company, kind: str) -> int:
    row = company[kind].rows.get(_integer(value, code))
    if row is None or row.state == "deleted":
        raise bad_request(f"{code}: {value} does not exist", code)
    return row.id


def _is_one_of(id: Any, known: set[Any]) -> bool:
    return isinstance(id, int) and not isinstance(id, bool) and id in known


def _labels(value: Any, code: str, company: Company, kind: str) -> list[int]:
    known = company.fields[kind].option_ids("label_ids")
    if not isinstance(value, list) or not all(_is_one_of(id, known) for id in value):
        raise bad_request(f"{code} must be a list of label ids that exist", code)
    return list(dict.fromkeys(value))


def _contacts(value: Any, code: str, *_: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(c, dict) and isinstance(c.get("value"), str) for c in value):
        raise bad_request(f"{code} must be a list of {{value, primary, label}}", code)
    has_primary = any(c.get("primary") for c in value)
    return [
        {
            "value": c["value"],
            "primary": bool(c.get("primary")) if has_primary else at == 0,
            "label": c.get("label") or "work",
        }
        for at, c in enumerate(value)
    ]


def _address(value: Any, code: str, *_: Any) -> dict[str, Any]:
    if isinstance(value, str):
        value = {"value": value}
    if not isinstance(value, dict) or not isinstance(value.get("value"), str):
        raise bad_request(f"{code} must be an address with a value", code)
    if strange := set(value) - {"value", *ADDRESS_PARTS}:
        raise bad_request(f"{code}: {min(strange)!r} is no part of an address", code)
    return {part: value.get(part) for part in ("value", *ADDRESS_PARTS)}


def _prices(value: Any, code: str, *_: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(price, dict) for price in value):
        raise bad_request(f"{code} must be a list of prices", code)
    made = []
    for price in value:
        _currency(price.get("currency"), "prices.currency")
        numbers = {name: price.get(name) for name in ("price", "cost", "direct_cost")}
        for name, number in numbers.items():
            if number is not None:
                _number(number, f"prices.{name}")
        price_ = numbers["price"] if numbers["price"] is not None else 0
        made.append(
            {
                "price": price_,
                "currency": price["currency"],
                "cost": numbers["cost"],
                "direct_cost": numbers["direct_cost"],
                "notes": price.get("notes") or "",
            }
        )
    return made


def _participants(value: Any, code: str, company: Company, _: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise bad_request(f"{code} must be a list of {{person_id, primary}}", code)
    primary = any(one.get("primary") for one in value)
    return [
        {
            "person_id": _reference(one.get("person_id"), code, company, "persons"),
            "primary": bool(one.get("primary")) if primary else at == 0,
        }
        for at, one in enumerate(value)
    ]


def _category(value: Any, code: str, *_: Any) -> str:
    return str(_integer(value, code) if not (isinstance(value, str) and is_number(value)) else value)


def _attendees(value: Any, code: str, *_: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(o, dict) and isinstance(o.get("email"), str) for o in value):
        raise bad_request(f"{code} must be a list of {{email, name, …}}", code)
    names = ("name", "status", "person_id", "user_id")
    return [
        {"email": one["email"], "is_organizer": bool(one.get("is_organizer"))} | {n: one.get(n) for n in names}
        for one in value
    ]


def _custom(value: Any, code: str, company: Company, kind: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad_request(f"{code} must be an object", code)
    known = company.fields[kind].custom
    made = {}
    for key, one in value.items():
        if key not in known:
            raise bad_request(f"custom_fields: {key!r} is no custom field", key)
        made[key] = None if one is None else custom_value(known[key], one, company)
    return made


def custom_value(field: Field, value: Any, company: Company) -> Any:
    """Raises a 400 that names the field when the value does not fit its type."""
    code, known = field.code, {option["id"] for option in field.options or ()}
    if field.type == "enum":
        if not _is_one_of(value, known):
            raise bad_request(f"{field.name!r} has no option {value!r}", code)
        return value
    if field.type == "set":
        if not isinstance(value, list) or not value or not all(_is_one_of(id, known) for id in value):
            raise bad_request(f"{field.name!r} must be a list of option ids, or null", code)
        return sorted(set(value))
    if field.type in PARTS:
        if not isinstance(value, dict):
            raise bad_request(f"{field.name!r} must be an object", code)
        return {
            part: check(spec, value.get(part), code, company, "") for part, spec in PARTS[field.type].items()
        } | _zone(field, value)
    return check(SIMPLE.get(field.type, "text"), value, code, company, "")


def _zone(field: Field, value: dict[str, Any]) -> dict[str, Any]:
    if not field.type.startswith("time"):
        return {}
    # timezone_id has no public table: it is looked up by name, and unknown names have none.
    name = value.get("timezone_name")
    return {"timezone_id": next((id for id, zone in ZONES if zone == name), None), "timezone_name": name}


PARTS = {
    "monetary": {"value": "number", "currency": "currency"},
    "daterange": {"value": "date", "until": "date?"},
    "time": {"value": "hour"},
    "timerange": {"value": "hour", "until": "hour?"},
}
SIMPLE = {
    **dict.fromkeys(("varchar", "varchar_auto", "text", "phone"), "text"),
    "double": "number",
    "int": "integer",
    "boolean": "bool",
    "visible_to": "visible_to",
    "date": "date",
    "address": "address",
    "user": "ref:users",
    "org": "ref:organizations",
    "people": "ref:persons",
    "deal": "ref:deals",
    "stage": "ref:stages",
}
CHECKS: dict[str, Callable[..., Any]] = {
    "text": _text,
    "number": _number,
    "integer": _integer,
    "percent": _percent,
    "bool": _bool,
    "date": _date,
    "time": _time,
    "hour": _hour,
    "one_of": _one_of,
    "currency": _currency,
    "visible_to": _visible_to,
    "ref": _reference,
    "labels": _labels,
    "contacts": _contacts,
    "address": _address,
    "prices": _prices,
    "participants": _participants,
    "category": _category,
    "attendees": _attendees,
    "custom": _custom,
}
