"""Stores the records of the generic collections: those of the company (notes) or of one parent (followers of a deal).

The records of a collection are generated when it is requested (see `fabricate`). One of the company is stored from the
first request on, one of a parent from the first write on. Every write is in the journal; deleted records are not kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.fabricate import Fabricator
from pdsync.sandbox.company.table import Row, encode
from pdsync.sandbox.operations.collections import KINDS, Kind, first_counts, first_records
from pdsync.sandbox.operations.documented import kind_of, shape_of
from pdsync.sandbox.operations.linked_values import fill_links
from pdsync.sandbox.protocol.messages import is_number
from pdsync.sandbox.protocol.v1_parts import remembered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record

Parents = tuple[str, ...]
Rows = dict[str, Row]  # id as text → the record


def records_at(company: Company, collection: tuple[str, ...], parents: Parents) -> Rows:
    """The records of a collection by id, those stored or newly generated. Change them by `store_record` only."""
    key = (kind_of(collection).name, parents)
    if key in company.collections:
        return company.collections[key]
    made: Rows = _generate(company, collection, parents)
    if not parents:
        company.collections[key] = made
    return made


@remembered
def _generate(company: Company, collection: tuple[str, ...], parents: Parents) -> Rows:
    kind, made = kind_of(collection), Rows()
    for known in first_records(company, kind, parents):
        fabricator = Fabricator(company, kind.name, (parents, known.get("id", len(made))))
        record = fabricator.record(shape_of(kind.name), known)
        if not parents:
            record = fill_links(company, kind.name, record, shape_of(kind.name))
        if collection == ("permissionSets",):  # nothing adds an assignment later
            inside = (*collection, "{}", "assignments")
            record["assignment_count"] = len(records_at(company, inside, (str(record["id"]),)))
        made[record_id(kind, record, len(made))] = Row(0, kind.state(record), encode(record), ())
    return made


def record_id(kind: Kind, record: Record, position: int) -> str:
    return str(record.get(kind.key, position))


def store_record(
    company: Company,
    collection: tuple[str, ...],
    parents: Parents,
    op: str,
    id: str,
    row: Row | None,
    request: str | None = None,
) -> None:
    """Add, replace or (`row` None) delete a record of a collection, and log it in the journal.

    A product of a deal also moves the update_time of the deal.

    Raises:
        KeyError: there is no record `id` to delete.
    """
    kind = kind_of(collection)
    rows = records_at(company, collection, parents)
    company.collections[kind.name, parents] = rows
    before = rows.get(id)
    if row is not None:
        rows[id] = row
    else:
        del rows[id]
    if kind.name == "deal_products":
        company.touch("deals", int(parents[0]))
    company.log_generic_write(kind.name, _journal_id(parents, id), op, before, row, request)


def _journal_id(parents: Parents, id: str) -> int | str:
    """The id in journal and dump: the parents' ids and its own, joined by a slash; a number where there is one only."""
    return as_number("/".join(part for part in (*parents, id) if part))


def all_rows(company: Company, kind: str) -> Iterator[tuple[Parents, str, Row]]:
    """Every record of a kind, of all parents: the truth."""
    collection = next(parts for parts, each in KINDS.items() if each.name == kind)
    for parents in _parents_of_collection(company, collection):
        for id, row in records_at(company, collection, parents).items():
            yield parents, id, row


@remembered
def count_rows(company: Company, kind: str) -> dict[str, int]:
    """How many records of a kind there are in each state, without generating any of them."""
    collection, first_kind = next((parts, each) for parts, each in KINDS.items() if each.name == kind)
    counts = {"live": 0, "archived": 0}
    for parents in _parents_of_collection(company, collection):
        rows = company.collections.get((kind, parents))
        if rows is None:
            for state, count in first_counts(company, first_kind, parents).items():
                counts[state] += count
        for row in (rows or {}).values():
            counts[row.state] += 1
    return counts


def _parents_of_collection(company: Company, collection: tuple[str, ...]) -> list[Parents]:
    return [(str(id),) for id in parent_ids(company, collection)] if "{}" in collection else [()]


def parent_ids(company: Company, collection: tuple[str, ...]) -> list[Any]:
    """The ids of all records that can have records in `collection`."""
    first = collection[0]
    if first in company.tables:
        return list(company.tables[first].rows)
    return list(records_at(company, (first,), ()))


def as_number(text: str) -> int | str:
    return int(text) if is_number(text) else text
