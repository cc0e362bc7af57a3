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

ONLY_ARCHIVED = "(known from the raw archive only)"  # in place of the command of a run that nothing else tells of


class Runs(Database):
    """Company, runs and receipts in control.db."""

    def company(self) -> tuple[int, str] | None:
        """Id and name of the company this project holds; None before the first run."""
        rows = self.rows("SELECT id, name FROM company")
        return (int(str(rows[0][0])), str(rows[0][1])) if rows else None

    def check_company(self, company_id: int, name: str) -> None:
        """See that the project is tied to no other company.

        Raises:
            WrongCompany: it is; nothing was written.
        """
        known = self.company()
        if known and known[0] != company_id:
            raise WrongCompany(expected=known[0], found=company_id, name=name)

    def bind_company(self, company_id: int, name: str, domain: str | None) -> None:
        """Tie the project to a company, or check that it is the same one as before. Its name may change.

        Raises:
            WrongCompany: it is another one; nothing was written.
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

    def receipts(self, last: int) -> list[Receipt]:
        """The `last` runs, newest first; a run that was killed has a receipt without an end."""
        rows = self.rows("SELECT id, command, started_at, receipt FROM runs ORDER BY rowid DESC LIMIT ?", last)
        return [
            msgspec.json.decode(str(receipt), type=Receipt)
            if receipt
            else Receipt(str(run), str(command), datetime.fromisoformat(str(started)))
            for run, command, started, receipt in rows
        ]

    def run_order(self) -> dict[str, int]:
        """Runs by their place in the order in which they began, whatever the clock said."""
        return {str(run): int(str(place)) for place, run in self.rows("SELECT rowid, id FROM runs ORDER BY rowid")}

    def restore_receipts(self, receipts: Sequence[Receipt]) -> None:
        """Take over the receipts of finished runs, oldest first, where this state lacks them."""
        with self.transaction() as db:
            merge_runs(db, [(receipt.run_id, receipt.started_at) for receipt in receipts])
            for receipt in receipts:
                db.execute(
                    "UPDATE runs SET command = ?, receipt = ? WHERE id = ? AND receipt IS NULL",
                    (receipt.command, msgspec.json.encode(receipt).decode(), receipt.run_id),
                )


def merge_runs(db: sqlite3.Connection, more: Sequence[tuple[str, datetime]]) -> None:
    """Insert the runs that are missing where they belong by time; those that are here keep their order."""
    rows = db.execute("SELECT id, command, started_at, receipt FROM runs ORDER BY rowid").fetchall()
    known = {row[0] for row in rows}
    missing = [(run, ONLY_ARCHIVED, began.isoformat(), None) for run, began in more if run not in known]
    if not missing:
        return
    merged, here = list[tuple[object, ...]](), [tuple(row) for row in rows]
    for run in missing:
        while here and datetime.fromisoformat(str(here[0][2])) <= datetime.fromisoformat(str(run[2])):
            merged.append(here.pop(0))
        merged.append(run)
    db.execute("DELETE FROM runs")
    db.executemany("INSERT INTO runs VALUES (?, ?, ?, ?)", merged + here)
