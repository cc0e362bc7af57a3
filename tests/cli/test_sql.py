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
from tests.support.world import Project, Remote, clean_environment, run_here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningSandbox, Project]]:
    """A small company, synced once, changed, and synced again."""
    company = generate_company(seed=11, sizes=Sizes(deals=60, files=15), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        project = Project(tmp_path_factory.mktemp("project"), Remote(box.url, box.token))
        assert project.here("sync", "-q").code == 0
        box.change(share=0.2, kinds=["deals"])
        assert project.here("sync", "deals", "-q").code == 0
        yield box, project


@pytest.fixture
def box(synced: tuple[RunningSandbox, Project]) -> RunningSandbox:
    return synced[0]


@pytest.fixture
def project(synced: tuple[RunningSandbox, Project]) -> Project:
    return synced[1]


def test_formats_say_the_same(project: Project, tmp_path: Path) -> None:
    query = "select id, title, value, add_time, label_ids from deals order by id limit 7"
    array = json.loads(project.here("sql", query, "-o", "json").out)
    lines = [json.loads(line) for line in project.here("sql", query, "--json").out.splitlines()]
    rows = list(csv.DictReader(io.StringIO(project.here("sql", query, "-o", "csv").out)))
    target = tmp_path / "deals.parquet"
    with target.open("wb") as file:
        environment = {**clean_environment(), "PDSYNC_PROJECT": str(project.folder)}
        command = [sys.executable, "-m", "pdsync", "sql", query, "-o", "parquet"]
        assert subprocess.run(command, env=environment, stdout=file, check=False, timeout=60).returncode == 0
    parquet = pq.read_table(target).to_pylist()
    assert len(array) == 7
    assert array == lines
    assert [row["id"] for row in array] == [int(row["id"]) for row in rows] == [row["id"] for row in parquet]
    assert [row["title"] for row in array] == [row["title"] for row in parquet]
    assert "7 rows" in project.here("sql", query).err


@pytest.mark.parametrize("output", ["json", "ndjson"])
def test_json_has_every_column_also_of_two_with_one_name(project: Project, output: str) -> None:
    query = "select 1 as id, 2 as id, 3 as id_1, 4 as id"
    expected = {"id": 1, "id_2": 2, "id_1": 3, "id_3": 4}
    out = project.here("sql", query, "-o", output).out
    assert json.loads(out) == ([expected] if output == "json" else expected)


def test_records_and_a_glimpse_show_every_column(project: Project) -> None:
    query = "select id, title, won_time, value from deals order by id limit 2"
    first, second = (json.loads(line) for line in project.here("sql", query, "--json").out.splitlines())
    records = project.here("sql", query, "-o", "vertical").out.splitlines()
    assert [line.split()[0] for line in records] == ["──", "id", "title", "won_time", "value"] * 2
    assert records[2] == f"title     {first['title']}"
    glimpse = project.here("sql", query, "-o", "glimpse").out.splitlines()
    assert glimpse[0] == "2 rows, 4 columns"
    assert [line.split()[:2] for line in glimpse[1:]] == [
        ["id", "BIGINT"], ["title", "VARCHAR"], ["won_time", "TIMESTAMPTZ"], ["value", "DECIMAL(18,4)"]
    ]  # fmt: skip
    assert glimpse[1].endswith(f"{first['id']}, {second['id']}")


@pytest.mark.parametrize("output", ["table", "csv", "ndjson"])
def test_columns_are_chosen_by_name_and_come_in_that_order(project: Project, output: str) -> None:
    query = "select id, title, value as Amount from deals limit 1"
    shown = project.here("sql", query, "--columns", "amount, id", "-o", output).out
    assert re.match(r"\W*Amount\W", shown)
    assert "title" not in shown
    refused = project.here("sql", query, "--columns", "id,titel")
    assert refused.code == 2
    assert "no column titel. Did you mean title?" in refused.err
    broken = project.here("sql", query, "--columns", "id\rtitle")
    assert (broken.code, broken.out) == (2, "")
    assert "It is written like --columns id,title" in broken.err


def test_the_shell_answers_in_the_mode_that_is_set(project: Project) -> None:
    lines = ["select 7 as id,", " 'x' as title;", ".mode vertical", "select 8 as id;", "select nope;", ".mode pie",
             ".exit", "select 9;"]  # fmt: skip
    ran = run_here(["shell"], project.env, "\n".join(lines))
    assert ran.code == 0
    assert ran.out == "id  title\n 7  x\n── 1 ────────────────────\nid  8\n"
    assert "nope" in ran.err
    assert "Not a command: .mode pie. There are .mode table or vertical or glimpse, and .exit." in ran.err


@pytest.mark.parametrize("text", ["=1+1", "+41", "-2", "@x", "\tx"])
def test_x10_csv_disarms_formulas(project: Project, text: str) -> None:
    query = f"select '{text}' as cell"
    assert list(csv.reader(io.StringIO(project.here("sql", query, "-o", "csv").out)))[1][0] == "'" + text
    raw = project.here("sql", query, "-o", "csv", "--raw-csv").out
    assert list(csv.reader(io.StringIO(raw)))[1][0] == text


def test_x10_a_table_shows_no_escape_codes(project: Project) -> None:
    shown = project.here("sql", "select chr(27) || ']52;c;x' || chr(7) as cell").out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "52;c;x" in shown


EVIL = "chr(27) || ']52;c;eA==' || chr(7) || chr(155) || '31m' || chr(8238) || 'x'"


@pytest.mark.parametrize("output", ["table", "csv", "json", "ndjson"])
def test_x10_no_form_of_an_answer_steers_a_terminal(box: RunningSandbox, project: Project, output: str) -> None:
    query = f'select {EVIL} as cell, [{EVIL}] as cells, 1 as "head\x1b]0;x\x07"'
    shown = on_a_terminal(box, project, "sql", query, "-o", output)
    assert "52;c;eA==" in shown
    assert not set("\x1b\x07\x9b\u202e") & set(re.sub(r"\x1b\[[0-9;]*m", "", shown))  # but for colours of our own


@pytest.mark.parametrize("output", ["csv", "ndjson"])
def test_x10_a_file_or_pipe_gets_what_the_warehouse_holds(project: Project, output: str) -> None:
    out = project.here("sql", f"select {EVIL} as cell", "-o", output).out
    cell = next(csv.DictReader(io.StringIO(out)))["cell"] if output == "csv" else json.loads(out)["cell"]
    assert cell == "\x1b]52;c;eA==\x07\x9b31m\u202ex"


def on_a_terminal(box: RunningSandbox, project: Project, *arguments: str) -> str:
    """What a person sees who types the command."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pdsync", "--project", str(project.folder), "--color", "never", *arguments]
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
def test_sql_reads_the_warehouse_and_nothing_else(project: Project, query: str) -> None:
    ran = project.here("sql", query)
    assert ran.code == 2, ran.out
    assert "Error" in ran.err
    assert "root:" not in ran.out


def test_as_of_shows_every_table_as_it_was(project: Project) -> None:
    with duckdb.connect(str(project.folder / "data" / "warehouse.duckdb"), read_only=True) as warehouse:
        id, before, now, moment = warehouse.execute(
            "SELECT v.id, v.value::DOUBLE, d.value::DOUBLE, (v._valid_to - INTERVAL 1 SECOND)::VARCHAR"
            " FROM versions.deals v JOIN deals d USING (id) WHERE v.value <> d.value ORDER BY id LIMIT 1"
        ).fetchall()[0]
    query = f"select value from deals where id = {id}"
    then = moment.replace(" ", "T").replace("+00", "Z")
    assert float(json.loads(project.here("sql", query, "--as-of", then, "--json").out)["value"]) == before
    labeled = f"select value from labeled.deals where id = {id}"
    assert float(json.loads(project.here("sql", labeled, "--as-of", then, "--json").out)["value"]) == before
    assert float(json.loads(project.here("sql", query, "--json").out)["value"]) == now
    early = json.loads(project.here("sql", "select count(*) n from deals", "--as-of", "2001-01-01", "--json").out)
    assert early.pop("n") == 0
    assert list(early) == ["observed_from"]


def test_a_query_that_fails_says_what_is_wrong(project: Project) -> None:
    ran = project.here("sql", "select nope from deals")
    assert ran.code == 2
    assert "nope" in ran.err
    assert "show all tables" in ran.err


@pytest.mark.parametrize(
    ("query", "is_hinted"),
    [
        ("from sales.funnel_on", True),
        ('select * from "sales"."Funnel_On" limit 1', True),
        ("from sales.funnel_on()", True),
        ("select nope from sales.funnel_on('2026-01-31')", False),
        ("from sales.funnel_on_2", False),
    ],
)
def test_a_macro_that_lacks_its_parameters_is_named_with_them(project: Project, query: str, is_hinted: bool) -> None:
    ran = project.here("sql", query)
    assert ran.code == 2
    assert ("sales.funnel_on(day)" in ran.err) == is_hinted


def test_a_view_file_that_no_run_has_read_is_named_with_the_command_that_reads_it(project: Project) -> None:
    file = project.folder / "views" / "open_deals.sql"
    file.parent.mkdir(exist_ok=True)
    file.write_text("from deals")
    try:
        ran = project.here("sql", "from my.open_deals")
        assert ran.code == 2
        assert "views/open_deals.sql" in ran.err
        assert "pdsync sync" in ran.err
        assert "open_deals.sql" not in project.here("sql", "from my.open").err
    finally:
        file.unlink()


@pytest.mark.parametrize(("form", "output"), [("csv", "csv"), ("excel", "csv"), ("XLSX", "csv"), ("json", "json")])
def test_export_names_the_command_that_writes_other_formats(project: Project, form: str, output: str) -> None:
    ran = project.here("export", form, "deals")
    assert ran.code == 2
    assert f"-o {output} > deals.{output}" in ran.err


def test_api_calls_any_operation_and_checks_it_first(box: RunningSandbox, project: Project) -> None:
    deal = json.loads(project.here("api", "getDeal", "id=1").out)
    assert deal["data"]["id"] == 1
    everything = json.loads(project.here("api", "getDeals", "--all").out)
    assert {row["id"] for row in everything} == {entry["id"] for entry in box.dump("deals") if entry["state"] == "live"}
    raw = json.loads(project.here("api", "--request", "GET", "/v1/users/me").out)
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
        ran = project.here("api", *arguments)
        assert ran.code == 2, arguments
        assert ran.err.startswith("Error")
    assert list(box.log) == []


def test_api_does_not_change_data_unasked(box: RunningSandbox, project: Project) -> None:
    before = len(list(box.journal))
    refused = project.here("api", "updateDeal", "id=2", "title=New")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert len(list(box.journal)) == before
    assert project.here("api", "updateDeal", "id=2", "title=New", "--yes").code == 0
    assert len(list(box.journal)) == before + 1


@pytest.mark.parametrize("command", ["streams", "operations", "fields", "runs", "status"])
def test_listings_print_one_object_a_row(project: Project, command: str) -> None:
    rows = [json.loads(line) for line in project.here("--json", command).out.splitlines()]
    assert rows
    for row in rows:
        first = list(row)[:2]
        assert first[0] == "name" or first == ["operation_id", "version"]
    behind = project.here(command, "--json").out.splitlines()
    assert len(behind) == len(rows)


def test_plan_estimates_what_a_sync_will_spend(box: RunningSandbox, project: Project) -> None:
    planned = json.loads(project.here("plan", "--json").out.splitlines()[-1])
    box.clear_log()
    ran = json.loads(project.here("sync", "--json").out.splitlines()[-1])
    spent = sum(seen.cost for seen in box.log)
    assert ran["tokens"] == spent
    assert abs(planned["tokens"] - spent) <= 0.1 * spent


def test_exit_codes_and_messages_of_a_wrong_call(project: Project) -> None:
    for arguments in (
        ["frobnicate"],
        ["sync", "--budget", "0"],
        ["sync", "--since", "soon"],
        ["sync", "--pipeline", "nighly"],
    ):
        ran = project.here(*arguments)
        assert ran.code == 2, arguments
        assert "Traceback" not in ran.err
    assert "Did you mean 'nightly'" in project.here("sync", "--pipeline", "nighly").err


def test_the_library_does_what_the_commands_do(
    box: RunningSandbox, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDSYNC_API_TOKEN", box.token)
    settings: dict[str, str | int | None] = {"account.base_url": box.url, "limits.burst": 0, "limits.daily_tokens": 0}
    receipt = pdsync.sync(project.folder, ["users"], settings=settings)
    assert receipt.exit_code == 0
    with pdsync.open_warehouse(project.folder) as warehouse:
        counted = warehouse.execute("SELECT count(*) FROM users").fetchall()[0][0]
    assert counted == receipt.streams["users"].read


async def test_the_client_lists_and_calls(
    box: RunningSandbox, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDSYNC_API_TOKEN", box.token)
    async with pdsync.Client(project.folder, {"account.base_url": box.url, "limits.burst": 0}) as client:
        won = [deal["id"] async for deal in client.list("deals", status="won")]
        one = await client.call("getDeal", id=won[0])
    live = [e["record"] for e in box.dump("deals") if e["state"] in ("live", "archived")]
    assert sorted(won) == sorted(deal["id"] for deal in live if deal["status"] == "won")
    assert one["data"]["status"] == "won"
