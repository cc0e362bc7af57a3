"""The invariants after every step, checked on pdsync's files and on the state of the source.

Each function returns a list of violations. None of them reads with pdsync's code.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import duckdb

from tests.model.company import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from tests.model.company import Place, Work

ENDS = ("applied", "rejected", "conflict", "needs_review", "cancelled")
OPEN = ("queued", "approved", "armed", "unknown")
Fate = tuple[str, str | None]


class Published:
    """The content of the published warehouse, read once: the file is replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self.rows: dict[Place, tuple[datetime, datetime | None]] = {}  # update_time, and time of its tombstone
        self.versions: Counter[Place] = Counter()  # number of versions of each record
        self.watermarks: dict[tuple[str, str], datetime] = {}  # stream and list
        self.merges: dict[Place, tuple[int | None, str]] = {}  # loser → winner and confidence
        self.wrong: list[str] = []
        if not path.exists():
            return
        with duckdb.connect(str(path), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            self._read(connection)

    def _read(self, connection: duckdb.DuckDBPyConnection) -> None:
        rows = connection.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE schema_name IN ('main', 'versions')"
        ).fetchall()
        for kind in [kind for kind in KINDS if ("main", kind) in rows]:
            for id, changed, deleted in connection.execute(
                f"SELECT id, update_time, _deleted_at FROM main.{kind}"
            ).fetchall():
                if (kind, id) in self.rows:
                    self.wrong.append(f"{kind} {id} is in its table twice")
                self.rows[kind, id] = (changed, deleted)
            self.wrong += [
                f"S12: versions of {kind} {row}"
                for row in connection.execute(
                    "SELECT * FROM (SELECT id, _valid_from, _valid_to, lead(_valid_from)"
                    " OVER (PARTITION BY id ORDER BY _valid_from, _valid_to NULLS LAST) AS next"
                    f" FROM history.{kind}) WHERE _valid_to IS DISTINCT FROM next OR _valid_to <= _valid_from"
                ).fetchall()
            ]
            for id, count in connection.execute(f"SELECT id, count(*) FROM history.{kind} GROUP BY 1").fetchall():
                self.versions[kind, id] = count
        for stream, source, watermark in connection.execute(
            "SELECT stream, source, watermark FROM meta.checkpoints"
        ).fetchall():
            self.watermarks[stream, source] = watermark
        for entity, loser, winner, confidence in connection.execute(
            "SELECT entity, loser_id, winner_id, confidence FROM meta.merges"
        ).fetchall():
            if (entity, loser) in self.merges:
                self.wrong.append(f"S13: {entity} {loser} was merged twice")
            self.merges[entity, loser] = (winner, confidence)

    @property
    def tombstones(self) -> set[Place]:
        return {place for place, (_, deleted) in self.rows.items() if deleted is not None}


def differing_records(before: Published, after: Published) -> list[str]:
    """Records that differ between two warehouses: existence, times, marks, number of versions (S14)."""
    return [
        f"S14: {place} was {before.rows.get(place)}, {before.versions[place]} versions, and is {after.rows.get(place)},"
        f" {after.versions[place]} versions"
        for place in before.rows.keys() | after.rows.keys()
        if (before.rows.get(place), before.versions[place]) != (after.rows.get(place), after.versions[place])
    ]


def unfinished(control: Path) -> int:
    """Walks that are not, or not completely, in the warehouse."""
    with closing(sqlite3.connect(control, timeout=30)) as connection:
        row = connection.execute("SELECT count(*) FROM walks WHERE state IN ('open', 'sealed')").fetchone()
    return int(row[0])


def circles(published: Published) -> list[str]:
    """Chains of merges that lead back to their start (S13)."""
    problems = []
    for kind, loser in published.merges:
        visited, now = {loser}, published.merges[kind, loser][0]
        while now is not None:
            if now in visited:
                problems.append(f"S13: {kind} {loser} was merged into itself, over {sorted(visited)}")
                break
            visited.add(now)
            now = published.merges.get((kind, now), (None, ""))[0]
    return problems


def false_merges(published: Published, work: Work) -> list[str]:
    """Merges that are recorded as exact but did not happen."""
    problems = []
    for (kind, loser), (winner, confidence) in published.merges.items():
        removed = work.company[kind].removed.get(loser)
        if confidence == "exact" and (removed is None or removed.merged_into != winner):
            problems.append(f"S13: {kind} {loser} was not merged into {winner}")
    return problems


def outdated_rows(published: Published, work: Work) -> list[str]:
    """Records older than their list's watermark that are missing or have older values in the table (S3, S4)."""
    problems = []
    for (kind, id), (state, changed) in work.updated().items():
        source = ("archived" if state == "archived" else "live") if kind == "deals" else "all"
        watermark = published.watermarks.get((kind, source))
        if watermark is None or changed >= watermark or (kind, id) in work.silent:
            continue
        if state == "deleted" and kind != "deals":
            continue  # no list shows it
        stored = published.rows.get((kind, id))
        watermarks = f"{state}, of {changed:%d. %H:%M:%S}, and complete until {watermark:%d. %H:%M:%S}"
        if stored is None:
            problems.append(f"S4: {kind} {id} is missing: {watermarks}")
        elif stored[0] < changed:
            problems.append(f"S3: {kind} {id} is stored as of {stored[0]:%d. %H:%M:%S}: {watermarks}")
        elif (stored[1] is not None) != (state == "deleted"):
            problems.append(f"S3: {kind} {id} is {'marked' if stored[1] else 'not marked'} as deleted: {watermarks}")
    return problems


class Outbox:
    """The mutations in control.db."""

    def __init__(self, path: Path) -> None:
        self.fates: dict[str, Fate] = {}
        if path.exists():
            with closing(sqlite3.connect(path, timeout=30)) as connection:
                rows = connection.execute("SELECT id, state, reason FROM mutations ORDER BY seq").fetchall()
            self.fates = {id: (state, reason) for id, state, reason in rows}

    def ended(self) -> dict[str, Fate]:
        return {id: fate for id, fate in self.fates.items() if fate[0] in ENDS}

    def lost(self, queued: set[str], before: Mapping[str, Fate]) -> list[str]:
        """Mutations that are missing, were never queued, have no valid state, or ended twice (W1)."""
        problems = [f"W1: {id} was queued and is gone" for id in queued - self.fates.keys()]
        problems += [f"W1: {id} was never queued" for id in self.fates.keys() - queued]
        problems += [f"W1: {id} is {fate}" for id, fate in self.fates.items() if fate[0] not in (*ENDS, *OPEN)]
        problems += [
            f"W1: {id} had ended as {fate}, and is {self.fates.get(id)}"
            for id, fate in before.items()
            if self.fates.get(id) != fate
        ]
        return problems

    def effects(self, work: Work) -> list[str]:
        """Mutations whose effect at the source does not match their state (W2)."""
        effects = len({entry.request for entry in work.company.journal if entry.request})
        states = [state for state, reason in self.fates.values() if reason != "already_so"]
        sure, doubtful = states.count("applied"), sum(state in ("needs_review", "unknown") for state in states)
        if sure <= effects <= sure + doubtful:
            return []
        return [f"W2: {effects} effects for {sure} applied and {doubtful} doubtful: {self.fates}"]
