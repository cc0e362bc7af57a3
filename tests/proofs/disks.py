"""Proof: workers are killed and overtaken, disks are lost and come back, and the store loses and repeats nothing.

    python -m tests.proofs.disks                 # 20 nights, three seeds
    python -m tests.proofs.disks --seeds 7 --nights 50

One account has a store, and three disks. Each night the company changes; a worker with one of the disks queues a
change, syncs and pushes. At random times its command is killed, or the worker itself dies: nothing more is published,
its lease expires, and its disk is lost or is used again on a later night. At the end a worker with an empty disk syncs.
Its tables must be those of the source, and each queued change must be in the source once if it is applied, and not at
all if it is not. Ends with 1 if anything differs.
"""

# ruff: noqa: T201 - prints a report

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pdsync.errors import LeaseLost
from pdsync.fleet.mirror import mirrored
from pdsync.fleet.store import open_store
from tests.support.proof import Proof
from tests.support.truth import BLIND, COMPARED, differences
from tests.support.world import Project, broken_history, serving

if TYPE_CHECKING:
    from pdsync.fleet.store import Store
    from tests.support.world import Remote

STREAMS = ("deals", "persons", "users", "stages", "pipelines")
TRUTHS = ("deals", "persons", "users")
COMMANDS = (
    ("sync", "-q", *STREAMS),
    ("push", "--yes", "--json", "--settle-seconds", "0.1"),
    ("sync", "-q", *STREAMS),
)
# How often a change may be in the source, by how it ended.
_TIMES = {"applied": (1,), "needs_review": (0, 1), "conflict": (0,), "rejected": (0,)}


def _ignore(_: str) -> None:
    """A note of a worker."""


class Death(Exception):
    """The worker dies here."""


class Account:
    """An account with a store and disks; what was queued, and what has happened."""

    def __init__(self, remote: Remote, root: Path, seed: int) -> None:
        self.remote, self.root, self.random = remote, root, random.Random(seed)
        self.store: Store = open_store(str(root / "store"))
        self.queued: list[str] = []
        self.happened = Counter({"kills": 0, "deaths": 0, "lost disks": 0})
        self.ends = Counter({"applied": 0, "lost": 0, "doubled": 0})  # of the changes

    def live_a_night(self, number: int) -> None:
        self.remote.advance(4000)
        self.remote.change(0.05, seed=number, only=["updated", "added", "archived"])
        self.remote.advance(4000)
        disk = self.random.choice(("one", "two", "three"))
        if self.random.random() < 0.25:
            shutil.rmtree(self.root / disk, ignore_errors=True)
            self.happened["lost disks"] += 1
        try:
            self._work(disk, number)
        except (Death, LeaseLost):
            self.happened["deaths"] += 1
            self.store.remove(["acme/lease.json"])  # as if it had expired
            if self.random.random() < 0.5:
                shutil.rmtree(self.root / disk, ignore_errors=True)
                self.happened["lost disks"] += 1

    def _work(self, disk: str, number: int) -> None:
        project = Project(self.root / disk / "acme", self.remote)
        with mirrored(self.store, "acme", project.folder, owner=disk, checkpoint_s=0.3, on_note=_ignore) as mirror:
            project.env |= mirror.environment
            title = f"Night {number}"
            if project.run("queue", "add", "addDeal", f"title={title}").code == 0:
                self.queued.append(title)  # acknowledged: the store has it
            for command in COMMANDS:
                process = project.start(*command)
                fate = self.random.random()
                if fate < 0.3:
                    time.sleep(self.random.uniform(0.2, 2.5))
                    process.kill()
                    self.happened["kills"] += 1
                process.communicate(timeout=300)
                if fate < 0.12:
                    mirror._lease.lose()  # the worker dies with it: nothing more is published
                    raise Death

    def faults(self) -> list[str]:
        """What is wrong after a last night on an empty disk."""
        project = Project(self.root / "last" / "acme", self.remote)
        with mirrored(self.store, "acme", project.folder, owner="last") as mirror:
            project.env |= mirror.environment
            ran = [project.run(*command) for command in COMMANDS]
        found = [str(each) for each in ran if each.code]
        added = [  # later changes of the company may rename it
            entry["after"]["title"]
            for entry in self.remote.lines("journal")
            if entry["kind"] == "deals" and entry["before"] is None and entry["after"]
        ]
        states = dict(project.control("SELECT json_extract(payload, '$.title'), state FROM mutations"))
        for title in self.queued:
            state, times = states.get(title, "lost"), added.count(title)
            self.ends[state] += 1
            self.ends["doubled"] += times > 1
            if times not in _TIMES.get(state, ()):
                found.append(f"{title!r} is {state}, and {times} times in the source")
        with project.warehouse() as warehouse:
            for stream in TRUTHS:
                found += differences(warehouse, stream, self.remote.dump(stream), leave_out=BLIND.get(stream, ()))
        return found + broken_history(project)


def prove(seed: int, nights: int) -> tuple[Account, list[str]]:
    """An account's nights, and what is wrong at their end."""
    with (
        serving("--deals", "60", "--seed", str(seed)) as remote,
        tempfile.TemporaryDirectory(prefix="pdsync-disks-") as root,
    ):
        remote.advance(3600)
        account = Account(remote, Path(root), seed)
        for number in range(nights):
            account.live_a_night(number)
        return account, account.faults()


def main() -> int:
    proof = Proof("tests.proofs.disks", __doc__, title="Lost disks")
    proof.parser.add_argument("--seeds", default="1,2,3", help="comma-separated")
    proof.parser.add_argument("--nights", type=int, default=20)
    options = proof.options()
    seeds, counts = [int(seed) for seed in options.seeds.split(",")], Counter[str]()
    for seed in seeds:
        account, found = prove(seed, options.nights)
        happened = ", ".join(f"{count} {what}" for what, count in account.happened.items())
        print(
            f"seed {seed}: {options.nights} nights, {len(account.queued)} changes, {happened}: {found or 'all equal'}"
        )
        counts.update({"nights": options.nights, **account.happened, "changes": len(account.queued), **account.ends})
        counts["wrong"] += len(found)
    return proof.end(passed=not counts["wrong"], seeds=seeds, counts={**counts, **COMPARED})


if __name__ == "__main__":
    sys.exit(main())
