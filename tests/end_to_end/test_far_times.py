"""A mistyped year breaks no command: `sql` in every form, exports, the past, the queue."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.support.world import Project

if TYPE_CHECKING:
    from pathlib import Path

DAYS = {1: "20222-03-04", 2: "0044-03-15 (BC)", 3: "infinity", 4: "-infinity", 5: "2026-03-31"}
WON = "20222-03-04T10:20:30Z"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("far")
    deals = [
        {"id": id, "title": f"deal {id}", "pipeline_id": 1, "stage_id": 1, "owner_id": 1, "status": "won",
         "currency": "EUR", "expected_close_date": day, "won_time": WON, "close_time": WON, "add_time": WON,
         "update_time": "2026-01-01T00:00:00Z" if id > 1 else "20222-01-01T00:00:00Z"}
        for id, day in DAYS.items()
    ]  # fmt: skip
    activities = [{"id": 1, "subject": "call", "duration": "01:30", "due_date": "20222-03-04"}]
    project = Project(folder / "project")
    others = {"pipelines": [{"id": 1, "name": "P"}], "stages": [{"id": 1, "name": "S", "pipeline_id": 1}],
              "users": [{"id": 1, "name": "U"}]}  # fmt: skip
    for stream, records in {"deals": deals, "activities": activities, **others}.items():
        file = folder / f"{stream}.json"
        file.write_text(json.dumps(records))
        ran = project.here("load", str(file), "--stream", stream, "--company", "7")
        assert ran.code == 0, ran
    return project


@pytest.mark.parametrize("output", ["table", "json", "ndjson", "csv"])
def test_s16_sql_shows_a_far_year_in_every_form(project: Project, output: str) -> None:
    ran = project.here("sql", "select id, expected_close_date, won_time from deals order by id", "-o", output)
    assert ran.code == 0, ran
    if output == "table":
        shown = [line.split("  ")[1].strip() for line in ran.out.splitlines()[1:]]
    elif output == "csv":
        shown = [row["expected_close_date"].lstrip("'") for row in csv.DictReader(io.StringIO(ran.out))]
    else:
        facts = json.loads(ran.out) if output == "json" else [json.loads(line) for line in ran.out.splitlines()]
        shown = [fact["expected_close_date"] for fact in facts]
        assert {fact["won_time"] for fact in facts} == {WON}
    assert shown == list(DAYS.values())


def test_s16_parquet_takes_intervals_and_far_years(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "out.parquet"
    for query in ("from activities", "from deals order by id"):
        with file.open("wb") as out:
            command = [sys.executable, "-m", "pdsync", "sql", query, "-o", "parquet"]
            assert subprocess.run(command, stdout=out, env=project.env, check=False, timeout=60).returncode == 0
        if query == "from activities":
            assert pq.read_table(file, columns=["duration"]).to_pylist() == [{"duration": "01:30:00"}]
    with duckdb.connect() as database:
        rows = database.execute(f"SELECT id, expected_close_date::VARCHAR FROM '{file}'").fetchall()
    assert dict(rows) == DAYS


def test_s16_the_past_and_exports_take_far_years(project: Project, tmp_path: Path) -> None:
    for id in DAYS:
        assert project.here("history", "deals", str(id)).code == 0
        assert project.here("history", "deals", str(id), "--json").code == 0
    ran = project.here("diff", "deals", "--from", "2020-01-01", "--rows", "--json")
    assert ran.code == 0, ran
    days = {each["id"]: each["row"]["expected_close_date"] for each in ran.events}
    assert {id: days[id] for id in days} == {id: DAYS[id] for id in days}
    assert set(days) >= {2, 3, 4, 5}
    ran = project.here("export", "parquet", "--out", str(tmp_path / "out"), "--changes")
    assert ran.code == 0, ran
    with duckdb.connect() as database:
        exported = database.execute(
            f"SELECT id, expected_close_date::VARCHAR FROM '{tmp_path}/out/deals/*/data.parquet'"
        ).fetchall()
    assert dict(exported) == DAYS


def test_s16_the_report_takes_far_years(project: Project, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    ran = project.here("report", "--output", str(page))
    assert ran.code == 0, ran
    assert "closed in 20222-03-01 were won" in page.read_text(encoding="utf-8")


def test_s16_a_query_with_far_years_and_intervals_is_queued_or_refused_in_words(project: Project) -> None:
    query = "select id, expected_close_date from deals where id = 1"
    refused = project.here("queue", "from-sql", query, "--operation", "updateDeal")
    assert refused.code == 2
    assert "'20222-03-04', and should be a date" in refused.err
    queued = project.here(
        "queue", "from-sql", "select id, duration from activities", "--operation", "updateActivity", "--json"
    )
    assert queued.code == 0, queued
    assert queued.events[0]["payload"]["duration"] == "01:30:00"
