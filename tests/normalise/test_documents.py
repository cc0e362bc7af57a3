"""Every answer that the vendor's documents show, of every list that a stream reads, becomes rows without losing a leaf.

Answers are opened as a walk opens them: records under another key, alone, or plain values; and with what was asked for.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue
from pdsync.core.list_response import open_envelope
from pdsync.model import Page
from pdsync.normalise.stage import StagingTable
from tests.vendor import stored

from .kit import SERVED, decode, lost, table_of

if TYPE_CHECKING:
    import duckdb

    from pdsync.model import Operation, Source, Stream, Version

# Gone from the documents; what older examples there are, tests/load/test_real_input.py shows.
REMOVED = {
    f"v1 get{kind}" for kind in ("Activities", "Deals", "Organizations", "Persons", "Pipelines", "Products", "Stages")
}


CASES = [
    pytest.param(stream, version, source, id=f"{stream.name}-{version}-{source.name}")
    for stream in catalogue.streams().values()
    for version, sources in (("v2", stream.v2), ("v1", stream.v1))
    for source in sources
    if f"{version} {source.operation}" not in REMOVED
]


def context(source: Source, operation: Operation) -> dict[str, str]:
    """What such a list is asked for: a parent's key, and parameters."""
    names = [*source.params, *([source.parent.param] if source.parent and source.parent.batch == 1 else [])]
    dates = {name for name, param in operation.query.items() if param.type == "string:date"}
    return {name: "2026-11-01" if name in dates else "5" for name in names}


@pytest.mark.parametrize(("stream", "version", "source"), CASES)
def test_every_leaf_of_a_documented_answer_is_found_again(
    connection: duckdb.DuckDBPyConnection, stream: Stream, version: Version, source: Source
) -> None:
    operation = catalogue.operations(version)[source.operation]
    body = json.dumps(stored("examples")[operation.name]).encode()
    records = open_envelope(body, operation).records
    table = table_of(stream, version)
    stage = StagingTable(connection, "documented", table, operation)

    stage.add([Page(1, 0, body, len(records), None, SERVED, context=context(source, operation))])

    assert stage.quarantined == []
    assert stage.rows == len(records) >= 1
    cursor = connection.execute(f"SELECT * FROM {stage.relation} ORDER BY _row_number")
    names = [column[0] for column in cursor.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    stage.clear()
    assert len({row[stream.key] for row in rows}) == len(rows)
    for record, row in zip(records, rows, strict=True):
        assert lost(decode(bytes(record)), row, table) == []
    for name in stream.columns:
        if stream.column(name).path(name, version).startswith("@"):
            assert all(row[name] is not None for row in rows), name
