"""A slice of `tests.proofs.mutations`: spoiled answers never lose, invent or mix up a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.proofs.mutations import one_sync
from tests.support.world import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.world import Remote


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "400", "--persons", "20", "--seed", "3") as remote:
        yield remote


@pytest.mark.proof
@pytest.mark.parametrize(("seed", "share_whole"), [(101, 0.0), (102, 0.0), (103, 0.05), (104, 1.0)])
def test_s9_spoiled_answers_never_lose_or_mix_up_a_row(
    remote: Remote, tmp_path: Path, seed: int, share_whole: float
) -> None:
    count, wrong = one_sync(remote, tmp_path / "project", seed, share_whole)

    assert wrong == []
    assert count > 0
