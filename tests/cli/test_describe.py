"""`pdsync describe`: the comments in the warehouse, as people and programs read them."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import pytest

from pdsync.cli import layout
from pdsync.cli.commands.describe import column_rows, find, list_rows, list_tables, read_columns
from pdsync.cli.main import main
from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.load import comments, warehouse
from pdsync.runner.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb

LIST = {
    80: """\
table                rows  comment
currencies              3  Currencies that deals and prices may have.
goal_reports               Insights reports that belong to it. One row for each…
goals                   0  Goals of users, teams and the company: what is to be…
meta.checkpoints        0  Until when each list was read without a gap: the nex…
meta.company            1  The company that this file belongs to: one row.
meta.counts_off         0  Records whose count of something differs from the li…
meta.custom_fields      0  Custom fields, and the columns of their values.
meta.field_options      0  Options of fields of single and multiple choice, cus…
meta.findings           0  Records that Pipedrive showed otherwise than the tab…
meta.merges             0  Records that were merged into others.
meta.mutations          0  Every change that pdsync queued for Pipedrive, and w…
meta.observed_from         Since when the history of each table is complete: th…
meta.quarantine         0  Records that could not be read, with their bytes.
meta.rates                 Exchange rates as Pipedrive used them: of each day o…
meta.runs               0  Receipts: one row for each run of pdsync.
meta.schema_changes     0  What changed in the fields of records, and keys and …
meta.streams            0  Receipts by stream: one row for each stream of a run.
meta.sweeps             0  Comparisons of whole streams, or samples of them, wi…
meta.targets            0  The file targets.csv of the project, as the last run…
""",
    120: """\
table                rows  comment
currencies              3  Currencies that deals and prices may have.
goal_reports               Insights reports that belong to it. One row for each element of goals.report_ids.
goals                   0  Goals of users, teams and the company: what is to be reached in each interval.
meta.checkpoints        0  Until when each list was read without a gap: the next sync continues there.
meta.company            1  The company that this file belongs to: one row.
meta.counts_off         0  Records whose count of something differs from the list of it.
meta.custom_fields      0  Custom fields, and the columns of their values.
meta.field_options      0  Options of fields of single and multiple choice, custom and built-in.
meta.findings           0  Records that Pipedrive showed otherwise than the tables, found by reconcile.
meta.merges             0  Records that were merged into others.
meta.mutations          0  Every change that pdsync queued for Pipedrive, and what became of it.
meta.observed_from         Since when the history of each table is complete: the end of the first sync that read it who…
meta.quarantine         0  Records that could not be read, with their bytes.
meta.rates                 Exchange rates as Pipedrive used them: of each day on which the stream deals_summary showed …
meta.runs               0  Receipts: one row for each run of pdsync.
meta.schema_changes     0  What changed in the fields of records, and keys and values that the catalogue does not expec…
meta.streams            0  Receipts by stream: one row for each stream of a run.
meta.sweeps             0  Comparisons of whole streams, or samples of them, with Pipedrive: one row for each.
meta.targets            0  The file targets.csv of the project, as the last run read it: one row for each line.
""",
}
COLUMNS = {
    80: """\
column          type
id              BIGINT
    Key of the record: its id in Pipedrive.
code            VARCHAR
    ISO 4217 code, or the company's own.
name            VARCHAR
    Name, as people see it.
symbol          VARCHAR
    Symbol, such as €.
decimal_points  BIGINT
    Number of decimal places.
is_custom_flag  BOOLEAN
    Whether the company added it itself.
active_flag     BOOLEAN
    False: it was deleted or switched off in Pipedrive.
_extra          JSON
    Values of the record that no other column takes or whose type does not fit,
    unchanged, as JSON; NULL if there are none.
_synced_at      TIMESTAMPTZ
    When pdsync wrote this version of the row (UTC).
""",
    120: """\
column          type
id              BIGINT
    Key of the record: its id in Pipedrive.
code            VARCHAR
    ISO 4217 code, or the company's own.
name            VARCHAR
    Name, as people see it.
symbol          VARCHAR
    Symbol, such as €.
decimal_points  BIGINT
    Number of decimal places.
is_custom_flag  BOOLEAN
    Whether the company added it itself.
active_flag     BOOLEAN
    False: it was deleted or switched off in Pipedrive.
_extra          JSON
    Values of the record that no other column takes or whose type does not fit, unchanged, as JSON; NULL if there are
    none.
_synced_at      TIMESTAMPTZ
    When pdsync wrote this version of the row (UTC).
""",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose warehouse has three currencies and no goal."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "data").mkdir()
    loader = Loader(folder / "data" / "warehouse.duckdb")
    loader.open(1, "Acme")
    for name in ("currencies", "goals"):
        loader.table(catalogue.stream(name), "v2")
    loader.connection.execute("INSERT INTO main.currencies (id) SELECT * FROM range(3)")
    loader.create_views()
    asyncio.run(loader.close())
    return folder


@pytest.fixture
def opened(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with warehouse.connect(folder / "data" / "warehouse.duckdb", read_only=True) as connection:
        yield connection


def drawn(lines: list[layout.Line]) -> str:
    return "".join(f"{line.text}\n" for line in lines)


@pytest.mark.parametrize("width", LIST)
def test_the_list_of_tables_fits_the_terminal(opened: duckdb.DuckDBPyConnection, width: int) -> None:
    listed = [each for each in list_tables(opened, comments.relations(opened)) if not each.name.startswith("sales.")]
    assert drawn(layout.lay_out(list_rows(listed), width)) == LIST[width]


@pytest.mark.parametrize("width", COLUMNS)
def test_the_columns_of_a_table_have_their_comments_in_full(opened: duckdb.DuckDBPyConnection, width: int) -> None:
    columns = comments.columns(opened, "main", "currencies")[:9]
    assert drawn(layout.lay_out(column_rows(columns), width)) == COLUMNS[width]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("currencies", "main.currencies"),
        ("Labeled.Currencies", "labeled.currencies"),
        ("goal_reports", "main.goal_reports"),
        ("_clock", "sales._clock"),
        ("meta.runs", "meta.runs"),
    ],
)
def test_a_table_is_found_with_and_without_its_schema(
    opened: duckdb.DuckDBPyConnection, table: str, expected: str
) -> None:
    relation = find(comments.relations(opened), table)
    assert f"{relation.schema}.{relation.name}" == expected


def test_a_table_that_does_not_exist_is_refused_with_a_suggestion(opened: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(ConfigError, match=r"no table curencies\. Did you mean currencies"):
        find(comments.relations(opened), "curencies")


MACRO = "CREATE MACRO sales.open_at(day, zone) AS TABLE SELECT id AS deal_id, day::DATE AS on_day FROM main.currencies"


@pytest.fixture
def with_macro(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A warehouse with a macro, and with building blocks."""
    loader = Loader(tmp_path / "warehouse.duckdb")
    loader.open(1, "Acme")
    loader.table(catalogue.stream("currencies"), "v2")
    loader.create_views()
    loader.connection.execute(MACRO)
    loader.connection.execute("COMMENT ON MACRO TABLE sales.open_at IS 'Open on a day.'")
    loader.connection.execute("CREATE VIEW sales._open_out AS SELECT 1 AS one")
    yield loader.connection
    asyncio.run(loader.close())


@pytest.mark.parametrize("name", ["sales.open_at", "open_at", "Sales.Open_At(day, zone)", "sales.open_at('x', 1)"])
def test_a_macro_is_described_with_its_parameters_and_columns(with_macro: duckdb.DuckDBPyConnection, name: str) -> None:
    macros = comments.macros(with_macro)
    found = find([*comments.relations(with_macro), *macros], name)
    assert isinstance(found, comments.Macro)
    assert (found.call, found.comment) == ("sales.open_at(day, zone)", "Open on a day.")
    assert read_columns(with_macro, found) == [
        ("deal_id", "BIGINT", "Deal (deals.id)."), ("on_day", "DATE", None),
    ]  # fmt: skip


def test_macros_are_listed_and_suggested_and_building_blocks_are_not(with_macro: duckdb.DuckDBPyConnection) -> None:
    relations, macros = comments.relations(with_macro), comments.macros(with_macro)
    assert "sales.open_at(day, zone)" in [each.name for each in list_tables(with_macro, relations, macros)]
    with pytest.raises(ConfigError) as refused:
        find([*relations, *macros], "sales.open_ot")
    assert "sales.open_at" in str(refused.value)
    assert "_open_out" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        ([], {"name": "currencies", "rows": 3, "comment": "Currencies that deals and prices may have."}),
        (["labeled.goals"], {"name": "id", "type": "VARCHAR", "comment": "Key of the record: its id in Pipedrive."}),
    ],
)
def test_programs_get_an_object_a_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    arguments: list[str],
    first: dict[str, object],
) -> None:
    monkeypatch.setattr(sys, "argv", ["pdsync", "--project", str(folder), "--json", "describe", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == first


@pytest.mark.parametrize(("schema", "names"), [("main", {"currencies", "goals", "goal_reports"}), ("meta", None)])
def test_a_schema_is_listed_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    schema: str,
    names: set[str] | None,
) -> None:
    monkeypatch.setattr(sys, "argv", ["pdsync", "--project", str(folder), "--json", "describe", schema])
    with pytest.raises(SystemExit):
        main()
    listed = {json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()}
    assert listed == names if names else all(name.startswith(f"{schema}.") for name in listed) and listed
