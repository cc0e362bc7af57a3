"""Reconciles what is read record by record (the line items of every deal), by the counts that those records show.

To ask for each deal's list again would cost a request a deal. The deals' own list says how many each has, so only
those are asked for of which the tables hold more or fewer. A row that was swapped for another leaves the count as it
was: a sync sees that, by the record's time of change. Where a record's count is not what its own list shows, the list
is what counts: such records are remembered, and asked again when their count or their rows here move, or once in a
verify cycle.

Where nothing counts them (changelogs, permitted users), every record is asked. What its list lacks is then no
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
from pdsync.runner.sync import parent_keys as parents
from pdsync.runner.sync import sync as running
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    import duckdb

    from pdsync.extract.child_lists import Key
    from pdsync.model import Parent, Stream
    from pdsync.runner.sync.sync import SyncRun


class ParentCounts(Struct):
    """How many rows there are at the source and here, and which records of the parent stream are asked for their lists.

    A record whose count is that of its rows here is taken at its word; of any other its list says how many there are.
    """

    at_source: int
    here: int
    # The record's key → how many it says, where that is not the number of its rows here; None where it does not say.
    asked: dict[str, int | None]
    known: dict[str, CountOff] = {}  # those that were asked before, and of which nothing has moved since


class CountReconciler:
    """One such stream under reconciliation."""

    def __init__(
        self, run: SyncRun, stream: Stream, parent: Parent, above: Sweep | None, *, deep: bool = False
    ) -> None:
        """
        Args:
            run: under way.
            stream: which is read record by record.
            parent: those records, and what they count.
            above: what their own list has just shown; without it, what the tables hold counts.
            deep: ask again those whose count is known to be off.
        """
        self.deep = deep
        self.run, self.stream, self.parent, self.above = run, stream, parent, above
        self.version, (self.source, *_) = stream.sources(run.settings.api)
        self.column = stream.parent_column(parent, self.version) or parent.stream
        self.counts = ParentCounts(0, 0, {})
        self.pages: list[Page] = []  # of those lists: few, or the share of the day's tokens says no

    async def sweep(self, number: int) -> Sweep:
        """Read the lists of those records that count otherwise than the tables do, or of all that don't count.

        Raises:
            ShareSpent: they are too many.
            PdsyncError: as `dependents` does.
        """
        run, stream, loader = self.run, self.stream, self.run.loader
        table = await loader.do(loader.table, stream, self.version)
        sweep = await loader.do(Sweep, loader.connection, table, number)
        self.counts = await loader.do(self._count if self.parent.counts else self._all, loader.connection)
        operation = catalogue.operations(self.version)[self.source.operation]
        walk = Walk(
            -1 - number, run.receipt.run_id, stream.name, self.source.name, self.version, operation.id, None, None
        )
        query = query_of(stream, self.source, self.version, operation, None)
        keys = sorted((_key(text) for text in self.counts.asked), reverse=True)
        live = run.live[stream.name]
        async for page in dependents(run.http, operation, walk, query, self.parent, keys, run.allow):
            live.requests, live.tokens = live.requests + 1, live.tokens + (operation.cost or 0)
            live.read += page.rows
            run.tell(running.Event("page", stream.name, live))
            self.pages.append(page)
            await loader.do(sweep.add, self.source.name, operation, [page])
        self.counts.at_source += sum((await loader.do(self._listed, sweep)).values())
        return sweep

    def _count(self, connection: duckdb.DuckDBPyConnection) -> ParentCounts:
        above, key = catalogue.stream(self.parent.stream), quoted(catalogue.stream(self.parent.stream).key)
        says = quoted(self.parent.having or "")
        if self.above:  # as the source has just shown them
            shown = (
                f"SELECT key, TRY_CAST({says} AS BIGINT) AS says FROM {self.above.relation} QUALIFY NOT is_gone"
                " AND row_number() OVER (PARTITION BY key ORDER BY served_at DESC, is_gone) = 1"
            )
        else:
            shown = f"SELECT {key}::VARCHAR, {says} FROM {quoted('main', above.name)} WHERE _deleted_at IS NULL"
        connection.execute(f"CREATE OR REPLACE TEMP TABLE counted (key, says, here) AS {self._held(shown)}")
        here, at_source = first(
            connection.execute(
                "SELECT coalesce(sum(here), 0), coalesce(sum(here) FILTER (says = here), 0) FROM temp.counted"
            )
        )
        rows = connection.execute(
            "SELECT c.key, c.says, o.listed, c.here, epoch(o.read_at) FROM temp.counted c LEFT JOIN meta.counts_off o"
            " ON o.stream = ? AND o.parent = ? AND o.key = c.key AND o.says = c.says AND o.here = c.here"
            " AND o.read_at > ? WHERE c.says <> c.here",
            [self.stream.name, above.name, self.run.began - timedelta(days=self.run.settings.verify_cycle or CYCLE)],
        ).fetchall()
        known = {
            str(key): CountOff(above.name, str(key), says, listed, held, datetime.fromtimestamp(read_at, UTC))
            for key, says, listed, held, read_at in rows
            if listed is not None and not self.deep
        }
        asked: dict[str, int | None] = {str(row[0]): int(row[1]) for row in rows if str(row[0]) not in known}
        return ParentCounts(int(at_source) + sum(each.listed for each in known.values()), int(here), asked, known)

    def _all(self, connection: duckdb.DuckDBPyConnection) -> ParentCounts:
        keys = parents.keys(connection, self.parent, None, held=(self.stream.name, self.column))
        return ParentCounts(0, 0, dict.fromkeys(map(str, keys)))

    def _held(self, shown: str) -> str:
        """The counts `shown`, each beside the number of rows here."""
        of = quoted(self.column)
        return (
            f"SELECT p.key, p.says, coalesce(c.here, 0) FROM ({shown}) p(key, says)"
            f" LEFT JOIN (SELECT {of}::VARCHAR AS of, count(*) AS here FROM {quoted('main', self.stream.name)}"
            " WHERE _deleted_at IS NULL GROUP BY 1) c"
            " ON c.of = p.key WHERE p.says IS NOT NULL"
        )

    async def differences(self, sweep: Sweep) -> tuple[list[Difference], list[Verdict]]:
        """What differs in the lists that were read; and of what they lack, what that means."""
        parents = await self.run.loader.do(self._rows_of, self.run.loader.connection)
        found = await self.run.loader.do(lambda: sweep.differences(deep=True, only=list(parents)))
        listed = await self.run.loader.do(self._listed, sweep)
        verdicts = [self._judge(each.key, parents[each.key], listed) for each in found if each.kind == "absent"]
        verdicts += await self.run.loader.do(self._still_unknown, self.run.loader.connection)
        return [each for each in found if each.kind != "absent"], verdicts

    def off(self, sweep: Sweep) -> list[CountOff]:
        """The records that count otherwise than their lists, as far as those lists' rows are here as they were shown.

        Where a list shows what is not here, or lacks what its record counts no more either, the difference is one to
        repair: such a record is asked again.
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
            [list(self.counts.asked)],
        ).fetchall()
        found = list(self.counts.known.values())
        for one, shown, same, here in rows:
            says = self.counts.asked[str(one)]
            if says is not None and says != here and shown == same and (here == shown or says != shown):
                found.append(CountOff(self.parent.stream, str(one), says, int(shown), int(here), self.run.began))
        return found

    def _still_unknown(self, connection: duckdb.DuckDBPyConnection) -> list[Verdict]:
        """What was found of the rows of records that are not asked again, and holds as before."""
        of, main, key = quoted(self.column), quoted("main", self.stream.name), quoted(self.stream.key)
        rows = connection.execute(
            f"SELECT f.key, f.evidence FROM meta.findings f JOIN {main} t ON t.{key}::VARCHAR = f.key"
            " WHERE f.stream = $1 AND f.kind = 'absent_unknown' AND t._deleted_at IS NULL"
            f" AND t.{of}::VARCHAR IN (SELECT unnest($2::VARCHAR[]))"
            " AND f.run_id IN (SELECT run_id FROM meta.counts_off WHERE stream = $1) ORDER BY 1",
            [self.stream.name, list(self.counts.known)],
        ).fetchall()
        return [Verdict(str(key), "absent_unknown", str(evidence)) for key, evidence in rows]

    def _judge(self, key: str, of: str, listed: dict[str, int]) -> Verdict:
        """What it means that the record `of` does not list a row: it is gone, if it counts as many as it lists."""
        says, shown = self.counts.asked[of], listed.get(of, 0)
        lacks = f"{self.parent.stream}/{of} lists {shown} without it"
        if says is None:
            return Verdict(key, "absent_unknown", f"{lacks}, and nothing counts them")
        lacks += f", and its {self.parent.having} is {says}"
        return Verdict(key, "purged" if says == shown else "absent_unknown", lacks)

    def _listed(self, sweep: Sweep) -> dict[str, int]:
        """How many each record that was asked lists."""
        of = quoted(self.column)
        rows = sweep.connection.execute(
            f"SELECT {of}, count(DISTINCT key) FROM {sweep.relation} WHERE NOT is_gone GROUP BY 1"
        ).fetchall()
        return {str(parent): int(shown) for parent, shown in rows}

    def _rows_of(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """The rows of the records that were asked, each with its record."""
        of = quoted(self.column)
        rows = connection.execute(
            f"SELECT {quoted(self.stream.key)}::VARCHAR, {of}::VARCHAR FROM {quoted('main', self.stream.name)}"
            f" WHERE _deleted_at IS NULL AND {of}::VARCHAR IN (SELECT unnest(?::VARCHAR[]))",
            [list(self.counts.asked)],
        ).fetchall()
        return {str(key): str(parent) for key, parent in rows}


def _key(text: str) -> Key:
    return int(text) if text.isdigit() else text
