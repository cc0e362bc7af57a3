"""What a reconciliation shows: "no difference" only where the numbers agree, and a sentence wherever they do not.

The files in `golden` show it at two widths; `python -m tests.cli.test_reconcile` writes them again.
"""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pdsync.cli.app import App
from pdsync.cli.commands.reconcile import _show
from pdsync.model import Receipt
from pdsync.runner.reconcile.findings import CountMismatch, Finding, ReconcileResult

GOLDEN = Path(__file__).parent / "golden"
WIDTHS = (80, 120)
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
MISMATCHES = [CountMismatch("permission_sets", str(key), 100, 2, 2, NOW) for key in range(3)]


class Screen(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


def result(**facts: Any) -> ReconcileResult:
    return ReconcileResult(Receipt("run", "reconcile", NOW, requests=12, tokens=120, seconds=1.5), **facts)


def shown(compared: ReconcileResult, width: int = 120) -> str:
    app, screen, columns = App(), Screen(), os.environ.get("COLUMNS")
    app.color = "never"
    os.environ["COLUMNS"] = str(width)
    try:
        with redirect_stderr(screen), redirect_stdout(screen):
            _show(app, compared, 0)
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    return screen.getvalue()


COUNTED = {
    "swept": {
        "deals": (192, 192, 192),
        "deal_products": (111, 111, 0),
        "permission_set_assignments": (6, 6, 0),
        "roles": (4, 4, 4),
    },
    "by_count": ["deal_products", "permission_set_assignments"],
    "not_compared": {"deal_products": 5},
    "counts_off": {"permission_set_assignments": MISMATCHES},
    "left_out": {"deal_changelog": "it was never read to its end: pdsync sync deal_changelog"},
}


@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_that_differ_are_explained(width: int) -> None:
    assert shown(result(**COUNTED), width) == (GOLDEN / f"reconcile_{width}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("facts", "outcome"),
    [
        ({"swept": {"deals": (6, 6, 6)}}, "no difference. 12 requests"),
        ({"swept": {"deals": (6, 6, 6)}, "not_compared": {"deals": 186}, "is_sample": True}, "no difference. 12"),
        ({"swept": {"deals": (313, 6, 6)}}, "the numbers of deals differ. 12"),
        (
            {"swept": {"deals": (7, 6, 6)}, "findings": [Finding("deals", "7", "missing")]},
            "1 difference found, 1 difference left; repair",
        ),
        ({"swept": {"deals": (6, 6, 4)}}, "no difference of keys, times and flags. 12"),
        ({}, "nothing was compared"),
    ],
)
def test_no_difference_is_said_only_where_the_numbers_agree(facts: dict[str, Any], outcome: str) -> None:
    text = shown(result(**facts))
    assert outcome in text
    assert ("no difference" in text) is ("no difference" in outcome)
    assert "not compared" not in text
    assert ("such as counters: 2 deals. Keys" in text) is ("keys, times" in outcome)


if __name__ == "__main__":
    for width in WIDTHS:
        (GOLDEN / f"reconcile_{width}.txt").write_text(shown(result(**COUNTED), width), encoding="utf-8")
