"""Two budgets: no two seconds of the server's hold more than the limit, and no day more than its tokens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from pdsync.core.budget import Budget
from pdsync.core.request import Request
from pdsync.core.token_ledger import tokens_left
from pdsync.errors import BudgetSpent, CoolingDown, StorageError

from .servers import TOKEN, client, ended, ledger, python, server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WORKER = """
import asyncio, sys
from pathlib import Path
from pdsync.core import catalogue
from pdsync.core.budget import Budget
from pdsync.core.credentials import ApiToken
from pdsync.core.http import Http

async def work(path, url, token, burst, count):
    budget = Budget(Path(path), token, burst=int(burst), daily_tokens=0)
    async with Http(url, ApiToken(token), budget) as http:
        await asyncio.gather(*(http.call(catalogue.operations("v2")["getDeals"]) for _ in range(int(count))))
    budget.close()

asyncio.run(work(*sys.argv[1:]))
"""
HOLDER = """
import asyncio, sys
from pathlib import Path
from pdsync.core.budget import Budget

async def hold(path, token, burst):
    budget = Budget(Path(path), token, burst=int(burst), daily_tokens=0)
    under_way = [budget.spend(10) for _ in range(int(burst))]
    for each in under_way:
        await each.__aenter__()
    print("holding", flush=True)
    sys.stdin.readline()

asyncio.run(hold(*sys.argv[1:]))
"""


@pytest.fixture
def budget(tmp_path: Path) -> Iterator[Callable[..., Budget]]:
    """Makes budgets that share one ledger, as several processes would."""
    path = ledger(tmp_path)
    made: list[Budget] = []

    def make(*, token: str = TOKEN, burst: int = 0, daily_tokens: int = 0, run_tokens: int | None = None) -> Budget:
        made.append(Budget(path, token, burst=burst, daily_tokens=daily_tokens, run_tokens=run_tokens))
        return made[-1]

    yield make
    for each in made:
        each.close()


async def spend(budget: Budget, cost: int, *, takes_s: float = 0.0) -> None:
    async with budget.spend(cost):
        await asyncio.sleep(takes_s)


async def is_let_through(budget: Budget, within_s: float) -> bool:
    try:
        await asyncio.wait_for(spend(budget, 1), within_s)
    except TimeoutError:
        return False
    return True


class Far:
    """A server behind a network that delays each request, and each answer, by up to `jitter_s`; when requests came."""

    def __init__(self, jitter_s: float) -> None:
        self.jitter_s, self.arrivals = jitter_s, list[float]()
        self._random = random.Random(7)

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(self._random.uniform(0, self.jitter_s))
        self.arrivals.append(time.monotonic())
        await asyncio.sleep(self._random.uniform(0, self.jitter_s))
        return web.Response(body=b'{"success":true,"data":[]}')

    def densest(self) -> int:
        """The most requests in any two seconds."""
        return max(sum(0 <= other - first < 2.0 for other in self.arrivals) for first in self.arrivals)


# The rolling window.


async def test_l1_no_two_seconds_of_the_server_hold_more_than_the_limit(tmp_path: Path) -> None:
    async def arrivals(jitter_s: float) -> Far:
        far = Far(jitter_s)
        async with server(far) as url, client(url, tmp_path / str(jitter_s), burst=10) as http:
            await asyncio.gather(*(http.send(Request(method="GET", path="/", cost=1, label="x")) for _ in range(22)))
        return far

    for far in await asyncio.gather(arrivals(0.0), arrivals(0.15), arrivals(0.4)):
        assert len(far.arrivals) == 22
        assert far.densest() <= 10


async def test_l1_three_processes_with_one_token_share_the_window(tmp_path: Path) -> None:
    far, path = Far(0.3), ledger(tmp_path)
    async with server(far) as url:
        workers = [python(WORKER, path, url, TOKEN, 9, 6) for _ in range(3)]
        results = await asyncio.gather(*(asyncio.to_thread(ended, worker) for worker in workers))
    assert [(code, err) for code, _, err in results] == [(0, "")] * 3
    assert len(far.arrivals) == 18
    assert far.densest() <= 9


async def test_l1_searches_have_a_smaller_window_besides(tmp_path: Path, budget: Callable[..., Budget]) -> None:
    mine, other, stranger = budget(burst=12), budget(burst=12), budget(burst=12, token="another-token")
    for _ in range(10):
        async with mine.spend(1, search=True):
            pass

    async def finds(one: Budget, within_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s), one.spend(1, search=True):
                return True
        return False

    assert not await finds(mine, 0.3)
    assert not await finds(other, 0.3)
    assert await finds(stranger, 5)
    assert await is_let_through(other, 1)  # ten searches and this one: the window of all has one place left
    assert await is_let_through(mine, 1)
    assert not await is_let_through(other, 0.3)
    assert await finds(mine, 10)
    assert mine.requests + other.requests == 13
    assert sqlite3.connect(tmp_path / "control.db").execute(
        "SELECT count(*) FROM requests WHERE done IS NULL"
    ).fetchall() == [(0,)]


async def test_l1_of_many_waiting_requests_one_at_a_time_looks_at_the_ledger(budget: Callable[..., Budget]) -> None:
    mine, looks = budget(burst=3), list[str]()
    for _ in range(3):
        await spend(mine, 1)
    mine._db.set_trace_callback(lambda statement: looks.append(statement) if "BEGIN" in statement else None)
    waiting = [asyncio.create_task(spend(mine, 1)) for _ in range(30)]
    await asyncio.sleep(1)
    assert 1 <= len(looks) <= 3
    waiting.pop(0).cancel()  # the first in line: the next one takes its turn
    for _ in range(3):
        ended, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        waiting = [each for each in waiting if each not in ended]
    for each in waiting:
        each.cancel()
    assert mine.requests >= 6


async def test_l1_waiting_searches_hold_no_other_request_up(budget: Callable[..., Budget]) -> None:
    mine = budget(burst=20)
    for _ in range(10):
        async with mine.spend(1, search=True):
            pass
    searches = [asyncio.create_task(mine.spend(1, search=True).__aenter__()) for _ in range(5)]
    await asyncio.sleep(0.1)
    assert await is_let_through(mine, 0.5)
    assert not any(each.done() for each in searches)
    for each in searches:
        each.cancel()


async def test_the_places_of_a_killed_process_become_free(tmp_path: Path, budget: Callable[..., Budget]) -> None:
    mine = budget(burst=3)
    holder = python(HOLDER, tmp_path / "control.db", TOKEN, 3)
    assert holder.stdout is not None
    try:
        assert await asyncio.to_thread(holder.stdout.readline) == "holding\n"
        assert not await is_let_through(mine, 2.3)  # requests under way count however long they take
    finally:
        holder.kill()
        ended(holder)
    assert await is_let_through(mine, 10)


async def test_places_are_given_back_when_a_request_fails_or_is_cancelled(budget: Callable[..., Budget]) -> None:
    mine, other, begun = budget(burst=2), budget(burst=2), asyncio.Event()

    async def stuck() -> None:
        async with mine.spend(1):
            begun.set()
            await asyncio.Event().wait()

    with contextlib.suppress(ZeroDivisionError):
        async with mine.spend(1):
            raise ZeroDivisionError
    task = asyncio.create_task(stuck())
    await begun.wait()
    task.cancel()
    assert not await is_let_through(other, 0.5)  # they still count for two seconds
    assert await is_let_through(other, 10)


async def test_another_token_has_a_window_of_its_own(budget: Callable[..., Budget]) -> None:
    mine, other = budget(burst=1), budget(burst=1, token="another-token")
    async with mine.spend(1):
        assert not await is_let_through(mine, 0.2)
        assert await is_let_through(other, 5)


async def test_l3_a_pause_holds_for_every_process_of_the_token(budget: Callable[..., Budget]) -> None:
    mine, other, stranger = budget(burst=50), budget(burst=50), budget(burst=50, token="another-token")
    mine.pause(1.0)
    assert await is_let_through(stranger, 0.5)
    assert list(await asyncio.gather(is_let_through(mine, 0.6), is_let_through(other, 0.6))) == [False, False]
    assert list(await asyncio.gather(is_let_through(mine, 10), is_let_through(other, 10))) == [True, True]


async def test_l3_a_shorter_pause_does_not_cut_a_longer_one(budget: Callable[..., Budget]) -> None:
    mine, other = budget(burst=50), budget(burst=50)
    mine.pause(30)
    mine.pause(0.5)
    assert not await is_let_through(other, 0.9)


async def test_l3_a_pause_holds_for_those_without_limits_too(budget: Callable[..., Budget]) -> None:
    mine, other = budget(), budget()
    mine.pause(30)
    assert not await is_let_through(mine, 0.2)
    assert not await is_let_through(other, 0.2)


async def test_a_limit_of_zero_is_none(budget: Callable[..., Budget]) -> None:
    free = budget()
    async with contextlib.AsyncExitStack() as under_way:
        for _ in range(200):  # all at once: with any limit this would never end
            await under_way.enter_async_context(free.spend(1_000_000))
    assert free.left() == (None, 0)
    assert (free.requests, free.spent) == (200, 200_000_000)


async def test_only_a_hash_of_the_token_is_stored(budget: Callable[..., Budget], tmp_path: Path) -> None:
    mine = budget(burst=3, daily_tokens=100)
    async with mine.spend(1):
        mine.pause(1)
        for file in tmp_path.glob("control.db*"):
            assert TOKEN.encode() not in file.read_bytes()


# The day's tokens.


async def test_l5_the_day_ends_before_it_is_overspent(budget: Callable[..., Budget]) -> None:
    mine = budget(daily_tokens=100)
    for _ in range(4):
        await spend(mine, 25)
    with pytest.raises(BudgetSpent) as caught:
        await spend(mine, 1)
    assert (caught.value.spent, caught.value.limit) == (100, 100)
    assert caught.value.resets_at is not None
    assert mine.requests == 4


async def test_l5_processes_share_the_day(budget: Callable[..., Budget]) -> None:
    mine, other = budget(daily_tokens=100), budget(daily_tokens=100)
    await spend(mine, 60)
    assert other.left() == (40, 100)
    with pytest.raises(BudgetSpent):
        await spend(other, 41)
    await spend(other, 40)
    assert mine.left() == (0, 100)


async def test_l5_what_the_server_says_is_left_counts_for_more_than_our_sum(budget: Callable[..., Budget]) -> None:
    mine = budget(daily_tokens=100)
    await spend(mine, 10)
    mine.observe(limit=1000, remaining=30)  # others have spent
    assert mine.left() == (30, 1000)
    await spend(mine, 20)
    assert mine.left() == (10, 1000)
    with pytest.raises(BudgetSpent):
        await spend(mine, 11)
    mine.observe(remaining=900)  # there is more than we thought
    assert mine.left() == (900, 1000)
    await spend(mine, 11)
    assert mine.left() == (889, 1000)
    mine.observe(limit=5)  # says nothing of what is left
    assert mine.left() == (889, 1000)


async def test_l5_a_run_stops_at_its_own_budget(budget: Callable[..., Budget]) -> None:
    mine = budget(daily_tokens=1000, run_tokens=30)
    await spend(mine, 20)
    with pytest.raises(BudgetSpent, match="--budget") as caught:
        await spend(mine, 11)
    assert (caught.value.spent, caught.value.limit, caught.value.resets_at) == (20, 30, None)
    await spend(mine, 10)
    assert mine.left() == (970, 1000)


@pytest.mark.parametrize("burst", [0, 10])
@pytest.mark.parametrize("limits", [{"run_tokens": 30}, {"daily_tokens": 30}], ids=["run", "day"])
async def test_l5_requests_that_wait_side_by_side_don_t_overspend(
    budget: Callable[..., Budget], burst: int, limits: dict[str, int]
) -> None:
    mine, other = budget(burst=burst, **limits), budget(burst=burst, **limits)
    sharing = [mine, other] if "daily_tokens" in limits else [mine]
    found = await asyncio.gather(
        *(spend(each, 10, takes_s=0.05) for _ in range(8) for each in sharing), return_exceptions=True
    )
    assert sum(error is None for error in found) == 3
    assert all(isinstance(error, BudgetSpent) for error in found if error is not None)
    assert mine.spent + other.spent == 30


async def test_an_exhausted_day_is_over_for_every_process(budget: Callable[..., Budget]) -> None:
    mine, other = budget(daily_tokens=500), budget(daily_tokens=500)
    await spend(mine, 10)
    error = mine.exhausted()
    assert (error.spent, error.limit) == (500, 500)
    assert error.resets_at is not None
    assert (error.resets_at.hour, error.resets_at.minute) == (0, 0)
    assert other.left() == (0, 500)
    with pytest.raises(BudgetSpent):
        await spend(other, 1)


@pytest.mark.parametrize("burst", [0, 5])
async def test_l3_an_exhausted_day_is_over_without_a_limit_too(budget: Callable[..., Budget], burst: int) -> None:
    mine, later = budget(burst=burst), budget(burst=burst)
    await spend(mine, 10)
    assert "0 of 0" not in str(mine.exhausted())
    with pytest.raises(BudgetSpent) as stopped:
        await spend(mine, 1)
    assert stopped.value.resets_at is not None
    assert "0 of 0" not in str(stopped.value)
    await spend(later, 1)  # a run that begins later tries again


async def test_the_next_day_has_the_whole_budget(budget: Callable[..., Budget], tmp_path: Path) -> None:
    mine = budget(daily_tokens=500)
    mine.exhausted()
    with contextlib.closing(sqlite3.connect(tmp_path / "control.db")) as db, db:
        db.execute("UPDATE tokens SET day = '2001-01-01'")
    assert mine.left() == (500, 500)
    with contextlib.closing(sqlite3.connect(tmp_path / "control.db")) as db:
        assert tokens_left(db, 500) == (500, 500)


# Abuse protection.


def _until(path: Path) -> float:
    with contextlib.closing(sqlite3.connect(path / "control.db")) as db:
        return float(db.execute("SELECT until - ? FROM pauses WHERE kind = 'blocked'", (time.time(),)).fetchone()[0])


def _let_time_pass(path: Path) -> None:
    """As if the silence had been kept."""
    with contextlib.closing(sqlite3.connect(path / "control.db")) as db, db:
        db.execute("UPDATE pauses SET until = ? WHERE kind = 'blocked'", (time.time() - 1,))


async def test_l4_each_block_in_a_row_silences_twice_as_long(budget: Callable[..., Budget], tmp_path: Path) -> None:
    minutes = []
    for _ in range(9):
        blocked = budget()
        await spend(blocked, 1)
        blocked.cool_down()
        blocked.cool_down()  # requests under way meet the same block: it counts once
        minutes.append(round(_until(tmp_path) / 60))
        with pytest.raises(CoolingDown):
            await spend(blocked, 1)
        with pytest.raises(CoolingDown):
            budget()
        _let_time_pass(tmp_path)
    assert minutes == [10, 20, 40, 80, 160, 320, 640, 640, 640]


async def test_l4_an_ordinary_answer_ends_the_doubling(budget: Callable[..., Budget], tmp_path: Path) -> None:
    first = budget()
    first.cool_down()
    first.calm()  # a request that was under way when the block began proves nothing
    _let_time_pass(tmp_path)
    second = budget()
    second.cool_down()
    assert round(_until(tmp_path) / 60) == 20
    _let_time_pass(tmp_path)
    third = budget()
    await spend(third, 1)
    third.calm()
    fourth = budget()
    fourth.cool_down()
    assert round(_until(tmp_path) / 60) == 10


@pytest.mark.parametrize("same_process", [True, False])
async def test_l4_an_answer_that_was_under_way_does_not_end_the_next_block(
    budget: Callable[..., Budget], tmp_path: Path, same_process: bool
) -> None:
    budget().cool_down()
    _let_time_pass(tmp_path)
    sending, other = budget(), budget()
    await spend(sending, 1)  # two requests leave after the pause: one is blocked again, the other was served before
    (sending if same_process else other).cool_down()
    sending.calm()
    with pytest.raises(CoolingDown):
        await spend(sending, 1)
    assert round(_until(tmp_path) / 60) == 20


async def test_o5_a_block_from_a_clock_that_was_a_year_ahead_does_not_last_a_year(
    budget: Callable[..., Budget], tmp_path: Path
) -> None:
    budget().cool_down()
    with contextlib.closing(sqlite3.connect(tmp_path / "control.db")) as db, db:
        db.execute("UPDATE pauses SET until = until + 31536000")
    await spend(budget(), 1)


async def test_o5_rows_from_before_a_reboot_delay_no_request(budget: Callable[..., Budget], tmp_path: Path) -> None:
    mine = budget(burst=2)
    async with mine.spend(1), mine.spend(1):
        mine.pause(30)
        with contextlib.closing(sqlite3.connect(tmp_path / "control.db")) as db, db:
            db.execute("UPDATE requests SET sent = sent + 1e7, done = sent + 1e7")
            db.execute("UPDATE pauses SET until = until + 1e7")
        assert await is_let_through(budget(burst=2), 5)


def test_a_ledger_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StorageError, match=r"control\.db"):
        Budget(path, TOKEN, burst=1, daily_tokens=0)


async def test_l1_a_lost_request_does_not_count_for_ever_where_another_process_has_its_number(
    budget: Callable[..., Budget], tmp_path: Path
) -> None:
    mine = budget(burst=2)
    with contextlib.closing(sqlite3.connect(tmp_path / "control.db")) as db, db:
        for age_s in (1.0, 2 * 3600.0):  # pid 1 is always alive
            db.execute(
                "INSERT INTO requests (token, pid, sent) VALUES (?, 1, ?)", (mine._token, time.monotonic() - age_s)
            )
    assert await is_let_through(mine, 1)
    assert not await is_let_through(mine, 0.3)


async def test_s1_l1_a_killed_process_with_the_same_number_holds_no_place_for_an_hour(
    budget: Callable[..., Budget], tmp_path: Path
) -> None:
    """In a container each run may have the same number, and is alive whenever it looks."""
    holder = python(HOLDER, ledger(tmp_path), TOKEN, 3)
    assert holder.stdout is not None
    assert await asyncio.to_thread(holder.stdout.readline) == "holding\n"
    holder.kill()
    ended(holder)
    with contextlib.closing(sqlite3.connect(tmp_path / "control.db")) as db, db:
        db.execute("UPDATE requests SET pid = ?", (os.getpid(),))
    mine = budget(burst=3)
    assert not await is_let_through(mine, 1)  # the requests may have arrived just now
    assert await is_let_through(mine, 3)
    async with mine.spend(1), mine.spend(1), mine.spend(1):
        assert not await is_let_through(budget(burst=3), 2.5)  # another client of this process ends none of them
