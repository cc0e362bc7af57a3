"""Of two records of one mutation, the one with the greater progress is the newer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.writeback.snapshot import from_json, to_json
from tests.writeback.kit import bring_to, open_outbox

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.model import State


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("queued", "armed"),
        ("approved", "armed"),
        ("queued", "cancelled"),
        ("armed", "applied"),
        ("unknown", "rejected"),
    ],
)
def test_w2_progress_grows_with_every_step_after_which_something_may_have_been_sent(
    tmp_path: Path, older: State, newer: State
) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = open_outbox(tmp_path / "one", journal=False), open_outbox(tmp_path / "other", journal=False)
    before = one.snapshot(bring_to(one, older).id).progress
    after = other.snapshot(bring_to(other, newer).id).progress
    assert before < after


def test_w2_what_a_person_has_found_out_is_progress_too(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, journal=False)
    mutation = bring_to(outbox, "needs_review")
    before = outbox.snapshot(mutation.id).progress
    outbox.resolve(mutation.id, "applied", None, None)
    assert before < outbox.snapshot(mutation.id).progress
    assert outbox.progress() == {mutation.id: outbox.snapshot(mutation.id).progress}


@pytest.mark.parametrize("value", [None, 0, "", [], {"a": [1, 2.5, None, "é"]}])
def test_what_is_stored_as_json_comes_back_as_it_was(value: Any) -> None:
    assert from_json(to_json(value)) == value
    assert (to_json(value) is None) is (value is None)
