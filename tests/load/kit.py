"""A work file that takes batches of records through Stage and commit, as the runner does, without the runner."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from pdsync.core import catalogue
from pdsync.load import commit as committing
from pdsync.load import warehouse
from pdsync.load.commit import Batch, Counts, Target
from pdsync.model import FROM_FILES, Column, Page, Source, Stream, Version, Walk
from pdsync.normalise import tables
from pdsync.normalise.columns import StagingSql
from pdsync.normalise.stage import StagingTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pdsync.core.custom_fields import CustomField, SchemaChange

T0 = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
THINGS = Stream(
    topic="company",
    name="things",
    cursor="update_time",
    deleted="is_deleted",
    columns={
        "id": "BIGINT",
        "name": "VARCHAR",
        "label_ids": "BIGINT[]",
        "is_deleted": Column("BOOLEAN"),
        "update_time": "TIMESTAMPTZ",
    },
    v2=(Source("getDeals"),),
)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def record(id: int, name: str, changed: float, **more: Any) -> dict[str, Any]:
    return {"id": id, "name": name, "update_time": at(changed).isoformat().replace("+00:00", "Z"), **more}


class Work:
    """A work file, open, with the table of one stream."""

    def __init__(self, path: Path, stream: Stream = THINGS, version: Version = "v2") -> None:
        self.path, self.stream, self.version = path, stream, version
        self.connection = warehouse.connect(path)
        for script in catalogue.sql("warehouse").values():
            warehouse.prepare(self.connection, script, 1, "Example")
        self.fields: list[CustomField] = []
        self.walks = 0
        self.shape()

    def shape(self, stream: Stream | None = None, fields: Sequence[CustomField] = ()) -> None:
        """Bring the table into the shape of `stream` and `fields`."""
        self.stream, self.fields = stream or self.stream, list(fields)
        self.table = tables.table(self.stream, self.version, self.fields, catalogue.field_types())
        columns = {column.name: column.type for column in self.table.columns}
        warehouse.ensure_table(self.connection, self.stream.name, columns)
        warehouse.ensure_hashes(self.connection, self.stream.name, StagingSql(self.table).row_hash())
        self.connection.execute(warehouse.history_view(self.stream.name))

    @property
    def target(self) -> Target:
        return Target(
            name=self.stream.name,
            key=self.stream.key,
            columns=tuple(column.name for column in self.table.stored),
            cursor=self.stream.cursor,
            deleted=self.stream.deleted,
            labels={
                column.name: (column.label_of, column.code or "", column.type.endswith("[]"))
                for column in self.table.columns
                if column.label_of
            },
        )

    def walk(self, *, began: float = 0, since: float | None = None) -> Walk:
        self.walks += 1
        return Walk(
            self.walks, f"run-{self.walks}", self.stream.name, "all", self.version, "getDeals",
            None if since is None else at(since), at(began),
        )  # fmt: skip

    def stage(self, walk: Walk, records: Sequence[Any], served: float, seq: int = 0) -> StagingTable:
        stage = StagingTable(self.connection, f"staged_{walk.id}", self.table, is_partial=walk.source == FROM_FILES)
        body = msgspec.json.encode({"success": True, "data": records})
        stage.add([Page(walk.id, seq, body, len(records), None, at(served))])
        return stage

    def commit(
        self,
        records: Sequence[Any],
        served: float,
        *,
        walk: Walk | None = None,
        since: float | None = None,
        seq: int = 0,
        closes: bool = True,
        changes: Sequence[SchemaChange] = (),
    ) -> Counts:
        """One page as one batch."""
        walk = walk or self.walk(began=served, since=since)
        stage = self.stage(walk, records, served, seq)
        quarantined = [(each.seq, each.position, each.record, each.reason) for each in stage.quarantined]
        batch = Batch(walk, seq, seq, closes, len(records), quarantined, [*changes, *stage.changes],
                      stage.unmentioned)  # fmt: skip
        try:
            return committing.commit(self.connection, self.target, stage.relation if stage.rows else None, batch)
        finally:
            stage.clear()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(query).fetchall()

    def content(self) -> list[tuple[Any, ...]]:
        """The table without what only tells of runs."""
        return self.rows(
            f'SELECT * EXCLUDE (_synced_at, _verified_at, _run_id, _valid_from) FROM main."{self.stream.name}"'
            f' ORDER BY "{self.stream.key}"'
        )

    def versions(self) -> list[tuple[Any, ...]]:
        table, key = f'history."{self.stream.name}"', f'"{self.stream.key}"'
        return self.rows(f"SELECT * EXCLUDE (_verified_at) FROM {table} ORDER BY {key}, _valid_from")

    def watermark(self) -> datetime | None:
        found = self.rows("SELECT watermark FROM meta.checkpoints")
        assert len(found) <= 1
        moment: datetime | None = found[0][0] if found else None
        return moment

    def reset(self) -> None:
        """As if nothing had been committed; quicker than a new file."""
        for table in ("main.things", "versions.things", "meta._applied_batches", "meta.checkpoints"):
            self.connection.execute(f"DELETE FROM {table}")

    def close(self) -> None:
        self.connection.close()
