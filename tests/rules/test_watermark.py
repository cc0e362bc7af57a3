"""Whatever clocks, interruptions and changes do: what was not read will be requested by the next walk."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from msgspec import Struct

from pdsync.core.server_clock import ServerClock
from pdsync.core.watermark import Checkpoint, advance, chosen_point, resume_point
from tests.rules import running

START = datetime(2026, 11, 22, tzinfo=UTC)
OVERLAP = timedelta(seconds=600)
HOUR, YEAR = 3600, 365 * 86_400
PAGE = 2  # records
ELAPSED = st.sampled_from((0, 0, 1, 5, 90, 700, 2 * HOUR))
PICK = st.integers(0, 5)
LEAPS = st.sampled_from((0, 3 * HOUR, -3 * HOUR, 24 * HOUR))
# What happens after the first page of a walk: a record changes, a page is read, another session goes on.
MEANWHILE = st.lists(
    st.tuples(
        st.sampled_from(("change", "change", "page", "session")), PICK, LEAPS, st.sampled_from((1, 5, 90, 2 * HOUR))
    ),
    max_size=4,
)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class Record(Struct):
    """A record of the company."""

    changed: int  # its update_time: many share a second
    visible: int  # from when lists show this version
    version: int


class Walk(Struct):
    """A walk of the list, and the page that it has reached."""

    since: datetime | None
    error: int  # of the clock at its first page, in seconds
    position: tuple[int, int] = (-(10**9), 0)  # (time or 0, id) of the last record that was read
    began: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None


class Watermark(running.Machine):
    """Changes records, and reads their list page by page, in sessions whose clocks may be wrong.

    Either clocks differ a little, and changes may become visible late; or a server's clock may be hours off for a
    session, and changes are visible at once. Both together are more than an overlap can cover.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now, self.is_wild = 0, False
        self.records = {id: Record(0, 0, 0) for id in (0, 1, 2, 3)}
        self.versions = 0
        self.loaded: dict[int, Record] = {}
        self.checkpoint: Checkpoint | None = None
        self.walk: Walk | None = None
        self.newest_page: datetime | None = None
        self.floor: datetime | None = None  # the newest page of all earlier sessions
        self.date_error = 0
        self.clock = self.connect(0, 0)

    @initialize(is_wild=st.booleans())
    def choose(self, is_wild: bool) -> None:
        self.is_wild = is_wild

    # The company.

    @rule(which=PICK, delay=st.sampled_from((0, 0, 30, 290)), elapsed=ELAPSED)
    def change(self, which: int, delay: int, elapsed: int) -> None:
        self.now += elapsed
        self.versions += 1
        visible = self.now if self.is_wild else self.now + delay
        before = self.records.get(which)
        if before and before.visible > visible:  # versions become visible in their order
            visible = before.visible
        self.records[which] = Record(self.now, visible, self.versions)

    def shown(self) -> dict[int, Record]:
        return {id: record for id, record in self.records.items() if record.visible <= self.now}

    # Sessions.

    def connect(self, date_error: int, wall_error: int) -> ServerClock:
        """Begin a session: its first answer shows the server's time; a time in the future is corrected then."""
        self.date_error = date_error
        clock = ServerClock(monotonic=lambda: float(self.now), wall=lambda: at(self.now + wall_error))
        self.floor = self.newest_page
        clock.not_before(self.floor)
        clock.read(at(self.now + date_error))
        if clock.is_confirmed and self.checkpoint and self.checkpoint.watermark > clock.now():
            newest = self.checkpoint.newest  # see load.clock_repair
            then = clock.now() - timedelta(seconds=1)
            self.checkpoint = Checkpoint(min(newest, then), newest, newest) if newest else None
        return clock

    @property
    def error(self) -> int:
        return int((self.clock.now() - at(self.now)).total_seconds())

    @rule(
        elapsed=ELAPSED,
        error=st.sampled_from((0, 0, 120, -120)),
        leap=LEAPS,
        wall_error=st.sampled_from((0, 0, 100, 3 * HOUR, -YEAR, YEAR)),
    )
    def begin_session(self, elapsed: int, error: int, leap: int, wall_error: int) -> None:
        self.now += elapsed
        self.clock = self.connect(leap if self.is_wild else error, wall_error)
        # A walk that began while the clock was ahead, and is continued when it is right, has no known beginning:
        # only if it seems to have ended before it began can that be seen.
        if self.walk and self.error < self.walk.error <= self.error + 400 + self.now - self.walk.began:
            self.walk = None

    # Walks.

    def since(self) -> datetime | None:
        before = self.checkpoint
        return resume_point(before.watermark, before.newest, OVERLAP) if before else None

    @rule(
        kind=st.sampled_from(("changes", "whole", "whole", "since")), chosen=st.integers(-800, 10),
        meanwhile=MEANWHILE, is_ended=st.booleans(),
    )  # fmt: skip
    def begin_walk(self, kind: str, chosen: int, meanwhile: list[tuple[str, int, int, int]], is_ended: bool) -> None:
        resume, point = self.since(), at(self.now + chosen)
        if self.checkpoint and resume:
            point = chosen_point(point, self.checkpoint.watermark, resume)
        self.walk = Walk({"changes": resume, "whole": None, "since": point}[kind], self.error)
        if meanwhile:
            self.read_page(self.walk)
        for what, which, leap, elapsed in meanwhile:
            if what == "change":
                self.change(which, 0, elapsed)
            elif what == "page":
                self.read_pages(elapsed, 1)
            else:
                self.begin_session(elapsed, 0, leap, 0)
        while self.walk and is_ended:
            self.read_page(self.walk)

    @rule(leap=st.sampled_from((2 * HOUR, -2 * HOUR, YEAR)))
    def answer_with_a_wrong_date(self, leap: int) -> None:
        """A single answer of a session: its Date is ignored; it is later than the sessions before, as any other."""
        expected = at(self.now + self.error)
        if self.floor and not self.clock.is_confirmed:
            expected = max(expected, self.floor + timedelta(seconds=1))
        self.newest_page = self.clock.read(at(self.now + self.date_error + leap))
        assert self.newest_page == expected
        assert at(self.now + self.error) == expected

    @precondition(lambda self: self.walk)
    @rule(elapsed=ELAPSED, pages=st.integers(1, 3))
    def read_pages(self, elapsed: int, pages: int) -> None:
        self.now += elapsed
        for _ in range(pages):
            if self.walk:
                self.read_page(self.walk)

    def read_page(self, walk: Walk) -> None:
        """All of a list comes in the order of ids, changes in the order of their times."""
        served_at = self.newest_page = self.clock.read(at(self.now + self.date_error))
        if walk.started_at is None:
            walk.started_at, walk.began, walk.error = served_at, self.now, self.error
        shown = {
            (0 if walk.since is None else record.changed, id): record
            for id, record in self.shown().items()
            if walk.since is None or at(record.changed) >= walk.since
        }
        following = sorted(key for key in shown if key > walk.position)
        for key in following[:PAGE]:
            if key[1] not in self.loaded or self.loaded[key[1]].version < shown[key].version:
                self.loaded[key[1]] = shown[key]
            walk.position, walk.ended_at = key, served_at
        if len(following) <= PAGE:
            self.end_walk(walk)

    def end_walk(self, walk: Walk) -> None:
        assert walk.started_at
        before, self.walk = self.checkpoint, None
        changed = [at(record.changed) for record in self.loaded.values()]
        after = advance(
            before, since=walk.since, started_at=walk.started_at, ended_at=walk.ended_at, is_whole=walk.since is None,
            newest=max(changed, default=None),
        )  # fmt: skip
        if after is None:
            return
        assert before is None or after.watermark >= before.watermark, "the watermark moves backwards"
        assert after.watermark in (walk.started_at, before and before.watermark), "it is no time at which a walk began"
        self.checkpoint = after

    @precondition(lambda self: self.walk)
    @rule()
    def lose_the_walk(self) -> None:
        self.walk = None

    @rule()
    def sync(self) -> None:
        """A walk of the changes in one go: all that was visible when it began is loaded."""
        self.walk = walk = Walk(self.since(), self.error)
        shown = self.shown()
        while self.walk is walk:
            self.read_page(walk)
        assert {id: self.loaded[id].version for id in shown} == {id: each.version for id, each in shown.items()}

    @invariant()
    def nothing_is_passed_over(self) -> None:
        """What is visible and not loaded changed after the time from which the next walk requests changes."""
        since = self.since()
        for id, record in self.shown().items():
            if since and (id not in self.loaded or self.loaded[id].version < record.version):
                assert at(record.changed) >= since, f"record {id} is never read again"


MACHINE = Watermark


def test_s3_s4_s5_o5_what_was_not_read_is_requested_by_the_next_walk() -> None:
    running.check(Watermark, running.SLICE)


@pytest.mark.proof
@pytest.mark.timeout(600)  # seconds of a core, which may be shared
def test_s3_s4_s5_o5_what_was_not_read_is_requested_by_the_next_walk_in_a_share_of_100_000_steps() -> None:
    running.check(Watermark, running.SHARE)
