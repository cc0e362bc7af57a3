"""Each view of schemas/views is created from the tables that it names, can be read, and has comments on all columns.

So do all tables and views that people read. docs/tables.md is generated from them:

python -m tests.runner.test_views    # writes it
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue, comments
from pdsync.core.views import View, views
from pdsync.load import carry_over, publish, warehouse
from pdsync.load.comments import SCHEMAS, macro_columns
from pdsync.load.comments import columns as columns_of
from pdsync.load.comments import macros as macros_of
from pdsync.load.comments import relations as relations_of
from pdsync.runner.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"
INTRO = """# Tables

What each table and column of the warehouse is. The same texts are comments in it, which DuckDB UI, dbt, BI tools and
language models show; `pdsync describe TABLE` shows them with your company's custom fields: label, type, options.

Each table of a stream is also `labeled.TABLE`, with names and labels in place of ids, and `history.TABLE`, with every
version of every row. A list table (`person_emails`, `deal_labels`, …) has a row for each element of a list in the
records of a stream. It is also `history.TABLE`, but not `labeled.TABLE`. The views of schema `sales` are in
[sales.md](sales.md). A custom field has columns whose names begin with `cf_`.
"""
SHARED = """## Columns that pdsync adds

To the tables of streams, as `TABLE`, `history.TABLE` or `labeled.TABLE`. List tables have none of them, but for the
times of a version in `history.TABLE`.

| column | in | |
|---|---|---|
"""
LONG_TYPE = ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ")
HOSTILE = "a'; DROP TABLE deals; --\n\"\0\\ \u202e🙂 $1"
LISTED = [view for view in views().values() if view.question]


def open_with(path: Path, streams: set[str]) -> Loader:
    """A work file in which `streams`, and no others, have a table; empty."""
    loader = Loader(path)
    loader.open(1, "Example")
    for name in sorted(streams):
        loader.table(catalogue.stream(name), "v2")
    return loader


def streams_needed(view: View) -> set[str]:
    """The streams without which the view does not exist: of its last query, and of the views in it."""
    needs = set(view.queries[-1].needs)
    return (needs - views().keys()) | {
        name for need in needs & views().keys() for name in streams_needed(views()[need])
    }


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loader]:
    loader = open_with(tmp_path_factory.mktemp("all") / "work.duckdb", set(catalogue.streams()))
    loader.create_views()
    yield loader
    asyncio.run(loader.close())


@pytest.mark.parametrize("needed", sorted({tuple(sorted(streams_needed(view))) for view in views().values()}))
def test_views_need_no_more_tables_than_their_files_name(needed: tuple[str, ...], tmp_path: Path) -> None:
    loader = open_with(tmp_path / "work.duckdb", set(needed))
    loader.create_views()
    expected = {view.base_name for view in views().values() if streams_needed(view) <= set(needed)}
    rows = loader.connection.execute(
        "SELECT view_name FROM duckdb_views() WHERE schema_name IN ('sales', 'meta') AND NOT internal UNION"
        " SELECT function_name FROM duckdb_functions() WHERE schema_name = 'sales'"
    ).fetchall()
    assert {name for (name,) in rows} - {"catalogue"} == expected
    for view in views().values():
        if view.base_name in expected and not view.parameters:
            loader.connection.execute(f"FROM {view.name}").fetchall()
    asyncio.run(loader.close())


@pytest.mark.parametrize("view", [view for view in LISTED if not view.parameters], ids=lambda view: view.name)
def test_each_view_and_each_of_its_columns_has_a_comment(everything: Loader, view: View) -> None:
    rows = everything.connection.execute(
        "SELECT column_name, comment FROM duckdb_columns() WHERE schema_name = ? AND table_name = ?",
        [view.schema, view.base_name],
    ).fetchall()
    assert dict(rows) == view.columns
    assert all(text.endswith(".") for text in (view.comment, *view.columns.values()))
    shown = everything.connection.execute(
        "SELECT comment FROM duckdb_views() WHERE schema_name = ? AND view_name = ?", [view.schema, view.base_name]
    ).fetchall()
    assert shown == [(view.comment,)]


def missing_comments(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, ...]]:
    """The tables, views and columns that people read and that have no comment."""
    return [
        place
        for schema, name, _, comment in relations_of(connection)
        for place, text in [
            ((schema, name), comment),
            *(((schema, name, column), text) for column, _, text in columns_of(connection, schema, name)),
        ]
        if not text or not text.endswith((".", "?"))
    ]


def test_every_table_view_and_column_has_a_comment(everything: Loader) -> None:
    assert missing_comments(everything.connection) == []
    assert {each.schema for each in relations_of(everything.connection)} == {*SCHEMAS} - {"my"}
    count = sum(len(columns_of(everything.connection, *each[:2])) for each in relations_of(everything.connection))
    assert count > 7_000


def test_the_comment_of_a_reference_names_the_table_that_it_points_to() -> None:
    for stream in catalogue.streams().values():
        for column, other in stream.labels.items():
            assert f"({other}.{catalogue.stream(other).key}" in comments.of_column(stream, column), column


@pytest.fixture
def labelled(tmp_path: Path) -> Iterator[Loader]:
    """A work file with deals, whose custom fields have hostile labels."""
    loader = open_with(tmp_path / "work.duckdb", set())
    for number, (kind, label) in enumerate([("enum", HOSTILE), ("set", "Modules"), ("monetary", "Deposit")]):
        loader.connection.execute(
            "INSERT INTO meta.custom_fields VALUES ('deals', ?, ?, ?, ?, now(), now())",
            [f"{number:040x}", label, f"cf_{kind}", kind],
        )
    options = [("0" * 40, "7", HOSTILE), *((f"{1:040x}", str(id), f"Option {id}") for id in range(21))]
    loader.connection.executemany("INSERT INTO meta.field_options VALUES ('deals', ?, ?, ?)", options)
    for name in ("deals", "users"):
        loader.table(catalogue.stream(name), "v2")
    loader.create_views()
    yield loader
    asyncio.run(loader.close())


def comment_of(loader: Loader, column: str, schema: str = "main", table: str = "deals") -> str | None:
    return {name: text for name, _, text in columns_of(loader.connection, schema, table)}[column]


def test_x6_a_custom_field_has_its_label_type_and_options_as_its_comment(labelled: Loader) -> None:
    shown = "a'; DROP TABLE deals; -- \"\\ \u202e🙂 $1"
    expected = {
        "cf_enum": f'Custom field "{shown}" (enum). Options: 7 = {shown}.',
        "cf_enum_label": f'Custom field "{shown}" (enum): labels for cf_enum.',
        "cf_set": 'Custom field "Modules" (set). Ids of 21 options, in meta.field_options.',
        "cf_set_labels": 'Custom field "Modules" (set): labels for cf_set.',
        "cf_monetary": 'Custom field "Deposit" (monetary).',
        "cf_monetary_currency": 'Custom field "Deposit" (monetary): currency.',
    }
    assert {column: comment_of(labelled, column) for column in expected} == expected
    assert comment_of(labelled, "cf_enum", "history") == expected["cf_enum"]
    assert comment_of(labelled, "cf_enum", "labeled") == expected["cf_enum"]
    assert comment_of(labelled, "owner", "labeled") == "users.name for owner_id: Owner (users.id)."
    assert missing_comments(labelled.connection) == []


def test_comments_are_made_again_only_where_a_label_or_column_changed(labelled: Loader) -> None:
    for table in ("deals", "users"):
        labelled.connection.execute(f"COMMENT ON COLUMN main.{table}.id IS 'by hand'")
    labelled.create_views()
    assert [comment_of(labelled, "id", table=table) for table in ("deals", "users")] == ["by hand", "by hand"]
    labelled.connection.execute("UPDATE meta.custom_fields SET label = 'Down payment' WHERE label = 'Deposit'")
    labelled.create_views()
    assert comment_of(labelled, "cf_monetary") == 'Custom field "Down payment" (monetary).'
    assert [comment_of(labelled, "id", table=table) for table in ("deals", "users")] == [
        "Key of the record: its id in Pipedrive.", "by hand",
    ]  # fmt: skip


def test_a_published_file_and_a_rebuilt_table_have_the_comments(labelled: Loader, tmp_path: Path) -> None:
    labelled.connection.execute("CHECKPOINT warehouse")
    publish.publish(tmp_path / "work.duckdb", tmp_path / "warehouse.duckdb")
    with warehouse.connect(tmp_path / "warehouse.duckdb", read_only=True) as published:
        assert missing_comments(published) == []
    fields = labelled.connection.execute("FROM meta.custom_fields").fetchall()
    carry_over.forget_streams(labelled.connection, ["deals"])
    labelled.connection.executemany("INSERT INTO meta.custom_fields VALUES (?, ?, ?, ?, ?, ?, ?)", fields)
    labelled._tables.clear()
    labelled.table(catalogue.stream("deals"), "v2")
    labelled.create_views()
    assert missing_comments(labelled.connection) == []


def page(connection: duckdb.DuckDBPyConnection) -> str:
    """docs/tables.md as it should be."""
    system = comments.defaults().system.keys() - {"position"}
    streams = {*catalogue.streams()}
    owners = {(each.schema, each.name): {name for name, _, _ in columns_of(connection, each.schema, each.name)}
              for each in relations_of(connection)}  # fmt: skip

    def places(column: str) -> str:
        """Where the tables of all streams have the column."""
        shown = []
        for schema, name in (("main", "TABLE"), ("history", "history.TABLE"), ("labeled", "labeled.TABLE")):
            having = {stream for stream in streams if column in owners[schema, stream]}
            assert having in (streams, set()), f"{column} is in {schema} for some streams only"
            shown += [f"`{name}`"] if having else []
        return ", ".join(shown)

    def rows(schema: str, name: str) -> list[str]:
        return ["| column | type | |", "|---|---|---|"] + [
            f"| `{column}` | {'STRUCT[]' if 'STRUCT' in kind else kind.replace(*LONG_TYPE)} | {text} |"
            for column, kind, text in columns_of(connection, schema, name)
            if column not in system or schema == "meta"
        ]

    shared = [
        f"| `{column}` | {places(column)} | {text} |"
        for column, text in comments.defaults().system.items()
        if column in system
    ]
    lines = [INTRO, SHARED + "\n".join(shared)]
    about = {(each.schema, each.name): each.comment for each in relations_of(connection)}
    for stream in sorted(catalogue.streams()):
        for name in (stream, *catalogue.stream(stream).children):
            lines += ["", f"## {name}", "", about["main", name] or "", "", *rows("main", name)]
    for schema, name in sorted(about):
        if schema == "meta" and not name.startswith("_"):
            lines += ["", f"## {schema}.{name}", "", about[schema, name] or "", "", *rows(schema, name)]
    return "\n".join(lines) + "\n"


def test_the_page_of_tables_is_what_the_comments_say(everything: Loader) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(everything.connection), "python -m tests.runner.test_views"


def test_the_page_has_each_column_of_each_table_in_each_of_its_schemas(everything: Loader) -> None:
    parts = {part.partition("\n")[0]: part for part in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]}
    shared = [line.split(" | ") for line in parts["Columns that pdsync adds"].splitlines() if line.startswith("| `")]
    children = {name for stream in catalogue.streams().values() for name in stream.children}
    assert not any(each.schema == "labeled" and each.name in children for each in relations_of(everything.connection))
    for each in relations_of(everything.connection):
        if each.schema not in ("main", "history", "labeled"):
            continue
        place = "`TABLE`" if each.schema == "main" else f"`{each.schema}.TABLE`"
        added = {name.strip("|` ") for name, where, *_ in shared if place in where.split(", ")}
        if each.name in children:
            added = {"_valid_from", "_valid_to"} if each.schema == "history" else set()
        columns = {name for name, _, _ in columns_of(everything.connection, each.schema, each.name)}
        told = {line.split("`")[1] for line in parts[each.name].splitlines() if line.startswith("| `")}
        if each.schema == "labeled":  # has other columns in place of ids
            assert {name for name in columns if name.startswith("_")} == added, each.name
        else:
            assert columns == told | added, (each.schema, each.name)


def test_the_catalogue_lists_every_view_with_its_question(everything: Loader) -> None:
    rows = everything.connection.execute("FROM sales.catalogue").fetchall()
    assert rows == [(view.question, view.call, view.name, view.comment, view.insights) for view in LISTED]
    calls = {view: call for _, call, view, _, _ in rows}
    assert (calls["sales.funnel"], calls["sales.funnel_on"]) == ("sales.funnel", "sales.funnel_on(day)")
    assert all(view.question.endswith("?") for view in LISTED)


@pytest.mark.parametrize(
    ("view", "stream"),
    [
        ("sales.vendor_check", "pipeline_movement_statistics"),
        ("sales.vendor_check_rates", "pipeline_conversion_statistics"),
    ],
)
def test_a_comparison_says_that_a_pipeline_has_one_reading_whatever_its_period(view: str, stream: str) -> None:
    assert catalogue.stream(stream).key == "pipeline_id"
    assert f"each pipeline keeps one reading ({stream})" in views()[view].comment


def test_the_columns_of_each_macro_are_known_without_its_arguments(everything: Loader) -> None:
    macros = macros_of(everything.connection)
    assert {each.call for each in macros} == {view.call for view in views().values() if view.parameters}
    for macro in macros:
        assert len(macro_columns(everything.connection, macro)) > 5, macro


def test_views_are_created_again_only_if_they_changed(everything: Loader) -> None:
    def oids() -> dict[str, int]:
        rows = everything.connection.execute("SELECT view_name, view_oid FROM duckdb_views() WHERE NOT internal")
        return dict(rows.fetchall())

    before = oids()
    everything.create_views()
    assert oids() == before
    everything.create_views("Asia/Tokyo")
    assert oids()["funnel"] != before["funnel"]
    assert everything.connection.execute("SELECT timezone FROM sales._clock").fetchall() == [("Asia/Tokyo",)]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        loader = open_with(Path(folder) / "work.duckdb", set(catalogue.streams()))
        loader.create_views()
        PAGE.write_text(page(loader.connection), encoding="utf-8")
        asyncio.run(loader.close())
