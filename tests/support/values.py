"""Checks which rows a run wrote, by the sandbox's records before and after a change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.truth import BLIND, differences, listed
from tests.support.world import STREAMS

if TYPE_CHECKING:
    from tests.support.world import Project, Ran

Truth = dict[str, dict[Any, dict[str, Any]]]  # stream → key → entry of the dump


def changed_between(before: Truth, after: Truth, mailbox: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keys by stream that a run must write, and all that it may write: also those of which only BLIND columns differ.

    Keys that are in no list any more are in neither.
    """
    must, may = {}, {}
    for stream, entries in after.items():
        was = listed(stream, before[stream].values(), mailbox)
        now = listed(stream, entries.values(), mailbox)
        blind = BLIND.get(stream, frozenset())
        visibly_changed = {id for id, record in now.items() if _without(record, blind) != _without(was.get(id), blind)}
        any_change = {id for id, record in now.items() if record != was.get(id)}
        if visibly_changed:
            must[stream] = visibly_changed
        if any_change:
            may[stream] = any_change
    return must, may


def _without(record: dict[str, Any] | None, columns: frozenset[str]) -> dict[str, Any] | None:
    return None if record is None else {name: value for name, value in record.items() if name not in columns}


def check_changes(
    project: Project, ran: Ran, before: Truth, after: Truth, done: dict[str, dict[str, list[int]]]
) -> list[str]:
    """What is wrong with the run after a change: rows that it missed or wrote without need, and wrong values.

    Persons, organizations, products, activities and files that were deleted or merged disappear from the lists:
    their rows stay as they are until a key sweep finds them.
    """
    problems = []
    mailbox = project.ask("SELECT id FROM main.users WHERE is_you")[0][0]
    must, may = changed_between(before, after, mailbox)
    for stream in STREAMS:
        key = "field_code" if stream.endswith("_fields") else "id"
        rows = project.ask(f"SELECT {key} FROM main.{stream} WHERE _run_id = ?", ran.summary["run_id"])
        written = {row[0] for row in rows}
        missed, idle = must.get(stream, set()) - written, written - may.get(stream, set())
        problems += [f"{stream}: missed {sorted(missed)}"] if missed else []
        problems += [f"{stream}: wrote without need {sorted(idle)}"] if idle else []
        if ran.written[stream] != len(written):
            problems.append(f"{stream}: the receipt says {ran.written[stream]}, the table {len(written)}")
    for kind, ids_by_change in done.items():
        counts = ran.summary["streams"][kind]
        if counts["inserted"] != len(ids_by_change["added"]):
            problems.append(f"{kind}: inserted {counts['inserted']}, added were {len(ids_by_change['added'])}")
        if kind == "deals" and counts["deleted"] != len(ids_by_change["deleted"]):
            problems.append(f"deals: deleted {counts['deleted']}, deleted were {len(ids_by_change['deleted'])}")
        if kind not in STREAMS:
            continue  # leads and notes are not in `before` and `after`
        lost = {*ids_by_change["updated"], *ids_by_change["archived"]} - must.get(kind, set())
        problems += [f"{kind}: the truth itself did not change for {sorted(lost)}"] if lost else []
    with project.warehouse() as warehouse:
        for stream in STREAMS:
            states = after[stream].values()
            unlisted = {entry["id"] for entry in states} - listed(stream, states, mailbox).keys()
            blind = BLIND.get(stream, frozenset())
            problems += differences(warehouse, stream, states, leave_out=blind, gone=unlisted)
    return problems
