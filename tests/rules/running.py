"""Runs a rule machine until it has executed a number of steps, always the same ones for a seed.

    running.check(Evidence, running.SLICE)    # in the suite: under a second
    running.check(Evidence, running.SHARE)    # `pytest -m proof`: the machines together execute 10^5 steps

`python -m tests.proofs.rules` runs all of them for 10^6 steps. A failure shows Hypothesis's shortest sequence of rules.
"""

# ruff: noqa: T201 - prints a line for each machine

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, run_state_machine_as_test
from msgspec import Struct

SLICE = 500  # steps
SHARE = 14_300  # steps
STEPS_PER_EXAMPLE = 50
# Each is tests/rules/test_<name>.py, with its machine as MACHINE.
NAMES = tuple(
    sorted({path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")} - {"running"})
)

_SETTINGS = settings(
    stateful_step_count=STEPS_PER_EXAMPLE,
    database=None,
    deadline=None,
    print_blob=False,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)


class Machine(RuleBasedStateMachine):
    """Counts the rules that its class has executed, in all examples."""

    executed: ClassVar[int] = 0
    examples: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        # Hypothesis checks invariants once before the first rule, or after the last initial one.
        type(self).executed -= 1

    @invariant()
    def count(self) -> None:
        type(self).executed += 1


class Ran(Struct, frozen=True):
    """What a machine has executed."""

    steps: int
    examples: int
    seconds: float


def machine(name: str) -> type[Machine]:
    """The machine of a decision; `name` is one of NAMES."""
    found: type[Machine] = importlib.import_module(f"tests.rules.test_{name}").MACHINE
    return found


def run(of_class: type[Machine], steps: int, *, first_seed: int = 0) -> Ran:
    """Execute at least `steps` rules.

    Raises:
        Exception: a promise is broken; its notes have the shortest sequence that breaks it.
    """
    steps_before, examples_before, began = of_class.executed, of_class.examples, time.process_time()
    number = first_seed
    while (left := steps - (of_class.executed - steps_before)) > 0:
        before = of_class.executed
        examples = max(left // STEPS_PER_EXAMPLE, 1)
        run_state_machine_as_test(seed(number)(of_class), settings=settings(_SETTINGS, max_examples=examples))
        assert of_class.executed > before, f"{of_class.__name__} executes no rule"
        number += 1
    return Ran(of_class.executed - steps_before, of_class.examples - examples_before, time.process_time() - began)


def check(of_class: type[Machine], steps: int) -> None:
    """Run a machine, and check that it has really executed its steps."""
    ran = run(of_class, steps)
    print(f"{of_class.__name__}: {ran.steps:,} steps in {ran.examples:,} examples, {ran.seconds:.1f} s")
    assert ran.steps >= steps
