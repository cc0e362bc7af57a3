"""Reads a v1 body into v2 names and types, so that one set of rules serves both versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.fields import ADDRESS_PARTS
from pdsync.sandbox.protocol.errors import bad_request

if TYPE_CHECKING:
    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.fields import Field
    from pdsync.sandbox.company.resources import Resource
    from pdsync.sandbox.company.table import Record

FLAGS = {0: False, 1: True, "0": False, "1": True, "false": False, "true": True}
RENAMED_PARTS = {
    "participants": ("primary_flag", "primary"),
    "attendees": ("email_address", "email"),
    "prices": ("overhead_cost", "direct_cost"),
}
NUMBERS = ("ref", "integer", "number", "percent", "visible_to")


def from_v1(body: dict[str, Any], resource: Resource, company: Company, old: Record | None) -> dict[str, Any]:
    """Unknown keys are dropped. Numbers may come as text, flags as 0 and 1, contacts as one text.

    Assumption: that is how far v1's leniency goes.
    """
    made: dict[str, Any] = {}
    for name, value in body.items():
        code = resource.renamed_v1.get(name, name)
        if code not in resource.body or code == "custom_fields":
            continue
        made[code] = _value(code, value, resource.body[code])
    if resource.kind == "activities" and "person_id" in body and "participants" not in body:
        person = _number(body["person_id"])
        made["participants"] = [{"person_id": person, "primary": True}] if person else []
    for code, (old_name, name) in RENAMED_PARTS.items():
        for one in _each(made.get(code)):
            if old_name in one:
                one[name] = one.pop(old_name)
    if resource.custom_fields:
        before = old["custom_fields"] if old else {}
        custom = {
            field.code: _custom(field, body, before.get(field.code))
            for field in company.fields[resource.kind].custom.values()
            if any(key == field.code or key.startswith(f"{field.code}_") for key in body)
        }
        if custom:
            made["custom_fields"] = custom
    return made


def _each(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _value(code: str, value: Any, spec: str) -> Any:
    kind = spec.rstrip("?!").partition(":")[0]
    if value == "" and kind != "text":
        return None
    if kind in NUMBERS:
        return _number(value)
    if kind == "bool":
        return FLAGS.get(value, value) if isinstance(value, int | str) else value
    if kind == "labels":
        parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
        return [_number(part) for part in parts if part is not None]
    if kind == "contacts":
        some = value if isinstance(value, list) else [value]
        return [{"value": one} if isinstance(one, str) else one for one in some if one not in (None, "")]
    return value


def _custom(field: Field, body: dict[str, Any], old: Any) -> Any:
    """A custom field from its flat keys; parts that were not sent stay what they were, but those of an address."""
    sent = body.get(field.code, old.get("value") if isinstance(old, dict) else None)
    if sent in (None, "") and field.code in body:
        return None
    before = old if isinstance(old, dict) else {}

    def part(name: str) -> Any:
        return body.get(f"{field.code}_{name}", before.get(name))

    match field.type:
        case "monetary":
            return {"value": _number(sent), "currency": part("currency") or "EUR"}
        case "daterange":
            return {"value": sent, "until": part("until")}
        case "time":
            return {"value": sent, "timezone_name": part("timezone_name")}
        case "timerange":
            return {"value": sent, "until": part("until"), "timezone_name": part("timezone_name")}
        case "address":
            return {"value": sent, **{name: body.get(f"{field.code}_{name}") for name in ADDRESS_PARTS}}
        case "set":
            some = sent.split(",") if isinstance(sent, str) else sent
            return [_number(one) for one in some] if isinstance(some, list) else some
        case "enum" | "double" | "int" | "user" | "org" | "people" | "visible_to":
            return _number(sent)
    return sent


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return int(value) if value.strip().lstrip("-").isdigit() else float(value)
    except ValueError:
        raise bad_request(f"{value!r} is not a number") from None
