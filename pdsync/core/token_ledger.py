"""What the day's budget has left, by the ledger in control.db; `core.budget` writes it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3


def tokens_left(db: sqlite3.Connection, daily_tokens: int) -> tuple[int | None, int]:
    """Tokens left today and the day's limit, by the ledger in `db` (control.db); (None, 0) if `daily_tokens` is 0.

    Others spend from the same budget: where a header had the rest, it overrides the own count.
    """
    if not daily_tokens:
        return None, 0
    row = db.execute(
        "SELECT spent, server_limit, server_remaining, spent_then FROM tokens WHERE day = ?", (today(),)
    ).fetchone() or (0, None, None, None)
    spent, server_limit, server_remaining, spent_then = row
    limit = int(server_limit or daily_tokens)
    if server_remaining is not None and spent_then is not None:
        return max(server_remaining - (spent - spent_then), 0), limit
    return max(limit - spent, 0), limit


def today() -> str:
    """The day that tokens are counted for, as `2026-01-31`."""
    # Assumption: the day turns at midnight UTC. The documents name no time zone; the headers correct us.
    return datetime.now(UTC).strftime("%Y-%m-%d")
