"""Downloads attachments into a folder, several at a time; a complete file in the folder is not downloaded again.

A file is complete when its size is that of its record. Where they differ, its record is requested (the warehouse may be
out of date), and the file once more. A file that is gone, forbidden or of the wrong size again is a gap: it is
reported, and the others continue. An error that concerns all files (budget, token, disk) stops the download.
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
from pdsync.core.sinks import TooLarge
from pdsync.core.uploads import content_type_of
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
    from pdsync.core.sinks import ByteSink
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
_MANIFEST_KEYS = (*LINKS.values(), "add_time", "update_time")
_MAX_FAILURES = 5  # files in a row without a usable answer, before the server counts as down


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
    size: int | None = None  # bytes; None: not in its record
    about: dict[str, Any] = {}  # the values of `_MANIFEST_KEYS`
    has_record: bool = True


class DownloadPlan(Struct, frozen=True):
    """The files to fetch, and those that are in the folder already, by id."""

    todo: list[FileToFetch]
    in_folder: dict[int, ManifestEntry]
    others: dict[int, ManifestEntry] = {}  # in the manifest, and not requested now

    @property
    def cost_tokens(self) -> int:
        """The cost of fetching, if every file succeeds at the first attempt."""
        download, record = (catalogue.operation(name, "v1").cost or 0 for name in ("downloadFile", "getFile"))
        return sum(download + (0 if file.has_record else record) for file in self.todo)

    @property
    def least_bytes(self) -> int:
        """The sum of the sizes in the records."""
        return sum(file.size or 0 for file in self.todo)


class DownloadReport(Struct):
    """The result of a download."""

    fetched: int = 0
    bytes: int = 0
    already: int = 0
    left: int = 0  # not fetched, because the download stopped
    gaps: list[IncompleteStream] = []
    stopped: PdsyncError | None = None

    @property
    def exit_code(self) -> int:
        """That of the error that stopped it; else 4 where there are gaps, and 0 where there are none."""
        return self.stopped.exit_code if self.stopped else 4 if self.gaps else 0


def file_to_fetch(record: Mapping[str, Any]) -> FileToFetch:
    """A record of a file, from the API or the warehouse, as a file to fetch."""
    size = record.get("file_size")
    return FileToFetch(
        id=int(record["id"]),
        name=str(record.get("name") or record.get("file_name") or ""),
        # Links to files elsewhere have a size of 0, which is not their own.
        size=size if isinstance(size, int) and size > 0 else None,
        about={key: _plain(record[key]) for key in _MANIFEST_KEYS if record.get(key) is not None},
    )


def plan_download(
    files: Iterable[FileToFetch], folder: Folder, company_id: int | None, *, any_size: bool = False
) -> DownloadPlan:
    """Divide `files` into those to fetch and those in the folder already. Makes no request.

    Args:
        files: the ones that are wanted.
        folder: open.
        company_id: of the files; None: not known, so that the folder is not checked, and the plan is only to be shown.
        any_size: accept a file whose size is not that of its record.

    Raises:
        ConfigError: the folder contains files of another company, whose ids mean other files.
        NotAFile: the manifest's name belongs to something else.
    """
    manifest = folder.manifest()
    for entry in manifest.values():
        if company_id is not None and entry.company_id != company_id:
            raise ConfigError(
                f"{folder.root} contains files of company {entry.company_id}, and this token belongs to {company_id}.\n"
                f"Nothing was fetched. Give another folder: --out DIR"
            )
    todo, in_folder = [], dict[int, ManifestEntry]()
    for file in files:
        existing = _existing_file(file, folder, manifest.get(file.id), company_id or 0, any_size=any_size)
        if existing:
            in_folder[file.id] = existing
        else:
            todo.append(file)
    requested = {file.id for file in todo} | in_folder.keys()
    return DownloadPlan(todo, in_folder, {id: entry for id, entry in manifest.items() if id not in requested})


def _existing_file(
    file: FileToFetch, folder: Folder, entry: ManifestEntry | None, company_id: int, *, any_size: bool
) -> ManifestEntry | None:
    """The entry of the file in the folder; None where it is missing or incomplete."""
    path = entry.path if entry else name_on_disk(file.id, file.name)
    try:
        size = folder.size_of(path)
        if size is None or not (any_size or file.size in (None, size)):
            return None
        if entry:
            news = {"name": file.name, **_links(file)} if file.has_record else {}
            return msgspec.structs.replace(entry, **news) if size == entry.size else None
        # Complete, but a crash came before its line in the manifest.
        return _manifest_entry(file, path, size, folder.digest(path), company_id, None)
    except (NotAFile, OSError):
        return None  # fetching it raises the error again


async def download(
    http: Caller,
    planned: DownloadPlan,
    folder: Folder,
    company_id: int,
    *,
    concurrency: int,
    most_bytes: int = MOST_BYTES,
    any_size: bool = False,
    on_file: Callable[[ManifestEntry | IncompleteStream], None] = lambda outcome: None,
) -> DownloadReport:
    """Fetch the files of `planned`.

    Args:
        most_bytes: larger files are not fetched.
        any_size: accept a file whose size is not that of its record.
        on_file: is called with each file that was fetched, and with each gap.

    Returns:
        The report. An error that stopped the download is in it, and is not raised: the files before are on disk.
    """
    work = _Download(http, planned, folder, company_id, most_bytes, any_size, on_file)
    folder.remove_partial_files()
    tasks = [asyncio.create_task(work.fetch_files()) for _ in range(min(concurrency, len(planned.todo)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(StorageError):  # the lines that were appended have the same content
            folder.rewrite(planned.others | work.in_folder)
    work.report.left = sum(1 for _ in work.queue) + work.unfinished
    return work.report


class _Download:
    """A download in progress."""

    def __init__(
        self,
        http: Caller,
        planned: DownloadPlan,
        folder: Folder,
        company_id: int,
        most_bytes: int,
        any_size: bool,
        on_file: Callable[[ManifestEntry | IncompleteStream], None],
    ) -> None:
        self.queue = iter(planned.todo)
        self.in_folder = dict(planned.in_folder)
        self.report = DownloadReport(already=len(planned.in_folder))
        self.unfinished = 0
        self._http, self._folder, self._company_id, self._on_file = http, folder, company_id, on_file
        self._most_bytes, self._any_size = most_bytes, any_size
        self._failures = 0
        self._get, self._fetch = (catalogue.operation(name, "v1") for name in ("getFile", "downloadFile"))

    async def fetch_files(self) -> None:
        """Fetch one file after the other, until there are no more or the download stopped."""
        while not self.report.stopped and (file := next(self.queue, None)) is not None:
            try:
                entry = await self._fetch_file(file)
            except (NotFound, Forbidden, ApiError, BadAnswer, NotAFile) as error:
                self._failures = 0
                self._add_gap(file, error)
            except ServerTrouble as error:
                self._failures += 1
                self._add_gap(file, error)
                if self._failures >= _MAX_FAILURES:
                    self.report.stopped = error
            except PdsyncError as error:
                self.unfinished += 1
                self.report.stopped = self.report.stopped or error
            else:
                self._failures = 0
                self.in_folder[entry.id] = entry
                self.report.fetched += 1
                self.report.bytes += entry.size
                self._on_file(entry)

    async def _fetch_file(self, file: FileToFetch) -> ManifestEntry:
        if not file.has_record:
            file = await self._fetch_record(file.id)
        part = PartialFile(self._folder, name_on_disk(file.id, file.name))
        try:
            file, answer = await self._fetch_content(file, part)
            await part.finish()
        finally:
            part.discard()
        content_type = answer.headers.get("content-type")
        entry = _manifest_entry(file, part.name, part.size, part.sha256, self._company_id, content_type)
        self._folder.append(entry)
        return entry

    async def _fetch_content(self, file: FileToFetch, part: PartialFile) -> tuple[FileToFetch, Answer]:
        """Fetch until the size is that of the record: at most twice."""
        path = self._fetch.path.replace("{id}", str(file.id))
        for is_last in (False, True):
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
            if not is_last:
                file = await self._fetch_record(file.id)
        raise BadAnswer(f"{wrong}. It was not kept; --any-size takes what comes.")

    async def _fetch_record(self, id: int) -> FileToFetch:
        answer = (await self._http.call(self._get, self._get.path.replace("{id}", str(id)))).json()
        record = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(record, dict) or record.get("id") != id:
            raise BadAnswer(f"getFile did not answer with the record of file {id}.")
        return file_to_fetch(record)

    def _add_gap(self, file: FileToFetch, error: PdsyncError) -> None:
        kind = "gone" if isinstance(error, NotFound) else "forbidden" if isinstance(error, Forbidden) else "failed"
        gap = IncompleteStream("files", kind, f"file {file.id}{f' ({file.name})' if file.name else ''}: {error}")
        self.report.gaps.append(gap)
        self._on_file(gap)


def _manifest_entry(
    file: FileToFetch, path: str, size: int, sha256: str, company_id: int, content_type: str | None
) -> ManifestEntry:
    now = datetime.now(UTC).replace(microsecond=0)
    note = type_mismatch(content_type, file.name)
    return ManifestEntry(file.id, file.name, path, size, sha256, company_id, now, content_type, note, **_links(file))


def type_mismatch(content_type: str | None, name: str) -> str | None:
    """A note where a web page or JSON came, and the name of the file says something else; None for all others."""
    received = (content_type or "").partition(";")[0].strip().lower()
    expected = content_type_of(name)
    if (
        not received
        or not expected
        or received in ("application/octet-stream", "binary/octet-stream", "application/x-download")
    ):
        return None
    # This finds a login page or an error in place of the file; formats have several names.
    texts = ("text/html", "application/xhtml+xml", "application/json")
    return (
        f"came as {received}, and its name says {expected}"
        if received in texts and expected not in (*texts, "text/plain")
        else None
    )


def _links(file: FileToFetch) -> dict[str, Any]:
    texts = ("lead_id", "mail_message_id", "add_time", "update_time")
    values = {}
    for key, value in file.about.items():
        number = value if isinstance(value, int) and not isinstance(value, bool) else None
        values[key] = str(value) if key in texts else number
    return {key: values.get(key) for key in _MANIFEST_KEYS}


def _plain(value: Any) -> Any:
    """An id, also where the API shows the whole record instead; a time as text."""
    if isinstance(value, dict):
        return value.get("value", value.get("id"))
    return value.isoformat() if isinstance(value, datetime) else value
