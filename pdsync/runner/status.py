"""Answers whether the data is right and fresh, for the whole project, and names what needs attention.

Each notice names a problem that is still there, and the command that comes next. A gap of a sync counts until a later
sync of the same stream has none; one of a reconciliation until a later reconciliation.
"""

from __future__ import annotations

import os
import shlex
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.control import ONLY_ARCHIVED
from pdsync.core.wording import counted
from pdsync.errors import FileLocked, StorageError
from pdsync.load import reader_objects
from pdsync.model import LEFT_BY_PUSH, OPEN, IncompleteStream
from pdsync.runner import unlocked
from pdsync.runner.pipelines import installed
from pdsync.runner.report.freshness import Freshness, budget_left, format_age, measure_freshness
from pdsync.writeback.queue_reader import QueueReader

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.model import Receipt, Walk
    from pdsync.runner.pipelines.installed import NextRun

_RUNS = 200  # that are read together
_SPARE = timedelta(hours=12)  # a run may be this late before the data counts as stale
_NAMED = 3  # streams in a notice
_TYPED = 8  # streams in a command
_LONGEST_COMMAND = 100


class Notice(Struct, frozen=True):
    """A problem, and the command that comes next."""

    subject: str  # streams, or another part of the project
    problem: str
    command: str


class Status(Struct, frozen=True):
    """The state of a project."""

    streams: list[Freshness]
    complete_until: datetime | None  # every change until then is loaded, but in incomplete streams and `in_turn`
    in_turn: list[str]  # streams that are read in turn within the verify cycle, without the incomplete ones
    in_turn_until: datetime | None  # every change until then is loaded in those
    incomplete: list[str]  # streams with a gap
    rows: int  # not deleted; like the two below, of the streams that are read without being named
    unverified: int  # rows that were compared with the source longer ago than the verify cycle
    oldest_verified_at: datetime | None
    verify_cycle: int  # days
    tokens_left: int | None  # today; None: there is no limit
    token_limit: int
    last_run: Receipt | None
    reader: Receipt | None  # the newest run that knows whose token it had: what that user may not see is missing
    running: int | None  # the process that works on the project now
    next_run: NextRun | None  # None: no schedule is installed on this machine
    queue: dict[str, int]  # open mutations, unresolved reviews, conflicts and rejections, by state
    notices: list[Notice]
    kept: list[str] = []  # files with tables that readers created in the warehouse, newest first
    error: StorageError | None = None  # why a store could not be read


class _Gap(Struct, frozen=True):
    run: Receipt
    gap: IncompleteStream


def measure_status(settings: Settings, now: datetime) -> Status:
    """The state of the project at `now`. Makes no request, and takes no lock."""
    runs: list[Receipt] = []
    left_over: list[tuple[Walk, str]] = []
    seen_in_part: list[str] = []
    queue: dict[str, int] = {}
    left: tuple[int | None, int] = (None, 0)
    notices: list[Notice] = []
    error: StorageError | None = None
    try:
        with unlocked.open_control(settings) as control:
            runs = _read_runs(control)
            left_over = [(walk, state) for walk, state in control.unfinished_walks() if walk.is_of_a_list]
            seen_in_part = _find_seen_in_part(control, settings)
            queue = _count_queue(control)
        left = budget_left(settings)
    except StorageError as damage:
        error = damage
        notices.append(Notice("control.db", str(damage).split("\n", 1)[0], "pdsync doctor"))
    streams: list[Freshness] = []
    try:
        streams = measure_freshness(settings, now)
    except StorageError as damage:
        error = error or damage
        lock = isinstance(damage, FileLocked)
        command = "pdsync status  (when that program is closed)" if lock else "pdsync sync"
        notices.append(Notice("warehouse", str(damage).split("\n", 1)[0], command))
    running = _running_process(settings) if runs and runs[0].finished_at is None else None
    jobs = installed.find_jobs(settings.project)
    gaps = _find_gaps(runs)
    gaps += _find_unloaded(runs, left_over, {each.gap.stream for each in gaps})
    regular = [each for each in streams if not _is_optional(each.stream)] or streams
    incomplete = sorted({each.gap.stream for each in gaps})
    whole = [each for each in regular if each.stream not in incomplete] or regular
    in_turn = [each for each in whole if settings.verify_cycle > 1 and _takes_turns(each.stream)]
    nightly = [each for each in whole if each not in in_turn] or whole
    pause = installed.longest_pause(jobs, settings.project) or installed.LENGTHS["day"]
    notices += [
        *_describe_last_run(runs, running),
        *_describe_gaps(gaps),
        *_describe_stale(nightly, now, pause + _SPARE),
        *_describe_stale(in_turn, now, max(pause, timedelta(days=settings.verify_cycle)) + _SPARE),
        *_describe_streams(settings, whole, now),
        *_describe_rights(runs, seen_in_part),
        *_describe_queue(queue, _running_process(settings, "push.lock")),
    ]
    return Status(
        streams=streams,
        complete_until=_oldest(nightly),
        in_turn=[each.stream for each in in_turn],
        in_turn_until=_oldest(in_turn),
        incomplete=incomplete,
        rows=sum(each.rows for each in regular),
        unverified=sum(each.unverified for each in regular),
        oldest_verified_at=min((each.oldest_verified_at for each in regular if each.oldest_verified_at), default=None),
        verify_cycle=settings.cycle_days,
        tokens_left=left[0],
        token_limit=left[1],
        last_run=runs[0] if runs else None,
        reader=find_reader(runs),
        running=running,
        next_run=installed.next_run(jobs, now),
        queue=queue,
        notices=notices,
        kept=[path.name for path in reader_objects.find_kept(settings.warehouse)],
        error=error,
    )


def _is_optional(stream: str) -> bool:
    """Whether a stream is read only when it is named, or unknown to this catalogue."""
    known = catalogue.streams().get(stream)
    return known is None or known.optional


def _takes_turns(stream: str) -> bool:
    known = catalogue.streams().get(stream)
    return known is not None and known.takes_turns


def _oldest(streams: list[Freshness]) -> datetime | None:
    """Until when all of `streams` are complete."""
    return min((each.complete_until for each in streams if each.complete_until), default=None)


def _count_queue(control: Control) -> dict[str, int]:
    reader = QueueReader(control)
    counts = {str(state): count for state, count in reader.counts().items() if state in OPEN}
    counts |= {"needs_review": reviews} if (reviews := reader.reviews()) else {}
    return counts | reader.unresolved()


def _running_process(settings: Settings, lock: str = "pdsync.lock") -> int | None:
    """The process that has a lock of the project; None if it has ended. The file names the last owner."""
    try:
        words = (settings.state / lock).read_text(encoding="utf-8").split()
        process = int(words[1])
        os.kill(process, 0)
    except PermissionError:  # it belongs to another user
        return process
    except (OSError, ValueError, IndexError):
        return None
    return process


def _read_runs(control: Control) -> list[Receipt]:
    """The last runs, newest first: as far back as one of them has left something that no later one has finished.

    With a schedule of minutes, a gap of the night is hundreds of runs old before the next night closes it.
    """
    runs = control.receipts(_RUNS)
    gaps = {(_kind(run), gap.stream) for run in control.receipts_with_gaps() for gap in run.gaps}
    begun = {walk.run_id for walk, _ in control.unfinished_walks()}
    older = runs
    while older and (gaps or begun):
        gaps -= {judged for run in older for judged in _judged_by(run)}
        begun -= {run.run_id for run in older}
        older = control.receipts(_RUNS, after=len(runs)) if gaps or begun else []
        runs += older
    return [run for run in runs if run.command != ONLY_ARCHIVED]


def _kind(run: Receipt) -> str:
    return run.command.split(" ", 1)[0]


def _judged_by(run: Receipt) -> set[tuple[str, str]]:
    """The kind of a run, with each stream whose gaps it names, or has closed.

    A sync since a time closes none: what changed between the last reading and that time is still missing.
    """
    closed = () if _kind(run) == "sync" and "--since=" in run.command else run.streams
    return {(_kind(run), name) for name in (*closed, *(gap.stream for gap in run.gaps))}


def _find_gaps(runs: list[Receipt]) -> list[_Gap]:
    """The gaps of syncs and reconciliations that no later one has closed, and those of the last run of all.

    Missing rights and records that can't be read are left out: they have notices of their own.

    Args:
        runs: newest first.
    """
    gaps: list[_Gap] = []
    judged: set[tuple[str, str]] = set()
    for number, run in enumerate(runs):
        if run.finished_at is None:
            continue
        kind = _kind(run)
        if number == 0 or kind in ("sync", "reconcile"):
            gaps += [
                _Gap(run, gap)
                for gap in run.gaps
                if (kind, gap.stream) not in judged and gap.kind not in ("rights", "quarantined")
            ]
        judged |= _judged_by(run)
    return gaps


def _find_unloaded(runs: list[Receipt], left_over: Iterable[tuple[Walk, str]], known: Collection[str]) -> list[_Gap]:
    """The streams of which pages are not in the warehouse, without a receipt that says so.

    A killed run has read them in part, and no run since; or the warehouse was lost, and no run since has loaded them.

    Args:
        runs: newest first. The newest may still work, and has a notice of its own if it was killed.
        left_over: the walks of lists that are not in the warehouse, each with its state.
        known: the streams that have a gap.
    """
    by_id = {run.run_id: run for run in runs if run.finished_at or run is not runs[0]}
    found: dict[str, _Gap] = {}
    for walk, state in left_over:
        run = by_id.get(walk.run_id)
        if run is None or walk.stream in known:
            continue
        if run.finished_at is None:
            why = "the run was killed before its last page"
            found[walk.stream] = _Gap(run, IncompleteStream(walk.stream, "stopped", why))
        elif state == "sealed":
            why = "the warehouse was lost, and what it had is in the raw archive only"
            found.setdefault(walk.stream, _Gap(run, IncompleteStream(walk.stream, "incomplete", why)))
    return list(found.values())


def _describe_last_run(runs: list[Receipt], running: int | None) -> list[Notice]:
    if not runs or running is not None:
        return []
    last = runs[0]
    if last.finished_at is not None and last.exit_code != 130:
        return []
    is_typed = len(last.command) <= _LONGEST_COMMAND and "--full=" not in last.command  # which only a pipeline has
    how = "was killed" if last.finished_at is None else "was interrupted"
    command = last.command if is_typed else last.command.split(" ", 1)[0]
    return [
        Notice("last run", f"{_shorten(last.command)} {how}; nothing that it has read is lost", f"pdsync {command}")
    ]


def _shorten(command: str) -> str:
    """A command without all the streams that it may name."""
    words = command.split(" ")
    return command if len(words) <= _NAMED + 1 else f"{' '.join(words[: _NAMED + 1])} …"


def _describe_gaps(gaps: list[_Gap]) -> list[Notice]:
    """A notice for each problem; streams with the same one share it."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for each in gaps:
        kind, command = each.gap.kind, each.run.command.split(" ", 1)[0]
        detail = each.gap.detail.split("\n", 1)[0].split(" To find out: ", 1)[0]
        names = groups.setdefault((kind, command, detail), [])
        if each.gap.stream not in names:
            names.append(each.gap.stream)
    notices = []
    for (kind, command, detail), names in groups.items():
        if kind == "forbidden":
            next_command = "pdsync auth login  (with the token of a user who may read it)"
        elif kind in ("fewer", "unknown", "differs"):
            next_command = _with_streams("pdsync reconcile", names)
        elif command in ("sync", "reconcile"):
            next_command = _with_streams(f"pdsync {command}", names)
        else:
            next_command = f"pdsync {next(each.run.command for each in gaps if each.gap.stream in names)}"
        notices.append(Notice(_name(names), f"{kind}: {detail}", next_command))
    return notices


def _describe_stale(streams: list[Freshness], now: datetime, limit: timedelta) -> list[Notice]:
    """A notice that names those of `streams` whose changes were not loaded for longer than `limit`."""
    stale = [each for each in streams if each.complete_until and now - each.complete_until > limit]
    oldest = _oldest(stale)
    if oldest is None:
        return []
    problem = f"no change after {_format_time(oldest)} is loaded ({format_age(now - oldest)})"
    names = [each.stream for each in stale]
    everything = len(stale) == len(streams) and not all(map(_takes_turns, names))
    command = "pdsync sync" if everything else _with_streams("pdsync sync", names)
    return [Notice("every stream" if everything else _name(names), problem, command)]


def _describe_streams(settings: Settings, streams: list[Freshness], now: datetime) -> list[Notice]:
    """Notices about streams that differ from the source, are unverified, or have unreadable records."""
    notices = []
    for each in streams:
        if each.differences and each.compared_at:
            age = format_age(now - each.compared_at)
            problem = f"{each.differences:,} of its rows differed from Pipedrive when last compared ({age} ago)"
            notices.append(Notice(each.stream, problem, f"pdsync reconcile {each.stream} --repair"))
    unverified = [each for each in streams if each.unverified]
    if unverified:
        names = [each.stream for each in unverified]
        rows = sum(each.unverified for each in unverified)
        problem = f"{counted(rows, 'row')} not compared with Pipedrive for {settings.cycle_days} days"
        notices.append(Notice(_name(names), problem, _with_streams("pdsync reconcile", names)))
    unreadable = [each for each in streams if each.unreadable]
    if unreadable:
        problem = f"{counted(sum(each.unreadable for each in unreadable), 'record')} can't be read"
        command = 'pdsync sql "from meta.quarantine"'
        notices.append(Notice(_name([each.stream for each in unreadable]), problem, command))
    return notices


def _find_seen_in_part(control: Control, settings: Settings) -> list[str]:
    """The streams with a list that an administrator's token has not read whole since one that may not see all."""
    read_by_members = control.lists_read_by_members()
    found = []
    for name, stream in catalogue.streams().items():
        version, sources = stream.sources(settings.api)
        if any((name, each.name, version) in read_by_members for each in sources if not each.parent):
            found.append(name)
    return found


def _describe_rights(runs: list[Receipt], seen_in_part: list[str]) -> list[Notice]:
    """What the tokens may not have seen.

    Args:
        runs: newest first.
        seen_in_part: the streams that an administrator's token has to read whole.
    """
    run = find_reader(runs)
    if run is None or (run.is_admin and not seen_in_part):
        return []
    if run.is_admin:
        problem = "an earlier token could not see all records, and this one has not read the lists since"
        return [Notice(_name(seen_in_part), problem, _with_streams("pdsync sync", seen_in_part))]
    rights = f"{run.user} (user {run.user_id}) is not an administrator" if run.user else "it is not an administrator's"
    problem = f"{rights}: records that are hidden from its user are missing"
    return [Notice("token", problem, "pdsync auth login")]


def find_reader(runs: Iterable[Receipt]) -> Receipt | None:
    """Of `runs`, newest first, the newest that knows whose token it had; None if none does."""
    return next((run for run in runs if run.is_admin is not None), None)


def _describe_queue(queue: dict[str, int], pushing: int | None) -> list[Notice]:
    """What needs attention in the queue.

    Args:
        queue: state → number of mutations.
        pushing: the process of a push that is under way.
    """
    notices = []
    left = sum(queue.get(state, 0) for state in LEFT_BY_PUSH)
    if pushing is None and left > queue.get("unknown", 0):
        problem = f"a push was interrupted: {_count_changes(left)} {'remains' if left == 1 else 'remain'}"
        notices.append(Notice("queue", problem, "pdsync push --dry-run"))
    for state, ended in (("conflict", "met a conflict"), ("rejected", "was rejected")):
        if count := queue.get(state):
            verb = ended if count == 1 else ended.replace("was", "were")
            problem = f"{_count_changes(count)} {verb} and {'was' if count == 1 else 'were'} not sent again"
            notices.append(Notice("queue", problem, f"pdsync queue list --state {state}"))
    if reviews := queue.get("needs_review"):
        needs = "needs" if reviews == 1 else "need"
        problem = f"{_count_changes(reviews)} {needs} a review: it is not certain what became of {_pronoun(reviews)}"
        notices.append(Notice("queue", problem, "pdsync queue list --state needs_review"))
    if unknown := queue.get("unknown"):
        problem = (
            f"the answer to {_count_changes(unknown)} was lost: a push finds out what became of {_pronoun(unknown)}"
        )
        notices.append(Notice("queue", problem, "pdsync push"))
    return notices


def _count_changes(count: int) -> str:
    return f"{count:,} change{'' if count == 1 else 's'}"


def _pronoun(count: int) -> str:
    return "it" if count == 1 else "them"


def _with_streams(command: str, names: Iterable[str]) -> str:
    """`command` for some streams; for all, if they are too many to type."""
    streams = [name for name in names if name in catalogue.streams()]
    return shlex.join([*command.split(), *streams]) if len(streams) <= _TYPED else command


def _name(names: list[str]) -> str:
    if len(names) <= _NAMED + 1:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"


def _format_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
