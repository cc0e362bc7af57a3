"""A control.db with mutations, and a warehouse with the names of a small company: what the tests of the queue share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb

from pdsync.core import catalogue
from pdsync.core.control import Control
from pdsync.load import warehouse
from pdsync.writeback.journal import Journal
from pdsync.writeback.outbox import Entry, Outbox, Reference
from pdsync.writeback.shapes import shape

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pdsync.model import Mutation, State

COMPANY = 7


def open_outbox(folder: Path, *, company: int | None = COMPANY, journal: bool = True) -> Outbox:
    """An empty outbox in `folder`, with its journal in `folder/raw`."""
    control = Control(folder / "control.db")
    if company is not None:
        control.bind_company(company, "Acme", None)
    return Outbox(control, Journal(folder / "raw") if journal else None)


def entry(operation: str = "v2 updateDeal", payload: Mapping[str, Any] | None = None, **options: Any) -> Entry:
    """A change of `operation`, by default of the title of deal 12."""
    values = {"id": 12, "title": "New"} if payload is None else dict(payload)
    shaped = shape(catalogue.operation(operation))
    ids = {name: None if isinstance(value, Reference) else value for name, value in values.items()}
    target = None if shaped.verb == "add" and not shaped.path_params else shaped.target(ids)
    return Entry(operation, shaped.verb, shaped.kind, target, values, **options)


def arm(outbox: Outbox, mutation: Mutation, push_id: str = "push-1") -> int:
    """Arm an approved mutation."""
    return outbox.arm(
        mutation, push_id, method="PATCH", path="/api/v2/deals/12", body={"title": "New"}, base={"title": "Old"},
        marker=None, seen=None,
    )  # fmt: skip


def bring_to(outbox: Outbox, state: State, mutation: Mutation | None = None, **settled: Any) -> Mutation:
    """A mutation in `state`, brought there by the steps of a push."""
    mutation = mutation or outbox.add([entry()])[0]
    if state == "cancelled":
        outbox.drop([mutation.id])
    if state in ("queued", "cancelled"):
        return outbox.get(mutation.id)
    outbox.approve([mutation.id], "push-1", COMPANY)
    if state != "approved":
        arm(outbox, mutation)
    if state == "unknown":
        outbox.mark_unknown(mutation.id, "no answer")
    elif state not in ("approved", "armed"):
        outbox.settle(mutation.id, state, **settled)
    return outbox.get(mutation.id)


def open_warehouse(path: Path | str = ":memory:") -> duckdb.DuckDBPyConnection:
    """A warehouse file of the company with all of schema `meta`, and no tables yet."""
    connection = duckdb.connect(str(path))
    connection.execute("SET TimeZone = 'UTC'")
    for script in catalogue.sql("warehouse").values():
        warehouse.prepare(connection, script, COMPANY, "Acme")
    return connection
