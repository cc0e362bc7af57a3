"""Finds out whether a write whose answer was lost was carried out: one kind of probe for each kind of change.

    add      a record that the list did not have before, added by us, with all that was sent and nothing else that
             a person would have filled in, bound to no other mutation
    update   the record has what was sent, or what it had before
    delete   the record is gone, while the list of its kind still answers
    merge    the loser is gone, and the winner has what only this merge gives it: the loser's children and values
    other    its effect shows (see `effects`); where no read shows the effect, the outcome can't be found out

A probe changes nothing. What it read is stored as evidence, whatever the verdict.
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
from pdsync.writeback.effects import is_state, read_effect
from pdsync.writeback.equality import changed_fields, fields, fields_not_returned, snapshot_fields
from pdsync.writeback.prepared import addresses_of
from pdsync.writeback.shapes import LINKED_RECORDS, find_stream, record_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pdsync.core.http import Http
    from pdsync.model import Operation
    from pdsync.writeback.prepared import PreparedMutation
    from pdsync.writeback.shapes import Shape

Verdict = Literal["happened", "absent", "moved", "several", "undecidable", "unclear"]  # after the last one, probe again
ADDITIONS_PER_SNAPSHOT = 50  # additions for which the list before them is read once
# Fields that Pipedrive fills in where an addition does not set them. Assumption: these are all of them.
_DEFAULTED = frozenset({
    "owner_id", "user_id", "pipeline_id", "stage_id", "currency", "visible_to", "add_time", "update_time", "type",
    "subject", "prices", "custom_fields", "probability", "order_nr", "color", "icon_key", "billing_start_date",
    "status", "deal_probability", "days_to_rotten", "due_date", "due_time", "duration", "priority", "health_status",
    "tax", "discount", "billing_frequency_cycles", "ui_visibility", "important_fields", "required_fields", "access",
    "version",
})  # fmt: skip
# An addition that links to one record may be linked by Pipedrive to that record's own parents as well.
_LINKED = frozenset({"deal_id", "lead_id", "person_id", "org_id", "organization_id", "project_id", "participants"})
_WINDOW = timedelta(hours=1)  # within which an attempt takes effect
_NEWEST = 100  # records that are read of a list in order of age, where the documents name no larger page


class ProbeOutcome(Struct, frozen=True):
    """The result of a probe."""

    verdict: Verdict
    request: str  # what was read, in words
    found: Any = None  # the evidence
    record: dict[str, Any] | None = None  # the record that was added or changed
    by_other: bool = False  # it is done, by another user


async def list_snapshot(http: Http, shape: Shape, payload: Mapping[str, Any]) -> Any:
    """The list before a record is added; None where it can't be read at a fair cost.

    Returns:
        The largest id, of a list that can be sorted by age and has numbers as keys; otherwise the keys of what
        `read_list` reads, sorted.

    Raises:
        PdsyncError: the list can't be read.
    """
    if not has_snapshot(shape, payload):
        return None
    newest = _newest_first(shape)
    keys = [key for record in await read_list(http, shape, payload) if (key := record_key(record))]
    if newest and all(key.isdecimal() for key in keys):
        return max(map(int, keys), default=0)
    return sorted(keys)


def has_snapshot(shape: Shape, payload: Mapping[str, Any]) -> bool:
    """Whether a list can be read at a fair cost before a record is added to it."""
    if shape.listing is None or _required_query(shape.listing, payload) is None:
        return False
    # Of a long list without an order all would have to be read.
    return _newest_first(shape) is not None or shape.listing.paging == "none" or bool(shape.path_params)


def find_relation(body: Mapping[str, Any], records: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The one of `records` that links the same two records as `body` would, such as a follower of a deal."""
    desired = dict(fields(body))
    return next(
        (each for each in records if not fields_not_returned(each, desired) and not changed_fields(each, desired)), None
    )


async def probe_write(
    http: Http,
    prepared: PreparedMutation,
    *,
    base: Mapping[str, Any] | None,
    seen: Any,
    me: int,
    bound: set[str],
    sent_at: datetime | None = None,
) -> ProbeOutcome:
    """Find out whether a write was carried out.

    Args:
        http: the session.
        prepared: the mutation as it was sent.
        base: the record as it was before; of a merge both, as for `merge_preview.find_proof`.
        seen: what `list_snapshot` returned before.
        me: the id of the user whose token it is.
        bound: ids of records of this kind that other mutations have added.
        sent_at: when the last attempt was sent, by the server's clock.

    Raises:
        PdsyncError: a read failed; the outcome stays unknown.
    """
    verb = prepared.shape.verb
    if verb == "add":
        return await _probe_add(http, prepared, seen, me, bound, sent_at)
    # A mutation whose operation has been removed from the API since it was sent is prepared without addresses.
    addresses = prepared.addresses or addresses_of(prepared.shape, prepared.payload)
    if verb == "merge":
        return await _probe_merge(http, prepared.shape.kind, addresses, base or {})
    if not addresses:
        return await _probe_state(http, prepared.operation, prepared.payload)
    address = addresses[0]
    read = (await fresh_reads.read(http, [address]))[address.target]
    request = f"read {address.target}"
    if read.is_hidden:
        return ProbeOutcome("unclear", request, "this token may not see it")
    if verb == "delete":
        return await _probe_delete(http, address, prepared.payload, read, me)
    if read.is_gone or read.record is None:
        return ProbeOutcome("moved", request, "it is gone")
    return _judge_update(prepared.body, request, base, read.record)


def _judge_update(
    body: Mapping[str, Any], request: str, base: Mapping[str, Any] | None, record: dict[str, Any]
) -> ProbeOutcome:
    desired = dict(fields(body))
    current = snapshot_fields(record, body)
    before = snapshot_fields(base or {}, body)
    is_before = base is not None and not changed_fields(record, before, exact=True)
    if not changed_fields(record, desired) and not (is_before and changed_fields(record, desired, exact=True)):
        can_tell = len(fields_not_returned(record, body)) < len(desired)
        return ProbeOutcome("happened" if can_tell else "undecidable", request, current, record)
    if is_before or (base is not None and not changed_fields(record, before)):
        return ProbeOutcome("absent", request, current)
    return ProbeOutcome("moved", request, current, record)


async def _probe_delete(
    http: Http,
    address: fresh_reads.RecordAddress,
    payload: Mapping[str, Any],
    read: fresh_reads.FreshRecord,
    me: int,
) -> ProbeOutcome:
    request = f"read {address.target}"
    if not read.is_gone:
        return ProbeOutcome("absent", request, "it is still there")
    if not await _can_list(http, address.shape, payload):
        return ProbeOutcome("unclear", request, "it is gone")
    by = await lost_updates.find_deleter(http, address.shape.kind, address.values[-1])
    if by not in (None, me):
        return ProbeOutcome("happened", request, f"user {by} has deleted it", by_other=True)
    return ProbeOutcome("happened", request, "it is gone")


async def _probe_add(
    http: Http, prepared: PreparedMutation, seen: Any, me: int, bound: set[str], sent_at: datetime | None
) -> ProbeOutcome:
    shape, payload = prepared.shape, prepared.payload
    request = f"list {shape.kind}"
    if shape.relation:  # it is sent only where it did not exist before
        linked = find_relation(prepared.body, await read_list(http, shape, payload))
        return ProbeOutcome("happened" if linked else "absent", request, [linked and record_key(linked)], linked)
    if seen is None:
        return ProbeOutcome("undecidable", request, "the list before it is not known")
    records = await read_list(http, shape, payload)
    fresh = _added_after(records, seen)
    if _newest_first(shape) and len(fresh) == len(records) >= _page_size(shape):
        return ProbeOutcome("undecidable", request, f"more than {len(records)} were added since")
    desired = dict(fields(prepared.body))
    alike = []
    for each in fresh:
        if record_key(each) in bound or changed_fields(each, desired) or _creator(each) not in (None, me):
            continue
        is_part = fields_not_returned(each, prepared.body)
        whole = await _read_whole(http, shape, payload, each) if is_part else each
        if not changed_fields(whole, desired):
            alike.append((each, evidence_against(prepared.operation, payload, whole, me) or _why_late(each, sent_at)))
    ours = [each for each, why in alike if not why]
    keys = [record_key(each) for each in ours]
    if len(ours) == 1:
        return ProbeOutcome("happened", request, keys, ours[0])
    if doubtful := [f"{record_key(each)} has what was sent, but {why}" for each, why in alike if why and not ours]:
        return ProbeOutcome("undecidable", request, f"{'; '.join(doubtful)}: another user may have added it")
    if not ours and (
        why := _why_hidden(fresh, seen, bound, me) or await _why_deleted(http, shape, payload, fresh, seen)
    ):
        return ProbeOutcome("undecidable", request, why)
    return ProbeOutcome("several" if ours else "absent", request, keys)


def _added_after(records: list[dict[str, Any]], seen: Any) -> list[dict[str, Any]]:
    """The records that were not in the list when `list_snapshot` read it."""
    if isinstance(seen, int):
        return [each for each in records if (key := record_key(each)) and key.isdecimal() and int(key) > seen]
    return [each for each in records if record_key(each) not in seen]


def _why_hidden(fresh: list[dict[str, Any]], seen: Any, bound: set[str], me: int) -> str | None:
    """Why our record may exist, or have existed, though none has what was sent; None if it can't.

    Assumption: ids of a kind have no gaps. Where they do, a mutation is reviewed without need.
    """
    changed = [
        key
        for each in fresh
        if (key := record_key(each)) not in bound
        and _creator(each) in (None, me)
        and each.get("update_time") not in (None, each.get("add_time"))
    ]
    if changed:
        return f"{', '.join(map(str, changed))} was added since, and changed: it may be ours"
    if isinstance(seen, int) and (missing := _newest(fresh, seen) - seen - len(fresh)):
        return f"{missing} that were added since are gone: ours may be among them"
    return None


async def _why_deleted(
    http: Http, shape: Shape, payload: Mapping[str, Any], fresh: list[dict[str, Any]], seen: Any
) -> str | None:
    """Why our record may be deleted or archived already, though it was the newest: the next id is such a record's."""
    if not isinstance(seen, int) or shape.item is None:
        return None
    values = (*(str(payload[name]) for name in shape.path_params), str(_newest(fresh, seen) + 1))
    address = fresh_reads.RecordAddress(shape, f"{shape.kind}/{values[-1]}", values)
    read = (await fresh_reads.read(http, [address]))[address.target]
    if read.record and (read.is_gone or read.is_archived):
        return f"{address.target} was added since, and {'deleted' if read.is_gone else 'archived'}: it may be ours"
    return None


def _newest(fresh: list[dict[str, Any]], seen: int) -> int:
    """The largest id of a list now, where `seen` was the largest before."""
    return max((int(key) for each in fresh if (key := record_key(each))), default=seen)


async def _probe_state(http: Http, operation: Operation, payload: Mapping[str, Any]) -> ProbeOutcome:
    """Probe an operation that sets a state: it is sent only where the state was another one before."""
    if not is_state(operation):
        return ProbeOutcome("undecidable", operation.id, "nothing shows whether it happened")
    effect = await read_effect(http, operation, payload)
    request = f"read the effect of {operation.id}"
    if effect.verdict == "shown":
        return ProbeOutcome("happened", request, effect.after, effect.after)
    return ProbeOutcome("absent" if effect.verdict == "missing" else "undecidable", request, effect.detail)


def evidence_against(
    operation: Operation, payload: Mapping[str, Any], record: Mapping[str, Any], me: int | None
) -> str | None:
    """Why a record that has all of `payload` may not be the one that the addition made; None where nothing says so.

    An addition leaves the fields that it does not set empty, or at the default, and makes the user of the token the
    owner. Assumption: that is so for every kind whose records have an owner.

    Args:
        operation: the addition.
        payload: what was sent.
        record: one that has all of the payload.
        me: the id of the user whose token it is; None leaves the owner out.
    """
    owner = next((name for name in ("owner_id", "user_id") if name in operation.body), None)
    if me is not None and owner and owner not in payload and (current := _id_in(record.get(owner))) not in (None, me):
        return f"{owner} is {current}"
    given = payload.keys() | _DEFAULTED | (_LINKED if _LINKED & payload.keys() else set())
    more = [
        name
        for name, param in operation.body.items()
        if name not in given and not param.enum and param.type != "boolean" and _is_filled(record.get(name))
    ]
    sent, custom = payload.get("custom_fields") or {}, record.get("custom_fields")
    if isinstance(custom, dict):
        more += [
            f"custom field {code[:7]}…" for code, value in custom.items() if code not in sent and _is_filled(value)
        ]
    return f"it also has {', '.join(dict.fromkeys(more))}" if more else None


def _why_late(record: Mapping[str, Any], sent_at: datetime | None) -> str | None:
    """Why a record is too late to be the effect of an attempt; None if it is not.

    Assumption: Pipedrive carries a request out within an hour of its arrival. A wrong clock leads to a review.
    """
    try:
        added = datetime.fromisoformat(str(record.get("add_time")))
    except ValueError:
        return None
    added = added if added.tzinfo else added.replace(tzinfo=UTC)
    return f"it was added {added - sent_at} after this was sent" if sent_at and added > sent_at + _WINDOW else None


async def _read_whole(http: Http, shape: Shape, payload: Mapping[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """A record that the list shows in part, with all of its fields."""
    key = record_key(record)
    if shape.item is None or key is None:
        return record
    values = (*(str(payload[name]) for name in shape.path_params), key)
    read = (await fresh_reads.read(http, [fresh_reads.RecordAddress(shape, f"{shape.kind}/{key}", values)])).popitem()[
        1
    ]
    return {**record, **(read.record or {})}


async def _probe_merge(
    http: Http, kind: str, addresses: Sequence[fresh_reads.RecordAddress], base: Mapping[str, Any]
) -> ProbeOutcome:
    if len(addresses) < 2:
        return ProbeOutcome("undecidable", "merge")
    merged, into = addresses
    found = await fresh_reads.read(http, addresses)
    loser, winner = found[merged.target], found[into.target]
    request = f"read {merged.target} and {into.target}"
    if loser.is_gone and not winner.is_gone:
        # Another user may have deleted it, or merged it into a third one.
        proof = await merge_preview.find_proof(http, kind, base, into.values[-1], winner.record or {})
        if proof.shown:
            return ProbeOutcome("happened", request, proof.shown, winner.record)
        return ProbeOutcome("undecidable", request, f"{merged.target} is gone, but {proof.against}")
    before = merge_preview.stamp(base.get("loser") or {}, base.get("winner") or {})
    now = merge_preview.stamp(loser.record or {}, winner.record or {})
    if not loser.is_gone and not winner.is_gone and before == now:
        return ProbeOutcome("absent", request, now)
    return ProbeOutcome("undecidable", request, now)


async def read_list(http: Http, shape: Shape, payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The newest records of a list that can be sorted by age, or all of the list."""
    listing = shape.listing
    if listing is None:
        return []
    sort = _newest_first(shape)
    values = tuple(str(payload[name]) for name in shape.path_params if name in payload)
    query = _required_query(listing, payload) or {}
    if sort is None:
        return list(
            (await fresh_reads.read_siblings(http, fresh_reads.RecordAddress(shape, "", values), query)).values()
        )
    params = dict(zip(listing.path_params, values, strict=False))
    call = check(listing, params | query | sort | {"limit": _page_size(shape)})
    return records_in((await http.carry_out(call)).body)


def _required_query(listing: Operation, payload: Mapping[str, Any]) -> dict[str, Any] | None:
    """The query without which a list is refused, from what is added: the board of a phase, the organization of a
    relationship. None where the addition does not say it."""
    found = {
        name: payload.get(name, payload.get(LINKED_RECORDS[0]))
        for name, param in listing.query.items()
        if param.required
    }
    return None if None in found.values() else found


def _page_size(shape: Shape) -> int:
    listing = shape.listing
    limit = listing.query["limit"].max if listing and "limit" in listing.query else None
    return limit or (listing.page_size if listing else None) or _NEWEST


def _newest_first(shape: Shape) -> dict[str, Any] | None:
    """The parameters that sort a list by age, the newest first; None where it can't be sorted so."""
    listing = shape.listing
    if listing is None:
        return None
    by = listing.query.get("sort_by")
    if by and "id" in by.enum:
        return {"sort_by": "id", "sort_direction": "desc"}
    if "sort" in listing.query:
        stream = find_stream(shape.kind)
        counted = stream is None or stream.column(stream.key).type == "BIGINT"  # the order of UUIDs is not that of age
        return {"sort": "id DESC" if counted else "add_time DESC"}
    return None


async def _can_list(http: Http, shape: Shape, payload: Mapping[str, Any]) -> bool:
    """Whether records of this kind can be listed: if not, a missing one proves nothing."""
    try:
        return bool(await read_list(http, shape, payload)) or bool(shape.path_params[1:])
    except ApiError:
        return False


def _creator(record: Mapping[str, Any]) -> Any:
    """The id of the user who added a record; None where the record does not show it."""
    for key in ("creator_user_id", "creator_id", "added_by_user_id", "created_by_user_id"):
        if (value := record.get(key)) is not None:
            return _id_in(value)
    return None


def _is_filled(value: Any) -> bool:
    """Whether a field was filled in: an addition that does not set it leaves 0, "" or a list without values."""
    if isinstance(value, list):
        return any(_is_filled(item) for item in value)
    if isinstance(value, dict):
        return any(_is_filled(part) for part in ([value["value"]] if "value" in value else value.values()))
    return bool(value) and str(value) not in ("0", "0.0", "0.00")


def _id_in(value: Any) -> Any:
    """An id, also from an object that has it."""
    return value.get("id", value.get("value")) if isinstance(value, dict) else value


def fingerprint(kind: str, payload: Mapping[str, Any]) -> str:
    """A text that is equal for additions with equal payloads: such additions are never in flight together."""
    return f"add:{kind}:{msgspec.json.encode(payload, order='deterministic').decode()}"
