"""Lists that show a part of their records by default are read whole: seen in tables and in the requests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.sandbox import RunningSandbox


@pytest.fixture(scope="module")
def box() -> Iterator[RunningSandbox]:
    company = generate_company(
        seed=6, sizes=Sizes(deals=30, products=5, files=5, mail_threads=3), now=datetime.now(UTC)
    )
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        yield box


@pytest.fixture(params=["v2", "v1"])
def project(box: RunningSandbox, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Project:
    project = Project(tmp_path_factory.mktemp("whole") / "project")
    box.log.clear()
    return project.configure(base_url=box.url, api_token=box.token, api=request.param)


def queries(box: RunningSandbox, operation: str) -> list[dict[str, str]]:
    """The parameters of every request of an operation."""
    return [
        {name: values[0] for name, values in parse_qs(entry.query).items()}
        for entry in box.log
        if entry.operation == operation
    ]


def live(box: RunningSandbox, kind: str) -> set[object]:
    return {entry["id"] for entry in box.dump(kind) if entry["state"] == "live"}


def test_s9_activities_are_everyones(box: RunningSandbox, project: Project) -> None:
    assert project.here("sync", "-q", "activities").code == 0
    owners = project.ask("SELECT count(DISTINCT owner_id) FROM activities")[0][0]
    ran = project.here("reconcile", "activities", "--deep", "--json", "--exit-code")

    assert ran.code == 0, ran
    assert {id for (id,) in project.ask("SELECT id FROM activities")} == live(box, "activities")
    assert owners > 1
    users = {query.get("user_id") for query in queries(box, "getActivities")}
    assert users == ({"0"} if project.env["PDSYNC_API"] == "v1" else {None})


def test_s9_goals_are_everyones_active_or_not(box: RunningSandbox, project: Project) -> None:
    assert project.here("sync", "-q", "goals").code == 0
    assert project.here("reconcile", "goals", "--json", "--exit-code").code == 0

    assert {id for (id,) in project.ask("SELECT id FROM goals")} == live(box, "goals")
    assert set(project.ask("SELECT DISTINCT assignee_type FROM goals")) == {("person",), ("company",), ("team",)}
    asked = [(each["expected_outcome.tracking_metric"], each["is_active"]) for each in queries(box, "getGoals")]
    each_once = sorted((metric, active) for metric in ("quantity", "sum") for active in ("true", "false"))
    assert sorted(asked) == sorted(each_once * 2)  # the sync, and the sweep


def test_s9_a_flow_tells_of_custom_fields_too(box: RunningSandbox, project: Project) -> None:
    deal, field = next(
        (entry["id"], field)
        for entry in box.dump("deals")
        if entry["state"] == "live"
        for field, value in entry["record"]["custom_fields"].items()
        if isinstance(value, str)
    )
    box.act("PATCH", f"/api/v2/deals/{deal}", {"custom_fields": {field: datetime.now(UTC).isoformat()}})

    assert project.here("sync", "-q", "deals", "deal_flow").code == 0

    rows = project.ask("SELECT count(*) FROM deal_flow WHERE deal_id = ? AND field_key = ?", deal, field)
    assert rows[0][0] > 0
    assert {query.get("all_changes") for query in queries(box, "getDealUpdates")} == {"1"}


def test_a_deal_that_is_deleted_while_archived_is_marked_by_the_next_sync(
    box: RunningSandbox, project: Project
) -> None:
    archived = next(entry["id"] for entry in box.dump("deals") if entry["state"] == "live")
    box.act("PATCH", f"/api/v2/deals/{archived}", {"is_archived": True})
    assert project.here("sync", "-q", "deals").code == 0
    box.act("DELETE", f"/api/v2/deals/{archived}")
    box.clock.advance(60)
    box.log.clear()

    assert project.here("sync", "-q", "deals").code == 0

    assert project.ask("SELECT is_archived, _deleted_at IS NOT NULL FROM deals WHERE id = ?", archived) == [
        (True, True)
    ]
    assert not queries(box, "getDeal")


def test_statistics_are_those_of_a_user_who_is_named(box: RunningSandbox, project: Project) -> None:
    command = ("sync", "-q", "users", "pipelines", "pipeline_conversion_statistics")
    assert project.here(*command).code == 0
    assert project.ask("SELECT DISTINCT user_id FROM pipeline_conversion_statistics") == [(None,)]
    user = project.ask("SELECT max(id) FROM users")[0][0]
    assert project.here(*command, "--param", f"user_id={user}").code == 0
    assert project.ask("SELECT DISTINCT user_id FROM pipeline_conversion_statistics") == [(user,)]
    users = {query.get("user_id") for query in queries(box, "getPipelineConversionStatistics")}
    assert users == {None, str(user)}


@pytest.mark.proof
def test_pipedrive_s_statistics_equal_ours_where_definitions_agree(box: RunningSandbox, project: Project) -> None:
    """By the sandbox, which works them out from its records; then one of the deals is deleted."""
    statistics = ("pipeline_movement_statistics", "pipeline_conversion_statistics")
    assert project.here("sync", "-q", "users", "pipelines", "stages", "deals").code == 0
    most = "FROM sales._deals WHERE NOT is_archived GROUP BY owner_id ORDER BY count(*) FILTER (status = 'won') DESC, 1"
    owner = project.ask(f"SELECT owner_id {most} LIMIT 1")[0][0]
    period = ("--param", f"user_id={owner}", "--param", "start_date=2020-01-01")
    assert project.here("sync", "-q", "users", "pipelines", *statistics, *period).code == 0
    compared = project.ask(
        "SELECT metric, sum(pdsync), list(DISTINCT explanation) FROM sales.vendor_check GROUP BY ALL"
    )
    assert sorted(metric for metric, _, _ in compared) == ["left open", "lost", "new", "won"]
    assert {tuple(explanations) for _, _, explanations in compared} == {("equal",)}
    assert min(number for metric, number, _ in compared if metric in ("new", "won")) > 0
    rates = project.ask("SELECT DISTINCT metric, explanation FROM sales.vendor_check_rates ORDER BY ALL")
    assert rates == [("lost", "equal"), ("stage", "equal"), ("won", "equal")]
    assert project.ask("SELECT max(went_on) > 0 FROM sales.vendor_check_rates WHERE metric = 'stage'") == [(True,)]
    listed = "FROM sales._deals WHERE NOT is_archived AND status = 'won' AND owner_id = ?"
    won = project.ask(f"SELECT min(deal_id) {listed}", owner)[0][0]
    box.act("DELETE", f"/api/v2/deals/{won}")
    assert project.here("sync", "-q", "deals").code == 0
    differs = (
        "SELECT only_pipedrive, explanation FROM sales.vendor_check WHERE metric = 'won' AND explanation <> 'equal'"
    )
    assert project.ask(differs) == [([won], "deleted: 1")]


def test_a_bad_target_is_refused_before_any_request(box: RunningSandbox, project: Project) -> None:
    file = project.folder / "targets.csv"
    file.write_text("period,currency,target\n2026,EUR,much\n")
    ran = project.here("sync", "-q", "users")
    assert (ran.code, box.log) == (2, [])
    assert "targets.csv, line 2: target is 'much'" in ran.err
    file.write_text("period,currency,target\n2026,EUR,1000\n")
    assert project.here("sync", "-q", "users").code == 0
    assert project.ask("SELECT line, target::INT FROM meta.targets") == [(2, 1000)]
    file.unlink()


def test_a_target_of_an_unknown_user_or_pipeline_is_named_with_its_line(project: Project) -> None:
    """The run reads them first: no line has to wait for that, and one that is wrong stops no night."""
    file = project.folder / "targets.csv"
    file.write_text("period,owner_id,currency,target\n2026,99999,EUR,1\n")
    ran = project.here("sync", "pipelines")
    assert (ran.code, "targets.csv" in ran.err) == (0, False)  # no users' table
    file.unlink()
    assert project.here("sync", "-q", "users").code == 0
    known = project.ask("SELECT (SELECT min(id) FROM users), (SELECT min(id) FROM pipelines)")[0]
    lines = [f"2026,{known[0]},{known[1]},EUR,1", "2026,99999,,EUR,1", f"2026,{known[0]},88888,EUR,1"]
    file.write_text("\n".join(["period,owner_id,pipeline_id,currency,target", *lines]))
    ran = project.here("sync", "users")
    assert ran.code == 0
    told = [line for line in ran.err.splitlines() if "targets.csv" in line]
    assert len(told) == 2
    assert "targets.csv, line 3: owner_id is 99999, which is none of the users" in told[0]
    assert "targets.csv, line 4: pipeline_id is 88888, which is none of the pipelines" in told[1]
    file.unlink()


def test_streams_says_what_lists_leave_out_and_how_rows_are_verified(project: Project) -> None:
    shown = {row["name"]: row for row in project.here("streams", "--json").events}
    assert shown["call_logs"]["leaves_out"] == "call logs of other users"
    assert shown["deals"]["leaves_out"] is None
    assert [shown[name]["deletes"] for name in ("deals", "notes", "persons", "files", "leads")] == [
        "listed", "flagged", "not shown", "not shown", "not shown",
    ]  # fmt: skip
    assert [shown[name]["verified"] for name in ("users", "deal_products", "deal_followers", "deal_files")] == [
        "every sync", "in turn", "in turn, by count", "in turn, by record",
    ]  # fmt: skip
    assert "call_logs leaves out call logs of other users." in project.here("streams").err
