"""Proof: after any sequence of changes, faults and commands the promises hold and the tables converge.

    python -m tests.proofs.model                              # 200 examples × 40 steps
    python -m tests.proofs.model --examples 20 --steps 60 --seed 7 --jobs 1

Runs `tests.model` with other sequences than the test suite, in as many processes as there are processors. Prints how
often each step ran and how long it took. If a promise is broken, ends with 1 and the shortest sequence that breaks it.
"""

# ruff: noqa: T201 - prints a report

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from hypothesis import seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.cost import calls, report
from tests.model.machine import Life
from tests.model.profiles import EXAMPLES, STEPS, WHOLE
from tests.support.proof import Proof, add_up
from tests.support.truth import COMPARED


def one(examples: int, steps: int, number: int) -> bool:
    """Run `examples` in this process; return whether no promise was broken."""
    began = time.monotonic()
    passed = True
    try:
        run_state_machine_as_test(
            seed(number)(Life), settings=settings(WHOLE, max_examples=examples, stateful_step_count=steps)
        )
    except Exception:  # any error: the sequence is in the traceback's notes
        passed = False
        traceback.print_exc(file=sys.stdout)
    print("\n".join(report()))
    print(f"{'kept' if passed else 'BROKEN'}: {examples} × {steps}, --seed {number}, {time.monotonic() - began:.0f} s")
    return passed


def several(examples: int, steps: int, first: int, jobs: int) -> tuple[bool, Counter[str]]:
    """Run the examples in `jobs` processes, each with its own seed.

    Returns:
        Whether no promise was broken, and what was counted.
    """
    shares = [examples // jobs + (job < examples % jobs) for job in range(jobs)]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{job}.json" for job, share in enumerate(shares) if share]
        running = [
            subprocess.Popen([sys.executable, "-m", "tests.proofs.model", "--examples", str(share), "--steps",
                              str(steps), "--seed", str(first + job), "--jobs", "1", "--json", str(file)])
            for job, (share, file) in enumerate(zip(shares, files, strict=False))
        ]  # fmt: skip
        codes = [process.wait() for process in running]  # run all of them, also after one that failed
        return not any(codes), add_up(files)


def main() -> int:
    proof = Proof("tests.proofs.model", __doc__, title="Model")
    parser = proof.parser
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="of the first process")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = proof.options()
    began = time.monotonic()
    if options.jobs == 1:
        passed = one(options.examples, options.steps, options.seed)
        counts = count()
    else:
        passed, counts = several(options.examples, options.steps, options.seed, options.jobs)
        print(f"{'kept' if passed else 'BROKEN'}: all of it, {time.monotonic() - began:.0f} s")
    seeds = range(options.seed, options.seed + options.jobs)
    return proof.end(passed=passed, seeds=seeds, counts=counts)


def count() -> Counter[str]:
    """What this process has done."""
    times = Counter(calls())
    sequences, checks, ends = (times.pop(name, 0) for name in ("found", "promises_hold", "teardown"))
    counts = {"sequences": sequences, "steps": times.total(), "checks of all promises": checks, "ends compared": ends}
    return Counter({**counts, **COMPARED})


if __name__ == "__main__":
    sys.exit(main())
