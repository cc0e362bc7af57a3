"""Issue point 9: every payload that the API's documents show goes through normalise and load without losing a leaf.

The payloads are skeletons of the vendor's examples: keys, types and formats, with texts replaced (tests/vendor/).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.model import Stream, Version
from pdsync.normalise import tables
from tests.normalise.kit import SERVED, decode, lost
from tests.vendor import stored

from .kit import Work

if TYPE_CHECKING:
    from pathlib import Path

Case = tuple[str, Version, list[dict[str, Any]]]
# The seed's examples name no operation. get_organizations.json holds deals, an error of its source: whoever gets it as
# an answer loses nothing of it either.
SEEDS = {
    "get_deals.json": ["deals"],
    "get_organizations.json": ["deals", "organizations"],
    "get_persons.json": ["persons"],
    "list_files.json": ["files"],
    "add_file.json": ["files"],
    "delete_file.json": ["files"],
    "get_file_metadata_by_id.json": ["files"],
}
NO_RECORDS = {"download_file.json", "select_deal.json", "select_organization.json", "select_person.json"}


def records_in(payload: Any) -> list[dict[str, Any]]:
    """The records of an answer, however often it is wrapped."""
    while isinstance(payload, dict) and "data" in payload:
        payload = payload["data"]
    return payload if isinstance(payload, list) else [payload]


def cases() -> list[Any]:
    found = []
    for stream in catalogue.streams().values():
        for version, sources in (("v1", stream.v1), ("v2", stream.v2)):
            # Where the answer doesn't say whose it is, a row needs to know what was asked for.
            asked = any(stream.column(part).path(part, "v1")[:1] == "@" for part in stream.column(stream.key).join)
            operations = {source.operation for source in sources if not asked}
            names = {f"{version} {operation}" for operation in operations}
            for file, example in stored("examples").items():
                if file.startswith("examples/") and example["operation"] in names:
                    found.append(pytest.param(stream, version, example["answer"], id=file.removeprefix("examples/")))
    for file, streams in SEEDS.items():
        answer = stored("examples")[f"seed_examples/{file}"]["answer"]
        found += [pytest.param(catalogue.stream(name), "v1", answer, id=f"{file}-{name}") for name in streams]
    return found


def test_every_seed_example_is_assigned() -> None:
    assert {
        name.split("/")[1] for name in stored("examples") if name.startswith("seed_examples/")
    } == SEEDS.keys() | NO_RECORDS


def test_what_the_vendors_documents_no_longer_show_has_an_example() -> None:
    """Of all others tests/normalise/test_documents.py shows the vendor's own."""
    shown = {case.values[0].name for case in cases()}
    operations = catalogue.operations("v1")
    removed = {s.name for s in catalogue.streams().values() if any(operations[each.operation].removed for each in s.v1)}
    assert removed - shown == set()


@pytest.mark.parametrize(("stream", "version", "answer"), cases())
def test_every_leaf_of_an_example_is_found_again(tmp_path: Path, stream: Stream, version: Version, answer: Any) -> None:
    records = records_in(decode(json.dumps(answer).encode()))
    work = Work(tmp_path / "work.duckdb", stream, version)
    work.shape(fields=custom_fields(stream) if stream.fields else [])

    counts = work.commit([json.loads(json.dumps(each, default=float)) for each in records], 1)

    assert (counts.inserted, counts.quarantined) == (len(records), 0)
    cursor = work.connection.execute(f'SELECT * FROM main."{stream.name}"')
    names = [column[0] for column in cursor.description or ()]
    rows = {str(row[0]): dict(zip(names, row, strict=True)) for row in cursor.fetchall()}
    key = stream.column(stream.key).path(stream.key, version)
    for record in records:
        assert lost(record, rows[str(record[key])], work.table) == []
    again = work.commit([json.loads(json.dumps(each, default=float)) for each in records], 2)
    assert (again.inserted, again.updated, again.unchanged) == (0, 0, len(records))
    work.close()


def custom_fields(stream: Stream) -> list[Any]:
    """The custom fields that the examples of definitions name."""
    found: dict[str, tuple[str, str, str]] = {}
    kind = str(stream.fields).removesuffix("_fields")
    for version in ("v1", "v2"):
        example = stored("examples").get(f"examples/{kind}Fields_{version}.json", {"answer": []})
        for each in records_in(example["answer"]):
            code = str(each.get("field_code") or each.get("key"))
            found[code] = (code, str(each.get("field_name") or each.get("name")), each["field_type"])
    fields, _ = tables.assign(stream, list(found.values()), [], catalogue.field_types(), SERVED)
    return fields
