"""A saved plan comes back as it was, or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.errors import ConfigError
from pdsync.writeback.plan import LIFE, Change, Plan, Step, load, mass_changes, save

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.writeback.plan import Fate

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


def step(n: int, value: Any = "New", fate: Fate = "send") -> Step:
    return Step(
        str(n), n, "v2 updateDeal", "update", "deals", f"deals/{n}", None, {"id": n}, {"title": "Old"},
        (Change("title", "Old", value),), 1, 5, fate,
    )  # fmt: skip


def plan(*steps: Step) -> Plan:
    return Plan(1, "Company", NOW, NOW + LIFE, "field", steps, 7).sealed()


def test_w9_a_saved_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = plan(step(1), step(2, fate="conflict"))
    save(saved, tmp_path / "plan.json")
    assert load(tmp_path / "plan.json") == saved


@pytest.mark.parametrize(
    ("old", "new"),
    [("New", "Other"), ('"company_id": 1', '"company_id": 2'), ('"field"', '"ours"'), ("2026-01-06", "2027-01-06")],
)
def test_w9_a_plan_that_was_edited_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "plan.json"
    save(plan(step(1)), path)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match="Nothing was sent"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe", None])
def test_w9_a_file_that_is_no_plan_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="is no plan"):
        load(path)


def test_only_what_is_sent_costs_beside_the_reads() -> None:
    assert plan(step(1), step(2), step(3, fate="already_so")).tokens == 7 + 2 * 5


@pytest.mark.parametrize(("same", "other", "is_shown"), [(19, 0, False), (20, 0, True), (19, 1, True), (18, 2, False)])
def test_a_value_that_most_of_twenty_updates_set_is_pointed_out(same: int, other: int, is_shown: bool) -> None:
    steps = [step(n) for n in range(same)] + [step(100 + n, f"Other {n}") for n in range(other)]
    assert mass_changes(plan(*steps)) == ([("title", "New", same, same + other)] if is_shown else [])
