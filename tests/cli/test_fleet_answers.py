"""`pdsync fleet sql`, `report`, `rollup` and `remove` on three companies."""

from __future__ import annotations

import csv
import io
import json
import shutil
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from pdsync.fleet import rollup
from pdsync.fleet.mirror import mirrored
from pdsync.fleet.store import open_store
from tests.fleet.companies import TOML, Companies
from tests.support.world import Ran, clean_environment, run_here

if TYPE_CHECKING:
    from pathlib import Path

OPEN = "select account, currency, count(*) as deals, sum(value) as value from fleet.deals group by all order by all"


@pytest.fixture(scope="module")
def companies(tmp_path_factory: pytest.TempPathFactory) -> Companies:
    return Companies(tmp_path_factory.mktemp("fleet"))


def run(companies: Companies, *arguments: str, stdin: str = "") -> Ran:
    return run_here(["--project", str(companies.folder), "fleet", *arguments], clean_environment(), stdin)


def test_before_the_first_roll_up_the_answer_is_empty_and_says_why(companies: Companies) -> None:
    ran = run(companies, "sql", "select count(*) as deals from fleet.deals", "--json")
    assert (ran.code, ran.events) == (0, [{"deals": 0}])
    assert "fleet.deals has nothing of acme, bolt, coda, 007, never." in ran.err
    assert "Changed since: acme, bolt, coda, 007. To bring that in: pdsync fleet rollup" in ran.err


def test_all_forms_of_an_answer_say_the_same(companies: Companies) -> None:
    ran = run(companies, "rollup", "--json")
    assert (ran.code, ran.summary["complete"], list(ran.summary["accounts"])) == (
        0,
        True,
        list(companies.fleet.accounts),
    )
    lines = run(companies, "sql", OPEN, "--json").events
    assert {line["account"] for line in lines} == {"acme", "bolt"}
    assert sum(line["deals"] for line in lines) == len(companies.truth["acme"]) + len(companies.truth["bolt"])
    assert json.loads(run(companies, "sql", "-", "-o", "json", stdin=OPEN).out) == lines
    rows = list(csv.DictReader(io.StringIO(run(companies, "sql", OPEN, "-o", "csv").out)))
    assert [row["account"] for row in rows] == [line["account"] for line in lines]
    shown = run(companies, "sql", OPEN)
    assert all(line["currency"] in shown.out for line in lines)
    assert "fleet.deals has nothing of never." in shown.err
    assert "Changed since" not in shown.err


@pytest.mark.parametrize("command", [("sql", "from fleet.accounts"), ("report",), ("rollup",)])
def test_a_store_without_chosen_tables_is_refused_with_what_to_write(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(f'[fleet]\nstore = "{tmp_path}/store"\n[accounts.acme]\n', encoding="utf-8")
    ran = run_here(["--project", str(tmp_path), "fleet", *command], clean_environment())
    assert ran.code == 2
    assert 'rollup = ["deals"]. Then: pdsync fleet rollup' in ran.err


def test_a_mistake_names_what_there_is(companies: Companies) -> None:
    ran = run(companies, "sql", "select no_such_column from fleet.deals")
    assert ran.code == 2
    assert 'Tables: pdsync fleet sql "show all tables"' in ran.err


def test_the_report_brings_in_what_has_changed(companies: Companies, tmp_path: Path) -> None:
    catalog = companies.fleet.data / "rollup" / rollup.catalog_path("coda")
    catalog.unlink(missing_ok=True)
    target = tmp_path / "report.html"
    ran = run(companies, "report", "-o", str(target), "--json")
    assert (ran.code, ran.events) == (0, [{"path": str(target), "bytes": target.stat().st_size}])
    assert catalog.exists()
    assert "Fleet of 5 accounts" in target.read_text(encoding="utf-8")
    assert target.stat().st_mode & 0o077 == 0


def test_s9_a_report_that_lacks_what_an_account_has_now_does_not_end_with_0(
    companies: Companies, tmp_path: Path
) -> None:
    warehouse = companies.fleet.accounts["coda"].folder / "data" / "warehouse.duckdb"
    content, target = warehouse.read_bytes(), tmp_path / "report.html"
    warehouse.write_bytes(b"no database")
    try:
        ran = run(companies, "report", "-o", str(target), "--json")
    finally:
        warehouse.write_bytes(content)
    assert (ran.code, ran.events) == (4, [{"path": str(target), "bytes": target.stat().st_size}])
    assert "coda: " in ran.err
    assert run(companies, "report", "-o", str(target)).code == 0


def test_each_command_of_the_fleet_rolls_its_account_up(companies: Companies) -> None:
    catalogs = companies.fleet.data / "rollup" / "catalog"
    for catalog in catalogs.glob("*"):
        catalog.unlink()
    ran = run(companies, "run", "--account", "coda", "--", "runs")
    assert ran.code == 0, ran
    assert [catalog.name for catalog in catalogs.iterdir()] == ["coda.json"]


def test_an_account_is_removed_only_when_it_is_meant(companies: Companies) -> None:
    toml = companies.folder / "fleet.toml"
    file = companies.fleet.data / "rollup" / rollup.path_of("users", "007")
    run(companies, "rollup", "007")
    assert pq.read_metadata(file).num_rows > 0
    assert run(companies, "remove", "007", "--yes").code == 2
    toml.write_text(TOML.replace("[accounts.007]\n", ""), encoding="utf-8")
    try:
        unasked = run(companies, "remove", "007", "--no-input")
        assert (unasked.code, file.exists()) == (2, True)
        assert "add --yes if you mean it" in unasked.err
        ran = run(companies, "remove", "007", "--yes")
    finally:
        toml.write_text(TOML, encoding="utf-8")
    assert (ran.code, file.parent.exists()) == (0, False)
    assert f"Its folder stays: {companies.fleet.accounts['007'].folder}" in ran.err
    assert companies.fleet.accounts["007"].folder.exists()


def test_a_fleet_with_a_store_rolls_up_what_the_store_has(companies: Companies, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    shutil.copytree(companies.fleet.accounts["acme"].folder, disk)
    with mirrored(open_store(str(tmp_path / "store")), "acme", disk, owner="a worker"):
        pass
    toml = f'[fleet]\nstore = "{tmp_path}/store"\nrollup = ["deals"]\n[accounts.acme]\n[accounts.never]\n'
    (tmp_path / "fleet.toml").write_text(toml, encoding="utf-8")
    command = ["--project", str(tmp_path), "fleet"]
    ran = run_here([*command, "rollup"], clean_environment())
    assert (ran.code, "Nothing to roll up yet: never." in ran.err) == (0, True)
    ran = run_here(
        [*command, "sql", "select account, count(*) as deals from fleet.deals group by all", "--json"],
        clean_environment(),
    )
    assert ran.events == [{"account": "acme", "deals": len(companies.truth["acme"])}]
    assert not (tmp_path / "accounts").exists()
