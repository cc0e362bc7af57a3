"""Carries out an export: tables as Parquet into a folder or an object store, and a catalogue of what is whole.

Data files come first, `catalog.json` last: whoever reads by the catalogue sees one whole export or the one before it,
even if this one is killed. What a killed export has left is not named there, and the next one removes it or writes
over it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import duckdb
import msgspec
from msgspec import Struct

from pdsync.core import catalogue, disk
from pdsync.errors import ConfigError, StorageError
from pdsync.load import export, warehouse
from pdsync.load.column_masks import Mask, resolve
from pdsync.load.export import File  # noqa: TC001 - msgspec reads the annotations at run time
from pdsync.load.export_target import (
    Store,
    note,
    noted,
    open_store,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.load.column_masks import How

CATALOG = "catalog.json"
_FORMAT = 1


class Table(Struct, frozen=True):
    """A table of an export: the newest snapshot, and those before it that are still there."""

    snapshot: str
    columns: dict[str, str]
    file: File
    older: list[File] = []


class Changes(Struct, frozen=True):
    """What has changed in a table, in files to be applied in their order; `until` is the last run they tell of."""

    until: str
    files: list[File]
    written: str | None = None  # when that run wrote last; one that was cut may go on


class Catalog(Struct):
    """catalog.json: what an export holds."""

    format: int
    company: dict[str, int | str]
    made_at: datetime
    run: str | None  # the last run that the tables tell of
    masks: list[str] = []
    tables: dict[str, Table] = {}
    changes: dict[str, Changes] = {}

    @property
    def named(self) -> set[str]:
        """The paths of all its files."""
        files = [file for table in self.tables.values() for file in (table.file, *table.older)]
        return {file.path for file in (*files, *(file for each in self.changes.values() for file in each.files))}


class ExportRequest(Struct, frozen=True):
    """What to export: `keep` snapshots of each table stay (0: all), and at most `most_files` of its changes."""

    out: str
    streams: tuple[str, ...] = ()
    masks: tuple[Mask, ...] = ()
    changes: bool = False
    keep: int = 0
    most_files: int = 30
    endpoint: str | None = None


class ExportReport(Struct, frozen=True):
    """What an export wrote."""

    where: str
    snapshot: str
    run: str | None
    written: dict[str, File]
    changed: dict[str, File]
    removed: int


def parquet(
    settings: Settings, request: ExportRequest, on_file: Callable[[str, File], None] = lambda table, file: None
) -> ExportReport:
    """Export the published warehouse as Parquet.

    Args:
        settings: of the project.
        request: what, and where to.
        on_file: is called with each table and the file that was written of it.

    Raises:
        ConfigError: there is no warehouse, no such stream or column, or the place holds what this would unmask. Nothing
            was written.
        StorageError: the place can't be written; its catalogue still names the export before.
    """
    for name in request.streams:
        catalogue.stream(name)
    if not settings.warehouse.exists():
        raise ConfigError(f"There is no warehouse at {settings.warehouse} yet. Make one: pdsync sync")
    store = open_store(request.out, request.endpoint, state=settings.state)
    connection = warehouse.connect(settings.warehouse, read_only=True)
    try:
        with store.scratch() as scratch:
            return _Export(settings, request, connection, store, scratch, on_file).all()
    except (duckdb.Error, OSError) as error:
        raise StorageError(
            f"The export to {store.where} stopped: {disk.first_line(error)}.\n{disk.advice_for(error) or ''}".rstrip()
        ) from error
    finally:
        connection.close()


class _Export:
    """One export under way."""

    def __init__(
        self,
        settings: Settings,
        request: ExportRequest,
        connection: duckdb.DuckDBPyConnection,
        store: Store,
        scratch: Path,
        on_file: Callable[[str, File], None],
    ) -> None:
        self.request, self.connection, self.store = request, connection, store
        self.scratch, self.on_file = scratch, on_file
        self.tables = export.tables(connection, request.streams)
        self.runs = export.runs(connection)
        self.company, name = export.company(connection)
        self.before = self._read()
        self.now = datetime.now(UTC).replace(microsecond=0)
        taken = {table.snapshot for table in self.before.tables.values()} if self.before else set()
        while self._snapshot in taken:
            self.now += timedelta(seconds=1)
        self.catalog = Catalog(
            _FORMAT,
            {"id": self.company, "name": name},
            self.now,
            next(reversed(self.runs), None),
            [str(mask) for mask in request.masks],
            dict(self.before.tables) if self.before else {},
            dict(self.before.changes) if self.before else {},
        )
        # Of all tables, exported now or not: a mask that an earlier export asked for has to be given again.
        columns = {table: list(export.columns(connection, "main", table)) for table in export.tables(connection)}
        self.masked: dict[str, dict[str, How]] = resolve(request.masks, columns)
        self.key = _key(settings.state / "export.key") if request.masks else ""
        self.dropped: list[str] = []  # to be removed when the catalogue no longer names them

    @property
    def _snapshot(self) -> str:
        return f"{self.now:%Y%m%dT%H%M%SZ}"

    def _read(self) -> Catalog | None:
        """The catalogue of the export before."""
        content = self.store.read(CATALOG)
        if content is None:
            return None
        try:
            before = msgspec.json.decode(content, type=Catalog)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self.store.where}/{CATALOG} is no catalogue of an export ({error}). Nothing was written."
            ) from error
        if before.company["id"] != self.company:
            raise ConfigError(
                f"{self.store.where} holds company {before.company['id']}, and this warehouse company {self.company}."
                f" Nothing was written. Choose another --out."
            )
        missing = set(before.masks) - {str(mask) for mask in self.request.masks}
        if missing:
            raise ConfigError(
                f"{self.store.where} was written with --mask {' --mask '.join(sorted(missing))}, and this would show"
                f" what that hides. Nothing was written.\nGive the same masks, or choose another --out."
            )
        return before

    def all(self) -> ExportReport:
        """Write everything, the catalogue last; then remove what it no longer names."""
        written = {table: self._table(table) for table in self.tables}
        changed = {}
        if self.request.changes:
            for stream in dict.fromkeys(self.tables.values()):
                if file := self._changes(stream):
                    changed[stream] = file
        target = self.scratch / CATALOG
        target.write_bytes(msgspec.json.format(msgspec.json.encode(self.catalog), indent=1))
        note(self.scratch, self.dropped)
        self.store.put(target, CATALOG)
        for path in set(noted(self.scratch)) - self.catalog.named:
            self.store.remove(path)
        return ExportReport(self.store.where, self._snapshot, self.catalog.run, written, changed, len(self.dropped))

    def _put(self, table: str, target: Path, path: str) -> File:
        file = export.describe(target, path)
        note(self.scratch, [path])
        self.store.put(target, path)
        self.on_file(table, file)
        return file

    def _table(self, table: str) -> File:
        target = self.scratch / f"{table}.parquet"
        columns = export.snapshot(self.connection, table, self.masked[table], self.key, target)
        file = self._put(table, target, f"{table}/_snapshot={self._snapshot}/data.parquet")
        known = self.catalog.tables.get(table)
        older = [known.file, *known.older] if known else []
        if self.request.keep:
            self.dropped += [each.path for each in older[self.request.keep - 1 :]]
            older = older[: self.request.keep - 1]
        self.catalog.tables[table] = Table(self._snapshot, columns, file, older)
        return file

    def _changes(self, stream: str) -> File | None:
        """Write what the runs since the last change file have changed; too many such files become one."""
        known = self.catalog.changes.get(stream)
        order, files = list(self.runs), list(known.files) if known else []
        done = 0
        if known and known.until in self.runs:
            went_on = known.written not in (None, self.runs[known.until])
            done = order.index(known.until) + (0 if went_on else 1)
        runs = order[done:]
        if not runs:
            return None
        target = self.scratch / f"{stream}.parquet"
        export.changes(self.connection, stream, runs, self.masked[stream], self.key, target)
        path = f"_changes/{stream}/_until={runs[-1]}/data.parquet"
        file = None
        if export.describe(target, path).rows:
            file = self._put(stream, target, path)
            files.append(file)
        if len(files) > self.request.most_files:
            files = [self._compacted(stream, files)]
        self.catalog.changes[stream] = Changes(runs[-1], files, self.runs[runs[-1]])
        return file

    def _compacted(self, stream: str, files: Sequence[File]) -> File:
        """One file in the place of `files`."""
        sources = []
        for number, file in enumerate(files):
            content = self.store.read(file.path)
            if content is None or hashlib.sha256(content).hexdigest() != file.sha256:
                raise StorageError(
                    f"{self.store.where}/{file.path} is not what was written there. The catalogue still names the last"
                    f" whole export.\nExport to another --out, or remove {stream} from {CATALOG} to start over."
                )
            source = self.scratch / f"{stream}-{number}.parquet"
            source.write_bytes(content)
            sources.append(source)
        target = self.scratch / f"{stream}.parquet"
        export.merge(self.connection, sources, target)
        for source in sources:
            source.unlink()
        # Another name than the last of its sources: the old catalogue goes on naming that one until the end.
        last = files[-1].path.split("_until=")[1].split("/")[0]
        made = self._put(stream, target, f"_changes/{stream}/_until={last}/all-{self._snapshot}.parquet")
        self.dropped += [file.path for file in files]
        return made


def _key(path: Path) -> str:
    """The project's secret for hashes, made when it is first needed."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii").strip()
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(key := secrets.token_hex(32))
    return key
