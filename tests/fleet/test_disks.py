"""A slice of `tests.proofs.disks`: two nights of workers that die and disks that are lost."""

from __future__ import annotations

import pytest

from tests.proofs.disks import prove

pytestmark = [pytest.mark.proof, pytest.mark.timeout(600)]


def test_s1_w1_w2_workers_that_die_and_disks_that_are_lost_lose_and_repeat_nothing() -> None:
    account, found = prove(5, 2)
    assert found == []
    assert len(account.queued) == 2
