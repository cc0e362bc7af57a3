"""Rebuilds the warehouse from the raw archive alone, with no request.

Everything that was ever sealed is loaded again into a fresh work file, in the order in which it was read: batch by
batch, cut where they were cut then, and before a stream's batches of a run the definitions of its custom fields as
that run had them. So the tables, their histories and the schema log come out as they were; and where the catalogue has
changed since, as if it had always been what it is now: a new column gets its values for the past too.

The fresh file takes the place of the work file, and is published, when it is finished. Until then nothing that anybody
reads is touched: a replay that is killed has not happened.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.errors import ConfigError, StorageError, WrongCompany
from pdsync.extract import frames
from pdsync.load import publish, rebuilt
from pdsync.runner import project
from pdsync.runner import receipt as receipts
from pdsync.runner.loader import Loader
from pdsync.runner.rereading import Rereading
from pdsync.runner.run import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import duckdb

    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.model import Receipt, Stream


class Selection(Struct, frozen=True):
    """What is to be rebuilt: `streams` in the order of the catalogue. `everything`: the whole file."""

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
    settings: Settings, names: Sequence[str] = (), tell: Callable[[Event], None] = lambda event: None
) -> Receipt:
    """Rebuild the tables of the streams called `names`, or the whole warehouse, and publish it.

    Args:
        settings: of the project.
        names: streams; their children, histories, custom fields and schema log come with them.
        tell: is called with each event.

    Returns:
        The receipt. Its counts are what the replay loaded; requests and tokens are 0.

    Raises:
        ConfigError: there is nothing to replay, or no such stream.
        Busy: another run holds the project.
        StorageError: a sealed page is missing or damaged, or the disk is full. The warehouse is what it was.
    """
    chosen = Selection.of(names)
    with project.locked(settings) as control:
        return await locked_replay(settings, control, chosen, " ".join(["replay", *names]), tell)


async def locked_replay(
    settings: Settings,
    control: Control,
    chosen: Selection,
    command: str,
    tell: Callable[[Event], None] = lambda event: None,
    carry_over: Callable[[duckdb.DuckDBPyConnection], object] = lambda connection: None,
) -> Receipt:
    """`replay`, for those who hold the project's lock already.

    Args:
        settings: of the project.
        control: its control.db.
        chosen: what is to be rebuilt.
        command: as it stands in the receipt.
        tell: is called with each event.
        carry_over: is called with a connection to the rebuilt file before it is published.
    """
    company, name = _company(settings, control, tell)
    receipt = receipts.begun(command)
    work = project.work_path(settings)
    fresh = work.with_name(f"{settings.warehouse.stem}.replay.duckdb")
    _clear(fresh)
    try:
        source = _readable(settings, receipt if not chosen.everything else None)
        if source and not chosen.everything:
            publish.copy(source, fresh)
        loader = Loader(fresh)
        try:
            await loader.do(loader.open, company, name)
            if not chosen.everything:
                await loader.do(rebuilt.forget_streams, loader.connection, _tables(chosen))
            replayed = await Rereading(
                settings, control, loader, chosen.streams, receipt, tell, everything=chosen.everything
            ).all()
            loader.moment = None
            if chosen.everything:
                for past in reversed(control.receipts(-1)):
                    if past.finished_at:
                        await loader.do(receipts.keep, loader, past)
                await _carry_over(loader, [source, settings.warehouse] if source else [], tell)
            await loader.do(carry_over, loader.connection)
            await loader.do(loader.views)
            receipt.finished_at = datetime.now(UTC)
            receipt.exit_code = 4 if receipt.gaps else 0
            await loader.do(receipts.keep, loader, receipt)
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


def _company(settings: Settings, control: Control, tell: Callable[[Event], None]) -> tuple[int, str]:
    """The company of the archive; what control.db lost is taken from the archive's files first."""
    known = control.company()
    if not control.pages():
        walks, pages, companies = frames.stock(settings.raw)
        if not pages:
            raise ConfigError(
                f"There is nothing to replay: {settings.raw} holds no sealed page, and control.db names none.\n"
                f"Nothing was changed. Read the company: pdsync sync"
            )
        for company in companies:
            if (known or (companies[0],))[0] != company:
                raise WrongCompany(expected=(known or companies)[0], found=company, name="its raw archive")
        known = known or (companies[0], "")
        control.bind_company(*known, None)
        began: dict[str, datetime] = {}
        for page in pages:
            run = frames.sealing_run(page.file)
            began[run] = min(page.served_at, began.get(run, page.served_at))
        control.adopt(sorted(began.items(), key=lambda each: each[1]), walks, pages)
        tell(Event("note", text=f"control.db was lost: {len(pages):,} pages are known again from {settings.raw}."))
    if known is None:
        raise ConfigError("This project knows no company yet. Nothing was changed. Sync it first: pdsync sync")
    return known


def _readable(settings: Settings, partial: Receipt | None) -> Path | None:
    """The file to take over from what no page tells: the work file, else the warehouse, else none.

    Raises:
        ConfigError: only some streams are to be rebuilt (`partial`), and there is no whole file to leave the others in.
    """
    project.ready_work_file(settings)
    work = project.work_path(settings)
    if work.exists():
        return work
    if partial is not None:
        raise ConfigError("There is no whole warehouse to leave the other streams in. Rebuild all of it: pdsync replay")
    return None


async def _carry_over(loader: Loader, sources: Sequence[Path], tell: Callable[[Event], None]) -> None:
    """Take over what no page tells from the first file that can be read: a replay also mends damaged ones."""
    for source in sources:
        try:
            await loader.do(rebuilt.carry_over, loader.connection, source)
        except StorageError as error:
            tell(Event("note", text=f"{source.name} is damaged: {str(error).splitlines()[0]}"))
        else:
            return


def _clear(fresh: Path) -> None:
    for path in (fresh, fresh.with_name(f"{fresh.name}.wal")):
        path.unlink(missing_ok=True)


def _tables(chosen: Selection) -> list[str]:
    return [stream.name for stream in chosen.streams]
