"""Whoever asks for records, and not for pages, is given each of them once."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import pdsync
from pdsync.core import catalogue
from pdsync.core.answer import Answer
from pdsync.extract.records import records

from .conftest import NOW

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pdsync.core.http import Http
    from pdsync.model import Operation
    from pdsync.sandbox import RunningSandbox

V1 = catalogue.operations("v1")


class Lists:
    """A client whose lists are served a few records at a time, by their offsets; `edit` changes one between pages."""

    def __init__(self, *records: dict[str, Any], edit: dict[str, Any] | None = None) -> None:
        self.records, self.edit = list(records), edit or {}

    async def call(
        self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None = None
    ) -> Answer:
        start, limit = int((query or {}).get("start", 0)), 20
        shown = self.records[start : start + limit]
        more = start + limit < len(self.records)
        self.records = [{**record, **self.edit} for record in self.records]
        body = {"data": shown, "additional_data": {"pagination": {"more_items_in_collection": more}}}
        return Answer(200, {}, json.dumps(body).encode(), NOW)


async def read(client: Any, name: str) -> list[Any]:
    return [msgspec.json.decode(each) async for each in records(client, V1[name], V1[name].path, {"limit": "20"})]


@pytest.mark.parametrize("limit", [7, 30, 100])
async def test_s9_each_record_of_a_list_that_counts_offsets_comes_once(
    box: RunningSandbox, client: Http, limit: int
) -> None:
    live = {entry["id"] for entry in box.dump("files") if entry["state"] == "live"}
    found = records(client, V1["getFiles"], "/v1/files", {"limit": str(limit)})
    ids = Counter([msgspec.json.decode(record)["id"] async for record in found])
    assert set(ids) == live
    assert set(ids.values()) == {1}


@pytest.mark.parametrize("name", ["files", "getFiles", "getNotes", "getUsers", "users", "getDeals", "deals"])
async def test_s9_a_program_is_given_each_record_once(
    box: RunningSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("PDSYNC_API_TOKEN", box.token)
    async with pdsync.Client(tmp_path, {"account.base_url": box.url, "limits.burst": 0}) as client:
        ids = Counter([str(record["id"]) async for record in client.list(name)])
    kind = {"getFiles": "files", "getNotes": "notes", "getUsers": "users", "getDeals": "deals"}.get(name, name)
    shown = {"live"}
    if kind == "users":
        shown |= {"deleted"}
    elif name == "deals":  # a stream has what its table gets from all its lists
        shown |= {"archived", "deleted"}
    live = {str(entry["id"]) for entry in box.dump(kind) if entry["state"] in shown}
    assert set(ids) == live
    assert set(ids.values()) == {1}


async def test_s9_a_record_that_is_edited_between_two_pages_comes_once() -> None:
    client = Lists(*({"id": number, "name": "old"} for number in range(75)), edit={"name": "new"})
    assert [record["id"] for record in await read(client, "getFiles")] == list(range(75))


async def test_s9_records_of_several_kinds_may_share_an_id() -> None:
    client = Lists(*({"item": kind, "id": number} for number in range(40) for kind in ("deal", "person")))
    assert len(await read(client, "getRecents")) == 80


async def test_s9_records_without_an_id_come_once_too() -> None:
    client = Lists(*({"user_id": number, "name": f"set {number}"} for number in range(75)))
    assert [record["user_id"] for record in await read(client, "getPermissionSetAssignments")] == list(range(75))
