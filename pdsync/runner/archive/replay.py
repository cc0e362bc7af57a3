"""Rebuilds the warehouse from the raw archive alone, with no request.

Everything that was ever sealed is loaded again into a fresh work file, in the order in which it was read: batch by
batch, cut where they were cut then, and before a stream's batches of a run the definitions of its custom fields as
that run had them. So the tables, their histories and the schema log come out as they were; and where the catalogue has
changed since, as if it had always been what it is now: a new column gets its values for the past too.

When the fresh file is finished, it replaces the work file and is published. Until then no file that is read changes: a
replay that is killed has no effect.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import duckdb
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.errors import ConfigError, StorageError
from pdsync.extract import raw_archive
from pdsync.load import carry_over, publish, warehouse
from pdsync.model import IncompleteStream
from pdsync.runner import project, stores
from pdsync.runner.archive import upkeep
from pdsync.runner.archive.reload import ArchiveReload
from pdsync.runner.loader import Loader
from pdsync.runner.report import mutation_log
from pdsync.runner.report.receipt import adopt_receipts, begin_receipt, save_receipt
from pdsync.runner.session import Event, ignore_event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.model import Receipt, Stream, Walk
    from pdsync.runner.session import OnEvent


class Selection(Struct, frozen=True):
    """The streams to rebuild, in the order of the catalogue; `everything`: the whole file."""

    streams: list[Stream]
    everything: bool

    @staticmethod
    def of(names: Sequence[str]) -> Selection:
        """The streams called `names` and those that hold their fields' definitions; all, when none is named.

        Raises:
            CatalogueError: there is no such stream. Nothing was changed.
        """
        if not names:
            return Selection(list(catalogue.streams().values()), everything=True)
        wanted = {name: catalogue.stream(name) for name in names}
        wanted |= {s.fields: catalogue.stream(s.fields) for s in wanted.values() if s.fields}
        return Selection([s for name, s in catalogue.streams().items() if name in wanted], everything=False)


async def replay(
    settings: Settings,
    names: Sequence[str] = (),
    on_event: OnEvent = ignore_event,
    *,
    accept_loss: bool = False,
) -> Receipt:
    """Rebuild the tables of the streams called `names`, or the whole warehouse, and publish it.

    Args:
        settings: of the project.
        names: streams; their children, histories, custom fields and schema log come with them.
        on_event: is called with each event.
        accept_loss: rebuild also where pages are missing, damaged, or fewer than the warehouse was made from.

    Returns:
        The receipt. Its counts are what the replay loaded; requests and tokens are 0.

    Raises:
        ConfigError: there is nothing to replay, no such stream, or the archive lacks what the warehouse was made from.
        ProjectLocked: another run has the project's lock.
        StorageError: a sealed page is missing or damaged, or the disk is full. The warehouse is what it was.
    """
    chosen = Selection.of(names)
    with project.locked(settings, lambda text: on_event(Event("note", text=text))) as control:
        command = " ".join(["replay", *names, *(["--accept-loss"] if accept_loss else [])])
        receipt = await locked_replay(settings, control, chosen, command, on_event, accept_loss=accept_loss)
        await mutation_log.catch_up(settings, control)
    return receipt


async def locked_replay(
    settings: Settings,
    control: Control,
    chosen: Selection,
    command: str,
    on_event: OnEvent = ignore_event,
    on_rebuilt: Callable[[duckdb.DuckDBPyConnection], object] = lambda connection: None,
    *,
    accept_loss: bool = False,
) -> Receipt:
    """`replay`, for a caller that has the project's lock.

    Args:
        settings: of the project.
        control: its control.db.
        chosen: what is to be rebuilt.
        command: as it stands in the receipt.
        on_event: is called with each event.
        on_rebuilt: is called with a connection to the rebuilt file before it is published.
        accept_loss: as `replay` takes it.
    """
    company, name = _find_company(settings, control)
    receipt = begin_receipt(command)
    work = project.work_path(settings)
    fresh = work.with_name(f"{settings.warehouse.stem}.replay.duckdb")
    _clear(fresh)
    try:
        source = _choose_source(settings, control, chosen, accept_loss=accept_loss)
        if source and not chosen.everything:
            publish.copy(source, fresh)
        loader = Loader(fresh)
        try:
            await loader.do(loader.open, company, name)
            if not chosen.everything:
                await loader.do(carry_over.forget_streams, loader.connection, _tables(chosen))
            reading = ArchiveReload(
                settings, control, loader, chosen.streams, receipt, on_event, everything=chosen.everything
            )
            replayed = await _reload(reading)
            loader.moment = None
            if chosen.everything:
                for past in reversed(control.receipts(-1)):
                    if past.finished_at:
                        await loader.do(save_receipt, loader, past)
                await _carry_over(loader, [source, settings.warehouse] if source else [], on_event)
            await loader.do(on_rebuilt, loader.connection)
            await loader.do(loader.create_views)
            receipt.finished_at = datetime.now(UTC)
            receipt.exit_code = 4 if receipt.gaps else 0
            await loader.do(save_receipt, loader, receipt)
        finally:
            await loader.close()
        control.start_run(receipt.run_id, receipt.command, receipt.started_at)
        # A log that a kill has left beside the old work file would be taken for the new one's.
        work.with_name(f"{work.name}.wal").unlink(missing_ok=True)
        publish.put(fresh, work)
        publish.publish(work, settings.warehouse)
    finally:
        _clear(fresh)
    for walk in replayed:
        control.end_walk(walk.id, "applied")
    control.finish_run(receipt)
    return receipt


async def _reload(reading: ArchiveReload) -> list[Walk]:
    """Load the archive; the walks that are in the file to their ends now. What is not whole is a gap of the receipt.

    Raises:
        StorageError: a page is missing or damaged.
    """
    try:
        replayed = await reading.all()
    except raw_archive.LostPage as error:
        raise StorageError(
            f"{str(error).splitlines()[0]}\nNothing was changed. Put the file back from a backup (what else is missing:"
            f" pdsync raw verify), or rebuild the tables from what is left: pdsync replay --accept-loss"
        ) from error
    for gap in await reading.loader.do(_find_incomplete, reading.loader, replayed):
        reading.receipt.gaps.append(gap)
        reading.receipt.streams[gap.stream].complete = False
    return replayed


def _find_company(settings: Settings, control: Control) -> tuple[int, str]:
    """The company of the archive.

    Raises:
        ConfigError: there is no page to replay.
        Unreadable: a file of the archive is damaged.
    """
    if damaged := stores.index_archive(settings, control):
        raise damaged[0].fault or AssertionError
    company = control.company()
    if company is None or not control.pages():
        raise ConfigError(
            f"There is nothing to replay: {settings.raw} has no sealed page.\n"
            f"Nothing was changed. Read the company: pdsync sync"
        )
    return company


def _check_archive(settings: Settings, control: Control, sources: Sequence[Path], chosen: Selection) -> None:
    """Check that the archive has everything that the warehouse was made from.

    Raises:
        ConfigError: it does not: a replay would lose rows or their history. Nothing was changed.
    """
    names = {stream.name for stream in chosen.streams}
    for source in sources:
        try:
            lost = stores.count_rows_not_in_archive(source, control)
        except (StorageError, duckdb.Error):
            continue
        if lost := {stream: rows for stream, rows in lost.items() if chosen.everything or stream in names}:
            what = ", ".join(f"{stream}: {rows:,}" for stream, rows in sorted(lost.items()))
            raise ConfigError(
                f"The raw archive {settings.raw} lacks pages that the warehouse was made from ({what} rows written)."
                f"\nA replay would lose those rows; nothing was changed. Put the missing files back from a backup,"
                f" or leave the warehouse as it is: pdsync sync goes on with it."
                f"\nTo rebuild it from what is left all the same: pdsync replay --accept-loss"
            )
        return


def _choose_source(settings: Settings, control: Control, chosen: Selection, *, accept_loss: bool) -> Path | None:
    """The file to copy from what no page contains: the work file, else the warehouse, else none.

    Raises:
        ConfigError: only some streams are to be rebuilt, and there is no whole file to leave the others in; or the
            archive lacks what that file was made from.
    """
    project.ready_work_file(settings)
    source = project.work_path(settings)
    if not source.exists() and not chosen.everything:
        raise ConfigError("There is no whole warehouse to leave the other streams in. Rebuild all of it: pdsync replay")
    if accept_loss:
        upkeep.forget_lost_walks(settings, control)
    if not source.exists():
        return None
    if not accept_loss:
        _check_archive(settings, control, [source, settings.warehouse], chosen)
    with contextlib.closing(warehouse.connect(source, read_only=True)) as connection:
        adopt_receipts(connection, control)
    return source


async def _carry_over(loader: Loader, sources: Sequence[Path], on_event: OnEvent) -> None:
    """Copy what no page contains from the first file that can be read: a replay also replaces damaged ones."""
    for source in sources:
        try:
            await loader.do(carry_over.carry_over, loader.connection, source)
        except StorageError as error:
            on_event(Event("note", text=f"{source.name} is damaged: {str(error).splitlines()[0]}"))
        else:
            return


def _find_incomplete(loader: Loader, replayed: Sequence[Walk]) -> list[IncompleteStream]:
    """The streams of which the archive has changes, but no complete walk before them."""
    rows = loader.connection.execute("SELECT stream, source, version FROM meta.checkpoints").fetchall()
    lists = {(walk.stream, walk.source, walk.version) for walk in replayed if walk.is_of_a_list}
    detail = "the archive has changes only, and no complete walk: the next pdsync sync reads it whole"
    return [
        IncompleteStream(stream, "incomplete", detail) for stream in sorted({each[0] for each in lists - set(rows)})
    ]


def _clear(fresh: Path) -> None:
    for path in (fresh, fresh.with_name(f"{fresh.name}.wal")):
        path.unlink(missing_ok=True)


def _tables(chosen: Selection) -> list[str]:
    return [stream.name for stream in chosen.streams]
