"""The steps of rule machines are executed and counted, and a broken promise is shown by its shortest sequence."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from tests.rules import running


class Adder(running.Machine):
    """Adds numbers; they may not exceed a limit."""

    limit = 10**9
    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    @rule(number=st.integers(0, 9))
    def add(self, number: int) -> None:
        type(self).calls += 1
        self.total += number
        assert self.total <= self.limit


class Begun(Adder):
    """The same, with a first rule."""

    @initialize()
    def begin(self) -> None:
        self.total = 0


@pytest.mark.parametrize("machine", [Adder, Begun])
def test_each_executed_rule_counts_one(machine: type[Adder]) -> None:
    for steps in (1, 120, 333):
        before = machine.calls
        ran = running.run(machine, steps)
        assert steps <= ran.steps == machine.calls - before
        assert ran.examples >= steps / running.STEPS_PER_EXAMPLE


def test_a_broken_promise_is_shown_by_the_shortest_sequence_of_rules() -> None:
    class Small(Adder):
        limit = 0

    with pytest.raises(AssertionError) as broken:
        running.run(Small, 100)
    sequence = "\n".join(broken.value.__notes__)
    assert sequence.count("state.add(") == 1
    assert "state.add(number=1)" in sequence


def test_every_machine_is_named_and_together_they_execute_100_000_steps() -> None:
    assert all(issubclass(running.machine(name), running.Machine) for name in running.NAMES)
    assert len({running.machine(name) for name in running.NAMES}) == len(running.NAMES)
