"""The truth of a company, whoever may see it: what a test compares tables with."""

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
    """Every record of `kind` that exists or existed: kind, id, state, merged_into, record."""
    renderer = Renderer(company)
    if kind in FIELD_KINDS:
        of = FIELD_KINDS[kind]
        fields = company.fields[of]
        for state, some in (("live", fields.all), ("purged", list(fields.retired.values()))):
            for field in some:
                yield {
                    "kind": kind,
                    "id": field.code,
                    "state": state,
                    "merged_into": None,
                    "record": field.v2(of, ("ui_visibility", "important_fields", "required_fields")),
                }
        return
    if kind not in company.tables:
        for parents, key, kept in all_rows(company, kind):
            yield {
                "kind": kind,
                "id": "/".join((*parents, key)),
                "state": kept.state,
                "merged_into": None,
                "record": kept.record,
            }
        return
    table = company.tables[kind]
    for id in sorted({*table.rows, *table.left}):
        left = table.left.get(id)
        row = table.rows.get(id) if left is None else left.row
        if row is None:
            continue  # removed while we read
        yield {
            "kind": kind,
            "id": id,
            "state": left.state if left else row.state,
            "merged_into": left.merged_into if left else None,
            "record": renderer.full(kind, row),
        }


def summary(company: Company) -> dict[str, dict[str, int]]:
    """How many records of each kind are in each state."""
    counts: dict[str, dict[str, int]] = {}
    for kind, table in company.tables.items():
        of = counts[kind] = dict.fromkeys(("live", "archived", "deleted", "purged", "merged"), 0)
        for row in table.rows.values():
            of[row.state] += 1
        for left in table.left.values():
            of[left.state] += 1
    for name, kind in FIELD_KINDS.items():
        counts[name] = {"live": len(company.fields[kind].all), "purged": len(company.fields[kind].retired)}
    return counts | {kind.name: count_rows(company, kind.name) for kind in KINDS.values()}
