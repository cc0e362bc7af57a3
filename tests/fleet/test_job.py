"""One command of one account: what a job sends to another machine, and what comes back however the command ends."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pyarrow.parquet as pq
import pytest

from pdsync.cli.fleet_job import name_session
from pdsync.fleet import job as jobs
from pdsync.fleet import process
from pdsync.fleet.accounts import Account
from pdsync.fleet.job import AccountJob, Counts, Progress, run
from pdsync.fleet.rollup import RollUpTarget, path_of
from pdsync.sandbox import Fault, Limits, Sizes, generate_company, running
from tests.fleet.kit import job_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.sandbox import RunningSandbox


@pytest.fixture(scope="module")
def box() -> Iterator[RunningSandbox]:
    with running(generate_company(seed=1, sizes=Sizes(deals=20)), limits=Limits(burst=None, daily_tokens=None)) as box:
        yield box


@pytest.fixture
def account(box: RunningSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    monkeypatch.setenv("TOKEN_OF_ACME", box.token)
    return Account("acme", tmp_path / "acme", box.url, "env:TOKEN_OF_ACME", burst=0, daily_tokens=0)


def test_a_job_runs_a_command_in_the_accounts_own_project(box: RunningSandbox, account: Account) -> None:
    reports: list[tuple[str, Progress]] = []
    result = run(AccountJob(account, ("sync", "deals"), "r1"), lambda *report: reports.append(report))
    deals = sum(each["state"] != "merged" for each in box.dump("deals"))
    assert (result.name, result.outcome, result.exit_code, result.message) == ("acme", "complete", 0, "")
    assert (result.complete, result.attempts, result.gaps, result.error) == (True, 1, [], "")
    assert result.streams["deals"]["read"] == deals
    assert result.counts.requests == len(box.log)
    assert result.counts.read == sum(stream["read"] for stream in result.streams.values())
    assert {name for name, _ in reports} == {"acme"}
    assert max(progress.started for _, progress in reports) >= 1
    assert (account.folder / "data" / "warehouse.duckdb").exists()
    assert run(AccountJob(account, ("sql", "select count(*) from deals"), "r1", as_json=False)).output.split() == [
        "count_star()", str(deals),
    ]  # fmt: skip
    listing = run(AccountJob(account, ("runs",), "r1"))
    assert (listing.outcome, result.run_id in listing.output) == ("complete", True)


@pytest.mark.proof
def test_a_command_that_changes_tables_rolls_its_account_up(
    box: RunningSandbox, account: Account, tmp_path: Path
) -> None:
    target = RollUpTarget(str(tmp_path / "rollup"), ("deals",))
    job = AccountJob(account, ("sync", "deals"), "r1", rollup=target)
    assert pickle.loads(pickle.dumps(job)) == job
    assert run(job).outcome == "complete"
    file = tmp_path / "rollup" / path_of("deals", "acme")
    written = file.stat().st_mtime_ns
    assert pq.read_metadata(file).num_rows == sum(each["state"] != "merged" for each in box.dump("deals"))
    assert run(AccountJob(account, ("runs",), "r1", rollup=target)).outcome == "complete"
    assert file.stat().st_mtime_ns == written
    (tmp_path / "file").touch()
    result = run(AccountJob(account, ("runs",), "r1", rollup=RollUpTarget(str(tmp_path / "file"))))
    assert (result.complete, result.outcome, result.error) == (False, "failed", "StorageError")
    assert str(tmp_path / "file") in result.message


def test_s10_what_a_failed_sync_has_committed_is_in_the_roll_up(
    box: RunningSandbox, account: Account, tmp_path: Path
) -> None:
    target = RollUpTarget(str(tmp_path / "rollup"), ("users",))
    box.faults.add(Fault(kind="mutate", path="/deals", find="^.*$", replace="[]"))
    try:
        result = run(AccountJob(account, ("sync", "users", "deals"), "r1", rollup=target))
    finally:
        box.faults.clear()
    assert (result.outcome, result.exit_code, result.streams["users"]["complete"]) == ("failed", 1, True), result
    assert "deals" in result.message
    assert pq.read_metadata(tmp_path / "rollup" / path_of("users", "acme")).num_rows == len(box.dump("users"))


def test_progress_counts_the_streams_that_began_and_what_those_that_ended_did() -> None:
    progress = Progress()
    for event in (
        {"event": "started", "stream": "deals"},
        {"event": "started", "stream": "persons"},
        {"event": "finished", "stream": "deals", "requests": 2, "tokens": 20, "read": 150},
        {"event": "finished", "stream": "persons"},
    ):
        progress = progress.after(event)
    assert progress == Progress(2, 2, Counts(requests=2, tokens=20, read=150))
    assert progress.after({"event": "note", "text": "Waiting."}).note == "Waiting."


def test_x2_a_job_that_travels_has_no_secret(box: RunningSandbox, account: Account) -> None:
    job = AccountJob(account, ("sync",), "r1", attempt=2)
    assert pickle.loads(pickle.dumps(job)) == job
    assert box.token.encode() not in pickle.dumps(job)
    assert job.key == "pdsync-acme-r1-2"


@pytest.mark.parametrize(
    ("token", "command", "outcome", "error", "message"),
    [
        ("env:NO_SUCH_TOKEN", ("sync",), "refused", "AuthError", "NO_SUCH_TOKEN, which has its token, is not set"),
        ("env:WRONG_TOKEN", ("sync", "deals"), "refused", "AuthError", "token"),
        ("env:TOKEN_OF_ACME", ("sync", "dealz"), "refused", "CatalogueError", "'deals'"),
        ("env:TOKEN_OF_ACME", ("synk",), "refused", "UsageError", "No such command 'synk'"),
    ],
)
def test_what_is_wrong_with_an_account_is_its_result_and_no_error(
    account: Account, monkeypatch: pytest.MonkeyPatch, token: str, command: tuple[str, ...], outcome: str, error: str,
    message: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("WRONG_TOKEN", "f" * 40)
    result = run(AccountJob(Account(account.name, account.folder, account.base_url, token), command, "r1"))
    assert (result.outcome, result.exit_code, result.complete, result.error) == (outcome, 2, False, error)
    assert message in result.message
    assert "f" * 40 not in repr(result)


def test_a_folder_that_cannot_be_made_is_a_failure_of_its_account(tmp_path: Path) -> None:
    (tmp_path / "acme").touch()
    result = run(job_of(tmp_path, "sync"))
    assert (result.outcome, result.exit_code, result.error) == ("failed", 1, "FileExistsError")


def test_a_command_that_does_not_end_in_time_is_ended_and_says_so(tmp_path: Path) -> None:
    result = run(job_of(tmp_path, "sandbox", "serve", "--port", "0", timeout_s=1.0))
    assert (result.outcome, result.exit_code, result.error) == ("failed", 1, "Timeout")
    assert "did not end within 1 s" in result.message


def test_a_job_is_not_started_where_its_run_was_stopped_until_another_process_goes_on_with_it(tmp_path: Path) -> None:
    stopped, following = name_session("r2"), name_session("r2")  # of two processes that work on one run
    process.stop_children(stopped)
    job = job_of(tmp_path, "runs")
    assert run(msgspec.structs.replace(job, run_id=stopped)).outcome == "interrupted"
    assert run(msgspec.structs.replace(job, run_id=following)).outcome == "complete"


@pytest.mark.parametrize(
    "name", ["job", "process", "mirror", "lease", "pointer", "record", "restoring", "contents", "store"]
)
def test_no_type_is_decoded_for_the_first_time_in_a_thread(name: str) -> None:
    text = (Path(process.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    assert re.findall(r"msgspec\.(?:json\.decode|convert)\(.*type=(?!dict\b).*", text) == []


@pytest.mark.parametrize("event", ["started", "finished", "note", "file", "summary", "error"])
def test_s9_a_row_with_a_column_called_event_is_a_row(account: Account, event: str) -> None:
    assert run(AccountJob(account, ("sync", "users"), "r1")).outcome == "complete"
    result = run(AccountJob(account, ("sql", f"select '{event}' as event, 1 as id"), "r1"))
    assert (result.outcome, result.output) == ("complete", f'{{"event":"{event}","id":1}}\n')


def test_s9_a_command_of_whose_output_a_part_is_left_out_is_not_complete(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_MOST_OUTPUT", 40)
    assert run(AccountJob(account, ("sync", "users"), "r1")).outcome == "complete"
    result = run(AccountJob(account, ("sql", "from range(50)"), "r1"))
    assert (result.complete, result.outcome, result.exit_code) == (False, "incomplete", 0)
    assert "more lines, left out" in result.message
