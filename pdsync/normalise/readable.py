"""Makes records readable that strict parsers refuse: lone surrogates, NUL characters in keys, numbers that are none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from pdsync.normalise.tables import pointer

if TYPE_CHECKING:
    from collections.abc import Collection

_MAX_DEPTH = 64  # levels of nesting; deeper JSON is not a record


def readable(record: bytes, in_sql: Collection[str] = ("",), as_it_came: str | None = None) -> str:
    """A record that strict parsers accept: unchanged where they do, else with the characters they refuse replaced.

    A lone surrogate becomes U+FFFD, as does a NUL in a key, and the original record is kept under `_as_it_came`, so
    nothing is lost.

    Args:
        record: its JSON.
        in_sql: JSON pointers of the objects in it whose keys become part of a statement, which can't contain NUL.
        as_it_came: the record before its keys were changed.

    Raises:
        ValueError: it is no JSON object, or nested too deeply.
    """
    try:
        text = record.decode("utf-8")
        value = json.loads(text)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"is not readable: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("is no object")
    if _depth(value) > _MAX_DEPTH:
        raise ValueError(f"is nested deeper than {_MAX_DEPTH} levels")
    if "\\u0000" in text and (changed := _without_nul_keys(value, in_sql)) != value:
        return readable(json.dumps(changed).encode(), in_sql, text)
    try:
        msgspec.json.decode(record)
        if as_it_came is None:
            return text
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    if as_it_came is not None:
        value["_as_it_came"] = as_it_came
    harmless = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    if harmless.encode("utf-8", errors="replace").decode() == harmless:
        return harmless
    value["_as_it_came"] = as_it_came or text
    return json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _without_nul_keys(value: dict[str, Any], in_sql: Collection[str], address: str = "") -> dict[str, Any]:
    """`value` with U+FFFD for each NUL in the keys of the objects that `in_sql` names."""
    cleaned = {}
    for key, inner in value.items():
        inner_address = address + pointer(key)
        descends = isinstance(inner, dict) and inner_address in in_sql
        cleaned[key.replace("\0", "\ufffd")] = _without_nul_keys(inner, in_sql, inner_address) if descends else inner
    return cleaned


def _depth(value: object) -> int:
    level, deepest = [value], 0
    while level and deepest <= _MAX_DEPTH:
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
        ]
        deepest += 1
    return deepest
