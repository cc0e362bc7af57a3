"""Finds the notes of a record. They lie on a shelf of the company's, which knows nothing of what they are linked to."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from .shelves import shelf
from .v1_parts import remembered

if TYPE_CHECKING:
    from .company import Company
    from .table import Record

LINKS = ("deal_id", "person_id", "org_id", "lead_id", "project_id")


def notes_of(company: Company, link: str, id: Any) -> list[Record]:
    """The live notes that name this record under `link`: deal_id, person_id, org_id, lead_id or project_id."""
    found: list[Record] = _linked(company).get((link, id), [])
    return found


@remembered
def _linked(company: Company) -> dict[tuple[str, Any], list[Record]]:
    linked: dict[tuple[str, Any], list[Record]] = defaultdict(list)
    for row in shelf(company, ("notes",), ()).values():
        record = row.record
        for link in LINKS:
            if row.state == "live" and record.get(link) is not None:
                linked[link, record[link]].append(record)
    return linked
