"""Runs one command of one account: the unit of work, the same on this machine and on a worker of a cluster.

    result = run(AccountJob(account, ("sync",), run_id), on_progress)

An account is a project, and the command is `pdsync --project FOLDER COMMAND` in a process of its own. So whatever
pdsync promises for a project holds for each account: its lock, its limits, that it goes on where it stopped, its exit
codes. A job has no secret; the process that runs it resolves the reference to one.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from pdsync.core.log import clean_error
from pdsync.core.wording import counted
from pdsync.errors import PdsyncError
from pdsync.fleet.accounts import Account, environment
from pdsync.fleet.process import CHILDREN, GRACE_S, Child

if TYPE_CHECKING:
    from pdsync.fleet.rollup import RollUpTarget

Outcome = Literal["complete", "incomplete", "stopped", "refused", "failed", "interrupted"]
_OUTCOMES: dict[int, Outcome] = {
    0: "complete", 2: "refused", 3: "stopped", 4: "incomplete", 5: "incomplete", 130: "interrupted",
}  # fmt: skip
_COUNTS = ("requests", "tokens", "read", "inserted", "updated", "deleted", "unchanged")
_PROGRESS = ("started", "finished", "note", "file")  # events; what has another or none is a row of a listing
_OF_THE_USER = ("sql", "api")  # commands whose rows may have a column called `event`
_REPORT_S = 1.0  # between two reports of a command's progress
_MOST_OUTPUT = 1 << 22  # bytes of a command's output that a job keeps
_MOST_TEXT = 2_000  # characters of a message


class AccountJob(Struct, frozen=True):
    """A command of one account, in one run of the fleet. It can be sent to another machine."""

    account: Account
    command: tuple[str, ...]  # ("sync", "--full")
    run_id: str  # of the fleet run, and of the process that works on it: no two have the same
    timeout_s: float = 6 * 3600.0
    as_json: bool = True  # events and a summary; False: the output is for a person
    attempt: int = 1
    store: str = ""  # as in Fleet
    endpoint: str = ""
    region: str = ""
    rollup: RollUpTarget | None = None  # of the fleet, if it has chosen tables

    @property
    def key(self) -> str:
        """What this attempt is called on a cluster: no other task has the same name."""
        return f"pdsync-{self.account.name}-{self.run_id}-{self.attempt}"

    @property
    def settings(self) -> str:
        """Identifies what runs, for which company and to where its data goes: two jobs with the same do the same."""
        same = msgspec.structs.replace(self, run_id="", attempt=1, timeout_s=0.0, as_json=True)
        return hashlib.sha256(msgspec.json.encode(same, enc_hook=str)).hexdigest()[:16]


class Counts(Struct, frozen=True):
    """What a command did, over all streams."""

    requests: int = 0
    tokens: int = 0
    read: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in _COUNTS))


class AccountResult(Struct, frozen=True):
    """How a command of one account ended. It has no row of data, unless `output` has."""

    name: str
    exit_code: int  # of the command; of the error that kept it from starting or publishing; 1 where it was killed
    complete: bool
    outcome: Outcome
    message: str = ""  # why it is not complete, for a person
    error: str = ""  # the class of the error, as in pdsync.errors, "Timeout" or "Killed"
    run_id: str = ""  # of the account's own run
    counts: Counts = Counts()
    streams: dict[str, dict[str, Any]] = {}  # by stream: the counts, and whether it is complete
    gaps: list[dict[str, Any]] = []
    started_at: float = 0.0  # seconds since 1970
    seconds: float = 0.0
    attempts: int = 1
    worker: str = ""
    output: str = ""  # stdout of a command for a person, or of a listing
    summary: dict[str, Any] = {}  # what else the command's last line has


class Progress(Struct, frozen=True):
    """How far a command has come: streams that have begun and ended, and what those that ended did."""

    started: int = 0
    ended: int = 0
    counts: Counts = Counts()
    note: str = ""  # a message of the command, which is reported at once

    def after(self, event: dict[str, Any]) -> Progress:
        """The progress after an event of the command."""
        started, ended, counts = self.started, self.ended, self.counts
        if event["event"] == "started":
            started += 1
        elif event["event"] == "finished":
            ended += 1
            counts += Counts(**{name: int(event.get(name) or 0) for name in ("requests", "tokens", "read")})
        return Progress(started, ended, counts, str(event.get("text") or "") if event["event"] == "note" else "")


OnProgress = Callable[[str, Progress], None]  # called with the account's name


def ignore_progress(name: str, progress: Progress) -> None:
    """Report nothing."""


def run(job: AccountJob, on_progress: OnProgress = ignore_progress) -> AccountResult:
    """Run the job to its end. Never raises for what is wrong with the account: the result says it.

    Args:
        job: what to run.
        on_progress: is called about once a second, and for each message of the command; from any thread for a message
            of the store, whose `Progress` has nothing but that.
    """
    began = time.time()
    try:
        job.account.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        result = _run_in_step(job, environment(job.account), on_progress)
    except (PdsyncError, OSError) as error:
        code = error.exit_code if isinstance(error, PdsyncError) else 1
        result = _ended(job, code, str(error), type(error).__name__)
    return msgspec.structs.replace(
        result,
        started_at=began,
        seconds=round(time.time() - began, 3),
        attempts=job.attempt,
        worker=_worker(),
    )


def _worker() -> str:
    return f"{platform.node()}:{os.getpid()}"


def _run_in_step(job: AccountJob, variables: dict[str, str], on_progress: OnProgress) -> AccountResult:
    """Run the command; where the fleet has a store, in the state that the store has, and publish what it did."""
    if not job.store:
        return _rolled_up(job, _run_child(job, variables, on_progress))
    from pdsync.fleet.mirror import mirrored  # noqa: PLC0415 - only with a store
    from pdsync.fleet.store import open_store  # noqa: PLC0415

    def on_note(text: str) -> None:
        on_progress(job.account.name, Progress(note=clean_error(text)))

    store, result = open_store(job.store, job.endpoint, job.region), None
    try:
        with mirrored(store, job.account.name, job.account.folder, owner=_worker(), on_note=on_note) as mirror:
            result = _run_child(job, variables | mirror.environment, on_progress, mirror.on_lost)
            result = _rolled_up(job, result, mirror.on_lost)  # while no other worker has the account
    except PdsyncError as error:
        if result is None:  # the command was not run
            raise
        return _unpublished(result, error.exit_code, str(error), type(error).__name__)
    return result


def _rolled_up(
    job: AccountJob, result: AccountResult, on_lost: Callable[[Callable[[], None]], None] = lambda end: None
) -> AccountResult:
    """The result, once the tables that the command changed are in the fleet's roll-up; `on_lost` as for a command.

    A command that failed may have changed some: one stream's failure leaves the others committed.
    """
    if job.rollup is None or result.outcome in ("refused", "interrupted"):
        return result
    from pdsync.fleet import rollup_child  # noqa: PLC0415 - only with a roll-up

    done = rollup_child.run(job.rollup, job.account, job.run_id, job.timeout_s, on_lost)
    if isinstance(done, rollup_child.Failure) and result.outcome != "failed":  # which is what there is to say
        return _unpublished(result, done.exit_code, done.message, done.error)
    return result


def _unpublished(result: AccountResult, code: int, message: str, error: str) -> AccountResult:
    """The result of a command whose work is in the folder, and not where the fleet has what all accounts did."""
    return msgspec.structs.replace(
        result,
        exit_code=code,
        complete=False,
        outcome=_OUTCOMES.get(code, "failed"),
        message=clean_error(message)[:_MOST_TEXT],
        error=error,
    )


def _run_child(
    job: AccountJob,
    variables: dict[str, str],
    on_progress: OnProgress,
    on_lost: Callable[[Callable[[], None]], None] = lambda end: None,
) -> AccountResult:
    """Run the command to its end.

    Args:
        job: what to run.
        variables: its environment.
        on_progress: as in `run`.
        on_lost: is called with what ends the command, and calls that when another worker may run the account.
    """
    with CHILDREN.start(job.run_id, lambda: Child(_command(job), variables, min(GRACE_S, job.timeout_s))) as child:
        if child is None:
            return _ended(job, 130, "It was not started.", "")
        on_lost(child.kill)
        output, last = _Output(), dict[str, Any]()
        progress, reported_at = Progress(), 0.0
        for line in child.lines(job.timeout_s):
            event = _decode(line) if job.as_json else None
            kind = event.get("event") if event else None
            if event and kind in ("summary", "error") and event.keys() >= {"complete", "exit_code"}:
                last = event
            elif event and kind in _PROGRESS and job.command[0] not in _OF_THE_USER:
                progress = progress.after(event)
                if progress.note or time.monotonic() - reported_at > _REPORT_S:
                    on_progress(job.account.name, progress)
                    reported_at = time.monotonic()
            else:
                output.add(line)
        return _conclude(job, child, last, output)


def _command(job: AccountJob) -> list[str]:
    options = ["--no-input", "--create", "--color", "never", "--project", str(job.account.folder)]
    options += ["--json"] if job.as_json else []
    return [sys.executable, "-P", "-m", "pdsync.fleet.child", str(os.getpid()), *options, *job.command]


class _Output:
    """Lines of a command, up to a limit."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._bytes = self._left_out = 0

    def add(self, line: bytes) -> None:
        self._bytes += len(line) + 1
        if self._bytes > _MOST_OUTPUT:
            self._left_out += 1
        else:
            self._lines.append(line)

    @property
    def left_out(self) -> str:
        """What is said of lines beyond the limit; empty: there are none."""
        return f"… and {counted(self._left_out, 'more line')}, left out." if self._left_out else ""

    def text(self) -> str:
        more = [self.left_out.encode()] if self._left_out else []
        return "".join(f"{line.decode('utf-8', 'replace')}\n" for line in [*self._lines, *more])


def _decode(line: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _conclude(job: AccountJob, child: Child, last: dict[str, Any], output: _Output) -> AccountResult:
    """The result, of the command's last line if it came to one, else of how its process ended."""
    code, errors = child.exit_code, child.stderr.decode("utf-8", "replace").strip()
    if child.is_overdue:
        text = f"It did not end within {job.timeout_s:g} s, and was stopped; the next run goes on where it was."
        return msgspec.structs.replace(_of_summary(job, 1, last, output), message=text, error="Timeout")
    if code < 0:
        text = f"It was killed by signal {-code}; the next run goes on where it was."
        return _ended(job, 1, f"{text}\n{errors}".strip(), "Killed")
    if last.get("event") == "summary":
        return _of_summary(job, code, last, output)
    text = str(last.get("message") or errors) if code else ""
    result = msgspec.structs.replace(_ended(job, code, text, str(last.get("error", ""))), output=output.text())
    if code == 0 and output.left_out:
        return msgspec.structs.replace(result, complete=False, outcome="incomplete", message=output.left_out)
    return result


def _of_summary(job: AccountJob, code: int, summary: dict[str, Any], output: _Output) -> AccountResult:
    streams, gaps = summary.get("streams") or {}, summary.get("gaps") or []
    sums = {name: sum(int(stream.get(name) or 0) for stream in streams.values()) for name in _COUNTS}
    sums |= {name: int(summary.get(name) or sums[name]) for name in ("requests", "tokens")}
    complete = code == 0 and bool(summary.get("complete"))
    named = [f"{gap.get('stream')}: {gap.get('detail')}" for gap in gaps[:3]]
    more = [f"and {len(gaps) - 3} more"] if len(gaps) > 3 else []
    message = "" if complete else "; ".join([*named, *more]) or str(summary.get("message") or "It is not complete.")
    return AccountResult(
        name=job.account.name,
        exit_code=code,
        complete=complete,
        outcome="incomplete" if code == 0 and not complete else _OUTCOMES.get(code, "failed"),
        message=clean_error(message)[:_MOST_TEXT],
        error=str(summary.get("error") or ""),
        run_id=str(summary.get("run_id") or ""),
        counts=Counts(**sums),
        streams={name: {key: stream[key] for key in (*_COUNTS, "complete") if key in stream}
                 for name, stream in streams.items()},
        gaps=gaps,
        output=output.text(),
        summary={key: value for key, value in summary.items() if key not in ("event", "streams", "gaps")},
    )  # fmt: skip


def _ended(job: AccountJob, code: int, message: str, error: str) -> AccountResult:
    return AccountResult(
        name=job.account.name,
        exit_code=code,
        complete=code == 0,
        outcome=_OUTCOMES.get(code, "failed"),
        message=clean_error(message)[:_MOST_TEXT],
        error=error,
    )


def failed(job: AccountJob, error: BaseException) -> AccountResult:
    """The result of a job that an error ended which is not the account's."""
    return msgspec.structs.replace(_ended(job, 1, str(error), type(error).__name__), attempts=job.attempt)
