"""Keeps the three stores of a project consistent: the raw archive, control.db and the warehouse.

Each may be lost, emptied, truncated, or replaced by an older copy, alone or together. What one lacks is restored from
the others, or read again:

- The raw archive is the authority on what was fetched. control.db is its index: before any work, files that are not
  indexed to their ends are scanned.
- The warehouse is the authority on what is loaded. A walk that it lacks is loaded again from its pages; a walk of which
  it has more pages than control.db is never continued.
- The work file and the published warehouse are copies of each other. The one that has all batches of the other is used;
  if each has some that the other lacks, the one that was loaded last.

A walk is identified by its run and its own id; neither repeats when a store was lost.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

import duckdb
from msgspec import Struct
from msgspec.structs import replace

from pdsync.core.log import log
from pdsync.core.wording import counted
from pdsync.errors import StorageError
from pdsync.extract import raw_file
from pdsync.load import warehouse
from pdsync.load.commit import Counts
from pdsync.sql import first, literal, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.core.control import Control, SealedPage
    from pdsync.extract.raw_file import Scan, ScannedPage
    from pdsync.model import Walk


# The raw archive and its index.


def index_archive(settings: Settings, control: Control, on_note: Callable[[str], None] = log.warning) -> list[Scan]:
    """Index the pages of the raw archive that control.db lacks. The caller has the project's lock.

    A project without a company is bound to that of the pages.

    Args:
        settings: of the project.
        control: its control.db.
        on_note: is called with messages for the user.

    Returns:
        The scans of damaged files: their pages up to the damage are indexed, and the rest is left alone.

    Raises:
        StorageError: a file contains another company's answers, or can't be read. Nothing was changed.
    """
    scans = scan_unknown(settings, control)
    if not scans:
        return []
    found = [page for scan in scans.values() for page in scan.pages]
    company = _check_company(settings, control, found)
    is_empty = control.company() is None and not control.indexed_sizes()
    runs: dict[str, datetime] = {}
    for each in found:
        run = each.walk.run_id
        runs[run] = min(each.sealed_at, runs.get(run, each.sealed_at))
    walks, pages = _find_unindexed(settings, control, found)
    # A damaged file is scanned and reported again each time; a torn end was never acknowledged.
    sizes = {
        name: scan.whole if scan.fault and not scan.fault.is_torn else (settings.raw / name).stat().st_size
        for name, scan in scans.items()
    }
    control.restore_from_archive(sorted(runs.items(), key=lambda each: each[1]), walks, pages, sizes)
    if company is not None and control.company() is None:
        control.bind_company(company, "", None)
    indexed = f"{counted(len(pages), 'page')} {'was' if len(pages) == 1 else 'were'}"
    if is_empty and pages:
        on_note(f"control.db was lost: {indexed} indexed again from {settings.raw}.")
    elif walks and any(state not in ("open", "sealed") for _, state in walks):
        on_note(f"control.db is older than {settings.raw}: {indexed} indexed again from there.")
    for scan in scans.values():
        if scan.fault and not scan.fault.is_torn:
            on_note(str(scan.fault))
    return [scan for scan in scans.values() if scan.fault and not scan.fault.is_torn]


def scan_unknown(settings: Settings, control: Control | None) -> dict[str, Scan]:
    """Scan the raw files that contain more than control.db has indexed; by name.

    Raises:
        StorageError: a file can't be read.
    """
    sizes = control.indexed_sizes() if control else {}
    scans = {}
    for path in sorted(settings.raw.glob("*.zst")):
        try:
            if path.stat().st_size > sizes.get(path.name, 0):
                scans[path.name] = raw_file.scan(path)
        except OSError as error:
            raise StorageError(
                f"{path} can't be read: {error}.\nNothing was changed. Fix its permissions; pdsync doctor says how."
            ) from error
    return scans


def _check_company(settings: Settings, control: Control, found: Iterable[ScannedPage]) -> int | None:
    """The company of the project, or of the pages if it has none.

    Raises:
        StorageError: a page is of another company.
    """
    existing = control.company()
    company = existing[0] if existing else None
    for each in found:
        company = each.company if company is None else company
        if each.company != company:
            raise StorageError(
                f"{settings.raw / each.page.file} contains answers of company {each.company}, and this project is"
                f" of company {company}.\nNothing was changed. Move that file out of the folder, and run the same"
                f" command."
            )
    return company


def _find_unindexed(
    settings: Settings, control: Control, found: Iterable[ScannedPage]
) -> tuple[list[tuple[Walk, str]], list[SealedPage]]:
    """The walks and pages that control.db lacks, or has at a wrong position."""
    indexed = {walk.id: (walk, state) for walk, state in control.walks()}
    run_by_id = {id: walk.run_id for id, (walk, _) in indexed.items()}
    by_walk: dict[tuple[str, int], dict[int, ScannedPage]] = {}
    for each in sorted(found, key=lambda each: (each.is_resealed, each.sealed_at)):
        # A page that a kill kept out of the index was fetched again: the later one was used.
        by_walk.setdefault((each.walk.run_id, each.walk.id), {})[each.page.seq] = each
    walks: list[tuple[Walk, str]] = []
    pages: list[SealedPage] = []
    resealed, sizes = control.resealed(), _Sizes(settings.raw)
    for (run, number), by_seq in sorted(by_walk.items()):
        id = _assign_id(run, number, run_by_id)
        ordered = [by_seq[seq] for seq in sorted(by_seq)]
        if id in indexed:
            state = indexed[id][1]
            stored = {page.seq: page for page in control.sealed_pages(id)}
            new: list[ScannedPage] = []
            end = max(stored, default=-1) + 1
            for each in ordered if state != "pruned" else ():
                seq = each.page.seq
                if seq in stored:
                    is_wanted = (id, seq) not in resealed or each.is_resealed
                    if is_wanted and each.page.file != stored[seq].file and not sizes.covers(stored[seq]):
                        new.append(each)
                elif state == "open" and seq == end:
                    new.append(each)
                    end += 1
            if state == "open" and new:  # the kill kept the start of the walk out of the index, too
                walk = replace(indexed[id][0], started_at=new[0].walk.started_at)
                walks.append((walk, "sealed" if new[-1].page.next is None else "open"))
        else:
            new = [each for position, each in enumerate(ordered) if each.page.seq == position]
            if not new:
                continue
            walk = replace(new[0].walk, id=id)
            walks.append((walk, "applied" if new[-1].page.next is None else "dropped"))
        pages += [replace(each.page, walk=id) for each in new]
    return walks, pages


def _assign_id(run: str, number: int, run_by_id: dict[int, str]) -> int:
    """The id of a walk, or another if an older pdsync gave the same one to a walk of another run."""
    if run_by_id.setdefault(number, run) == run:
        return number
    return int.from_bytes(hashlib.sha256(f"{run} {number}".encode()).digest()[:8]) >> 1


class _Sizes:
    """The sizes of raw files, each looked up once."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._sizes = folder, dict[str, int]()

    def covers(self, page: SealedPage) -> bool:
        """Whether the page's file exists and is long enough."""
        if page.file not in self._sizes:
            path = self._folder / page.file
            self._sizes[page.file] = path.stat().st_size if path.exists() else -1
        return self._sizes[page.file] >= page.at + page.length


@contextlib.contextmanager
def attached(work: Path, published: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, tuple[str, ...]]]:
    """One connection to the work file and the published warehouse, read-only, as databases `work` and `published`.

    Yields:
        The connection, and which of the two it has: not one that is missing, damaged or locked by another program.
    """
    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        names = []
        for name, path in (("work", work), ("published", published)):
            if path.exists():
                with contextlib.suppress(duckdb.Error):
                    connection.execute(f"ATTACH {literal(str(path))} AS {quoted(name)} (READ_ONLY)")
                    names.append(name)
        yield connection, tuple(names)


def is_older(connection: duckdb.DuckDBPyConnection) -> tuple[bool, bool]:
    """Whether the published warehouse should replace the work file, because that lacks batches.

    Args:
        connection: that has both (`attached`).

    Returns:
        Whether it should, and whether the work file has batches of its own (True, unchecked, if it lacks none). If both
        have, the file that was loaded last is used, and the rest is loaded from the raw archive.

    Raises:
        duckdb.Error: a file can't be read.
    """
    in_work, in_published = _batches_table(connection, "work"), _batches_table(connection, "published")
    missing = first(
        connection.execute(
            f"SELECT count(*) FROM (SELECT run_id, walk, batch FROM {in_published}"
            f" EXCEPT SELECT run_id, walk, batch FROM {in_work})"
        )
    )[0]
    if not missing:
        return False, True
    own, is_later = first(
        connection.execute(
            f"SELECT (SELECT count(*) FROM (SELECT run_id, walk, batch FROM {in_work}"
            f" EXCEPT SELECT run_id, walk, batch FROM {in_published})),"
            f" (SELECT max(applied_at) FROM {in_published}) >= (SELECT max(applied_at) FROM {in_work})"
        )
    )
    return not own or bool(is_later), bool(own)


def _batches_table(connection: duckdb.DuckDBPyConnection, database: str) -> str:
    """The table of loaded batches in an attached file; an empty one if the file has none."""
    exists = first(
        connection.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE database_name = ? AND schema_name = 'meta'"
            " AND table_name = '_applied_batches'",
            [database],
        )
    )[0]
    if exists:
        return quoted(database, "meta", "_applied_batches")
    return "(SELECT '' AS run_id, 0 AS walk, 0 AS batch, now() AS applied_at LIMIT 0)"


class LoadedWalk(Struct, frozen=True):
    """The rows that one walk wrote into a warehouse file."""

    stream: str
    counts: Counts


def loaded_walks(path: Path) -> dict[tuple[str, int], LoadedWalk]:
    """By run and walk: the walks that the file at `path` was built from.

    Raises:
        StorageError, duckdb.Error: the file can't be read.
    """
    names = Counts.__struct_fields__
    with contextlib.closing(warehouse.connect(path, read_only=True)) as connection:
        rows = connection.execute(
            "SELECT run_id, walk, stream, sum(read), sum(inserted), sum(updated), sum(deleted), sum(unchanged),"
            " sum(quarantined), sum(schema_changes) FROM meta._applied_batches GROUP BY ALL"
        ).fetchall()
    return {
        (run, int(walk)): LoadedWalk(stream, Counts(**dict(zip(names, map(int, counts), strict=True))))
        for run, walk, stream, *counts in rows
    }


def count_rows_not_in_archive(path: Path, control: Control) -> dict[str, int]:
    """By stream: how many rows were inserted, updated or deleted by batches of which control.db lacks a page.

    Args:
        path: a warehouse file; it shows what each batch has written.
        control: the project's control.db, with the index of the archive.

    Raises:
        StorageError, duckdb.Error: the file can't be read.
    """
    # The pages that `raw prune --damaged` removed are not counted: the user gave them up.
    pruned = {(walk.run_id, walk.id) for walk, state in control.walks() if state == "pruned"}
    archived = control.last_page_by_walk()
    with contextlib.closing(warehouse.connect(path, read_only=True)) as connection:
        batches = connection.execute(
            "SELECT run_id, walk, last_page, stream, inserted + updated + deleted FROM meta._applied_batches"
        ).fetchall()
    lost: dict[str, int] = {}
    for run, walk, last_page, stream, rows in batches:
        is_archived = archived.get((run, int(walk)), -1) >= max(last_page, 0)  # -1: a walk that ended without a page
        if rows and not is_archived and (run, int(walk)) not in pruned:
            lost[stream] = lost.get(stream, 0) + int(rows)
    return lost
