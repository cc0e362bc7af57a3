"""Parses the envelope of a list answer: its records as raw JSON, and the start of the next page."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from pdsync.core.log import excerpt
from pdsync.errors import BadAnswer

if TYPE_CHECKING:
    from pdsync.model import Operation

_SHOWN = 80  # characters of a body, in messages
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_SUCCESS = re.compile(rb'\s*\{\s*"success"\s*:\s*true\s*[,}]')
_ESCAPE = re.compile(rb"\\u[0-9a-fA-F]{4}")


class _Pagination(Struct):
    more_items_in_collection: bool | None = None
    next_start: int | None = None
    next_cursor: str | None = None


class _Additional(Struct):
    next_cursor: str | None = None
    pagination: _Pagination | None = None
    # Many v1 lists put these flat, whatever their documents show.
    more_items_in_collection: bool | None = None
    next_start: int | None = None


class _Outcome(Struct):
    success: Any = None


class _Envelope(Struct):
    data: list[Raw] | None  # required: an answer without it is none to a list
    additional_data: Raw = Raw(b"null")


class _OtherEnvelope(Struct):
    data: Raw
    additional_data: Raw = Raw(b"null")


class Envelope(Struct, frozen=True):
    """A parsed list answer.

    `records` have the records' JSON as it came. `described`: the answer has `additional_data`, where paging data are;
    some last pages have none, and neither do pages that were cut off.
    """

    records: list[Raw]
    was_null: bool
    described: bool
    next_cursor: str | None
    more: bool | None
    next_start: int | None


def says_no_success(body: bytes) -> bool:
    """Whether an answer of any status is a refusal by its own content: `"success": false`.

    Nearly all answers begin with their success, which is quick to see; the others are parsed, as leniently as lists.
    """
    if _SUCCESS.match(body) or b'"success"' not in body:
        return False
    try:
        success = msgspec.json.decode(body, type=_Outcome).success
    except _UNREADABLE:
        success = _salvaged_success(body)
    return success in (False, "false")


def _salvaged_success(body: bytes) -> Any:
    """The `success` of an answer that strict parsers refuse; None where Python's own parser refuses it too."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None  # the reader of its records reports it
    return answer.get("success") if isinstance(answer, dict) else None


def open_envelope(body: bytes, operation: Operation | None = None) -> Envelope:
    """Open the list answer `body`.

    Args:
        operation: describes where the records are, unless they are a list under `data`.

    Raises:
        BadAnswer: it is no JSON, or has neither a list of records, empty or not, nor null instead (`was_null`).
    """
    try:
        return _open(body, operation)
    except _UNREADABLE as error:
        salvaged = _as_it_came(body, operation) or _salvage(body, operation)
        if salvaged is None:
            raise BadAnswer(f"The answer is no list of records ({error}): {excerpt(body, _SHOWN)!r}") from error
        return salvaged


def _open(body: bytes, operation: Operation | None) -> Envelope:
    if operation is None or _is_plain(operation):
        outer = msgspec.json.decode(body, type=_Envelope)
        records, additional = _unwrapped(outer.data), outer.additional_data
    else:
        other = msgspec.json.decode(body, type=_OtherEnvelope)
        records, additional = _records_of(other.data, operation), other.additional_data
    further = msgspec.json.decode(additional, type=_Additional | None)
    paging = (further.pagination if further else None) or _Pagination()
    return Envelope(
        records=records or [],
        was_null=records is None,
        described=further is not None,
        next_cursor=(further.next_cursor if further else None) or paging.next_cursor,
        more=paging.more_items_in_collection
        if paging.more_items_in_collection is not None
        else (further.more_items_in_collection if further else None),
        next_start=paging.next_start if paging.next_start is not None else (further.next_start if further else None),
    )


def _is_plain(operation: Operation) -> bool:
    return operation.records == "list" and operation.records_in is None


def _records_of(data: Raw, operation: Operation) -> list[Raw] | None:
    """The records in `data`, where the operation has them; None where they are null."""
    if operation.records_in is not None:
        members = msgspec.json.decode(data, type=dict[str, Raw] | None)
        data = (members or {}).get(operation.records_in, Raw(b"null"))
    if operation.records == "one" and not bytes(data).lstrip().startswith(b"["):
        one = msgspec.json.decode(data, type=dict[str, Raw] | None)
        return None if one is None else [data]
    records = _unwrapped(msgspec.json.decode(data, type=list[Raw] | None))
    if operation.records == "values" and records is not None:
        return [Raw(b'{"value":' + bytes(record) + b"}") for record in records]
    return records


def _unwrapped(records: list[Raw] | None) -> list[Raw] | None:
    """Some lists come wrapped twice: [[{…}, {…}]]."""
    if records and len(records) == 1 and bytes(records[0]).lstrip()[:1] == b"[":
        return msgspec.json.decode(records[0], type=list[Raw])
    return records


def _as_it_came(body: bytes, operation: Operation | None) -> Envelope | None:
    """The records of a page with a lone surrogate, byte for byte: escapes do not change where a record ends."""
    plain = _ESCAPE.sub(rb"\\u003f", body)
    try:
        spans, end = list[tuple[int, int]](), 0
        for record in _open(plain, operation).records:
            begin = plain.index(record, end)  # a wrapped value is not found: `_salvage` reads it
            end = begin + len(memoryview(record))
            spans.append((begin, end))
        rest = _open(body[: spans[0][0]] + body[end:], operation) if spans else None
    except (*_UNREADABLE, ValueError):
        return None
    records = [Raw(body[begin:end]) for begin, end in spans]
    return msgspec.structs.replace(rest, records=records) if rest else None


def _salvage(body: bytes, operation: Operation | None) -> Envelope | None:
    """Parse values that strict parsers refuse and Python's own accepts: NaN, very long numbers."""
    try:
        outer = json.loads(body)
        data = outer["data"]
        if operation and operation.records_in is not None:
            data = data.get(operation.records_in)
        if operation and operation.records == "one" and data is not None and not isinstance(data, list):
            data = [data]
        if data is not None and not isinstance(data, list):
            return None
        if data and len(data) == 1 and isinstance(data[0], list):
            data = data[0]
        if operation and operation.records == "values":
            data = [{"value": each} for each in data or []]
        records = [Raw(json.dumps(record).encode()) for record in data or []]
        further = json.dumps(outer.get("additional_data")).encode()
        rest = open_envelope(b'{"data":[],"additional_data":' + further + b"}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, BadAnswer):
        return None
    return msgspec.structs.replace(rest, records=records, was_null=data is None)


def records_in(body: bytes) -> list[dict[str, Any]]:
    """The records of a list answer, decoded; none where its `data` is no list.

    Raises:
        BadAnswer: it is no JSON.
    """
    data = _data(body)
    return [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []


def record_in(body: bytes) -> dict[str, Any] | None:
    """The record of an answer about one; v1 sometimes wraps it once more: `{"goal": {…}}`.

    Raises:
        BadAnswer: it is no JSON.
    """
    data = _data(body)
    while isinstance(data, dict) and len(data) == 1:
        (inner,) = data.values()
        if not isinstance(inner, dict):
            break
        data = inner
    if isinstance(data, list) and len(data) == 1 and isinstance(data[0], dict):
        return data[0]
    return data if isinstance(data, dict) else None


def _data(body: bytes) -> Any:
    try:
        answer = msgspec.json.decode(body)
    except _UNREADABLE as error:
        raise BadAnswer(f"Pipedrive answered with something that is no JSON ({error}).") from error
    return answer.get("data") if isinstance(answer, dict) else None
