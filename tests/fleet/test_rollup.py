"""The roll-up: equal columns for all accounts, each account's own rows, written only when they changed."""

from __future__ import annotations

import json
import shutil
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.control import Lock
from pdsync.core.views import views
from pdsync.errors import ConfigError, LeaseTaken, ProjectLocked, StorageError
from pdsync.fleet import check, lease, removal, rollup, rollup_tables
from pdsync.fleet.store import open_store
from tests.fleet.companies import ZONES
from tests.fleet.sales_types import LEFT_OUT, sales_types

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fleet.companies import Companies


@pytest.fixture
def folder(companies: Companies) -> Path:
    return companies.fleet.data / "rollup"


def ask(folder: Path, table: str, query: str) -> list[tuple[Any, ...]]:
    source = f"read_parquet('{folder}/{table}/*/*.parquet', hive_partitioning = true, hive_types_autocast = false)"
    return duckdb.connect().execute(query.replace("TABLE", source)).fetchall()


@pytest.mark.parametrize("table", ["deals", "users", "sales_funnel", "sales_won_by_month", "accounts"])
def test_every_account_has_the_same_columns_whatever_it_has(companies: Companies, folder: Path, table: str) -> None:
    for name in ("acme", "bolt", "coda", "007"):
        file = folder / rollup.path_of(table, name)
        rows = duckdb.connect().execute("DESCRIBE FROM read_parquet(?, hive_partitioning = false)", [str(file)])
        types = {row[0]: row[1] for row in rows.fetchall()}
        with duckdb.connect() as database:  # DuckDB's own spelling of the types
            wanted = database.sql(rollup_tables.empty(table)).types[1:]
        assert list(types) == list(rollup_tables.columns_of(table))
        assert list(types.values()) == [str(kind) for kind in wanted]
    assert not (folder / rollup.path_of(table, "never")).exists()


def test_rows_are_those_of_each_source(companies: Companies, folder: Path) -> None:
    for name in ("acme", "bolt", "coda", "007"):
        rows = ask(folder, "deals", f"SELECT id, value, currency FROM TABLE WHERE account = '{name}' ORDER BY id")
        truth = sorted(companies.truth[name], key=lambda entry: entry["id"])
        shown = [entry["record"] for entry in truth if entry["state"] in ("live", "archived", "deleted")]
        assert rows == [(each["id"], Decimal(str(each["value"])), each["currency"]) for each in shown]
    assert len(companies.truth["acme"]) > 30


def test_zone_and_currency_ride_along(folder: Path) -> None:
    rows = ask(folder, "users", "SELECT DISTINCT account, account_timezone, account_currency FROM TABLE")
    assert {name: settled for name, *settled in rows} == {name: [*each] for name, each in ZONES.items()} | {
        "007": ["Etc/UTC", "GBP"]
    }


def test_custom_fields_come_by_label_and_by_code(companies: Companies, folder: Path) -> None:
    rows = ask(folder, "deals", "SELECT account, id, custom_fields, custom_fields_by_code FROM TABLE")
    truth = {
        (name, entry["id"]): entry["record"]["custom_fields"]
        for name, entries in companies.truth.items()
        for entry in entries
    }
    names = {name: in_words(labels) for name, labels in companies.labels.items()}
    assert "Tier" in names["acme"].values()  # two fields have that label
    assert any(label.startswith("Tier (") for label in names["acme"].values())
    shown = set()
    for name, id, by_label, by_code in rows:
        values, named = json.loads(by_code or "{}"), json.loads(by_label or "{}")
        assert set(values) == {code for code, value in truth[name, id].items() if value not in (None, [])}
        assert set(named) == {names[name][code] for code in values}
        shown |= set(named)
    assert len(shown) > 10


def in_words(labels: dict[str, str]) -> dict[str, str]:
    """Code → the label of that field; where an earlier field has it too, with the beginning of the code."""
    words: dict[str, str] = {}
    for code, label in labels.items():
        words[code] = f"{label} ({code[:6]})" if label in words.values() else label
    return words


def test_options_show_their_labels_and_parts_their_names(companies: Companies, folder: Path) -> None:
    code = next(code for code, label in companies.labels["acme"].items() if label == "Tier")
    rows = ask(
        folder, "deals", f"SELECT custom_fields, custom_fields_by_code->'{code}' FROM TABLE WHERE account = 'acme'"
    )
    fields = [(json.loads(by_label), id) for by_label, id in rows if by_label]
    tiers = {(by_label["Tier"], id) for by_label, id in fields if id}
    assert tiers
    assert all(not label.isdigit() and id.isdigit() for label, id in tiers)
    deposits = [by_label["Deposit"] for by_label, _ in fields if "Deposit" in by_label]
    assert deposits
    assert all(set(deposit) == {"value", "currency"} for deposit in deposits)


def test_only_what_changed_or_was_lost_is_written(companies: Companies, folder: Path) -> None:
    lost = folder / rollup.path_of("deals", "acme")
    content = lost.read_bytes()
    lost.unlink()
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    result = rollup.roll_up(companies.fleet, [companies.fleet.accounts["acme"]])["acme"]
    assert (list(result.written), result.removed) == (["deals"], 0)
    assert result.unchanged == len(rollup.target_of(companies.fleet).tables) - 1
    assert lost.read_bytes() == content
    now = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert {path for path in now if now[path] != files.get(path)} == {lost, folder / rollup.catalog_path("acme")}
    assert all(path.stat().st_mode & 0o077 == 0 for path in now)


def test_a_table_that_is_not_chosen_any_more_goes(companies: Companies, folder: Path) -> None:
    fewer, coda = replace(companies.fleet, rollup=("users",)), companies.fleet.accounts["coda"]
    assert rollup.roll_up(fewer, [coda])["coda"].removed == 1
    assert not (folder / rollup.path_of("deals", "coda")).exists()
    assert (folder / rollup.path_of("deals", "bolt")).exists()
    assert list(rollup.roll_up(companies.fleet, [coda])["coda"].written) == ["deals"]


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ("deals", "deals/account=bolt/part.parquet"),
        ("deals", "../../accounts/bolt/data/control.db"),
        ("../deals", "../deals/account=acme/part.parquet"),
    ],
)
def test_x7_a_catalogue_that_names_a_file_of_another_account_removes_nothing(
    tmp_path: Path, table: str, path: str
) -> None:
    store = open_store(str(tmp_path / "rollup"))
    file = {"path": path, "rows": 1, "bytes": 1, "sha256": "0"}
    store.create("catalog/acme.json", json.dumps({"format": 1, "account": "acme", "tables": {table: file}}).encode())
    assert rollup.read_catalog(store, "acme").tables == {}


def test_x7_a_view_in_a_warehouse_reads_no_file_of_the_machine(companies: Companies, tmp_path: Path) -> None:
    private, folder = tmp_path / "private", tmp_path / "007"
    private.write_text("secret")
    shutil.copytree(companies.fleet.accounts["007"].folder, folder)
    with duckdb.connect(str(folder / "data" / "warehouse.duckdb")) as connection:
        connection.execute("CREATE TABLE others AS FROM main.users")
        connection.execute("DROP VIEW IF EXISTS labeled.users")
        connection.execute("DROP TABLE main.users")
        connection.execute(
            "CREATE VIEW main.users AS SELECT * REPLACE ((SELECT content"
            f" FROM read_text('{private}')) AS name) FROM others"
        )
    account = replace(companies.fleet.accounts["007"], folder=folder)
    target = rollup.RollUpTarget(str(tmp_path / "rollup"), ("users",))
    with pytest.raises(StorageError, match="file system operations are disabled"):
        rollup.roll_up_account(target, account)
    assert not list((tmp_path / "rollup").rglob("*.parquet"))


def test_a_broken_warehouse_is_reported_and_stops_no_other(companies: Companies) -> None:
    broken = companies.fleet.accounts["coda"].folder / "data" / "warehouse.duckdb"
    content = broken.read_bytes()
    try:
        broken.write_bytes(b"no database" * 5000)
        results = rollup.roll_up(companies.fleet, companies.fleet.select(["coda", "007"]))
    finally:
        broken.write_bytes(content)
    assert [name for name, result in results.items() if result.error] == ["coda"]
    assert "warehouse.duckdb" in results["coda"].error


@pytest.mark.parametrize("damage", [b"no database" * 5000, b""])
def test_a_damaged_state_file_is_reported_with_its_repair_and_stops_no_other(
    companies: Companies, damage: bytes
) -> None:
    broken = companies.fleet.accounts["coda"].folder / "data" / "control.db"
    content = broken.read_bytes()
    try:
        broken.write_bytes(damage)
        results = rollup.roll_up(companies.fleet, companies.fleet.select(["coda", "007"]), full=True)
    finally:
        broken.write_bytes(content)
    assert [name for name, result in results.items() if result.error] == ["coda"]
    assert "control.db" in results["coda"].error
    assert "pdsync doctor" in results["coda"].error
    rollup.roll_up(companies.fleet, [companies.fleet.accounts["coda"]])


def test_an_account_is_removed_when_asked_and_nothing_else(companies: Companies, folder: Path) -> None:
    with pytest.raises(ConfigError, match="would bring it back"):
        removal.find(companies.fleet, "bolt")
    fewer = replace(companies.fleet, accounts={"acme": companies.fleet.accounts["acme"]})
    assert removal.find_left(companies.fleet) == []
    assert removal.find_left(fewer) == ["007", "bolt", "coda"]
    assert any(problem.fix.endswith(": pdsync fleet remove bolt") for problem in check.find_problems(fewer, []))
    files = {path for path in folder.rglob("*") if path.is_file()}
    count = removal.find(fewer, "bolt").rolled_up
    removal.remove(fewer, "bolt")
    gone = files - {path for path in folder.rglob("*") if path.is_file()}
    assert len(gone) == count
    assert {path.parent.name for path in gone} == {"account=bolt", "catalog"}
    assert removal.find_left(fewer) == ["007", "coda"]
    with pytest.raises(ConfigError, match="nothing of an account 'bolt'"):
        removal.find(fewer, "bolt")
    rollup.roll_up(companies.fleet, [companies.fleet.accounts["bolt"]])
    assert {path for path in folder.rglob("*") if path.is_file()} == files


def test_s9_an_account_that_still_runs_is_not_called_removed(companies: Companies, folder: Path) -> None:
    fewer = replace(companies.fleet, accounts={"acme": companies.fleet.accounts["acme"]})
    file, data = folder / rollup.path_of("deals", "bolt"), companies.fleet.accounts["bolt"].folder / "data"
    with Lock(data / "pdsync.lock"), pytest.raises(ProjectLocked):
        removal.remove(fewer, "bolt")
    with lease.acquire(open_store(str(companies.folder / "store")), "bolt", owner="a worker", ttl_s=3):
        kept = companies.folder / "store" / "rollup" / rollup.path_of("deals", "bolt")
        kept.parent.mkdir(parents=True)
        kept.write_bytes(b"rows")
        with pytest.raises(LeaseTaken):
            removal.remove(replace(fewer, store=str(companies.folder / "store")), "bolt")
    assert (file.exists(), kept.exists()) == (True, True)


def test_files_of_an_account_whose_first_roll_up_was_cut_off_are_named_when_it_has_left(
    companies: Companies, folder: Path
) -> None:
    left = folder / rollup.path_of("deals", "gone")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"rows")  # and no catalogue, which is written last
    try:
        assert removal.find_left(companies.fleet) == ["gone"]
        removal.remove(companies.fleet, "gone")
        assert removal.find_left(companies.fleet) == []
    finally:
        shutil.rmtree(left.parent, ignore_errors=True)


def test_every_view_that_answers_a_question_is_in_the_roll_up_with_its_types() -> None:
    tables = {table.removeprefix("sales_"): columns for table, columns in rollup_tables.sales_tables().items()}
    assert tables == sales_types(), "python -m tests.fleet.sales_types"
    assert LEFT_OUT.keys() <= views().keys()


def test_no_column_of_the_catalogue_is_called_like_one_of_the_roll_up() -> None:
    for name, stream in catalogue.streams().items():
        assert len(rollup_tables.columns_of(name)) == len(stream.columns) + 7, name
        assert not {"account"} & stream.columns.keys()
    assert not {rollup_tables.ACCOUNTS, *rollup_tables.sales_tables()} & catalogue.streams().keys()
