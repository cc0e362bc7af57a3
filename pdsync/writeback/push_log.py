"""Stores in control.db which plans were made in this project, which pushes carried them out, and their receipts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pdsync.writeback.snapshot import from_json, now

if TYPE_CHECKING:
    from pdsync.core.control import Control


class PushLog:
    """The plans and pushes of one project.

    Args:
        control: the open control.db.
    """

    def __init__(self, control: Control) -> None:
        self.control = control

    def save_plan(self, hash: str, company_id: int, steps: int) -> None:
        """Save the hash of a plan: only a plan that was made in this project is carried out."""
        with self.control.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO plans VALUES (?, ?, ?, ?, NULL)", (hash, company_id, now().isoformat(), steps)
            )

    def plan(self, hash: str) -> tuple[int, str | None] | None:
        """The company id of a saved plan, and the push that carried it out; None where no such plan is saved."""
        rows = self.control.rows("SELECT company_id, pushed_as FROM plans WHERE hash = ?", hash)
        return (int(str(rows[0][0])), None if rows[0][1] is None else str(rows[0][1])) if rows else None

    def start_push(self, id: str, hash: str) -> None:
        """Record that the push `id` carries out the plan with this hash."""
        with self.control.transaction() as db:
            db.execute("INSERT INTO pushes VALUES (?, ?, ?, NULL, NULL)", (id, hash, now().isoformat()))
            db.execute("UPDATE plans SET pushed_as = ? WHERE hash = ?", (id, hash))

    def finish_push(self, id: str, receipt: msgspec.Struct) -> None:
        """Record the end of the push `id`, and its receipt."""
        with self.control.transaction() as db:
            text = msgspec.json.encode(receipt).decode()
            db.execute("UPDATE pushes SET finished_at = ?, receipt = ? WHERE id = ?", (now().isoformat(), text, id))

    def pushes(self, last: int = 20) -> list[dict[str, Any]]:
        """The last pushes, newest first, with their receipts."""
        rows = self.control.rows(
            "SELECT id, started_at, finished_at, receipt FROM pushes ORDER BY rowid DESC LIMIT ?", last
        )
        return [
            {"id": id, "started_at": started_at, "finished_at": finished_at, "receipt": from_json(receipt)}
            for id, started_at, finished_at, receipt in rows
        ]
