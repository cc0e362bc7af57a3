"""Kills runs, and shows that the result is that of an undisturbed run.

Two projects read one company: one is never disturbed, the other is killed again and again. Whenever the disturbed one
ends, both must have the same tables, and no page that was sealed before a kill may have been requested after it.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.world import Project, broken_history, differing_versions, fingerprint, page_of, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.world import Ran, Remote

SMALL = "knobs.small_pages({rows}); knobs.small_batches(2); knobs.read_ahead(1); knobs.hurry()"
SIDE_BY_SIDE = f"{SMALL}; knobs.long_lists(4)"
CONCURRENCY = 8


@dataclass
class Outcome:
    """The result of a round."""

    kills: int = 0
    rounds: int = 0
    requests: int = 0
    tables: int = 0  # compared
    refetched: list[str] = field(default_factory=list)  # sealed pages that were requested again
    repeated: int = 0  # pages that were requested again because the kill came before their seal
    different: list[str] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)  # how far the killed runs had come

    @property
    def wrong(self) -> list[str]:
        return [*self.refetched, *self.different]


def again(remote: Remote, project: Project, *arguments: str, first: str, outcome: Outcome, kill_after: float) -> Ran:
    """One more attempt, killed `kill_after` seconds after its first request if it still runs; checks its requests.

    Adds what it finds to `outcome`, and clears the company's log before.
    """
    before = project.sealed() if project.cut_short() else set()
    requested_before = {page_of(request) for request in remote.log()} if project.cut_short() else set()
    remote.clear_log()
    process = project.start(*arguments, first=first)
    while process.poll() is None and not remote.log():
        time.sleep(0.02)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(kill_after)
    process.send_signal(signal.SIGKILL)
    ran = wait_for(process)
    log = [request for request in remote.log() if request["operation"] not in (None, "getCurrentUser")]
    pages = [page_of(request) for request in log if request["status"] == 200]
    outcome.requests += len(pages)
    outcome.refetched += [f"{page} was sealed and requested again" for page in pages if page in before]
    outcome.repeated += sum(page in requested_before for page in pages)
    return ran


def round_of(
    remote: Remote,
    calm: Project,
    shaken: Project,
    arguments: tuple[str, ...],
    *,
    rows: int,
    kills: int,
    seed: int,
    first: str = SMALL,
) -> Outcome:
    """Run `calm` once, kill `shaken` `kills` times, let it end, and compare."""
    random_numbers, outcome, first = random.Random(seed), Outcome(rounds=1), first.format(rows=rows)
    began = time.monotonic()
    reference = calm.run(*arguments, first=first)
    assert reference.code == 0, reference
    takes = time.monotonic() - began
    remote.clear_log()
    while True:
        patience = random_numbers.uniform(0, 0.4) * takes if outcome.kills < kills else 600
        ran = again(remote, shaken, *arguments, first=first, outcome=outcome, kill_after=patience)
        if ran.code == -signal.SIGKILL:
            outcome.kills += 1
            outcome.states[state_of(shaken)] += 1
            continue
        if ran.code != 0:
            outcome.different.append(f"the run that was not killed ended with {ran}")
        break
    calm_tables, shaken_tables = fingerprint(calm), fingerprint(shaken)
    outcome.tables = len(calm_tables)
    outcome.different += [
        f"{t}: {calm_tables.get(t)} and {shaken_tables.get(t)}"
        for t in calm_tables | shaken_tables
        if calm_tables.get(t) != shaken_tables.get(t)
    ]
    for table in {line.split(":")[0].split(".")[1] for line in outcome.different if "rows" in line}:
        outcome.different += differing_versions(calm, shaken, table)
    outcome.different += broken_history(shaken)
    return outcome


def state_of(project: Project) -> str:
    """How far a killed run had come."""
    if not (project.data / "control.db").exists():
        return "before it began"
    states = dict(
        project.control(
            "SELECT state, count(*) FROM walks WHERE run_id = (SELECT id FROM runs ORDER BY started_at DESC, id DESC"
            " LIMIT 1) GROUP BY 1"
        )
    )
    if (project.data / ".warehouse.duckdb.new").exists():
        return "while publishing"
    if not states:
        return "before its first list"
    return "while reading" if states.get("open") else "after its last page"


def chain(
    remote: Remote, folder: Path, deaths: list[str], arguments: tuple[str, ...], *, rows: int
) -> tuple[Outcome, Project]:
    """One run that is killed at one named place after the other, and then ends.

    Args:
        remote: the company; its log is cleared.
        folder: of the project, which must be new or the one to continue.
        deaths: for each kill the arguments of `knobs.die`, as text.
        arguments: of the command.
        rows: of a page, at most.
    """
    project, outcome, first = Project(folder, remote), Outcome(rounds=1), SMALL.format(rows=rows)
    remote.clear_log()
    for death in deaths:
        ran = again(remote, project, *arguments, first=f"{first}\nknobs.die({death})", outcome=outcome, kill_after=100)
        if ran.code != -signal.SIGKILL:
            outcome.different.append(f"did not die at {death}: {ran}")
        outcome.kills += 1
    ran = again(remote, project, *arguments, first=first, outcome=outcome, kill_after=100)
    if ran.code != 0:
        outcome.different.append(str(ran))
    return outcome, project
