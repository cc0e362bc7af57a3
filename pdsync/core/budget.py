"""Decides when the next request may be sent, and whether it may be sent at all.

Pipedrive meters a company twice. A *burst limit* counts the requests of any rolling two seconds, as the server
sees them; it refills, so pdsync waits. Searches count in it, and in a smaller one of their own. A *daily budget*
of tokens is shared with every other integration of the company and is renewed at midnight, so a run stops while it
can be resumed.

Both are kept in control.db, because every process of the project shares them. The window needs no assumption about
the network: a request reaches the server somewhere between the moment it is sent and the moment its answer begins.
So an answered request counts until two seconds after its *answer's first byte*, an unanswered one always, and however
long requests travel, no two seconds at the server have more requests than the limit.

    async with budget.spend(cost) as answered:
        ...         # send
        answered()  # the answer begins; its body may take longer

asyncio-throttle spreads the requests of this process evenly below that bound. Units: tokens are Pipedrive's, times
are seconds of the machine's monotonic clock, which all its processes share and which no change of date moves; only the
pause after abuse protection ends by the wall clock (seconds since 1970). This module knows no HTTP: `core.http` reports
the response headers through `observe`, and they override the own count.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from asyncio_throttle import Throttler  # type: ignore[attr-defined]  # it has no __all__

from pdsync.core import token_ledger
from pdsync.core.disk import storage_errors
from pdsync.core.log import log
from pdsync.errors import BudgetSpent, CoolingDown, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

WINDOW_S = 2.0
SEARCH_BURST = 10  # the same on every plan, for API tokens and OAuth apps
# A window must not close too early: clocks are read in steps, and run up to 500 ppm apart while they are corrected.
_MARGIN_S = 0.002 + time.get_clock_info("monotonic").resolution
_LOST_S = 3600.0  # no answer takes that long: its process is gone, and another one may have the number by now
_COOL_DOWN_S = 600.0
_SLICE_S = 0.2
_FASTER = 3.0  # than the limit, for a moment
_opened: set[tuple[str, int]] = set()  # ledgers that this process has opened, with its number: a fork has another
_AVERAGED = 8  # answers: fewer say little, more are slow to notice that a server has become slower


class _Ledger(sqlite3.Connection):
    """control.db; its errors are StorageErrors with advice."""

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        with storage_errors("The request ledger in control.db"):
            return super().execute(*arguments)


class Budget:
    """The burst limit of one token, and its company's day: shared with all processes that use the same control.db.

    Args:
        path: of control.db, which exists.
        token: the secret; only its hash is stored.
        burst: requests allowed in any rolling two seconds, of searches SEARCH_BURST at most; 0 for no limit.
        daily_tokens: the company's tokens a day, until a header has another number; 0 for no limit.
        run_tokens: the most that this run may spend; None for all that is left.

    Raises:
        CoolingDown: the pause after an answer of Pipedrive's abuse protection has not ended.
        StorageError: control.db can't be used.
    """

    def __init__(self, path: Path, token: str, *, burst: int, daily_tokens: int, run_tokens: int | None = None) -> None:
        self.burst, self.daily_tokens, self.run_tokens = burst, daily_tokens, run_tokens
        self.spent = 0
        self.requests = 0
        self.answer_s = 0.0  # average seconds of the latest requests, to the end of their answers
        self._answers = 0  # that count in it
        self._token = hashlib.sha256(token.encode()).hexdigest()[:16]
        self._resume_at = 0.0
        self._was_blocked = False
        self._exhausted_on = ""  # the day of a daily 429: without a limit it stops this process, as no ledger can tell
        # Spreads faster than the limit, so that the exact bound below decides: a run begins with an unused window.
        per_slice = max(1, round(burst * _FASTER * _SLICE_S / WINDOW_S))
        self._throttle = Throttler(rate_limit=per_slice, period=_SLICE_S, retry_interval=0.005) if burst else None
        # One waiting request at a time looks at the ledger; searches wait for a window that is full for longer.
        self._first_in_line = {False: asyncio.Lock(), True: asyncio.Lock()}
        try:
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, factory=_Ledger)
            self._db.execute("PRAGMA synchronous=NORMAL")  # a lost row of the ledger costs a wait, not data
            self._end_requests_of_predecessor(path)
            self._check_cool_down()
        except sqlite3.Error as error:
            raise StorageError(f"The request ledger in {path} can't be opened: {error}.") from error

    def _end_requests_of_predecessor(self, path: Path) -> None:
        """End the requests in flight of a killed process that had the number of this one, as in a container."""
        opened = str(path.absolute()), os.getpid()
        if opened not in _opened:
            _opened.add(opened)
            self._db.execute(
                "UPDATE requests SET done = ? WHERE pid = ? AND done IS NULL", (time.monotonic(), os.getpid())
            )

    def close(self) -> None:
        """Release the ledger."""
        self._db.close()

    @asynccontextmanager
    async def spend(self, cost: int, *, search: bool = False) -> AsyncIterator[Callable[[], None]]:
        """Wait until a request of `cost` tokens may be sent; inside the block it counts as in flight.

        A `search` counts in the window of searches too. The yielded function is called when the answer begins; the
        end of the block does so at the latest.

        Raises:
            BudgetSpent: the company's day, or the budget of this run, has no `cost` tokens left. Nothing was sent.
            CoolingDown: the pause after an answer of Pipedrive's abuse protection has not ended.
        """
        self._check_budget(cost)
        if self._throttle:
            async with self._throttle:
                pass
        async with self._first_in_line[search]:
            tickets = await self._slot(cost, self._windows(search=search))
        began = time.monotonic()
        self.requests += 1
        self.spent += cost

        def answered() -> None:
            while tickets:
                self._note("UPDATE requests SET done = ? WHERE id = ?", (time.monotonic(), tickets.pop()))

        try:
            yield answered
        finally:
            answered()
            self._answers = min(self._answers + 1, _AVERAGED)
            self.answer_s += (time.monotonic() - began - self.answer_s) / self._answers

    def _windows(self, *, search: bool) -> dict[str, int]:
        """The windows in which a request counts, each with its limit."""
        if not self.burst:
            return {}
        general = {self._token: self.burst}
        return general | {f"{self._token} search": min(self.burst, SEARCH_BURST)} if search else general

    async def _slot(self, cost: int, windows: dict[str, int]) -> list[int]:
        """Wait until no window is full, and return the ids of the ledger's rows."""
        while True:
            self._check_cool_down()
            wait = self._resume_at - time.monotonic()
            if wait <= 0:
                tickets, wait = self._reserve(cost, windows)
                if wait <= 0:
                    return tickets
            await asyncio.sleep(min(max(wait, 0.002), 1.0))

    def _reserve(self, cost: int, windows: dict[str, int]) -> tuple[list[int], float]:
        """Count the request in each of the windows: (ids of the rows, 0), or ([], seconds to wait)."""
        db = self._db
        if not self.burst and not self.daily_tokens:
            self._check_budget(cost)
            return [], self._paused(time.monotonic())
        db.execute("BEGIN IMMEDIATE")
        try:
            now = time.monotonic()
            self._check_budget(cost)  # again: other processes may have spent the rest meanwhile
            paused = self._paused(now)
            if paused > 0:
                db.execute("COMMIT")
                return [], paused
            # `sent > now`: from before a reboot.
            db.execute(
                "DELETE FROM requests WHERE done < ? OR sent > ? OR sent < ?",
                (now - WINDOW_S - _MARGIN_S, now, now - _LOST_S),
            )
            wait = max((self._wait_for(window, limit, now) for window, limit in windows.items()), default=0.0)
            tickets = [self._insert_row(window, now) for window in windows] if wait <= 0 else []
            if wait <= 0:
                db.execute(
                    "INSERT INTO tokens (day, spent) VALUES (?, ?) ON CONFLICT (day) DO UPDATE SET spent = spent + ?",
                    (token_ledger.today(), cost, cost),
                )
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # a full disk has ended it already
                db.execute("ROLLBACK")
            raise
        return tickets, wait

    def _note(self, statement: str, values: tuple[object, ...] = ()) -> None:
        """Write a fact from an answer to the ledger. Where that fails, the answer is returned all the same."""
        try:
            self._db.execute(statement, values)
        except StorageError as error:
            log.warning("%s", error)

    def _paused(self, now: float) -> float:
        """Seconds until the processes of this token may send again after a burst 429."""
        row = self._db.execute("SELECT until FROM pauses WHERE kind = 'burst:' || ?", (self._token,)).fetchone()
        # A longer pause than any that pdsync sets is from before a reboot, which restarts the clock.
        return float(row[0]) - now if row and 0 < row[0] - now <= _COOL_DOWN_S else 0.0

    def _insert_row(self, window: str, now: float) -> int:
        row = self._db.execute(
            "INSERT INTO requests (token, pid, sent) VALUES (?, ?, ?) RETURNING id", (window, os.getpid(), now)
        ).fetchone()
        return int(row[0])

    def _wait_for(self, window: str, limit: int, now: float) -> float:
        """Seconds after which to check `window` again; 0 where it is not full."""
        counted = self._db.execute("SELECT done, pid, id FROM requests WHERE token = ?", (window,)).fetchall()
        if len(counted) < limit:
            return 0.0
        for done, pid, ticket in counted:
            if done is None and not _is_alive(pid):  # it was killed: its request has arrived by now, or never will
                self._db.execute("UPDATE requests SET done = ? WHERE id = ?", (now, ticket))
        return seconds_until_free([done for done, _, _ in counted], limit, now)

    def _check_budget(self, cost: int) -> None:
        if self.run_tokens is not None and self.spent + cost > self.run_tokens:
            raise BudgetSpent(spent=self.spent, limit=self.run_tokens, resets_at=None)
        left, limit = self.left()
        if left is not None and cost > left:
            raise BudgetSpent(spent=max(limit - left, 0), limit=limit, resets_at=_midnight())

    def left(self) -> tuple[int | None, int]:
        """Tokens left today, and the day's limit: (None, 0) where there is no limit, and the day is not exhausted."""
        if not self.daily_tokens and self._exhausted_on == token_ledger.today():
            return 0, 0
        return token_ledger.tokens_left(self._db, self.daily_tokens)

    def observe(self, *, limit: int | None = None, remaining: int | None = None) -> None:
        """Take over the day's token limit and the rest of it from response headers."""
        if remaining is None or not self.daily_tokens:
            return
        self._note(
            "UPDATE tokens SET server_limit = coalesce(?, server_limit), server_remaining = ?, spent_then = spent"
            " WHERE day = ?",
            (limit, remaining, token_ledger.today()),
        )

    def pause(self, seconds: float) -> None:
        """Let no process of the project with this token send anything for `seconds` (0.5 to 60), after a burst 429."""
        until = time.monotonic() + min(max(seconds, 0.5), 60.0)
        self._resume_at = max(self._resume_at, until)
        self._note(
            "INSERT INTO pauses VALUES ('burst:' || ?, ?, 1)"
            " ON CONFLICT (kind) DO UPDATE SET until = max(until, excluded.until)",
            (self._token, until),
        )

    def exhausted(self) -> BudgetSpent:
        """Record that no tokens are left today, after a daily 429; return the error to raise."""
        self._exhausted_on = token_ledger.today()
        self._note(
            "INSERT INTO tokens (day, spent, server_remaining, spent_then) VALUES (?, 0, 0, 0)"
            " ON CONFLICT (day) DO UPDATE SET server_remaining = 0, spent_then = spent",
            (token_ledger.today(),),
        )
        _, limit = self.left()
        limit = limit or self.daily_tokens
        return BudgetSpent(spent=limit, limit=limit, resets_at=_midnight())

    def cool_down(self) -> CoolingDown:
        """Begin a pause after an answer of abuse protection: 10 minutes, doubled each time; the error to raise."""
        row = self._db.execute("SELECT until, times FROM pauses WHERE kind = 'blocked'").fetchone()
        if row and 0 < row[0] - time.time() <= _COOL_DOWN_S * 2**6:
            return self._blocked(row[0])  # other requests in flight met the same block: it counts once
        times = int(row[1]) if row else 0
        until = time.time() + _COOL_DOWN_S * 2 ** min(times, 6)
        self._note("INSERT OR REPLACE INTO pauses VALUES ('blocked', ?, ?)", (until, times + 1))
        self._was_blocked = False  # an answer that was under way is no proof that this pause may end
        return self._blocked(until)

    def calm(self) -> None:
        """Reset the length of pauses, after an ordinary answer: the next one takes ten minutes."""
        if self._was_blocked:
            self._was_blocked = False
            now = time.time()  # a pause that has not ended is another process's, of a later answer
            self._note(
                "DELETE FROM pauses WHERE kind = 'blocked' AND until NOT BETWEEN ? AND ?",
                (now, now + _COOL_DOWN_S * 2**6),
            )

    def _check_cool_down(self) -> None:
        row = self._db.execute("SELECT until FROM pauses WHERE kind = 'blocked'").fetchone()
        if row and 0 < row[0] - time.time() <= _COOL_DOWN_S * 2**6:
            raise self._blocked(row[0])
        self._was_blocked = row is not None

    @staticmethod
    def _blocked(until: float) -> CoolingDown:
        when = datetime.fromtimestamp(until, UTC)
        return CoolingDown(
            "Pipedrive's abuse protection answered with a web page instead of data.\n"
            "Everything fetched so far is kept; nothing was taken for deleted.\n"
            f"pdsync sends nothing before {when:%H:%M} UTC. Lower limits.burst if other tools share this token."
        )


def seconds_until_free(answered: Sequence[float | None], limit: int, now: float) -> float:
    """Seconds after which to check a window again; 0 where it is not full.

    Args:
        answered: of each request in it: when its answer began; None while there is none.
        limit: the most requests in the window.
        now: by the same clock.
    """
    if len(answered) < limit:
        return 0.0
    ends = [moment for moment in answered if moment is not None]
    return max(min(ends) + WINDOW_S + _MARGIN_S - now, 0.002) if ends else 0.01


def _midnight() -> datetime:
    return (datetime.now(UTC) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
