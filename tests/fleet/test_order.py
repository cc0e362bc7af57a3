"""In which order accounts run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pdsync.fleet.accounts import Account
from pdsync.fleet.job import AccountResult, Outcome
from pdsync.fleet.order import in_order, last_results
from pdsync.fleet.run_log import FleetRun

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def ended(name: str, seconds: float, outcome: Outcome = "complete") -> AccountResult:
    return AccountResult(name, 0, outcome == "complete", outcome, seconds=seconds)


def run_of(command: str, *results: AccountResult) -> FleetRun:
    return FleetRun("r", (command,), (), NOW, {each.name: each for each in results}, {})


def test_what_was_never_complete_comes_first_then_the_longest_and_a_spent_budget_last() -> None:
    runs = [
        run_of("sync", ended("short", 1), ended("long", 90), ended("spent", 500), ended("grown", 2)),
        run_of("sync", ended("short", 2), ended("long", 80), ended("failed", 3, "failed"), ended("grown", 50)),
        run_of("sync", ended("spent", 700, "stopped"), ended("long", 1, "failed")),
        run_of("export", ended("short", 1000), ended("new", 5)),
    ]
    accounts = [Account(name, Path("/", name)) for name in ("short", "spent", "grown", "new", "long", "failed")]
    ordered = in_order(accounts, last_results(runs, "sync"))
    assert [account.name for account in ordered] == ["failed", "new", "long", "grown", "short", "spent"]
