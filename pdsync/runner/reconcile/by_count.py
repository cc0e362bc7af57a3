"""Reconciles streams with a list for each parent (the line items of every deal), by the counts that the parents show.

To read each deal's list again would cost a request per deal. The deals' own list has the count of each, so only the
lists of those deals are read that have more or fewer rows in the tables. A row that was replaced by another leaves the
count unchanged: a sync sees that by the record's time of change. Where a record's count differs from its own list, the
list decides: such records are stored, and their lists are read again when their count or their rows in the warehouse
change, or once per verify cycle. Where one request reads the lists of many records, a deep reconciliation reads all of
them and compares values.

Where no count exists (changelogs, permitted users), every record's list is read. A row that is missing from a list is
then no evidence, as no second source confirms it.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.extract.child_lists import dependents
from pdsync.extract.pages import query_of
from pdsync.model import Page, Walk
from pdsync.reconcile.evidence import Verdict
from pdsync.reconcile.sweep import Difference, Sweep
from pdsync.runner.reconcile.findings import CountMismatch
from pdsync.runner.sync import parent_keys
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    import duckdb

    from pdsync.extract.child_lists import Key
    from pdsync.model import Operation, Parent, Stream
    from pdsync.runner.sync.walk_reader import WalkReader


class ParentCounts(Struct):
    """How many rows of the same parents there are at the source and in the warehouse, and whose lists are read.

    A record whose count equals its rows in the warehouse is trusted; for any other, its list is read.
    """

    at_source: int
    in_warehouse: int
    # Key of the record → its count, where that differs from its rows in the warehouse; None where it has no count.
    to_read: dict[str, int | None]
    unchanged: dict[str, CountMismatch] = {}  # mismatches whose lists were read before, and that did not change since


class CountReconciler:
    """The reconciliation of one such stream."""

    def __init__(
        self, reader: WalkReader, stream: Stream, parent: Parent, parent_sweep: Sweep | None, *, deep: bool = False
    ) -> None:
        """
        Args:
            reader: of the reconciliation; charges the budget of dependent streams.
            stream: has a list for each record of the parent stream.
            parent: the parent stream, and its column with the count.
            parent_sweep: of the parent's list; None: the counts are those in the warehouse.
            deep: also read the lists of parents whose count is known to differ; and all lists, if a request reads many
                and the budget of dependent streams suffices.
        """
        self.deep = deep
        self.reads_all = not parent.counts  # every list, not only those of parents whose count differs
        self.reader, self.session, self.loader = reader, reader.session, reader.session.loader
        self.stream, self.parent, self.parent_sweep = stream, parent, parent_sweep
        self.version, (self.source, *_) = stream.sources(self.session.settings.api)
        self.parent_column = stream.parent_column(parent, self.version) or parent.stream
        self.counts = ParentCounts(0, 0, {})
        self.pages: list[Page] = []  # of those lists; the budget of dependent streams bounds them

    async def sweep(self, number: int) -> Sweep:
        """Read the lists of the records whose count differs from their rows, or of all records if there is no count.

        Raises:
            DependentsBudgetSpent: they are too many.
            PdsyncError: as `dependents` does.
        """
        stream, loader = self.stream, self.loader
        table = await loader.do(loader.table, stream, self.version)
        sweep = await loader.do(Sweep, loader.connection, table, number)
        if self.parent.counts and self.deep and self.parent.batch > 1:
            self.reads_all = await loader.do(self._can_afford_all, loader.connection)
        self.counts = await loader.do(
            self._compare_counts if self.parent.counts else self._select_all, loader.connection
        )
        async for page in self._fetch(self.counts.to_read, -1 - number, self.reader.lists.charge_dependents):
            if not (self.reads_all and self.parent.counts):
                self.pages.append(page)
            await loader.do(sweep.add, self.source.name, self._operation, [page])
        self.counts.at_source += await loader.do(sweep.count_alive)
        if self.reads_all:
            self.counts.in_warehouse = len(await loader.do(self._parent_of_rows, loader.connection))
        return sweep

    async def fetch_lists(self, sweep: Sweep, keys: Sequence[str]) -> list[Page]:
        """The pages of the lists that `sweep` read.

        Where they were not kept in memory (it read all lists by count), those lists are fetched again that show a
        record of `keys`; that does not count against the share of tokens of dependent streams.

        Args:
            sweep: of this stream.
            keys: of the stream's records, not of the parents.

        Raises:
            PdsyncError: as `child_lists.dependents`.
        """
        if self.pages:
            return self.pages
        parents = await self.loader.do(self._parents_in_sweep, sweep, keys)
        return [page async for page in self._fetch(parents, -1, lambda tokens: None)]

    @property
    def _operation(self) -> Operation:
        return catalogue.operations(self.version)[self.source.operation]

    async def _fetch(self, parents: Iterable[str], walk_id: int, charge: Callable[[int], None]) -> AsyncGenerator[Page]:
        """The pages of the lists of `parents`."""
        session, stream, operation = self.session, self.stream, self._operation
        walk = Walk(
            walk_id, session.receipt.run_id, stream.name, self.source.name, self.version, operation.id, None, None
        )
        query = query_of(stream, self.source, self.version, operation, None)
        keys = sorted((_parse_key(text) for text in parents), reverse=True)
        pacing = self.reader.lists.pacing
        reading = dependents(session.http, operation, walk, query, self.parent, keys, charge, ahead=pacing.ahead)
        async with contextlib.aclosing(pacing.sharing(reading)) as shared:
            async for page in shared:
                session.record_page(stream.name, operation, page)
                yield page

    def _can_afford_all(self, connection: duckdb.DuckDBPyConnection) -> bool:
        """Whether the budget of dependent streams suffices to read all lists."""
        requests = -(-len(self._list_parents(connection)) // self.parent.batch)
        return self.reader.lists.can_afford_dependents(requests * (self._operation.cost or 0))

    def _compare_counts(self, connection: duckdb.DuckDBPyConnection) -> ParentCounts:
        parent = catalogue.stream(self.parent.stream)
        key = quoted(parent.key)
        count = quoted(self.parent.having or "")
        if self.parent_sweep:  # as the source has just shown them
            reported = (
                f"SELECT key, TRY_CAST({count} AS BIGINT) AS says FROM {self.parent_sweep.relation} QUALIFY NOT is_gone"
                " AND row_number() OVER (PARTITION BY key ORDER BY served_at DESC, is_gone) = 1"
            )
        else:
            reported = f"SELECT {key}::VARCHAR, {count} FROM {quoted('main', parent.name)} WHERE _deleted_at IS NULL"
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE counted (key, says, here) AS {self._join_row_counts(reported)}"
        )
        if self.reads_all:
            counts = dict(connection.execute("SELECT key, says FROM temp.counted").fetchall())
            return ParentCounts(0, 0, {key: counts.get(key) for key in self._list_parents(connection)})
        in_warehouse, at_source = first(
            connection.execute(
                "SELECT coalesce(sum(here), 0), coalesce(sum(here) FILTER (says = here), 0) FROM temp.counted"
            )
        )
        cycle = timedelta(days=self.session.settings.cycle_days)
        rows = connection.execute(
            "SELECT c.key, c.says, o.listed, c.here, epoch(o.read_at) FROM temp.counted c LEFT JOIN meta.counts_off o"
            " ON o.stream = ? AND o.parent = ? AND o.key = c.key AND o.says = c.says AND o.here = c.here"
            " AND o.read_at > ? WHERE c.says <> c.here",
            [
                self.stream.name,
                parent.name,
                self.session.began - cycle,
            ],
        ).fetchall()
        unchanged = {
            str(key): CountMismatch(
                parent.name, str(key), reported, listed, stored, datetime.fromtimestamp(read_at, UTC)
            )
            for key, reported, listed, stored, read_at in rows
            if listed is not None and not self.deep
        }
        to_read: dict[str, int | None] = {str(row[0]): int(row[1]) for row in rows if str(row[0]) not in unchanged}
        listed_before = sum(each.listed for each in unchanged.values())
        return ParentCounts(int(at_source) + listed_before, int(in_warehouse), to_read, unchanged)

    def _select_all(self, connection: duckdb.DuckDBPyConnection) -> ParentCounts:
        return ParentCounts(0, 0, dict.fromkeys(self._list_parents(connection)))

    def _list_parents(self, connection: duckdb.DuckDBPyConnection) -> list[str]:
        """The parents that have a list: by their counts, or by rows in the warehouse."""
        children = (self.stream.name, self.parent_column)
        return [str(key) for key in parent_keys.select_parents(connection, self.parent, None, children=children)]

    def _join_row_counts(self, counts: str) -> str:
        """SQL: the result of the query `counts` (key, says), each with the number of rows in the warehouse."""
        column = quoted(self.parent_column)
        return (
            f"SELECT p.key, p.says, coalesce(c.here, 0) FROM ({counts}) p(key, says)"
            f" LEFT JOIN (SELECT {column}::VARCHAR AS parent, count(*) AS here FROM {quoted('main', self.stream.name)}"
            " WHERE _deleted_at IS NULL GROUP BY 1) c"
            " ON c.parent = p.key WHERE p.says IS NOT NULL"
        )

    async def find_differences(self, sweep: Sweep) -> tuple[list[Difference], list[Verdict]]:
        """The differences in the lists that were read, and verdicts on the rows that are missing from them.

        The verdicts include earlier ones on rows whose parents' lists were not read again.
        """
        parent_of = await self.loader.do(self._parent_of_rows, self.loader.connection)
        differences = await self.loader.do(lambda: sweep.differences(deep=True, only=list(parent_of)))
        listed = await self.loader.do(self._count_listed, sweep)
        verdicts = [self._judge(each.key, parent_of[each.key], listed) for each in differences if each.kind == "absent"]
        verdicts += await self.loader.do(self._repeat_unknown, self.loader.connection)
        return [each for each in differences if each.kind != "absent"], verdicts

    def find_mismatches(self, sweep: Sweep) -> list[CountMismatch]:
        """The records whose count differs from their rows, where the warehouse has all rows of their list.

        If the list shows a row that the warehouse lacks, or lacks a row that the count does not include either, the
        difference is one to repair: the list is read again next time.
        """
        column, main = quoted(self.parent_column), quoted("main", self.stream.name)
        key = quoted(self.stream.key)
        rows = sweep.connection.execute(
            "WITH requested AS (SELECT unnest(?::VARCHAR[]) AS key),"
            f" alive AS (SELECT {key}::VARCHAR AS key, {column}::VARCHAR AS parent, _row_hash FROM {main}"
            " WHERE _deleted_at IS NULL),"
            f" listed AS (SELECT s.{column} AS parent, count(DISTINCT s.key) AS shown, count(DISTINCT a.key) AS same"
            f" FROM {sweep.relation} s LEFT JOIN alive a ON a.key = s.key AND a._row_hash = s.hash"
            " WHERE NOT s.is_gone GROUP BY 1)"
            " SELECT p.key, coalesce(l.shown, 0), coalesce(l.same, 0),"
            " (SELECT count(*) FROM alive a WHERE a.parent = p.key)"
            " FROM requested p LEFT JOIN listed l ON l.parent = p.key",
            [list(self.counts.to_read)],
        ).fetchall()
        mismatches = list(self.counts.unchanged.values())
        began = self.session.began
        for key_of_parent, listed, same, stored in rows:
            reported = self.counts.to_read[str(key_of_parent)]
            if reported is None or reported == stored or listed != same:
                continue
            if listed == stored or reported != listed:
                mismatches.append(
                    CountMismatch(self.parent.stream, str(key_of_parent), reported, int(listed), int(stored), began)
                )
        return mismatches

    def _repeat_unknown(self, connection: duckdb.DuckDBPyConnection) -> list[Verdict]:
        """The earlier findings about rows whose parents' lists are not read again."""
        column, main, key = quoted(self.parent_column), quoted("main", self.stream.name), quoted(self.stream.key)
        rows = connection.execute(
            f"SELECT f.key, f.evidence FROM meta.findings f JOIN {main} t ON t.{key}::VARCHAR = f.key"
            " WHERE f.stream = $1 AND f.kind = 'absent_unknown' AND t._deleted_at IS NULL"
            f" AND t.{column}::VARCHAR IN (SELECT unnest($2::VARCHAR[]))"
            " AND f.run_id IN (SELECT run_id FROM meta.counts_off WHERE stream = $1) ORDER BY 1",
            [self.stream.name, list(self.counts.unchanged)],
        ).fetchall()
        return [Verdict(str(key), "absent_unknown", str(evidence)) for key, evidence in rows]

    def _judge(self, key: str, parent: str, listed: dict[str, int]) -> Verdict:
        """The verdict on a row that its parent does not list: it is gone if the parent's count equals its list."""
        reported, shown = self.counts.to_read[parent], listed.get(parent, 0)
        evidence = f"{self.parent.stream}/{parent} lists {shown} without it"
        if reported is None:
            return Verdict(key, "absent_unknown", f"{evidence}, and no count confirms it")
        evidence += f", and its {self.parent.having} is {reported}"
        return Verdict(key, "purged" if reported == shown else "absent_unknown", evidence)

    def _count_listed(self, sweep: Sweep) -> dict[str, int]:
        """The number of rows in each list that was read, by parent."""
        column = quoted(self.parent_column)
        rows = sweep.connection.execute(
            f"SELECT {column}, count(DISTINCT key) FROM {sweep.relation} WHERE NOT is_gone GROUP BY 1"
        ).fetchall()
        return {str(parent): int(shown) for parent, shown in rows}

    def _parents_in_sweep(self, sweep: Sweep, keys: Sequence[str]) -> list[str]:
        """The parents whose lists show the records of `keys`."""
        rows = sweep.connection.execute(
            f"SELECT DISTINCT {quoted(self.parent_column)} FROM {sweep.relation}"
            " WHERE key IN (SELECT unnest(?::VARCHAR[]))",
            [list(keys)],
        ).fetchall()
        return [str(row[0]) for row in rows]

    def _parent_of_rows(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """The rows of the parents whose lists were read: key → parent."""
        column = quoted(self.parent_column)
        rows = connection.execute(
            f"SELECT {quoted(self.stream.key)}::VARCHAR, {column}::VARCHAR FROM {quoted('main', self.stream.name)}"
            f" WHERE _deleted_at IS NULL AND {column}::VARCHAR IN (SELECT unnest(?::VARCHAR[]))",
            [list(self.counts.to_read)],
        ).fetchall()
        return {str(key): str(parent) for key, parent in rows}


def _parse_key(text: str) -> Key:
    return int(text) if text.isdigit() else text
