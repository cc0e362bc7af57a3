"""Works out once what a mutation is: its operation, what that does, the record's address, the body and its validity.

The planner, the preconditions, the sender and the verification all take a `PreparedMutation`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.request_builder import check
from pdsync.errors import ConfigError
from pdsync.model import Mutation, Operation  # noqa: TC001 - msgspec reads them at run time
from pdsync.writeback import fresh_reads, merge_preview
from pdsync.writeback.shapes import Shape, describe_self_link, shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pdsync.writeback.outbox import Outbox


class HeldBack(Exception):
    """A mutation can't be sent now: one that it depends on was not applied, or the push was stopped."""


class PreparedMutation(Struct, frozen=True):
    """A mutation with all that follows from its operation and payload."""

    mutation: Mutation
    operation: Operation
    shape: Shape
    payload: dict[str, Any]  # as it is sent, except for references that are not filled in yet
    body: dict[str, Any]  # the part of the payload that the record takes
    addresses: tuple[fresh_reads.RecordAddress, ...] = ()  # of a merge: the loser, then the winner
    fault: tuple[str, str] | None = None  # why it can't be sent, whatever the records are: reason and detail

    def with_payload(self, payload: dict[str, Any]) -> PreparedMutation:
        """The same mutation of the same records with other values."""
        return replace(self, payload=payload, body=body_of(self.operation, payload))


def prepare(mutation: Mutation, payload: dict[str, Any] | None = None) -> PreparedMutation:
    """Work out what `mutation` does.

    Args:
        mutation: a mutation of the queue.
        payload: what is sent in place of its own payload: completed, or with references filled in.
    """
    payload = dict(mutation.payload if payload is None else payload)
    operation = catalogue.operation(mutation.operation)
    shaped = shape(operation)
    fault = _fault(operation, payload)
    addresses = () if fault else addresses_of(shaped, payload)
    return PreparedMutation(mutation, operation, shaped, payload, body_of(operation, payload), addresses, fault)


def prepare_to_send(outbox: Outbox, mutation: Mutation, payload: dict[str, Any]) -> PreparedMutation:
    """Prepare a mutation with the ids of the records that others have added, and the marker of an addition.

    Args:
        outbox: the queue.
        mutation: a mutation of the queue.
        payload: as the plan completed it.

    Raises:
        HeldBack: it refers to a record that was not added.
        ConfigError: it refers to a mutation that is not in the queue; it can never be sent.
    """
    filled = dict(payload)
    for name, value in payload.items():
        if isinstance(value, dict) and "$ref" in value:
            other, remote_id = _find_referenced(outbox, value["$ref"])
            if remote_id is None:
                raise HeldBack(f"#{other.seq}, which it refers to, was not applied")
            filled[name] = remote_id
    if mutation.verb == "add" and "origin_id" in catalogue.operation(mutation.operation).body:
        filled.setdefault("origin_id", f"pdsync:{mutation.id}")  # no other record has this marker
    return prepare(mutation, filled)


def _find_referenced(outbox: Outbox, id: str) -> tuple[Mutation, str | None]:
    try:
        return outbox.stand_in(id)
    except ConfigError as error:
        raise ConfigError(f"not sent: it refers to mutation {id}, which is not queued. Queue it again.") from error


def addresses_of(shaped: Shape, payload: Mapping[str, Any]) -> tuple[fresh_reads.RecordAddress, ...]:
    """The addresses of the records that exist and are changed; of a merge those of the loser and the winner."""
    if shaped.verb not in ("update", "delete", "merge"):
        return ()
    address = fresh_reads.address_of(shaped, payload)
    if address is None or shaped.verb != "merge":
        return (address,) if address else ()
    if isinstance(payload["merge_with_id"], dict):  # the winner does not exist yet
        return ()
    return address, merge_preview.winner_address(shaped, payload)


def body_of(operation: Operation, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a payload that the record takes: all but the parameters of path and query."""
    outside = {*operation.path_params, *operation.query}
    return {name: value for name, value in payload.items() if name not in outside}


def _fault(operation: Operation, payload: Mapping[str, Any]) -> tuple[str, str] | None:
    try:
        check(operation, _with_sample_ids(operation, payload))
    except ConfigError as error:
        return "not_valid", str(error).split("\n", 1)[0]
    if why := catalogue.why_removed(operation):
        return "removed", why
    if wrong := describe_self_link(operation, payload):
        return "not_valid", wrong
    return None


def _with_sample_ids(operation: Operation, payload: Mapping[str, Any]) -> dict[str, Any]:
    """A payload with a valid id for each record that does not exist yet: the rest can be checked."""
    declared = {**operation.path_params, **operation.query, **operation.body}
    sample = {"string:uuid": "00000000-0000-0000-0000-000000000000"}
    return {
        name: sample.get(declared[name].type, 1) if isinstance(value, dict) and "$ref" in value else value
        for name, value in payload.items()
    }
