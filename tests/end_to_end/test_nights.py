"""A slice of `tests.proofs.nights`: a few nights of everything that goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.nights import Nights

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.proof


@pytest.mark.timeout(300)  # seconds of one core, which others may be using too
def test_s1_s3_s7_s8_s12_w1_w2_each_night_ends_in_the_truth(tmp_path: Path) -> None:
    with Nights(tmp_path, seed=17) as nights:
        for number in range(1, 3):
            wrong = nights.night(last=number == 2)
            assert not wrong, "\n".join([f"night {number}", *nights.story, *wrong])
    assert nights.losses
    for what in ("mutations", "changes", "faults that struck", "kills"):
        assert nights.counts[what], f"no {what} in these nights: choose a seed that has some"
    assert nights.ledger.effects, "no mutation took effect in these nights"
