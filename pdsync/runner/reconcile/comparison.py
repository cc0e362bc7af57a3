"""Sweeps the streams of a reconciliation: selects those that can be compared, and reads their lists."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pdsync.core import catalogue
from pdsync.core.log import log
from pdsync.errors import BadAnswer, PdsyncError
from pdsync.extract.parallel import is_parallel
from pdsync.load import warehouse
from pdsync.model import IncompleteStream, Walk
from pdsync.reconcile.sweep import Sweep
from pdsync.runner.reconcile.by_count import CountReconciler
from pdsync.runner.reconcile.single_records import fetch_by_key
from pdsync.runner.sync import walk_loader
from pdsync.runner.sync.walk_reader import WalkReader
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pdsync.model import Operation, Page, Parent, Source, Stream, Version
    from pdsync.runner.reconcile.findings import ReconcileRequest, ReconcileResult
    from pdsync.runner.session import OnlineSession


class Comparison:
    """The sweeps of one reconciliation, by stream."""

    def __init__(self, session: OnlineSession, request: ReconcileRequest) -> None:
        self.session, self.request, self.loader = session, request, session.loader
        self.reader = WalkReader(session)
        self.sweeps: dict[str, Sweep] = {}
        self.counted: dict[str, CountReconciler] = {}  # streams that are compared parent by parent
        self.samples: dict[str, list[str]] = {}  # the requested keys, where the list was not read whole

    async def read(self, stream: Stream, number: int) -> tuple[int, int, int]:
        """Sweep a stream, and set `_verified_at` of the rows that equal the source.

        Returns:
            The number of records at the source, of rows in the warehouse, and of rows that are equal; the first two
            of the same keys, or of the same parents.

        Raises:
            PdsyncError: it could not be read whole, or some of its records can't be read.
        """
        await self.reader.resume_stream(stream)
        if parent := self.parent_of(stream):
            self.counted[stream.name] = CountReconciler(
                self.reader, stream, parent, self.sweeps.get(parent.stream), deep=self.request.deep
            )
            self.sweeps[stream.name] = await self.counted[stream.name].sweep(number)
        elif self.request.sample is None:
            await self._sweep(stream, number)
        else:
            self.samples[stream.name] = await self.loader.do(self._select_sample, stream, self.request.sample)
            await self._sweep_sample(stream, number, self.samples[stream.name])
        sweep = self.sweeps[stream.name]
        if sweep.unreadable:
            text = f"{sweep.unreadable} of its records can't be read, so it can't be compared"
            raise PdsyncError(f"{text}.\nRead it first: pdsync sync {stream.name} --full")
        verified = await self.loader.do(sweep.verify)
        if counted := self.counted.get(stream.name):
            return counted.counts.at_source, counted.counts.in_warehouse, verified
        if (sample := self.samples.get(stream.name)) is not None:
            return await self.loader.do(sweep.count_alive, sample), len(sample), verified
        return await self.loader.do(sweep.count_alive), await self.loader.do(self.count_rows, stream), verified

    def select(self, result: ReconcileResult, failed: dict[str, PdsyncError]) -> list[Stream]:
        """The streams of the request, or all that were read; those with a list per parent come last.

        Streams that can't be compared are named in the result; if the request names one, it is a failure. One whose
        first reading was stopped is a gap: a part of its rows is in the warehouse, and nothing checks them.
        """
        tables = warehouse.tables(self.loader.connection)
        read = {row[0] for row in self.loader.connection.execute("SELECT stream FROM meta.checkpoints").fetchall()}
        lists: list[Stream] = []
        by_parent: list[Stream] = []
        for each in [catalogue.stream(name) for name in self.request.streams] or list(catalogue.streams().values()):
            if each.name in self.request.leave_out:
                continue
            if not self.request.streams and each.name not in tables & read:
                if each.name in tables and self.count_rows(each):
                    result.left_out[each.name] = f"it was never read to its end: pdsync sync {each.name}"
                    detail = f"it was not compared: {result.left_out[each.name]}"
                    result.receipt.gaps.append(IncompleteStream(each.name, "incomplete", detail))
                continue
            if reason := self._reason_not_comparable(each, tables & read):
                result.left_out[each.name] = reason
                if self.request.streams:
                    failed[each.name] = PdsyncError(f"It can't be compared: {reason}")
            elif parent := self.parent_of(each):
                result.by_count += [each.name] if parent.counts else []
                by_parent.append(each)
            else:
                lists.append(each)
        return lists + by_parent

    def _reason_not_comparable(self, stream: Stream, read: set[str]) -> str | None:
        """Why a stream can't be compared, and what to do; None if it can be."""
        refetch = f"read it again: pdsync sync {stream.name} --full"
        if stream.name not in read:
            return f"it was never read: pdsync sync {stream.name}"
        if any(source.params for source in stream.sources(self.session.settings.api)[1]):
            return f"its content depends on the time at which it is read; {refetch}"
        if any(source.way == "new_parents" for source in stream.sources(self.session.settings.api)[1]):
            return f"what was read does not change; {refetch}"
        if not stream.parents(self.session.settings.api):
            return None
        parent = self.parent_of(stream)
        if not parent:
            return f"it consists of several lists per record, and none of them has a count; {refetch}"
        if not parent.counts and stream.optional and stream.name not in self.request.streams:
            return f"it costs a request per record, as the records have no count of it: pdsync reconcile {stream.name}"
        return "it can't be compared by a sample: omit --sample" if self.request.sample else None

    def parent_of(self, stream: Stream) -> Parent | None:
        """The parent whose records each have a list of `stream`; None if it has no parent, or several lists."""
        sources = stream.sources(self.session.settings.api)[1]
        return sources[0].parent if len(sources) == 1 else None

    async def _sweep(self, stream: Stream, number: int, *, in_windows: bool = True) -> None:
        version, sources = stream.sources(self.session.settings.api)
        table = await self.loader.do(self.loader.table, stream, version)
        sweep = await self.loader.do(Sweep, self.loader.connection, table, number)
        for source in sources:
            operation = catalogue.operations(version)[source.operation]
            walk = self._walk(stream, number, source, version, operation)
            last: Page | None = None
            try:
                reading = await self.reader.lists.pages(stream, source, walk, {}, None, in_windows=in_windows)
                async with contextlib.aclosing(reading):
                    async for page in reading:
                        last = page
                        self.session.record_page(stream.name, operation, page)
                        await self.loader.do(sweep.add, source.name, operation, [page])
            except BadAnswer as error:
                if not is_parallel(last):
                    raise
                log.info("%s: swept again with one cursor (%s)", stream.name, error)
                await self._sweep(stream, number, in_windows=False)
                return
        self.sweeps[stream.name] = sweep

    async def _sweep_sample(self, stream: Stream, number: int, keys: Sequence[str]) -> None:
        version, sources = stream.sources(self.session.settings.api)
        table = await self.loader.do(self.loader.table, stream, version)
        sweep = await self.loader.do(Sweep, self.loader.connection, table, number)
        for source in sources:
            operation, answers = await fetch_by_key(self.session, stream, version, source, keys)
            if operation is None:
                await self._sweep(stream, number)
                return
            walk = self._walk(stream, number, source, version, operation)
            for answer in answers:
                page = walk_loader.page_of(operation, answer, walk.id)
                await self.loader.do(sweep.add, source.name, operation, [page])
        self.sweeps[stream.name] = sweep

    def _walk(self, stream: Stream, number: int, source: Source, version: Version, operation: Operation) -> Walk:
        """The walk of a sweep's pages, which are not stored."""
        run_id = self.session.receipt.run_id
        return Walk(-1 - number, run_id, stream.name, source.name, version, operation.id, None, None)

    def _select_sample(self, stream: Stream, most: int) -> list[str]:
        """Keys of rows that are not deleted, at random, but those that were verified longest ago first."""
        rows = self.loader.connection.execute(
            f"SELECT {quoted(stream.key)}::VARCHAR FROM {quoted('main', stream.name)} WHERE _deleted_at IS NULL"
            " ORDER BY date_trunc('day', _verified_at), random() LIMIT ?",
            [most],
        ).fetchall()
        return [str(row[0]) for row in rows]

    def count_rows(self, stream: Stream) -> int:
        """How many rows of its table are not deleted; in the loader's thread."""
        sql = f"SELECT count(*) FROM {quoted('main', stream.name)} WHERE _deleted_at IS NULL"
        return int(first(self.loader.connection.execute(sql))[0])
