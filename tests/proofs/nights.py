"""Proof: each night gives the right tables, whatever is lost, restored, killed, skewed or run twice.

    python -m tests.proofs.nights --seeds 1,2,3            # 30 nights each: some minutes
    python -m tests.proofs.nights --nights 10 --seed 7 --without clocks,stores
    python -m tests.proofs.nights --seed 7 --only-night 4 --keep DIR   # prints all that happens in night 4, and stops

Mixes edits, deletions, merges, archiving, faults, kills, two processes at once, lost and older stores and wrong clocks
from one seed: see `tests.support.nights`. Compares every cell with the sandbox's records after each night, and every
mutation with its journal. Prints what happened. Ends with 1, and the seed, the night and the rows that differ, if a
row is wrong, a tombstone false, or a write lost or doubled.
"""

# ruff: noqa: T201 - prints a report

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.nights import DISTURBANCES, Nights
from tests.support.proof import Proof, add_up
from tests.support.truth import COMPARED

if TYPE_CHECKING:
    import argparse

_SHOWN = 30


def one(seed: int, options: argparse.Namespace) -> tuple[bool, Counter[str]]:
    """Run the nights of one seed.

    Returns:
        Whether everything was right, and what was counted.
    """
    began = time.monotonic()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder, Nights(Path(folder), seed, _without(options.without)) as nights:
        for number in range(1, (options.only_night or options.nights) + 1):
            started = time.monotonic()
            wrong = nights.night(last=number == options.nights)
            if options.verbose or wrong or number == options.only_night:
                print("\n".join(f"  {line}" for line in nights.story))
            print(f"seed {seed}, night {number}: {len(wrong)} wrong; {time.monotonic() - started:.0f} s", flush=True)
            if wrong:
                break
        for what in wrong[:_SHOWN]:
            print(f"WRONG in night {nights.number} of seed {seed}: {what}")
        if wrong and options.keep:
            kept = Path(options.keep) / f"seed {seed}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept)
        ledger = nights.ledger
        fates = Counter(ledger.fates.values())
        print(f"seed {seed}: {nights.number} nights, {len(wrong)} wrong; {_text(nights.counts)};"
              f" {COMPARED['cells compared']:,} cells compared; {len(nights.losses)} combinations of losses;"
              f" {time.monotonic() - began:.0f} s")  # fmt: skip
        print(f"seed {seed}: {len(ledger.queued)} mutations: {_text(fates)}; {sum(ledger.effects.values())} effects;"
              f" {ledger.beyond} that no store that was left knew; {ledger.otherwise} called otherwise by a control.db"
              " that was put back", flush=True)  # fmt: skip
    counts = {
        "nights": nights.number, **{name: nights.counts[name] for name in ("kills", "faults that struck")},
        "cells compared": COMPARED["cells compared"], "false tombstones": sum(what[:3] == "S8:" for what in wrong),
        "mutations": len(ledger.queued), "lost": sum(what[:3] == "W1:" for what in wrong),
        "doubled": sum(count > 1 for count in ledger.effects.values()), "wrong": len(wrong),
        "applied": fates["applied"], "tombstones compared": nights.tombstones,
    }  # fmt: skip
    others = {name: count for name, count in sorted(nights.counts.items()) if name != "seconds"}
    return not wrong, Counter({**counts, **COMPARED, **others, "mutations": len(ledger.queued)})


def several(seeds: list[int], jobs: int) -> tuple[bool, Counter[str]]:
    """Run a process per seed, `jobs` at once.

    Returns:
        Whether all passed, and what they counted together.
    """
    own = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as threads:
        files = {seed: Path(folder) / f"{seed}.json" for seed in seeds}

        def live(seed: int) -> bool:
            command = [sys.executable, "-m", "tests.proofs.nights", *own, "--seeds", str(seed)]
            return subprocess.run([*command, "--json", str(files[seed])], check=False).returncode == 0

        passed = list(threads.map(live, seeds))
        return all(passed), add_up(files.values())


def _without(text: str) -> frozenset[str]:
    names = frozenset(filter(None, text.split(",")))
    if stray := names - set(DISTURBANCES):
        raise SystemExit(f"--without {', '.join(stray)}: it may be {', '.join(DISTURBANCES)}")
    return names


def _text(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.most_common())


def main() -> int:
    proof = Proof("tests.proofs.nights", __doc__, title="Nights")
    parser = proof.parser
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--seed", "--seeds", dest="seeds", default="1", help="one, or several with commas between")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at once")
    parser.add_argument("--without", default="", help=f"of {', '.join(DISTURBANCES)}; with commas between")
    parser.add_argument("--only-night", type=int, help="stop after this night, and print what happened in it")
    parser.add_argument("--keep", metavar="DIR", help="where a project that went wrong is kept")
    parser.add_argument("-v", "--verbose", action="store_true", help="print what happens in each night")
    options = proof.options()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    passed, counts = one(seeds[0], options) if len(seeds) == 1 else several(seeds, options.jobs)
    print("Every night ended in the truth." if passed else "WRONG")
    return proof.end(passed=passed, seeds=seeds, counts=counts)


if __name__ == "__main__":
    sys.exit(main())
