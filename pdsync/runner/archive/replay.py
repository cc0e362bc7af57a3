"""Rebuilds the warehouse from the raw archive alone, with no request.

All sealed pages are loaded again into a new work file, in the order in which they were read and in the same batches;
before the batches of a run come the definitions of custom fields as that run had them. So the tables, their histories
and the schema log are the same as before. Where the catalogue has changed since, it applies to the past too: a new
column gets its values for all versions.

The new file is built beside the others; when it is finished, it replaces the work file and is published. A replay that
is killed before that leaves both files as they were; but walks that `accept_loss` gives up stay given up.
"""

from __future__ import annotations

import contextlib
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import duckdb
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.targets import read_targets
from pdsync.errors import ConfigError, StorageError
from pdsync.extract import raw_archive
from pdsync.load import carry_over, publish, sales_views, warehouse
from pdsync.model import IncompleteStream
from pdsync.runner import project, stores, unlocked
from pdsync.runner.archive import upkeep
from pdsync.runner.archive.reload import ArchiveReload
from pdsync.runner.loader import Loader
from pdsync.runner.report import mutation_log
from pdsync.runner.report.receipt import adopt_receipts, begin_receipt, finish_run, save_receipt
from pdsync.runner.session import Event, log_notes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.model import Receipt, Stream, Version, Walk
    from pdsync.runner.session import OnEvent


class Selection(Struct, frozen=True):
    """The streams to rebuild, in the order of the catalogue; `everything`: the whole file."""

    streams: list[Stream]
    everything: bool

    @staticmethod
    def by_names(names: Sequence[str]) -> Selection:
        """The streams called `names` and those with the definitions of their fields; without names, all.

        Raises:
            CatalogueError: there is no such stream. Nothing was changed.
        """
        if not names:
            return Selection(list(catalogue.streams().values()), everything=True)
        selected = {name: catalogue.stream(name) for name in names}
        selected |= {s.fields: catalogue.stream(s.fields) for s in selected.values() if s.fields}
        return Selection([s for name, s in catalogue.streams().items() if name in selected], everything=False)


async def replay(
    settings: Settings,
    names: Sequence[str] = (),
    on_event: OnEvent = log_notes,
    *,
    accept_loss: bool = False,
) -> Receipt:
    """Rebuild the tables of the streams called `names`, or the whole warehouse, and publish it.

    Args:
        settings: of the project.
        names: streams; their children, histories, custom fields and schema log come with them.
        on_event: is called with each event.
        accept_loss: rebuild even if pages are missing or damaged that the warehouse was built from. Their walks are
            given up first, and for good: also if the replay fails then, or the files come back.

    Returns:
        The receipt. Its counts are what the replay loaded; requests and tokens are 0.

    Raises:
        ConfigError: there is nothing to replay, no such stream, or the archive lacks pages of the warehouse.
        ProjectLocked: another run has the project's lock.
        StorageError: a sealed page is missing or damaged, or the disk is full. The warehouse is unchanged.
    """

    def on_note(text: str) -> None:
        on_event(Event("note", text=text))

    selection = Selection.by_names(names)
    with project.locked(settings, on_note) as control:
        command = " ".join(["replay", *names, *(["--accept-loss"] if accept_loss else [])])
        receipt = await locked_replay(settings, control, selection, command, on_event, accept_loss=accept_loss)
        await mutation_log.catch_up(settings, control, on_note)
    return receipt


def count_sealed_rows(settings: Settings, streams: Sequence[str] = ()) -> dict[str, int]:
    """Stream → the rows that a replay loads, of `streams` or of all: those of the sealed pages in control.db."""
    if not settings.control.exists():
        return {}
    with unlocked.open_control(settings) as control:
        rows = control.rows(
            "SELECT w.stream, sum(p.rows) FROM walks w JOIN pages p ON p.walk = w.id"
            " WHERE w.state IN ('open', 'sealed', 'applied') GROUP BY 1 HAVING sum(p.rows) > 0"
        )
    counts = {str(stream): int(str(count)) for stream, count in rows}
    return {name: count for name, count in counts.items() if not streams or name in streams}


async def locked_replay(
    settings: Settings,
    control: Control,
    selection: Selection,
    command: str,
    on_event: OnEvent = log_notes,
    *,
    accept_loss: bool = False,
) -> Receipt:
    """`replay`, for a caller that has the project's lock.

    Args:
        settings: of the project.
        control: its control.db.
        selection: the streams to rebuild.
        command: the command line, for the receipt.
        on_event: is called with each event.
        accept_loss: as in `replay`.
    """

    def on_note(text: str) -> None:
        on_event(Event("note", text=text))

    targets = read_targets(settings.project)
    company_id, company_name = _find_company(settings, control)
    receipt = begin_receipt(command)
    work = project.work_path(settings)
    new = work.with_name(f"{settings.warehouse.stem}.replay.duckdb")
    _remove_file(new)
    try:
        source = _choose_source(settings, control, selection, on_note, accept_loss=accept_loss)
        if source and not selection.everything:
            publish.copy(source, new)
        loader = Loader(new)
        try:
            await loader.do(loader.open, company_id, company_name)
            await loader.do(sales_views.store_targets, loader.connection, targets)
            walks = await _build(settings, control, loader, selection, source, receipt, on_event)
            for note in await loader.do(sales_views.unknown_ids, loader.connection):
                on_note(note)
            for note in await loader.do(loader.create_project_views, settings.project):
                on_note(note)
        finally:
            await loader.close()
        control.start_run(receipt.run_id, receipt.command, receipt.started_at)
        # The log that a killed run left beside the old work file must not be applied to the new one.
        work.with_name(f"{work.name}.wal").unlink(missing_ok=True)
        publish.put(new, work)
        project.publish(settings, on_note)
    finally:
        _remove_file(new)
    for walk in walks:
        control.end_walk(walk.id, "applied")
    finish_run(control, receipt)
    return receipt


async def _build(
    settings: Settings,
    control: Control,
    loader: Loader,
    selection: Selection,
    source: Path | None,
    receipt: Receipt,
    on_event: OnEvent,
) -> list[Walk]:
    """Load the archive into the new file, copy what no page contains, and save the receipt there.

    Args:
        settings: of the project.
        control: its control.db.
        loader: of the new file; if only some streams are rebuilt, it is a copy of `source`.
        selection: the streams to rebuild.
        source: the file to copy from; None: there is none.
        receipt: of the replay; is concluded.
        on_event: is called with each event.

    Returns:
        The walks that are loaded to their ends now.
    """
    everything = selection.everything
    if not everything:
        await loader.do(carry_over.forget_streams, loader.connection, [each.name for each in selection.streams])
    reload = ArchiveReload(settings, control, loader, selection.streams, receipt, on_event, everything=everything)
    walks = await _load_archive(reload)
    loader.loaded_at = None
    if everything:
        for past in reversed(control.receipts(-1)):
            if past.finished_at:
                await loader.do(save_receipt, loader, past)
        await _carry_over(loader, [source, settings.warehouse] if source else [], on_event)
    await loader.do(loader.create_views, settings.timezone)
    receipt.finished_at = datetime.now(UTC)
    receipt.exit_code = 4 if receipt.gaps else 0
    await loader.do(save_receipt, loader, receipt)
    return walks


async def _load_archive(reload: ArchiveReload) -> list[Walk]:
    """Load the archive; streams that it does not have whole, or not readable, become gaps of the receipt.

    Returns:
        The walks that are loaded to their ends now.

    Raises:
        StorageError: a page is missing or damaged.
    """
    try:
        walks = await reload.load_all()
    except raw_archive.LostPage as error:
        raise StorageError(
            f"{str(error).splitlines()[0]}\nNothing was changed. Put the file back from a backup (what else is missing:"
            f" pdsync raw verify), or rebuild the tables from what is left: pdsync replay --accept-loss"
        ) from error
    incomplete = await reload.loader.do(_find_incomplete, reload.loader, reload.lists())
    for gap in (*incomplete, *await reload.loader.do(_find_unreadable, reload.loader, reload)):
        reload.receipt.gaps.append(gap)
        reload.receipt.streams[gap.stream].complete = False
    return walks


def _find_company(settings: Settings, control: Control) -> tuple[int, str]:
    """Index the pages that control.db lacks, then the id and name of the archive's company.

    The name is empty where only the archive knows the company.

    Raises:
        ConfigError: there is no page to replay.
        Unreadable: a file is damaged, of those not indexed to their ends; not where it only ends early.
        StorageError: a file has another company's answers, or can't be read.
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


def check_archive(settings: Settings, control: Control, sources: Sequence[Path], selection: Selection) -> None:
    """Check that the archive has all pages that the warehouse was built from.

    Raises:
        ConfigError: it does not: a replay would lose rows or their history. Nothing was changed.
    """
    names = {stream.name for stream in selection.streams}
    for source in sources:
        try:
            lost = stores.count_rows_not_in_archive(source, control)
        except (StorageError, duckdb.Error):
            continue
        if lost := {stream: rows for stream, rows in lost.items() if selection.everything or stream in names}:
            counts = ", ".join(f"{stream}: {rows:,}" for stream, rows in sorted(lost.items()))
            raise ConfigError(
                f"The raw archive {settings.raw} lacks pages that the warehouse was built from ({counts} rows written)."
                f"\nA replay would lose those rows; nothing was changed. Put the missing files back from a backup,"
                f" or keep the warehouse as it is: pdsync sync continues with it."
                f"\nTo rebuild it from what is left anyway: pdsync replay --accept-loss"
            )
        return


def _choose_source(
    settings: Settings,
    control: Control,
    selection: Selection,
    on_note: Callable[[str], None],
    *,
    accept_loss: bool,
) -> Path | None:
    """The file from which data that no page contains is copied: the work file, else the warehouse, else none.

    Raises:
        ConfigError: only some streams are to be rebuilt, and there is no undamaged file with the others; or the archive
            lacks pages that the file was built from.
    """
    project.ready_work_file(settings, control, on_note)
    source = project.work_path(settings)
    if not source.exists() and not selection.everything:
        raise ConfigError("There is no undamaged warehouse with the other streams. Rebuild all of them: pdsync replay")
    if accept_loss:
        all_streams = {walk.stream for walk, _ in control.walks()}  # also those that the catalogue has no more
        chosen = all_streams if selection.everything else {stream.name for stream in selection.streams}
        upkeep.forget_lost_walks(settings, control, chosen)
    if not source.exists():
        return None
    if not accept_loss:
        check_archive(settings, control, [source, settings.warehouse], selection)
    with contextlib.closing(warehouse.connect(source, read_only=True)) as connection:
        adopt_receipts(connection, control)
    return source


async def _carry_over(loader: Loader, sources: Sequence[Path], on_event: OnEvent) -> None:
    """Copy data that no page contains from the first file that can be read: a replay also replaces damaged files."""
    for source in sources:
        try:
            await loader.do(carry_over.carry_over, loader.connection, source)
        except StorageError as error:
            on_event(Event("note", text=f"{source.name} is damaged: {str(error).splitlines()[0]}"))
        else:
            return


def _find_incomplete(loader: Loader, lists: Iterable[tuple[str, Version, str]]) -> list[IncompleteStream]:
    """The streams of `lists` that are not complete in any version of the API: the archive has a part, or changes only.

    Each version lists all records of a stream.
    """
    rows = loader.connection.execute("SELECT stream, version, source FROM meta.checkpoints").fetchall()
    is_complete: dict[str, dict[str, bool]] = {}
    for stream, version, source in lists:
        versions = is_complete.setdefault(stream, {})
        versions[version] = versions.get(version, True) and (stream, version, source) in rows
    detail = "the archive has changes or a part of it only, and no complete walk: the next pdsync sync reads the rest"
    return [
        IncompleteStream(stream, "incomplete", detail)
        for stream, versions in sorted(is_complete.items())
        if not any(versions.values())
    ]


def _find_unreadable(loader: Loader, reload: ArchiveReload) -> list[IncompleteStream]:
    """The loaded streams with quarantined records, unless the list of these was read whole again since."""
    rows = loader.connection.execute("SELECT walk, count(*) FROM meta.quarantine GROUP BY walk").fetchall()
    counts, unreadable = dict(rows), dict[str, int]()
    for walk in reload.walks_since_whole():
        if walk.id in counts and walk.stream in reload.receipt.streams:
            unreadable[walk.stream] = unreadable.get(walk.stream, 0) + counts[walk.id]
    return [
        IncompleteStream(stream, "quarantined", f"{count} records can't be read: meta.quarantine")
        for stream, count in sorted(unreadable.items())
    ]


def _remove_file(file: Path) -> None:
    """Remove a DuckDB file, its log, and what a killed run spilled beside it, if they exist."""
    for path in (file, file.with_name(f"{file.name}.wal")):
        path.unlink(missing_ok=True)
    spilled = file.with_name(f"{file.name}.tmp")
    if spilled.is_dir():
        shutil.rmtree(spilled)
