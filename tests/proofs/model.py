"""Proof: whatever people, faults and pdsync do, in any order, the promises hold and the tables converge.

    python -m tests.proofs.model                              # 200 examples × 40 steps
    python -m tests.proofs.model --examples 20 --steps 60 --seed 7

Runs `tests.model` with sequences that are not those of the test suite. Prints how often each rule was taken and what it
cost. Ends with 1 and the shortest sequence that Hypothesis could find where one of the promises is broken.
"""

# ruff: noqa: T201 - prints a report

from __future__ import annotations

import argparse
import secrets
import sys
import time
import traceback

from hypothesis import seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.cost import report
from tests.model.machine import Life
from tests.model.profiles import EXAMPLES, STEPS, WHOLE


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.model", description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="as printed by the run to repeat")
    asked = parser.parse_args()
    print(f"{asked.examples} examples × {asked.steps} steps, --seed {asked.seed}", flush=True)
    whole = settings(WHOLE, max_examples=asked.examples, stateful_step_count=asked.steps)
    began = time.monotonic()
    wrong = False
    try:
        run_state_machine_as_test(seed(asked.seed)(Life), settings=whole)
    except Exception:  # whatever broke it: the sequence stands in the traceback's notes
        wrong = True
        traceback.print_exc()
    print("\n".join(report()))
    print(f"{'BROKEN' if wrong else 'held'} after {time.monotonic() - began:.0f} s, --seed {asked.seed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
