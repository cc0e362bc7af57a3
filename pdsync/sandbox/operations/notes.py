"""Finds the notes of a record, which are stored as one collection of the company, with no index by record."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from pdsync.sandbox.operations.generic_records import records_at
from pdsync.sandbox.protocol.v1_parts import remembered

if TYPE_CHECKING:
    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record

TAG = re.compile(r"<[^>]*>")
LINKS = ("deal_id", "person_id", "org_id", "lead_id", "project_id")


def notes_of(company: Company, link: str, id: Any) -> list[Record]:
    """The live notes that name this record under `link`: deal_id, person_id, org_id, lead_id or project_id."""
    found: list[Record] = _linked(company).get((link, id), [])
    return found


def content(note: Record) -> str:
    """What a note says, without the tags."""
    return TAG.sub("", note.get("content") or "")


@remembered
def _linked(company: Company) -> dict[tuple[str, Any], list[Record]]:
    linked: dict[tuple[str, Any], list[Record]] = defaultdict(list)
    for row in records_at(company, ("notes",), ()).values():
        record = row.record
        for link in LINKS:
            if row.state == "live" and record.get(link) is not None:
                linked[link, record[link]].append(record)
    return linked


def noted(company: Company, link: str, term: str) -> set[Any]:
    """The ids of the records whose notes hold `term`, in any case."""
    needle = term.casefold()
    return {
        id
        for (name, id), notes in _linked(company).items()
        if name == link and any(needle in content(note).casefold() for note in notes)
    }
