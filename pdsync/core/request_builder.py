"""Checks the parameters of a request against the catalogue, and sorts them into path, query and body.

People and files give `key=value`; the catalogue has the position and the type of each key. So an unknown key, an
invalid value or a missing one is found here, before anything is sent and before any token is spent.

Values come typed (from JSON or SQL) or as text (from a command line), and text is read as the type that is declared:
`12` for an integer, `true`, `2026-03-31`, `1,2,3` or `[1, 2, 3]` for an array, JSON for objects. In a body None is
JSON's null, which empties a field; as text it is `null`, except for strings, where it would be the word.

The key of a custom field has 40 hex digits. v1 takes custom fields beside the other fields, v2 inside `custom_fields`.
"""

from __future__ import annotations

import difflib
import math
import re
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

import msgspec

from pdsync.core.actions import hint_for
from pdsync.errors import ConfigError
from pdsync.model import Operation, Param

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_HEX_KEY = re.compile(r"[0-9a-f]{40}")
# v1 spreads a custom field of several parts over several keys.
_V1_KEY = re.compile(
    r"[0-9a-f]{40}(_(currency|until|timezone_id|subpremise|street_number|route|sublocality|locality"
    r"|admin_area_level_1|admin_area_level_2|country|postal_code|formatted_address))?"
)

_WANTED = {
    "integer": "a whole number, like 12",
    "number": "a number, like 12.5",
    "boolean": "true or false",
    "string": "text (UTF-8)",
    "string:date": "a date, like 2026-03-31",
    "string:date-time": "a time with its zone, like 2026-03-31T10:20:00Z",
    "string:uuid": "a UUID",
    "string:url": "an address, like https://example.com/",
    "string:binary": "the path of a file",
    "object": 'a JSON object, like {"value": 1}',
    "array[integer]": "whole numbers, like 1,2,3",
    "array[number]": "numbers, like 1,2.5",
    "array[string]": "texts, like a,b",
    "array[object]": 'a JSON list of objects, like [{"value": 1}]',
}


class Call(msgspec.Struct, frozen=True):
    """A request that was checked against the catalogue, ready for `core.http`."""

    operation: Operation
    path: str  # filled in and percent-encoded
    query: dict[str, str] = {}  # not encoded yet; the items of an array have commas between
    body: dict[str, Any] | list[dict[str, Any]] | None = None  # None: no body; in forms and multipart, all is text
    files: dict[str, Path] = {}  # multipart only: the parts that are files, not read and not looked for yet


def check(operation: Operation, params: Mapping[str, object]) -> Call:
    """Sort `params` into a call of `operation`, with every value of its declared type.

    Args:
        params: by name, wherever they belong; a body that is a list is given whole, as `body`.

    Raises:
        ConfigError: an unknown or missing name, or a value that is of another type, not allowed or too large.
    """
    _refuse_unknown(operation, params)
    _refuse_missing(operation, params)
    for name, value in params.items():
        if isinstance(value, dict | list | tuple) and not _is_finite(value):
            raise ConfigError(
                f"{operation.name}: {name} has NaN or an infinity, which JSON can't express.\nNothing was sent."
                f" Give a number, or null to empty the field."
            )
    path = {name: _path_part(operation, name, param, params[name]) for name, param in operation.path_params.items()}
    query = {
        name: _text(_fit(operation, name, param, params[name]))
        for name, param in operation.query.items()
        if name in params
    }
    body = _body(operation, params)
    files: dict[str, Path] = {}
    if isinstance(body, dict) and operation.content in ("form", "multipart"):
        files = {name: Path(str(body.pop(name))) for name in list(body) if _is_file(operation, name)}
        body = {name: _text(value) for name, value in body.items()}
    return Call(operation, re.sub(r"{(.+?)}", lambda found: path[found[1]], operation.path), query, body, files)


def _is_finite(value: object) -> bool:
    """Whether JSON has a word for every number in a value."""
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float | Decimal) or math.isfinite(value)


def _refuse_unknown(operation: Operation, params: Mapping[str, object]) -> None:
    body = {"body"} if operation.body_list else operation.body.keys()
    accepted = [*operation.path_params, *operation.query, *body]
    for name in params:
        if name in accepted or _is_custom(operation, name):
            continue
        if operation.custom_fields and _HEX_KEY.fullmatch(name):
            raise ConfigError(
                f"{operation.name}: {name!r} looks like a custom field, which v2 takes inside 'custom_fields'.\n"
                f'Nothing was sent. Give custom_fields={{"{name}": …}} instead.'
            )
        near = difflib.get_close_matches(name, accepted, n=1)
        guess = hint_for(operation, name) or (f" Did you mean {near[0]!r}?" if near else "")
        takes = f"It takes {', '.join(accepted)}." if accepted else "It takes none."
        raise ConfigError(f"{operation.name} has no parameter {name!r}.{guess}\nNothing was sent. {takes}")


def _refuse_missing(operation: Operation, params: Mapping[str, object]) -> None:
    groups = [operation.path_params, operation.query] + ([] if operation.body_list else [operation.body])
    missing = {
        name: param for group in groups for name, param in group.items() if param.required and name not in params
    }
    if operation.body_list and operation.body_required and "body" not in params:
        missing["body"] = Param("array[object]")
    if missing:
        wanted = "; ".join(f"{name} is {_WANTED[param.type]}" for name, param in missing.items())
        raise ConfigError(f"{operation.name} needs {' and '.join(missing)}.\nNothing was sent. Add it: {wanted}.")
    if operation.body_required and not operation.body_list and not any(_in_body(operation, name) for name in params):
        raise ConfigError(
            f"{operation.name} needs something to send.\nNothing was sent. Give one of {', '.join(operation.body)}."
        )


def _body(operation: Operation, params: Mapping[str, object]) -> dict[str, Any] | list[dict[str, Any]] | None:
    if operation.body_list:
        return _listed_body(operation, params["body"]) if "body" in params else None
    body = {
        name: value if name not in operation.body else _fit(operation, name, operation.body[name], value, body=True)
        for name, value in params.items()
        if _in_body(operation, name)
    }
    if operation.custom_fields and operation.version == "v2":
        _check_custom_fields(operation, body.get("custom_fields"))
    return body or None


def _listed_body(operation: Operation, value: object) -> list[dict[str, Any]]:
    """The items of a body that is a list, each checked as if it were the body of a request of its own."""
    items = _fit(operation, "body", Param("array[object]"), value)
    if not items:
        raise ConfigError(f"{operation.name}: 'body' is empty.\nNothing was sent. List at least one object.")
    one = msgspec.structs.replace(operation, body_list=False, path="", path_params={}, query={})
    bodies = []
    for item in items:
        _refuse_unknown(one, item)
        _refuse_missing(one, item)
        bodies.append({name: _fit(one, name, one.body[name], value, body=True) for name, value in item.items()})
    return bodies


def _check_custom_fields(operation: Operation, fields: object) -> None:
    if not isinstance(fields, dict):
        return
    if not fields:
        # Reported to clear all custom fields of the record, which an empty object is not meant to do.
        raise ConfigError(
            f"{operation.name}: 'custom_fields' is empty.\n"
            f"Nothing was sent. Leave it out, or set the fields to empty to null."
        )
    for key in fields:
        if not _HEX_KEY.fullmatch(key):
            raise ConfigError(
                f"{operation.name}: {key!r} in 'custom_fields' is not the code of a custom field.\n"
                f"Nothing was sent. Codes have 40 hex digits: `pdsync fields` lists them with their names."
            )


def _path_part(operation: Operation, name: str, param: Param, value: object) -> str:
    part = _text(_fit(operation, name, param, value))
    if part in ("", ".", ".."):  # each of them would make this the path of another operation
        raise ConfigError(f"{operation.name}: {name} can't be {part!r}.\nNothing was sent. Give {_WANTED[param.type]}.")
    return quote(part, safe="")


def _fit(operation: Operation, name: str, param: Param, value: object, *, body: bool = False) -> Any:
    """`value` as the type that `param` declares, inside its bounds."""
    null = value is None or (value == "null" and not param.type.startswith("string"))
    if null and body and not param.required:
        return None
    wanted = "texts with commas between" if param.many else _WANTED[param.type]
    try:
        fitted = _typed(value, "array[string]" if param.many else param.type)
    except (ValueError, msgspec.DecodeError) as error:
        raise ConfigError(
            f"{operation.name}: {name} is {value!r}, and should be {wanted}.\nNothing was sent."
        ) from error
    _check_bounds(operation, name, param, fitted)
    return ",".join(fitted) if param.many else fitted


def _check_bounds(operation: Operation, name: str, param: Param, value: Any) -> None:
    several = isinstance(value, list)
    for each in value if several else [value]:
        # v1's `sort` takes a direction after each name.
        word = re.sub(r" +(asc|desc)$", "", each, flags=re.IGNORECASE) if name == "sort" else each
        if param.enum and word not in param.enum:
            allowed = [str(one) for one in param.enum]
            near = difflib.get_close_matches(str(word), allowed, n=1)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            if each == "all_not_deleted":  # a word of v1, near to "deleted", which would be the opposite
                guess = f" Without {name} all that are not deleted are listed."
            raise ConfigError(
                f"{operation.name}: {name} can't be {each!r}.{guess}\nNothing was sent. It may be {', '.join(allowed)}."
            )
    size = len(value) if several else value
    if param.max is not None and size > param.max:
        what = f"has {size} items" if several else f"is {size}"
        raise ConfigError(
            f"{operation.name}: {name} {what}, and {param.max} is the most.\n"
            f"Nothing was sent. Send several requests instead."
        )


def _typed(value: object, type: str) -> Any:
    """`value` as a `type` of the catalogue. Raises ValueError or DecodeError where it isn't one."""
    if type.startswith("array["):
        items = value
        if isinstance(value, str):
            is_json = value.lstrip().startswith("[") or type == "array[object]"
            items = msgspec.json.decode(value) if is_json else [item.strip() for item in value.split(",")]
        if not isinstance(items, list | tuple):
            raise ValueError(value)
        return [_typed(item, type[len("array[") : -1]) for item in items]
    return _READERS[type](value)


def _integer(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]+", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(value)


def _number(value: object) -> int | float:
    if isinstance(value, str | Decimal) and re.fullmatch(r"-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?", str(value)):
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(value)
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if isinstance(value, float) and value - value == 0:  # neither an infinity nor NaN, which JSON has no word for
        return value
    return _integer(value)


def _boolean(value: object) -> bool:
    words: dict[object, bool] = {"true": True, "false": False, "1": True, "0": False}
    return words[value.lower()] if isinstance(value, str) and value.lower() in words else msgspec.convert(value, bool)


def _string(value: object) -> str:
    if isinstance(value, str):
        value.encode()  # raises ValueError for an argument that was not UTF-8: no request can have it
        return value
    if isinstance(value, UUID):
        return str(value)
    return str(_number(value))


def _date(value: object) -> str:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    text = _string(value)
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        raise ValueError(value)
    return date.fromisoformat(text).isoformat()


def _time(value: object) -> str:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(_string(value))
    if moment.tzinfo is None:
        raise ValueError(value)
    return moment.isoformat().replace("+00:00", "Z")


def _uuid(value: object) -> str:
    return str(UUID(_string(value)))


def _file(value: object) -> str:
    return str(value) if isinstance(value, Path | str) else _string(value)  # a name need not be UTF-8


def _object(value: object) -> dict[str, Any]:
    return msgspec.json.decode(value, type=dict[str, Any]) if isinstance(value, str) else msgspec.convert(value, dict)


_READERS: dict[str, Callable[[object], Any]] = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "string": _string,
    "string:date": _date,
    "string:date-time": _time,
    "string:uuid": _uuid,
    "string:url": _string,
    "string:binary": _file,
    "object": _object,
}


def _text(value: object) -> str:
    """A typed value as text in a path, a query or a form."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(_text(item) for item in value)
    return "" if value is None else str(value)


def _in_body(operation: Operation, name: str) -> bool:
    return name in operation.body or _is_custom(operation, name)


def _is_custom(operation: Operation, name: str) -> bool:
    """Whether `name` is a custom field, or a part of one, that is allowed beside the other fields of the body."""
    return operation.custom_fields and operation.version == "v1" and bool(_V1_KEY.fullmatch(name))


def _is_file(operation: Operation, name: str) -> bool:
    return operation.body[name].type == "string:binary"
