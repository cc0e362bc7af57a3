"""However windows are cut, interrupted and restarted: they cover their time, and each record in it is read."""

from __future__ import annotations

import json
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.answer import Answer
from pdsync.core.control import Control
from pdsync.core.control.windows import Windows
from pdsync.core.list_response import open_envelope
from pdsync.errors import ApiError
from pdsync.extract.windows import WindowProgress, last_change, read
from tests.rules import running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from pdsync.model import Operation, Page, Walk

DEALS = catalogue.stream("deals")
LIST = catalogue.operation("getDeals", "v2")
START = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS = 60  # the time of all windows
PAGE = 3  # records
PICK = st.integers(0, 7)
SHARED = Path("/dev/shm")


def at(seconds: int) -> datetime:
    return START + timedelta(seconds=seconds)


def second(text: str) -> int:
    return int((datetime.fromisoformat(text) - START).total_seconds())


class Reading:
    """The walk of a window in this process."""

    def __init__(self, progress: WindowProgress, after: Page | None = None) -> None:
        self.progress, self.after = progress, after
        self.walk: Walk | None = None
        self.pages: AsyncGenerator[tuple[Page, datetime | None]] | None = None


class WindowCutting(running.Machine):
    """A list of records that is read in windows; the windows are those of control.db."""

    template: Path | None = None

    def __init__(self) -> None:
        super().__init__()
        folder = SHARED if SHARED.is_dir() else None
        self.folder = tempfile.TemporaryDirectory(dir=folder)
        path = Path(self.folder.name) / "control.db"
        shutil.copyfile(self.empty(folder), path)
        self.control = Control(path)
        self.windows = Windows(self.control)
        self.job = 0
        self.records: dict[int, int] = {}  # id → its second
        self.seconds: list[int] = []  # at first
        self.untimed: set[int] = set()  # answers don't show their times
        self.changed: set[int]  # since the windows were planned: the changes are read after them
        self.is_read: set[int]
        self.sealed: dict[int, list[Page]] = {}  # by walk
        self.requested: set[tuple[int, str | None]] = set()  # walk, cursor
        self.forgets_cursors = False
        self.current = 0  # the walk that requests
        self.readings: list[Reading] = []
        self.plan()

    @classmethod
    def empty(cls, folder: Path | None) -> Path:
        """An empty control.db, made once."""
        if cls.template is None:
            cls.template = Path(tempfile.mkdtemp(dir=folder)) / "control.db"
            Control(cls.template).close()
        return cls.template

    def plan(self) -> None:
        """Begin a backfill of its own: one window of all of the time."""
        self.job += 1
        self.windows.plan(str(self.job), [("deals", DEALS.v2[0].name, "v2", LIST.id)], at(0), at(SECONDS))
        self.is_read, self.changed = set(), set()
        self.readings = self.load()

    def teardown(self) -> None:
        for reading in self.readings:
            self.stop(reading)
        self.control.close()
        self.folder.cleanup()

    @initialize(
        seconds=st.lists(st.one_of(st.integers(0, SECONDS - 1), st.just(30)), min_size=4, max_size=14),
        untimed=st.sets(PICK, max_size=2),
    )
    def fill(self, seconds: list[int], untimed: set[int]) -> None:
        self.seconds, self.records = seconds, dict(enumerate(seconds))
        self.untimed = untimed

    # The server.

    async def call(self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None) -> Answer:
        """A page of the list, newest first."""
        query = query or {}
        cursor = query.get("cursor")
        if cursor and self.forgets_cursors:
            self.forgets_cursors = False
            raise ApiError("The cursor is invalid.", status=400, operation=operation.id)
        assert (self.current, cursor) not in self.requested, "a page is requested again"
        since, until = second(query["updated_since"]), second(query["updated_until"])
        shown = [(-moment, id) for id, moment in self.records.items() if since <= moment < until]
        after = tuple(json.loads(cursor)) if cursor else (-(10**9), 0)
        following = sorted(each for each in shown if each > after)
        page = following[:PAGE]
        following_cursor = json.dumps(page[-1]) if len(following) > PAGE else None
        body = {
            "success": True,
            "data": [{"id": id, "update_time": self.time_of(id, -negated)} for negated, id in page],
            "additional_data": {"next_cursor": following_cursor},
        }
        return Answer(200, {}, json.dumps(body).encode(), at(SECONDS))

    def time_of(self, id: int, moment: int) -> str | None:
        return None if id in self.untimed else at(moment).strftime("%Y-%m-%dT%H:%M:%SZ")

    @rule(which=PICK)
    def change(self, which: int) -> None:
        if which in self.records:
            self.records[which] = SECONDS + 5
            self.changed.add(which)

    @rule()
    def forget_cursors(self) -> None:
        self.forgets_cursors = True

    # Reading, as `runner.sync.window_reader` does.

    def load(self) -> list[Reading]:
        """The windows that are left, each with the progress of its sealed pages."""
        readings = []
        for window, _ in self.windows.unfinished(str(self.job)):
            progress = WindowProgress(window, page_rows=PAGE, divisible=True)
            pages = self.sealed.get(window.walk or 0, [])
            if pages:
                opened = replace(pages[-1], records=open_envelope(pages[-1].body, LIST).records)
                progress.advance(sum(page.rows for page in pages), last_change(opened, "update_time", window.until))
            readings.append(Reading(progress, pages[-1] if pages else None))
        return readings

    def begin(self, reading: Reading) -> None:
        window = reading.progress.window
        if window.walk is None:
            reading.walk = self.windows.begin(window, "run")
            reading.progress.window = replace(window, walk=reading.walk.id)
        else:
            reading.walk = self.control.walk(window.walk)
        reading.pages = read(self, DEALS, DEALS.v2[0], LIST, reading.walk, reading.progress, after=reading.after)

    def restart(self, reading: Reading) -> None:
        """Begin a window again, with a new walk: its cursor is not valid any more."""
        window = reading.progress.window
        walk = self.windows.begin(window, "run")
        window = replace(window, walk=walk.id, asked_since=window.since, asked_until=window.until)
        position = self.readings.index(reading)
        self.stop(reading)
        self.readings[position] = Reading(WindowProgress(window, page_rows=PAGE, divisible=True))

    @staticmethod
    def stop(reading: Reading) -> None:
        if reading.pages:
            with pytest.raises(StopIteration):
                reading.pages.aclose().__await__().send(None)

    @precondition(lambda self: self.readings)
    @rule(which=PICK, count=st.integers(1, 2), is_killed=st.sampled_from((False, False, False, True)))
    def read_pages(self, which: int, count: int, is_killed: bool) -> None:
        for _ in range(count):
            if self.readings:
                self.read_page(self.readings[which % len(self.readings)], is_killed=is_killed)

    def read_page(self, reading: Reading, *, is_killed: bool) -> None:
        if reading.pages is None:
            self.begin(reading)
        assert reading.pages
        assert reading.walk
        self.current = reading.walk.id
        try:
            reading.pages.__anext__().__await__().send(None)
        except StopIteration as yielded:
            page, reached = yielded.value
        except ApiError:
            self.restart(reading)
            return
        if is_killed:
            self.kill()  # before the page is sealed
            return
        reading.progress.advance(page.rows, reached)
        self.requested.add((self.current, page.cursor))
        self.sealed.setdefault(self.current, []).append(replace(page, records=None))
        self.is_read |= {json.loads(bytes(record))["id"] for record in page.records}
        if page.next is None:
            self.stop(reading)
            self.readings.remove(reading)
            self.control.end_walk(self.current, "applied")

    @rule()
    def kill(self) -> None:
        for reading in self.readings:
            self.stop(reading)
        self.readings = self.load()

    @precondition(lambda self: self.readings)
    @rule(which=PICK, walks=st.integers(2, 9), place=st.integers(0, SECONDS))
    def cut(self, which: int, walks: int, place: int) -> None:
        """Cut a window where it is worth it; or else anywhere between its beginning and its walk's position."""
        progress = self.readings[which % len(self.readings)].progress
        moment = progress.cut_at(walks)
        seconds = int((progress.reached - progress.window.since).total_seconds())
        if moment is None and seconds > 1 and progress.rows:
            moment = progress.window.since + timedelta(seconds=1 + place % (seconds - 1))
        if moment is not None:
            assert progress.window.since < moment < progress.reached, "the cut is not in what is left"
            progress.window, older = self.windows.cut(progress.window, moment)
            self.readings.append(Reading(WindowProgress(older, page_rows=PAGE, divisible=True)))

    @precondition(lambda self: 2 * len(self.is_read) > len(self.records) or not self.readings)
    @rule()
    def finish(self) -> None:
        """Read all that is left: no record of the windows is missing that has not changed since."""
        for _ in range(1000):
            if not self.readings:
                break
            self.read_page(self.readings[-1], is_killed=False)
        assert not self.readings
        assert set(self.records) - self.changed <= self.is_read, "a record is never read"
        self.records = dict(enumerate(self.seconds))
        self.plan()

    @invariant()
    def windows_cover_their_time(self) -> None:
        spans = self.control.rows("SELECT since, until FROM windows WHERE job = ? ORDER BY since", str(self.job))
        moments: list[Any] = [at(0).isoformat()]
        for since, until in spans:
            assert since == moments[-1] < str(until), "windows overlap, or leave a hole"
            moments.append(until)
        assert moments[-1] == at(SECONDS).isoformat()


MACHINE = WindowCutting


def test_s3_s5_each_record_is_read_however_windows_are_cut() -> None:
    running.check(WindowCutting, running.SLICE)


@pytest.mark.proof
@pytest.mark.timeout(600)  # seconds of a core, which may be shared
def test_s3_s5_each_record_is_read_however_windows_are_cut_in_a_share_of_100_000_steps() -> None:
    running.check(WindowCutting, running.SHARE)
