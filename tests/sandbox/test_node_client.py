"""The vendor's own client for Node, pointed at the sandbox, reads, writes and finds nothing amiss in any resource."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.sandbox import Limits, generate_company, running
from tests.support.exchanges import Recorder

from .api import Api
from .conftest import NOW, SIZES
from .node_calls import CALLS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.proof

CURRENT, BEFORE = "32.2.1", "30.8.1"  # the second still has v1's deals
SCRIPT = Path(__file__).with_name("node_client.cjs")
LIVE = ("deals", "persons", "files")
NAMES = [f"{number} {words}" for number, (_, words, _, _) in enumerate(CALLS)]


@pytest.fixture(scope="module")
def modules() -> Path:
    """A folder with both versions of the client, kept from run to run."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    home = Path(tempfile.gettempdir()) / f"pdsync-node-client-{CURRENT}-{BEFORE}"
    if not (home / "done").exists():
        home.mkdir(exist_ok=True)
        (home / "package.json").write_text("{}")
        packages = [f"pipedrive@{CURRENT}", f"pipedrive-before@npm:pipedrive@{BEFORE}"]
        command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", *packages]
        try:
            done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip("npm install took too long")
        if done.returncode:
            pytest.skip(f"npm install failed: {done.stderr[-300:]}")
        (home / "done").touch()
    return home


@dataclass(frozen=True)
class Run:
    """All calls, carried out in order by one process of Node."""

    outcomes: dict[str, Any]  # by NAMES: {"answer": …} or {"error": …}
    saved: dict[str, Any]  # what `$name` stands for
    live: dict[str, list[int]]  # the ids there were before the first call
    unexplained: list[str]  # differences of answers from the documents

    def value(self, expected: Any) -> Any:
        """What an expectation with `$name` or `$name.path` in it says."""
        if not isinstance(expected, str) or not expected.startswith("$"):
            return expected
        name, *path = expected[1:].split(".")
        value = self.saved[name]
        if not path and isinstance(value, dict):
            return next(value[key] for key in ("id", "field_code", "uuid") if key in value)
        for key in path:
            value = value[int(key)] if isinstance(value, list) else value[key]
        return value


@pytest.fixture(scope="module")
def run(modules: Path) -> Iterator[Run]:
    recorder = Recorder()
    company = generate_company(seed=7, sizes=SIZES, now=NOW)
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        api, me = Api(box), company.viewers["admin"].user_id
        live = {kind: api.live(kind) for kind in LIVE}
        saved = {
            "me": me,
            "other": next(id for id, row in company["users"].rows.items() if row.record["active_flag"] and id != me),
            "board": int(next(iter(api.truth("project_boards")))),
            "phase": int(next(iter(api.truth("project_phases")))),
            "thread": api.get("/v1/mailbox/mailThreads", folder="inbox").data[0]["id"],
        }
        box.sandbox.on_exchange = recorder
        answers = _carry_out(modules, {"url": box.url, "token": box.token, "saved": saved})
        for (name, *_), each in zip(CALLS, answers, strict=True):
            if name not in ("", "walk") and "answer" in each:
                saved[name] = each["answer"]["data"]
        unexplained = [line for line in recorder.unexplained() if line.startswith("answer")]
        yield Run(dict(zip(NAMES, answers, strict=True)), saved, live, unexplained)


def _carry_out(modules: Path, given: dict[str, Any]) -> list[Any]:
    calls = []
    for name, words, args, _ in CALLS:
        client, api, method = words.split()
        walk = name == "walk"
        calls.append(
            {"name": "" if walk else name, "client": client, "api": api, "method": method, "args": args, "walk": walk}
        )
    done = subprocess.run(
        ["node", str(SCRIPT)],
        input=json.dumps({**given, "calls": calls}),
        env={**os.environ, "NODE_PATH": str(modules / "node_modules")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def values_at(value: Any, path: list[str]) -> list[Any]:
    """What stands at a path; `*` is any element of a list or an object."""
    if not path or path == [""]:
        return [value]
    key, *rest = path
    if key == "*":
        inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else []
        return [each for one in inner for each in values_at(one, rest)]
    return values_at(value[key], rest) if isinstance(value, dict) and key in value else []


@pytest.mark.parametrize("number", range(len(CALLS)), ids=NAMES)
def test_each_call_comes_to_what_the_client_shows(run: Run, number: int) -> None:
    expected, outcome = CALLS[number][3], run.outcomes[NAMES[number]]
    if "error" in expected:
        assert expected["error"] in ("*", outcome["error"]["error"])
        return
    assert "answer" in outcome, outcome
    answer = outcome["answer"]
    assert answer["success"] is True
    for path, value in expected.items():
        if path == "live":
            assert answer["data"] == run.live[value]
        else:
            assert run.value(value) in values_at(answer["data"], path.split(".")), answer["data"]


def test_the_calls_are_at_least_150_over_all_resources(modules: Path) -> None:
    script = (
        "for (const v of ['v1', 'v2']) for (const k in require('pipedrive/' + v)) if (/Api$/.test(k)) console.log(v, k)"
    )
    environment = {**os.environ, "NODE_PATH": str(modules / "node_modules")}
    listed = subprocess.run(["node", "-e", script], env=environment, capture_output=True, text=True, check=True).stdout
    called = {tuple(words.split()[:2]) for _, words, _, _ in CALLS}
    missing = {line for line in listed.splitlines() if tuple(line.removesuffix("Api").split()) not in called}
    assert missing == set()
    assert len({words for _, words, _, _ in CALLS}) >= 150


def test_no_answer_to_the_client_differs_from_the_documents(run: Run) -> None:
    assert run.unexplained == []
