"""Reads the effect of an operation that has no record of its own: options, a picture, entries removed from a list.

What to read is data: `schemas/effects.toml`. An operation for which neither that file nor its path names a read is sent
and can't be verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.list_response import record_in, records_in
from pdsync.core.request_builder import check
from pdsync.errors import ApiError, NotFound
from pdsync.extract.records import records
from pdsync.writeback.equality import changed_fields, equivalent
from pdsync.writeback.shapes import shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pdsync.core.http import Http
    from pdsync.model import Effect, Operation

ReadBack = Literal["record", "list", "effect", "none"]
Verdict = Literal["shown", "partly", "missing", "failed", "running", "unreadable"]
_MAX_LISTED = 6  # entries that a detail names
_JOBS: dict[str, Verdict] = {"completed": "shown", "failed": "failed", "rejected": "failed"}


class EffectReading(Struct, frozen=True):
    """What a read shows of an effect."""

    verdict: Verdict
    detail: str = ""
    after: dict[str, Any] = {}  # what was read
    added_id: str | None = None  # of the record that the operation added


def find_effect(operation: Operation) -> Effect | None:
    """How the effect of `operation` is read if the record itself does not show it; None if nothing does."""
    effect = catalogue.effects().get(operation.name)
    return effect if effect and effect.read else None


def is_state(operation: Operation) -> bool:
    """Whether the effect is a state that can be read without the answer, so that sending it twice does no harm."""
    effect = find_effect(operation)
    has_file = any(param.type == "string:binary" for param in operation.body.values())
    return effect is not None and effect.is_state and not has_file


def choose_read_back(operation: Operation) -> ReadBack:
    """What shows that `operation` was carried out: its record, a list, another effect, or nothing."""
    if find_effect(operation):
        return "effect"
    shaped = shape(operation)
    return "record" if shaped.item else "list" if shaped.listing else "none"


async def read_effect(
    http: Http, operation: Operation, payload: Mapping[str, Any], answer: bytes | None = None
) -> EffectReading:
    """Read whether the effect of an operation shows.

    Args:
        http: the session.
        operation: that was sent.
        payload: its parameters.
        answer: the body of its answer; None if it is not known.

    Raises:
        PdsyncError: the read failed; nothing is known.
    """
    effect = find_effect(operation)
    if effect is None:
        return EffectReading("unreadable", "nothing in the API shows it")
    answered = _decode_records(answer)
    values = {**payload, **{f"@{name}": value for name, value in (answered[0] if answered else {}).items()}}
    sources = (*effect.params.values(), effect.equals or "id")
    if any(values.get(source) is None for source in sources if source.startswith("@")):
        return EffectReading("unreadable", "the answer names no record to read")
    records = await _read_records(http, effect, values)
    if effect.shows in ("set", "unset", "done"):
        return _judge_value(effect, records[0] if records else {}, values)
    entries = [
        each
        for each in _select_entries(effect, records)
        if all(each.get(name) == value for name, value in effect.only.items())
    ]
    if effect.shows == "gone":
        return _judge_gone(effect, entries, payload)
    if effect.shows == "added":
        return _judge_added(effect, entries, _list_sent(operation, effect, payload), answered)
    return _judge_sent(effect, entries, _list_sent(operation, effect, payload), payload)


class EntriesToDelete(Struct, frozen=True):
    """The entries of a list that an operation deletes."""

    entries: list[dict[str, Any]] = []
    are_named: bool = True  # by their keys; otherwise the operation deletes all entries of the list
    unreadable: str | None = None  # why they can't be read


async def read_entries_to_delete(
    http: Http, operation: Operation, payload: Mapping[str, Any]
) -> EntriesToDelete | None:
    """Read the entries that `operation` deletes; None if it is no operation that deletes entries of a list.

    Raises:
        PdsyncError: the read failed. A refusal to show them is no error: see `EntriesToDelete.unreadable`.
    """
    effect = find_effect(operation)
    if effect is None or effect.shows != "gone":
        return None
    try:
        entries = _select_entries(effect, await _read_records(http, effect, payload))
    except ApiError as error:
        return EntriesToDelete(unreadable=str(error).split("\n", 1)[0])
    keys = _parse_keys(payload.get(effect.names or ""), effect.key)
    if keys is None:
        return EntriesToDelete(entries, are_named=False)
    return EntriesToDelete([each for each in entries if str(each.get(effect.key)) in keys])


async def _read_records(http: Http, effect: Effect, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records that the read of an effect returns, all pages; none if the parent does not exist."""
    operation = catalogue.operation(effect.read or "")
    found: list[dict[str, Any]] = []
    for query in effect.queries:
        params = {name: str(values[source]) for name, source in effect.params.items()}
        call = check(operation, params | dict(query))
        try:
            if operation.records == "one" and operation.paging == "none":
                record = record_in((await http.carry_out(call)).body)
                found += [record] if record is not None else []
                continue
            async for raw in records(http, operation, call.path, call.query):
                found.append(msgspec.json.decode(raw, type=dict[str, Any]))
        except NotFound:
            continue
    return found


def _select_entries(effect: Effect, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries in the records of a read: those of a list inside each record, or the records themselves."""
    if effect.at is None:
        return list(records)
    inner = [entry for record in records for entry in record.get(effect.at) or ()]
    return [entry if isinstance(entry, dict) else {effect.key: entry} for entry in inner]


def _decode_records(answer: bytes | None) -> list[dict[str, Any]]:
    """The records in the body of an answer, be it a list or one record."""
    if not answer or not answer.strip():
        return []
    listed = records_in(answer)
    single = None if listed else record_in(answer)
    return listed or ([single] if single else [])


def _parse_keys(named: Any, key: str) -> set[str] | None:
    """The keys of the named entries; None if none is named."""
    if named is None or named == "":
        return None
    if isinstance(named, str):
        named = named.split(",")
    if not isinstance(named, list):
        named = [named]
    return {str(each.get(key) if isinstance(each, dict) else each).strip() for each in named}


def _list_sent(operation: Operation, effect: Effect, payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries that were sent."""
    named = payload.get(effect.names) if effect.names else None
    if isinstance(named, list):
        return [each if isinstance(each, dict) else {effect.key: each} for each in named]
    if isinstance(named, dict):
        return [{effect.key: each} for each in named.get("add") or ()]
    body = {name: value for name, value in payload.items() if name in operation.body}
    path_params = list(operation.path_params)
    return [body | ({effect.key: payload[path_params[-1]]} if effect.shows == "sent" and path_params else {})]


def _judge_value(effect: Effect, record: Mapping[str, Any], values: Mapping[str, Any]) -> EffectReading:
    field = str(values[effect.at[1:]]) if effect.at and effect.at.startswith("@") else effect.at or ""
    value = record.get(field)
    if isinstance(value, dict) and "id" in value:
        value = value["id"]
    after = {field: value}
    if effect.shows == "done":
        status = str(value)
        added_id = next((str(record[name]) for name in ("lead_id", "deal_id") if _is_new(name, record, values)), None)
        return EffectReading(_JOBS.get(status, "running"), f"the job is {status}", dict(record), added_id)
    is_set = value not in (None, "", False, [], {})
    if effect.shows == "unset":
        return EffectReading("missing" if is_set else "shown", f"{field} is {value!r}", after)
    expected = values.get(effect.equals) if effect.equals else None
    is_shown = is_set and (effect.equals is None or equivalent(expected, value))
    added_id = str(expected) if is_shown and field == "id" and effect.params.get("id") == "@id" else None
    return EffectReading("shown" if is_shown else "missing", f"{field} is {value!r}", after, added_id)


def _is_new(name: str, record: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    return record.get(name) is not None and str(record[name]) != str(values.get("id"))


def _judge_gone(effect: Effect, entries: Sequence[dict[str, Any]], payload: Mapping[str, Any]) -> EffectReading:
    keys = _parse_keys(payload.get(effect.names or ""), effect.key)
    left = [each for each in entries if keys is None or str(each.get(effect.key)) in keys]
    if not left:
        return EffectReading("shown")
    listed = ", ".join(str(each.get(effect.key)) for each in left[:_MAX_LISTED])
    some_are_gone = keys is not None and len(left) < len(keys)
    detail = f"{len(left)} still there ({listed})"
    return EffectReading("partly" if some_are_gone else "missing", detail, {"left": left[:_MAX_LISTED]})


def _judge_added(
    effect: Effect, entries: Sequence[dict[str, Any]], sent: list[dict[str, Any]], answered: list[dict[str, Any]]
) -> EffectReading:
    keys = [str(each[effect.key]) for each in answered if each.get(effect.key) is not None]
    added = [each for each in entries if str(each.get(effect.key)) in keys]
    unmatched = list(added)
    missing = 0
    for each in sent:
        match = next((index for index, other in enumerate(unmatched) if not changed_fields(other, each)), None)
        if match is None:
            missing += 1
        else:
            del unmatched[match]
    after = {"entries": added}
    if not missing:
        return EffectReading("shown", after=after, added_id=keys[0] if len(keys) == 1 else None)
    detail = f"{len(sent) - missing} of {len(sent)} show in {effect.read}"
    return EffectReading("partly" if added else "missing", detail, after)


def _judge_sent(
    effect: Effect, entries: Sequence[dict[str, Any]], sent: list[dict[str, Any]], payload: Mapping[str, Any]
) -> EffectReading:
    by_key = {str(each.get(effect.key)): each for each in entries}
    named = payload.get(effect.names) if effect.names else None
    removed = [str(each) for each in named.get("remove") or ()] if isinstance(named, Mapping) else []
    shown = sum(_is_shown(by_key, each, effect.key) for each in sent) + sum(each not in by_key for each in removed)
    after = {"entries": [by_key[str(each[effect.key])] for each in sent if str(each.get(effect.key)) in by_key]}
    total = len(sent) + len(removed)
    if shown == total:
        return EffectReading("shown", after=after)
    return EffectReading("partly" if shown else "missing", f"{shown} of {total} show in {effect.read}", after)


def _is_shown(by_key: Mapping[str, dict[str, Any]], sent: dict[str, Any], key: str) -> bool:
    """Whether the entry that was sent is there, with all of its values."""
    entry = by_key.get(str(sent.get(key)))
    return entry is not None and not changed_fields(entry, {name: value for name, value in sent.items() if name != key})
