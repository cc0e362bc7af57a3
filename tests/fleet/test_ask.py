"""The roll-up as one database: typed views over all accounts of fleet.toml, and nothing else."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from msgspec.structs import replace

from pdsync.errors import ConfigError, StorageError
from pdsync.fleet import ask, removal, rollup, rollup_tables

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.fleet.accounts import Fleet
    from tests.fleet.companies import Companies


def rows(fleet: Fleet, query: str) -> list[tuple[Any, ...]]:
    with ask.open_answers(fleet, query) as answers:
        return answers.connection.execute(query).fetchall()


def test_one_query_answers_for_all_accounts(companies: Companies) -> None:
    counts = dict(rows(companies.fleet, "SELECT account, count(*) FROM fleet.deals GROUP BY ALL ORDER BY ALL"))
    assert counts == {name: len(deals) for name, deals in companies.truth.items() if deals}
    assert dict(rows(companies.fleet, "from fleet.deals select account, count(*) group by all")) == counts
    assert dict(rows(companies.fleet, 'select account, count(*) from "Fleet"."DEALS" group by all')) == counts


def test_a_name_of_digits_stays_text(companies: Companies) -> None:
    assert rows(companies.fleet, "SELECT DISTINCT account FROM fleet.users WHERE account = '007'") == [("007",)]


def test_money_is_summed_within_an_account_and_a_currency(companies: Companies) -> None:
    query = "SELECT account, currency, sum(base_value IS NULL OR true)::INT FROM fleet.sales_funnel GROUP BY ALL"
    assert {name for name, *_ in rows(companies.fleet, query)} == {"acme", "bolt"}
    with_currency = [table for table, columns in rollup_tables.sales_tables().items() if "currency" in columns]
    assert len(with_currency) > 10


def test_each_account_is_listed_with_its_tags(companies: Companies) -> None:
    answer = rows(companies.fleet, "SELECT account, tags, company, timezone, currency FROM fleet.accounts ORDER BY ALL")
    assert answer == [
        ("007", [], "007", "Etc/UTC", "GBP"),
        ("acme", ["emea"], "Acme", "Europe/Berlin", "EUR"),
        ("bolt", [], "Bolt", "America/New_York", "USD"),
        ("coda", [], "Coda", "Asia/Tokyo", "JPY"),
        ("never", [], None, None, None),
    ]


@pytest.mark.parametrize("table", ["deals", "users", "sales_funnel", "accounts"])
def test_types_are_the_catalogue_s_with_files_and_without(companies: Companies, table: str, tmp_path: Path) -> None:
    types = []
    for fleet in (companies.fleet, replace(companies.fleet, file=tmp_path / "fleet.toml")):
        with ask.open_answers(fleet, table) as answers:
            relation = answers.connection.sql(f"FROM fleet.{table} LIMIT 0")
            types.append(dict(zip(relation.columns, map(str, relation.types), strict=True)))
    assert types[0] == types[1]
    assert [name for name in types[0] if name != "tags"] == ["account", *rollup_tables.columns_of(table)]


def test_a_file_of_an_earlier_version_lacks_a_column(companies: Companies, tmp_path: Path) -> None:
    fleet = replace(companies.fleet, file=tmp_path / "fleet.toml")
    for name in ("acme", "bolt"):
        file = fleet.data / "rollup" / rollup.path_of("deals", name)
        file.parent.mkdir(parents=True)
        source = companies.fleet.data / "rollup" / rollup.path_of("deals", name)
        lacks = "arr" if name == "acme" else "arr, mrr"
        duckdb.connect().execute(f"COPY (SELECT * EXCLUDE ({lacks}) FROM '{source}') TO '{file}'")
    ((arr, kind, deals),) = rows(fleet, "SELECT count(arr), any_value(typeof(arr)), count(*) FROM fleet.deals")
    assert (arr, kind, deals) == (0, "DECIMAL(18,4)", len(companies.truth["acme"]) + len(companies.truth["bolt"]))


def test_an_account_that_is_not_in_fleet_toml_is_not_shown(companies: Companies) -> None:
    fewer = replace(companies.fleet, accounts={"acme": companies.fleet.accounts["acme"]})
    assert rows(fewer, "SELECT DISTINCT account FROM fleet.users") == [("acme",)]
    assert rows(fewer, "SELECT account FROM fleet.accounts") == [("acme",)]


def test_accounts_without_rows_for_the_query_are_named(companies: Companies) -> None:
    with ask.open_answers(companies.fleet, "FROM fleet.deals") as answers:
        assert answers.missing == {"deals": ["never"]}


@pytest.mark.parametrize("query", ["show all tables", "from duckdb_views()", "describe fleet.deals"])
def test_what_there_is_can_be_asked(companies: Companies, query: str) -> None:
    assert len(rows(companies.fleet, query)) > 20


def test_a_name_that_is_computed_finds_its_rows(companies: Companies) -> None:
    assert rows(companies.fleet, "SELECT count(*) > 0 FROM query_table('fleet.' || 'deals')") == [(True,)]


@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO '{deals}'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{deals}'",
        "FROM fleet.deals; COPY (SELECT 1) TO '{deals}'",
        "PREPARE p AS COPY (SELECT 1) TO '{deals}'; EXECUTE p",
        "FROM read_text('{toml}')",
        "ATTACH '{folder}/new.duckdb'",
        "SET enable_external_access = true",
    ],
)
def test_nothing_else_is_read_and_nothing_is_written(companies: Companies, query: str) -> None:
    deals = companies.fleet.data / "rollup" / rollup.path_of("deals", "acme")
    before = deals.read_bytes()
    text = query.format(deals=deals, toml=companies.fleet.file, folder=companies.folder)
    with pytest.raises((ConfigError, duckdb.Error)):
        rows(companies.fleet, f"{text} -- deals")
    assert deals.read_bytes() == before


def test_a_stream_that_was_not_chosen_is_refused_with_what_to_write(companies: Companies) -> None:
    with pytest.raises(ConfigError, match=r'rollup = \["deals", "users", "persons"\]'):
        rows(companies.fleet, "from fleet.persons")


def test_a_store_is_copied_file_by_file_and_only_what_changed(
    companies: Companies, store_url: str, tmp_path: Path
) -> None:
    fleet = replace(companies.fleet, store=store_url, file=tmp_path / "fleet.toml", rollup=("users", "deals"))
    target, query = rollup.target_of(fleet), "SELECT account, count(*) FROM fleet.deals GROUP BY ALL ORDER BY ALL"
    for name in ("acme", "bolt"):
        rollup.roll_up_account(target, fleet.accounts[name])
    counts = [(name, len(companies.truth[name])) for name in ("acme", "bolt")]
    assert rows(fleet, query) == counts
    if "://" in store_url:
        copies = {path: path.stat().st_mtime_ns for path in (fleet.data / ask.COPY).rglob("*.parquet")}
        assert {path.parent.parent.name for path in copies} == {"deals"}
        acme, bolt = sorted(copies)
        target.open().upload(rollup.path_of("deals", "bolt"), acme, 0, acme.stat().st_size)  # as a later roll-up does
        bolt.with_name("part.sha256").write_text("of an earlier file")
        assert rows(fleet, query) == [counts[0], ("bolt", counts[0][1])]
        assert (acme.stat().st_mtime_ns, bolt.read_bytes()) == (copies[acme], acme.read_bytes())
    assert rollup.find_changed(fleet) == []
    fewer = replace(fleet, accounts={"acme": fleet.accounts["acme"]})
    assert removal.find_left(fewer) == ["bolt"]
    assert rows(fewer, query) == counts[:1]
    removal.remove(fewer, "bolt")
    assert not list((fleet.data / ask.COPY).glob("*/account=bolt"))
    assert [entry.key for entry in target.open().list("") if "bolt" in entry.key] == []
    assert rows(fleet, query) == counts[:1]


def test_damage_is_an_error_and_not_fewer_rows(companies: Companies, tmp_path: Path) -> None:
    fleet = replace(companies.fleet, file=tmp_path / "fleet.toml")
    shutil.copytree(companies.fleet.data, fleet.data)
    (fleet.data / "rollup" / rollup.path_of("deals", "bolt")).write_bytes(b"no parquet")
    with pytest.raises(StorageError, match="bolt"):
        rows(fleet, "FROM fleet.deals")
