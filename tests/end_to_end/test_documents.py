"""What passes between pdsync and the sandbox is as documented, but for tests/vendor/explained.toml.

`python -m tests.end_to_end.test_documents [SCENARIO]…` prints what is left of a scenario, or of all.
"""

# ruff: noqa: T201 - prints when it is run as a program

from __future__ import annotations

import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.actions.company import World, reads
from tests.actions.test_reads import required, value
from tests.actions.test_writes import NOW, WRITES, given
from tests.sandbox.test_openapi import compare_reads, compare_writes
from tests.support import every_write
from tests.support.exchanges import Recorder
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pdsync.sandbox import RunningSandbox

JOBS = [
    ["doctor"], ["plan"], ["sync", "-q"], ["backfill", "--since", "2026-01-01", "-q"],
    ["reconcile", "--deep", "--repair", "-q"], ["sync", "--full", "-q"], ["sync", "-q"], ["fields"],
    ["auth", "status"], ["sync", "-q"],
]  # fmt: skip


class Stage:
    """A company of its own for a scenario, a project of it, and the recorder of what passes between them."""

    def __init__(self, box: RunningSandbox, recorder: Recorder, folder: Path) -> None:
        self.box, self.recorder = box, recorder
        self.project = Project(folder / "project").configure(base_url=box.url, api_token=box.token)


@contextmanager
def staged(recorder: Recorder, scenario: str, folder: Path, **sizes: int) -> Iterator[Stage]:
    company = generate_company(seed=31, sizes=Sizes(**sizes), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        recorder.scenario, box.sandbox.on_exchange = scenario, recorder
        yield Stage(box, recorder, folder / scenario.replace(" ", "-"))


def sync_every_stream(stage: Stage, *options: str) -> None:
    ran = stage.project.here("sync", *catalogue.streams(), *options, "-q")
    assert ran.code == 0, ran


def run_jobs(stage: Stage) -> None:
    for words in JOBS:
        ran = stage.project.here(*words)
        assert ran.code == 0, (words, ran)
        stage.box.change(share=0.1)
        stage.box.clock.advance(20 * 3600)


def push_every_write(stage: Stage) -> None:
    known = every_write.records(stage.box, stage.project)
    outcomes = every_write.push_everything(stage.project, known)
    wrong = {name: outcome for name, outcome in outcomes.items() if outcome[0] != "applied"}
    assert not wrong, wrong


def push_with_lost_answers(stage: Stage) -> None:
    """Every second write loses its answer: what looks for its effect passes too."""
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        stage.box.faults.add(kind="reset_after", method=method, every=2)
    outcomes = every_write.push_everything(stage.project, every_write.records(stage.box, stage.project))
    assert any(outcome[0] == "applied" for outcome in outcomes.values())


def act_every_action(stage: Stage) -> None:
    world = World(stage.box, stage.project)
    for action in reads():
        needed = required(world, action)
        outcomes = [world.act("python", action.key, needed)]
        for name, each in action.inputs.items():
            if name not in needed and each.how != "refused":
                asked = value(world, action.key, name, needed)
                outcomes.append(world.act("python", action.key, {**needed, name: asked}))
        assert [each.error for each in outcomes if each.code] == []
    for action in WRITES:
        inputs: Any = given(world, action.key, "python")
        outcome = world.act("python", action.key, inputs() if callable(inputs) else inputs, *NOW)
        assert outcome.code == 0, (action.key, outcome.error)


def read_and_write_all_else(stage: Stage) -> None:
    """Answers to what pdsync does not ask for."""
    compare_reads(stage.box, stage.recorder)
    compare_writes(stage.box, stage.recorder)


SCENARIOS: dict[str, Callable[[Stage], None]] = {
    "sync": sync_every_stream,
    "sync --api v1": lambda stage: sync_every_stream(stage, "--api", "v1"),
    "jobs": run_jobs,
    "push": push_every_write,
    "push with lost answers": push_with_lost_answers,
    "actions": act_every_action,
    "answers": read_and_write_all_else,
}
SIZES = {
    "sync": {"deals": 30, "mail_threads": 20, "files": 20}, "jobs": {"deals": 30, "mail_threads": 20, "files": 20},
    "answers": {"deals": 240, "mail_threads": 60, "files": 130},
    "push": {"deals": 150, "mail_threads": 60, "files": 30}, "actions": {"deals": 150, "mail_threads": 60, "files": 60},
}  # fmt: skip


def lists_of_streams() -> set[str]:
    """The operations that the streams read, of both versions."""
    return {
        f"{version} {source.operation}"
        for stream in catalogue.streams().values()
        for version, sources in (("v1", stream.v1), ("v2", stream.v2))
        for source in sources
    }


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_all_that_passes_is_what_the_documents_say(tmp_path: Path) -> None:
    recorder = Recorder()
    for name, scenario in SCENARIOS.items():
        with staged(recorder, name, tmp_path, **SIZES[name.partition(" ")[0]]) as stage:
            scenario(stage)
    assert recorder.unexplained() == []
    assert recorder.unused() == []
    assert {each.name for each in every_write.mutating()} - recorder.operations == set()
    assert lists_of_streams() - recorder.operations == set()


def main() -> None:
    """Carry out the scenarios that are named, or all, and print what is unexplained."""
    recorder = Recorder()
    for name in sys.argv[1:] or SCENARIOS:
        with staged(recorder, name, Path(mkdtemp()), **SIZES[name.partition(" ")[0]]) as stage:
            try:
                SCENARIOS[name](stage)
            except AssertionError as error:
                print(f"{name}: {error}")
    print("\n".join([*recorder.unexplained(), *(f"unused: {entry}" for entry in recorder.unused())]))


if __name__ == "__main__":
    main()
