"""What a reconciliation is asked, what it finds, and how that is kept: in the receipt and in meta."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from pdsync.errors import PdsyncError, Stopped
from pdsync.model import IncompleteStream, Receipt, StreamReceipt

if TYPE_CHECKING:
    from pdsync.runner.sync.sync import SyncRun


class ReconcileRequest(Struct, frozen=True):
    """What a reconciliation is asked to do."""

    streams: tuple[str, ...] = ()  # none: all that were read
    repair: bool = False
    deep: bool = False  # also values that move no time
    sample: int | None = None  # only so many records of each stream, chosen at random
    max_tombstones: int | None = None
    budget: int | None = None  # tokens
    leave_out: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command as it would be typed."""
        flags = ["--repair"] * self.repair + ["--deep"] * self.deep
        flags += [f"--sample={self.sample}"] if self.sample is not None else []
        return " ".join(["reconcile", *self.streams, *flags])


class Finding(Struct, frozen=True):
    """One difference, what it means, and whether it was repaired."""

    stream: str
    key: str
    kind: str
    evidence: str = ""
    winner: str | None = None
    repaired: bool = False
    source: str | None = None  # the list that shows the record


class CountOff(Struct, frozen=True):
    """A record that counts otherwise than its own list, which was read to its end."""

    parent: str  # the stream of the record
    key: str
    says: int
    listed: int
    here: int
    read_at: datetime


class Result(Struct):
    """What a reconciliation has found."""

    receipt: Receipt
    findings: list[Finding] = []
    swept: dict[str, tuple[int, int, int]] = {}  # stream → keys at the source, keys here, rows seen to be the same
    held: str | None = None  # why tombstones were held back
    by_count: list[str] = []  # streams that were compared by the counts that the records above them show
    left_out: dict[str, str] = {}  # streams that were not compared, and why
    counts_off: dict[str, list[CountOff]] = {}  # streams of `by_count` → records whose count is not what they list

    @property
    def left(self) -> list[Finding]:
        """Differences that are still there."""
        return [each for each in self.findings if not each.repaired]


async def conclude(run: SyncRun, result: Result, asked: ReconcileRequest, failed: dict[str, PdsyncError]) -> None:
    """Write the receipt, and what was found, into the work file."""
    receipt = run.receipt
    receipt.finished_at = datetime.now(UTC)
    receipt.requests, receipt.tokens = run.http.budget.requests, run.http.budget.spent
    for name, error in failed.items():
        receipt.streams[name] = StreamReceipt(error=str(error))
        receipt.gaps.append(
            IncompleteStream(name, "stopped" if isinstance(error, Stopped) else "failed", str(error).split("\n")[0])
        )
    for name in result.swept:
        live = run.live.get(name, StreamReceipt())
        gap = any(each.stream == name for each in receipt.gaps)
        receipt.streams[name] = replace(live, complete=not gap)
    stopped = next((error for error in failed.values() if isinstance(error, Stopped)), None)
    unfinished = 3 if result.held else 4 if receipt.gaps else 0
    receipt.exit_code = (stopped.exit_code if stopped else 1) if failed else unfinished
    await run.loader.do(save_findings, run, result, asked)


def save_findings(run: SyncRun, result: Result, asked: ReconcileRequest) -> None:
    """Write down what was found, all or nothing; in the loader's thread.

    An attempt of this run that was cut may have written already. What it found and this one, reading it all, does not,
    it had repaired.
    """
    now, run_id, connection = run.began, run.receipt.run_id, run.loader.connection
    left = [each.stream for each in result.left]
    found = {(each.stream, each.key) for each in result.findings}
    reads_all = asked.repair and asked.sample is None
    connection.execute("BEGIN")
    try:
        rows = [
            (*row[:-1], row[-1] or (reads_all and row[2] in result.swept))
            for row in connection.execute("FROM meta.findings WHERE run_id = ?", [run_id]).fetchall()
            if (row[2], row[3]) not in found
        ]
        rows += [
            (run_id, now, each.stream, each.key, each.kind, each.evidence, each.winner, each.repaired)
            for each in result.findings
        ]
        connection.execute("DELETE FROM meta.findings WHERE run_id = ?", [run_id])
        connection.execute("DELETE FROM meta.sweeps WHERE run_id = ?", [run_id])
        for row in rows:
            connection.execute("INSERT INTO meta.findings VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        for name, (source, here, verified) in result.swept.items():
            connection.execute(
                "INSERT INTO meta.sweeps VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [run_id, now, name, source, here, verified, left.count(name), asked.sample is None],
            )
        for name, records in result.counts_off.items():
            connection.execute("DELETE FROM meta.counts_off WHERE stream = ?", [name])
            for each in records:
                connection.execute(
                    "INSERT INTO meta.counts_off VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [run_id, each.read_at, name, each.parent, each.key, each.says, each.listed, each.here],
                )
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
