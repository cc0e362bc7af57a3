"""Keeps the raw archive in order: looks whether every sealed page is whole, and removes what no replay needs.

**What a replay needs.** History is rebuilt from the pages that wrote it, so a walk stays for good if any of its batches
wrote anything: a row, a version, a deletion, a schema change, a quarantined record. Most walks of most nights wrote
nothing: they read again what was known. All that such a walk tells is how fresh the rows are, so only the newest of
each list stays (one that asked for everything, and one that asked for changes), and with it the watermark. A walk that
was dropped before any of its batches was full wrote nothing either. What is not in the warehouse yet is never removed,
nor is anything younger than `retention.raw_days`.

So after a prune, a replay gives the same tables and histories. Only `_verified_at` of rows that did not change may be
earlier than it was.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.errors import ConfigError, StorageError
from pdsync.extract import frames, seal
from pdsync.load import warehouse
from pdsync.runner import project

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Collection, Sequence

    from pdsync.core.config import Settings
    from pdsync.core.control import Control, SealedPage
    from pdsync.model import Walk


class Fault(Struct, frozen=True):
    """A sealed page that is not what it was when it was sealed."""

    name: str  # the raw file
    walk: int
    seq: int
    stream: str
    kind: str  # missing, short, damaged
    detail: str
    advice: str


class Verified(Struct, frozen=True):
    """What a look at the whole archive has found."""

    pages: int
    bytes: int
    faults: list[Fault]
    unnamed: list[str]  # files that no page lies in: left by a kill, and of no use


def verify(settings: Settings, tell: Callable[[Fault], None] = lambda fault: None) -> Verified:
    """Read every sealed page and compare it with its checksum. Changes nothing; a sync may go on beside it.

    Args:
        settings: of the project.
        tell: is called with each fault when it is found.

    Raises:
        StorageError: control.db can't be read.
    """
    with _known(settings) as control:
        pages, streams = control.pages(), {walk.id: walk.stream for walk, _ in control.walks()}
        faults = []
        for page in pages:
            fault = _fault(settings, page, streams[page.walk])
            if fault and control.sealed_pages(page.walk, page.seq)[:1] == [page]:  # else it was moved meanwhile
                faults.append(fault)
                tell(fault)
        named = {page.file for page in control.pages()}
    unnamed = [path.name for path in sorted(settings.raw.glob("*.zst")) if path.name not in named]
    return Verified(len(pages), sum(page.length for page in pages), faults, unnamed)


def _known(settings: Settings) -> contextlib.AbstractContextManager[Control]:
    if not settings.control.exists():
        raise ConfigError(
            f"There is no {settings.control}: nothing says what {settings.raw} should hold. Nothing was changed.\n"
            f"If it was lost, pdsync replay makes it again from the raw files; otherwise begin with: pdsync sync"
        )
    return project.opened(settings)


def _fault(settings: Settings, page: SealedPage, stream: str) -> Fault | None:
    path = settings.raw / page.file
    advice = (
        f"Put {page.file} back from a backup. If there is none: pdsync sync {stream} --full reads what is there now,"
        f" then pdsync raw prune --damaged gives the page up"
    )
    kind, detail = "", ""
    if not path.exists():
        kind, detail = "missing", f"{path} is not there"
    elif path.stat().st_size < page.at + page.length:
        kind, detail = "short", f"{path} ends at {path.stat().st_size:,}, and the page at {page.at + page.length:,}"
    else:
        try:
            seal.read(settings.raw, page)
        except StorageError as error:
            kind, detail = "damaged", str(error).splitlines()[0]
    return Fault(page.file, page.walk, page.seq, stream, kind, detail, advice) if kind else None


class Pruning(Struct, frozen=True):
    """What a prune removes: pages of walks that no replay needs, and files that no page lies in."""

    walks: list[Walk]
    pages: list[SealedPage]
    unnamed: list[str]
    bytes: int  # on disk

    @property
    def files(self) -> list[str]:
        """The files to be written anew or removed."""
        return sorted({page.file for page in self.pages})


def plan(settings: Settings, control: Control, keep_days: int, *, damaged: bool = False) -> Pruning:
    """What could be removed. The project's lock is held.

    Args:
        settings: of the project.
        control: its control.db.
        keep_days: what was read in the last so many days stays.
        damaged: also give up walks that hold a damaged page, if their list was read whole since.

    Raises:
        ConfigError: there is no warehouse that says what wrote it.
        StorageError: a damaged walk can't be given up yet.
    """
    pages = control.pages()
    walks = control.walks()
    begun = {receipt.run_id: receipt.started_at for receipt in control.receipts(-1)}
    young = datetime.now(UTC) - timedelta(days=keep_days)
    wrote = _wrote(settings)
    newest: dict[tuple[str, str, bool], int] = {}
    for walk, state in walks:
        if state == "applied":
            newest[walk.stream, walk.source, walk.since is None] = walk.id
    unneeded = [
        walk
        for walk, state in walks
        if (state == "pruned" or (state == "dropped" and walk.id not in wrote))
        or (
            state in ("applied", "dropped")
            and wrote.get(walk.id) == 0
            and walk.id not in newest.values()
            and begun.get(walk.run_id, young) < young
        )
    ]
    if damaged:
        unneeded += _damaged(settings, walks, pages, {walk.id for walk in unneeded})
    gone = {walk.id for walk in unneeded}
    named = {page.file for page in pages}
    unnamed = [path.name for path in sorted(settings.raw.glob("*.zst")) if path.name not in named]
    unnamed += [path.name for path in sorted(settings.raw.glob(".*.zst.part"))]
    removed = [page for page in pages if page.walk in gone]
    size = sum(page.length for page in removed) + sum((settings.raw / name).stat().st_size for name in unnamed)
    return Pruning([walk for walk in unneeded if walk.id in {page.walk for page in removed}], removed, unnamed, size)


def _wrote(settings: Settings) -> dict[int, int]:
    """Walk → how many rows, deletions, changes of the schema and bad records its batches wrote."""
    work = project.work_path(settings)
    path = work if work.exists() else settings.warehouse
    if not path.exists():
        raise ConfigError("There is no warehouse that says which pages wrote it. Nothing was changed: pdsync replay")
    connection = warehouse.connect(path, read_only=True)
    try:
        rows = connection.execute(
            "SELECT walk, sum(inserted + updated + deleted + quarantined + schema_changes)::BIGINT"
            " FROM meta._applied_batches GROUP BY walk"
        ).fetchall()
    finally:
        connection.close()
    return {int(walk): int(count) for walk, count in rows}


def _damaged(
    settings: Settings, walks: Sequence[tuple[Walk, str]], pages: Sequence[SealedPage], gone: Collection[int]
) -> list[Walk]:
    """Walks with a damaged page whose lists were read whole, and are whole, since.

    Raises:
        StorageError: there is one whose list was not.
    """
    bad = {page.walk for page in pages if page.walk not in gone and _fault(settings, page, "")}
    found = [walk for walk, _ in walks if walk.id in bad]
    for walk in found:
        if not any(
            state == "applied"
            and later.id > walk.id
            and later.since is None
            and (later.stream, later.source, later.version) == (walk.stream, walk.source, walk.version)
            and later.id not in bad
            for later, state in walks
        ):
            raise StorageError(
                f"Walk {walk.id} of {walk.stream} is damaged, and nothing read since holds all of that list."
                f" Nothing was removed.\nRead it whole first: pdsync sync {walk.stream} --full"
            )
    return found


def prune(settings: Settings, control: Control, planned: Pruning) -> None:
    """Carry out `planned`, file by file. The project's lock is held; a kill leaves every page that is needed.

    Raises:
        StorageError: a file can't be written anew; those before it are done.
    """
    for walk in planned.walks:
        control.end_walk(walk.id, "pruned")
    gone = {(page.walk, page.seq) for page in planned.pages}
    staying = Counter(page.file for page in control.pages() if (page.walk, page.seq) not in gone)
    for name in planned.files:
        if staying[name]:
            of_file = [page for page in control.pages() if page.file == name]
            moved = frames.rewrite(settings.raw, name, of_file, gone).moved
        else:
            moved = []
        control.replace_pages(moved, [(page.walk, page.seq) for page in planned.pages if page.file == name], [])
        (settings.raw / name).unlink(missing_ok=True)
    for name in planned.unnamed:
        (settings.raw / name).unlink(missing_ok=True)
