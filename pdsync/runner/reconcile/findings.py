"""What a reconciliation compares, what it finds, and how that is stored: in the receipt and in meta."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.errors import PdsyncError, Stopped
from pdsync.load.transaction import transaction
from pdsync.model import Receipt, StreamReceipt
from pdsync.runner.report.receipt import StreamEnd, conclude

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from pdsync.runner.session import OnlineSession


class ReconcileRequest(Struct, frozen=True):
    """What a reconciliation compares, and how."""

    streams: tuple[str, ...] = ()  # none: all that were read
    repair: bool = False
    deep: bool = False  # compare values too if the time of change is equal
    sample: int | None = None  # records of each stream, those verified longest ago first; None: all
    max_tombstones: int | None = None
    budget: int | None = None  # tokens
    leave_out: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command line."""
        flags = ["--repair"] * self.repair + ["--deep"] * self.deep
        flags += [f"--sample={self.sample}"] if self.sample is not None else []
        return " ".join(["reconcile", *self.streams, *flags])


class Finding(Struct, frozen=True):
    """A difference, its meaning, and whether it was repaired."""

    stream: str
    key: str
    kind: str
    evidence: str = ""
    winner: str | None = None
    repaired: bool = False
    source: str | None = None  # the list that shows the record


class CountMismatch(Struct, frozen=True):
    """A record whose count differs from its own list, which was read to its end."""

    parent: str  # the stream of the record
    key: str
    reported: int  # the record's count
    listed: int  # rows in its list
    in_warehouse: int  # rows of it
    read_at: datetime  # when the list was read


class ReconcileResult(Struct):
    """The result of a reconciliation."""

    receipt: Receipt
    findings: list[Finding] = []
    swept: dict[str, tuple[int, int, int]] = {}  # keys at the source, keys in the warehouse, equal rows; by stream
    # By stream: live rows that were not compared: not in the sample, or of parents whose lists can't be requested.
    not_compared: dict[str, int] = {}
    is_sample: bool = False  # only some records of each stream were compared
    held_back: str | None = None  # why streams got no tombstones: they exceed their limits
    by_count: list[str] = []  # streams that were compared by the counts of their parents
    left_out: dict[str, str] = {}  # streams that were not compared, and why
    counts_off: dict[
        str, list[CountMismatch]
    ] = {}  # streams of `by_count` → records whose count differs from their list

    @property
    def uneven(self) -> dict[str, tuple[int, int]]:
        """By stream: how many records source and warehouse have, where that differs and the stream has no finding."""
        explained = {each.stream for each in self.findings}
        return {
            name: (at_source, in_warehouse)
            for name, (at_source, in_warehouse, _) in self.swept.items()
            if at_source != in_warehouse and name not in explained
        }

    @property
    def other_values(self) -> dict[str, int]:
        """By stream: rows that are not shown to be equal, and of which only a deep comparison reports the values."""
        found = Counter(each.stream for each in self.findings)
        return {
            name: other
            for name, (_, in_warehouse, equal) in self.swept.items()
            if name not in self.by_count and (other := in_warehouse - equal - found[name]) > 0
        }

    @property
    def left(self) -> list[Finding]:
        """Differences that were not repaired."""
        return [each for each in self.findings if not each.repaired]


async def conclude_and_save(
    session: OnlineSession, result: ReconcileResult, request: ReconcileRequest, failed: Mapping[str, PdsyncError]
) -> None:
    """Conclude the receipt, and save the findings in the work file.

    Args:
        session: open.
        result: its receipt is that of the session.
        request: the streams to compare.
        failed: by stream: why it could not be compared.
    """
    receipt = session.receipt
    ends = {name: StreamEnd(StreamReceipt(), error=error) for name, error in failed.items()}
    for name in result.swept:
        progress = session.progress.get(name, StreamReceipt())
        ends[name] = StreamEnd(progress, progress)
    conclude(receipt, ends, session.http.budget)
    stopped = next((error for error in failed.values() if isinstance(error, Stopped)), None)
    unfinished = 3 if result.held_back else 4 if receipt.gaps else 0
    receipt.exit_code = (stopped.exit_code if stopped else 1) if failed else unfinished
    await session.loader.do(save_findings, session, result, request)


def save_findings(session: OnlineSession, result: ReconcileResult, request: ReconcileRequest) -> None:
    """Save the findings in one transaction; in the loader's thread.

    An interrupted attempt of this run may have saved findings already. Where this attempt reads everything and does not
    find them again, the interrupted one had repaired them.
    """
    now, run_id, connection = session.began, session.receipt.run_id, session.loader.connection
    left = [each.stream for each in result.left]
    found = {(each.stream, each.key) for each in result.findings}
    reads_all = request.repair and request.sample is None
    with transaction(connection):
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
        for name, (at_source, in_warehouse, verified) in result.swept.items():
            connection.execute(
                "INSERT INTO meta.sweeps VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [run_id, now, name, at_source, in_warehouse, verified, left.count(name), request.sample is None],
            )
        for name, records in result.counts_off.items():
            connection.execute("DELETE FROM meta.counts_off WHERE stream = ?", [name])
            for each in records:
                connection.execute(
                    "INSERT INTO meta.counts_off VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [run_id, each.read_at, name, each.parent, each.key, each.reported, each.listed, each.in_warehouse],
                )
