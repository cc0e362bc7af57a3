"""The table of steps is the whole state machine: what it allows happens, what it does not changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from pdsync.model import OPEN, State
from pdsync.writeback import transitions
from pdsync.writeback.transitions import TRANSITIONS, StepName, move, move_all
from tests.writeback.kit import entry, open_outbox

if TYPE_CHECKING:
    from pdsync.writeback.outbox import Outbox

STATES: tuple[State, ...] = get_args(State)
# Every step that is allowed, written down a second time.
ALLOWED: set[tuple[StepName, State, State]] = {
    ("drop", "queued", "cancelled"),
    ("approve", "queued", "approved"),
    ("release", "approved", "queued"),
    ("arm", "approved", "armed"),
    ("reapprove", "armed", "approved"),
    ("lose_answer", "armed", "unknown"),
    ("resend", "unknown", "approved"),
    *(
        ("settle", before, after)
        for before in ("queued", "approved", "armed", "unknown")
        for after in ("applied", "rejected", "conflict", "needs_review")
    ),
}


def put(outbox: Outbox, state: State) -> str:
    """A mutation that stands in `state`, whatever steps would lead there."""
    id = outbox.add([entry()])[0].id
    with outbox.control.transaction() as db:
        db.execute("UPDATE mutations SET state = ? WHERE id = ?", (state, id))
    return id


@pytest.fixture(scope="module")
def outbox(tmp_path_factory: pytest.TempPathFactory) -> Outbox:
    return open_outbox(tmp_path_factory.mktemp("transitions"), journal=False)


@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize("step", TRANSITIONS)
def test_w1_a_step_is_taken_from_the_states_of_the_table_and_from_no_other(
    outbox: Outbox, step: StepName, before: State
) -> None:
    for after in STATES:
        id = put(outbox, before)
        with outbox.control.transaction() as db:
            if after not in TRANSITIONS[step].after:
                with pytest.raises(ValueError, match=f"{step} does not lead to {after}"):
                    move(db, step, id, after)
                taken = False
            else:
                taken = move(db, step, id, after)
        assert taken == ((step, before, after) in ALLOWED)
        assert outbox.get(id).state == (after if taken else before)


def test_a_step_with_several_ends_needs_one_named(outbox: Outbox) -> None:
    id = put(outbox, "armed")
    with outbox.control.transaction() as db, pytest.raises(ValueError, match="settle does not lead to None"):
        move(db, "settle", id)


def test_w1_what_has_ended_has_no_step_and_what_is_open_has_one() -> None:
    assert frozenset().union(*(each.before for each in TRANSITIONS.values())) == OPEN


def test_every_state_can_be_reached_from_queued() -> None:
    reached: set[State] = {"queued"}
    for _ in STATES:
        reached |= {after for each in TRANSITIONS.values() if each.before & reached for after in each.after}
    assert reached == set(STATES)


def test_a_step_of_all_leaves_the_other_states_alone(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, journal=False)
    ids = {state: put(outbox, state) for state in STATES}
    with outbox.control.transaction() as db:
        move_all(db, "lose_answer")
    changed = {state for state, id in ids.items() if outbox.get(id).state != state}
    assert changed == {"armed"}
    assert outbox.get(ids["armed"]).state == "unknown"


def test_a_step_of_an_unknown_mutation_is_not_taken(outbox: Outbox) -> None:
    with outbox.control.transaction() as db:
        assert not move(db, "approve", "no such id")


def test_no_other_module_sets_a_state() -> None:
    """`adoption` stores whole rows, and `outbox` inserts them as queued: neither updates a state."""
    package = Path(transitions.__file__).parents[1]
    setting = [
        path.name
        for path in package.rglob("*.py")
        if "sandbox" not in path.parts and "UPDATE mutations SET state" in path.read_text(encoding="utf-8")
    ]
    assert setting == ["transitions.py"]
