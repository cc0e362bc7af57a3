"""What `fleet status` and `fleet check` know of accounts without a request."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from pdsync.core.control import Control
from pdsync.fleet import accounts, run_log
from pdsync.fleet.check import find_problems
from pdsync.fleet.job import AccountResult, Outcome
from pdsync.fleet.status import command_for, measure
from pdsync.model import Receipt

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.fleet.accounts import Fleet

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    text = "[defaults]\ntoken = 'env:TOKEN_OF_{NAME}'\n" + "".join(f"[accounts.{name}]\n" for name in "abc")
    (tmp_path / "fleet.toml").write_text(text)
    return accounts.load(tmp_path)


def control_of(fleet: Fleet, name: str) -> Control:
    folder = fleet.accounts[name].folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    return Control(folder / "control.db")


def ran(fleet: Fleet, name: str, run_id: str, exit_code: int | None) -> None:
    """Leave a run in the account's control.db; without an exit code it was killed."""
    control = control_of(fleet, name)
    control.start_run(run_id, "sync", NOW)
    if exit_code is not None:
        control.finish_run(Receipt(run_id, "sync", NOW, NOW, exit_code=exit_code))
    control.close()


def logged(fleet: Fleet, name: str, outcome: Outcome, message: str = "", run_id: str = "") -> None:
    log = run_log.begin(fleet.data / "runs", ("sync",), restart=True)
    log.add(AccountResult(name, 2, outcome == "complete", outcome, message, run_id=run_id))
    log.end(4)
    log.close()


def test_an_account_that_never_ran_says_so_and_one_that_was_refused_says_why(fleet: Fleet) -> None:
    logged(fleet, "b", "refused", "The token is refused.\nRenew it.")
    control_of(fleet, "c").close()  # a plan has made it
    states = {state.name: state for state in measure(fleet, fleet.select(), NOW)}
    assert list(states) == ["a", "b", "c"]
    never = "It has never been synced."
    assert [(each.problem, each.command) for each in states["a"].attention] == [(never, "pdsync fleet sync a")]
    assert [(each.problem, each.command) for each in states["b"].attention] == [
        ("refused: The token is refused.", "pdsync fleet check b"),
        (never, "pdsync fleet sync b"),
    ]
    assert [each.problem for each in states["c"].attention] == [never]
    assert not any(state.complete or state.fresh for state in states.values())


def test_a_problem_of_the_account_has_the_command_of_the_fleet(fleet: Fleet) -> None:
    ran(fleet, "a", "r1", None)
    ran(fleet, "b", "r2", 0)
    logged(fleet, "a", "interrupted")
    logged(fleet, "b", "failed", "It is known already.", run_id="r2")
    a, b = measure(fleet, fleet.select("ab"), NOW)
    assert [(each.subject, each.command) for each in a.attention] == [("last run", "pdsync fleet sync a")]
    assert (a.last_run, a.exit_code, a.outcome) == ("r1", None, "interrupted")
    assert (b.last_run, b.exit_code, b.outcome, b.attention) == ("r2", 0, "failed", [])


def test_a_folder_whose_settings_are_wrong_spoils_no_other_account(fleet: Fleet) -> None:
    fleet.accounts["a"].folder.mkdir(parents=True)
    (fleet.accounts["a"].folder / "pdsync.toml").write_text("[limits]\nburst = -1\n")
    a, b = measure(fleet, fleet.select("ab"), NOW)
    assert "limits.burst" in a.error
    assert b.error == ""


@pytest.mark.parametrize("table", ["tokens", "runs", "company"])
def test_a_state_file_that_has_lost_a_table_spoils_no_other_account(
    fleet: Fleet, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        ran(fleet, name, "r1", 0)
        monkeypatch.setenv(f"TOKEN_OF_{name.upper()}", "0" * 40)
    with closing(sqlite3.connect(fleet.accounts["a"].folder / "data" / "control.db")) as control:
        control.execute(f"DROP TABLE {table}")
    a, b = measure(fleet, fleet.select("ab"), NOW)
    assert b.error == ""
    found = [*([a.error] if a.error else []), *(each.detail for each in find_problems(fleet, fleet.select("ab")))]
    assert found
    assert all("control.db" in each for each in found)


def test_an_account_that_another_workers_disk_has_is_known_by_what_that_worker_reported(fleet: Fleet) -> None:
    in_store = msgspec.structs.replace(fleet, store="s3://bucket/prefix")
    ran(fleet, "a", "old", 0)
    for name, outcome in (("a", "complete"), ("b", "incomplete")):
        log = run_log.begin(fleet.data / "runs", ("sync",), restart=True)
        complete, began = outcome == "complete", (NOW + timedelta(hours=1)).timestamp()
        log.add(AccountResult(name, 4, complete, outcome, "deals: failed", run_id=f"new-{name}", started_at=began))  # type: ignore[arg-type]
        log.close()
    a, b, c = measure(in_store, fleet.select(), NOW + timedelta(hours=2))
    assert (a.complete, a.fresh, a.last_run, a.attention) == (True, True, "new-a", [])
    assert (b.complete, b.last_run, [each.problem for each in b.attention]) == (
        False,
        "new-b",
        ["incomplete: deals: failed"],
    )
    assert [each.problem for each in c.attention] == ["It has never been synced."]
    assert measure(fleet, fleet.select("a"), NOW)[0].last_run == "old"


@pytest.mark.parametrize(
    ("command", "typed"),
    [
        ("pdsync sync", "pdsync fleet sync a"),
        ("pdsync reconcile deals --repair", "pdsync fleet run --account a -- reconcile deals --repair"),
        ("rm x", "rm x"),
    ],
)
def test_a_command_of_a_project_is_typed_for_an_account(fleet: Fleet, command: str, typed: str) -> None:
    assert command_for(fleet.accounts["a"], command) == typed


def test_a_check_finds_missing_tokens_one_company_twice_and_folders_of_no_account(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "AB":
        monkeypatch.setenv(f"TOKEN_OF_{name}", "0" * 40)
    for name in "ab":
        control = control_of(fleet, name)
        control.bind_company(7, "Acme", None)
        control.close()
    (fleet.folder / "old").mkdir()
    problems = find_problems(fleet, fleet.select())
    assert [problem.name for problem in problems] == ["b", "c", ""]
    assert "the same company as a (7)" in problems[0].detail
    assert "TOKEN_OF_C, which has its token, is not set" in problems[1].detail
    assert "[accounts.old]" in problems[2].fix


def logged_in_store(fleet: Fleet, command: tuple[str, ...], result: AccountResult) -> None:
    """Leave a run of the fleet in which another worker's disk had the account."""
    log = run_log.begin(fleet.data / "runs", command, restart=True)
    log.add(result)
    log.end(0 if result.complete else 4)
    log.close()


@pytest.mark.parametrize(
    "command",
    [("export", "parquet"), ("push", "--yes"), ("sync", "deals"), ("sync", "--pipeline", "hourly"), ("reconcile",)],
)
def test_s9_in_a_store_only_a_whole_sync_says_until_when_an_account_is_complete(
    fleet: Fleet, command: tuple[str, ...]
) -> None:
    in_store = msgspec.structs.replace(fleet, store="s3://bucket/prefix")
    began = (NOW + timedelta(hours=1)).timestamp()
    gap = AccountResult("a", 4, False, "incomplete", "deals: failed", run_id="r1", started_at=began)
    logged_in_store(fleet, ("sync", "--full"), gap)
    other = AccountResult("a", 0, True, "complete", run_id="r2", started_at=began + 60)
    logged_in_store(fleet, command, other)
    (a,) = measure(in_store, fleet.select("a"), NOW + timedelta(hours=2))
    assert (a.complete, a.fresh, a.complete_until) == (False, False, None)
    assert [each.problem for each in a.attention] == ["incomplete: deals: failed"]


def test_s9_a_sync_that_failed_is_not_forgotten_after_another_command_that_did_not(fleet: Fleet) -> None:
    ran(fleet, "a", "r1", 0)
    logged(fleet, "a", "refused", "The token is refused.")
    log = run_log.begin(fleet.data / "runs", ("plan",), is_alone=False)
    log.add(AccountResult("a", 0, True, "complete"))
    log.end(0)
    log.close()
    (a,) = measure(fleet, fleet.select("a"), NOW)
    assert [each.problem for each in a.attention if each.subject == "fleet run"] == ["refused: The token is refused."]
