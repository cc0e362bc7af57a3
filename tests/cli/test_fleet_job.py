"""The accounts of a run as a table: it fits into a small terminal, and says what was tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.cli.fleet_job import FleetOutcome, account_rows
from pdsync.cli.layout import lay_out
from pdsync.cli.text_width import cell_width
from pdsync.fleet import run_log
from pdsync.fleet.job import AccountResult, Counts
from tests.support.world import clean_environment, run_here

if TYPE_CHECKING:
    from pathlib import Path

COUNTS = Counts(requests=234, tokens=2_345, read=123_456, inserted=12_345, updated=6_789, deleted=123)


@pytest.mark.parametrize(
    ("complete", "attempts", "width", "words"),
    [(True, 1, 80, ["✓", "acme", "123,456"]), (False, 1, 80, ["✗", "acme", "failed", "123,456"]),
     (False, 2, 90, ["✗", "acme", "failed", "123,456"])],
)  # fmt: skip
def test_no_heading_of_the_table_is_shortened(complete: bool, attempts: int, width: int, words: list[str]) -> None:
    result = AccountResult(
        "acme", 0, complete, "complete" if complete else "failed", counts=COUNTS, seconds=120.5, attempts=attempts
    )
    header, line = lay_out(account_rows(FleetOutcome("r1", {"acme": result}, 120.5, 0), None), width)
    assert "…" not in header.text
    assert ("attempts" in header.text) is (attempts > 1)
    assert cell_width(line.text) <= width
    assert line.text.split()[: len(words)] == words


@pytest.mark.parametrize("changes", [Counts(updated=5_000), Counts(deleted=2), Counts(inserted=1, updated=1)])
def test_a_small_screen_shows_those_with_the_most_changes_of_any_kind(changes: Counts) -> None:
    results = {f"c{number:02}": AccountResult(f"c{number:02}", 0, True, "complete") for number in range(40)}
    results["few"] = AccountResult("few", 0, True, "complete", counts=Counts(inserted=1, read=9_000))
    results["most"] = AccountResult("most", 0, True, "complete", counts=changes)
    rows = account_rows(FleetOutcome("r1", results, 1.0, 0), 20).values
    assert [row[0] for row in rows[:2]] == ["✓ most", "✓ few"]


def test_s9_a_run_that_goes_on_runs_an_account_again_whose_settings_have_changed(tmp_path: Path) -> None:
    log = run_log.begin(tmp_path / "data" / "fleet" / "runs", ("sync",))
    log.add(AccountResult("acme", 0, True, "complete"), "of another company")
    log.close()
    (tmp_path / "fleet.toml").write_text("[accounts.acme]\ntoken = 'env:NO_SUCH_TOKEN'\n")
    ran = run_here(["--project", str(tmp_path), "--json", "fleet", "sync"], clean_environment())
    assert (ran.code, ran.summary["continued"]) == (4, 0)
    assert ran.summary["accounts"]["acme"]["outcome"] == "refused"


@pytest.mark.parametrize("command", [("sync",), ("reconcile",), ("export",), ("plan",), ("check",), ("rollup",)])
def test_s9_a_selection_that_no_account_is_in_is_not_complete(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "fleet.toml").write_text("[accounts.acme]\n[accounts.beta]\ntags = ['emea']\n")
    ran = run_here(
        ["--project", str(tmp_path), "--json", "fleet", *command, "acme", "--tag", "emea"], clean_environment()
    )
    assert (ran.code, ran.summary["complete"]) == (2, False)
    assert "no account is called acme and has the tag emea. Nothing was called." in ran.err


def test_s9_a_check_of_a_fleet_whose_store_is_refused_does_not_pass(tmp_path: Path) -> None:
    toml = "[fleet]\nstore = 's3://bucket'\nendpoint = 'http://192.0.2.1'\n[accounts.acme]\n"
    (tmp_path / "fleet.toml").write_text(toml)
    (tmp_path / "accounts" / "old").mkdir(parents=True)
    ran = run_here(["--project", str(tmp_path), "--json", "fleet", "check", "--no-requests"], clean_environment())
    assert (ran.code, ran.summary["complete"], ran.summary["accounts"]) == (4, False, {"acme": {"ok": False}})
    found = {event["detail"].split(" is ")[0]: event["blocks"] for event in ran.events[:-1]}
    assert found == {"The endpoint http://192.0.2.1": True, f"{tmp_path}/accounts/old": False}


def test_a_check_says_how_the_token_of_an_account_s_folder_is_stored(tmp_path: Path) -> None:
    address = "https://127.0.0.1:9"
    (tmp_path / "fleet.toml").write_text(f"[accounts.acme]\nbase_url = '{address}'\n")
    environment = clean_environment() | {
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        "HOME": str(tmp_path),
    }
    ran = run_here(["--project", str(tmp_path), "fleet", "check"], environment)
    assert ran.code == 4
    assert f"PDSYNC_BASE_URL={address} pdsync --project {tmp_path}/accounts/acme auth login" in ran.out
    assert "0 of 1 account is ready." in ran.out
