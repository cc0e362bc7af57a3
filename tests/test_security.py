"""docs/security.md: each threat names tests, and each test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_orientation import functions_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
THREATS, NOT_STOPPED = PAGE.split("## What is not stopped")
SECTIONS = dict(section.split("\n", 1) for section in THREATS.split("\n## ")[1:])
ROWS = [line for line in THREATS.splitlines() if line.startswith("| ") and not line.startswith("| with what ")]


def test_every_kind_of_attacker_has_threats() -> None:
    assert list(SECTIONS) == [
        "A hostile server", "Hostile data in the CRM", "A hostile project folder", "Other users of the machine",
        "Other web pages while you log in", "The chain of dependencies", "A fleet",
    ]  # fmt: skip
    assert [name for name, text in SECTIONS.items() if text.count("\n| ") < 4] == []
    assert NOT_STOPPED.count("\n- **") > 4


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_each_threat_names_what_stops_it_and_tests_that_exist(row: str) -> None:
    _, threat, stopped_by, shown_by, end = (cell.strip() for cell in row.split("|"))
    assert threat
    assert stopped_by
    assert not end
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", shown_by)
    assert named, "no test shows it"
    assert len(named) == shown_by.count("`") // 2
    assert [name for path, name in named if name not in functions_of(path)] == []


def test_a_report_goes_to_github_and_no_address_is_named() -> None:
    policy = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "Report a vulnerability" in policy
    assert "Supported versions" in policy
    assert re.findall(r"[\w.]+@[\w.]+", policy) == []
