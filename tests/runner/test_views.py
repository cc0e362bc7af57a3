"""Each view of schemas/views is created from the tables that it names, can be read, and has comments on all columns."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue
from pdsync.core.views import View, views
from pdsync.runner.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


def test_the_catalogue_lists_every_view_with_its_question(everything: Loader) -> None:
    rows = everything.connection.execute("FROM sales.catalogue").fetchall()
    assert rows == [(view.question, view.name, view.comment, view.insights) for view in LISTED]
    assert all(view.question.endswith("?") for view in LISTED)


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
