"""The full content of a company, whatever a token may see: tests compare tables with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.sandbox.company.resources import FIELD_KINDS
from pdsync.sandbox.operations.collections import KINDS
from pdsync.sandbox.operations.generic_records import all_rows, count_rows
from pdsync.sandbox.protocol.render import Renderer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record


def dump(company: Company, kind: str) -> Iterator[Record]:
    """Yield every record of `kind` that exists or existed, as kind, id, state, merged_into and record.

    Of generic kinds (leads, notes) only those that exist. Hold the company's lock while taking records; what changes
    while it is released may be in the rest.
    """
    renderer = Renderer(company)
    if kind in FIELD_KINDS:
        parent = FIELD_KINDS[kind]
        fields = company.fields[parent]
        for state, of_state in (("live", fields.all), ("purged", list(fields.retired.values()))):
            for field in of_state:
                yield {
                    "kind": kind,
                    "id": field.code,
                    "state": state,
                    "merged_into": None,
                    "record": field.v2(parent, ("ui_visibility", "important_fields", "required_fields")),
                }
        return
    if kind not in company.tables:
        for parents, key, row in all_rows(company, kind):
            yield {
                "kind": kind,
                "id": "/".join((*parents, key)),
                "state": row.state,
                "merged_into": None,
                "record": row.record,
            }
        return
    table = company.tables[kind]
    for id in sorted({*table.rows, *table.removed}):
        removed = table.removed.get(id)
        table_row = table.rows.get(id) if removed is None else removed.row
        if table_row is None:
            continue  # restored or removed since the ids were read
        yield {
            "kind": kind,
            "id": id,
            "state": removed.state if removed else table_row.state,
            "merged_into": removed.merged_into if removed else None,
            "record": renderer.full(kind, table_row),
        }


def summary(company: Company) -> dict[str, dict[str, int]]:
    """How many records of each kind are in each state."""
    counts: dict[str, dict[str, int]] = {}
    for kind, table in company.tables.items():
        by_state = counts[kind] = dict.fromkeys(("live", "archived", "deleted", "purged", "merged"), 0)
        for row in table.rows.values():
            by_state[row.state] += 1
        for removed in table.removed.values():
            by_state[removed.state] += 1
    for name, kind in FIELD_KINDS.items():
        counts[name] = {"live": len(company.fields[kind].all), "purged": len(company.fields[kind].retired)}
    return counts | {kind.name: count_rows(company, kind.name) for kind in KINDS.values()}
