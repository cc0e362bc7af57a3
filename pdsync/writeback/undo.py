"""Makes the changes that undo a push: the old values where ours were not changed since, the deletion of what was added.

They are queued, previewed and guarded like any other change. A field that another user has changed since stays as it
is. A mutation that can't be undone is named, with what a person can still do.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.extract.redact import FORGOTTEN
from pdsync.writeback.equality import as_reference, equivalent, fields, value_in
from pdsync.writeback.outbox import Entry
from pdsync.writeback.prepared import body_of
from pdsync.writeback.probe import evidence_against
from pdsync.writeback.shapes import find_add_operation, find_delete_operation, shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pdsync.model import Mutation, Operation
    from pdsync.writeback.outbox import Outbox

_KEPT = timedelta(days=30)  # for which Pipedrive keeps a deleted record
# Fields that Pipedrive sets when a deal gets another value of a field: a pipeline alone puts it in the first stage, and
# a status that is no longer lost or won empties its reason and times.
_CONSEQUENCES = {"pipeline_id": ("stage_id",), "status": ("lost_reason", "won_time", "lost_time", "close_time")}
_RESTORABLE = ("deals", "persons", "organizations", "products", "activities", "files")


class NotUndoable(Struct, frozen=True):
    """A mutation that can't be undone, and what a person can do about it."""

    mutation: Mutation
    why: str


class _Push:
    """The mutations of a push that had an effect, by what they change and what they refer to."""

    def __init__(self, outbox: Outbox, done: Sequence[Mutation]) -> None:
        self.updates: dict[str | None, list[Mutation]] = {}
        self.referred: set[str] = set()  # ids of mutations, and of records
        self.parents: set[str] = set()  # of changed records: "deals/12" of "deals/12/products/7"
        for each in done:
            if each.verb == "update":
                self.updates.setdefault(_find_target(outbox, each), []).append(each)
            self.referred |= {outbox.stand_in(id)[0].id for id in each.references}
            self.referred |= {str(value) for name, value in each.payload.items() if name.endswith("_id")}
            parts = (each.target or "").split("/")
            self.parents |= {"/".join(parts[:end]) for end in range(2, len(parts))}


def make_undo(outbox: Outbox, push_id: str) -> tuple[list[Entry], list[NotUndoable]]:
    """The changes that undo the mutations of a push, the last one first; and the mutations that have none.

    Those that were not applied count as well where they had an effect, or may have had one.
    """
    done = [each for each in outbox.mutations_of_push(push_id) if _may_have_effect(outbox, each)]
    entries: list[Entry] = []
    not_undoable: list[NotUndoable] = []
    push = _Push(outbox, done)
    for each in reversed(done):
        undone = _undo_one(outbox, each, push)
        if isinstance(undone, Entry) and FORGOTTEN in str((undone.payload, undone.expected)):
            undone = "it named a person who was forgotten since"
        if isinstance(undone, Entry):
            entries.append(undone)
        else:
            not_undoable.append(NotUndoable(each, undone))
    return entries, not_undoable


def _may_have_effect(outbox: Outbox, mutation: Mutation) -> bool:
    if mutation.state == "rejected" and mutation.reason == "ignored_fields" and mutation.verb == "update":
        return isinstance(_restore(outbox, mutation, catalogue.operation(mutation.operation)), Entry)
    if mutation.state == "needs_review":
        resolution = outbox.resolution(mutation.id) or {}
        return bool(outbox.attempts(mutation.id)) and resolution.get("verdict") != "rejected"
    if mutation.state == "conflict":
        return mutation.reason == "detected_late"
    return mutation.state == "applied" and mutation.reason != "already_so"


def find_reversals(outbox: Outbox, entries: Sequence[Entry]) -> list[Mutation]:
    """The mutations that undo the same as `entries`, also retries; not those that were dropped or changed nothing."""
    parents = {each.undo_of for each in entries}
    return [
        each
        for each in outbox.mutations(images=False)
        if each.undo_of in parents and each.state not in ("cancelled", "rejected", "conflict")
    ]


def _undo_one(outbox: Outbox, mutation: Mutation, push: _Push) -> Entry | str:
    operation = catalogue.operation(mutation.operation)
    if mutation.state == "conflict":
        return f"{mutation.detail}: set the value that is right yourself"
    if mutation.state == "needs_review" and mutation.reason != "ignored_fields":
        return f"it needs a review, and may have been carried out: pdsync queue show {mutation.seq}"
    if mutation.verb == "update":
        return _restore(outbox, mutation, operation)
    if mutation.verb == "add":
        return _delete_added(outbox, mutation, operation, push)
    if mutation.verb == "delete":
        return _add_deleted(mutation, operation)
    if mutation.verb == "merge":
        return "a merge is final; what both records had is in meta.mutations.base_image"
    return f"{operation.id} has no counterpart"


def _restore(outbox: Outbox, mutation: Mutation, operation: Operation) -> Entry | str:
    """The update that sets the values from before."""
    base, after = mutation.base_image, mutation.after_image or {}
    if base is None:
        return "the values before it are not known"
    payload: dict[str, Any] = {
        name: _remote_id(outbox, value)
        for name, value in mutation.payload.items()
        if name in {**operation.path_params, **operation.query}
    }
    expected: dict[str, Any] = {}
    for field, sent in fields(body_of(operation, mutation.payload)):
        is_shown, before = value_in(base, field)
        _, ours = value_in(after, field)
        ours = sent if ours is None else ours
        # An owner may have a new name.
        if not is_shown or equivalent(ours, before, exact=True) or equivalent(sent, before, exact=True):
            continue
        outer, _, code = field.partition("/")
        if code:
            payload.setdefault(outer, {})[code] = before
        else:
            payload[outer] = _as_value(operation, outer, before)
        expected[field] = ours
    if not expected:
        return "it changed no value that the record shows"
    for name in _find_consequences(mutation, expected):
        if name in operation.body and name not in payload:
            payload[name], expected[name] = base[name], after[name]
    return _make_entry(mutation, operation, payload, expected)


def _find_consequences(mutation: Mutation, undone: Iterable[str]) -> list[str]:
    """The fields that the update has changed without naming them, of those that follow the `undone` ones.

    Fields that were empty are left to Pipedrive, which empties them again.
    """
    base, after = mutation.base_image or {}, mutation.after_image or {}
    names = [name for field in undone for name in _CONSEQUENCES.get(field, ()) if mutation.kind == "deals"]
    return [
        name
        for name in names
        if base.get(name) not in (None, "") and name in after and not equivalent(after[name], base[name], exact=True)
    ]


def _delete_added(outbox: Outbox, mutation: Mutation, operation: Operation, push: _Push) -> Entry | str:
    """The deletion of the record that was added, provided that it is ours and was not changed since."""
    delete = find_delete_operation(mutation.kind, operation.version)
    if delete is None or mutation.remote_id is None:
        return "nothing deletes such a record"
    outer = [_remote_id(outbox, mutation.payload[name]) for name in shape(operation).path_params]
    values = [*outer, mutation.remote_id]
    if len(values) != len(delete.path_params):
        return "nothing deletes such a record"
    payload = dict(zip(delete.path_params, values, strict=True))
    target = shape(delete).target(payload)
    after = mutation.after_image or {}
    if mutation.reason == "seen":  # its answer was lost, and it was found by its values
        why = (
            "another user may have linked them"
            if shape(operation).relation
            else evidence_against(operation, mutation.payload, after, None)
        )
        if why:
            return f"its answer was lost, and nothing proves that {target} is ours: look at it, and delete it yourself"
    later = [each for each in push.updates.get(target, ()) if each.seq > mutation.seq]
    for each in later:  # they are ours as well; those that can be undone are undone before the deletion
        if isinstance(_restore(outbox, each, catalogue.operation(each.operation)), str):
            after = each.after_image or after
    # What the push adds or changes below it, or links to it, changes its update_time too.
    is_referred = not push.referred.isdisjoint((mutation.id, mutation.remote_id))
    has_dependents = bool(later) or target in push.parents or is_referred
    expected = {name: after[name] for name in operation.body if name in after}
    if "update_time" in after and not has_dependents:
        expected["update_time"] = after["update_time"]
    if not expected:
        return f"the values of {target} after it was added are not known, so a change since would not be noticed"
    return _make_entry(mutation, delete, payload, expected)


def _add_deleted(mutation: Mutation, operation: Operation) -> Entry | str:
    """The addition of a child that was deleted; a deleted record itself can only be restored in Pipedrive."""
    add = find_add_operation(mutation.kind, operation.version)
    if "/" not in mutation.kind or add is None or mutation.base_image is None:
        if mutation.kind in _RESTORABLE and mutation.settled_at:
            until = (mutation.settled_at + _KEPT).date()
            return f"restore {mutation.target} in Pipedrive itself (deleted items) until {until}"
        return f"{mutation.target} is gone; its values are in meta.mutations.base_image"
    payload = {
        name: mutation.payload[own] for name, own in zip(add.path_params, shape(operation).path_params, strict=False)
    }
    payload |= {
        name: as_reference(mutation.base_image[name])
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
    target = shaped.target(payload) if shaped.path_params else None
    return Entry(
        operation.name, shaped.verb, shaped.kind, target, payload, f"undo:{mutation.id}", expected=expected,
        undo_of=mutation.id,
    )  # fmt: skip


def _find_target(outbox: Outbox, update: Mutation) -> str | None:
    """The record that an update has changed, also one that another mutation has added."""
    operation = catalogue.operation(update.operation)
    return shape(operation).target({name: _remote_id(outbox, value) for name, value in update.payload.items()})


def _remote_id(outbox: Outbox, value: Any) -> Any:
    return outbox.stand_in(value["$ref"])[1] if isinstance(value, dict) and "$ref" in value else value


def _as_value(operation: Operation, name: str, value: Any) -> Any:
    """A value that the API returned, as the parameter takes it: a reference by its id, an empty date as null."""
    param = operation.body.get(name)
    return None if value == "" and param and param.type != "string" else as_reference(value)
