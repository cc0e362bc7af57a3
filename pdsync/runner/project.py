"""Opens a project for a run, which alone may write: the lock, control.db and the work file; replaces a damaged file."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import duckdb
from msgspec import Struct

from pdsync.core.control import Control, Lock
from pdsync.core.log import log
from pdsync.errors import ConfigError, FileLocked, StorageError
from pdsync.load import publish as publishing
from pdsync.load import reader_objects, warehouse
from pdsync.runner import queue_recovery, stores, unlocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pdsync.core.config import Settings


def work_path(settings: Settings) -> Path:
    """The work file: beside the warehouse, and used only with the project's lock."""
    return settings.warehouse.with_name(f"{settings.warehouse.stem}.work.duckdb")


@contextlib.contextmanager
def locked(settings: Settings, on_note: Callable[[str], None] = log.warning) -> Iterator[Control]:
    """control.db, with the project's lock. It knows every page and every mutation of the raw archive.

    What only the warehouse files have of the queue, `ready_work_file` restores.

    Args:
        settings: of the project.
        on_note: is called with messages for the user about lost or older stores.

    Raises:
        ProjectLocked: another run has the lock.
        StorageError: the folder is read-only or full, or the raw archive is another company's.
    """
    if settings.warehouse.is_dir():
        raise ConfigError(
            f"warehouse.path is {settings.warehouse}, which is a folder. It is a file: …/warehouse.duckdb"
        )
    with Lock(settings.state / "pdsync.lock"), unlocked.open_control(settings) as control:
        stores.index_archive(settings, control, on_note)
        for note in queue_recovery.recover(queue_recovery.open_outbox(settings, control)):
            on_note(note)
        yield control


class Published(Struct, frozen=True):
    """The published warehouse as it was when a job began: its state, and what readers have created in it."""

    state: tuple[int, int, int] | None  # inode, size and time of change; None: there is none
    objects: list[str]


def ready_work_file(settings: Settings, control: Control, on_note: Callable[[str], None] = log.warning) -> Published:
    """Make sure that the work file is usable, or absent. The caller has the project's lock.

    A work file that a crash has damaged, or that is older than the published warehouse, is moved aside and replaced by
    a copy of the warehouse: what that lacks is loaded again from the sealed pages, without a request. Before that, what
    control.db has lost of the queue is restored from both files.

    Args:
        settings: of the project.
        control: its control.db.
        on_note: is called with messages for the user about what was replaced or restored.

    Returns:
        The published warehouse as it is now, for `publish`.

    Raises:
        FileLocked: another program has the work file open.
        StorageError: a file is another company's, or can't be replaced. Nothing was changed.
    """
    work, published = work_path(settings), settings.warehouse
    before = Published(_state(published), [])
    is_as_published = _changed_at(work) == _changed_at(published)
    is_damaged = work.exists() and _is_damaged(work)
    is_older, has_own = False, True
    with stores.attached(work, published) as (connection, names):
        outbox = queue_recovery.open_outbox(settings, control)
        for note in queue_recovery.recover(outbox, connection, databases=names):
            on_note(note)
        if not is_damaged and len(names) == 2:
            with contextlib.suppress(duckdb.Error):  # a warehouse that can't be read is replaced by the next one
                is_older, has_own = stores.is_older(connection)
                if not is_as_published:  # a reader has written to it, or a run to the work file: looking costs 0.1 s
                    before = Published(before.state, reader_objects.find(connection, *names))
    if is_damaged:
        aside = _move_aside(work, "damaged")
        work.with_name(work.name + ".wal").unlink(missing_ok=True)
        on_note(f"The work file was damaged; it is kept as {aside.name} and rebuilt from the sealed pages.")
    elif is_older:
        note = "The work file was older than the warehouse and was replaced by it."
        if has_own:
            note += f" It is kept as {_move_aside(work, 'apart').name}: it has walks that the warehouse lacks."
        on_note(note)
    elif work.exists():
        return before
    if published.exists():
        try:
            publishing.copy(published, work)
            warehouse.check_whole(work)
        except (OSError, StorageError):
            work.unlink(missing_ok=True)
    return Published(before.state, [])  # the copy has what readers have created, too


def publish(settings: Settings, on_note: Callable[[str], None] = log.warning, before: Published | None = None) -> None:
    """Replace the published warehouse with a copy of the work file, which is closed.

    What readers have created in it is named first, and the file that has it is kept.

    Args:
        settings: of the project.
        on_note: is called with that message.
        before: what `ready_work_file` returned; None: it is looked for now.

    Raises:
        StorageError: the disk is full or read-only; the warehouse is unchanged.
    """
    work, published = work_path(settings), settings.warehouse
    objects = before.objects if before else []
    if published.exists() and (before is None or before.state != _state(published)):
        with stores.attached(work, published) as (connection, names), contextlib.suppress(duckdb.Error):
            objects = reader_objects.find(connection, *names) if len(names) == 2 else ["another program has it open"]
    if objects:
        kept = reader_objects.keep(published)
        on_note(
            f"{published.name} has tables or views that pdsync did not create ({', '.join(objects)}). It is replaced"
            f" by a new one, and kept as {kept.name}: copy them from there to a file of your own, or make them"
            f" views/*.sql of the project (docs/own-tables.md)."
        )
    publishing.publish(work, published)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _changed_at(path: Path) -> int | None:
    state = _state(path)
    return state[2] if state else None


def _is_damaged(work: Path) -> bool:
    try:
        warehouse.check_whole(work)
    except FileLocked:
        raise
    except StorageError:
        return True
    return False


def _move_aside(work: Path, why: str) -> Path:
    return work.rename(work.with_name(f"{work.name}.{why}-{datetime.now(UTC):%Y%m%dT%H%M%S}"))
