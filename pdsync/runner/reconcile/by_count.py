"""Reconciles streams with a list for each parent (the line items of every deal), by the counts that the parents show.

To read each deal's list again would cost a request a deal. The deals' own list says how many each has, so only the
lists of those deals are read that have more or fewer rows in the tables. A row that was swapped for another leaves the
count as it was: a sync sees that, by the record's time of change. Where a record's count is not what its own list
shows, the list decides: such records are stored, and their lists read again when their count or their rows in the
warehouse change, or once in a verify cycle.

Where nothing counts them (changelogs, permitted users), every record's list is read. What a list lacks is then no
evidence: nothing but the list itself says so.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.extract.child_lists import dependents
from pdsync.extract.pages import query_of
from pdsync.model import Page, Walk
from pdsync.reconcile.evidence import Verdict
from pdsync.reconcile.sweep import Difference, Sweep
from pdsync.runner.reconcile.findings import CountOff
from pdsync.runner.report.completeness import CYCLE
from pdsync.runner.sync import parent_keys
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    import duckdb

    from pdsync.extract.child_lists import Key
    from pdsync.model import Parent, Stream
    from pdsync.runner.sync.walk_reader import WalkReader


class ParentCounts(Struct):
    """How many rows there are at the source and in the warehouse, and which parents' lists are read.

    A record whose count is that of its rows here is taken at its word; of any other its list says how many there are.
    """

    at_source: int
    here: int
    # The record's key → how many it says, where that is not the number of its rows here; None where it does not say.
    to_read: dict[str, int | None]
    unchanged: dict[str, CountOff] = {}  # those whose lists were read before, and whose counts are as they were then


class CountReconciler:
    """One such stream under reconciliation."""

    def __init__(
        self, reader: WalkReader, stream: Stream, parent: Parent, parent_sweep: Sweep | None, *, deep: bool = False
    ) -> None:
        """
        Args:
            reader: of the reconciliation; it counts what dependent streams spend.
            stream: which has a list for each record of the parent stream.
            parent: that stream, and its column that counts.
            parent_sweep: what its list has just shown; None: the warehouse's rows count.
            deep: also read the lists of those parents whose count is known to be off.
        """
        self.deep = deep
        self.reader, self.session, self.loader = reader, reader.session, reader.session.loader
        self.stream, self.parent, self.parent_sweep = stream, parent, parent_sweep
        self.version, (self.source, *_) = stream.sources(self.session.settings.api)
        self.column = stream.parent_column(parent, self.version) or parent.stream
        self.counts = ParentCounts(0, 0, {})
        self.pages: list[Page] = []  # of those lists: few, or the share of the day's tokens says no

    async def sweep(self, number: int) -> Sweep:
        """Read the lists of those records that count otherwise than the tables do, or of all that don't count.

        Raises:
            ShareSpent: they are too many.
            PdsyncError: as `dependents` does.
        """
        session, stream, loader = self.session, self.stream, self.loader
        table = await loader.do(loader.table, stream, self.version)
        sweep = await loader.do(Sweep, loader.connection, table, number)
        self.counts = await loader.do(self._count if self.parent.counts else self._all, loader.connection)
        operation = catalogue.operations(self.version)[self.source.operation]
        walk = Walk(
            -1 - number, session.receipt.run_id, stream.name, self.source.name, self.version, operation.id, None, None
        )
        query = query_of(stream, self.source, self.version, operation, None)
        keys = sorted((_key(text) for text in self.counts.to_read), reverse=True)
        charge = self.reader.charge_dependents
        async for page in dependents(session.http, operation, walk, query, self.parent, keys, charge):
            session.record_page(stream.name, operation, page)
            self.pages.append(page)
            await loader.do(sweep.add, self.source.name, operation, [page])
        self.counts.at_source += sum((await loader.do(self._listed, sweep)).values())
        return sweep

    def _count(self, connection: duckdb.DuckDBPyConnection) -> ParentCounts:
        parent = catalogue.stream(self.parent.stream)
        key = quoted(parent.key)
        says = quoted(self.parent.having or "")
        if self.parent_sweep:  # as the source has just shown them
            shown = (
                f"SELECT key, TRY_CAST({says} AS BIGINT) AS says FROM {self.parent_sweep.relation} QUALIFY NOT is_gone"
                " AND row_number() OVER (PARTITION BY key ORDER BY served_at DESC, is_gone) = 1"
            )
        else:
            shown = f"SELECT {key}::VARCHAR, {says} FROM {quoted('main', parent.name)} WHERE _deleted_at IS NULL"
        connection.execute(f"CREATE OR REPLACE TEMP TABLE counted (key, says, here) AS {self._with_row_counts(shown)}")
        here, at_source = first(
            connection.execute(
                "SELECT coalesce(sum(here), 0), coalesce(sum(here) FILTER (says = here), 0) FROM temp.counted"
            )
        )
        cycle = timedelta(days=self.session.settings.verify_cycle or CYCLE)
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
            str(key): CountOff(parent.name, str(key), says, listed, here, datetime.fromtimestamp(read_at, UTC))
            for key, says, listed, here, read_at in rows
            if listed is not None and not self.deep
        }
        to_read: dict[str, int | None] = {str(row[0]): int(row[1]) for row in rows if str(row[0]) not in unchanged}
        listed_before = sum(each.listed for each in unchanged.values())
        return ParentCounts(int(at_source) + listed_before, int(here), to_read, unchanged)

    def _all(self, connection: duckdb.DuckDBPyConnection) -> ParentCounts:
        keys = parent_keys.select_parents(connection, self.parent, None, children=(self.stream.name, self.column))
        return ParentCounts(0, 0, dict.fromkeys(map(str, keys)))

    def _with_row_counts(self, shown: str) -> str:
        """SQL: the counts of the query `shown` (key, says), each with the number of rows in the warehouse."""
        of = quoted(self.column)
        return (
            f"SELECT p.key, p.says, coalesce(c.here, 0) FROM ({shown}) p(key, says)"
            f" LEFT JOIN (SELECT {of}::VARCHAR AS of, count(*) AS here FROM {quoted('main', self.stream.name)}"
            " WHERE _deleted_at IS NULL GROUP BY 1) c"
            " ON c.of = p.key WHERE p.says IS NOT NULL"
        )

    async def differences(self, sweep: Sweep) -> tuple[list[Difference], list[Verdict]]:
        """What differs in the lists that were read; and of what they lack, what that means."""
        parent_of = await self.loader.do(self._parent_of_rows, self.loader.connection)
        found = await self.loader.do(lambda: sweep.differences(deep=True, only=list(parent_of)))
        listed = await self.loader.do(self._listed, sweep)
        verdicts = [self._judge(each.key, parent_of[each.key], listed) for each in found if each.kind == "absent"]
        verdicts += await self.loader.do(self._unknown_before, self.loader.connection)
        return [each for each in found if each.kind != "absent"], verdicts

    def counts_off(self, sweep: Sweep) -> list[CountOff]:
        """The records that count otherwise than their lists, as far as those lists' rows are here as they were shown.

        Where a list shows what is not here, or lacks what its record no longer counts either, the difference is one to
        repair: its list is read again.
        """
        of, main = quoted(self.column), quoted("main", self.stream.name)
        key = quoted(self.stream.key)
        rows = sweep.connection.execute(
            "WITH asked AS (SELECT unnest(?::VARCHAR[]) AS key),"
            f" alive AS (SELECT {key}::VARCHAR AS key, {of}::VARCHAR AS of, _row_hash FROM {main}"
            " WHERE _deleted_at IS NULL),"
            f" listed AS (SELECT s.{of} AS of, count(DISTINCT s.key) AS shown, count(DISTINCT a.key) AS same"
            f" FROM {sweep.relation} s LEFT JOIN alive a ON a.key = s.key AND a._row_hash = s.hash"
            " WHERE NOT s.is_gone GROUP BY 1)"
            " SELECT p.key, coalesce(l.shown, 0), coalesce(l.same, 0),"
            " (SELECT count(*) FROM alive a WHERE a.of = p.key) FROM asked p LEFT JOIN listed l ON l.of = p.key",
            [list(self.counts.to_read)],
        ).fetchall()
        found = list(self.counts.unchanged.values())
        for one, shown, same, here in rows:
            says = self.counts.to_read[str(one)]
            if says is not None and says != here and shown == same and (here == shown or says != shown):
                found.append(CountOff(self.parent.stream, str(one), says, int(shown), int(here), self.session.began))
        return found

    def _unknown_before(self, connection: duckdb.DuckDBPyConnection) -> list[Verdict]:
        """The findings about rows whose parents' lists are not read again: they are the same as before."""
        of, main, key = quoted(self.column), quoted("main", self.stream.name), quoted(self.stream.key)
        rows = connection.execute(
            f"SELECT f.key, f.evidence FROM meta.findings f JOIN {main} t ON t.{key}::VARCHAR = f.key"
            " WHERE f.stream = $1 AND f.kind = 'absent_unknown' AND t._deleted_at IS NULL"
            f" AND t.{of}::VARCHAR IN (SELECT unnest($2::VARCHAR[]))"
            " AND f.run_id IN (SELECT run_id FROM meta.counts_off WHERE stream = $1) ORDER BY 1",
            [self.stream.name, list(self.counts.unchanged)],
        ).fetchall()
        return [Verdict(str(key), "absent_unknown", str(evidence)) for key, evidence in rows]

    def _judge(self, key: str, parent: str, listed: dict[str, int]) -> Verdict:
        """What it means that the record `of` does not list a row: it is gone, if it counts as many as it lists."""
        says, shown = self.counts.to_read[parent], listed.get(parent, 0)
        lacks = f"{self.parent.stream}/{parent} lists {shown} without it"
        if says is None:
            return Verdict(key, "absent_unknown", f"{lacks}, and nothing counts them")
        lacks += f", and its {self.parent.having} is {says}"
        return Verdict(key, "purged" if says == shown else "absent_unknown", lacks)

    def _listed(self, sweep: Sweep) -> dict[str, int]:
        """How many rows each list has that was read, by parent."""
        of = quoted(self.column)
        rows = sweep.connection.execute(
            f"SELECT {of}, count(DISTINCT key) FROM {sweep.relation} WHERE NOT is_gone GROUP BY 1"
        ).fetchall()
        return {str(parent): int(shown) for parent, shown in rows}

    def _parent_of_rows(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """The rows of the parents whose lists were read: key → parent."""
        of = quoted(self.column)
        rows = connection.execute(
            f"SELECT {quoted(self.stream.key)}::VARCHAR, {of}::VARCHAR FROM {quoted('main', self.stream.name)}"
            f" WHERE _deleted_at IS NULL AND {of}::VARCHAR IN (SELECT unnest(?::VARCHAR[]))",
            [list(self.counts.to_read)],
        ).fetchall()
        return {str(key): str(parent) for key, parent in rows}


def _key(text: str) -> Key:
    return int(text) if text.isdigit() else text
