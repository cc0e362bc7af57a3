"""The files views/*.sql of a project are views of schema my; one that fails is reported and stops nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest

from pdsync.load import project_views

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = 'a"; DROP TABLE t; --'


def names(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    rows = connection.execute("SELECT view_name, comment FROM duckdb_views() WHERE schema_name = 'my'").fetchall()
    return dict(rows)


def test_each_file_is_a_view_that_may_use_the_others(tmp_path: Path) -> None:
    files = {
        "a": "-- Doubled.\n-- By hand.\nSELECT x * 2 AS y FROM my.b;\n",
        "b": "FROM t -- not deleted",
        HOSTILE: "SELECT 1 AS one",
    }
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT 21 AS x")
        assert project_views.recreate(connection, tmp_path) == []
        for name, text in files.items():
            (tmp_path / f"{name}.sql").write_text(text)
        for _ in range(2):
            assert project_views.recreate(connection, tmp_path) == []
            assert names(connection) == {
                "a": "Doubled. By hand.", "b": "From views/b.sql.", HOSTILE: f"From views/{HOSTILE}.sql.",
            }  # fmt: skip
            assert connection.execute("FROM my.a").fetchall() == [(42,)]
        (tmp_path / "a.sql").unlink()
        project_views.recreate(connection, tmp_path)
        assert "a" not in names(connection)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("SELEC 1", "syntax error"),
        ("FROM no_such_table", "no_such_table"),
        ("FROM my.other_bad", "other_bad"),
        ("DROP TABLE t", "it needs exactly one query"),
        ("SELECT 1; DROP TABLE t", "it needs exactly one query"),
        ("CREATE VIEW my.bad AS FROM t", "the view is called my.bad after the file"),
        ("", "it needs exactly one query"),
        ("SELECT 1 AS a, 1 AS A FROM t", ""),
        (b"SELECT '\xff'", "it can't be read"),
    ],
)
def test_a_file_that_fails_is_reported_and_stops_nothing(tmp_path: Path, text: str | bytes, fault: str) -> None:
    (tmp_path / "bad.sql").write_bytes(text if isinstance(text, bytes) else text.encode())
    (tmp_path / "good.sql").write_text("FROM t")
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT 21 AS x")
        messages = project_views.recreate(connection, tmp_path)
        assert connection.execute("FROM my.good").fetchall() == [(21,)]
        assert len(messages) == bool(fault)
        for message in messages:
            assert message.startswith("views/bad.sql makes no view: ")
            assert fault in message
            assert "\n" not in message
