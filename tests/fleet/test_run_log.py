"""What a fleet run leaves on disk, and when the same command goes on with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pdsync.errors import ProjectLocked
from pdsync.fleet import run_log
from pdsync.fleet.accounts import Account
from pdsync.fleet.job import AccountJob, AccountResult, Counts
from pdsync.fleet.rollup import RollUpTarget

SYNC = ("sync",)


def result(name: str, exit_code: int = 0) -> AccountResult:
    return AccountResult(
        name, exit_code, exit_code == 0, "failed" if exit_code else "complete", "why", counts=Counts(1, 2, 3),
        streams={"deals": {"read": 3}}, output="rows",
    )  # fmt: skip


def test_an_interrupted_run_goes_on_without_the_accounts_that_are_complete(tmp_path: Path) -> None:
    first = run_log.begin(tmp_path, SYNC)
    for each in (result("a"), result("b", 1)):
        first.add(each)
    first.close()
    second = run_log.begin(tmp_path, SYNC)
    assert second.run_id == first.run_id
    assert list(second.complete) == ["a"]
    assert second.complete["a"].counts == Counts(1, 2, 3)
    second.add(result("b"))
    second.end(0)
    second.close()
    third = run_log.begin(tmp_path, SYNC)
    assert third.run_id != first.run_id
    assert third.complete == {}
    third.close()
    (ended, begun) = run_log.read(tmp_path)
    assert (ended.run_id, ended.exit_code, {name: each.complete for name, each in ended.results.items()}) == (
        first.run_id, 0, {"a": True, "b": True},
    )  # fmt: skip
    assert (begun.run_id, begun.exit_code, begun.results) == (third.run_id, None, {})


@pytest.mark.parametrize(
    ("command", "selection", "restart"),
    [(("sync", "--full"), (), False), (SYNC, ("tag:emea",), False), (SYNC, (), True)],
)
def test_another_command_or_selection_or_restart_begins_from_the_start(
    tmp_path: Path, command: tuple[str, ...], selection: tuple[str, ...], restart: bool
) -> None:
    first = run_log.begin(tmp_path, SYNC)
    first.add(result("a"))
    first.close()
    second = run_log.begin(tmp_path, command, selection, restart=restart)
    assert second.run_id != first.run_id
    assert second.complete == {}
    second.close()


def test_what_was_complete_too_long_ago_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_log.begin(tmp_path, SYNC)
    first.add(result("a"))
    first.close()
    monkeypatch.setattr(run_log, "CONTINUED", timedelta(0))
    second = run_log.begin(tmp_path, SYNC)
    assert second.complete == {}
    second.close()


def test_a_run_that_goes_on_elsewhere_is_not_taken_over(tmp_path: Path) -> None:
    first = run_log.begin(tmp_path, SYNC)
    with pytest.raises(ProjectLocked, match=first.run_id):
        run_log.begin(tmp_path, SYNC)
    other = run_log.begin(tmp_path, SYNC, ("acme",))
    assert other.run_id != first.run_id
    beside = run_log.begin(tmp_path, SYNC, is_alone=False)
    assert (beside.run_id != first.run_id, beside.complete) == (True, {})
    for log in (first, other, beside):
        log.close()


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_line_that_a_crash_has_cut_is_left_out_and_spoils_no_other(tmp_path: Path, cut: int) -> None:
    first = run_log.begin(tmp_path, SYNC)
    first.add(result("a"))
    first.add(result("b"))
    first.close()
    path = tmp_path / f"{first.run_id}.ndjson"
    path.write_bytes(path.read_bytes()[:-cut])
    second = run_log.begin(tmp_path, SYNC)
    assert list(second.complete) == (["a", "b"] if cut == 1 else ["a"])
    second.add(result("c"))
    second.close()
    (run,) = run_log.read(tmp_path)
    assert list(run.results) == [*second.complete, "c"]


def test_only_the_newest_runs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "_KEPT", 3)
    for number in range(5):
        (tmp_path / f"2026010{number}T000000-000000.ndjson").touch()
    log = run_log.begin(tmp_path, SYNC)
    log.close()
    assert len(list(tmp_path.iterdir())) == 3
    assert (tmp_path / f"{log.run_id}.ndjson").exists()
    assert datetime.now(UTC) - run_log.read(tmp_path)[-1].started_at < timedelta(hours=1)


def write_as_if_ahead(folder: Path, log: run_log.RunLog) -> None:
    """Let the clock by which a run was written have been a year ahead."""
    path, year = folder / f"{log.run_id}.ndjson", datetime.now(UTC).year
    path.write_text(path.read_text().replace(f'"{year}-', f'"{year + 1}-'))


def test_o5_what_ended_by_a_clock_that_ran_ahead_runs_again(tmp_path: Path) -> None:
    first = run_log.begin(tmp_path, SYNC)
    first.add(result("a"))
    first.close()
    write_as_if_ahead(tmp_path, first)
    second = run_log.begin(tmp_path, SYNC)
    assert second.complete == {}
    second.close()


def test_o5_after_a_clock_that_ran_ahead_the_same_command_still_runs_once_at_a_time(tmp_path: Path) -> None:
    ahead = run_log.begin(tmp_path, SYNC)
    ahead.end(0)
    ahead.close()
    write_as_if_ahead(tmp_path, ahead)
    first = run_log.begin(tmp_path, SYNC)
    with pytest.raises(ProjectLocked, match=first.run_id):
        run_log.begin(tmp_path, SYNC)
    first.close()


def test_s9_a_run_that_ends_while_the_next_one_waits_for_it_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_log.begin(tmp_path, SYNC)
    first.add(result("a"))
    take_file = run_log._open

    def end_first(*facts: Any) -> Any:
        monkeypatch.setattr(run_log, "_open", take_file)
        first.end(0)
        first.close()
        return take_file(*facts)

    monkeypatch.setattr(run_log, "_open", end_first)
    second = run_log.begin(tmp_path, SYNC)
    assert second.run_id != first.run_id
    assert second.complete == {}
    second.close()


@pytest.mark.parametrize(
    "change",
    [
        {"account": Account("acme", Path("/elsewhere/acme"))},
        {"account": Account("acme", Path("/fleet/acme"), base_url="https://other.pipedrive.com")},
        {"command": ("sync", "--pipeline", "hourly")},
        {"command": ("export", "parquet", "--out", "/now/account=acme")},
        {"store": "s3://other/prefix"},
        {"rollup": RollUpTarget("/rollup", ("deals",))},
    ],
    ids=["folder", "company", "pipeline", "target", "store", "roll-up"],
)
def test_s9_an_account_that_was_complete_with_other_settings_runs_again(tmp_path: Path, change: dict[str, Any]) -> None:
    job = AccountJob(Account("acme", Path("/fleet/acme")), SYNC, "r1")
    first = run_log.begin(tmp_path, SYNC)
    first.add(result("acme"), job.settings)
    first.close()
    second = run_log.begin(tmp_path, SYNC)
    same = msgspec.structs.replace(job, run_id="r2", attempt=3, timeout_s=60.0)
    assert list(second.find_complete([same])) == ["acme"]
    assert second.find_complete([msgspec.structs.replace(job, **change)]) == {}
    second.close()
