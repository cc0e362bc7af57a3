"""The recipes of docs/writing-back.md, run word for word, and their effects."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.world import Project, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.world import Remote

PAGE = Path(__file__).parents[2] / "docs" / "writing-back.md"
RECIPES = dict(re.findall(r"^### (.+?)\n(.*?)(?=^### |\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "120", "--seed", "23") as remote:
        yield remote


@pytest.fixture(scope="module")
def project(remote: Remote, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("recipes") / "project", remote)
    for name in ("Double One", "Double Two"):
        for _ in range(2):
            assert project.here("api", "addPerson", f"name={name}", "--yes").code == 0
    streams = ("deals", "persons", "organizations", "activities", "users", "stages", "pipelines")
    assert project.here("sync", "-q", *streams).code == 0
    return project


def live(remote: Remote, kind: str) -> dict[int, dict[str, Any]]:
    return {entry["id"]: entry["record"] for entry in remote.dump(kind) if entry["state"] == "live"}


def cook(project: Project, recipe: str, **words: str) -> None:
    """Carry out a recipe with `words` in place of its capitals."""
    text = RECIPES[recipe]
    for word, meant in words.items():
        text = text.replace(word, meant)
    for name, content in re.findall(r"^```csv file=(\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        (project.folder / name).write_text(content, encoding="utf-8")
    for line in re.findall(r"^pdsync (.+)$", text, re.MULTILINE):
        arguments = [str(project.folder / word) if word.endswith(".csv") else word for word in shlex.split(line)]
        ran = project.here(*arguments)
        assert ran.code == 0, ran


def test_each_recipe_is_run_here() -> None:
    assert len(RECIPES) == 6


def test_reassign_all_open_deals_of_someone_who_leaves(remote: Remote, project: Project) -> None:
    users = [user for user in live(remote, "users").values() if not user.get("is_deleted")]
    leaver = max(users, key=lambda user: sum(deal["owner_id"] == user["id"] for deal in live(remote, "deals").values()))
    successor = next(user for user in users if user["id"] != leaver["id"])
    before = live(remote, "deals")
    cook(
        project, "Reassign all open deals of someone who leaves",
        LEAVER=leaver["name"].replace("'", "''"), SUCCESSOR=successor["name"].replace("'", "''"),
    )  # fmt: skip
    meant = {id for id, deal in before.items() if deal["owner_id"] == leaver["id"] and deal["status"] == "open"}
    after = live(remote, "deals")
    assert meant
    assert {id for id in after if after[id]["owner_id"] != before[id]["owner_id"]} == meant
    assert {after[id]["owner_id"] for id in meant} == {successor["id"]}


def test_set_a_field_from_a_spreadsheet(remote: Remote, project: Project) -> None:
    label, code = project.ask(
        "SELECT label, field_code FROM meta.custom_fields WHERE entity = 'organizations' AND field_type IN"
        " ('varchar', 'text', 'varchar_auto') AND label <> '' AND regexp_matches(label, '^[A-Za-z ]+$') LIMIT 1"
    )[0]
    org = next(iter(live(remote, "organizations")))
    cook(project, "Set a field from a spreadsheet", FIELD=label, ORGANIZATION=str(org))
    assert live(remote, "organizations")[org]["custom_fields"][code] == "after the summer"


def test_merge_duplicate_persons_found_with_sql(remote: Remote, project: Project) -> None:
    before = [person for person in live(remote, "persons").values() if person["name"].startswith("Double ")]
    cook(project, "Merge duplicate persons found with SQL")
    after = [person["id"] for person in live(remote, "persons").values() if person["name"].startswith("Double ")]
    assert len(before) == 4
    assert after == [min(p["id"] for p in before if p["name"] == name) for name in ("Double One", "Double Two")]
    assert project.ask("SELECT count(*) FROM meta.merges WHERE entity = 'persons' AND confidence = 'exact'") == [(2,)]


def test_close_stale_deals_as_lost(remote: Remote, project: Project) -> None:
    before = live(remote, "deals")
    cook(project, "Close stale deals as lost")
    changed = [deal for id, deal in live(remote, "deals").items() if deal["status"] != before[id]["status"]]
    stale = [deal for deal in before.values() if deal["status"] == "open" and not deal["is_archived"]]
    assert len(changed) == min(20, len(stale)) > 0
    assert {(deal["status"], deal["lost_reason"]) for deal in changed} == {("lost", "no answer")}


def test_create_activities_for_a_list(remote: Remote, project: Project) -> None:
    before = live(remote, "activities").keys()
    cook(project, "Create activities for a list")
    made = [activity for id, activity in live(remote, "activities").items() if id not in before]
    still_open = [deal["id"] for deal in live(remote, "deals").values() if deal["status"] == "open"]
    assert len(made) == min(15, len(still_open)) > 0
    assert {activity["deal_id"] for activity in made} <= set(still_open)
    assert {activity["subject"] for activity in made} == {"Call back"}


def test_load_organizations_with_their_persons(remote: Remote, project: Project) -> None:
    before = live(remote, "organizations").keys(), live(remote, "persons").keys()
    cook(project, "Load organizations with their persons")
    assert (live(remote, "organizations").keys(), live(remote, "persons").keys()) == before  # and taken back
    made = [
        e for e in remote.lines("journal") if e["op"] == "add" and e["kind"] == "persons" and "acme" in str(e["after"])
    ]
    assert [entry["after"]["org_id"] is not None for entry in made] == [True]
