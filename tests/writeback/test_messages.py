"""Sentences that several refusals share: a similar name whatever its case and accents, and the reason of one row."""

from __future__ import annotations

import pytest

from pdsync.errors import ConfigError
from pdsync.writeback.messages import did_you_mean, row_reason

USERS = ["Heike Müller", "Jörg Strauß", "Anna Berg", "Anna Lind", "Bo Dahl"]


@pytest.mark.parametrize(
    ("value", "suggested"),
    [
        ("Heike", {"Heike Müller"}), ("heike muller", {"Heike Müller"}), ("Muller", {"Heike Müller"}),
        ("Muller Heike", {"Heike Müller"}), ("JORG STRAUSS", {"Jörg Strauß"}), ("Heike Mueller", {"Heike Müller"}),
        ("Anna", {"Anna Berg", "Anna Lind"}), ("", set()), ("Zacharias", set()),
    ],
)  # fmt: skip
def test_a_similar_name_is_suggested(value: str, suggested: set[str]) -> None:
    text = did_you_mean(value, USERS)
    assert {each for each in USERS if repr(each) in text} == suggested
    assert bool(text) is bool(suggested)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("owner is wrong. Nothing was queued.\nName an active user.", "owner is wrong. Name an active user."),
        ("several are called 'Tier'.\nNothing was queued. Give the id.", "several are called 'Tier'. Give the id."),
        ("title is empty", "title is empty"),
    ],
)
def test_the_reason_of_a_row_keeps_its_hints_and_says_nothing_of_other_rows(error: str, reason: str) -> None:
    assert row_reason(ConfigError(error)) == reason
