"""A push resolves what the last one left open, sends what was planned and consented to, and its exit code says how."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pdsync.core import config
from pdsync.core.control import Lock
from pdsync.errors import AuthError, ConfigError, GuardTripped, ProjectLocked, WrongCompany
from pdsync.runner import project, unlocked
from pdsync.runner.loader import Loader
from pdsync.runner.push import LOOKED_UP_FIRST, PushReceipt, PushRequest, dry_run, push
from pdsync.runner.queue_recovery import open_outbox
from pdsync.runner.report import mutation_log
from pdsync.writeback import plan as plans
from pdsync.writeback.guards import Consent
from tests.core.servers import server
from tests.writeback.api import Api
from tests.writeback.kit import COMPANY, arm, bring_to, entry, open_warehouse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.model import Mutation
    from pdsync.writeback.outbox import Entry, Outbox
    from pdsync.writeback.plan import Plan
    from tests.writeback.api import Answers

ME = "/v1/users/me"
OLD, NEW = {"id": 12, "title": "Old"}, {"id": 12, "title": "New"}
DEAL, PATCH = "/api/v2/deals/12", "PATCH /api/v2/deals/12"
DELETE = entry("v2 deleteDeal", {"id": 12})
ANSWERS: Answers = {ME: {"id": 1, "name": "Ada", "company_id": COMPANY, "company_name": "Acme"}, DEAL: OLD, PATCH: NEW}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PDSYNC_API_TOKEN", "c4n4ry-0123456789abcdef")
    (tmp_path / "pdsync.toml").write_text("")
    return config.load(tmp_path)


@pytest.fixture
def control(settings: Settings) -> Iterator[Control]:
    with unlocked.open_control(settings) as control:
        control.bind_company(COMPANY, "Acme", None)
        yield control


@pytest.fixture
def outbox(settings: Settings, control: Control) -> Outbox:
    return open_outbox(settings, control)


class Pushed(msgspec.Struct):
    """What a push returned, sent and reported."""

    receipt: PushReceipt | None
    writes: list[str]
    shown: list[Plan]
    messages: list[str]


async def run(
    settings: Settings, answers: Answers | None = None, request: PushRequest | None = None, *, consents: bool = True
) -> Pushed:
    """Push against a server that gives `answers` besides `ANSWERS`, without a wait between probes."""
    api, shown, messages = Api(ANSWERS | (answers or {})), list[Any](), list[str]()

    def confirm(plan: Plan) -> bool:
        shown.append(plan)
        return consents

    request = msgspec.structs.replace(request or PushRequest(), settle_s=0.0)
    async with server(api.handle) as url:
        there = msgspec.structs.replace(settings, base_url=url)
        receipt = await push(there, request, confirm, on_message=messages.append)
    return Pushed(receipt, api.writes, shown, messages)


@pytest.mark.parametrize(
    ("entries", "answers", "exit_code", "outcomes"),
    [
        ([], {}, 0, {}),
        ([entry()], {}, 0, {"applied": 1}),
        ([entry()], {DEAL: NEW}, 0, {"applied": 1}),
        ([entry()], {PATCH: 400}, 5, {"rejected": 1}),
        ([entry()], {DEAL: 404}, 5, {"rejected": 1}),
        ([entry()], {DEAL: (OLD, {**OLD, "title": "Hers"})}, 5, {"conflict": 1}),
        ([entry(), entry(payload={"id": 12, "title": "Newer"})], {PATCH: 400}, 5, {"rejected": 1}),
        ([entry()], {PATCH: OLD}, 3, {"rejected": 1}),  # a guard stops it: Pipedrive ignores what it is sent
        ([entry()], {PATCH: 401}, 2, {}),
    ],
)
async def test_w1_the_receipt_counts_every_end_and_the_exit_code_follows(
    settings: Settings, outbox: Outbox, entries: list[Entry], answers: Answers, exit_code: int, outcomes: dict[str, int]
) -> None:
    outbox.add(entries)
    receipt = (await run(settings, answers)).receipt
    assert receipt
    assert {end: count for end, count in receipt.outcomes.items() if count} == outcomes
    assert (receipt.exit_code, receipt.complete) == (exit_code, exit_code == 0)
    assert receipt.open == len(entries) - sum(outcomes.values()) == len(outbox.mutations(["queued"]))
    assert receipt.already_so == (answers == {DEAL: NEW})
    ((stored,)) = [each["receipt"] for each in outbox.push_log.pushes()]
    assert stored["exit_code"] == exit_code


async def test_w10_without_consent_nothing_is_sent_and_all_stays_queued(settings: Settings, outbox: Outbox) -> None:
    (mutation,) = outbox.add([entry()])
    pushed = await run(settings, consents=False)
    assert (pushed.receipt, pushed.writes) == (None, [])
    assert [(step.mutation, step.fate) for step in pushed.shown[0].steps] == [(mutation.id, "send")]
    assert outbox.get(mutation.id).state == "queued"


async def test_w8_a_guard_refuses_before_anything_is_shown_or_sent(settings: Settings, outbox: Outbox) -> None:
    outbox.add([DELETE])
    with pytest.raises(GuardTripped):
        await run(settings)
    assert [each.state for each in outbox.mutations()] == ["queued"]
    allowed = await run(
        settings,
        {DEAL: (OLD, OLD, 404), f"DELETE {DEAL}": {"id": 12}},
        PushRequest(consent=Consent(frozenset({"delete"}))),
    )
    assert allowed.receipt
    assert allowed.receipt.complete


async def test_w4_what_the_last_push_left_unknown_is_resolved_before_the_next_plan(
    settings: Settings, outbox: Outbox
) -> None:
    carried_out, lost = outbox.add([entry(), entry("v2 updateDeal", {"id": 13, "title": "New"})])
    outbox.approve([carried_out.id, lost.id], "push-0", COMPANY)
    arm(outbox, carried_out)  # the process was killed when both were under way
    arm(outbox, lost)
    other = "/api/v2/deals/13"
    answers = {DEAL: NEW, other: {"id": 13, "title": "Old"}, f"PATCH {other}": {"id": 13, "title": "New"}}
    pushed = await run(settings, answers)
    assert pushed.writes == [f"PATCH {other}"]
    assert [each.state for each in outbox.mutations()] == ["applied", "applied"]
    assert pushed.messages == [
        "The outcome of 2 changes of the last push is unknown: checking in Pipedrive whether they were carried out."
    ]
    assert [step.mutation for step in pushed.shown[0].steps] == [lost.id]


async def test_a_refused_token_while_probing_stops_the_push_before_the_plan(settings: Settings, outbox: Outbox) -> None:
    (mutation,) = outbox.add([entry()])
    outbox.approve([mutation.id], "push-0", COMPANY)
    arm(outbox, mutation)
    with pytest.raises(AuthError):
        await run(settings, {DEAL: 401})
    assert outbox.get(mutation.id).state == "unknown"


@pytest.mark.parametrize(
    ("request_options", "planned"),
    [
        ({}, [1, 2, 3]),
        ({"limit": 2}, [1, 2]),
        ({"operation": "deleteDeal"}, [3]),
        ({"batch": "first"}, [1]),
    ],
)
async def test_only_what_was_asked_for_is_planned(
    settings: Settings, outbox: Outbox, request_options: dict[str, Any], planned: list[int]
) -> None:
    first = outbox.add([entry()])[0].batch
    outbox.add([entry(payload={"id": 12, "title": "Newer"}), DELETE])
    options: dict[str, Any] = {name: first if value == "first" else value for name, value in request_options.items()}
    request = PushRequest(consent=Consent(frozenset({"delete"})), **options)
    pushed = await run(settings, request=request, consents=False)
    assert [step.seq for step in pushed.shown[0].steps] == planned


# A saved plan.


async def save_plan(settings: Settings, path: Path) -> Plan:
    """The plan of a dry run, saved."""
    api = Api(ANSWERS)
    async with server(api.handle) as url:
        plan, refusal = await dry_run(msgspec.structs.replace(settings, base_url=url), PushRequest())
    assert (api.writes, refusal) == ([], None)
    plans.save(plan, path)
    return plan


async def test_w9_a_saved_plan_is_carried_out_once(settings: Settings, outbox: Outbox, tmp_path: Path) -> None:
    outbox.add([entry()])
    plan = await save_plan(settings, tmp_path / "plan.json")
    (later,) = outbox.add([entry(payload={"id": 12, "title": "Newer"})])
    request = PushRequest(plan=tmp_path / "plan.json")
    pushed = await run(settings, request=request)
    assert pushed.shown == [plan]
    assert outbox.get(later.id).state == "queued"  # it was not in the plan
    with pytest.raises(ConfigError, match="was carried out already"):
        await run(settings, request=request)


async def test_w9_a_plan_of_mutations_that_ended_since_is_refused(
    settings: Settings, outbox: Outbox, tmp_path: Path
) -> None:
    (mutation,) = outbox.add([entry()])
    await save_plan(settings, tmp_path / "plan.json")
    outbox.drop([mutation.id])
    with pytest.raises(ConfigError, match="#1 is cancelled now"):
        await run(settings, request=PushRequest(plan=tmp_path / "plan.json"))


async def test_w9_a_plan_that_was_not_made_here_or_for_another_company_is_refused(
    settings: Settings, outbox: Outbox, tmp_path: Path
) -> None:
    outbox.add([entry()])
    plan = await save_plan(settings, tmp_path / "plan.json")
    for other, error in (
        (msgspec.structs.replace(plan, policy="ours"), ConfigError),
        (msgspec.structs.replace(plan, company_id=COMPANY + 1), WrongCompany),
    ):
        plans.save(other.sealed(), tmp_path / "other.json")
        with pytest.raises(error):
            await run(settings, request=PushRequest(plan=tmp_path / "other.json"))
    assert [each.state for each in outbox.mutations()] == ["queued"]


async def test_w8_a_dry_run_names_the_guard_that_would_refuse_it(settings: Settings, outbox: Outbox) -> None:
    outbox.add([DELETE])
    api = Api(ANSWERS)
    async with server(api.handle) as url:
        plan, refusal = await dry_run(msgspec.structs.replace(settings, base_url=url), PushRequest())
    assert len(plan.steps) == 1
    assert "delete" in str(refusal)
    assert api.writes == []


# A control.db from before the last push.


@pytest.mark.parametrize("store", ["published warehouse", "work file", "journal"])
async def test_w2_a_push_sends_nothing_that_any_store_shows_as_sent(settings: Settings, store: str) -> None:
    with unlocked.open_control(settings) as control:
        control.bind_company(COMPANY, "Acme", None)
        (mutation,) = open_outbox(settings, control).add([entry()])
    older = settings.control.read_bytes()
    with unlocked.open_control(settings) as control:
        outbox = open_outbox(settings, control)
        bring_to(outbox, "applied", mutation)
        if store != "journal":
            loader = Loader(settings.warehouse if store == "published warehouse" else project.work_path(settings))
            await loader.do(loader.open, COMPANY, "Acme")
            await loader.do(mutation_log.save_mutation_log, loader, outbox, {})
            await loader.close()
            shutil.rmtree(settings.raw / "outbox")
    settings.control.write_bytes(older)
    pushed = await run(settings)
    assert (pushed.shown, pushed.writes) == ([], [])
    assert "control.db was lost or is an older copy: 1 change was restored" in pushed.messages[0]
    assert "#1 updateDeal: applied" in pushed.messages[0]


# Who may push.


async def test_x1_the_token_the_queue_and_the_warehouse_belong_to_one_company(
    settings: Settings, outbox: Outbox
) -> None:
    outbox.add([entry()])
    with pytest.raises(WrongCompany):
        await run(settings, {ME: {"id": 1, "name": "Eve", "company_id": COMPANY + 1}})
    with outbox.control.transaction() as db:
        db.execute("DELETE FROM company")  # control.db was lost: the warehouse still knows
    settings.warehouse.parent.mkdir(parents=True, exist_ok=True)
    open_warehouse(settings.warehouse).close()
    with pytest.raises(WrongCompany):
        await run(settings, {ME: {"id": 1, "name": "Eve", "company_id": COMPANY + 1}})
    assert [each.state for each in outbox.mutations()] == ["queued"]


@pytest.mark.parametrize(("how", "message"), [("replaced", "can't be opened"), ("cut", ""), ("locked", "is locked")])
async def test_w13_o4_a_warehouse_that_breaks_while_a_push_sends_takes_no_receipt_away(
    settings: Settings, outbox: Outbox, how: str, message: str
) -> None:
    outbox.add([entry()])
    settings.warehouse.parent.mkdir(parents=True, exist_ok=True)
    open_warehouse(settings.warehouse).close()
    holders: list[subprocess.Popen[str]] = []

    def break_it(_: Mutation) -> None:
        other = settings.warehouse.with_name("other.duckdb")
        if how == "cut":
            os.truncate(settings.warehouse, settings.warehouse.stat().st_size // 2)
            return
        if how == "replaced":
            other.write_bytes(b"no database" * 1000)
        else:
            open_warehouse(other).close()
            code = f"import duckdb; held = duckdb.connect({str(other)!r}); print('held', flush=True); input()"
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            holders.append(subprocess.Popen([sys.executable, "-c", code], text=True, **pipes))  # type: ignore[call-overload]
            assert holders[0].stdout
            assert holders[0].stdout.readline() == "held\n"
        other.replace(settings.warehouse)

    messages = list[str]()
    try:
        async with server(Api(ANSWERS).handle) as url:
            there = msgspec.structs.replace(settings, base_url=url)
            request = PushRequest(settle_s=0.0)
            receipt = await push(there, request, lambda plan: True, on_end=break_it, on_message=messages.append)
    finally:
        for each in holders:
            each.communicate("")
    assert receipt
    assert (receipt.exit_code, receipt.outcomes["applied"], receipt.streams) == (0, 1, ())
    if message:
        assert "The warehouse does not show this push yet" in messages[-1]
        assert message in messages[-1]


async def test_one_push_at_a_time(settings: Settings, outbox: Outbox) -> None:
    outbox.add([entry()])
    with Lock(settings.state / "push.lock"), pytest.raises(ProjectLocked):
        await run(settings)
    assert outbox.mutations()[0].state == "queued"


async def test_w9_a_dry_run_lists_what_an_interrupted_push_left_and_no_more_than_that_is_sent(
    settings: Settings, outbox: Outbox, tmp_path: Path
) -> None:
    others = {f"/api/v2/deals/{id}": {"id": id, "title": "Old"} for id in (13, 14, 15)}
    listed = {"/api/v2/deals": [OLD, *others.values()]}
    answers: Answers = {
        **others,
        **listed,
        **{f"PATCH {path}": {**deal, "title": "New"} for path, deal in others.items()},
    }
    done, lost, approved, queued = outbox.add(
        [entry("v2 updateDeal", {"id": id, "title": "New"}) for id in (12, 13, 14, 15)]
    )
    outbox.approve([done.id, lost.id, approved.id], "push-0", COMPANY)
    arm(outbox, done)  # the process was killed when both were under way
    arm(outbox, lost)
    messages: list[str] = []
    async with server(Api(ANSWERS | answers).handle) as url:
        there = msgspec.structs.replace(settings, base_url=url)
        planned, _ = await dry_run(there, PushRequest(), messages.append)
        with Lock(settings.state / "push.lock"):  # what a push that works has approved is its own
            beside, _ = await dry_run(there, PushRequest())
    assert [each.mutation for each in planned.steps] == [done.id, lost.id, approved.id, queued.id]
    assert [LOOKED_UP_FIRST in each.warnings for each in planned.steps] == [True, True, False, False]
    assert len(messages) == 1
    assert "3 changes remain, 2 of them looked up first" in messages[0]
    assert [each.mutation for each in beside.steps] == [queued.id]
    assert [each.state for each in outbox.mutations()] == ["armed", "armed", "approved", "queued"]
    outbox.add([entry("v2 updateDeal", {"id": 15, "title": "Not in the plan"})])
    plans.save(planned, tmp_path / "plan.json")
    pushed = await run(settings, {**answers, DEAL: NEW}, PushRequest(plan=tmp_path / "plan.json"))
    assert sorted(pushed.writes) == [f"PATCH {path}" for path in others]
    assert [step.mutation for step in pushed.shown[0].steps] == [lost.id, approved.id, queued.id]
