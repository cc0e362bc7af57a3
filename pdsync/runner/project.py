"""Opens a project for a run, which alone may write: the lock, control.db and the work file; replaces a damaged file."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import duckdb
from msgspec import Struct

from pdsync.core import config, disk
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


_RAW_FILE = re.compile(r"\d{8}T\d{6}-\w+-[0-9a-f]{8}(\.\d+)?\.zst")  # a run's, see extract.raw_archive


def work_path(settings: Settings) -> Path:
    """The work file: beside the warehouse, and written only with the project's lock; the queue reads it without."""
    return settings.warehouse.with_name(f"{settings.warehouse.stem}.work.duckdb")


@contextlib.contextmanager
def locked(settings: Settings, on_note: Callable[[str], None] = log.warning) -> Iterator[Control]:
    """control.db, with the project's lock. It knows every readable page and every mutation of the raw archive.

    What only the warehouse files have of the queue, `ready_work_file` restores.

    Args:
        settings: of the project.
        on_note: is called with messages for the user about lost or older stores.

    Raises:
        ConfigError: warehouse.path is a folder, or pdsync.toml names files that are not pdsync's. Nothing was changed.
        ProjectLocked: another run has the lock.
        StorageError: the folder is read-only or full, the raw archive is another company's, or its journal is damaged.
    """
    if settings.warehouse.is_dir():
        raise ConfigError(
            f"warehouse.path is {settings.warehouse}, which is a folder. It is a file: …/warehouse.duckdb"
        )
    _refuse_other_file(settings)
    with Lock(settings.state / "pdsync.lock"), unlocked.open_control(settings) as control:
        stores.index_archive(settings, control, on_note)
        for note in queue_recovery.recover(queue_recovery.open_outbox(settings, control)):
            on_note(note)
        yield control


def _refuse_other_file(settings: Settings) -> None:
    """Refuse files that are no warehouse, and a raw archive that the project's own file names outside of the project.

    A damaged warehouse is replaced; it is known by its name, unless the project's file names it outside of the project.

    Raises:
        ConfigError: there is such a warehouse or raw archive. Nothing was changed.
    """

    def is_named_elsewhere(key: str, path: Path) -> bool:
        is_own = path.resolve().is_relative_to(settings.project.resolve())
        return settings.origins[key] == "pdsync.toml" and not is_own

    if is_named_elsewhere("raw.path", settings.raw):
        others = [path.name for path in settings.raw.glob("*.zst") if not _RAW_FILE.fullmatch(path.name)]
        if others:
            raise ConfigError(
                f"pdsync.toml names {settings.raw} as the raw archive, whose files pdsync may remove, and"
                f" {min(others)} is none of its files. Nothing was called.\nName another folder in raw.path."
            )
    path = settings.warehouse
    if path.name in config.STATE_FILES:
        raise ConfigError(
            f"warehouse.path is {path}, which is the name of another file of pdsync. Nothing was called.\n"
            f"Name another one: …/warehouse.duckdb"
        )
    if path.suffix == ".duckdb" and not is_named_elsewhere("warehouse.path", path):
        return
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        head = file.read(12)
        if head and head[8:] != b"DUCK":
            raise ConfigError(
                f"warehouse.path names {path} as the warehouse, which each run replaces, and that file is no DuckDB"
                f" file. Nothing was called.\nName another one in warehouse.path, or move that file away."
            )


class Published(Struct, frozen=True):
    """The published warehouse as it was when a job began: its state, and what readers have created in it."""

    state: tuple[int, int, int] | None  # inode, size and time of change; None: there is none
    objects: list[str]


def ready_work_file(settings: Settings, control: Control, on_note: Callable[[str], None] = log.warning) -> Published:
    """Make sure that the work file is usable, or absent. The caller has the project's lock.

    A work file that is missing, that a crash has damaged, or that is older than the published warehouse, is replaced by
    a copy of the warehouse: `settle` has what that lacks loaded again from the sealed pages, without a request. A
    damaged file, and one with walks that the warehouse lacks, is moved aside first. Before that, what control.db has
    lost of the queue is restored from both files. Where there is no warehouse, or a damaged one, the work file is
    absent afterwards. A warehouse that can't be copied is not damaged: the next run would replace it by an empty one.

    Args:
        settings: of the project.
        control: its control.db.
        on_note: is called with messages for the user about what was replaced or restored.

    Returns:
        The published warehouse as it is now, for `publish`.

    Raises:
        FileLocked: another program has the work file open.
        StorageError: a file has another company's mutations, or can't be read, copied or replaced. Both files are as
            they were.
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
    if work.exists() and not is_damaged and not is_older:
        return before
    replacement = _copy_if_whole(published, work)
    if is_damaged:
        aside = _move_aside(work, "damaged")
        on_note(f"The work file was damaged; it is kept as {aside.name} and rebuilt from the sealed pages.")
    elif is_older:
        note = "The work file was older than the warehouse and was replaced by it."
        if has_own:
            note += f" It is kept as {_move_aside(work, 'apart').name}: it has walks that the warehouse lacks."
        on_note(note)
    _log_of(work).unlink(missing_ok=True)  # of another file: it must not be applied to the copy
    if replacement:
        replacement.replace(work)
    return Published(before.state, [])  # the copy has what readers have created, too


def _copy_if_whole(published: Path, work: Path) -> Path | None:
    """A copy of the warehouse beside the work file; None if there is no warehouse, or a damaged one.

    Raises:
        StorageError: it can't be read or copied, though it may be whole: the disk is full, or refuses. No copy is left.
    """
    fresh = work.with_name(f".{work.name}.new")
    try:
        if published.exists():
            publishing.copy(published, fresh)
            if not _is_damaged(fresh):
                return fresh
    except (OSError, StorageError) as error:
        fresh.unlink(missing_ok=True)
        reason = str(error).splitlines()[0]
        raise StorageError(
            f"The warehouse {published} can't be copied to {work}: {reason}\nNothing was changed."
            f" {disk.advice_for(error) or 'Then run the same command again.'}\nIf it can't be read any more, move it"
            f" away: pdsync replay rebuilds it from the raw archive."
        ) from error
    fresh.unlink(missing_ok=True)
    return None


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


def _is_damaged(path: Path) -> bool:
    """Whether a DuckDB file itself is the reason why it can't be read, and not the disk, permissions or memory.

    Raises:
        StorageError: it can't be read, but that says nothing about the file.
    """
    try:
        warehouse.check_whole(path)
    except FileLocked:
        raise
    except StorageError as error:
        if error.__cause__ and disk.is_machines(error.__cause__):
            raise
        return True
    return False


def _log_of(path: Path) -> Path:
    """The log of a DuckDB file, which a kill leaves beside it."""
    return path.with_name(f"{path.name}.wal")


def _move_aside(work: Path, why: str) -> Path:
    """Rename the work file and its log; the new path of the file."""
    aside = work.with_name(f"{work.name}.{why}-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    if _log_of(work).exists():
        _log_of(work).rename(_log_of(aside))
    return work.rename(aside)
