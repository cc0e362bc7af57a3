"""What a push shows before and after it sends: merges and deletions first and whole, one count, and the way back.

The files in `golden` show it at two widths; `python -m tests.cli.test_push` writes them again.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from pdsync.cli.app import App
from pdsync.cli.commands.push import _consents, _Progress, _show_plan, _show_receipt
from pdsync.runner.push import PushReceipt
from pdsync.writeback.plan import LIFE, RECORD, Change, Fate, Plan, Step

GOLDEN = Path(__file__).parent / "golden"
WIDTHS = (80, 120)
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
PUSH = "20260105T120000-abc123"


def step(seq: int, operation: str = "v2 updateDeal", fate: Fate = "send", **more: Any) -> Step:
    verb, kind = {"v2 updateDeal": ("update", "deals"), "v2 deleteDeal": ("delete", "deals")}.get(
        operation, ("merge", "persons")
    )
    renamed = (Change("title", f"Deal {seq}", f"Renamed {seq}"),) if verb == "update" and fate == "send" else ()
    changes = more.pop("changes", renamed)
    facts = {"title": f"Deal {seq}", "reason": None if fate == "send" else fate, **more}
    title = facts.pop("title")
    return Step(f"m{seq}", seq, operation, verb, kind, f"{kind}/{seq}", title, {}, {}, changes, 1, 5, fate, **facts)  # type: ignore[arg-type]


def plan(*steps: Step) -> Plan:
    return Plan(1, "Acme", NOW, NOW + LIFE, "field", steps, 100, spent_tokens=45)


MIXED = plan(
    *(step(seq) for seq in range(1, 51)),
    *(step(seq, fate="already_so", detail="every field has that value already") for seq in range(51, 99)),
    step(99, fate="rejected", detail="there is no deals/99: see that the id is right"),
    step(100, fate="already_so", detail="after #50, every field has that value", after=50),
    step(101, "v2 deleteDeal"),
    step(102, "v2 deleteDeal"),
    step(103, "v1 mergePersons", title="Ann (103) → Anna (7, stays)", into="persons/7",
         warnings=("moves to the other: 3 notes", "a merge can't be undone")),
)  # fmt: skip
RECEIPT = PushReceipt(
    PUSH, NOW, outcomes={"applied": 102, "rejected": 1}, already_so=49, unverified=2, undoable=50,
    not_undoable=["a merge is final"], requests=70, tokens=431, read_back_tokens=40, exit_code=5,
)  # fmt: skip
MERGES = plan(step(1, "v1 mergePersons"), step(2, "v1 mergePersons"), step(3))


class Screen(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


def shown(width: int, *, json: bool = False, receipt: PushReceipt = RECEIPT, planned: Plan | None = MIXED) -> str:
    """What a terminal of this width shows of a plan and of the receipt."""
    app, screen, columns = App(), Screen(), os.environ.get("COLUMNS")
    app.color, app.json = "never", json
    os.environ["COLUMNS"] = str(width)
    try:
        with redirect_stderr(screen), redirect_stdout(screen):
            if planned:
                _show_plan(app, planned, to_err=True)
            _show_receipt(app, receipt, 12.34)
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    return screen.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_plan_and_its_receipt_on_a_screen(width: int) -> None:
    assert shown(width) == (GOLDEN / f"push_{width}.txt").read_text(encoding="utf-8")


def test_merges_and_deletions_come_first_and_whole_however_many_there_are() -> None:
    deletions = [step(seq, "v2 deleteDeal") for seq in range(100, 140)]
    text = shown(120, planned=plan(*(step(seq) for seq in range(1, 100)), *deletions, step(140, "v1 mergePersons")))
    numbers = [line.split()[0] for line in text.splitlines() if line.startswith("#")]
    assert numbers == ["#140", *(f"#{seq}" for seq in range(100, 140))]
    assert "… and 99 more: 99 updateDeal (" in text


def test_what_is_refused_and_conflicts_come_before_all_else_and_the_rest_is_named() -> None:
    """A refused deletion among 100 changes is seen before the question, with its whole reason."""
    why = f"there is no deals/101: {'see that the id is right, ' * 20}and sync"
    text = shown(
        80,
        planned=plan(
            *(step(seq) for seq in range(1, 100)),
            *(step(seq, fate="already_so") for seq in (100, 103, 104)),
            step(101, "v2 deleteDeal", "rejected", detail=why),
            step(102, fate="conflict", detail="another user has changed title"),
            step(105, "v2 deleteDeal", changes=(Change(RECORD, "Deal 105", None),)),
            step(106, "v2 deleteDeal", changes=(Change("(2 records)", "A, B", None),)),
        ),
    )
    numbers = [line.split()[0] for line in text.splitlines() if line.startswith("#")]
    assert numbers == ["#101", "#102", "#105", "#106", *(f"#{seq}" for seq in range(1, 27))]
    assert why in " ".join(text.split())
    assert "… and 76 more: 73 updateDeal, 3 already so (" in text
    assert "3 already so: #100, #103 to #104\n" in text
    assert [line.strip() for line in text.splitlines() if "deleted" in line] == ["deleted", "deleted 2 records: A, B"]


def test_amounts_are_shown_exactly_in_one_form_with_their_currency() -> None:
    amounts = [(19850, 99999.99), (5000, 1010.5), (None, 123456.78), (12345.67, None)]
    codes = [(None if each is None else "EUR", None if other is None else "EUR") for each, other in amounts]
    steps = [
        step(seq, changes=(Change("value", *pair, *code),))
        for seq, (pair, code) in enumerate(zip(amounts, codes, strict=True))
    ]
    lines = [line.strip() for line in shown(80, planned=plan(*steps)).splitlines() if "value: " in line]
    assert [line.partition("value: ")[2] for line in lines] == [
        "19,850 EUR → 99,999.99 EUR", "5,000 EUR → 1,010.50 EUR", "– → 123,456.78 EUR", "12,345.67 EUR → –",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("receipt", "offer"),
    [
        ({"undoable": 3, "outcomes": {"applied": 3}}, f"To undo it: pdsync undo {PUSH}"),
        ({"undoable": 1, "outcomes": {"applied": 3}}, f"To undo 1 of its 3 changes: pdsync undo {PUSH}"),
        ({"outcomes": {"applied": 2}, "not_undoable": ["a merge is final"]}, "It can't be undone: a merge is final."),
        ({"outcomes": {"applied": 2}, "already_so": 2}, None),
        ({"outcomes": {"rejected": 2}}, None),
    ],
)
def test_undo_is_offered_only_where_it_undoes_something(receipt: dict[str, Any], offer: str | None) -> None:
    text = shown(80, receipt=PushReceipt(PUSH, NOW, **receipt), planned=None)
    assert [line for line in text.splitlines() if "undo" in line] == ([offer] if offer else [])


@pytest.mark.parametrize(
    ("planned", "answers", "is_sent"),
    [
        (MERGES, "2\n", True), (MERGES, "y\n2\n", True), (MERGES, "yes\ny\ny\n", False),
        (MERGES, "3\n2\n", True), (MERGES, "3\n3\n3\n2\n", False),
        (MERGES, "n\n", False), (plan(step(1)), "y\n", True), (plan(step(1)), "n\n", False), (plan(), "", True),
        (plan(step(1)), "maybe\nyes\n", True), (plan(step(1)), "maybe\n?\nok\ny\n", False),
        (plan(step(1)), "\n", False),
    ],
)  # fmt: skip
def test_a_push_with_merges_is_sent_for_their_number_and_the_rule_comes_before_the_answer(
    planned: Plan, answers: str, is_sent: bool
) -> None:
    @click.command()
    def ask() -> None:
        sys.exit(0 if _consents(App(), planned) else 1)

    ran = CliRunner().invoke(ask, input=answers)
    assert ran.exit_code == (0 if is_sent else 1), ran.output
    if planned is MERGES:
        rule = "so yes is not enough. To send 3 changes to Acme,\ntype the number of merges.\nNumber of merges:"
        assert rule in ran.output
        assert ("Nothing was sent yet. Type the number, 2" in ran.output) is answers.startswith(("y", "3"))
    else:
        assert ("Nothing was sent yet. Type y, or n to send nothing." in ran.output) is answers.startswith("maybe")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_for_a_terminal_and_a_pipe_gets_none(is_terminal: bool) -> None:
    app, screen = App(), Screen() if is_terminal else io.StringIO()
    app.color = "always" if is_terminal else "auto"
    with redirect_stderr(screen):
        progress = _Progress(app)
        progress.start(3, tokens=36)
        assert progress.text == "0 % done, 3 changes and 36 tokens left; 0 of 3 done"
        for state, reason in (("applied", None), ("applied", "already_so"), ("needs_review", None)):
            progress.count(state, reason)
            assert progress.text == progress.text.lower()
        progress.stop()
    assert progress.text == "3 of 3 done, 1 applied, 1 already so, 1 needs review; bringing it into the warehouse"
    assert bool(screen.getvalue()) is is_terminal


if __name__ == "__main__":
    for each in WIDTHS:
        (GOLDEN / f"push_{each}.txt").write_text(shown(each), encoding="utf-8")
