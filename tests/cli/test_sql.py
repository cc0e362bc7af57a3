"""`pdsync sql`: formats, `--as-of`, and refusals. `api`, the listings and the library, on one synced company."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import duckdb
import pyarrow.parquet as pq
import pytest

import pdsync
from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.world import Project, clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox

Synced = tuple["RunningSandbox", Project]


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synced]:
    """A small company, synced once, changed, and synced again."""
    company = generate_company(seed=11, sizes=Sizes(deals=60, files=15), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        project = Project(tmp_path_factory.mktemp("project"))
        for name in ("PDSYNC_BASE_URL", "PDSYNC_API_TOKEN"):
            assert name not in clean_environment()
        assert cli(box, project, "sync", "-q").returncode == 0
        box.change(share=0.2, kinds=["deals"])
        assert cli(box, project, "sync", "-q").returncode == 0
        yield box, project


def cli(box: RunningSandbox, project: Project, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The real command line, as a person would call it."""
    environment = {
        **clean_environment(),
        "PDSYNC_BASE_URL": box.url,
        "PDSYNC_API_TOKEN": box.token,
        "PDSYNC_BURST": "0",
        "PDSYNC_DAILY_TOKENS": "0",
    }
    return subprocess.run(
        [sys.executable, "-m", "pdsync", "--project", str(folder(project)), *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def folder(project: Project) -> Path:
    """Where a project lives."""
    return project.folder


def test_formats_say_the_same(synced: Synced, tmp_path: Path) -> None:
    query = "select id, title, value, add_time, label_ids from deals order by id limit 7"
    array = json.loads(cli(*synced, "sql", query, "-o", "json").stdout)
    lines = [json.loads(line) for line in cli(*synced, "sql", query, "--json").stdout.splitlines()]
    rows = list(csv.DictReader(io.StringIO(cli(*synced, "sql", query, "-o", "csv").stdout)))
    target = tmp_path / "deals.parquet"
    with target.open("wb") as file:
        environment = {**clean_environment(), "PDSYNC_PROJECT": str(folder(synced[1]))}
        command = [sys.executable, "-m", "pdsync", "sql", query, "-o", "parquet"]
        assert subprocess.run(command, env=environment, stdout=file, check=False, timeout=60).returncode == 0
    parquet = pq.read_table(target).to_pylist()
    assert len(array) == 7
    assert array == lines
    assert [row["id"] for row in array] == [int(row["id"]) for row in rows] == [row["id"] for row in parquet]
    assert [row["title"] for row in array] == [row["title"] for row in parquet]
    assert "7 rows" in cli(*synced, "sql", query).stderr


@pytest.mark.parametrize("text", ["=1+1", "+41", "-2", "@x", "\tx"])
def test_x10_csv_disarms_formulas(synced: Synced, text: str) -> None:
    query = f"select '{text}' as cell"
    assert list(csv.reader(io.StringIO(cli(*synced, "sql", query, "-o", "csv").stdout)))[1][0] == "'" + text
    raw = cli(*synced, "sql", query, "-o", "csv", "--raw-csv").stdout
    assert list(csv.reader(io.StringIO(raw)))[1][0] == text


def test_x10_a_table_shows_no_escape_codes(synced: Synced) -> None:
    shown = cli(*synced, "sql", "select chr(27) || ']52;c;x' || chr(7) as cell").stdout
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "52;c;x" in shown


EVIL = "chr(27) || ']52;c;eA==' || chr(7) || chr(155) || '31m' || chr(8238) || 'x'"


@pytest.mark.parametrize("output", ["table", "csv", "json", "ndjson"])
def test_x10_no_form_of_an_answer_steers_a_terminal(synced: Synced, output: str) -> None:
    query = f'select {EVIL} as cell, [{EVIL}] as cells, 1 as "head\x1b]0;x\x07"'
    shown = on_a_terminal(*synced, "sql", query, "-o", output)
    assert "52;c;eA==" in shown
    assert not set("\x1b\x07\x9b\u202e") & set(re.sub(r"\x1b\[[0-9;]*m", "", shown))  # but for colours of our own


@pytest.mark.parametrize("output", ["csv", "ndjson"])
def test_x10_a_file_or_pipe_gets_what_the_warehouse_holds(synced: Synced, output: str) -> None:
    out = cli(*synced, "sql", f"select {EVIL} as cell", "-o", output).stdout
    cell = next(csv.DictReader(io.StringIO(out)))["cell"] if output == "csv" else json.loads(out)["cell"]
    assert cell == "\x1b]52;c;eA==\x07\x9b31m\u202ex"


def on_a_terminal(box: RunningSandbox, project: Project, *arguments: str) -> str:
    """What a person sees who types the command."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pdsync", "--project", str(folder(project)), "--color", "never", *arguments]
    environment = {**clean_environment(), "TERM": "xterm", "PDSYNC_BASE_URL": box.url, "PDSYNC_API_TOKEN": box.token}
    process = subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # Linux's word for the other side's end
        while piece := os.read(ours, 1 << 16):
            seen += piece
    os.close(ours)
    assert process.wait(60) == 0, seen
    return seen.decode()


@pytest.mark.parametrize(
    "query",
    [
        "from read_csv('/etc/passwd')",
        "copy (select 1) to '/tmp/pdsync-should-not-exist.csv'",
        "attach '/tmp/other.duckdb'",
        "install httpfs",
        "delete from deals",
        "create table x as select 1",
        "set enable_external_access = true",
    ],
)
def test_sql_reads_the_warehouse_and_nothing_else(synced: Synced, query: str) -> None:
    ran = cli(*synced, "sql", query)
    assert ran.returncode == 2, ran.stdout
    assert "Error" in ran.stderr
    assert "root:" not in ran.stdout


def test_as_of_shows_every_table_as_it_was(synced: Synced) -> None:
    box, project = synced
    with duckdb.connect(str(folder(project) / "data" / "warehouse.duckdb"), read_only=True) as warehouse:
        id, before, now, moment = warehouse.execute(
            "SELECT v.id, v.value::DOUBLE, d.value::DOUBLE, (v._valid_to - INTERVAL 1 SECOND)::VARCHAR"
            " FROM versions.deals v JOIN deals d USING (id) WHERE v.value <> d.value ORDER BY id LIMIT 1"
        ).fetchall()[0]
    query = f"select value from deals where id = {id}"
    then = moment.replace(" ", "T").replace("+00", "Z")
    assert float(json.loads(cli(box, project, "sql", query, "--as-of", then, "--json").stdout)["value"]) == before
    labeled = f"select value from labeled.deals where id = {id}"
    assert float(json.loads(cli(box, project, "sql", labeled, "--as-of", then, "--json").stdout)["value"]) == before
    assert float(json.loads(cli(box, project, "sql", query, "--json").stdout)["value"]) == now
    assert json.loads(
        cli(box, project, "sql", "select count(*) n from deals", "--as-of", "2001-01-01", "--json").stdout
    ) == {"n": 0}


def test_a_query_that_fails_says_what_is_wrong(synced: Synced) -> None:
    ran = cli(*synced, "sql", "select nope from deals")
    assert ran.returncode == 2
    assert "nope" in ran.stderr
    assert "show all tables" in ran.stderr


def test_api_calls_any_operation_and_checks_it_first(synced: Synced) -> None:
    box, project = synced
    deal = json.loads(cli(box, project, "api", "getDeal", "id=1").stdout)
    assert deal["data"]["id"] == 1
    everything = json.loads(cli(box, project, "api", "getDeals", "--all").stdout)
    assert {row["id"] for row in everything} == {entry["id"] for entry in box.dump("deals") if entry["state"] == "live"}
    raw = json.loads(cli(box, project, "api", "--request", "GET", "/v1/users/me").stdout)
    assert raw["data"]["company_id"] == box.company.id
    box.clear_log()
    for arguments in (
        ["getDeal"],
        ["getDeal", "id=x"],
        ["getDeel", "id=1"],
        ["getDeal", "id=1", "colour=red"],
        ["x=1"],
        [],
    ):
        ran = cli(box, project, "api", *arguments)
        assert ran.returncode == 2, arguments
        assert ran.stderr.startswith("Error")
    assert list(box.log) == []


def test_api_does_not_change_data_unasked(synced: Synced) -> None:
    box, project = synced
    before = len(list(box.journal))
    refused = cli(box, project, "api", "updateDeal", "id=2", "title=New")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert len(list(box.journal)) == before
    assert cli(box, project, "api", "updateDeal", "id=2", "title=New", "--yes").returncode == 0
    assert len(list(box.journal)) == before + 1


@pytest.mark.parametrize("command", ["streams", "operations", "fields", "runs", "status"])
def test_listings_print_one_object_a_row(synced: Synced, command: str) -> None:
    rows = [json.loads(line) for line in cli(*synced, "--json", command).stdout.splitlines()]
    assert rows
    for row in rows:
        first = list(row)[:2]
        assert first[0] == "name" or first == ["operation_id", "version"]
    behind = cli(*synced, command, "--json").stdout.splitlines()
    assert len(behind) == len(rows)


def test_plan_estimates_what_a_sync_will_spend(synced: Synced) -> None:
    box, project = synced
    planned = json.loads(cli(box, project, "plan", "--json").stdout.splitlines()[-1])
    box.clear_log()
    ran = json.loads(cli(box, project, "sync", "--json").stdout.splitlines()[-1])
    spent = sum(seen.cost for seen in box.log)
    assert ran["tokens"] == spent
    assert abs(planned["tokens"] - spent) <= 0.1 * spent


def test_exit_codes_and_messages_of_a_wrong_call(synced: Synced) -> None:
    for arguments in (
        ["frobnicate"],
        ["sync", "--budget", "0"],
        ["sync", "--since", "soon"],
        ["sync", "--pipeline", "nighly"],
    ):
        ran = cli(*synced, *arguments)
        assert ran.returncode == 2, arguments
        assert "Traceback" not in ran.stderr
    assert "Did you mean 'nightly'" in cli(*synced, "sync", "--pipeline", "nighly").stderr


def test_the_library_does_what_the_commands_do(synced: Synced, monkeypatch: pytest.MonkeyPatch) -> None:
    box, project = synced
    monkeypatch.setenv("PDSYNC_API_TOKEN", box.token)
    settings: dict[str, str | int | None] = {"account.base_url": box.url, "limits.burst": 0, "limits.daily_tokens": 0}
    receipt = pdsync.sync(folder(project), ["users"], settings=settings)
    assert receipt.exit_code == 0
    with pdsync.open_warehouse(folder(project)) as warehouse:
        counted = warehouse.execute("SELECT count(*) FROM users").fetchall()[0][0]
    assert counted == receipt.streams["users"].read


async def test_the_client_lists_and_calls(synced: Synced, monkeypatch: pytest.MonkeyPatch) -> None:
    box, project = synced
    monkeypatch.setenv("PDSYNC_API_TOKEN", box.token)
    async with pdsync.Client(folder(project), {"account.base_url": box.url, "limits.burst": 0}) as client:
        won = [deal["id"] async for deal in client.list("deals", status="won")]
        one = await client.call("getDeal", id=won[0])
    live = [e["record"] for e in box.dump("deals") if e["state"] in ("live", "archived")]
    assert sorted(won) == sorted(deal["id"] for deal in live if deal["status"] == "won")
    assert one["data"]["status"] == "won"
