"""Proof: whatever people, administrators, faults and pdsync do, in any order, the promises hold and the tables converge.

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
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from hypothesis import seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import Life
from tests.model.profiles import EXAMPLES, STEPS, WHOLE

if TYPE_CHECKING:
    from collections.abc import Callable


class Cost:
    """How often each step was taken, and the seconds that it took."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def of(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **values: Any) -> Any:
            began = time.monotonic()
            try:
                return step(*given, **values)
            finally:
                self.seconds[name].append(time.monotonic() - began)

        return timed

    def show(self) -> None:
        print(f"{'step':26} {'times':>7} {'ms each':>8} {'seconds':>8}")
        for name, took in sorted(self.seconds.items(), key=lambda pair: -sum(pair[1])):
            print(f"{name:26} {len(took):7,} {sum(took) / len(took) * 1000:8.0f} {sum(took):8.0f}")


class Timed(Life):
    """The model, with its own cost."""

    cost = Cost()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.model", description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="as printed by the run to repeat")
    asked = parser.parse_args()
    print(f"{asked.examples} examples × {asked.steps} steps, --seed {asked.seed}", flush=True)
    for rule in Timed.rules() + Timed.initialize_rules():
        object.__setattr__(rule, "function", Timed.cost.of(rule.function.__name__, rule.function))
    for name in ("promises_hold", "teardown"):
        setattr(Timed, name, Timed.cost.of(name, getattr(Life, name)))
    whole = settings(WHOLE, max_examples=asked.examples, stateful_step_count=asked.steps)
    began = time.monotonic()
    wrong = False
    try:
        run_state_machine_as_test(seed(asked.seed)(Timed), settings=whole)
    except Exception:  # whatever broke it: the sequence stands in the traceback's notes
        wrong = True
        traceback.print_exc()
    Timed.cost.show()
    print(f"{'BROKEN' if wrong else 'held'} after {time.monotonic() - began:.0f} s, --seed {asked.seed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
