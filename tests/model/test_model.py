"""A slice of `tests.proofs.model`: any sequence of work, syncs, failures, repairs and pushes keeps what is promised."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import Life
from tests.model.profiles import SLICE


@pytest.mark.proof
@pytest.mark.timeout(600)  # takes most of a minute of one core, which may be shared
def test_s3_s4_s8_s12_s13_s14_w1_w2_any_sequence_of_steps_keeps_the_promises_and_converges() -> None:
    run_state_machine_as_test(Life, settings=SLICE)
