"""A real DuckDB, opened as the loader opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.load import warehouse

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb


@pytest.fixture(scope="package")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    made = warehouse.connect(tmp_path_factory.mktemp("normalise") / "work.duckdb")
    yield made
    made.close()
