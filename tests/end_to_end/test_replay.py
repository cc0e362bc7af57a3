"""The warehouse is rebuilt from the raw archive alone: the same tables, without a request, or not at all."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from pdsync.core import catalogue
from pdsync.load.fingerprint import canonical
from tests.support import knobs
from tests.support.world import Project, broken_history, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.load.fingerprint import Digest
    from tests.support.world import Remote

pytestmark = pytest.mark.proof

LISTS = ("deals", "notes", "deal_participants")


def digests(project: Project) -> dict[str, Digest]:
    with closing(duckdb.connect(str(project.data / "warehouse.duckdb"), read_only=True)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return canonical(connection)


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "60", "--seed", "8") as remote:
        remote.advance(3600)
        yield remote


@pytest.fixture(scope="module")
def grown(remote: Remote, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with three runs: records changed and moved between lists, a field was renamed."""
    project = Project(tmp_path_factory.mktemp("grown") / "project", remote)
    with knobs.smaller_pages(20):
        for number in range(3):
            ran = project.here("sync", *LISTS)
            assert ran.code == 0, ran
            remote.advance(1200)
            remote.change(0.3, seed=number, only=["updated", "archived"])
            remote.advance(1200)
    return project


@pytest.fixture
def project(grown: Project, remote: Remote, tmp_path: Path) -> Project:
    """A copy of it, to be harmed."""
    copy = Project(tmp_path / "project", remote)
    shutil.copytree(grown.folder, copy.folder, dirs_exist_ok=True)
    return copy


def test_s14_replay_gives_the_same_tables_histories_and_schema_log_without_a_request(
    project: Project, remote: Remote
) -> None:
    before = digests(project)
    assert before["history.deals"].rows > before["main.deals"].rows
    remote.clear_log()
    ran = project.here("replay", "--json")
    assert ran.code == 0, ran
    assert remote.log() == []
    assert digests(project) == before
    assert ran.summary["streams"]["deals"]["requests"] == 0
    assert ran.summary["streams"]["deals"]["inserted"] == before["main.deals"].rows
    assert broken_history(project) == []
    runs = project.ask("SELECT command, exit_code FROM meta.runs ORDER BY started_at")
    assert [command.split()[0] for command, _ in runs] == ["sync", "sync", "sync", "replay"]
    # What comes next goes on from there: nothing is read again that had been read.
    asked = project.here("sync", *LISTS, "--json")
    assert asked.code == 0, asked
    assert project.control("SELECT count(*) FROM walks WHERE state NOT IN ('applied')") == [(0,)]


def test_s14_named_streams_are_rebuilt_and_the_others_left_as_they_are(project: Project) -> None:
    before = digests(project)
    synced = project.ask("SELECT max(_synced_at) FROM notes")
    ran = project.here("replay", "deals", "--json")
    assert ran.code == 0, ran
    assert set(ran.summary["streams"]) == {"deals", "deal_fields"}
    assert digests(project) == before
    assert project.ask("SELECT max(_synced_at) FROM notes") == synced
    assert project.ask("SELECT count(*) FROM meta.runs WHERE command LIKE 'sync%'") == [(3,)]


def test_s14_the_archive_alone_is_enough_when_everything_else_is_lost(project: Project) -> None:
    before = digests(project)
    for path in (*project.data.glob("warehouse*"), *project.data.glob("control.db*")):
        path.unlink()
    ran = project.here("replay")
    assert ran.code == 0, ran
    assert "control.db was lost" in ran.err
    assert digests(project) == before


def test_s11_s14_a_replay_that_is_killed_leaves_the_warehouse_and_the_next_one_ends(
    remote: Remote, tmp_path: Path
) -> None:
    project = Project(tmp_path / "project", remote)
    assert project.here("sync", "stages", "products").code == 0
    before, file = digests(project), (project.data / "warehouse.duckdb").read_bytes()
    for death in ("'pdsync.load.commit', 'note_batch', 2, after=True", "'pdsync.load.publish', 'copy'"):
        assert project.run("replay", first=f"knobs.die({death})").code == -9
        assert (project.data / "warehouse.duckdb").read_bytes() == file
    assert project.here("replay").code == 0
    assert digests(project) == before
    assert not list(project.data.glob("*replay*"))


def test_o4_a_damaged_page_stops_the_replay_before_anything_changes(project: Project) -> None:
    name, at = project.control("SELECT file, at FROM pages WHERE seq = 0 ORDER BY walk LIMIT 1")[0]
    with (project.data / "raw" / name).open("r+b") as file:
        file.seek(at + 20)
        byte = file.read(1)
        file.seek(at + 20)
        file.write(bytes([byte[0] ^ 8]))
    before = project.kept()
    ran = project.here("replay")
    assert ran.code == 1
    assert name in ran.err
    assert project.kept() == before


def test_a_new_column_gets_its_values_for_the_past_too(remote: Remote, tmp_path: Path) -> None:
    project, columns = Project(tmp_path / "project", remote), catalogue.stream("products").columns
    whole = dict(columns)
    del columns["code"]  # as if the catalogue did not know it yet
    try:
        assert project.here("sync", "products").code == 0
        remote.advance(1200)
        remote.change(0.4, seed=7, kinds=["products"], only=["updated"])
        remote.advance(1200)
        assert project.here("sync", "products").code == 0
    finally:
        columns.clear()
        columns.update(whole)
    kept = project.ask("SELECT id, _valid_from, _extra->>'/code' FROM history.products ORDER BY ALL")
    assert any(code for _, _, code in kept)
    assert project.ask("SELECT count(*) FROM versions.products")[0][0] > 0
    assert project.here("replay").code == 0
    assert project.ask("SELECT id, _valid_from, code FROM history.products ORDER BY ALL") == kept
    assert project.ask("SELECT count(*) FROM history.products WHERE _extra->>'/code' IS NOT NULL") == [(0,)]
    # And the next run finds nothing changed by it.
    ran = project.here("sync", "products", "--full", "--json")
    assert ran.written["products"] == 0


def test_s14_s16_each_run_is_replayed_with_its_own_fields_and_options(tmp_path: Path) -> None:
    project, code = Project(tmp_path / "project"), "a" * 40

    def read(number: int, label: str, option: str, *more: dict[str, Any]) -> None:
        tier = {"field_code": code, "field_name": label, "field_type": "enum", "options": [{"id": 1, "label": option}]}
        deal = {"id": 1, "title": f"deal {number}", "custom_fields": {code: 1}, "update_time": f"2026-01-0{number}"}
        for stream, records in (("deal_fields", [tier, *more]), ("deals", [deal])):
            path = tmp_path / f"{stream}-{number}.json"
            path.write_text(json.dumps({"success": True, "data": records}))
            moment = f"2026-01-0{number}T12:00:00Z"
            ran = project.here("load", str(path), "--stream", stream, "--as-of", moment, "--company", "7")
            assert ran.code == 0, ran

    read(1, "Tier", "Gold")
    read(2, "Class", "Platinum", {"field_code": "b" * 40, "field_name": "Tier", "field_type": "double"})
    read(3, "Class", "Lead", {"field_code": "b" * 40, "field_name": "Tier", "field_type": "text"})
    before = digests(project)
    labels = "SELECT cf_tier_label FROM history.deals ORDER BY _valid_from"
    assert project.ask(labels) == [("Platinum",), ("Lead",), ("Lead",)]
    assert before["meta.schema_changes"].rows >= 3
    assert project.here("replay").code == 0
    assert project.ask(labels) == [("Platinum",), ("Lead",), ("Lead",)]
    assert digests(project) == before
