"""Exports tables as Parquet to a folder or an object store, with a catalogue of the complete files.

Data files are written first, `catalog.json` last: a reader who follows the catalogue sees this export or the previous
one, both complete, even if this one is killed. Files of a killed export are not in the catalogue; the next export
removes or overwrites them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import duckdb
import msgspec
from msgspec import Struct, structs

from pdsync.core import catalogue, disk
from pdsync.errors import ConfigError, StorageError
from pdsync.load import export, warehouse
from pdsync.load.column_masks import Mask, resolve
from pdsync.load.export import File  # noqa: TC001 - msgspec reads the annotations at run time
from pdsync.load.export_target import (
    Store,
    is_of_export,
    note,
    noted,
    open_store,
)
from pdsync.sql import literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.load.column_masks import How

CATALOG = "catalog.json"
_FORMAT = 1
_KEY_LENGTH = 64  # of the secret for hashes, in characters


class Table(Struct, frozen=True):
    """A table of an export: its newest snapshot, and the older ones that are kept."""

    snapshot: str
    columns: dict[str, str]
    file: File
    older: list[File] = []


class Changes(Struct, frozen=True):
    """The changes of a table, in files to be applied in order; `until` is the last run in them."""

    until: str
    files: list[File]
    written: str | None = None  # when that run wrote last: an interrupted run may continue


class Catalog(Struct):
    """catalog.json: the contents of an export."""

    format: int
    company: dict[str, int | str]
    made_at: datetime
    run: str | None  # the last run in the tables
    masks: list[str] = []
    tables: dict[str, Table] = {}
    changes: dict[str, Changes] = {}

    @property
    def paths(self) -> set[str]:
        """The paths of all its files."""
        files = [file for table in self.tables.values() for file in (table.file, *table.older)]
        return {file.path for file in (*files, *(file for each in self.changes.values() for file in each.files))}


class ExportRequest(Struct, frozen=True):
    """What to export: `keep` is the number of snapshots per table (0: all), `most_files` that of its change files."""

    out: str
    streams: tuple[str, ...] = ()
    masks: tuple[Mask, ...] = ()
    changes: bool = False
    keep: int = 0
    most_files: int = 30
    endpoint: str | None = None


class ExportReport(Struct, frozen=True):
    """The result of an export."""

    where: str
    snapshot: str
    run: str | None
    written: dict[str, File]
    changed: dict[str, File]
    removed: int


def export_parquet(
    settings: Settings,
    request: ExportRequest,
    on_file: Callable[[str, File], None] = lambda table, file: None,
    on_rows: Callable[[int, int], object] = lambda written, total: None,
) -> ExportReport:
    """Export the published warehouse as Parquet.

    Args:
        settings: of the project.
        request: what to export, and where to.
        on_file: is called with the table and the file, for each file that is written.
        on_rows: is called with the rows that are written, and those of all tables, after each table.

    Raises:
        ConfigError: there is no warehouse, no such stream or column, or the target has columns that this would unmask.
            Nothing was written.
        StorageError: the target can't be written; its catalogue is that of the previous export, or of this one if only
            old files could not be removed.
    """
    for name in request.streams:
        catalogue.stream(name)
    if not settings.warehouse.exists():
        raise ConfigError(f"There is no warehouse at {settings.warehouse} yet. Make one: pdsync sync")
    store = open_store(request.out, request.endpoint, state=settings.state)
    connection = warehouse.connect(settings.warehouse, read_only=True)
    try:
        with store.scratch() as scratch:
            # The warehouse may be of somebody else: a view in it must not read other files of this machine.
            connection.execute(f"SET allowed_directories = [{literal(str(scratch))}]")
            connection.execute("SET enable_external_access = false")
            return _Export(settings, request, connection, store, scratch, on_file, on_rows).run()
    except (duckdb.Error, OSError) as error:
        raise StorageError(
            f"The export to {store.where} stopped: {disk.first_line(error)}.\n{disk.advice_for(error) or ''}".rstrip()
        ) from error
    finally:
        connection.close()


class _Export:
    """One export."""

    def __init__(
        self,
        settings: Settings,
        request: ExportRequest,
        connection: duckdb.DuckDBPyConnection,
        store: Store,
        scratch: Path,
        on_file: Callable[[str, File], None],
        on_rows: Callable[[int, int], object],
    ) -> None:
        self.request, self.connection, self.store = request, connection, store
        self.scratch, self.on_file, self.on_rows = scratch, on_file, on_rows
        self.tables = export.tables(connection, request.streams)
        self.runs = export.runs(connection)
        self.company, name = export.company(connection)
        self.previous = self._read_previous()
        self.now = datetime.now(UTC).replace(microsecond=0)
        used = {table.snapshot for table in self.previous.tables.values()} if self.previous else set()
        while self._snapshot in used:
            self.now += timedelta(seconds=1)
        self.catalog = Catalog(
            _FORMAT,
            {"id": self.company, "name": name},
            self.now,
            next(reversed(self.runs), None),
            [str(mask) for mask in request.masks],
            dict(self.previous.tables) if self.previous else {},
            dict(self.previous.changes) if self.previous else {},
        )
        # Of all tables, exported now or not: the masks of an earlier export must be given again.
        columns = {table: list(export.columns(connection, "main", table)) for table in export.tables(connection)}
        self.masked: dict[str, dict[str, How]] = resolve(request.masks, columns)
        self.key = _load_or_create_key(settings.state / "export.key") if request.masks else ""
        self.dropped: list[str] = []  # paths to remove once the catalogue no longer names them

    @property
    def _snapshot(self) -> str:
        return f"{self.now:%Y%m%dT%H%M%SZ}"

    def _read_previous(self) -> Catalog | None:
        """The catalogue of the previous export; None if there is none.

        Raises:
            ConfigError: it is of another company, has more masks, or can't be read.
        """
        content = self.store.read(CATALOG)
        if content is None:
            return None
        try:
            previous = msgspec.json.decode(content, type=Catalog)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self.store.where}/{CATALOG} is not the catalogue of an export ({error}). Nothing was written."
            ) from error
        if others := [path for path in previous.paths if not is_of_export(path)]:
            raise ConfigError(
                f"{self.store.where}/{CATALOG} names {min(others)!r}, which is no file of an export."
                " Nothing was written."
            )
        if previous.company["id"] != self.company:
            raise ConfigError(
                f"{self.store.where} contains company {previous.company['id']}, and this warehouse company"
                f" {self.company}. Nothing was written. Choose another --out."
            )
        missing = set(previous.masks) - {str(mask) for mask in self.request.masks}
        if missing:
            raise ConfigError(
                f"{self.store.where} was written with --mask {' --mask '.join(sorted(missing))}, and this export would"
                f" unmask those columns. Nothing was written.\nGive the same masks, or choose another --out."
            )
        return previous

    def run(self) -> ExportReport:
        """Write all files, the catalogue last; then remove files that it no longer names."""
        self._rename_hidden()
        rows = {table: export.count_rows(self.connection, table) for table in self.tables}
        written, done = {}, 0
        self.on_rows(0, sum(rows.values()))
        for table in self.tables:
            written[table] = self._write_table(table)
            done += rows[table]
            self.on_rows(done, sum(rows.values()))
        changed = {}
        if self.request.changes:
            for stream in dict.fromkeys(self.tables.values()):
                if file := self._write_changes(stream):
                    changed[stream] = file
        target = self.scratch / CATALOG
        target.write_bytes(msgspec.json.format(msgspec.json.encode(self.catalog), indent=1))
        note(self.scratch, self.dropped)
        self.store.put(target, CATALOG)
        for path in set(noted(self.scratch)) - self.catalog.paths:
            self.store.remove(path)
        return ExportReport(self.store.where, self._snapshot, self.catalog.run, written, changed, len(self.dropped))

    def _rename_hidden(self) -> None:
        """Copy the files of folders that begin with `_`, which pandas and pyarrow skip, to folders without it.

        Both names in one table would be an error for readers of hive partitions.
        """
        for name, table in self.catalog.tables.items():
            file, *older = (self._copy_hidden(each) for each in (table.file, *table.older))
            self.catalog.tables[name] = structs.replace(table, file=file, older=older)
        for name, changes in self.catalog.changes.items():
            files = [self._copy_hidden(each) for each in changes.files]
            self.catalog.changes[name] = structs.replace(changes, files=files)

    def _copy_hidden(self, file: File) -> File:
        path = "/".join(part.removeprefix("_") for part in file.path.split("/"))
        content = self.store.read(file.path) if path != file.path else None
        if content is None:
            return file
        target = self.scratch / "renamed.parquet"
        target.write_bytes(content)
        target.chmod(0o600)
        note(self.scratch, [path])
        self.store.put(target, path)
        self.dropped.append(file.path)
        return structs.replace(file, path=path)

    def _put(self, table: str, target: Path, path: str) -> File:
        file = export.describe(target, path)
        note(self.scratch, [path])
        self.store.put(target, path)
        self.on_file(table, file)
        return file

    def _write_table(self, table: str) -> File:
        target = self.scratch / f"{table}.parquet"
        columns = export.snapshot(self.connection, table, self.masked[table], self.key, target)
        file = self._put(table, target, f"{table}/snapshot={self._snapshot}/data.parquet")
        previous = self.catalog.tables.get(table)
        older = [previous.file, *previous.older] if previous else []
        if self.request.keep:
            self.dropped += [each.path for each in older[self.request.keep - 1 :]]
            older = older[: self.request.keep - 1]
        self.catalog.tables[table] = Table(self._snapshot, columns, file, older)
        return file

    def _write_changes(self, stream: str) -> File | None:
        """Write the changes of the runs since the last change file; too many such files are merged."""
        previous = self.catalog.changes.get(stream)
        order, files = list(self.runs), list(previous.files) if previous else []
        exported = 0  # runs
        if previous and previous.until in self.runs:
            exported = order.index(previous.until) + 1
            if previous.written not in (None, self.runs[previous.until]):  # it has continued, maybe after other runs
                written_before = sum((written or "") < previous.written for written in self.runs.values())
                exported = min(exported - 1, written_before)
        runs = order[exported:]
        if not runs:
            return None
        target = self.scratch / f"{stream}.parquet"
        export.changes(self.connection, stream, runs, self.masked[stream], self.key, target)
        path = f"changes/{stream}/until={runs[-1]}/data.parquet"
        if any(each.path == path for each in files):  # the run has continued; that file has changes of others, too
            path = f"changes/{stream}/until={runs[-1]}/data-{self._snapshot}.parquet"
        file = None
        if export.describe(target, path).rows:
            file = self._put(stream, target, path)
            files.append(file)
        if len(files) > self.request.most_files:
            files = [self._compact(stream, files)]
        self.catalog.changes[stream] = Changes(runs[-1], files, self.runs[runs[-1]])
        return file

    def _compact(self, stream: str, files: Sequence[File]) -> File:
        """Merge `files` into one."""
        sources = []
        for number, file in enumerate(files):
            content = self.store.read(file.path)
            if content is None or hashlib.sha256(content).hexdigest() != file.sha256:
                raise StorageError(
                    f"{self.store.where}/{file.path} was changed after it was written. The catalogue is that of the"
                    f" previous export.\nExport to another --out, or remove {stream} from {CATALOG} to start over."
                )
            source = self.scratch / f"{stream}-{number}.parquet"
            source.write_bytes(content)
            sources.append(source)
        target = self.scratch / f"{stream}.parquet"
        export.merge(self.connection, sources, target)
        for source in sources:
            source.unlink()
        # Not the name of its last source: the old catalogue names that one until the new one is written.
        last = files[-1].path.split("until=")[1].split("/")[0]
        merged = self._put(stream, target, f"changes/{stream}/until={last}/all-{self._snapshot}.parquet")
        self.dropped += [file.path for file in files]
        return merged


def _load_or_create_key(path: Path) -> str:
    """The project's secret for hashes, created on first use.

    Raises:
        ConfigError: the file has no whole secret. Nothing was written.
    """
    if not path.exists():
        part = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
        try:
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(_KEY_LENGTH // 2))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another export was faster: its secret counts
                os.link(part, path)
            disk.sync_folder(path.parent)
        finally:
            part.unlink(missing_ok=True)
    key = path.read_text(encoding="ascii", errors="replace").strip()
    if len(key) < _KEY_LENGTH:
        raise ConfigError(
            f"{path} has {len(key)} characters of the secret for hashes, not {_KEY_LENGTH}: values could be guessed"
            " from their hashes. Nothing was written.\n"
            "Restore it from a backup. Or remove it: the next export makes a new one, which changes all hashes."
        )
    return key
