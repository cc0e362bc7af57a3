"""A project on disk with an open work file, and records to load into it: what the tests of the runner share."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from pdsync.core import catalogue, config
from pdsync.core.account import Account
from pdsync.core.budget import Budget
from pdsync.core.control import Control
from pdsync.core.credentials import ApiToken
from pdsync.core.http import Http
from pdsync.extract.raw_archive import Archive
from pdsync.model import Page, Walk
from pdsync.runner import project
from pdsync.runner.loader import Loader
from pdsync.runner.report.receipt import begin_receipt
from pdsync.runner.session import OnlineSession, log_notes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox

COMPANY = 7
T0 = datetime(2026, 11, 22, 12, tzinfo=UTC)
ADMIN = Account(1, "Ada", COMPANY, access=[{"app": "sales", "admin": True}, {"app": "global", "admin": True}])


@asynccontextmanager
async def open_session(
    folder: Path, box: RunningSandbox | None = None, *, account: Account = ADMIN, run: str | None = None
) -> AsyncIterator[OnlineSession]:
    """A session on the project in `folder`; it can send requests only if there is a sandbox to answer them."""
    settings = config.load(folder, {"account.base_url": box.url} if box else {})
    control, loader = Control(settings.control), Loader(project.work_path(settings))
    control.bind_company(COMPANY, "Acme", None)
    receipt = begin_receipt("test")
    receipt.run_id = run or receipt.run_id
    if receipt.run_id not in control.run_order():  # else it is continued
        control.start_run(receipt.run_id, receipt.command, receipt.started_at)
    token = box.token if box else "0" * 40
    budget = Budget(control.path, token, burst=0, daily_tokens=0)
    try:
        await loader.do(loader.open, COMPANY, "Acme")
        async with (
            Http(settings.base_url, ApiToken(token), budget, backoff_s=0.001) as http,
            Archive(settings.raw, control, receipt.run_id, COMPANY) as archive,
        ):
            yield OnlineSession(
                settings=settings, control=control, loader=loader, archive=archive, receipt=receipt,
                on_event=log_notes, http=http, account=account, began=T0,
            )  # fmt: skip
    finally:
        await loader.close()
        budget.close()
        control.close()


def encode(records: Sequence[Mapping[str, Any]]) -> bytes:
    """The body of a list answer."""
    return msgspec.json.encode({"success": True, "data": records})


async def load(
    session: OnlineSession,
    name: str,
    *records: Mapping[str, Any],
    source: int = 0,
    since: datetime | None = None,
    at: datetime = T0,
    state: str = "applied",
    following: str | None = None,
) -> Walk:
    """Seal and load one page of a list of the stream `name`, as a walk that ends in `state`; `following`: the next."""
    stream = catalogue.stream(name)
    version, sources = stream.sources("v2")
    chosen = sources[source]
    run = session.receipt.run_id
    walk = session.control.open_walk(run, name, chosen.name, version, chosen.operation, since)
    walk = replace(walk, started_at=at)
    page = Page(walk.id, 0, encode(records), len(records), following, at)
    await session.archive.seal(walk, page)
    await session.loader.add(stream, walk, [page])
    await session.loader.commit_staged(stream, walk)
    session.control.end_walk(walk.id, state)
    return walk


def load_rows(loader: Loader, name: str, *records: Mapping[str, Any], number: int = 1, at: datetime = T0) -> None:
    """As `load`, into the work file alone; in the thread of the test."""
    stream = catalogue.stream(name)
    version, sources = stream.sources("v2")
    walk = Walk(number, f"run-{number}", name, sources[0].name, version, sources[0].operation, None, at)
    page = Page(number, 0, encode(records), len(records), None, at)
    asyncio.run(loader.add(stream, walk, [page]))


def text(moment: datetime) -> str:
    """A time as the API writes it."""
    return moment.isoformat().replace("+00:00", "Z")


def deal(number: int, changed: datetime = T0, **more: Any) -> dict[str, Any]:
    """A deal as the API shows it."""
    return {"id": number, "title": f"deal {number}", "update_time": text(changed), "is_deleted": False,
            "is_archived": False, **more}  # fmt: skip
