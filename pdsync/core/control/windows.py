"""Stores the windows of a backfill in control.db: the part of a list that each walk reads.

A backfill's windows always cover all of its time, without overlap: cutting one in two is a single transaction. A
window is finished when its walk is applied, also if its pages are pruned later; after an interruption, the unfinished
ones continue.

Times are whole seconds, UTC; a window is half-open, from `since` up to but without `until`.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from pdsync.core.control.walks import insert_walk
from pdsync.model import BACKFILL, Version

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pdsync.core.control import Control
    from pdsync.model import Walk

_IS_UNFINISHED = "coalesce(k.state, 'open') NOT IN ('applied', 'pruned')"  # a pruned walk was applied: see `end_walk`


class Window(Struct, frozen=True):
    """A part of a list: the records that changed from `since` on and before `until`."""

    id: int
    job: str  # the run that cut it first
    stream: str
    source: str
    version: Version
    operation: str
    since: datetime
    until: datetime
    asked_since: datetime
    asked_until: datetime
    walk: int | None = None


class Windows:
    """The windows in a project's control.db."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def job(self, command: str, lists: Iterable[tuple[str, str, Version, str]]) -> str | None:
        """The newest run of `command` that has windows left to read or to load, if it is of the same lists.

        With other settings (the version of the API) a command reads other lists, of which that run knows nothing.

        Args:
            command: the command line.
            lists: stream, source, version and operation of each.
        """
        wanted = set(lists)
        with self._control.transaction() as db:
            jobs = db.execute(
                "SELECT r.id FROM runs r WHERE r.command = ? AND EXISTS (SELECT 1 FROM windows w LEFT JOIN walks k"
                f" ON k.id = w.walk WHERE w.job = r.id AND {_IS_UNFINISHED})"
                " ORDER BY r.started_at DESC, r.id DESC",
                (command,),
            ).fetchall()
            for (job,) in jobs:
                of = db.execute("SELECT DISTINCT stream, source, version, operation FROM windows WHERE job = ?", (job,))
                if set(of.fetchall()) == wanted:
                    return str(job)
        return None

    def plan(
        self,
        job: str,
        lists: Iterable[tuple[str, str, Version, str]],
        since: datetime,
        until: datetime,
    ) -> None:
        """Insert a window from `since` until `until` for each of `lists`, in one transaction.

        Args:
            job: the run that reads them.
            lists: stream, source, version and operation of each.
            since: the windows' beginning.
            until: their end.
        """
        times = tuple(moment.isoformat() for moment in (since, until) * 2)
        with self._control.transaction() as db:
            db.executemany(
                "INSERT INTO windows (job, stream, source, version, operation, since, until, asked_since, asked_until)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(job, *each, *times) for each in lists],
            )

    def until(self, job: str) -> datetime | None:
        """The end of the newest window of a job; None where it has none."""
        with self._control.transaction() as db:
            newest = db.execute("SELECT max(until) FROM windows WHERE job = ?", (job,)).fetchone()[0]
        return datetime.fromisoformat(newest) if newest else None

    def unfinished(self, job: str) -> list[tuple[Window, str]]:
        """The windows of `job` that are not applied to the warehouse, newest first, each with the state of its walk."""
        with self._control.transaction() as db:
            rows = db.execute(
                "SELECT w.*, coalesce(k.state, 'open') FROM windows w LEFT JOIN walks k ON k.id = w.walk"
                f" WHERE w.job = ? AND {_IS_UNFINISHED} ORDER BY w.until DESC, w.id",
                (job,),
            ).fetchall()
        fields = Window.__struct_fields__
        return [(msgspec.convert(dict(zip(fields, row, strict=False)), Window), str(row[-1])) for row in rows]

    def begin(self, window: Window, run_id: str) -> Walk:
        """Begin the walk of `window`, or restart it where the cursor of an earlier one is invalid."""
        with self._control.transaction() as db:
            db.execute("UPDATE walks SET state = 'dropped' WHERE id = ?", (window.walk,))
            walk_id = insert_walk(
                db,
                run_id,
                window.stream,
                BACKFILL + window.source,
                window.version,
                window.operation,
                window.since,
            )
            db.execute(
                "UPDATE windows SET walk = ?, asked_since = since, asked_until = until WHERE id = ?",
                (walk_id, window.id),
            )
        return self._control.walk(walk_id)

    def cut(self, window: Window, at: datetime) -> tuple[Window, Window]:
        """Cut `window` in two at a moment inside it: the newer part, whose walk continues, and the older one."""
        with self._control.transaction() as db:
            db.execute("UPDATE windows SET since = ? WHERE id = ?", (at.isoformat(), window.id))
            row = db.execute(
                "INSERT INTO windows (job, stream, source, version, operation, since, until, asked_since, asked_until)"
                " SELECT job, stream, source, version, operation, ?, ?, ?, ? FROM windows WHERE id = ? RETURNING id",
                (*(moment.isoformat() for moment in (window.since, at) * 2), window.id),
            ).fetchone()
        older = msgspec.structs.replace(
            window, id=int(row[0]), until=at, asked_since=window.since, asked_until=at, walk=None
        )
        return msgspec.structs.replace(window, since=at), older

    def pages_of_day(self, day: str) -> dict[tuple[Version, str], int]:
        """Version and operation → the number of pages that backfills sealed on a day (`2026-01-31`, UTC)."""
        with self._control.transaction() as db:
            rows = db.execute(
                "SELECT w.version, w.operation, count(*) FROM pages p JOIN walks w ON w.id = p.walk"
                " WHERE w.source LIKE ? AND p.served_at LIKE ? GROUP BY 1, 2",
                (f"{BACKFILL}%", f"{day}%"),
            ).fetchall()
        return {(version, operation): int(count) for version, operation, count in rows}
