"""Simulated changes are those that were asked for, at times between the clock's, and are in the journal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pdsync.sandbox import Company, LiveChanges, Sizes, generate_company
from pdsync.sandbox.activity.simulate import CHANGES, KINDS, TABLE_KINDS, simulate_changes

NOW = datetime(2026, 11, 20, 10, 0, 0, tzinfo=UTC)


@pytest.fixture
def company() -> Company:
    return generate_company(seed=5, sizes=Sizes(deals=120), now=NOW)


def test_a_record_is_changed_in_one_way_only(company: Company) -> None:
    done = simulate_changes(company, share=0.5, kinds=TABLE_KINDS)
    for kind, by_change in done.items():
        ids = [id for each in by_change.values() for id in each]
        assert len(ids) == len(set(ids)), kind
        assert {entry.id for entry in company.journal if entry.kind == kind} >= set(ids), kind
    assert all(done["deals"][change] for change in ("added", "updated", "deleted", "archived"))
    assert sum(len(by_change["merged"]) for by_change in done.values()) == 1


@pytest.mark.parametrize("change", CHANGES)
def test_only_the_named_change_is_made(company: Company, change: str) -> None:
    done = simulate_changes(company, records=12, kinds=["deals"], only=[change])["deals"]
    made = {name for name, ids in done.items() if ids}
    assert made == ({"merged", "updated"} if change == "merged" else {change})  # the winner of a merge is updated


def test_times_are_between_the_clocks(company: Company) -> None:
    before = company.clock.stamp()
    simulate_changes(company, records=20, kinds=["deals", "persons"], advance_s=3600, only=["updated"])
    times = [entry.after.record["update_time"] for entry in company.journal if entry.after]
    assert before < min(times) <= max(times) <= company.clock.stamp()
    assert len(set(times)) > 5


def test_a_number_of_records_goes_before_the_share(company: Company) -> None:
    done = simulate_changes(company, share=1, records=3, kinds=["deals"], only=["updated"])
    assert len(done["deals"]["updated"]) == 3
    assert simulate_changes(company, share=0, kinds=["deals"])["deals"] == {change: [] for change in CHANGES}


def test_no_records_are_no_changes_whatever_the_share(company: Company) -> None:
    done = simulate_changes(company, records=0)
    assert not any(ids for by_change in done.values() for ids in by_change.values()), done
    assert company.journal == []


def test_the_same_seed_makes_the_same_changes() -> None:
    one, same, other = (
        simulate_changes(generate_company(seed=5, sizes=Sizes(deals=60), now=NOW), share=0.1, seed=seed)
        for seed in (1, 1, 2)
    )
    assert one == same != other


def test_an_unknown_kind_is_refused_before_any_change(company: Company) -> None:
    with pytest.raises(ValueError, match=f"cannot change 'unicorns'; there are {', '.join(KINDS)}"):
        simulate_changes(company, kinds=["deals", "unicorns"])
    assert company.journal == []


def test_an_unknown_change_is_refused_before_any_change(company: Company) -> None:
    with pytest.raises(ValueError, match=f"cannot make the change 'created'; there are {', '.join(CHANGES)}"):
        simulate_changes(company, only=["updated", "created"])
    assert company.journal == []


@pytest.mark.parametrize("wrong", [{"only": ("created",)}, {"kinds": ("unicorns",)}, {"every": 0}])
def test_changes_at_every_nth_request_are_refused_when_they_are_set(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"created|unicorns|every"):
        LiveChanges(**{"every": 1, **wrong})
