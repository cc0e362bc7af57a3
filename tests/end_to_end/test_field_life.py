"""A custom field's life: renamed, retyped, deleted, recreated. Columns stay, the schema log has each change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.sandbox import Limits, Sizes, generate_company, running
from pdsync.sandbox.company.field_changes import change_fields
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox

DEALS = "/api/v2/deals"
FIELDS = "/api/v2/dealFields"


@pytest.fixture
def box() -> Iterator[RunningSandbox]:
    company = generate_company(seed=12, sizes=Sizes(deals=20, files=2, mail_threads=2), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        yield box


@pytest.fixture
def project(box: RunningSandbox, tmp_path: Path) -> Project:
    project = Project(tmp_path / "project")
    project.configure(base_url=box.url, api_token=box.token)
    return project


def made(box: RunningSandbox, **field: Any) -> dict[str, Any]:
    answer = box.act("POST", FIELDS, field)
    assert answer["success"], answer
    found: dict[str, Any] = answer["data"]
    return found


def fill(box: RunningSandbox, deal: int, **values: Any) -> None:
    answer = box.act("PATCH", f"{DEALS}/{deal}", {"custom_fields": values})
    assert answer["success"], answer


def sync(box: RunningSandbox, project: Project, run: list[str]) -> list[tuple[str, str]]:
    """Sync a while later; what the schema log says of it: (kind, code)."""
    box.clock.advance(3600)
    ran = project.here("sync", "deals", "--json")
    assert ran.code == 0, ran
    run.append(ran.summary["run_id"])
    return project.ask(
        "SELECT kind, name FROM meta.schema_changes WHERE entity = 'deals' AND run_id = ? ORDER BY ALL", run[-1]
    )


def column(project: Project, code: str, kind: str) -> str:
    found: str = project.ask(
        "SELECT column_name FROM meta.custom_fields WHERE entity = 'deals' AND field_code = ? AND field_type = ?",
        code,
        kind,
    )[0][0]
    return found


@pytest.mark.proof
def test_s16_a_field_s_life_moves_no_column_and_loses_no_value(box: RunningSandbox, project: Project) -> None:
    deal, other = [entry["id"] for entry in box.dump("deals") if entry["state"] == "live"][:2]
    size = made(box, field_name="Size of crew", field_type="double")["field_code"]
    tier = made(box, field_name="Rank", field_type="enum", options=[{"label": "Gold"}, {"label": "Tin"}])
    gold = tier["options"][0]["id"]
    fill(box, deal, **{size: 12, tier["field_code"]: gold})
    runs: list[str] = []
    sync(box, project, runs)
    assert project.ask("SELECT cf_size_of_crew, cf_rank, cf_rank_label FROM deals WHERE id = ?", deal) == [
        (12, gold, "Gold")
    ]

    # Renamed: the field, and an option, to what SQL could take amiss.
    hostile = 'x"; DROP TABLE deals; --\n🙂'
    assert box.act("PATCH", f"{FIELDS}/{size}", {"field_name": hostile})["success"]
    assert box.act("PATCH", f"{FIELDS}/{tier['field_code']}/options", [{"id": gold, "label": "Platinum"}])["success"]
    assert ("field_renamed", size) in sync(box, project, runs)
    assert project.ask("SELECT cf_size_of_crew, cf_rank_label FROM deals WHERE id = ?", deal) == [(12, "Platinum")]
    assert project.ask("SELECT label FROM meta.custom_fields WHERE field_code = ?", size) == [(hostile,)]

    # A second field under the label that is free now, and one under a label that is not.
    second = made(box, field_name="Size of crew", field_type="varchar")["field_code"]
    twin = made(box, field_name="Rank", field_type="varchar")["field_code"]
    fill(box, deal, **{second: "a dozen", twin: "first"})
    told = sync(box, project, runs)
    assert {("field_added", second), ("field_added", twin)} <= set(told)
    row = project.ask(
        f'SELECT cf_size_of_crew, "{column(project, second, "varchar")}", cf_rank, "{column(project, twin, "varchar")}"'
        " FROM deals WHERE id = ?", deal,
    )  # fmt: skip
    assert row == [(12, "a dozen", gold, "first")]

    # Retyped: what came as a number stays where it was, what comes as text goes elsewhere.
    change_fields(box.company, "deals", "retype", size, type="text")
    fill(box, deal, **{size: "twelve or so"})
    assert ("field_retyped", size) in sync(box, project, runs)
    assert project.ask(f'SELECT "{column(project, size, "text")}" FROM deals WHERE id = ?', deal) == [("twelve or so",)]

    # Deleted, and made again under the same label.
    assert box.act("DELETE", f"{FIELDS}/{second}")["success"]
    third = made(box, field_name="Size of crew", field_type="varchar")["field_code"]
    fill(box, other, **{third: "a score"})
    told = sync(box, project, runs)
    assert {("field_gone", second), ("field_added", third)} <= set(told)
    columns = [column(project, code, "varchar") for code in (second, third)]
    assert len(set(columns)) == 2
    assert project.ask(f'SELECT "{columns[1]}", "{columns[0]}" FROM deals WHERE id = ?', other) == [("a score", None)]
    versions = project.ask(f'SELECT DISTINCT "{columns[0]}" FROM history.deals WHERE id = ?', deal)
    assert ("a dozen",) in versions  # what it held is in the history, if the deal has lost it
    assert ("field_gone", second) not in sync(box, project, runs)  # it is told once

    # All of it can be made again from the archive, and every view resolves.
    shape = project.ask("DESCRIBE deals")
    rows = "SELECT * EXCLUDE (_synced_at, _verified_at, _run_id) FROM deals ORDER BY id"
    before = project.ask(rows)
    assert project.here("replay", "-q").code == 0
    assert project.ask("DESCRIBE deals") == shape
    assert project.ask(rows) == before
    assert len(project.ask("FROM labeled.deals")) == len(project.ask("FROM deals"))


def test_s16_a_field_renamed_there_and_back_is_told_each_time_and_the_last_one_gone_is_told_once(
    box: RunningSandbox, project: Project
) -> None:
    size = made(box, field_name="Size of crew", field_type="double")["field_code"]
    runs = list[str]()
    sync(box, project, runs)
    for label in ("Crew", "Size of crew", "Crew"):
        change_fields(box.company, "deals", "rename", size, name=label)
        assert sync(box, project, runs) == [("field_renamed", size)], label

    mine = {field["field_code"] for field in box.act("GET", FIELDS)["data"] if field["is_custom_field"]}
    for field in mine:
        assert box.act("DELETE", f"{FIELDS}/{field}")["success"]
    assert sync(box, project, runs) == [("field_gone", field) for field in sorted(mine)]
    assert sync(box, project, runs) == []
    log = "SELECT entity, kind, name, detail FROM meta.schema_changes ORDER BY ALL"
    told = project.ask(log)
    assert project.here("replay", "-q").code == 0
    assert project.ask(log) == told
