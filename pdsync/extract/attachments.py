"""Fetches the contents of attachments into a folder, several at a time; what is there and whole is not fetched again.

A file is taken for whole when as many bytes came as its record says. Where they differ, the record is asked for anew
(it may be the warehouse that is behind), and the file once more. One that is gone, forbidden or will not come right is
a gap: it is told, and the others go on. What stops one for good (budget, token, disk) stops all.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.request import request_of
from pdsync.core.upload_download import TooLarge, content_type_of
from pdsync.errors import (
    ApiError,
    BadAnswer,
    ConfigError,
    Forbidden,
    NotFound,
    PdsyncError,
    ServerTrouble,
    StorageError,
)
from pdsync.extract.download_folder import (
    Folder,
    ManifestEntry,
    NotAFile,
    PartialFile,
    name_on_disk,
)
from pdsync.model import IncompleteStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pdsync.core.answer import Answer
    from pdsync.core.request import Request
    from pdsync.core.upload_download import ByteSink
    from pdsync.model import Operation

LINKS = {
    "deals": "deal_id",
    "persons": "person_id",
    "organizations": "org_id",
    "products": "product_id",
    "activities": "activity_id",
    "leads": "lead_id",
    "projects": "project_id",
    "mail_messages": "mail_message_id",
}
MOST_BYTES = 2 * 2**30
_KEPT = (*LINKS.values(), "add_time", "update_time")
_IN_A_ROW = 5  # files that get no usable answer, before the server counts as down


class Caller(Protocol):
    """What a download needs of the client."""

    async def call(self, operation: Operation, path: str | None = None) -> Answer:
        """Carry out `operation`."""

    async def download(self, request: Request, sink: ByteSink, *, most_bytes: int) -> Answer:
        """Send `request`, whose answer is a file."""


class FileToFetch(Struct, frozen=True):
    """A file to fetch. Without `has_record` its record is requested first, for 2 tokens."""

    id: int
    name: str = ""
    size: int | None = None  # bytes; None: its record does not say
    about: dict[str, Any] = {}  # of `_KEPT`
    has_record: bool = True


class DownloadPlan(Struct, frozen=True):
    """What is to be fetched, and what is here already."""

    todo: list[FileToFetch]
    here: dict[int, ManifestEntry]
    besides: dict[int, ManifestEntry] = {}  # in the manifest, and not requested now

    @property
    def cost_tokens(self) -> int:
        """What fetching will cost, if every file comes at the first attempt."""
        each, ask = (catalogue.operation(name, "v1").cost or 0 for name in ("downloadFile", "getFile"))
        return sum(each + (0 if file.has_record else ask) for file in self.todo)

    @property
    def least_bytes(self) -> int:
        """The sum of the sizes that are known."""
        return sum(file.size or 0 for file in self.todo)


class DownloadReport(Struct):
    """What a download did."""

    fetched: int = 0
    bytes: int = 0
    already: int = 0
    left: int = 0  # not fetched, because something stopped all
    gaps: list[IncompleteStream] = []
    stopped: PdsyncError | None = None

    @property
    def exit_code(self) -> int:
        """0 where nothing is missing, 4 where there are gaps, else that of what stopped it."""
        return self.stopped.exit_code if self.stopped else 4 if self.gaps else 0


def file_to_fetch(record: Mapping[str, Any]) -> FileToFetch:
    """A record of a file, from the API or the warehouse, as a file to fetch."""
    size = record.get("file_size")
    return FileToFetch(
        id=int(record["id"]),
        name=str(record.get("name") or record.get("file_name") or ""),
        # Links to other places have a size of 0: there it says nothing.
        size=size if isinstance(size, int) and size > 0 else None,
        about={key: _plain(record[key]) for key in _KEPT if record.get(key) is not None},
    )


def plan_download(
    files: Iterable[FileToFetch], folder: Folder, company_id: int | None, *, any_size: bool = False
) -> DownloadPlan:
    """Tell what is here already from what is to be fetched. Makes no request.

    Raises:
        ConfigError: the folder holds files of another company, whose ids mean other files.
    """
    manifest = folder.manifest()
    for held in manifest.values():
        if company_id is not None and held.company_id != company_id:
            raise ConfigError(
                f"{folder.root} holds files of company {held.company_id}, and this token belongs to {company_id}.\n"
                f"Nothing was fetched. Give another folder: --out DIR"
            )
    todo, here = [], dict[int, ManifestEntry]()
    for file in files:
        found = _found(file, folder, manifest.get(file.id), company_id or 0, any_size=any_size)
        if found:
            here[file.id] = found
        else:
            todo.append(file)
    asked = {file.id for file in todo} | here.keys()
    return DownloadPlan(todo, here, {id: held for id, held in manifest.items() if id not in asked})


def _found(
    file: FileToFetch, folder: Folder, held: ManifestEntry | None, company_id: int, *, any_size: bool
) -> ManifestEntry | None:
    """The file as it lies here, if it is whole."""
    path = held.path if held else name_on_disk(file.id, file.name)
    try:
        size = folder.size_of(path)
        if size is None or not (any_size or file.size in (None, size)):
            return None
        if held:
            told = {"name": file.name, **_links(file)} if file.has_record else {}
            return msgspec.structs.replace(held, **told) if size == held.size else None
        # Whole, but a crash came before its line in the manifest.
        return _held(file, path, size, folder.digest(path), company_id, None)
    except (NotAFile, OSError):
        return None  # said when it is fetched


async def download(
    http: Caller,
    planned: DownloadPlan,
    folder: Folder,
    company_id: int,
    *,
    concurrency: int,
    most_bytes: int = MOST_BYTES,
    any_size: bool = False,
    tell: Callable[[ManifestEntry | IncompleteStream], None] = lambda what: None,
) -> DownloadReport:
    """Fetch what `planned` says.

    Args:
        most_bytes: larger files are not fetched.
        any_size: take what comes, whatever the record says of its size.
        tell: is called with each file and each gap.

    Returns:
        What was done. What stopped it is in there, and is not raised: the files before are on disk.
    """
    work = _Download(http, planned, folder, company_id, most_bytes, any_size, tell)
    folder.remove_partial_files()
    tasks = [asyncio.create_task(work.some()) for _ in range(min(concurrency, len(planned.todo)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(StorageError):  # the lines that were added one by one say the same
            folder.rewrite(planned.besides | work.here)
    work.done.left = sum(1 for _ in work.queue) + work.unsettled
    return work.done


class _Download:
    """A download under way."""

    def __init__(
        self,
        http: Caller,
        planned: DownloadPlan,
        folder: Folder,
        company_id: int,
        most_bytes: int,
        any_size: bool,
        tell: Callable[[ManifestEntry | IncompleteStream], None],
    ) -> None:
        self.queue = iter(planned.todo)
        self.here = dict(planned.here)
        self.done = DownloadReport(already=len(planned.here))
        self.unsettled = 0
        self._http, self._folder, self._company_id, self._tell = http, folder, company_id, tell
        self._most_bytes, self._any_size = most_bytes, any_size
        self._in_a_row = 0
        self._get, self._fetch = (catalogue.operation(name, "v1") for name in ("getFile", "downloadFile"))

    async def some(self) -> None:
        """Fetch one file after the other, until there are no more or something stopped all."""
        while not self.done.stopped and (file := next(self.queue, None)) is not None:
            try:
                held = await self._one(file)
            except (NotFound, Forbidden, ApiError, BadAnswer, NotAFile) as error:
                self._in_a_row = 0
                self._gap(file, error)
            except ServerTrouble as error:
                self._in_a_row += 1
                self._gap(file, error)
                if self._in_a_row >= _IN_A_ROW:
                    self.done.stopped = error
            except PdsyncError as error:
                self.unsettled += 1
                self.done.stopped = self.done.stopped or error
            else:
                self._in_a_row = 0
                self.here[held.id] = held
                self.done.fetched += 1
                self.done.bytes += held.size
                self._tell(held)

    async def _one(self, file: FileToFetch) -> ManifestEntry:
        if not file.has_record:
            file = await self._record(file.id)
        part = PartialFile(self._folder, name_on_disk(file.id, file.name))
        try:
            file, answer = await self._whole(file, part)
            await part.finish()
        finally:
            part.discard()
        held = _held(file, part.name, part.size, part.sha256, self._company_id, answer.headers.get("content-type"))
        self._folder.note(held)
        return held

    async def _whole(self, file: FileToFetch, part: PartialFile) -> tuple[FileToFetch, Answer]:
        """Fetch until size and record agree: at most twice."""
        path = self._fetch.path.replace("{id}", str(file.id))
        for again in (False, True):
            size = None if self._any_size else file.size
            if size and size > self._most_bytes:
                raise BadAnswer(f"it has {size:,} bytes, and {self._most_bytes:,} are the most. See --max-size")
            try:
                answer = await self._http.download(
                    request_of(self._fetch, path), part, most_bytes=size or self._most_bytes
                )
            except TooLarge as error:
                if size is None:
                    raise BadAnswer(f"{error} It was not kept. See --max-size") from error
                wrong = f"more bytes come than the {size:,} that its record says"
            else:
                if size in (None, part.size):
                    return file, answer
                wrong = f"{part.size:,} bytes came, and its record says {size:,}"
            if not again:
                file = await self._record(file.id)
        raise BadAnswer(f"{wrong}. It was not kept; --any-size takes what comes.")

    async def _record(self, id: int) -> FileToFetch:
        answer = (await self._http.call(self._get, self._get.path.replace("{id}", str(id)))).json()
        record = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(record, dict) or record.get("id") != id:
            raise BadAnswer(f"getFile did not answer with the record of file {id}.")
        return file_to_fetch(record)

    def _gap(self, file: FileToFetch, error: PdsyncError) -> None:
        kind = "gone" if isinstance(error, NotFound) else "forbidden" if isinstance(error, Forbidden) else "failed"
        gap = IncompleteStream("files", kind, f"file {file.id}{f' ({file.name})' if file.name else ''}: {error}")
        self.done.gaps.append(gap)
        self._tell(gap)


def _held(
    file: FileToFetch, path: str, size: int, sha256: str, company_id: int, content_type: str | None
) -> ManifestEntry:
    now = datetime.now(UTC).replace(microsecond=0)
    note = type_mismatch(content_type, file.name)
    return ManifestEntry(file.id, file.name, path, size, sha256, company_id, now, content_type, note, **_links(file))


def type_mismatch(content_type: str | None, name: str) -> str | None:
    """What is odd about a file of this name that came as `content_type`; None for nothing."""
    came = (content_type or "").partition(";")[0].strip().lower()
    meant = content_type_of(name)
    if not came or not meant or came in ("application/octet-stream", "binary/octet-stream", "application/x-download"):
        return None
    # A login page or an error in place of the file is what this is about, not the many names of one format.
    texts = ("text/html", "application/xhtml+xml", "application/json")
    return (
        f"came as {came}, and its name says {meant}" if came in texts and meant not in (*texts, "text/plain") else None
    )


def _links(file: FileToFetch) -> dict[str, Any]:
    texts = ("lead_id", "mail_message_id", "add_time", "update_time")
    told = {}
    for key, value in file.about.items():
        number = value if isinstance(value, int) and not isinstance(value, bool) else None
        told[key] = str(value) if key in texts else number
    return {key: told.get(key) for key in _KEPT}


def _plain(value: Any) -> Any:
    """An id, also where the API shows the whole record in its place; a time as text."""
    if isinstance(value, dict):
        return value.get("value", value.get("id"))
    return value.isoformat() if isinstance(value, datetime) else value
