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

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.nights import DISTURBANCES, Nights

_SHOWN = 30


def one(seed: int, options: argparse.Namespace) -> bool:
    """Run the nights of one seed; return whether everything was right."""
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
        print(f"seed {seed}: {nights.number} nights, {len(wrong)} wrong; {_text(nights.counts)}; {nights.cells:,} cells"
              f" compared; {len(nights.losses)} combinations of losses; {time.monotonic() - began:.0f} s")  # fmt: skip
        print(f"seed {seed}: {len(ledger.queued)} mutations: {_text(fates)}; {sum(ledger.effects.values())} effects;"
              f" {ledger.beyond} that no store that was left knew; {ledger.otherwise} called otherwise by a control.db"
              " that was put back", flush=True)  # fmt: skip
    return not wrong


def several(seeds: list[int], jobs: int) -> bool:
    """Run a process per seed, `jobs` at once; return whether all passed."""
    own = sys.argv[1:]

    def live(seed: int) -> bool:
        command = [sys.executable, "-m", "tests.proofs.nights", *own, "--seeds", str(seed)]
        return subprocess.run(command, check=False).returncode == 0

    with ThreadPoolExecutor(jobs) as threads:
        return all(list(threads.map(live, seeds)))


def _without(text: str) -> frozenset[str]:
    names = frozenset(filter(None, text.split(",")))
    if stray := names - set(DISTURBANCES):
        raise SystemExit(f"--without {', '.join(stray)}: it may be {', '.join(DISTURBANCES)}")
    return names


def _text(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.most_common())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.nights", description=__doc__.splitlines()[0])
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--seed", "--seeds", dest="seeds", default="1", help="one, or several with commas between")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at once")
    parser.add_argument("--without", default="", help=f"of {', '.join(DISTURBANCES)}; with commas between")
    parser.add_argument("--only-night", type=int, help="stop after this night, and print what happened in it")
    parser.add_argument("--keep", metavar="DIR", help="where a project that went wrong is kept")
    parser.add_argument("-v", "--verbose", action="store_true", help="print what happens in each night")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    passed = one(seeds[0], options) if len(seeds) == 1 else several(seeds, options.jobs)
    print("Every night ended in the truth." if passed else "WRONG")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
