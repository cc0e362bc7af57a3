"""The commands of `pdsync fleet` on accounts whose servers answer, refuse, hang, or have no tokens left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from pdsync.sandbox import Fault, Limits, Sizes, generate_company, running
from tests.support.world import clean_environment, run_here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox
    from tests.support.world import Ran

NAMES = ("good", "refused", "spent", "hangs")


class World:
    """A fleet.toml, and a sandbox for each of its accounts."""

    def __init__(self, folder: Path, boxes: dict[str, RunningSandbox]) -> None:
        self.folder, self.boxes = folder, boxes
        self.env = {**clean_environment(), "HOME": str(folder), "COLUMNS": "200"}
        self.env |= {f"TOKEN_{name.upper()}": box.token for name, box in boxes.items()}
        defaults = "[defaults]\npipeline = 'deals'\nburst = 0\ndaily_tokens = 0\ntoken = 'env:TOKEN_{NAME}'\n"
        accounts = {name: f"[accounts.{name}]\nbase_url = '{box.url}'\n" for name, box in boxes.items()}
        accounts["good"] += "tags = ['right']\n"
        accounts["spent"] += "daily_tokens = 15\n"
        for name in boxes:
            pipelines = folder / "accounts" / name / "pipelines"
            pipelines.mkdir(parents=True)
            (pipelines / "deals.toml").write_text('description = "Little, for tests"\nstreams = ["deals"]\n')
        (folder / "fleet.toml").write_text(defaults + "".join(accounts.values()))
        (folder / "hangs.toml").write_text(f"[fleet]\ntimeout = '2s'\n{defaults}{accounts['hangs']}")

    def run(self, *arguments: str, **variables: str) -> Ran:
        return run_here(["--project", str(self.folder), "fleet", *arguments], self.env | variables)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        limits = Limits(burst=None, daily_tokens=None)
        boxes = {
            name: stack.enter_context(running(generate_company(seed=seed, sizes=Sizes(deals=10)), limits=limits))
            for seed, name in enumerate(NAMES, 1)
        }
        yield World(tmp_path_factory.mktemp("fleet"), boxes)


@pytest.fixture(scope="module")
def first(world: World) -> dict[str, Any]:
    """The summary of a night in which two of three accounts fail, each in its way."""
    ran = world.run("sync", "--json", *NAMES[:3], TOKEN_REFUSED="f" * 40)
    assert ran.code == 4, ran
    assert all(event["account"] in NAMES for event in ran.events[:-1] if event["event"] != "note")
    assert "f" * 40 not in ran.out + ran.err
    return ran.summary


def test_an_account_that_is_refused_or_has_no_tokens_left_stops_nobody(first: dict[str, Any], world: World) -> None:
    ends = {name: (each["outcome"], each["exit_code"], each["error"]) for name, each in first["accounts"].items()}
    assert ends == {
        "good": ("complete", 0, ""),
        "refused": ("refused", 2, "AuthError"),
        "spent": ("stopped", 3, ends["spent"][2]),
    }
    assert {each["attempts"] for each in first["accounts"].values()} == {1}
    assert (first["event"], first["complete"], first["exit_code"]) == ("summary", False, 4)
    good = first["accounts"]["good"]
    assert good["read"] == sum(stream["read"] for stream in good["streams"].values()) > 0
    assert good["requests"] == len(world.boxes["good"].log)
    assert first["tokens"] == sum(each["tokens"] for each in first["accounts"].values())
    assert first["streams"]["deals"]["read"] == sum(
        each["streams"].get("deals", {}).get("read", 0) for each in first["accounts"].values()
    )


def test_an_account_whose_server_hangs_is_ended_and_reported(world: World) -> None:
    world.boxes["hangs"].faults.add(Fault(kind="timeout", path="/", seconds=600.0))
    ran = world.run("sync", "--json", "--file", str(world.folder / "hangs.toml"))
    world.boxes["hangs"].faults.clear()
    assert ran.code == 4
    (result,) = ran.summary["accounts"].values()
    assert (result["outcome"], result["error"], result["attempts"]) == ("failed", "Timeout", 1)


def test_status_says_of_each_account_what_needs_attention(first: dict[str, Any], world: World) -> None:
    ran = world.run("status", "--json")
    assert ran.code == 0
    states = {row["name"]: row for row in ran.events}
    assert list(states) == list(NAMES)
    assert all(next(iter(row)) == "name" for row in ran.events)
    assert (states["good"]["complete"], states["good"]["fresh"], states["good"]["attention"]) == (True, True, [])
    assert states["good"]["last_run"] == first["accounts"]["good"]["run_id"]
    assert states["refused"]["attention"][0]["command"] == "pdsync fleet check refused"
    assert all(states[name]["attention"] for name in NAMES[1:])
    shown = world.run("status", "--tag", "right")
    assert "good" in shown.out
    assert "1 of 1 account is complete and fresh" in shown.err


def test_any_command_runs_for_each_account_that_is_named(first: dict[str, Any], world: World) -> None:
    query = ("run", "--tag", "right", "--", "sql", "select count(*) as n from deals")
    assert world.run(*query).out.split() == ["n", str(first["accounts"]["good"]["streams"]["deals"]["read"])]
    ran = world.run("--json", "run", "--account", "good", "--account", "spent", "--", "runs")
    assert ran.code == 0
    rows = [event for event in ran.events if "event" not in event]
    assert {row["account"] for row in rows} == {"good", "spent"}
    assert first["accounts"]["good"]["run_id"] in {row["name"] for row in rows}
    for wrong in (["run", "--", "fleet", "sync"], ["sync", "nobody"], ["sync", "--tag", "no"], ["sync", "--file", "x"]):
        assert world.run(*wrong).code == 2


def test_a_plan_and_a_check_name_each_account_without_events(first: dict[str, Any], world: World) -> None:
    plan = world.run("plan", "--json", "--no-requests", "good", "refused")
    assert [event.get("name", event.get("event")) for event in plan.events] == ["good", "refused", "summary"]
    assert plan.summary["tokens"] == sum(event["tokens"] for event in plan.events[:-1]) > 0
    check = world.run("check", "--json", "good", "refused", TOKEN_REFUSED="f" * 40)
    assert (check.code, [event["name"] for event in check.events[:-1]]) == (4, ["refused"])
    assert check.summary["accounts"] == {"good": {"ok": True}, "refused": {"ok": False}}
    missing = world.run("check", "--no-requests", "good", TOKEN_GOOD="")
    assert (missing.code, "TOKEN_GOOD" in missing.out) == (4, True)


def test_an_interrupted_run_ends_its_children_and_the_same_command_goes_on(first: dict[str, Any], world: World) -> None:
    world.boxes["hangs"].faults.add(Fault(kind="timeout", path="/", seconds=600.0))
    options = ["--project", str(world.folder), "--json"]
    command = [sys.executable, "-m", "pdsync", *options, "fleet", "sync", "good", "hangs"]
    process = subprocess.Popen(command, env=world.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    for line in process.stdout:
        event = json.loads(line)
        if (event["event"], event["account"]) == ("account", "good"):
            break
    children = psutil.Process(process.pid).children()
    assert len(children) == 1
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert json.loads(out.splitlines()[-1])["exit_code"] == 130
    assert not children[0].is_running()
    world.boxes["hangs"].faults.clear()
    ran = world.run("sync", "good", "hangs", "--json")
    assert (ran.code, ran.summary["continued"]) == (0, 1)
    assert [event["account"] for event in ran.events if event["event"] == "started"] == ["hangs"]
    assert "was interrupted, and goes on" in ran.err


def test_a_run_whose_output_is_not_read_any_more_ends_its_children_first(first: dict[str, Any], world: World) -> None:
    world.boxes["hangs"].faults.add(Fault(kind="timeout", path="/", seconds=600.0))
    command = [sys.executable, "-m", "pdsync", "--project", str(world.folder), "--json", "fleet", "sync"]
    process = subprocess.Popen([*command, "hangs", "good"], env=world.env, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert json.loads(process.stdout.readline())["event"] == "started"
    process.stdout.close()  # as `| head -1` does
    try:
        process.wait(timeout=100)  # the account that hangs has six hours
    finally:
        process.kill()
        world.boxes["hangs"].faults.clear()
    ran = world.run("sync", "hangs", "good", "--json")
    assert ran.code == 0
    assert {each["attempts"] for each in ran.summary["accounts"].values()} == {1}


def test_without_dask_a_cluster_is_refused_and_nothing_else_needs_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    requests = len(world.boxes["good"].log)
    for option in (("--scheduler", "tcp://127.0.0.1:1"), ("--workers", "2")):
        ran = world.run("sync", "good", *option)
        assert ran.code == 2
        assert f"{option[0]} needs Dask, which is not installed" in ran.err
        assert 'pip install "pdsync[fleet]"' in ran.err
    assert len(world.boxes["good"].log) == requests
    assert world.run("status").code == 0


def test_a_run_has_one_cluster(world: World) -> None:
    ran = world.run("sync", "good", "--scheduler", "tcp://127.0.0.1:1", "--workers", "2")
    assert (ran.code, "Give one of them." in ran.err) == (2, True)
