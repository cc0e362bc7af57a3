"""Builds what takes a push back: the old values where ours still stand, the deletion of what was added.

It is queued like anything else, previewed and guarded. A field that somebody has changed since stays as they left it.
What has no way back is named with what a person can still do.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.extract.redact import FORGOTTEN
from pdsync.writeback.equality import equivalent, fields, value_in
from pdsync.writeback.outbox import Entry
from pdsync.writeback.plan import body_of
from pdsync.writeback.probe import evidence_against
from pdsync.writeback.shapes import adds_to, deletes_from, shape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pdsync.model import Mutation, Operation
    from pdsync.writeback.outbox import Outbox

_KEPT = timedelta(days=30)  # how long Pipedrive keeps what was deleted
_RESTORABLE = ("deals", "persons", "organizations", "products", "activities", "files")


class NoWayBack(Struct, frozen=True):
    """A mutation that can't be taken back, and what a person can do about it."""

    mutation: Mutation
    why: str


def reverse(outbox: Outbox, push_id: str) -> tuple[list[Entry], list[NoWayBack]]:
    """What takes back the mutations of a push, the last one first; and those that nothing takes back."""
    done = [
        each for each in outbox.mutations_of_push(push_id) if each.state == "applied" and each.reason != "already_so"
    ]
    entries: list[Entry] = []
    stuck: list[NoWayBack] = []
    for each in reversed(done):
        found = _reverse(outbox, each, done)
        if isinstance(found, Entry) and FORGOTTEN in str((found.payload, found.expected)):
            found = "it named a person who was forgotten since"
        if isinstance(found, Entry):
            entries.append(found)
        else:
            stuck.append(NoWayBack(each, found))
    return entries, stuck


def _reverse(outbox: Outbox, mutation: Mutation, push: Sequence[Mutation]) -> Entry | str:
    operation = catalogue.operation(mutation.operation)
    if mutation.verb == "update":
        return _restore(mutation, operation)
    if mutation.verb == "add":
        return _delete_added(outbox, mutation, operation, push)
    if mutation.verb == "delete":
        return _add_deleted(mutation, operation)
    if mutation.verb == "merge":
        return "a merge is for good; both records and what hung on them stand in meta.mutations.base_image"
    return f"{operation.id} has no counterpart"


def _restore(mutation: Mutation, operation: Operation) -> Entry | str:
    """The update that writes the values from before."""
    base, after = mutation.base_image, mutation.after_image or {}
    if base is None:
        return "what it held before is not known"
    payload: dict[str, Any] = {
        name: value for name, value in mutation.payload.items() if name in {**operation.path_params, **operation.query}
    }
    expected: dict[str, Any] = {}
    for field, sent in fields(body_of(operation, mutation.payload)):
        shown, before = value_in(base, field)
        _, ours = value_in(after, field)
        ours = sent if ours is None else ours
        if not shown or equivalent(ours, before):
            continue
        outer, _, code = field.partition("/")
        if code:
            payload.setdefault(outer, {})[code] = before
        else:
            payload[outer] = _as_id(before)
        expected[field] = ours
    if not expected:
        return "it changed nothing that shows"
    return _make_entry(mutation, operation, payload, expected)


def _delete_added(outbox: Outbox, mutation: Mutation, operation: Operation, push: Sequence[Mutation]) -> Entry | str:
    """The deletion of what was added, if it is shown to be ours, and as long as nobody has worked on it since."""
    delete = deletes_from(mutation.kind, operation.version)
    if delete is None or mutation.remote_id is None:
        return "nothing deletes such a record"
    outer = [_remote_id(outbox, mutation.payload[name]) for name in shape(operation).places]
    values = [*outer, mutation.remote_id]
    if len(values) != len(delete.path_params):
        return "nothing deletes such a record"
    payload = dict(zip(delete.path_params, values, strict=True))
    target = shape(delete).target(payload)
    after = mutation.after_image or {}
    if mutation.reason == "seen":  # its answer was lost, and it was found by what it holds
        why = (
            "whoever tied it"
            if shape(operation).relation
            else evidence_against(operation, mutation.payload, after, None)
        )
        if why:
            return f"its answer was lost, and nothing shows that {target} is ours: look at it, and delete it yourself"
    for each in push:  # what we have changed in it since is ours as well
        if each.verb == "update" and each.target == target and each.seq > mutation.seq:
            after = each.after_image or after
    others = [each for each in push if each.target and target and each.target.startswith(f"{target}/")]
    expected = {name: after[name] for name in operation.body if name in after}
    if "update_time" in after and not others and not _has_dependents(mutation, push):
        expected["update_time"] = after["update_time"]
    if not expected:
        return f"nothing shows what {target} held, so nobody can tell whether it is still as it was added"
    return _make_entry(mutation, delete, payload, expected)


def _add_deleted(mutation: Mutation, operation: Operation) -> Entry | str:
    """The addition of what was taken off a record; a record itself comes back in Pipedrive only."""
    add = adds_to(mutation.kind, operation.version)
    if "/" not in mutation.kind or add is None or mutation.base_image is None:
        if mutation.kind in _RESTORABLE and mutation.settled_at:
            until = (mutation.settled_at + _KEPT).date()
            return f"restore {mutation.target} in Pipedrive itself (deleted items) until {until}"
        return f"{mutation.target} is gone; what it held stands in meta.mutations.base_image"
    payload = {name: mutation.payload[own] for name, own in zip(add.path_params, shape(operation).places, strict=False)}
    payload |= {
        name: _as_id(mutation.base_image[name])
        for name in add.body
        if mutation.base_image.get(name) not in (None, "", [], {})
    }
    missing = [name for name, param in add.body.items() if param.required and name not in payload]
    return (
        f"{add.id} needs {', '.join(missing)}, which is not known"
        if missing
        else _make_entry(mutation, add, payload, None)
    )


def _make_entry(
    mutation: Mutation, operation: Operation, payload: dict[str, Any], expected: dict[str, Any] | None
) -> Entry:
    shaped = shape(operation)
    target = shaped.target(payload) if shaped.places else None
    return Entry(
        operation.name, shaped.verb, shaped.kind, target, payload, f"undo:{mutation.id}", expected=expected,
        undo_of=mutation.id,
    )  # fmt: skip


def _has_dependents(mutation: Mutation, push: Sequence[Mutation]) -> bool:
    """Whether others of the push hang on what it added: they move its update_time, too."""
    return any(mutation.id in each.references or _points(each.payload, mutation.remote_id) for each in push)


def _points(payload: Mapping[str, Any], remote_id: str | None) -> bool:
    return any(name.endswith("_id") and str(value) == remote_id for name, value in payload.items())


def _remote_id(outbox: Outbox, value: Any) -> Any:
    return outbox.get(value["$ref"]).remote_id if isinstance(value, dict) and "$ref" in value else value


def _as_id(value: Any) -> Any:
    """A reference that came as an object, as the id that is sent."""
    if isinstance(value, dict) and ("id" in value or "value" in value) and ("name" in value or "email" in value):
        return value.get("id", value.get("value"))
    return value
