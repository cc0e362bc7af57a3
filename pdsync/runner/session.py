"""Opens a project for one job: lock, client, work file, raw archive, receipt; publishes the warehouse at the end.

A job that fails leaves the published warehouse as it was. What it sealed and loaded is kept, and the next run
continues from there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core.account import fetch_account
from pdsync.core.log import log
from pdsync.core.targets import read_targets
from pdsync.errors import ConfigError
from pdsync.extract.raw_archive import Archive
from pdsync.load import sales_views
from pdsync.model import Receipt, StreamReceipt
from pdsync.runner import connection, project
from pdsync.runner.loader import Loader
from pdsync.runner.report import duplicates, mutation_log
from pdsync.runner.report.completeness import measure_completeness
from pdsync.runner.report.receipt import add_counts, begin_receipt, finish_run, save_receipt
from pdsync.runner.settle import settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from pdsync.core.account import Account
    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.core.http import Http
    from pdsync.core.server_clock import ServerClock
    from pdsync.core.targets import Target
    from pdsync.load.commit import Counts
    from pdsync.model import Operation, Page

_CONTINUED = timedelta(hours=1)  # after its start, within which an interrupted run is continued


class Event(Struct, frozen=True):
    """Progress of a job: a stream is selected, starts, has read pages and rows, has ended; or a message to the user."""

    kind: str  # selected, started, page, finished, note
    stream: str = ""
    receipt: StreamReceipt | None = None
    text: str = ""


OnEvent = Callable[[Event], None]


def log_notes(event: Event) -> None:
    """Log the messages to the user, where nothing else shows them; no progress."""
    if event.kind == "note":
        log.warning(event.text)


class Session(Struct, kw_only=True, eq=False):
    """What a job works with while it has the project's lock."""

    settings: Settings
    control: Control
    loader: Loader  # of the open work file
    archive: Archive
    receipt: Receipt
    on_event: OnEvent
    progress: dict[str, StreamReceipt] = {}  # by stream: what this process did, for live progress

    def record_page(self, stream: str, operation: Operation, page: Page) -> None:
        """Count an answer that was fetched for a stream, and report the progress."""
        entry = self.progress[stream]
        entry.requests += 1
        entry.tokens += operation.cost or 0
        entry.read += page.rows
        self.on_event(Event("page", stream, entry))

    def record_changes(self, stream: str, counts: Counts | None) -> None:
        """Count the changes of committed batches of a stream, and report the progress; None: no batch was committed."""
        if counts:
            entry = self.progress.setdefault(stream, StreamReceipt())
            add_counts(entry, counts, ("inserted", "updated", "deleted", "unchanged"))
            self.on_event(Event("page", stream, entry))


class OnlineSession(Session, kw_only=True, eq=False):
    """A session with the company's API."""

    http: Http
    account: Account
    began: datetime  # by the server's clock


@asynccontextmanager
async def open_session(
    settings: Settings,
    begin: Callable[[Control, Account], Receipt],
    on_event: OnEvent,
    *,
    run_tokens: int | None = None,
    records_pushes: bool = True,
) -> AsyncIterator[OnlineSession]:
    """Open a project and its company's API for a job; afterwards save its receipt and publish the warehouse.

    Args:
        settings: of the project.
        begin: creates the job's receipt, or finds that of the run to continue. Is called with control.db and the
            token's user, once the stores agree.
        on_event: is called with each event, in the event loop's thread.
        run_tokens: what the job may spend; None: the limits of the settings alone.
        records_pushes: write the changes of pushes into the tables as part of this run, and report duplicate creates.
            Without it, only deletions and merges are written, after the run.

    Yields:
        The session. Its receipt has to be concluded inside the block.

    Raises:
        ConfigError, AuthError, WrongCompany: nothing was written.
        ProjectLocked, CoolingDown: another run has the lock; Pipedrive asked for a pause.
        PdsyncError: the job could not begin, or its receipt could not be saved.
    """

    def on_note(text: str) -> None:
        on_event(Event("note", text=text))

    targets = read_targets(settings.project)
    with project.locked(settings, on_note) as control:
        async with connection.connect(settings, run_tokens=run_tokens) as http:
            account = await _identify(http, control)
            company = (account.company_id, account.company_name, account.company_domain)
            async with _open_work_file(settings, control, company, targets, on_note, clock=http.clock) as loader:
                began = http.clock.now()  # now that the clock is not before what the work file has
                receipt = begin(control, account)
                receipt.is_admin, receipt.user_id, receipt.user = account.is_admin, account.id, account.name
                async with Archive(settings.raw, control, receipt.run_id, account.company_id) as archive:
                    session = OnlineSession(
                        settings=settings,
                        control=control,
                        loader=loader,
                        archive=archive,
                        receipt=receipt,
                        on_event=on_event,
                        http=http,
                        account=account,
                        began=began,
                    )
                    yield session
                    if records_pushes:
                        for note in await mutation_log.apply_pushes(
                            settings, control, loader, archive, receipt, http.clock.now()
                        ):
                            on_note(note)
                await _complete_tables(session, began)
                if records_pushes:
                    for each in await loader.do(duplicates.find_duplicate_creates, loader, control, receipt.run_id):
                        on_note(str(each))
            finish_run(control, receipt)
        if not records_pushes:
            await mutation_log.catch_up(settings, control, on_note)


async def _identify(http: Http, control: Control) -> Account:
    """The owner of the token, of whose company the project is.

    Raises:
        WrongCompany: the project is another company's. Nothing was written.
    """
    http.clock.not_before(control.newest_time())
    account = await fetch_account(http)
    control.check_company(account.company_id, account.company_name)
    return account


async def _complete_tables(session: OnlineSession, now: datetime) -> None:
    """Create the views, measure the completeness of the tables, and save the receipt in the work file."""
    loader, receipt = session.loader, session.receipt
    await loader.do(loader.create_views, session.settings.timezone)
    await loader.do(measure_completeness, loader, session.control, receipt, session.settings, now)
    await loader.do(save_receipt, loader, receipt)


@asynccontextmanager
async def open_offline_session(
    settings: Settings,
    begin: Callable[[Control], Receipt],
    on_event: OnEvent = log_notes,
    *,
    company_id: int | None = None,
) -> AsyncIterator[Session]:
    """As `open_session`, for a job that makes no request.

    Args:
        settings: of the project.
        begin: creates the job's receipt.
        on_event: is called with each event, in the event loop's thread.
        company_id: of the company, for a project that has none yet.

    Raises:
        ConfigError: the project has no company yet, and `company_id` is missing. Nothing was written.
        WrongCompany: `company_id` is not the project's.
        ProjectLocked, StorageError: as `open_session`.
    """

    def on_note(text: str) -> None:
        on_event(Event("note", text=text))

    targets = read_targets(settings.project)
    with project.locked(settings, on_note) as control:
        existing = control.company()
        if existing is None and company_id is None:
            raise ConfigError(
                "This project has no company yet. Nothing was loaded. Sync it first (pdsync sync), or name the company"
                " of the files: --company ID"
            )
        number, name = existing or (company_id or 0, "")
        control.check_company(company_id or number, name)
        async with _open_work_file(settings, control, (number, name, None), targets, on_note) as loader:
            receipt = begin(control)
            async with Archive(settings.raw, control, receipt.run_id, number) as archive:
                yield Session(
                    settings=settings,
                    control=control,
                    loader=loader,
                    archive=archive,
                    receipt=receipt,
                    on_event=on_event,
                )
            await loader.do(loader.create_views, settings.timezone)
            await loader.do(save_receipt, loader, receipt)
        finish_run(control, receipt)
        await mutation_log.catch_up(settings, control, on_note)


@asynccontextmanager
async def _open_work_file(
    settings: Settings,
    control: Control,
    company: tuple[int, str, str | None],
    targets: Sequence[Target],
    on_note: Callable[[str], None],
    *,
    clock: ServerClock | None = None,
) -> AsyncIterator[Loader]:
    """The work file, undamaged and in agreement with control.db; published after the block, unless that fails.

    Args:
        settings: of the project, whose lock is taken.
        control: its control.db.
        company: id, name, domain.
        targets: of the project, for meta.targets.
        on_note: is called with a message for each repair.
        clock: the server's; None for a job that makes no request.
    """
    company_id, name, domain = company
    before = project.ready_work_file(settings, control, on_note)
    loader = Loader(project.work_path(settings))
    try:
        await loader.do(loader.open, company_id, name)
        await loader.do(sales_views.store_targets, loader.connection, targets)
        # After the warehouse's own check: a lost control.db must not be tied to the wrong company.
        control.bind_company(company_id, name, domain)
        for note in await loader.do(settle, loader, control, clock):
            on_note(note)
        yield loader
        for note in await loader.do(sales_views.unknown_ids, loader.connection):
            on_note(note)
        for note in await loader.do(loader.create_project_views, settings.project):
            on_note(note)
    finally:
        await loader.close()
    project.publish(settings, on_note, before)


def begin_run(control: Control, command: str, account: Account | None = None) -> Receipt:
    """Begin a run of `command`, or continue the last one.

    The last one is continued if it has the same command, began within the hour, and was killed, interrupted or stopped
    (exit code 3: a budget or a guard); but not with other rights: what it has read may lack what `account` sees.
    """
    for last in control.receipts(1):
        is_unfinished = last.finished_at is None or last.exit_code in (3, 130)
        if account and last.user_id and (last.user_id, last.is_admin) != (account.id, account.is_admin):
            is_unfinished = False
        if is_unfinished and last.command == command and datetime.now(UTC) - last.started_at < _CONTINUED:
            return Receipt(last.run_id, last.command, last.started_at, resumed=True)
    receipt = begin_receipt(command)
    control.start_run(receipt.run_id, receipt.command, receipt.started_at)
    return receipt
