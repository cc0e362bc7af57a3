"""A record of v1 and the same record of v2 end in the same columns."""

from __future__ import annotations

import json
import re
import urllib.request
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.normalise import tables
from pdsync.sandbox import Limits, Sizes, generate_company, running

from .kit import SERVED, page, staged, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

    from pdsync.core.custom_fields import CustomField
    from pdsync.model import Version
    from pdsync.sandbox import RunningSandbox

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
# What v1 has no word for: the names of time zones beside their numbers, and consent to mails.
V2_ONLY = re.compile(r"cf_.*_timezone_name|marketing_status|doi_status")


@pytest.fixture(scope="module")
def box() -> Iterator[RunningSandbox]:
    company = generate_company(seed=3, sizes=Sizes(deals=60, mail_threads=5, files=5), now=NOW)
    with running(company, limits=Limits(burst=None, daily_tokens=None)) as box:
        yield box


def listed(box: RunningSandbox, version: Version, name: str) -> list[dict[str, Any]]:
    stream = catalogue.stream(name)
    source = (stream.v2 if version == "v2" else stream.v1)[0]
    path = catalogue.operations(version)[source.operation].path
    more = f"&{'&'.join(f'{k}={v}' for k, v in source.query.items() if k == 'include_fields')}"
    request = urllib.request.Request(f"{box.url}{path}?limit=500{more}", headers={"x-api-token": box.token})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]
    return found


@pytest.mark.parametrize("name", ["deals", "persons", "organizations", "products", "activities", "pipelines", "stages"])
def test_both_versions_of_a_record_give_the_same_row(
    connection: duckdb.DuckDBPyConnection, box: RunningSandbox, name: str
) -> None:
    stream = catalogue.stream(name)
    fields: list[CustomField] = []
    if stream.fields:
        definitions = [(d["field_code"], d["field_name"], d["field_type"]) for d in listed(box, "v2", stream.fields)]
        fields, _ = tables.assign(stream, definitions, [], catalogue.field_types(), SERVED)
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    for version in catalogue.VERSIONS:
        found, quarantined = staged(connection, table_of(stream, version, fields), [page(listed(box, version, name))])
        assert not quarantined
        rows[version] = {row["id"]: row for row in found}

    common = rows["v1"].keys() & rows["v2"].keys()
    assert len(common) >= 3
    differing = {
        (column, str(rows["v1"][id][column]))
        for id in common
        for column in rows["v2"][id]
        if not column.startswith("_") and rows["v1"][id][column] != rows["v2"][id][column]
    }
    assert [pair for pair in differing if not (V2_ONLY.fullmatch(pair[0]) and pair[1] == "None")] == []


@pytest.mark.parametrize("name", ["persons", "organizations"])
def test_s14_the_one_label_of_an_older_v1_answer_is_the_label_of_the_row(
    connection: duckdb.DuckDBPyConnection, name: str
) -> None:
    records: list[dict[str, Any]] = [
        {"id": 1, "label": 5},  # as v1 answered before it had label_ids
        {"id": 2, "label": None},
        {"id": 3, "label": 5, "label_ids": [5, 6]},
        {"id": 4, "label": 5, "label_ids": []},
        {"id": 5, "label": "5"},
        {"id": 6, "label": "hot"},
    ]
    rows, quarantined = staged(connection, table_of(catalogue.stream(name), "v1"), [page(records)])
    assert not quarantined
    assert [row["label_ids"] for row in rows][:5] == [[5], [], [5, 6], [], [5]]
    assert '"hot"' in rows[5]["_extra"]  # what is no label's id is kept as it came
