"""Did it happen? Looks for the trace of a write whose answer was lost: one way of looking for each kind of change.

    add      a record that was not in the list before, made by us, holding all that was sent and nothing else that
             somebody would have filled in, bound to no other mutation
    update   the record holds what was sent, or what it held before
    delete   the record is gone, while the list of its kind still answers
    merge    the loser is gone, and the winner has what only this merge gives it: what hung on the loser, its values
    other    what it leads to shows (see `effects`); where that says nothing without the answer, nobody can tell

A look changes nothing. What it saw is kept as evidence, whatever it says.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from pdsync.core.list_response import records_in
from pdsync.core.request_builder import check
from pdsync.errors import ApiError
from pdsync.writeback import fresh_reads, lost_updates, merge_preview
from pdsync.writeback.effects import is_state, look_at_effect
from pdsync.writeback.equality import (
    changed_fields,
    fields,
    fields_not_returned,
    snapshot_fields,
)
from pdsync.writeback.plan import body_of
from pdsync.writeback.shapes import key_of, shape, stream_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pdsync.core.http import Http
    from pdsync.model import Operation
    from pdsync.writeback.shapes import Shape

Verdict = Literal["happened", "absent", "moved", "several", "undecidable", "unclear"]  # the last: look again
# What Pipedrive fills in where an addition says nothing. Assumption: nothing else that an addition may name.
_DEFAULTED = frozenset({
    "owner_id", "user_id", "pipeline_id", "stage_id", "currency", "visible_to", "add_time", "update_time", "type",
    "subject", "prices", "custom_fields", "probability", "order_nr", "color", "icon_key", "billing_start_date",
    "status", "deal_probability", "days_to_rotten", "due_date", "due_time", "duration", "priority", "health_status",
    "tax", "discount", "billing_frequency_cycles", "ui_visibility", "important_fields", "required_fields", "access",
    "version",
})  # fmt: skip
# A record that is linked to one record may be linked to what that one hangs on, too.
_LINKED = frozenset({"deal_id", "lead_id", "person_id", "org_id", "organization_id", "project_id", "participants"})
_WINDOW = timedelta(hours=1)  # within which an attempt takes effect
_NEWEST = 100  # of a list that sorts, where the documents name no larger page: as many can have been added since


class ProbeOutcome(Struct, frozen=True):
    """What a look has found."""

    verdict: Verdict
    request: str  # what was asked
    found: Any = None  # the evidence
    record: dict[str, Any] | None = None  # the one that was added or changed
    by_other: bool = False  # it is so, and somebody else has done it


async def list_snapshot(http: Http, shape: Shape, payload: Mapping[str, Any]) -> Any:
    """What a list holds before something is added to it: the largest id, or every key. None where it can't be told."""
    if shape.listing is None:
        return None
    newest = _newest(shape)
    if newest is None and shape.listing.paging != "none" and not shape.places:
        return None  # a long list in no order: reading all of it would not be worth it
    keys = [key for record in await read_list(http, shape, payload) if (key := key_of(record))]
    if newest and all(key.isdecimal() for key in keys):
        return max(map(int, keys), default=0)
    return sorted(keys)


def find_relation(
    operation: Operation, payload: Mapping[str, Any], records: Iterable[dict[str, Any]]
) -> dict[str, Any] | None:
    """The one of `records` that ties the same two records together as `payload` would."""
    wanted = dict(fields(body_of(operation, payload)))
    return next(
        (each for each in records if not fields_not_returned(each, wanted) and not changed_fields(each, wanted)), None
    )


async def probe_write(
    http: Http,
    operation: Operation,
    payload: Mapping[str, Any],
    *,
    base: Mapping[str, Any] | None,
    seen: Any,
    me: int,
    bound: set[str],
    sent_at: datetime | None = None,
) -> ProbeOutcome:
    """Look whether `operation` was carried out with `payload`.

    Args:
        base: the record as it was before.
        seen: what `seen_before` said.
        me: the id of the user whose token it is.
        bound: ids of records of this kind that other mutations have added.
        sent_at: when the last attempt was sent, by the server's clock.

    Raises:
        PdsyncError: the look itself failed; nothing is known.
    """
    shaped = shape(operation)
    if shaped.verb == "add":
        return await _look_for_new(http, operation, shaped, payload, seen, me, bound, sent_at)
    if shaped.verb == "merge":
        return await _look_at_merge(http, shaped, payload, base or {})
    place = fresh_reads.place(shaped, payload)
    if place is None:
        return await _look_at_state(http, operation, payload)
    read = (await fresh_reads.read(http, [place]))[place.target]
    request = f"read {place.target}"
    if read.hidden:
        return ProbeOutcome("unclear", request, "this token may not see it")
    if shaped.verb == "delete":
        return await _look_for_deletion(http, shaped, place, payload, read, me)
    if read.gone or read.record is None:
        return ProbeOutcome("moved", request, "it is gone")
    wanted = dict(fields(body_of(operation, payload)))
    held = snapshot_fields(read.record, body_of(operation, payload))
    if not changed_fields(read.record, wanted):
        can_tell = len(fields_not_returned(read.record, body_of(operation, payload))) < len(wanted)
        return ProbeOutcome("happened" if can_tell else "undecidable", request, held, read.record)
    before = snapshot_fields(base or {}, body_of(operation, payload))
    if base is not None and not changed_fields(read.record, before):
        return ProbeOutcome("absent", request, held)
    return ProbeOutcome("moved", request, held, read.record)


async def _look_for_deletion(
    http: Http,
    shape: Shape,
    place: fresh_reads.RecordAddress,
    payload: Mapping[str, Any],
    read: fresh_reads.FreshRecord,
    me: int,
) -> ProbeOutcome:
    request = f"read {place.target}"
    if not read.gone:
        return ProbeOutcome("absent", request, "it is still there")
    if not await _list_answers(http, shape, payload):
        return ProbeOutcome("unclear", request, "it is gone")
    by = await lost_updates.deleter(http, shape.kind, place.values[-1])
    if by not in (None, me):
        return ProbeOutcome("happened", request, f"user {by} has deleted it", by_other=True)
    return ProbeOutcome("happened", request, "it is gone")


async def _look_for_new(
    http: Http,
    operation: Operation,
    shape: Shape,
    payload: Mapping[str, Any],
    seen: Any,
    me: int,
    bound: set[str],
    sent_at: datetime | None,
) -> ProbeOutcome:
    request = f"list {shape.kind}"
    if shape.relation:  # it was not there before, or it would not have been sent
        tied = find_relation(operation, payload, await read_list(http, shape, payload))
        return ProbeOutcome("happened" if tied else "absent", request, [tied and key_of(tied)], tied)
    if seen is None:
        return ProbeOutcome("undecidable", request, "what the list held before is not known")
    records = await read_list(http, shape, payload)
    fresh = _added_since(records, seen)
    if _newest(shape) and len(fresh) == len(records) >= _page(shape):
        return ProbeOutcome("undecidable", request, f"more than {len(records)} were added since")
    wanted = dict(fields(body_of(operation, payload)))
    alike = []
    for each in fresh:
        if key_of(each) in bound or changed_fields(each, wanted) or _made_by(each) not in (None, me):
            continue
        whole = (
            await _whole(http, shape, payload, each) if fields_not_returned(each, body_of(operation, payload)) else each
        )
        if not changed_fields(whole, wanted):
            alike.append((each, evidence_against(operation, payload, whole, me) or _lateness(each, sent_at)))
    ours = [each for each, why in alike if not why]
    keys = [key_of(each) for each in ours]
    if len(ours) == 1:
        return ProbeOutcome("happened", request, keys, ours[0])
    if doubtful := [f"{key_of(each)} holds what was sent, but {why}" for each, why in alike if why and not ours]:
        return ProbeOutcome("undecidable", request, f"{'; '.join(doubtful)}: somebody else may have added it")
    if not ours and (why := _hidden(fresh, seen, bound, me)):
        return ProbeOutcome("undecidable", request, why)
    return ProbeOutcome("several" if ours else "absent", request, keys)


def _added_since(records: list[dict[str, Any]], seen: Any) -> list[dict[str, Any]]:
    """Of `records` those that were not there when `seen_before` looked."""
    if isinstance(seen, int):
        return [each for each in records if (key := key_of(each)) and key.isdecimal() and int(key) > seen]
    return [each for each in records if key_of(each) not in seen]


def _hidden(fresh: list[dict[str, Any]], seen: Any, bound: set[str], me: int) -> str | None:
    """Why a record that we added may be there, or have been there, though none holds what was sent; None: it can't.

    Assumption: ids of a kind are given without holes. Where they are not, a person looks once more than needed.
    """
    changed = [
        key
        for each in fresh
        if (key := key_of(each)) not in bound
        and _made_by(each) in (None, me)
        and each.get("update_time") not in (None, each.get("add_time"))
    ]
    if changed:
        return f"{', '.join(map(str, changed))} was added since, and changed: it may be ours"
    if isinstance(seen, int):
        newest = max((int(key) for each in fresh if (key := key_of(each))), default=seen)
        if missing := newest - seen - len(fresh):
            return f"{missing} that were added since are gone: ours may be among them"
    return None


async def _look_at_state(http: Http, operation: Operation, payload: Mapping[str, Any]) -> ProbeOutcome:
    """Look whether a state is so that was not so before: otherwise it would not have been sent."""
    if not is_state(operation):
        return ProbeOutcome("undecidable", operation.id, "nothing shows whether it happened")
    shown = await look_at_effect(http, operation, payload)
    request = f"read the effect of {operation.id}"
    if shown.verdict == "shown":
        return ProbeOutcome("happened", request, shown.after, shown.after)
    return ProbeOutcome("absent" if shown.verdict == "missing" else "undecidable", request, shown.detail)


def evidence_against(
    operation: Operation, payload: Mapping[str, Any], record: Mapping[str, Any], me: int | None
) -> str | None:
    """What speaks against a record that holds all of `payload` being the one that it added; None for nothing.

    An addition leaves what it does not name empty, or at the default, and gives the record to the user whose token it
    is. Assumption: that is so for every kind whose records have an owner.

    Args:
        operation: the addition.
        payload: what was sent.
        record: one that holds it.
        me: the id of the user whose token it is; None leaves the owner out.
    """
    owner = next((name for name in ("owner_id", "user_id") if name in operation.body), None)
    if me is not None and owner and owner not in payload and (held := _id_in(record.get(owner))) not in (None, me):
        return f"{owner} is {held}"
    given = payload.keys() | _DEFAULTED | (_LINKED if _LINKED & payload.keys() else set())
    more = [
        name
        for name, param in operation.body.items()
        if name not in given and not param.enum and param.type != "boolean" and _is_filled(record.get(name))
    ]
    sent, held_custom = payload.get("custom_fields") or {}, record.get("custom_fields")
    if isinstance(held_custom, dict):
        more += [
            f"custom field {code[:7]}…" for code, value in held_custom.items() if code not in sent and _is_filled(value)
        ]
    return f"it also has {', '.join(dict.fromkeys(more))}" if more else None


def _lateness(record: Mapping[str, Any], sent_at: datetime | None) -> str | None:
    """Why a record was added too long after an attempt to be its effect; None where it was not.

    Assumption: Pipedrive carries a request out within an hour of its arrival. A wrong clock here leads to a review.
    """
    try:
        added = datetime.fromisoformat(str(record.get("add_time")))
    except ValueError:
        return None
    added = added if added.tzinfo else added.replace(tzinfo=UTC)
    return f"it was added {added - sent_at} after this was sent" if sent_at and added > sent_at + _WINDOW else None


async def _whole(http: Http, shape: Shape, payload: Mapping[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """A record that a list shows in part, with all that it shows by itself."""
    key = key_of(record)
    if shape.item is None or key is None:
        return record
    values = (*(str(payload[name]) for name in shape.places), key)
    read = (await fresh_reads.read(http, [fresh_reads.RecordAddress(shape, f"{shape.kind}/{key}", values)])).popitem()[
        1
    ]
    return {**record, **(read.record or {})}


async def _look_at_merge(http: Http, shape: Shape, payload: Mapping[str, Any], base: Mapping[str, Any]) -> ProbeOutcome:
    place = fresh_reads.place(shape, payload)
    if place is None:
        return ProbeOutcome("undecidable", "merge")
    other = merge_preview.winner(shape, payload)
    found = await fresh_reads.read(http, [place, other])
    loser, winner = found[place.target], found[other.target]
    request = f"read {place.target} and {other.target}"
    if loser.gone and not winner.gone:
        # Somebody else may have deleted it, or merged it into a third one.
        proof = await merge_preview.proof(http, shape.kind, base, other.values[-1], winner.record or {})
        if proof.shown:
            return ProbeOutcome("happened", request, proof.shown, winner.record)
        return ProbeOutcome("undecidable", request, f"{place.target} is gone, but {proof.against}")
    before = merge_preview.stamp(base.get("loser") or {}, base.get("winner") or {})
    now = merge_preview.stamp(loser.record or {}, winner.record or {})
    if not loser.gone and not winner.gone and before == now:
        return ProbeOutcome("absent", request, now)
    return ProbeOutcome("undecidable", request, now)


async def read_list(http: Http, shape: Shape, payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The newest records of a list that sorts, or all of it."""
    listing = shape.listing
    if listing is None:
        return []
    sort = _newest(shape)
    values = tuple(str(payload[name]) for name in shape.places if name in payload)
    if sort is None:
        return list((await fresh_reads.listing_of(http, fresh_reads.RecordAddress(shape, "", values))).values())
    params = dict(zip(listing.path_params, values, strict=False))
    call = check(listing, params | sort | {"limit": _page(shape)})
    return records_in((await http.carry_out(call)).body)


def _page(shape: Shape) -> int:
    listing = shape.listing
    limit = listing.query["limit"].max if listing and "limit" in listing.query else None
    return limit or (listing.page_size if listing else None) or _NEWEST


def _newest(shape: Shape) -> dict[str, Any] | None:
    """The parameters that make a list begin with what was added last; None where it can't be sorted so."""
    listing = shape.listing
    if listing is None:
        return None
    by = listing.query.get("sort_by")
    if by and "id" in by.enum:
        return {"sort_by": "id", "sort_direction": "desc"}
    if "sort" in listing.query:
        stream = stream_of(shape.kind)
        counted = stream is None or stream.column(stream.key).type == "BIGINT"  # a UUID says nothing of when
        return {"sort": "id DESC" if counted else "add_time DESC"}
    return None


async def _list_answers(http: Http, shape: Shape, payload: Mapping[str, Any]) -> bool:
    """Whether records of this kind can still be seen: where they can't, a missing one says nothing."""
    try:
        return bool(await read_list(http, shape, payload)) or bool(shape.places[1:])
    except ApiError:
        return False


def _made_by(record: Mapping[str, Any]) -> Any:
    """The id of the user who added a record, where it says so."""
    for key in ("creator_user_id", "creator_id", "added_by_user_id", "created_by_user_id"):
        if (value := record.get(key)) is not None:
            return _id_in(value)
    return None


def _is_filled(value: Any) -> bool:
    """Whether somebody has put something there: 0, "" and lists of nothing are what an addition leaves by itself."""
    if isinstance(value, list):
        return any(_is_filled(item) for item in value)
    if isinstance(value, dict):
        return any(_is_filled(part) for part in ([value["value"]] if "value" in value else value.values()))
    return bool(value) and str(value) not in ("0", "0.0", "0.00")


def _id_in(value: Any) -> Any:
    """An id, also where it comes in an object."""
    return value.get("id", value.get("value")) if isinstance(value, dict) else value


def fingerprint(kind: str, payload: Mapping[str, Any]) -> str:
    """The same for additions that can't be told apart by what they hold: they never fly together."""
    return f"add:{kind}:{msgspec.json.encode(payload, order='deterministic').decode()}"
