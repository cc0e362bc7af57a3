"""Field definitions with options, through the queue: what was taken over is applied."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox

WITH_OPTIONS = [
    each
    for version in catalogue.VERSIONS
    for each in catalogue.operations(version).values()
    if "options" in each.body and each.id.endswith("Field") and not each.removed
]
ADDS = [each for each in WITH_OPTIONS if each.method == "POST"]
CHANGES = [each for each in WITH_OPTIONS if each.method == "PUT"]


@pytest.fixture(scope="module")
def box() -> Iterator[RunningSandbox]:
    company = generate_company(seed=12, sizes=Sizes(deals=5, files=1, mail_threads=1), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        yield box


@pytest.fixture(scope="module")
def project(box: RunningSandbox, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder: Path = tmp_path_factory.mktemp("options") / "project"
    return Project(folder).configure(base_url=box.url, api_token=box.token)


def outcome(project: Project, operation: str, **values: Any) -> dict[str, Any]:
    queued = project.here("queue", "add", operation, "--body", json.dumps(values))
    assert queued.code == 0, queued
    ran = project.here("push", "--yes", "--json")
    found: dict[str, Any] = next(each for each in ran.events if each["event"] == "mutation")
    return found


def test_every_kind_of_field_takes_options() -> None:
    assert len(ADDS) + len(CHANGES) >= 8
    assert {each.version for each in ADDS} == {"v1", "v2"}


@pytest.mark.parametrize("operation", ADDS, ids=lambda each: each.name)
@pytest.mark.parametrize("option", [{"label": "Gold"}, {"label": "Gold", "color": "green"}, {"id": 1, "label": "Gold"}])
def test_an_added_field_is_applied_when_its_labels_came_back(
    project: Project, operation: Any, option: dict[str, Any]
) -> None:
    name = "field_name" if operation.version == "v2" else "name"
    ended = outcome(
        project, operation.name, **{name: "Rank", "field_type": "enum", "options": [option, {"label": "1"}]}
    )
    assert (ended["state"], ended["reason"]) == ("applied", None), ended


@pytest.mark.parametrize("operation", CHANGES, ids=lambda each: each.name)
def test_changed_options_are_applied_when_their_labels_came_back(
    box: RunningSandbox, project: Project, operation: Any
) -> None:
    made = box.act("POST", operation.path.removesuffix("/{id}"), {
        "name": "Rank", "field_type": "set", "options": [{"label": "One"}, {"label": "Two"}]
    })["data"]  # fmt: skip
    options = [{**made["options"][0], "label": "Uno", "color": "red"}, {"label": "Three"}]
    ended = outcome(project, operation.name, id=made["id"], options=options)
    assert (ended["state"], ended["reason"]) == ("applied", None), ended
    shown = box.act("GET", operation.path.replace("{id}", str(made["id"])))["data"]["options"]
    assert [each["label"] for each in shown] == ["Uno", "Three"]


@pytest.mark.parametrize("operation", CHANGES, ids=lambda each: each.name)
def test_options_that_were_not_taken_over_are_told(box: RunningSandbox, project: Project, operation: Any) -> None:
    made = box.act("POST", operation.path.removesuffix("/{id}"), {
        "name": "Rank", "field_type": "set", "options": [{"label": "One"}]
    })["data"]  # fmt: skip
    ended = outcome(project, operation.name, id=made["id"], options=[{"id": 999999, "label": "Lost"}])
    assert (ended["state"], ended["reason"]) == ("rejected", "ignored_fields"), ended
