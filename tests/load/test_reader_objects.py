"""What readers create in the published warehouse is found, and its file is kept before the next one replaces it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest

from pdsync.load import reader_objects, warehouse
from pdsync.load.publish import copy

if TYPE_CHECKING:
    from pathlib import Path

OWN = 'a"; DROP'


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A work file, and a warehouse that was published from it before."""
    work, published = tmp_path / "work.duckdb", tmp_path / "warehouse.duckdb"
    with warehouse.connect(work) as connection:
        for schema in ("sales", "my"):
            connection.execute(f"CREATE SCHEMA {schema}")
        connection.execute("CREATE TABLE deals (id BIGINT)")
    copy(work, published)
    return work, published


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("SELECT 1", []),
        ("CREATE TABLE targets (x BIGINT)", ["main.targets"]),
        ("CREATE VIEW mine AS FROM deals; COMMENT ON VIEW mine IS 'of mine'", ["main.mine"]),
        ("CREATE MACRO half(x) AS x / 2", ["main.half"]),
        ("CREATE SCHEMA x; CREATE TABLE x.deals (x BIGINT)", ["x.deals"]),
        ('CREATE SCHEMA x; CREATE TABLE x."a""; DROP" (x BIGINT)', [f"x.{OWN}"]),
        ("CREATE VIEW sales.mine AS FROM deals", ["sales.mine"]),
        ("CREATE VIEW my.left AS FROM deals; COMMENT ON VIEW my.left IS 'From views/left.sql.'", []),
        ("CREATE VIEW sales.older AS FROM deals; COMMENT ON VIEW sales.older IS 'Of an older pdsync.'", []),
        ("CREATE TABLE persons (id BIGINT)", []),  # a stream
    ],
)
def test_what_only_the_published_file_has_is_found(files: tuple[Path, Path], statement: str, found: list[str]) -> None:
    work, published = files
    with duckdb.connect(str(published)) as reader:
        reader.execute(statement)
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{work}' AS w (READ_ONLY); ATTACH '{published}' AS p (READ_ONLY)")
        assert reader_objects.find(connection, "w", "p") == found


def test_the_file_is_kept_with_its_log(files: tuple[Path, Path]) -> None:
    work, published = files
    with duckdb.connect(str(published)) as reader:
        reader.execute("CREATE TABLE targets AS SELECT 7 AS x")
    log = published.with_name("warehouse.duckdb.wal")
    log.write_bytes(b"")
    kept = reader_objects.keep(published)
    work.replace(published)
    assert not log.exists()
    assert kept.with_name(f"{kept.name}.wal").exists()
    with duckdb.connect(str(kept)) as reader:
        assert reader.execute("FROM targets").fetchall() == [(7,)]
