"""Each file of schemas/views makes its views from the tables that its first line names, and each view can be read."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue
from pdsync.model import Page, Walk
from pdsync.runner.loader import Loader

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SCRIPTS = catalogue.sql("views")


@pytest.mark.parametrize("script", SCRIPTS)
def test_views_need_no_more_tables_than_their_file_names(script: str, tmp_path: Path) -> None:
    loader = Loader(tmp_path / "work.duckdb")
    loader.open(1, "Example")
    needed = SCRIPTS[script].split("\n", 1)[0].removeprefix("-- needs: ").split()
    for number, name in enumerate(needed, 1):
        stream = catalogue.stream(name)
        version, sources = stream.sources("v2")
        walk = Walk(number, "run", name, sources[0].name, version, sources[0].operation, None, NOW)
        asyncio.run(loader.add(stream, walk, [Page(number, 0, b'{"data": []}', 1, None, NOW)]))
    loader.create_views()
    made = {name for (name,) in loader.connection.execute(
        "SELECT view_name FROM duckdb_views() WHERE schema_name = 'sales'").fetchall()}  # fmt: skip
    assert made == set(re.findall(r"CREATE OR REPLACE VIEW sales\.(\w+)", SCRIPTS[script]))
    for view in made:
        loader.connection.execute(f'FROM sales."{view}"').fetchall()
    asyncio.run(loader.close())
