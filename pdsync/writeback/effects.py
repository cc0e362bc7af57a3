"""Reads the effect of an operation that no record of its own shows: an option, a picture, a list that is emptied.

What to read is data: `schemas/effects.toml`. Operations for which neither that file nor their path gives a read are
sent, and can't be verified.
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

Way = Literal["record", "list", "effect", "none"]
Verdict = Literal["shown", "partly", "missing", "failed", "running", "unreadable"]
_JOBS: dict[str, Verdict] = {"completed": "shown", "failed": "failed", "rejected": "failed"}


class Shown(Struct, frozen=True):
    """What a read shows of an effect."""

    verdict: Verdict
    detail: str = ""
    after: dict[str, Any] = {}  # what it showed
    made: str | None = None  # the id of a record that was made


def effect_of(operation: Operation) -> Effect | None:
    """How the effect of `operation` is read where the record itself does not show it; None where nothing does."""
    found = catalogue.effects().get(operation.name)
    return found if found and found.read else None


def is_state(operation: Operation) -> bool:
    """Whether the effect is a state that can be read without the answer, so that sending it twice does no harm."""
    effect = effect_of(operation)
    has_file = any(param.type == "string:binary" for param in operation.body.values())
    return effect is not None and effect.is_state and not has_file


def way(operation: Operation) -> Way:
    """What shows that `operation` was carried out: its record, a list, another effect, or nothing."""
    if effect_of(operation):
        return "effect"
    shaped = shape(operation)
    return "record" if shaped.item else "list" if shaped.listing else "none"


async def look_at_effect(
    http: Http, operation: Operation, payload: Mapping[str, Any], answer: bytes | None = None
) -> Shown:
    """Read whether the effect of `operation` with `payload` shows; `answer` is the body of the answer, if it is known.

    Raises:
        PdsyncError: the read failed; nothing is known.
    """
    effect = effect_of(operation)
    if effect is None:
        return Shown("unreadable", "nothing in the API shows it")
    answered = _answered(answer)
    known = {**payload, **{f"@{name}": value for name, value in (answered[0] if answered else {}).items()}}
    if any(
        known.get(source) is None for source in (*effect.params.values(), effect.equals or "id") if source[:1] == "@"
    ):
        return Shown("unreadable", "the answer names no record to read")
    found = await _read(http, effect, known)
    if effect.shows in ("set", "unset", "done"):
        return _value(effect, found[0] if found else {}, known)
    entries = [each for each in _entries(effect, found) if all(each.get(k) == v for k, v in effect.only.items())]
    if effect.shows == "gone":
        return _gone(effect, entries, payload)
    if effect.shows == "added":
        return _added(effect, entries, _sent(operation, effect, payload), answered)
    return _holds(effect, entries, _sent(operation, effect, payload), payload)


class DoomedEntries(Struct, frozen=True):
    """The entries of a list that an operation takes away."""

    entries: list[dict[str, Any]] = []
    are_named: bool = True  # by their keys; otherwise the operation takes away all that there are
    unreadable: str | None = None  # why they can't be read


async def doomed_entries(http: Http, operation: Operation, payload: Mapping[str, Any]) -> DoomedEntries | None:
    """Read the entries that `operation` takes away; None where it takes away none.

    Raises:
        PdsyncError: no answer came. A refusal to show them is no error: see `DoomedEntries.unreadable`.
    """
    effect = effect_of(operation)
    if effect is None or effect.shows != "gone":
        return None
    try:
        entries = _entries(effect, await _read(http, effect, payload))
    except ApiError as error:
        return DoomedEntries(unreadable=str(error).split("\n", 1)[0])
    keys = _keys(payload.get(effect.names or ""), effect.key)
    if keys is None:
        return DoomedEntries(entries, are_named=False)
    return DoomedEntries([each for each in entries if str(each.get(effect.key)) in keys])


async def _read(http: Http, effect: Effect, known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of the read, all pages; none where there is nothing to read."""
    reader = catalogue.operation(effect.read or "")
    found: list[dict[str, Any]] = []
    for query in effect.queries:
        params = {name: str(known[source]) for name, source in effect.params.items()}
        call = check(reader, params | dict(query))
        try:
            if reader.records == "one" and reader.paging == "none":
                record = record_in((await http.carry_out(call)).body)
                found += [record] if record is not None else []
                continue
            async for raw in records(http, reader, call.path, call.query):
                found.append(msgspec.json.decode(raw, type=dict[str, Any]))
        except NotFound:
            continue
    return found


def _entries(effect: Effect, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    if effect.at is None:
        return list(found)
    inner = [entry for record in found for entry in record.get(effect.at) or ()]
    return [entry if isinstance(entry, dict) else {effect.key: entry} for entry in inner]


def _answered(answer: bytes | None) -> list[dict[str, Any]]:
    if not answer or not answer.strip():
        return []
    many = records_in(answer)
    one = None if many else record_in(answer)
    return many or ([one] if one else [])


def _keys(named: Any, key: str) -> set[str] | None:
    """The keys of the named entries; None where none is named."""
    if named is None or named == "":
        return None
    if isinstance(named, str):
        named = named.split(",")
    if not isinstance(named, list):
        named = [named]
    return {str(each.get(key) if isinstance(each, dict) else each).strip() for each in named}


def _sent(operation: Operation, effect: Effect, payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries that were sent."""
    named = payload.get(effect.names) if effect.names else None
    if isinstance(named, list):
        return [each if isinstance(each, dict) else {effect.key: each} for each in named]
    if isinstance(named, dict):
        return [{effect.key: each} for each in named.get("add") or ()]
    body = {name: value for name, value in payload.items() if name in operation.body}
    places = list(operation.path_params)
    return [body | ({effect.key: payload[places[-1]]} if effect.shows == "sent" and places else {})]


def _value(effect: Effect, record: Mapping[str, Any], known: Mapping[str, Any]) -> Shown:
    at = str(known[effect.at[1:]]) if effect.at and effect.at.startswith("@") else effect.at or ""
    value = record.get(at)
    if isinstance(value, dict) and "id" in value:
        value = value["id"]
    after = {at: value}
    if effect.shows == "done":
        status = str(value)
        made = next((str(record[name]) for name in ("lead_id", "deal_id") if _is_new(name, record, known)), None)
        return Shown(_JOBS.get(status, "running"), f"the job is {status}", dict(record), made)
    is_set = value not in (None, "", False, [], {})
    if effect.shows == "unset":
        return Shown("missing" if is_set else "shown", f"{at} is {value!r}", after)
    wanted = known.get(effect.equals) if effect.equals else None
    holds = is_set and (effect.equals is None or equivalent(wanted, value))
    made = str(wanted) if holds and at == "id" and effect.params.get("id") == "@id" else None
    return Shown("shown" if holds else "missing", f"{at} is {value!r}", after, made)


def _is_new(name: str, record: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    return record.get(name) is not None and str(record[name]) != str(known.get("id"))


def _gone(effect: Effect, entries: Sequence[dict[str, Any]], payload: Mapping[str, Any]) -> Shown:
    keys = _keys(payload.get(effect.names or ""), effect.key)
    left = [each for each in entries if keys is None or str(each.get(effect.key)) in keys]
    if not left:
        return Shown("shown")
    named = ", ".join(str(each.get(effect.key)) for each in left[:6])
    some_went = keys is not None and len(left) < len(keys)
    return Shown("partly" if some_went else "missing", f"{len(left)} still there ({named})", {"left": left[:6]})


def _added(
    effect: Effect, entries: Sequence[dict[str, Any]], sent: list[dict[str, Any]], answered: list[dict[str, Any]]
) -> Shown:
    keys = [str(each[effect.key]) for each in answered if each.get(effect.key) is not None]
    there = [each for each in entries if str(each.get(effect.key)) in keys]
    left = list(there)
    unseen = []
    for each in sent:
        match = next((index for index, other in enumerate(left) if not changed_fields(other, each)), None)
        if match is None:
            unseen.append(each)
        else:
            del left[match]
    made = keys[0] if len(keys) == 1 else None
    after = {"entries": there}
    if not unseen:
        return Shown("shown", after=after, made=made)
    detail = f"{len(sent) - len(unseen)} of {len(sent)} show in {effect.read}"
    return Shown("partly" if there else "missing", detail, after)


def _holds(
    effect: Effect, entries: Sequence[dict[str, Any]], sent: list[dict[str, Any]], payload: Mapping[str, Any]
) -> Shown:
    by_key = {str(each.get(effect.key)): each for each in entries}
    wrong = [each for each in sent if str(each.get(effect.key)) not in by_key or _moved(by_key, each, effect.key)]
    named = payload.get(effect.names) if effect.names else None
    hidden = [str(each) for each in named.get("remove") or ()] if isinstance(named, Mapping) else []
    wrong += [{effect.key: each} for each in hidden if each in by_key]
    after = {"entries": [by_key[str(each[effect.key])] for each in sent if str(each.get(effect.key)) in by_key]}
    total = len(sent) + len(hidden)
    if not wrong:
        return Shown("shown", after=after)
    detail = f"{total - len(wrong)} of {total} show in {effect.read}"
    return Shown("partly" if len(wrong) < total else "missing", detail, after)


def _moved(by_key: Mapping[str, dict[str, Any]], sent: dict[str, Any], key: str) -> list[str]:
    return changed_fields(by_key[str(sent.get(key))], {name: value for name, value in sent.items() if name != key})
