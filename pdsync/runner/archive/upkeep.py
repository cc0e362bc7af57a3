"""Maintains the raw archive: checks that every sealed page is whole, and removes pages that no replay needs.

**What a replay needs.** History is rebuilt from the pages that wrote it, so a walk stays for good if any of its batches
wrote anything: a row, a version, a deletion, a schema change, a quarantined record. Most walks of most nights wrote
nothing: they read what was loaded before. Such a walk only shows how fresh the rows are, so only the newest full walk
and the newest walk of changes of each list stay, and with them the watermark. A walk that was dropped before its first
batch was complete wrote nothing either. Pages that are not loaded yet, or younger than `retention.raw_days`, are never
removed.

So after a prune, a replay gives the same tables and histories. Only `_verified_at` of rows that did not change may be
earlier than it was. The exception is `damaged`: walks with a damaged page go, whatever they wrote and however new.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.errors import ConfigError, StorageError
from pdsync.extract import raw_archive, raw_file
from pdsync.runner import project, stores, unlocked
from pdsync.writeback.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.core.control import Control, SealedPage
    from pdsync.model import Walk


_WRITTEN = ("inserted", "updated", "deleted", "quarantined", "schema_changes")


class Fault(Struct, frozen=True):
    """A sealed page that is not what it was when it was sealed, a raw file that is damaged, or the outbox's journal."""

    name: str  # the raw file; `outbox`: the journal
    walk: int | None  # None, like seq and stream: the damaged part can't be read
    seq: int | None
    stream: str | None
    kind: str  # missing, short, damaged
    detail: str
    advice: str


class Verification(Struct, frozen=True):
    """The result of a check of the whole archive."""

    pages: int
    bytes: int
    faults: list[Fault]
    unnamed: list[str]  # files without a page in use, left by a kill
    unindexed: int  # pages that are not in control.db


def verify(settings: Settings, on_fault: Callable[[Fault], None] = lambda fault: None) -> Verification:
    """Read every sealed page and compare it with its checksum. Changes nothing; a sync may run at the same time.

    Pages that are not in control.db count too: the next command that works with the archive indexes them.

    Args:
        settings: of the project.
        on_fault: is called with each fault when it is found.

    Raises:
        ConfigError: there is neither control.db nor a raw file.
        StorageError: control.db can't be read.
    """
    if not settings.control.exists() and not any(settings.raw.glob("*.zst")):
        raise ConfigError(
            f"There is no {settings.control} and no file in {settings.raw}. Nothing was read yet: pdsync sync"
        )
    with contextlib.ExitStack() as stack:
        control = stack.enter_context(unlocked.open_control(settings)) if settings.control.exists() else None
        faults = list[Fault]()

        def report(fault: Fault) -> None:
            faults.append(fault)
            on_fault(fault)

        pages = control.pages() if control else []
        streams = {walk.id: walk.stream for walk, _ in control.walks()} if control else {}
        for page in pages:
            fault = _check_page(settings, page, streams[page.walk])
            # A prune may have moved the page meanwhile.
            if fault and control and control.sealed_pages(page.walk, page.seq)[:1] == [page]:
                report(fault)
        indexed = {(page.walk, page.seq) for page in pages}
        scans = stores.scan_unknown(settings, control)
        unindexed = [
            each for scan in scans.values() for each in scan.pages if (each.page.walk, each.page.seq) not in indexed
        ]
        for each in unindexed:
            if fault := _check_page(settings, each.page, each.walk.stream):
                report(fault)
        for name, scan in scans.items():
            if scan.fault and not scan.fault.is_torn:
                detail = str(scan.fault).splitlines()[0]
                report(Fault(name, None, None, None, "damaged", detail, f"Put {name} back from a backup."))
        for fault in _check_journal(settings):
            report(fault)
        used_files = {page.file for page in control.pages()} if control else set()
    used_files |= {each.page.file for each in unindexed} | {fault.name for fault in faults}
    unnamed = [path.name for path in sorted(settings.raw.glob("*.zst")) if path.name not in used_files]
    size = sum(page.length for page in (*pages, *(each.page for each in unindexed)))
    return Verification(len(pages) + len(unindexed), size, faults, unnamed, len(unindexed))


def _check_journal(settings: Settings) -> list[Fault]:
    """The fault of the outbox's journal, if it is damaged."""
    try:
        for _ in Journal(settings.raw).read({}):
            pass
    except StorageError as error:
        detail = str(error).splitlines()[0]
        return [Fault("outbox", None, None, None, "damaged", detail, "Put the folder outbox back from a backup.")]
    return []


def _check_page(settings: Settings, page: SealedPage, stream: str, *, with_header: bool = True) -> Fault | None:
    """The fault of a sealed page; None if it is whole. A replay does not need the header."""
    path = settings.raw / page.file
    advice = (
        f"Put {page.file} back from a backup. If there is none: pdsync sync {stream} --full reads what is there now,"
        f" then pdsync raw prune --damaged removes the page"
    )
    kind, detail = "", ""
    if not path.exists():
        kind, detail = "missing", f"{path} is not there"
    elif path.stat().st_size < page.at + page.length:
        kind, detail = "short", f"{path} ends at {path.stat().st_size:,}, and the page at {page.at + page.length:,}"
    else:
        try:
            raw_archive.read(settings.raw, page)
            detail = raw_file.find_header_fault(path, page) if with_header else ""
        except (StorageError, OSError) as error:
            detail = str(error).splitlines()[0]
        kind = "damaged" if detail else ""
    return Fault(page.file, page.walk, page.seq, stream, kind, detail, advice) if kind else None


class PrunePlan(Struct, frozen=True):
    """What a prune removes: pages of walks that no replay needs, and files without a page in use."""

    walks: list[Walk]
    pages: list[SealedPage]
    unnamed: list[str]
    bytes: int  # on disk

    @property
    def files(self) -> list[str]:
        """The files to rewrite or remove."""
        return sorted({page.file for page in self.pages})


def plan_prune(settings: Settings, control: Control, keep_days: int, *, damaged: bool = False) -> PrunePlan:
    """Select the pages and files to remove. The caller has the project's lock.

    Args:
        settings: of the project.
        control: its control.db.
        keep_days: pages of the last `keep_days` days stay.
        damaged: also remove walks with a damaged page, however new, if their list was read whole since.

    Raises:
        ConfigError: there is no warehouse that shows which pages wrote it.
        StorageError: a damaged walk can't be removed yet.
    """
    pages = control.pages()
    walks = control.walks()
    started_at = {receipt.run_id: receipt.started_at for receipt in control.receipts(-1)}
    cutoff = datetime.now(UTC) - timedelta(days=keep_days)
    written = _count_written(settings, control, walks, {page.walk for page in pages})
    newest: dict[tuple[str, str, bool], int] = {}
    for walk, state in walks:
        if state == "applied":
            newest[walk.stream, walk.source, walk.since is None] = walk.id
    unneeded = [
        walk
        for walk, state in walks
        if state == "pruned"
        or (
            started_at.get(walk.run_id, cutoff) < cutoff
            and walk.id not in newest.values()
            and (written.get(walk.id) == 0 or (state == "dropped" and walk.id not in written))
            and state in ("applied", "dropped")
        )
    ]
    if damaged:
        unneeded += _find_replaceable(settings, walks, pages, {walk.id for walk in unneeded})
    unneeded_ids = {walk.id for walk in unneeded}
    used_files = {page.file for page in pages}
    unnamed = [
        path.name
        for path in sorted(settings.raw.glob("*.zst"))
        if path.name not in used_files and path.stat().st_mtime < cutoff.timestamp() and _is_useless(path)
    ]
    unnamed += [path.name for path in sorted(settings.raw.glob(".*.zst.part"))]
    removed = [page for page in pages if page.walk in unneeded_ids]
    size = sum(page.length for page in removed) + sum((settings.raw / name).stat().st_size for name in unnamed)
    return PrunePlan([walk for walk in unneeded if walk.id in {page.walk for page in removed}], removed, unnamed, size)


def _is_useless(path: Path) -> bool:
    """Whether a file without an indexed page contains no page at all; a damaged file may. The archive is indexed."""
    scan = raw_file.scan(path)
    return scan.fault is None or scan.fault.is_torn


def _count_written(
    settings: Settings, control: Control, walks: Sequence[tuple[Walk, str]], with_pages: Collection[int]
) -> dict[int, int]:
    """Walk → how many rows, deletions, changes of the schema and bad records its batches wrote.

    Raises:
        ConfigError: there is no warehouse, or it lacks walks, so that it does not show which pages wrote it.
    """
    project.ready_work_file(settings, control)
    path = project.work_path(settings)
    if not path.exists():
        raise ConfigError(
            "There is no warehouse that shows which pages wrote it. Nothing was removed.\nBuild it first: pdsync replay"
        )
    counts = {
        key: sum(getattr(loaded.counts, name) for name in _WRITTEN) for key, loaded in stores.loaded_walks(path).items()
    }
    if any(
        state == "applied" and walk.id in with_pages and (walk.run_id, walk.id) not in counts for walk, state in walks
    ):
        raise ConfigError(
            "The warehouse lacks walks that are in the raw archive, so it does not show which pages wrote it."
            " Nothing was removed.\nLoad them first: pdsync sync"
        )
    return {walk.id: counts[walk.run_id, walk.id] for walk, _ in walks if (walk.run_id, walk.id) in counts}


def _find_replaceable(
    settings: Settings, walks: Sequence[tuple[Walk, str]], pages: Sequence[SealedPage], removed: Collection[int]
) -> list[Walk]:
    """Walks with a damaged page, whose lists a later, undamaged walk has read whole.

    Raises:
        StorageError: no later walk has read the list of one of them.
    """
    damaged = {page.walk for page in pages if page.walk not in removed and _check_page(settings, page, "")}
    found = [walk for walk, _ in walks if walk.id in damaged]
    positions = {walk.id: position for position, (walk, _) in enumerate(walks)}
    whole = [
        (positions[walk.id], (walk.stream, walk.source))
        for walk, state in walks
        if state == "applied" and walk.since is None and walk.id not in damaged and walk.is_of_a_list
    ]
    for walk in found:
        since = {read for position, read in whole if position > positions[walk.id]}
        stream = catalogue.streams().get(walk.stream)
        # What was read as single records, or found by reconcile, may be of any list of the stream.
        sources = (
            [walk.source] if walk.is_of_a_list or not stream else [s.name for s in stream.sources(walk.version)[1]]
        )
        if not {(walk.stream, source) for source in sources} <= since:
            raise StorageError(
                f"Walk {walk.id} of {walk.stream} is damaged, and no complete walk of that list was read since."
                f" Nothing was removed.\nRead it whole first: pdsync sync {walk.stream} --full"
            )
    return found


def forget_lost_walks(settings: Settings, control: Control, streams: Collection[str]) -> int:
    """Mark walks of `streams` as pruned of which a page is missing or damaged. The caller has the project's lock.

    Whole batches before such a page are given up too: a replay could not tell them from the rest. control.db forgets
    all pages of these walks, for good; the raw files are not changed.

    Returns:
        How many walks.
    """
    walks = {walk.id for walk, _ in control.walks() if walk.stream in streams}
    pages = [page for page in control.pages() if page.walk in walks]
    lost = {page.walk for page in pages if _check_page(settings, page, "", with_header=False)}
    for walk in lost:
        control.end_walk(walk, "pruned")
    control.replace_pages([], [(page.walk, page.seq) for page in pages if page.walk in lost], [])
    return len(lost)


def prune(settings: Settings, control: Control, planned: PrunePlan) -> None:
    """Carry out `planned`, file by file. The caller has the project's lock; a kill leaves every page that is needed.

    Raises:
        StorageError: a file can't be rewritten; those before it are done.
    """
    for walk in planned.walks:
        control.end_walk(walk.id, "pruned")
    removed = {(page.walk, page.seq) for page in planned.pages}
    kept = Counter(page.file for page in control.pages() if (page.walk, page.seq) not in removed)
    for name in planned.files:
        if kept[name] and (settings.raw / name).exists():
            in_file = [page for page in control.pages() if page.file == name]
            moved = raw_file.rewrite(settings.raw, name, in_file, removed).moved
        else:
            moved = []
        control.replace_pages(moved, [(page.walk, page.seq) for page in planned.pages if page.file == name], [])
        (settings.raw / name).unlink(missing_ok=True)
    for name in planned.unnamed:
        (settings.raw / name).unlink(missing_ok=True)
