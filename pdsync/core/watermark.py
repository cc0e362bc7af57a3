"""Decides until when a list is complete, and from when its changes are requested next.

Nothing here reads a clock or a file. All times are UTC; those of walks are the server's (`core.server_clock`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec import Struct

from pdsync.core.server_clock import TRUST


class Checkpoint(Struct, frozen=True):
    """How far a list was read."""

    watermark: datetime  # it is complete until then
    full_at: datetime | None  # when it was last read whole
    newest: datetime | None  # nothing that changed before was missed, by the records' own times; None: not known


def advance(
    before: Checkpoint | None,
    *,
    since: datetime | None,
    started_at: datetime,
    ended_at: datetime | None,
    is_whole: bool,
    newest: datetime | None,
) -> Checkpoint | None:
    """The checkpoint after a walk that was read to its end; None if it does not move.

    The list is complete until the moment its walk began: never the largest time seen, backwards, or past a gap. A walk
    of the changes since some time says nothing about earlier ones. Where the list was not read until then, the
    watermark does not move, and the next sync reads the list from there, or whole. A walk that ended before it began,
    because a clock was ahead and was corrected, has no beginning that could be trusted.

    Args:
        before: the checkpoint before the walk; None if the list was never read.
        since: the walk read the changes since then; None if all of the list.
        started_at: when its first page was served.
        ended_at: when its last record was served; None if it has none.
        is_whole: whether it has read all of the list.
        newest: the newest change of a record that is stored now; None where records have no time of change.
    """
    if since is not None and not is_whole and (not before or before.watermark < since):
        return None
    if ended_at and ended_at < started_at - TRUST:
        return None
    watermark, full_at = started_at, started_at if is_whole else None
    if before:
        watermark, full_at = max(watermark, before.watermark), full_at or before.full_at
    if newest is not None:  # less the time that the walk took: what changed meanwhile may have been missed
        took = max(ended_at - started_at, timedelta(0)) if ended_at else timedelta(0)
        newest = min(newest - took, watermark)
        if before and before.newest and since is not None and not is_whole and since > before.newest:
            newest = min(newest, before.newest)  # if the clock was ahead, what changed between them was never read
    return Checkpoint(watermark, full_at, newest)


def resume_point(watermark: datetime, newest: datetime | None, overlap: timedelta) -> datetime:
    """The time from which the next walk of a list requests changes.

    Args:
        watermark: when the last walk began, by the server's clock.
        newest: the newest change that it saw; None if it does not limit the next walk. Other changes of the same second
            may have followed: if the clock was ahead, only the second itself is safe to begin from.
        overlap: for changes that become visible late.
    """
    since = watermark.astimezone(UTC) - overlap
    return since if newest is None else min(since, newest.astimezone(UTC).replace(microsecond=0))


def chosen_point(chosen: datetime, watermark: datetime, resume: datetime) -> datetime:
    """The time from which a walk requests changes, where a user has chosen one.

    A walk that begins at the watermark or before moves it. So it begins no later than the next walk would: what becomes
    visible late may be from the overlap.

    Args:
        chosen: by the user.
        watermark: of the list.
        resume: its resume point.
    """
    return min(chosen, resume) if chosen <= watermark else chosen
