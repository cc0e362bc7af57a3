"""The component's own example payloads are what the actions answer, key by key, for a company with those records."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any

import pytest

from pdsync import Client
from pdsync.errors import ConfigError
from tests.actions.company import VIAS, Via, World, open_world
from tests.actions.test_writes import NOW
from tests.vendor import stored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HELLO = b"Hello, World"
UNLIKE = {"pagination"}  # pages of v1 lists differ in what they say of the next one
# What the company is given of the example's values; ids, users, stages and custom fields are the sandbox's own.
SEEDED = {
    "get_deals": ["title", "value", "currency", "add_time", "update_time", "status", "active", "deleted", "probability",
                  "lost_reason", "visible_to", "person_name", "org_name", "formatted_value", "weighted_value",
                  "formatted_weighted_value", "weighted_value_currency", "org_hidden", "person_hidden", "label",
                  "close_time", "won_time", "lost_time", "rotten_time", "expected_close_date", "origin"],
    "get_persons": ["name", "first_name", "last_name", "active_flag", "phone", "email", "primary_email", "update_time",
                    "add_time", "delete_time", "visible_to", "picture_id", "label", "label_ids", "org_name", "im",
                    "notes", "birthday", "job_title", "postal_address", "postal_address_country"],
}  # fmt: skip


def example(name: str) -> Any:
    return copy.deepcopy(stored("component")[name])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A company that has the records of the examples, as far as a company can be told."""
    with open_world(tmp_path_factory.mktemp("examples"), seed=47) as world:
        deal = world.live("deals")[0]
        person = next(each for each in world.live("persons") if each["id"] != deal["person_id"])
        (org, acme), contact = world.live("organizations")[:2], world.live("persons")[-1]
        at = "2024-09-27T14:25:27Z"
        nobody: dict[str, Any] = {"emails": [], "phones": [], "label_ids": [], "picture_id": None, "visible_to": 3}
        edits: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
            ("organizations", org, {"name": "test", "address": None, "label_ids": []}),
            ("organizations", acme, {"name": "Acme"}),
            ("persons", contact, {"name": "test person", **nobody}),
            ("persons", person, {
                "name": "John", "first_name": "John", "last_name": None, "org_id": acme["id"], **nobody, "im": [],
                "notes": None, "birthday": None, "job_title": None, "postal_address": None,
                "update_time": "2023-08-14T22:49:23Z", "add_time": "2023-04-06T02:51:24Z",
            }),
            ("deals", deal, {
                "title": "test deal", "value": 2, "currency": "USD", "add_time": at, "update_time":
                "2024-09-27T14:25:28Z", "status": "open", "probability": None, "lost_reason": None, "visible_to": 3,
                "person_id": contact["id"], "org_id": org["id"], "close_time": None, "won_time": None,
                "lost_time": None, "expected_close_date": None, "label_ids": [], "origin": "ManuallyCreated",
            }),
        ]  # fmt: skip
        for kind, record, values in edits:
            world.box.company.put(kind, "silent", {**record, **values})
        world.box.company.put("stages", "silent", {
            **next(each for each in world.live("stages") if each["id"] == deal["stage_id"]), "deal_probability": 100,
        })  # fmt: skip
        world.seeded = {"get_deals": deal["id"], "get_persons": person["id"], "org": org["id"]}  # type: ignore[attr-defined]
        yield world


def missing(wanted: Any, shown: Any, path: str = "") -> list[str]:
    """The keys of an example that an answer does not have, and values of another type; of lists, the first entry."""
    if isinstance(wanted, dict) and isinstance(shown, dict):
        custom = {key for key in wanted if len(key) == 40}  # keys of custom fields are another account's
        lost = [f"{path}/{key}" for key in wanted.keys() - shown.keys() - custom]
        both = [key for key in wanted.keys() & shown.keys() if key not in UNLIKE]
        return lost + [each for key in both for each in missing(wanted[key], shown[key], f"{path}/{key}")]
    if isinstance(wanted, list) and isinstance(shown, list):
        return missing(wanted[0], shown[0], f"{path}[]") if wanted and shown else []
    if wanted is None or shown is None:
        return []
    same = isinstance(shown, type(wanted)) or {type(wanted), type(shown)} == {int, float}
    return [] if same else [f"{path}: {shown!r} in place of {wanted!r}"]


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize(("name", "key"), [("get_deals", "getDeals"), ("get_persons", "getPersons")])
def test_a_list_of_records(world: World, name: str, key: str, via: Via) -> None:
    wanted = example(name)
    answer = world.read(via, key, {"fetchAll": "true"}).answer
    assert missing(wanted, answer) == []
    assert answer["data"].keys() == wanted["data"].keys()
    assert answer["data"]["additional_data"] == wanted["data"]["additional_data"]  # the pagination, too
    shown = next(each for each in answer["data"]["data"] if each["id"] == world.seeded[name])  # type: ignore[attr-defined]
    record = wanted["data"]["data"][0]
    assert missing(record, shown) == []
    assert {key: shown[key] for key in SEEDED[name]} == {key: record[key] for key in SEEDED[name]}


@pytest.mark.parametrize("via", VIAS)
def test_organizations_whose_example_holds_deals(world: World, via: Via) -> None:
    """An error of its source: the envelope is the same, and a deal's nested organization is like an organization."""
    wanted = example("get_organizations")
    answer = world.read(via, "getOrganizations", {"fetchAll": "true"}).answer
    assert answer["data"].keys() == wanted["data"].keys()
    assert answer["data"]["additional_data"] == wanted["data"]["additional_data"]
    shown = next(each for each in answer["data"]["data"] if each["id"] == world.seeded["org"])  # type: ignore[attr-defined]
    nested = wanted["data"]["data"][0]["org_id"]
    assert {key: shown[key] for key in ("name", "address", "active_flag", "label_ids")} == {
        key: nested[key] for key in ("name", "address", "active_flag", "label_ids")
    }


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize(
    ("name", "key", "kind"),
    [("select_deal", "selectDeal", "deals"), ("select_person", "selectPerson", "persons"),
     ("select_organization", "selectOrganization", "organizations")],
)  # fmt: skip
def test_a_picklist(world: World, name: str, key: str, kind: str, via: Via) -> None:
    wanted, answer = example(name), world.read(via, key, {}).answer
    assert missing(wanted, answer) == []
    assert answer.keys() == wanted.keys()
    labels = {str(each["id"]): each.get("name") or f"{each['title']} - {each['status']}" for each in world.live(kind)}
    assert {each["key"]: each["label"] for each in answer["result"]} == labels


@pytest.mark.parametrize("via", VIAS)
def test_a_file_from_its_upload_to_its_end(world: World, via: Via, tmp_path: Path) -> None:
    path = tmp_path / "hello.bin"
    path.write_bytes(HELLO)
    inputs = {
        "entityType": "deal",
        "entityId": world.known["deal"],
        "file": str(path),
        "fileName": "test file name.txt",
    }
    added = world.run(via, "addFile", inputs, *NOW)
    assert added.code == 0, added.error
    assert missing(example("add_file"), added.answer) == []
    assert added.body["data"]["name"] == "test file name.txt"
    id = str(added.body["data"]["id"])
    shown = world.run(via, "getFile", {"id": id})
    assert missing(example("get_file_metadata_by_id"), shown.answer) == []
    assert shown.body["data"]["file_size"] == len(HELLO)
    content, wanted = world.run(via, "downloadFile", {"id": id}).answer, example("download_file")
    assert content["data"] == wanted["data"]  # byte for byte
    assert content.keys() == wanted.keys()
    assert content["contentType"] == "application/octet-stream"  # what the sandbox says of every file
    listed = world.run(via, "getFiles", {})
    assert missing(example("list_files"), listed.answer) == []
    deleted = world.run(via, "deleteFile", {"id": id}, *NOW)
    assert deleted.answer == {"data": {"success": True, "data": {"id": int(id)}}}
    assert missing(example("delete_file"), deleted.answer) == []


def test_bytes_are_uploaded_as_they_are(world: World) -> None:
    inputs = {"entityType": "deal", "entityId": world.known["deal"], "file": HELLO, "fileName": "from memory.txt"}
    added = world.run("python", "addFile", inputs, *NOW)
    assert added.code == 0, added.error
    content = world.run("command", "downloadFile", {"id": str(added.body["data"]["id"])})
    assert bytes(content.body["data"]) == HELLO


def test_what_was_kept_for_an_upload_goes_when_it_has_ended(world: World) -> None:
    kept = world.project.data / "uploads"
    inputs = {"entityType": "deal", "entityId": world.known["deal"], "file": HELLO, "fileName": "kept.txt"}
    first = world.run("python", "addFile", inputs)
    second = world.run("python", "addFile", inputs)
    assert len(list(kept.glob("*/kept.txt"))) == 2  # both wait in the queue
    for outcome in (first, second):
        assert world.project.here("queue", "drop", outcome.body["queued"]["id"]).code == 0
    third = world.run("python", "addFile", {**inputs, "fileName": "last.txt"})
    assert [path.name for path in kept.glob("*/*")] == ["last.txt"]
    assert world.project.here("queue", "drop", third.body["queued"]["id"]).code == 0


def test_a_large_file_is_not_shown_as_json(world: World, tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(9 * 2**20))
    inputs = {"entityType": "deal", "entityId": world.known["deal"], "file": str(path), "fileName": "large.bin"}
    id = str(world.run("command", "addFile", inputs, *NOW).body["data"]["id"])
    assert "add --out FILE" in world.run("command", "downloadFile", {"id": id}).error
    target = tmp_path / "back.bin"
    told = world.run("command", "downloadFile", {"id": id}, "--out", str(target))
    assert told.answer == {"data": str(target), "contentType": "application/octet-stream"}
    assert target.read_bytes() == path.read_bytes()


def test_a_download_in_python_streams_to_a_file(world: World, tmp_path: Path) -> None:
    target = tmp_path / "back.bin"

    async def fetch(**inputs: Any) -> dict[str, Any]:
        async with Client(world.project.folder) as client:
            return await client.action(out=target, **inputs)

    record = world.live("files")[0]
    with world.environment():
        told = asyncio.run(fetch(key="downloadFile", id=record["id"]))
        assert told == {"data": str(target), "contentType": "application/octet-stream"}
        assert target.stat().st_size == record["file_size"]
        with pytest.raises(ConfigError, match="answers with no file"):
            asyncio.run(fetch(key="getDeals"))
