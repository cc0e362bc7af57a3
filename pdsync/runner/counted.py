"""Reconciles what is read record by record (the line items of every deal), by the counts that those records show.

To ask for each deal's list again would cost a request a deal. The deals' own list says how many each has, so only
those are asked for of which the tables hold more or fewer. A row that was swapped for another leaves the count as it
was: a sync sees that, by the record's time of change.

Where nothing counts them (changelogs, permitted users), every record is asked. What its list lacks is then no
evidence: nothing but the list itself says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.extract.dependents import dependents
from pdsync.extract.pages import query_of
from pdsync.model import Page, Walk
from pdsync.reconcile.evidence import Verdict
from pdsync.reconcile.sweep import Difference, Sweep
from pdsync.runner import parents
from pdsync.runner import run as running
from pdsync.sql import first
from pdsync.sql import name as quoted

if TYPE_CHECKING:
    import duckdb

    from pdsync.extract.dependents import Key
    from pdsync.model import Parent, Stream
    from pdsync.runner.run import Run


class Counts(Struct):
    """How many rows the records of the parent stream say there are, and which of them are asked for their lists."""

    at_source: int
    here: int
    # The record's key → how many it says, where that is not the number of its rows here; None where it does not say.
    asked: dict[str, int | None]


class Counted:
    """One such stream under reconciliation."""

    def __init__(self, run: Run, stream: Stream, parent: Parent, above: Sweep | None) -> None:
        """
        Args:
            run: under way.
            stream: which is read record by record.
            parent: those records, and what they count.
            above: what their own list has just shown; without it, what the tables hold counts.
        """
        self.run, self.stream, self.parent, self.above = run, stream, parent, above
        self.version, (self.source, *_) = stream.sources(run.settings.api)
        self.column = stream.parent_column(parent, self.version) or parent.stream
        self.counts = Counts(0, 0, {})
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
        return sweep

    def _count(self, connection: duckdb.DuckDBPyConnection) -> Counts:
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
        sums = first(connection.execute("SELECT coalesce(sum(says), 0), coalesce(sum(here), 0) FROM temp.counted"))
        rows = connection.execute("SELECT key, says FROM temp.counted WHERE says <> here").fetchall()
        return Counts(int(sums[0]), int(sums[1]), {str(one): int(says) for one, says in rows})

    def _all(self, connection: duckdb.DuckDBPyConnection) -> Counts:
        keys = parents.keys(connection, self.parent, None, held=(self.stream.name, self.column))
        return Counts(0, 0, dict.fromkeys(map(str, keys)))

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
        return [each for each in found if each.kind != "absent"], verdicts

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
