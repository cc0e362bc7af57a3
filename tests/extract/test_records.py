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
from pdsync.sql import quoted

from .conftest import NOW

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pdsync.core.http import Http
    from pdsync.model import Operation, Version
    from pdsync.sandbox import RunningSandbox

DEAL_STATES = ("live", "archived", "deleted")
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
    if name == "getUsers":
        shown |= {"deleted"}
    elif name == "deals":  # a stream has the live rows of its table, from all its lists
        shown |= {"archived"}
    live = {str(entry["id"]) for entry in box.dump(kind) if entry["state"] in shown}
    if name == "users":
        live = {str(entry["id"]) for entry in box.dump(kind) if not entry["record"]["is_deleted"]}
    assert set(ids) == live
    assert set(ids.values()) == {1}


@pytest.mark.proof
@pytest.mark.parametrize("api", ["v2", "v1"])
async def test_s9_a_program_is_given_the_records_that_a_sync_makes_live_rows(
    box: RunningSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: Version
) -> None:
    monkeypatch.setenv("PDSYNC_API_TOKEN", box.token)
    settings: dict[str, str | int | None] = {
        "account.base_url": box.url, "account.api": api, "limits.burst": 0, "limits.daily_tokens": 0
    }  # fmt: skip
    streams = [each for each in catalogue.streams().values() if not each.parents(api)]
    streams = [each for each in streams if len(each.sources(api)[1]) > 1 or each.name == "users"]
    assert {"goals", "leads", "mail_threads"} <= {each.name for each in streams}
    assert pdsync.sync(tmp_path, [each.name for each in streams], settings=settings).exit_code == 0
    with pdsync.open_warehouse(tmp_path) as warehouse:
        async with pdsync.Client(tmp_path, settings) as client:
            for stream in streams:
                key = stream.column(stream.key).path(stream.key, stream.sources(api)[0])
                rows = warehouse.execute(
                    f"SELECT {quoted(stream.key)}::VARCHAR FROM {quoted('main', stream.name)} WHERE _deleted_at IS NULL"
                ).fetchall()
                listed = [str(record.get(key)) async for record in client.list(stream.name)]
                if key.startswith("@"):  # it is in the request, and not in the record
                    assert len(listed) == len(rows) > 0
                else:
                    assert sorted(listed) == sorted(each for (each,) in rows), stream.name


@pytest.mark.parametrize("archived", [True, False])
@pytest.mark.parametrize("deleted", [True, False])
async def test_s9_a_program_chooses_whether_archived_and_deleted_records_are_among_them(
    box: RunningSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archived: bool, deleted: bool
) -> None:
    monkeypatch.setenv("PDSYNC_API_TOKEN", box.token)
    async with pdsync.Client(tmp_path, {"account.base_url": box.url, "limits.burst": 0}) as client:
        listed = {e["id"] async for e in client.list("deals", archived=archived, deleted=deleted)}
    states = {state: {e["id"] for e in box.dump("deals") if e["state"] == state} for state in DEAL_STATES}
    assert all(states.values())
    assert listed - states["deleted"] == states["live"] | (states["archived"] if archived else set())
    assert bool(listed & states["deleted"]) == deleted


async def test_s9_a_record_that_is_edited_between_two_pages_comes_once() -> None:
    client = Lists(*({"id": number, "name": "old"} for number in range(75)), edit={"name": "new"})
    assert [record["id"] for record in await read(client, "getFiles")] == list(range(75))


async def test_s9_records_of_several_kinds_may_share_an_id() -> None:
    client = Lists(*({"item": kind, "id": number} for number in range(40) for kind in ("deal", "person")))
    assert len(await read(client, "getRecents")) == 80


async def test_s9_records_without_an_id_come_once_too() -> None:
    client = Lists(*({"user_id": number, "name": f"set {number}"} for number in range(75)))
    assert [record["user_id"] for record in await read(client, "getPermissionSetAssignments")] == list(range(75))
