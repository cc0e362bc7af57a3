"""Loads sealed pages into the work file, in threads of its own, while the event loop fetches.

Batches are cut by page number, not by time, and where an attempt of a run ended: so a resumed run and a replay cut them
at the same pages. Pages of a walk are added in order. Each walk has a staging table on its own connection, so that
walks are staged side by side; a batch is committed when its last page is staged. One thread makes all changes to the
file, one after another.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import duckdb
import msgspec

from pdsync.core import catalogue, disk
from pdsync.core.list_response import open_envelope
from pdsync.errors import StorageError
from pdsync.load import clock_repair, project_views, tombstones, warehouse
from pdsync.load.commit import Batch, Counts, Target, commit, refresh_labels
from pdsync.load.transaction import transaction
from pdsync.model import FINDINGS, FROM_FILES, Stream, Tombstone, Version, Walk
from pdsync.normalise import tables
from pdsync.normalise.columns import StagingSql
from pdsync.normalise.stage import StagingTable
from pdsync.runner import field_definitions, views
from pdsync.sql import first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from pdsync.core.custom_fields import SchemaChange
    from pdsync.model import Page

T = TypeVar("T")
PAGES_PER_BATCH = 122  # 500-row pages: just less than a row group, which a few rows more would leave to be merged
_MERGE_EVERY = 4  # runs that wrote rows
_MANY = 0.2  # of all rows
_CHUNK_BYTES = 40 * 2**20  # staged together: planning the statement takes 20-40 ms, however few the rows
_SPARE = 4  # staging tables of finished walks: the next walk of the same list reuses one, with what it has learnt
_SIDE_BY_SIDE = 2  # walks that are staged at the same time; each has a chunk and its rows in memory


def target_of(table: tables.Table) -> Target:
    """The target of a commit of the rows of `table`."""
    stream = table.stream
    return Target(
        name=stream.name,
        key=stream.key,
        columns=tuple(column.name for column in table.stored),
        cursor=stream.cursor,
        deleted=stream.deleted,
        labels={
            column.name: (column.label_of, column.code or "", column.type.endswith("[]"))
            for column in table.columns
            if column.label_of
        },
    )


class Loader:
    """The one writer of a project's work file. Methods that are not async are for its thread: call them through `do`.

    loader = Loader(path)
    await loader.do(loader.open, company_id, company)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loaded_at: datetime | None = None  # the load time of rows and changes; None: now
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="load")
        self._stagers = ThreadPoolExecutor(max_workers=_SIDE_BY_SIDE, thread_name_prefix="stage")
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._stages: dict[int, StagingTable] = {}  # by walk
        self._staged: dict[int, int] = {}  # walk → its last page that is staged and not committed
        self._spare: list[StagingTable] = []
        self._tables: dict[tuple[str, Version], tables.Table] = {}
        self._wrote = False  # a row, since the file was opened
        self._replaced = 0  # rows that were updated or deleted since then

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The connection; to be used in the loader's thread only."""
        if self._connection is None:
            raise RuntimeError("The loader is not open.")
        return self._connection

    async def do(self, work: Callable[..., T], *arguments: object) -> T:
        """Run `work` in the loader's thread, after all work that was submitted before.

        Raises:
            StorageError: DuckDB, the disk or the memory failed. What `work` has committed stays committed.
        """
        return await self._carry_out(self._thread, work, *arguments)

    async def _carry_out(self, threads: ThreadPoolExecutor, work: Callable[..., T], *arguments: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, work, *arguments)
        except (duckdb.Error, OSError, MemoryError) as error:
            message = disk.first_line(error)
            if "checksum" in message or "not read enough" in message:
                raise StorageError(
                    f"The work file {self.path} is damaged: {message}\n"
                    f"Nothing was published from it, and no page has to be fetched again. Delete it and run the same "
                    f"command: it is rebuilt from the sealed pages."
                ) from error
            raise StorageError(
                f"The work file {self.path} could not be written: {message}\n"
                f"No batch was committed in part, and no page has to be fetched again. "
                + (disk.advice_for(error) or "Free some disk space if it is full, then run the same command.")
            ) from error

    def open(self, company_id: int, company: str) -> None:
        """Open the work file and bring its meta tables up to date.

        Raises:
            WrongCompany: the file belongs to another company.
            StorageError: it can't be opened.
        """
        self._connection = warehouse.connect(self.path)
        for script in catalogue.sql("warehouse").values():
            warehouse.prepare(self._connection, script, company_id, company)
        warehouse.set_vacuum(self._connection, enabled=False)

    def loaded_pages_by_walk(self) -> dict[tuple[str, int], int]:
        """Run and walk → the last of its pages that is loaded."""
        rows = self.connection.execute(
            "SELECT run_id, walk, max(last_page) FROM meta._applied_batches GROUP BY 1, 2"
        ).fetchall()
        return {(run, int(walk)): int(last) for run, walk, last in rows}

    def newest_time(self) -> datetime | None:
        """The latest server time at which a row was verified; None if there is no row."""
        return warehouse.newest_time(self.connection)

    def pull_back(self, now: datetime, horizon: datetime) -> dict[str, int]:
        """Correct times of the file that are later than `horizon`: see `load.clock_repair`."""
        existing = warehouse.tables(self.connection)
        keys = {stream.name: stream.key for stream in catalogue.streams().values() if stream.name in existing}
        return clock_repair.pull_back(self.connection, keys, now, horizon)

    async def close(self) -> None:
        """Write all that is committed to the work file and close it; pages that are only staged are dropped."""
        await asyncio.to_thread(self._stagers.shutdown, cancel_futures=True)  # a cancelled `add` may still be staging
        await self.do(self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        if self._connection is not None:
            for stage in (*self._stages.values(), *self._spare):
                stage.connection.close()
            try:
                warehouse.set_vacuum(self._connection, enabled=self.should_merge())
                self._connection.execute("CHECKPOINT warehouse")
            finally:
                self._connection.close()
                self._connection = None

    def should_merge(self) -> bool:
        """Whether it is worth it to merge small and half-empty row groups now.

        A single small one makes DuckDB write up to three full ones again, so it waits for a few runs that wrote rows,
        or for one that replaced many.
        """
        runs, rows = first(
            self.connection.execute(
                "SELECT (SELECT count(DISTINCT run_id) FROM meta._applied_batches"
                " WHERE inserted + updated + deleted > 0),"
                " (SELECT coalesce(sum(estimated_size), 0) FROM duckdb_tables() WHERE schema_name = 'main')"
            )
        )
        return self._wrote and (runs % _MERGE_EVERY == 0 or self._replaced > _MANY * rows)

    # Pages.

    async def add(self, stream: Stream, walk: Walk, pages: Sequence[Page]) -> Counts | None:
        """Stage `pages` of a walk, in order, and commit each batch that they complete; each page of tombstones is one.

        Returns:
            What these batches changed; None if no batch is complete.

        Raises:
            BadAnswer: a page is no list of records.
            StorageError: DuckDB failed; no batch was committed in part.
        """
        if walk.source == FINDINGS:
            return await self.do(self._tombstone, stream, walk, pages)
        counts: Counts | None = None
        for chunk, ends_batch in _chunks(pages):
            stage = self._stages.get(walk.id)
            if stage is None:  # only then: the loader's thread may be busy with a batch of another walk
                stage = await self.do(self._stage, stream, walk)
            await self._carry_out(self._stagers, stage.add, chunk)
            last = chunk[-1]
            self._staged[walk.id] = last.seq
            if ends_batch:
                shows_all = _shows_whole_list(stream, walk, last)
                done = await self.do(self._commit, stream, walk, last.seq, last.seq, last.next is None, shows_all)
                counts = counts + done if counts else done
        return counts

    def _tombstone(self, stream: Stream, walk: Walk, pages: Sequence[Page]) -> Counts | None:
        counts: Counts | None = None
        for page in pages:
            gone = msgspec.json.decode(page.body, type=list[Tombstone])
            target = target_of(self.table(stream, walk.version))
            done = tombstones.tombstone(self.connection, target, walk, page.seq, gone)
            counts = counts + done if counts else done
        return counts

    async def commit_staged(self, stream: Stream, walk: Walk) -> Counts | None:
        """Commit the staged pages of a walk, though they complete no batch: the run that read them has ended.

        Returns:
            What they changed; None if no page is staged.

        Raises:
            StorageError: DuckDB failed; nothing was committed.
        """
        last = self._staged.get(walk.id)
        return None if last is None else await self.do(self._commit, stream, walk, last, last, False)

    def finish(self, stream: Stream, walk: Walk, pages: int) -> Counts:
        """Commit what is staged of a walk that ended after `pages` pages, none of which was marked as the last."""
        return self._commit(stream, walk, last=pages - 1, number=pages, closes=True)

    def _stage(self, stream: Stream, walk: Walk) -> StagingTable:
        if walk.id not in self._stages:
            table, operation = self.table(stream, walk.version), catalogue.operations(walk.version)[walk.operation]
            is_partial = walk.source == FROM_FILES
            like = (table, operation, is_partial)
            reusable = [each for each in self._spare if (each.table, each.operation, each.is_partial) == like]
            for spare in reusable[:1]:
                self._spare.remove(spare)
            self._stages[walk.id] = (
                reusable[0]
                if reusable
                else StagingTable(
                    warehouse.open_second(self.connection), f"staged_{walk.id}", table, operation, is_partial=is_partial
                )
            )
        return self._stages[walk.id]

    def _commit(
        self, stream: Stream, walk: Walk, last: int, number: int, closes: bool, shows_all: bool = False
    ) -> Counts:
        stage = self._stage(stream, walk)
        batch = Batch(
            walk=walk,
            number=number,
            last_page=last,
            closes_walk=closes and walk.is_of_a_list,
            read=stage.rows + len(stage.quarantined),
            quarantined=[(each.seq, each.position, each.record, each.reason) for each in stage.quarantined],
            changes=stage.changes,
            unmentioned=stage.unmentioned if stage.rows else (),
            at=self.loaded_at,
            shows_all=shows_all,
        )
        counts = commit(stage.connection, target_of(stage.table), stage.relation if stage.rows else None, batch)
        self._wrote = self._wrote or counts.inserted + counts.updated + counts.deleted > 0
        self._replaced += counts.updated + counts.deleted
        stage.clear()
        self._staged.pop(walk.id, None)
        if closes:
            self._spare.append(self._stages.pop(walk.id))
            while len(self._spare) > _SPARE:
                self._spare.pop(0).connection.close()
        return counts

    def pages_loaded(self, walk: Walk) -> int:
        """How many pages of a walk are loaded."""
        row = first(
            self.connection.execute(
                "SELECT max(last_page) FROM meta._applied_batches WHERE run_id = ? AND walk = ?", [walk.run_id, walk.id]
            )
        )
        return int(row[0]) + 1 if row and row[0] is not None else 0

    def has_been_synced(self, stream: Stream) -> bool:
        """Whether any list of a stream was ever read to its end."""
        row = first(self.connection.execute("SELECT count(*) FROM meta.checkpoints WHERE stream = ?", [stream.name]))
        return bool(row and row[0])

    # Tables and custom fields.

    def table(self, stream: Stream, version: Version) -> tables.Table:
        """The table of `stream`; created, or given new columns, as the catalogue and known custom fields require."""
        if (stream.name, version) not in self._tables:
            table = tables.table(
                stream, version, field_definitions.read(self.connection, stream), catalogue.field_types()
            )
            columns = {column.name: column.type for column in table.columns}
            with transaction(self.connection):  # one write to the disk, which takes longer than the statements
                added = warehouse.ensure_table(self.connection, stream.name, columns)
                warehouse.ensure_hashes(self.connection, stream.name, StagingSql(table).row_hash())
                if not (target := target_of(table)).labels.keys().isdisjoint(added):
                    refresh_labels(self.connection, target)
            self._tables[stream.name, version] = table
        return self._tables[stream.name, version]

    def has_late_fields(self, stream: Stream) -> bool:
        """Whether `sync_custom_fields` will add columns whose values some rows have in `_extra`: see `late_fields`."""
        return field_definitions.has_late_fields(self.connection, stream, self.loaded_at)

    def sync_custom_fields(self, stream: Stream, run_id: str) -> list[SchemaChange]:
        """Update the custom fields from the field definitions that were synced: columns, labels, options.

        Returns:
            The changes that no run has recorded.
        """
        changes = field_definitions.update(self.connection, stream, run_id, self.loaded_at)
        if changes is None:
            return []
        self._tables = {key: table for key, table in self._tables.items() if key[0] != stream.name}
        has_rows = stream.name in warehouse.tables(self.connection)
        target = target_of(self.table(stream, "v2")) if has_rows else None
        with transaction(self.connection):  # a label is as new as the option that it was taken from
            if field_definitions.update_options(self.connection, stream) and target:
                refresh_labels(self.connection, target)
        return changes

    # Views.

    def create_views(self, timezone: str = "") -> None:
        """Bring every view, and the stored rows of the slow ones, in line with the tables.

        Args:
            timezone: in which days and months are cut; empty: the zone of the token's user.
        """
        views.create_views(self.connection, self.table, timezone)

    def create_project_views(self, project: Path) -> list[str]:
        """Create the views of the files `views/*.sql` in the folder `project`; messages about those that fail."""
        return project_views.recreate(self.connection, project / "views")


def _chunks(pages: Sequence[Page]) -> Iterator[tuple[list[Page], bool]]:
    """Cut `pages` into chunks that are staged together; with each, whether it ends a batch."""
    chunk: list[Page] = []
    for page in pages:
        chunk.append(page)
        ends_batch = page.next is None or (page.seq + 1) % PAGES_PER_BATCH == 0
        if ends_batch or sum(len(each.body) for each in chunk) >= _CHUNK_BYTES:
            yield chunk, ends_batch
            chunk = []
    if chunk:
        yield chunk, False


def _shows_whole_list(stream: Stream, walk: Walk, page: Page) -> bool:
    """Whether a page is the only one of a list that is read newest first: it has every record, not only changes."""
    sources = {source.name: source.way for source in (stream.v1 if walk.version == "v1" else stream.v2)}
    if page.seq or page.next or walk.since is None or sources.get(walk.source) != "newest_first":
        return False
    return open_envelope(page.body, catalogue.operations(walk.version)[walk.operation]).more is False
