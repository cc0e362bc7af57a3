"""Saved list answers, in every format, give the same table as a sync."""

from __future__ import annotations

import gzip
import json
import os
from typing import TYPE_CHECKING, Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest
import zstandard

from pdsync.core import catalogue
from tests.support.world import Project, serving
from tests.vendor import stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.world import Remote

_open = build_opener(ProxyHandler({})).open
LONG_AGO = 1_500_000_000  # seconds since 1970


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "60", "--seed", "5") as remote:
        yield remote


@pytest.fixture(scope="module")
def answers(remote: Remote) -> dict[str, list[bytes]]:
    """Pages of deals as both versions answer, as someone may have saved them."""

    def pages(path: str) -> list[bytes]:
        request = Request(f"{remote.url}{path}", headers={"x-api-token": remote.token})
        with _open(request, timeout=30) as response:
            return [response.read()]

    return {
        "v1": [*pages("/v1/deals?limit=20"), *pages("/v1/deals?limit=500&start=20")],
        "v2": pages("/api/v2/deals?limit=500"),
    }


def records(bodies: list[bytes]) -> list[dict[str, Any]]:
    return [record for body in bodies for record in json.loads(body)["data"]]


WRAPPINGS: dict[str, Callable[[list[bytes]], bytes]] = {
    "answer.json": lambda bodies: bodies[0],
    "list.json": lambda bodies: json.dumps(records(bodies)).encode(),
    "lines.ndjson": lambda bodies: b"\n".join(json.dumps(record).encode() for record in records(bodies)),
    "answers.ndjson": b"\n".join,
    "joined.json": b"".join,
    "lines.ndjson.gz": lambda bodies: gzip.compress(b"\n".join(bodies)),
    "parts.ndjson.gz": lambda bodies: b"".join(gzip.compress(body + b"\n") for body in bodies),
    "raw.zst": lambda bodies: b"".join(zstandard.compress(body) for body in bodies),
}


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_saved_answer_is_loaded_in_every_format(
    answers: dict[str, list[bytes]], tmp_path: Path, version: str, wrapping: str
) -> None:
    bodies = answers[version][:1] if wrapping == "answer.json" else answers[version]
    file = tmp_path / wrapping
    file.write_bytes(WRAPPINGS[wrapping](bodies))
    project = Project(tmp_path / "project")

    first = project.here("load", str(file), "--stream", "deals", "--company", "7", "--json")
    again = project.here("load", str(file), "--stream", "deals", "--json")

    assert first.code == again.code == 0, first
    wanted = {record["id"]: record for record in records(bodies)}
    assert first.written == {"deals": len(wanted)}
    assert again.written == {"deals": 0}
    with project.warehouse() as warehouse:
        found = dict(warehouse.execute("SELECT id, title FROM deals").fetchall())
        owners = dict(warehouse.execute("SELECT id, owner_id FROM deals").fetchall())
        moved = warehouse.execute("SELECT count(*) FROM meta.checkpoints").fetchall()
    assert found == {id: record["title"] for id, record in wanted.items()}
    assert owners == {
        id: record["user_id"]["id"] if version == "v1" else record["owner_id"] for id, record in wanted.items()
    }
    assert moved == [(0,)]


def test_a_file_from_before_a_sync_changes_nothing_that_the_sync_read(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote)
    assert project.here("sync", "deals", "--json").code == 0
    with project.warehouse() as warehouse:
        before = warehouse.execute("SELECT id, title FROM deals ORDER BY id").fetchall()
    file = tmp_path / "old.json"
    known = before[0][0]
    gone = {"id": 999_999, "title": "from an archive", "update_time": "2017-01-01T00:00:00Z", "custom_fields": {}}
    stale = {"id": known, "title": "stale", "update_time": "2017-01-01T00:00:00Z", "custom_fields": {}}
    file.write_text(json.dumps({"data": [gone, stale]}))
    os.utime(file, (LONG_AGO, LONG_AGO))

    ran = project.here("load", str(file), "--stream", "deals", "--json")

    assert ran.code == 0, ran
    assert ran.written == {"deals": 1}
    with project.warehouse() as warehouse:
        after = warehouse.execute("SELECT id, title FROM deals ORDER BY id").fetchall()
    assert after == [*before, (999_999, "from an archive")]
    assert project.here("sync", "deals", "--json").code == 0


def test_a_plain_saved_answer_changes_nothing_in_rows_that_were_synced(
    remote: Remote, answers: dict[str, list[bytes]], tmp_path: Path
) -> None:
    project = Project(tmp_path / "project", remote)
    assert project.here("sync", "deals", "--json").code == 0
    content = "SELECT * EXCLUDE (_synced_at, _verified_at, _run_id) FROM history.deals ORDER BY id, _valid_from"
    with project.warehouse() as warehouse:
        before = warehouse.execute(content).fetchall()
    file = tmp_path / "plain.json"
    file.write_bytes(answers["v2"][0])  # without include_fields

    ran = project.here("load", str(file), "--stream", "deals", "--json")

    assert (ran.code, ran.written) == (0, {"deals": 0})
    with project.warehouse() as warehouse:
        assert warehouse.execute(content).fetchall() == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"id": 1}\n{"id": 2\n', "line 3"),
        (b"<html>", "no JSON"),
        (b"[1, 2", "no JSON"),
        (b'"text"', "neither"),
        (b'{"data": 5}', "no list"),
        (b'{"success": true, "data": {"id": 1, "title": "one deal"}}', "no answer to a list"),
        (b'{"success": false, "error": "unauthorized access", "errorCode": 401}', "unauthorized access"),
        (b'{"data": [], "additional_data": null, "success": false}', "success is false"),
        (b'{"success": true, "data": null}', "null"),
        (b'{"error": "not found"}', "no 'id'"),
        (b'{"success": true}', "no 'id'"),
        (b"[1, 2]", "no 'id'"),
        (b'[{"id": 1, "title": "a deal"}, {"title": "no deal"}]', "no 'id'"),
        (b"\x1f\x8b\x08cut", "can't be read"),
    ],
)
def test_a_file_that_can_t_be_read_is_refused_whole(tmp_path: Path, content: bytes, says: str) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text('[{"id": 1}]')
    bad.write_bytes(content)
    project = Project(tmp_path / "project")

    ran = project.here("load", str(good), str(bad), "--stream", "deals", "--company", "7")

    assert ran.code == 2
    assert says in ran.err
    assert "bad.json" in ran.err
    assert not (project.data / "warehouse.duckdb").exists()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_s9_records_of_another_stream_are_refused_and_change_nothing(
    remote: Remote, tmp_path: Path, version: str
) -> None:
    project = Project(tmp_path / "project", remote)
    assert project.here("sync", "deals", "-q").code == 0
    before = project.kept()
    request = Request(f"{remote.url}/{'api/v2' if version == 'v2' else 'v1'}/persons?limit=500")
    request.add_header("x-api-token", remote.token)
    file = tmp_path / "persons.json"
    with _open(request, timeout=30) as response:
        file.write_bytes(response.read())

    ran = project.here("load", str(file), "--stream", "deals", "--json")

    assert ran.code == 2
    assert "contains persons, not deals" in ran.summary["message"]
    assert "--stream persons" in ran.summary["message"]
    assert project.kept() == before
    assert project.here("load", str(file), "--stream", "persons", "--json").code == 0


def test_s9_a_list_that_only_its_request_identifies_is_not_loaded_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    file.write_text('[{"user_id": 1, "add_time": "2026-01-01T00:00:00Z"}]')
    ran = Project(tmp_path / "project").here("load", str(file), "--stream", "deal_followers", "--company", "7")
    assert ran.code == 2
    assert "pdsync sync deal_followers" in ran.err


def test_an_empty_list_of_v1_may_be_null(tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    file.write_text('{"success": true, "data": null}')
    project = Project(tmp_path / "project")
    assert project.here("load", str(file), "--stream", "files", "--company", "7").code == 0
    assert project.here("load", str(file), "--stream", "deals", "--api", "v1").code == 0
    assert project.here("load", str(file), "--stream", "deals", "--api", "v2").code == 2


def test_x1_a_file_of_another_company_is_refused(remote: Remote, tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    file.write_text('[{"id": 1}]')
    project = Project(tmp_path / "project", remote)
    assert project.here("load", str(file), "--stream", "deals").code == 2  # nobody knows whose it is
    assert project.here("load", str(file), "--stream", "deals", "--company", "7").code == 0

    assert project.here("load", str(file), "--stream", "deals", "--company", "8").code == 2
    assert project.here("sync", "deals").code == 2


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("get_deals", "deals"),
        ("get_persons", "persons"),
        ("get_organizations", "deals"),  # which is what this example has
        ("list_files", "files"),
    ],
)
def test_what_the_component_answers_is_loaded_as_it_is(tmp_path: Path, name: str, stream: str) -> None:
    example = stored("component")[name]
    saved = tmp_path / f"{name}.json"
    saved.write_text(json.dumps(example))
    project = Project(tmp_path / "project")

    ran = project.here("load", str(saved), "--stream", stream, "--company", "7", "--json")

    assert ran.code == 0, ran
    records = example["data"]["data"]
    title = catalogue.stream(stream).title
    assert project.ask(f"SELECT id, {title} FROM {stream} ORDER BY id") == sorted(
        (record["id"], record[title]) for record in records
    )


@pytest.mark.parametrize("name", ["get_file_metadata_by_id", "delete_file", "download_file", "select_deal"])
def test_what_is_no_list_of_the_component_is_refused(tmp_path: Path, name: str) -> None:
    saved = tmp_path / f"{name}.json"
    saved.write_text(json.dumps(stored("component")[name]))
    project = Project(tmp_path / "project")

    ran = project.here("load", str(saved), "--stream", "files", "--company", "7")

    assert ran.code == 2
    assert "Nothing was loaded" in ran.err
    assert not (project.data / "warehouse.duckdb").exists()
