"""The company that a project is bound to, its runs and their receipts."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from pdsync.core.control.db import Database
from pdsync.errors import WrongCompany
from pdsync.model import Receipt

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

ONLY_ARCHIVED = "(known from the raw archive only)"  # instead of the command of a run that only the archive shows


class Runs(Database):
    """Company, runs and receipts in control.db."""

    def company(self) -> tuple[int, str] | None:
        """Id and name of the project's company; None before the first run."""
        rows = self.rows("SELECT id, name FROM company")
        return (int(str(rows[0][0])), str(rows[0][1])) if rows else None

    def check_company(self, company_id: int, name: str) -> None:
        """Check that the project is not bound to another company.

        Raises:
            WrongCompany: it is bound to another one; nothing was written.
        """
        bound = self.company()
        if bound and bound[0] != company_id:
            raise WrongCompany(expected=bound[0], found=company_id, name=name)

    def bind_company(self, company_id: int, name: str, domain: str | None) -> None:
        """Bind the project to a company, or check that it is bound to this one; its name and domain are replaced.

        Raises:
            WrongCompany: it is bound to another one; nothing was written.
        """
        self.check_company(company_id, name)
        with self.transaction() as db:
            db.execute("DELETE FROM company")
            db.execute("INSERT INTO company VALUES (?, ?, ?)", (company_id, name, domain))

    def start_run(self, run_id: str, command: str, started_at: datetime) -> None:
        with self.transaction() as db:
            db.execute("INSERT INTO runs VALUES (?, ?, ?, NULL)", (run_id, command, started_at.isoformat()))

    def finish_run(self, receipt: Receipt) -> None:
        with self.transaction() as db:
            text = msgspec.json.encode(receipt).decode()
            db.execute("UPDATE runs SET receipt = ? WHERE id = ?", (text, receipt.run_id))

    def receipts(self, last: int, *, after: int = 0) -> list[Receipt]:
        """The `last` runs (-1: all), newest first; one that was killed, or still runs, has a receipt without an end.

        Args:
            last: how many.
            after: how many newer ones are left out.
        """
        query = "SELECT id, command, started_at, receipt FROM runs ORDER BY rowid DESC LIMIT ? OFFSET ?"
        rows = self.rows(query, last, after)
        return [
            msgspec.json.decode(str(receipt), type=Receipt)
            if receipt
            else Receipt(str(run), str(command), datetime.fromisoformat(str(started)))
            for run, command, started, receipt in rows
        ]

    def receipts_with_gaps(self) -> list[Receipt]:
        """The runs that left a gap, newest first."""
        rows = self.rows("SELECT receipt FROM runs WHERE instr(receipt, '\"gaps\":[]') = 0 ORDER BY rowid DESC")
        return [msgspec.json.decode(str(receipt), type=Receipt) for (receipt,) in rows]

    def was_killed(self, run_id: str) -> bool:
        """Whether a run has left no receipt: it was killed, or still runs."""
        rows = self.rows("SELECT receipt IS NULL AND command <> ? FROM runs WHERE id = ?", ONLY_ARCHIVED, run_id)
        return bool(rows and rows[0][0])

    def run_order(self) -> dict[str, int]:
        """Run → its number in the order in which the runs began, whatever their clocks showed."""
        return {str(run): int(str(number)) for number, run in self.rows("SELECT rowid, id FROM runs ORDER BY rowid")}

    def restore_receipts(self, receipts: Sequence[Receipt]) -> None:
        """Insert the receipts of finished runs, oldest first, where they are missing."""
        with self.transaction() as db:
            merge_runs(db, [(receipt.run_id, receipt.started_at) for receipt in receipts])
            for receipt in receipts:
                db.execute(
                    "UPDATE runs SET command = ?, receipt = ? WHERE id = ? AND receipt IS NULL",
                    (receipt.command, msgspec.json.encode(receipt).decode(), receipt.run_id),
                )


def merge_runs(db: sqlite3.Connection, more: Sequence[tuple[str, datetime]]) -> None:
    """Insert missing runs by the time of their beginning; existing ones keep their order, but not their rowids.

    Args:
        db: in a transaction.
        more: id and beginning of each, oldest first.
    """
    rows = db.execute("SELECT id, command, started_at, receipt FROM runs ORDER BY rowid").fetchall()
    existing = {row[0] for row in rows}
    missing = [(run, ONLY_ARCHIVED, began.isoformat(), None) for run, began in more if run not in existing]
    if not missing:
        return
    merged, remaining = list[tuple[object, ...]](), [tuple(row) for row in rows]
    for run in missing:
        while remaining and datetime.fromisoformat(str(remaining[0][2])) <= datetime.fromisoformat(str(run[2])):
            merged.append(remaining.pop(0))
        merged.append(run)
    db.execute("DELETE FROM runs")
    db.executemany("INSERT INTO runs VALUES (?, ?, ?, ?)", merged + remaining)
