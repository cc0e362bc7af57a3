"""Proof: decisions agree with a plain model of a company, whatever sequence of rules leads to them.

    python -m tests.proofs.rules                             # all machines of tests/rules, together 10^6 steps
    python -m tests.proofs.rules --steps 200000 --only limiter --only windows --seed 7
    python -m tests.proofs.rules --json docs/evidence/rules.json && python -m tests.test_evidence

Each machine executes its share of the steps in two processes, with other seeds than the test suite unless `--seed 0`.
Prints a line for each machine. If a promise is broken, ends with 1 and the shortest sequence of rules that breaks it.
"""

# ruff: noqa: T201 - prints a report

from __future__ import annotations

import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from msgspec import Struct

from tests.rules import running
from tests.support.proof import Proof

STEPS = 1_000_000
JOBS = 2
_TEXT = """\
Each decision is driven by random rules: they change a plain model of a company, its server, its clocks and its
processes, and ask the decision in between. The model is so simple that what it expects is right; the decision is
pdsync's own. A failure would be shown as the shortest sequence of rules that leads to it.
"""


class Outcome(Struct, frozen=True):
    """What a machine has executed in one process."""

    name: str
    ran: running.Ran | None  # None: a promise is broken
    failure: str = ""


def drive(name: str, steps: int, seed: int) -> Outcome:
    """Run a machine."""
    try:
        return Outcome(name, running.run(running.machine(name), steps, first_seed=seed))
    except Exception:  # any error: the sequence is in the traceback's notes
        return Outcome(name, None, traceback.format_exc())


def main() -> int:
    proof = Proof("tests.proofs.rules", __doc__, title="Decisions against a plain model", text=_TEXT)
    parser = proof.parser
    parser.add_argument("--steps", type=int, default=STEPS, help="of all machines together")
    parser.add_argument("--only", action="append", choices=running.NAMES, help="a machine; all without one")
    parser.add_argument("--seed", type=int, default=1_000_000)
    options = proof.options()
    names = options.only or running.NAMES
    share = -(-options.steps // (len(names) * JOBS))
    seeds = [options.seed + job * 1_000_000 for job in range(JOBS)]
    began = time.monotonic()
    with ProcessPoolExecutor(JOBS, mp_context=get_context("spawn")) as pool:
        tasks = {name: [pool.submit(drive, name, share, seed) for seed in seeds] for name in names}
        rows, broken = [], []
        for name, own in tasks.items():  # each is shown as soon as it has ended
            outcomes = [task.result() for task in own]
            rows.append(_report(name, outcomes))
            broken += [name] if any(each.ran is None for each in outcomes) else []
    steps = sum(row[1] for row in rows)
    print(f"{'BROKEN' if broken else 'kept'}: {steps:,} steps in {time.monotonic() - began:,.0f} s")
    return proof.end(
        passed=not broken,
        seeds=seeds,
        counts={"steps": steps, "decisions": len(rows), "decisions that broke a promise": len(broken)},
        table={"columns": ["decision", "steps", "examples", "seconds of processor"], "rows": [[*row] for row in rows]},
    )


def _report(name: str, outcomes: list[Outcome]) -> tuple[str, int, int, float]:
    """Print the line of a machine; it has name, steps, examples, seconds of processor."""
    ran = [each.ran for each in outcomes if each.ran]
    steps, examples = sum(each.steps for each in ran), sum(each.examples for each in ran)
    row = (name, steps, examples, float(sum(each.seconds for each in ran)))
    print(f"{name:14} {steps:>9,} steps {examples:>7,} examples {row[3]:>7.1f} s", flush=True)
    for each in outcomes:
        if each.ran is None:
            print(f"{name} BREAKS A PROMISE:\n{each.failure}", flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
