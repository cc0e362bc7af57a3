"""Proof: a run that is killed many times gives the tables of an uninterrupted run, and reads nothing twice.

    python -m tests.proofs.kills                       # everything: half an hour
    python -m tests.proofs.kills --seed 7              # other times
    python -m tests.proofs.kills --kills 0 --random 50 --commands reconcile,export
    python -m tests.proofs.kills --kills 0 --first-loads 200 --random 0   # first loads only

Each round changes 2 % of a company in a sandbox in another process, syncs it whole in an undisturbed project, and kills
the same command in another project with SIGKILL at random times, ten times a round, and then lets it end. All tables of
both must be the same, history included, and the sandbox's log may not show a request for a page that had been sealed
before a kill. Then a run is killed once at each named place. Then first loads are killed that read their lists in
windows side by side.

Last is the matrix: sync, publish, load, reconcile, replay, export and backfill, on a company that has drifted, each
killed at every named place (the first, second, middle and last time it is passed) and at random times; the command that
resumes it is killed too, and the one after that must have the result of an undisturbed command. After each kill
control.db must be sound, and readers must see a consistent state. Ends with 1 if anything differs.
"""

# ruff: noqa: T201 - prints a report

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from random import Random
from typing import TYPE_CHECKING

from tests.end_to_end.test_kills import DEATHS
from tests.support import matrix
from tests.support.forks import Forks
from tests.support.kills import SIDE_BY_SIDE, chain, round_of
from tests.support.proof import Proof
from tests.support.world import Project, fingerprint, serving

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from tests.support.kills import Outcome

MORE_DEATHS = [
    "'pdsync.runner.session', 'fetch_account'",
    "'pdsync.extract.raw_archive', '_write', 2",
    "'pdsync.core.control', 'Control.record_pages', 2, after=True",
    "'pdsync.runner.loader', 'Loader.sync_custom_fields', 2, after=True",
    "'pdsync.load.commit', '_apply'",
    "'pdsync.load.commit', 'note_batch', 2",
    "'pdsync.runner.loader', 'Loader.create_views', after=True",
    "'pdsync.load.publish', 'copy', after=True",
]


def main() -> int:
    proof = Proof("tests.proofs.kills", __doc__, title="Kills")
    parser = proof.parser
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--first-loads", type=int, default=50, help="kills in first loads read side by side")
    parser.add_argument("--kills-a-round", type=int, default=10)
    parser.add_argument("--deals", type=int, default=400)
    parser.add_argument("--rows", type=int, default=60, help="rows a page")
    parser.add_argument("--random", type=int, default=200, help="random kills over all commands of the matrix")
    parser.add_argument("--commands", default=",".join(matrix.COMMANDS), help="of the matrix")
    parser.add_argument("--first-only", action="store_true", help="each place only the first time it is passed")
    parser.add_argument("--workers", type=int, default=2, help="trials side by side")
    parser.add_argument("--seed", type=int, default=1)
    options = proof.options()
    counts = Counter({"kills": 0, "tables compared": 0, "wrong": 0})
    wrong = (in_a_row(options, counts) if options.kills else []) + first_loads(options, counts)
    wrong += of_every_command(options, counts) if options.random or options.kills else []
    counts["wrong"] = len(wrong)
    print("\n".join(wrong[:40]) if wrong else "No kill has left a trace.")
    return proof.end(passed=not wrong, seeds=[options.seed], counts=counts)


def _add(counts: Counter[str], outcome: Outcome) -> None:
    counts["kills"] += outcome.kills
    counts["tables compared"] += outcome.tables
    counts["pages fetched"] += outcome.requests
    counts["sealed pages fetched again"] += len(outcome.refetched)


def in_a_row(options: argparse.Namespace, counts: Counter[str]) -> list[str]:
    """A sync that is killed again and again, and one that dies once at each named place."""
    wrong: list[str] = []
    kills = 0
    with tempfile.TemporaryDirectory() as folder, serving("--deals", str(options.deals)) as remote:
        remote.advance(3600)
        remote.fault(kind="latency", ms=25, jitter_ms=25, path="^/(?!v1/users/me)")
        calm, shaken = Project(Path(folder) / "calm", remote), Project(Path(folder) / "shaken", remote)
        for number in range(1, options.kills + 1):
            began = time.monotonic()
            outcome = round_of(
                remote, calm, shaken, ("sync", "--full", "--json"), rows=options.rows,
                kills=min(options.kills_a_round, options.kills - kills), seed=options.seed * 1000 + number,
            )  # fmt: skip
            kills += outcome.kills
            wrong += outcome.wrong
            _add(counts, outcome)
            states = ", ".join(f"{count} {state}" for state, count in outcome.states.most_common())
            print(f"round {number}: {outcome.kills} kills ({states}), {outcome.requests} pages fetched, "
                  f"{outcome.repeated} of them twice as they were not sealed yet, {len(outcome.refetched)} that were "
                  f"sealed; {len(outcome.different)} tables differ; {time.monotonic() - began:.0f} s",
                  flush=True)  # fmt: skip
            if kills >= options.kills or outcome.wrong:
                break
            remote.advance(1200)
            remote.change(0.02, seed=number)
            remote.advance(1200)
        remote.clear_faults()
        deaths = sorted({*DEATHS, *MORE_DEATHS}, key=(DEATHS + MORE_DEATHS).index)
        for death in deaths:
            still = Project(Path(folder) / f"still {deaths.index(death)}", remote)
            outcome, dying = chain(remote, still.folder, [death], ("sync", "--json"), rows=options.rows)
            wrong += outcome.wrong
            tables = fingerprint(dying)
            outcome.tables = len(tables)
            _add(counts, outcome)
            if death == deaths[0]:
                whole = tables
            elif tables != whole:
                wrong.append(f"other tables after dying at {death}")
        print(f"{len(deaths)} named places: {'see below' if wrong else 'the same tables'}")
    return wrong


def first_loads(options: argparse.Namespace, counts: Counter[str]) -> list[str]:
    """First loads that read long lists side by side, each killed again and again."""
    wrong: list[str] = []
    kills = 0
    with serving("--deals", str(options.deals)) as remote:
        remote.advance(3600)
        remote.fault(kind="latency", ms=25, jitter_ms=25, path="^/(?!v1/users/me)")
        for number in count(1):
            if kills >= options.first_loads or wrong:
                break
            with tempfile.TemporaryDirectory() as folder:
                calm, shaken = Project(Path(folder) / "calm", remote), Project(Path(folder) / "shaken", remote)
                most = min(options.kills_a_round, options.first_loads - kills)
                outcome = round_of(
                    remote, calm, shaken, ("sync", "deals", "persons", "activities", "products", "--json"),
                    rows=15, kills=most, seed=options.seed * 1000 + number, first=SIDE_BY_SIDE,
                )  # fmt: skip
            kills, wrong = kills + outcome.kills, wrong + outcome.wrong
            _add(counts, outcome)
            print(f"first load {number}: {outcome.kills} kills, {outcome.requests} pages fetched,"
                  f" {len(outcome.refetched)} of them sealed before; {len(outcome.different)} tables differ",
                  flush=True)  # fmt: skip
    return wrong


def of_every_command(options: argparse.Namespace, counts: Counter[str]) -> list[str]:
    """The matrix."""
    names = [name for name in options.commands.split(",") if name]
    random, wrong, total, began = Random(options.seed), list[str](), matrix.Trial(), time.monotonic()
    with contextlib.ExitStack() as stack:
        folder, forks = stack.enter_context(tempfile.TemporaryDirectory()), stack.enter_context(Forks())
        scene = stack.enter_context(matrix.scenes(Path(folder), forks, seed=options.seed))
        for place, name in enumerate(names):
            case = scene.case(name)
            never = [str(each) for each, times in case.calls.items() if not times]
            named = [each for each in case.named() if each[1] == 1 or not options.first_only]
            instants = options.random // len(names) + (place < options.random % len(names))
            deaths: list[list[str | float]] = [
                [where.death(nth), again.death(other)]
                for (where, nth), (again, other) in ((each, random.choice(named)) for each in named)
            ]
            deaths += [[random.uniform(0, case.takes_s), random.uniform(0, case.takes_s)] for _ in range(instants)]
            started = time.monotonic()
            trials = _side_by_side(case, Path(folder) / name, deaths, options.workers)
            failed = [f"{name}, dead at {how}: {what}" for how, trial in zip(deaths, trials, strict=True)
                   for what in trial.wrong]  # fmt: skip
            wrong += failed
            kills, missed = sum(trial.kills for trial in trials), sum(trial.missed for trial in trials)
            total.kills, total.missed = total.kills + kills, total.missed + missed
            counts["tables compared"] += len(trials) * len(case.boundaries[-1])
            counts["named places of commands"] += len(case.places)
            print(f"{name}: {len(case.places)} places in {len(named)} hits and {instants} random instants: {kills} "
                  f"kills, {missed} came too late, {sum(bool(t.wrong) for t in trials)} of {len(trials)} ended wrong;"
                  f" {time.monotonic() - started:.0f} s; never passed: {', '.join(never) or 'none'}",
                  flush=True)  # fmt: skip
    counts["kills"] += total.kills
    counts["kills that came too late"] += total.missed
    print(f"matrix, seed {options.seed}: {total.kills} kills, {total.missed} came too late, {len(wrong)} wrong; "
          f"{time.monotonic() - began:.0f} s")  # fmt: skip
    return wrong


def _side_by_side(
    case: matrix.Case, folder: Path, deaths: Sequence[Sequence[str | float]], workers: int
) -> list[matrix.Trial]:
    """A trial for each of `deaths`."""
    numbers, free = count(), SimpleQueue[Forks]()
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(workers) as pool:
        for _ in range(workers):
            free.put(stack.enter_context(Forks()))

        def one(how: Sequence[str | float]) -> matrix.Trial:
            forks = free.get()
            try:
                trial = case.trial(folder / f"trial {next(numbers)}", forks, how)
                for what in trial.wrong:
                    print(f"  {case.name}, dead at {how}: {what[:600]}", flush=True)
                return trial
            finally:
                free.put(forks)

        return list(pool.map(one, deaths))


if __name__ == "__main__":
    sys.exit(main())
