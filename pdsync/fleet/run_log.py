"""Keeps what a fleet run did, in a file for each: after a crash the same command goes on with what has not ended.

`data/fleet/runs/<run>.ndjson` has a line that says what began, a line for each account that ended, and a last line. A
run without the last line was interrupted. The next run of the same command continues it, within some hours: accounts
that are complete are not run again.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.errors import ProjectLocked, StorageError
from pdsync.fleet.job import AccountResult  # noqa: TC001 - msgspec reads it at run time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import IO

    from pdsync.fleet.job import AccountJob

CONTINUED = timedelta(hours=6)  # so long after an account's end it counts as done by the run that goes on
_KEPT = 200  # runs


class _Begin(Struct, frozen=True, tag_field="event", tag="begin"):
    run_id: str
    command: tuple[str, ...]
    selection: tuple[str, ...]  # names and tags; empty: all accounts
    started_at: datetime


class _Result(Struct, frozen=True, tag_field="event", tag="account"):
    result: AccountResult
    ended_at: datetime
    settings: str = ""  # of the job; empty: it was written by an older pdsync


class _End(Struct, frozen=True, tag_field="event", tag="end"):
    exit_code: int
    ended_at: datetime


class FleetRun(Struct, frozen=True):
    """A run of the fleet, as its file has it."""

    run_id: str
    command: tuple[str, ...]
    selection: tuple[str, ...]
    started_at: datetime
    results: dict[str, AccountResult]  # the last one of each account
    ended_at: dict[str, datetime]  # by account
    settings: dict[str, str] = {}  # of the job, by account
    exit_code: int | None = None  # None: it was interrupted, or goes on


class RunLog:
    """The file of the run that goes on. Only one process writes to it."""

    def __init__(self, run: FleetRun, file: IO[bytes]) -> None:
        self.run_id, self._file, self._settings = run.run_id, file, run.settings
        self.complete = {
            name: result
            for name, result in run.results.items()
            if result.complete and _is_within(CONTINUED, run.ended_at[name])
        }  # by an earlier process of the same run

    def find_complete(self, jobs: Iterable[AccountJob]) -> dict[str, AccountResult]:
        """By account: the results of those of `jobs` that are complete already, with the settings of now."""
        names = [job.account.name for job in jobs if self._settings.get(job.account.name) == job.settings]
        return {name: self.complete[name] for name in names if name in self.complete}

    def begin(self, run: FleetRun) -> None:
        """Write what begins."""
        self._write(_Begin(run.run_id, run.command, run.selection, run.started_at))

    def add(self, result: AccountResult, settings: str = "") -> None:
        """Keep the result of an account, of a job with these `settings`; it is on disk when this returns.

        Its streams, output and summary are not kept, and of its gaps the first five.
        """
        slim = msgspec.structs.replace(result, streams={}, output="", summary={}, gaps=result.gaps[:5])
        self._write(_Result(slim, datetime.now(UTC), settings))

    def end(self, exit_code: int) -> None:
        """Mark the run as ended: the next one begins from the start."""
        self._write(_End(exit_code, datetime.now(UTC)))

    def close(self) -> None:
        """Release the file; a run without an end can be continued."""
        self._file.close()

    def _write(self, line: _Begin | _Result | _End) -> None:
        try:
            self._file.write(msgspec.json.encode(line) + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StorageError(f"{self._file.name} can't be written: {error}. What has ended is kept.") from error


def begin(
    folder: Path,
    command: tuple[str, ...],
    selection: tuple[str, ...] = (),
    *,
    restart: bool = False,
    is_alone: bool = True,
) -> RunLog:
    """Begin a run, or go on with the last one of the same command and selection, if it was interrupted.

    One that began more than a day ago is not continued. When a run begins, the files of all but the newest 200 are
    removed.

    Args:
        folder: of the runs; it is created.
        command: what is run for each account.
        selection: the names and tags that select accounts.
        restart: begin from the start even so.
        is_alone: only one process at a time may run this; otherwise each run is one of its own.

    Raises:
        ProjectLocked: that run goes on in another process.
        StorageError: the folder can't be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        same = [run for run in read(folder) if (run.command, run.selection) == (command, selection)]
        for run in same if is_alone else []:
            if run.exit_code is None and (log := _go_on(folder, run, may_go_on=run is same[-1] and not restart)):
                return log
        now = datetime.now(UTC)
        run = FleetRun(f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}", command, selection, now, {}, {})
        log = RunLog(run, _open(folder / f"{run.run_id}.ndjson", run))
        log.begin(run)
        for path in sorted(folder.glob("*.ndjson"))[:-_KEPT]:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} can't be written: {error}. Nothing was called.") from error
    return log


def _go_on(folder: Path, run: FleetRun, *, may_go_on: bool) -> RunLog | None:
    """Go on with a run that has no end, if it may be; None if it is not.

    Raises:
        ProjectLocked: it goes on in another process.
    """
    path = folder / f"{run.run_id}.ndjson"
    file = _open(path, run)
    found = _read(path)  # it may have ended since it was read
    if may_go_on and found and found.exit_code is None and _is_within(4 * CONTINUED, found.started_at):
        return RunLog(found, file)
    file.close()
    return None


def _is_within(time: timedelta, moment: datetime) -> bool:
    """Whether a moment is at most so long ago, and not in the future: by a clock that ran ahead nothing is known."""
    return timedelta(0) <= datetime.now(UTC) - moment < time


def _open(path: Path, run: FleetRun) -> IO[bytes]:
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ProjectLocked(
            f"The fleet run {run.run_id} of the same command goes on in another process. Nothing was called.\n"
            f"Run the same command again when it has ended."
        ) from None
    file.seek(0, os.SEEK_END)
    if file.tell():
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":  # a crash has cut its last line
            file.write(b"\n")
    return file


def read(folder: Path, last: int = _KEPT) -> list[FleetRun]:
    """The `last` runs, oldest first. A line that a crash has cut is left out."""
    runs = (_read(path) for path in sorted(folder.glob("*.ndjson"))[-last:])
    return sorted((run for run in runs if run), key=lambda run: run.started_at)


def _read(path: Path) -> FleetRun | None:
    begun: _Begin | None = None
    results: dict[str, AccountResult] = {}
    ended: dict[str, datetime] = {}
    settings: dict[str, str] = {}
    code: int | None = None
    for line in _lines(path):
        if isinstance(line, _Begin):
            begun = line
        elif isinstance(line, _Result):
            name = line.result.name
            results[name], ended[name], settings[name] = line.result, line.ended_at, line.settings
        else:
            code = line.exit_code
    if begun is None:
        return None
    return FleetRun(begun.run_id, begun.command, begun.selection, begun.started_at, results, ended, settings, code)


def _lines(path: Path) -> Iterator[_Begin | _Result | _End]:
    decoder: Any = msgspec.json.Decoder(_Begin | _Result | _End)
    for line in path.read_bytes().split(b"\n"):
        try:
            yield decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
