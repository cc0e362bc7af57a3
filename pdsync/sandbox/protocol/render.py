"""Renders rows as the JSON of answers, and caches it.

A *shape* is how a record is shown: version, include_fields, custom_fields, labels. The default shape of
v2 is the row's own bytes; other shapes are made once and kept until the company changes, a few shapes and 1.5 million
records at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.sandbox.company.table import encode
from pdsync.sandbox.protocol import derived_fields, v1_records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record, Row

MOST_SHAPES = 6
MOST_RECORDS = 1_500_000  # of some 1.5 kB each
OPTIONAL = {
    "deals": derived_fields.of_deal,
    "persons": derived_fields.of_person,
    "organizations": derived_fields.of_organization,
    "activities": derived_fields.of_activity,
}


class Shape(Struct, frozen=True):
    include: tuple[str, ...] = ()
    custom: tuple[str, ...] | None = None
    option_labels: bool = False
    labels: bool = False
    version: str = "v2"


PLAIN = Shape()
V1 = Shape(version="v1")


class Renderer:
    def __init__(self, company: Company) -> None:
        self.company = company
        self._made: dict[tuple[str, Shape], dict[int, bytes]] = {}
        self._version = -1
        self._kept = 0

    def many(self, kind: str, rows: Iterable[Row], shape: Shape) -> list[bytes]:
        if shape == PLAIN:
            return [row.body for row in rows]
        if self._version != self.company.version or self._kept > MOST_RECORDS:
            self._made.clear()
            self._version, self._kept = self.company.version, 0
        made = self._made.get((kind, shape))
        if made is None:
            if len(self._made) >= MOST_SHAPES:
                self._kept -= len(self._made.pop(next(iter(self._made))))
            made = self._made[kind, shape] = {}
        out = []
        for row in rows:
            body = made.get(row.id)
            if body is None:
                body = made[row.id] = encode(self.one(kind, row, shape))
                self._kept += 1
            out.append(body)
        return out

    def one(self, kind: str, row: Row, shape: Shape) -> Record:
        if shape.version == "v1":
            return v1_records.shape(self.company, kind, row)
        record = row.record
        if shape.include:
            optional = OPTIONAL[kind](self.company, row, record)
            record.update((name, optional[name]) for name in shape.include)
        if "custom_fields" in record:
            self._choose(kind, record, shape)
        if shape.labels:
            # Assumption: the label objects come under `labels`, beside label_ids.
            labels = self._option_labels(kind, "label_ids")
            record["labels"] = [{"id": id, "label": labels.get(id)} for id in record["label_ids"]]
        return record

    def full(self, kind: str, row: Row) -> Record:
        """Everything v2 can be asked to show; for kinds that only v1 has, v1's keys with RFC 3339 times."""
        if kind == "files":
            return {**row.record, **v1_records.file_names(self.company, row.record)}
        record = row.record
        if kind in OPTIONAL:
            record.update(OPTIONAL[kind](self.company, row, record))
        return record

    def _choose(self, kind: str, record: Record, shape: Shape) -> None:
        custom = record["custom_fields"]
        fields = self.company.fields[kind]
        if shape.custom is not None:
            custom = record["custom_fields"] = {code: custom[code] for code in shape.custom if code in custom}
        if shape.option_labels:
            for code, value in custom.items():
                field = fields.get(code)
                if value is None or field is None or field.options is None:
                    continue
                labels = self._option_labels(kind, code)
                custom[code] = (
                    [{"id": id, "label": labels.get(id)} for id in value]
                    if isinstance(value, list)
                    else {"id": value, "label": labels.get(value)}
                )

    def _option_labels(self, kind: str, code: str) -> dict[Any, str]:
        field = self.company.fields[kind].get(code)
        return {option["id"]: option["label"] for option in (field.options if field else None) or ()}
