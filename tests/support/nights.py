"""Simulates nights of a small company with all kinds of failures, all of them chosen by one seed.

    with Nights(folder, seed=1) as nights:
        for _ in range(30):
            nights.night()     # what is wrong after it: [] is right
        nights.counts          # what has happened

By day users change records, sometimes without an update_time, and changes are queued. In the evening stores of the
project are lost, truncated, or restored from an earlier day. At night pdsync syncs and pushes under faults, is killed,
runs twice at once, and gets a wrong time from the server or from its own machine. Then the failures end: the next
commands must end with the right tables, or refuse with instructions, which are followed to the letter and must lead
there. After each night the tables are compared with the sandbox's own records cell by cell (columns that no list of
changes shows only after a deep reconciliation), and every mutation with its journal.

The random numbers of a night come from the seed and its number alone, whatever happened in the nights before. Only the
losses of stores are dealt in turn through all nights.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from pdsync.sandbox import Clock, Company, Limits, Sizes, generate_company, running
from tests.model import oracle
from tests.model.company import BORN, KINDS, MERGED, Work
from tests.support import places
from tests.support.forks import Forks
from tests.support.ledger import Ledger
from tests.support.stores import LOSSES, Loss, Stores
from tests.support.truth import BLIND, differences
from tests.support.world import Project

if TYPE_CHECKING:
    from types import TracebackType

    from tests.model.company import Place
    from tests.support.world import Ran

DAY_S = 86_400
HOUR_S = 3600
WEEK = 7  # nights between two reconciliations
DISTURBANCES = ("faults", "kills", "pairs", "stores", "clocks", "pushes", "live")
SYNCED = (*KINDS, "pipelines", "stages", "users")
SYNC = ("sync", *SYNCED, "--json")
RECONCILE = ("reconcile", *SYNCED, "--repair", "--max-tombstones", "1000", "--json")
PUSH = ("push", "--yes", "--allow", "delete,merge", "--max-changes", "1000", "--max-deletes", "1000",
        "--settle-seconds", "0.1", "--json")  # fmt: skip
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "reset_before", "probability": 0.05},
    {"kind": "reset_after", "probability": 0.06},
    {"kind": "status", "status": 502, "when": "after", "probability": 0.05},
    {"kind": "status", "status": 503, "probability": 0.2},
    {"kind": "status", "status": 500, "path": "/(deals|persons)", "probability": 0.5},
    {"kind": "truncate", "probability": 0.05},
    {"kind": "html_200", "probability": 0.02},
    {"kind": "timeout", "seconds": 0.3, "when": "after", "probability": 0.02},
    {"kind": "burst_429", "headers": {"x-ratelimit-reset": "1"}, "probability": 0.02},
    {"kind": "invalid_cursor", "path": "cursor=", "probability": 0.3},
    {"kind": "reset_after", "method": "POST", "nth": 1, "times": 2},
    {"kind": "reset_after", "method": "PATCH", "nth": 1, "times": 2},
    {"kind": "status", "status": 502, "when": "after", "method": "DELETE", "nth": 1},
    {"kind": "reset_before", "method": "POST", "nth": 2},
)
PLACES = {"sync": places.SYNC, "push": places.PUSH, "reconcile": places.RECONCILE}
SKEWS_S = (600, 3 * HOUR_S, 9 * HOUR_S, DAY_S, -3 * HOUR_S, -DAY_S)
MOST_TRIES = 8
# The commands in instructions that change this project.
WAYS = {"sync", "replay", "reconcile", "raw", "doctor", "backfill"}
NAMED = re.compile(r"\b(?:mv|rm) [^\s()]+(?: [^\s()]+)?|\bpdsync [a-z]+(?: (?:--[a-z-]+|verify|prune))*")
CONSENT = {"raw prune": ("--yes",)}


class Server(Clock):
    """The company's clock; the `Date` header of the server may differ from it."""

    ahead_s = 0.0

    def http_date(self) -> str:
        return formatdate(int(self.seconds() + self.ahead_s), usegmt=True)


def small(seed: int) -> Company:
    """A company with a few dozen records of each kind; its clock is the true time."""
    sizes = Sizes(deals=40, persons=24, organizations=12, products=9, activities=24, files=0, mail_threads=0, users=4,
                  pipelines=2)  # fmt: skip
    company = generate_company(seed=seed, sizes=sizes, now=BORN)
    company.clock = Server(datetime.now(UTC).replace(microsecond=0))
    return company


class Nights:
    """One project through the nights of one seed.

    Args:
        folder: for the project and the copies of its stores.
        seed: of everything that happens.
        without: of `DISTURBANCES`, those that do not happen.
    """

    def __init__(self, folder: Path, seed: int = 1, without: frozenset[str] = frozenset()) -> None:
        self.folder, self.seed = folder, seed
        self.does = frozenset(DISTURBANCES) - without
        self.number = 0
        self.counts: Counter[str] = Counter()
        self.losses: set[Loss] = set()  # combinations that have happened
        self.story: list[str] = []  # of the night
        self.tombstones = 0  # that were compared with the source
        self.local_s = 0.0  # how far this machine's clock is ahead of the true time
        self.silent: dict[Place, str] = {}  # records that were changed without a new update_time → that time
        self._ever_silent: dict[
            Place, str
        ] = {}  # those of all nights: an older warehouse does not have these changes either
        self.unseen: set[Place] = set()  # gone since the last reconciliation
        self._gone: set[Place] = set()
        self._deck = list(LOSSES)
        Random(0).shuffle(self._deck)
        self._card = (seed - 1) * len(LOSSES) // 3

    def __enter__(self) -> Nights:
        with ExitStack() as stack:
            free = Limits(burst=None, search_burst=None, daily_tokens=None)
            self.box = stack.enter_context(running(small(self.seed), limits=free))
            self.forks = [stack.enter_context(Forks()) for _ in range(2)]
            self._threads = stack.enter_context(ThreadPoolExecutor(2))
            self.project = Project(self.folder / "project").configure(base_url=self.box.url, api_token=self.box.token)
            self.project.env["TZ"] = "UTC"
            self.stores = Stores(self.project.data, self.folder / "copies")
            self.work = Work(self.box)
            self._born_s = self.box.company.clock.seconds()
            self.ledger = Ledger(self.project, self.box, self.work)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def night(self, *, last: bool = False) -> list[str]:
        """A day and the night that follows it; the last one ends with a deep reconciliation."""
        self.number += 1
        self.story = []
        self.dice = Random(f"{self.seed}/{self.number}")
        wrong = self._day()
        self._set_clocks()
        if self.number > 1:
            self._lose(0.8)
            wrong += self._trouble()
            self._lose(0.6)
        wrong += self._calm()
        deep = last or self.number % (2 * WEEK) == 0
        if last or self.number % WEEK == 0:
            wrong += self._reconcile(deep=deep)
        if not wrong:
            wrong += self._compared(whole=deep) + self.ledger.wrong()
        return wrong

    # By day.

    def _day(self) -> list[str]:
        clock = self.box.company.clock
        assert isinstance(clock, Server)
        clock.ahead_s = self.local_s = 0.0
        acts = self.dice.randrange(6, 16)
        for number in reversed(range(acts)):
            evening = self._born_s + self.number * DAY_S - clock.seconds()
            # The last of them in the second in which the night begins, or shortly before.
            self.work.wait(max(0, round(evening)) if number == 2 else self.dice.choice((0, 1, 60, HOUR_S)))
            self._act()
        self.counts["changes"] += acts
        self.work.wait(self.dice.choice((0, 1, 700)))
        states = self.work.states()
        removed = {place for place, state in states.items() if state not in ("live", "archived")}
        self.unseen |= removed - self._gone
        self._gone = removed
        if self.number == 1:
            return []
        wrong: list[str] = []
        if "pushes" in self.does:
            count = self.dice.randrange(2, 7)
            self.counts["mutations"] += count
            wrong = self.ledger.queue(self.dice, count, self._run, f"s{self.seed}n{self.number}")
        self.stores.keep(self.number)
        self.ledger.copied(self.number)
        return wrong

    def _act(self) -> None:
        dice, work = self.dice, self.work
        kind, number, other = dice.choice(KINDS), dice.randrange(40), dice.randrange(40)
        what = dice.choice(
            ("update",) * 6
            + ("add",) * 5
            + ("delete", "delete", "merge", "archive", "unarchive", "restore", "backdate")
        )
        self.story.append(f"{what} {kind} {number}")
        match what:
            case "merge":
                work.merge(dice.choice(sorted(MERGED)), number, other)
            case "archive":
                work.archive(number)
            case "unarchive":
                work.unarchive(number)
            case "backdate":
                work.silent.clear()
                work.backdate(kind, number, days=1 + other)
                (place,) = work.silent
                record = self.box.company[kind].rows[place[1]].record
                self._ever_silent[place] = self.silent[place] = str(record["update_time"])
            case _:
                getattr(work, what)(kind, number)

    # Failures.

    def _set_clocks(self) -> None:
        """Give the server or this machine a wrong time in some nights."""
        if "clocks" not in self.does or self.dice.random() >= 0.5:
            return
        skew, where = self.dice.choice(SKEWS_S), self.dice.choice(("server", "server", "machine"))
        self._happens("skewed clocks", f"the {where}'s clock is {skew / HOUR_S:+.1f} h off")
        if where == "server":
            self.box.company.clock.ahead_s = skew
        else:
            self.local_s = skew

    def _lose(self, share: float) -> None:
        if "stores" not in self.does or not self.stores.days or self.dice.random() >= share:
            return
        loss = self._deck[self._card % len(self._deck)]
        self._card += 1
        self.losses.add(loss)
        suffered = self.stores.suffer(loss, self.dice)
        self.ledger.suffered(suffered)
        self._happens("losses of stores", str(suffered))
        self.silent |= self._ever_silent
        self.unseen |= self._gone  # tombstones may be lost with them: until the next reconciliation

    def _trouble(self) -> list[str]:
        """Run commands under faults, killed, or two at once; the files they leave are checked, not exit codes."""
        if "faults" in self.does and self.dice.random() < 0.7:
            for fault in self.dice.sample(FAULTS, self.dice.randrange(1, 4)):
                self._happens("faults", json.dumps(fault))
                self.box.faults.add(fault)
        if "live" in self.does and self.dice.random() < 0.2:
            self._happens("nights of work")
            self.box.live(self.dice.randrange(4, 12), kinds=KINDS, only=("added", "updated"), seed=self.number)
        names = ["sync", "push"] if "pushes" in self.does else ["sync", "sync"]
        self.dice.shuffle(names)
        if self.dice.random() < 0.3:
            names.append(self.dice.choice(("sync", "reconcile")))
        wrong: list[str] = []
        while names:
            pair = [names.pop(0)]
            if "pairs" in self.does and self.dice.random() < 0.4:
                self.counts["pairs"] += 1
                pair.append(names.pop(0) if names else self.dice.choice((pair[0], "sync")))
            wrong += self._side_by_side(pair)
        self.counts["faults that struck"] += sum(each.struck for each in self.box.faults.scripted)
        self.box.faults.clear()
        self.box.live(None)
        return wrong

    def _side_by_side(self, names: list[str]) -> list[str]:
        commands = {"sync": SYNC, "push": PUSH, "reconcile": RECONCILE}
        if "push" in names:
            self._give_up_unknowable()
        firsts = []
        for name in names:
            death = ""
            if "kills" in self.does and self.dice.random() < 0.45:
                death = f"knobs.die({self._place(name)})"
            firsts.append(death)
        asked = [commands[name] for name in names]
        ran = list(
            self._threads.map(lambda each: self._run(*asked[each], first=firsts[each], fork=each), range(len(names)))
        )
        for name, each, death in zip(names, ran, firsts, strict=True):
            self.counts["kills"] += each.code == -9
            self.story.append(f"{name} ended with {each.code} {death}")
        if "push" in names:
            clean = len(names) == 1 and ran[0].code in (0, 4, 5)
            self.ledger.pushed(clean=clean)
        return [f"{name}: {each}" for name, each in zip(names, ran, strict=True) if _is_bug(each)]

    def _place(self, name: str) -> str:
        where = self.dice.choice(PLACES[name])
        return where.death(self.dice.choice((1, 1, 1, 2, 4))).removeprefix("knobs.die(").removesuffix(")")

    def _give_up_unknowable(self) -> None:
        """Drop mutations that were sent and that no remaining store records: only the server has their outcome."""
        if "stores" in self.does:
            self._run("queue", "list")  # restores the records of other stores where control.db was lost
        for id in self.ledger.unknowable():
            self._run("queue", "drop", id, "-q")
            self.ledger.beyond += 1

    def _happens(self, what: str, message: str = "") -> None:
        self.counts[what] += 1
        self.story.append(message or what)

    # After the failures.

    def _calm(self) -> list[str]:
        wrong = self._synced()
        if not wrong and "pushes" in self.does:
            wrong = self._pushed() or self._synced()
        return wrong

    def _synced(self) -> list[str]:
        """Sync until a run that started after the last disturbance succeeds; returns what is wrong with that."""
        for _ in range(MOST_TRIES):
            ran = self._run(*SYNC)
            self.story.append(f"sync in calm ended with {ran.code}")
            if _is_bug(ran):
                return [f"sync: {ran}"]
            if ran.code == 0:
                self.ledger.in_step()
                if not ran.summary["resumed"]:
                    return []
            elif stuck := self._follow(ran):
                return stuck
        return [f"sync does not come to its end: {ran}"]

    def _pushed(self) -> list[str]:
        for _ in range(MOST_TRIES):
            self._give_up_unknowable()
            ran = self._run(*PUSH)
            self.story.append(f"push in calm ended with {ran.code}")
            self.ledger.pushed(clean=ran.code in (0, 5))
            if _is_bug(ran):
                return [f"push: {ran}"]
            if ran.code not in (0, 5):
                if stuck := self._follow(ran):
                    return stuck
            elif not self.ledger.open():
                return []
        return [f"push does not come to its end: {ran}"]

    def _reconcile(self, *, deep: bool) -> list[str]:
        for _ in range(MOST_TRIES):
            ran = self._run(*RECONCILE, *(("--deep",) if deep else ()))
            self.story.append(f"reconcile ended with {ran.code}")
            if ran.code == 0:
                self.counts["reconciliations"] += 1
                self.silent.clear()
                self.unseen.clear()
                return []
            if stuck := self._follow(ran):
                return stuck
        return [f"reconcile does not come to its end: {ran}"]

    def _follow(self, ran: Ran, depth: int = 0) -> list[str]:
        """Follow the instructions of a refusal; returns what is wrong with them."""
        named = [each.group().strip(" .,;:") for each in NAMED.finditer(f"{_message(ran)}\n{ran.err}")]
        steps = [words for words in map(shlex.split, dict.fromkeys(named)) if words[0] != "pdsync" or words[1] in WAYS]
        if ran.code not in (1, 2, 3) or not steps:
            return [f"it ended without a way out: {ran}"]
        self.counts["ways out"] += 1
        for words in steps:
            self.story.append(f"followed: {shlex.join(words)}")
            match words:
                case ["mv", one, other]:
                    shutil.move(one, other)
                case ["rm", one]:
                    Path(one).unlink(missing_ok=True)
                case ["pdsync", "doctor", *_] if depth < 2:
                    checked = self._run("doctor", "--json")
                    fixes = [each.get("fix") or "" for each in checked.events if not each.get("ok", True)]
                    self._follow(type(ran)(1, "", "\n".join(fixes)), depth + 1)
                case ["pdsync", *arguments]:
                    more = SYNCED if arguments[0] in ("sync", "reconcile") else CONSENT.get(" ".join(arguments[:2]), ())
                    done = self._run(*arguments, *more)
                    self.story.append(f"… ended with {done.code}")
                    if _is_bug(done):
                        return [f"{shlex.join(words)}: {done}"]
        return []

    def _run(self, *arguments: str, first: str = "", fork: int = 0) -> Ran:
        local = self.box.company.clock.seconds() + self.local_s
        turns = f"knobs.hurry(); knobs.local_clock({local})\n{first}"
        began = time.monotonic()
        ran = self.forks[fork].run(self.project, *arguments, first=turns)
        self.counts["commands"] += 1
        self.counts["seconds"] += round(time.monotonic() - began)
        return ran

    # The truth.

    def _compared(self, *, whole: bool) -> list[str]:
        """Differences of the tables from the source; `whole`: also those that only a deep comparison finds."""
        published = oracle.Published(self.project.data / "warehouse.duckdb")
        unseen = self.unseen | self.ledger.untold()
        states = self.work.states()
        wrong = published.wrong + oracle.circles(published) + oracle.false_merges(published, self.work)
        self.tombstones += len(published.tombstones)
        wrong += [
            f"S8: {kind} {id} is marked as deleted and is {states.get((kind, id))}"
            for kind, id in published.tombstones
            if states.get((kind, id)) in ("live", "archived")
        ]
        wrong += [
            f"S7: {kind} {id} is not marked and is {states.get((kind, id), 'unknown at the source')}"
            for kind, id in published.rows.keys() - published.tombstones
            if states.get((kind, id)) not in ("live", "archived")
            and ((kind, id) not in unseen or (kind == "deals" and states.get((kind, id)) == "deleted"))
        ]
        still = set[str]()
        for (kind, id), moment in self.silent.items():
            row = self.box.company[kind].rows.get(id)
            if row and row.record["update_time"] == moment:  # and it may be missing from a warehouse that is older
                still |= {f"{kind} {id}:", f"{kind}: {id} is missing"}
        with self.project.warehouse() as warehouse:
            for stream in SYNCED:
                removed = {id for kind, id in published.rows if kind == stream}
                entries = self.box.dump(stream)
                lines = differences(
                    warehouse, stream, entries, leave_out=BLIND.get(stream, frozenset()), gone=removed, most=1000
                )
                if whole:  # a deleted record keeps the values that were last seen of it
                    live = [each for each in entries if each["state"] != "deleted"]
                    ids = {each["record"]["id"] for each in entries}
                    more = differences(warehouse, stream, live, gone=removed | ids, most=1000)
                    lines += [line for line in more if line not in lines]
                wrong += [line for line in lines if line not in still and f"{line.partition(':')[0]}:" not in still]
        return wrong


def _is_bug(ran: Ran) -> bool:
    return any(mark in ran.out + ran.err for mark in ("This is a bug", "Traceback"))


def _message(ran: Ran) -> str:
    """All texts about errors in the last line of `--json`."""
    try:
        summary = ran.summary
    except (IndexError, ValueError):
        return ran.out
    streams = summary.get("streams") or {}
    gaps = [each.get("detail", "") for each in summary.get("gaps") or []]
    return "\n".join(
        str(each) for each in [summary.get("message"), summary.get("stopped"), *gaps,
                               *(stream.get("error") for stream in streams.values())] if each
    )  # fmt: skip
