"""A forgotten person is no longer in any file of the project, and everything else is unchanged."""

from __future__ import annotations

import io
import json
import re
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
import zstandard

from tests.support.world import Project, broken_history, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.world import Remote

pytestmark = pytest.mark.proof

LISTS = ("persons", "deals", "notes", "files", "mail_threads", "person_changelog")


def contents(folder: Path) -> Iterator[tuple[str, str]]:
    """What every file of a project says: its bytes, and what they stand for."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        raw = path.read_bytes()
        yield str(path), raw.decode("utf-8", "replace")
        if path.suffix == ".zst":
            reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw), read_across_frames=True)
            yield f"{path} (unpacked)", reader.read().decode("utf-8", "replace")
        if path.name == "control.db":
            with closing(sqlite3.connect(path)) as control:
                yield f"{path} (rows)", "\n".join(control.iterdump())
        if path.suffix == ".duckdb":
            with duckdb.connect(str(path), read_only=True) as connection:
                for schema, table in connection.execute(
                    "SELECT schema_name, table_name FROM duckdb_tables()"
                ).fetchall():
                    rows = connection.execute(f'SELECT to_json(t)::VARCHAR FROM "{schema}"."{table}" t').fetchall()
                    yield f"{path} {schema}.{table}", "\n".join(row[0] for row in rows)


def hits(folder: Path, words: list[str]) -> list[str]:
    """The files that still contain any of `words`, also with escaped letters."""
    forms = {form for word in words for form in (word, json.dumps(word)[1:-1], word.replace("@", "%40"))}
    pattern = re.compile("|".join(re.escape(form) for form in forms), re.IGNORECASE)
    return [f"{place}: {found[0]}" for place, text in contents(folder) if (found := pattern.search(text))]


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "60", "--seed", "12", "--mail-threads", "20", "--files", "30") as remote:
        remote.advance(3600)
        yield remote


@pytest.fixture(scope="module")
def chosen(remote: Remote) -> dict[str, Any]:
    """A person with many links and a unique name."""
    persons = [entry["record"] for entry in remote.dump("persons") if entry["state"] == "live"]
    deals = [entry["record"]["person_id"] for entry in remote.dump("deals")]
    names = [person["name"] for person in persons]
    return max(
        (person for person in persons if names.count(person["name"]) == 1 and person["emails"]),
        key=lambda person: deals.count(person["id"]),
    )


@pytest.fixture(scope="module")
def grown(remote: Remote, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Read by both versions of the API, with downloads, and with changes that were sent."""
    project = Project(tmp_path_factory.mktemp("grown") / "project", remote)
    assert project.here("sync", *LISTS).code == 0
    remote.advance(1200)
    remote.change(0.3, seed=1, kinds=["persons", "deals"], only=["updated"])
    remote.advance(1200)
    assert project.here("sync", *LISTS, "--full", "--api", "v1").code == 0
    # Nobody changed since: this list ends with no answer, and a mark in the archive.
    assert project.here("sync", "person_changelog").code == 0
    assert project.control("SELECT count(*) FROM pages WHERE rows = 0 AND context IS NULL")[0][0] > 0
    assert project.here("files", "download", "--all").code == 0
    return project


@pytest.fixture
def project(grown: Project, remote: Remote, tmp_path: Path, chosen: dict[str, Any]) -> Project:
    copy = Project(tmp_path / "project", remote)
    shutil.copytree(grown.folder, copy.folder, dirs_exist_ok=True)
    with duckdb.connect(str(copy.data / "warehouse.work.duckdb")) as work:
        image = json.dumps({"name": chosen["name"], "emails": chosen["emails"]})
        work.execute(
            "INSERT INTO meta.mutations (seq, id, queued_at, operation, payload, state, base_image)"
            " VALUES (1, 'm1', now(), 'v2 updatePerson', '{\"id\": 999}', 'applied', ?)",
            [image],
        )
    (copy.data / "warehouse.work.duckdb.damaged-20200101T000000").write_text(chosen["name"])
    return copy


def words(person: dict[str, Any]) -> list[str]:
    return [person["name"], *(each["value"] for each in person["emails"])]


@pytest.mark.proof
def test_threat_13_a_forgotten_person_is_in_no_file_and_others_are_unchanged(
    project: Project, remote: Remote, chosen: dict[str, Any]
) -> None:
    id = chosen["id"]
    before = {place.split("duckdb ")[-1] for place in hits(project.folder, words(chosen))}
    assert any("persons" in place for place in before)
    assert any("main.deals" in place for place in before)  # v1 sends a person with each deal
    assert any("mutations" in place for place in before)
    others = project.ask("SELECT count(*) FROM history.persons WHERE id <> ?", id)
    deals = project.ask("SELECT id, person_id, value, update_time, _valid_from FROM history.deals ORDER BY ALL")
    assert project.ask("SELECT count(*) FROM history.persons WHERE id = ?", id)[0][0] > 0

    would = project.here("forget", "person", str(id), "--dry-run", "--json")
    assert would.code == 0, would
    assert project.here("forget", "person", str(id)).code == 2  # nobody was asked
    assert hits(project.folder, words(chosen))
    remote.clear_log()
    ran = project.here("forget", "person", str(id), "--yes", "--json")
    assert ran.code == 0, ran
    assert remote.log() == []
    assert ran.summary["records"]["persons"] >= 2
    assert ran.summary["records"] == would.summary["records"]
    assert not any(word in ran.out + ran.err for word in words(chosen))

    assert hits(project.folder, words(chosen)) == []
    assert project.ask("SELECT count(*) FROM history.persons WHERE id = ?", id) == [(0,)]
    assert project.ask("SELECT count(*) FROM person_changelog WHERE person_id = ?", id) == [(0,)]
    assert project.ask("SELECT count(*) FROM history.persons WHERE id <> ?", id) == others
    # Ids are no names: what hung on the person still does.
    assert project.ask("SELECT id, person_id, value, update_time, _valid_from FROM history.deals ORDER BY ALL") == deals
    assert broken_history(project) == []
    assert project.here("raw", "verify").code == 0
    told = project.control("SELECT kind, record, removed IS NOT NULL FROM erasures")
    assert told == [("person", id, 1)]
    assert project.here("forget", "person", str(id), "--yes").code == 2  # there is nobody any more


def test_threat_13_an_erasure_that_is_killed_is_finished_by_the_same_command(
    remote: Remote, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    project, command = Project(tmp_path / "project", remote), ("forget", "person", str(chosen["id"]), "--yes")
    assert project.here("sync", "persons", "--api", "v1").code == 0
    assert hits(project.folder, words(chosen))
    deaths = ("'pdsync.load.publish', 'publish'", "'pdsync.core.control', 'Control.erase', after=True",
              "'pdsync.load.publish', 'put', after=True")  # fmt: skip
    for death in deaths:
        assert project.run(*command, first=f"knobs.die({death})").code == -9
    ran = project.here(*command)
    assert ran.code == 0, ran
    assert hits(project.folder, words(chosen)) == []
    assert project.here("raw", "verify").code == 0


def test_threat_13_what_was_sent_of_a_forgotten_person_is_in_no_file_down_to_the_first_name(
    remote: Remote, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    project, id = Project(tmp_path / "project", remote), str(chosen["id"])
    assert project.here("sync", "persons", "deals").code == 0
    assert project.here("queue", "add", "updatePerson", f"id={id}", "name=Zebediah Quackenbush").code == 0
    refused = project.here("forget", "person", id, "--yes")
    assert refused.code == 2, refused  # what is not sent could not be sent without its texts
    assert "pdsync queue drop #1" in refused.err, refused
    assert project.here("push", "--yes").code == 0
    assert {"Zebediah"} <= {hit.rpartition(" ")[2] for hit in hits(project.folder, ["Zebediah"])}
    assert project.here("forget", "person", id, "--yes").code == 0
    assert hits(project.folder, ["Zebediah", "Quackenbush"]) == []
    told = project.ask("SELECT id, state, target_id FROM meta.mutations")
    assert [row[1:] for row in told] == [("applied", id)]
    undone = project.here("undo", "last", "--json")
    assert undone.code in (0, 4), undone
    assert project.control("SELECT count(*) FROM mutations WHERE state = 'queued'") == [(0,)]


def test_threat_13_a_person_named_in_what_is_queued_is_not_taken_out_of_it(
    remote: Remote, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    project, id, name = Project(tmp_path / "project", remote), str(chosen["id"]), "Thelonious Pettigrew"
    deal = next(str(entry["id"]) for entry in remote.dump("deals") if entry["state"] == "live")
    assert project.here("sync", "persons", "deals").code == 0
    assert project.here("queue", "add", "updateDeal", f"id={deal}", f"title=Boat of {name}").code == 0
    assert project.here("forget", "person", id, "--also", name, "--yes").code == 2
    assert project.here("push", "--yes").code == 0
    assert project.here("queue", "add", "updateDeal", f"id={deal}", "title=A boat").code == 0
    assert project.here("push", "--yes").code == 0
    assert project.here("forget", "person", id, "--also", name, "--yes").code == 0
    undone = project.here("undo", "last", "--json")
    assert "it named a person who was forgotten since" in undone.out, undone
    assert project.control("SELECT count(*) FROM mutations WHERE state = 'queued'") == [(0,)]


def test_an_unknown_person_is_refused_and_nothing_changes(project: Project) -> None:
    project.here("queue", "list")  # takes over what the warehouse knows of the queue
    before = project.kept()
    ran = project.here("forget", "person", "999999", "--yes")
    assert ran.code == 2
    assert "No sealed answer contains" in ran.err
    assert project.kept() == before
