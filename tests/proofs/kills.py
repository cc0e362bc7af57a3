"""Proof: a run that is killed again and again ends in the tables of one that was left alone, and reads nothing twice.

    python -m tests.proofs.kills --kills 50            # some minutes
    python -m tests.proofs.kills --kills 50 --seed 7   # other instants

Each round changes 2 % of a company in a sandbox in another process, syncs it whole in an undisturbed project, and kills
the same command in another project with SIGKILL at random instants, ten times a round, until it is let through. Then
all tables of both must be the same, history included, and the sandbox's log may not show a request for a page that had
been sealed before a kill. At last a run dies once at each named place. Ends with 1 if anything differs.
"""

# ruff: noqa: T201 - prints a report

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.end_to_end.kills import chain, round_of
from tests.end_to_end.test_kills import DEATHS
from tests.end_to_end.world import Project, fingerprint, serving

MORE_DEATHS = [
    "'pdsync.runner.client', 'whoami'",
    "'pdsync.extract.seal', '_write', 2",
    "'pdsync.core.control', 'Control.record_pages', 2, after=True",
    "'pdsync.runner.loader', 'Loader.learn_fields', 2, after=True",
    "'pdsync.load.commit', '_apply'",
    "'pdsync.load.commit', 'note_batch', 2",
    "'pdsync.runner.loader', 'Loader.views', after=True",
    "'pdsync.load.publish', 'copy', after=True",
]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.kills", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--kills-a-round", type=int, default=10)
    parser.add_argument("--deals", type=int, default=400)
    parser.add_argument("--rows", type=int, default=60, help="rows a page")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    wrong: list[str] = []
    kills = 0
    with tempfile.TemporaryDirectory() as folder, serving("--deals", str(asked.deals)) as remote:
        remote.advance(3600)
        remote.fault(kind="latency", ms=25, jitter_ms=25, path="^/(?!v1/users/me)")
        calm, shaken = Project(Path(folder) / "calm", remote), Project(Path(folder) / "shaken", remote)
        for number in range(1, asked.kills + 1):
            began = time.monotonic()
            outcome = round_of(
                remote, calm, shaken, ("sync", "--full", "--json"), rows=asked.rows,
                kills=min(asked.kills_a_round, asked.kills - kills), seed=asked.seed * 1000 + number,
            )  # fmt: skip
            kills += outcome.kills
            wrong += outcome.wrong
            states = ", ".join(f"{count} {state}" for state, count in outcome.states.most_common())
            print(f"round {number}: {outcome.kills} kills ({states}), {outcome.requests} pages fetched, "
                  f"{outcome.repeated} of them twice as they were not sealed yet, {len(outcome.refetched)} that were "
                  f"sealed; {len(outcome.different)} tables differ; {time.monotonic() - began:.0f} s",
                  flush=True)  # fmt: skip
            if kills >= asked.kills or outcome.wrong:
                break
            remote.advance(1200)
            remote.change(0.02, seed=number)
            remote.advance(1200)
        remote.clear_faults()
        deaths = sorted({*DEATHS, *MORE_DEATHS}, key=(DEATHS + MORE_DEATHS).index)
        for death in deaths:
            still = Project(Path(folder) / f"still {deaths.index(death)}", remote)
            outcome, dying = chain(remote, still.folder, [death], ("sync", "--json"), rows=asked.rows)
            wrong += outcome.wrong
            if death == deaths[0]:
                whole = fingerprint(dying)
            elif fingerprint(dying) != whole:
                wrong.append(f"other tables after dying at {death}")
        print(f"{len(deaths)} named places: {'see below' if wrong else 'the same tables'}")
    print("\n".join(wrong[:40]) if wrong else f"{kills} kills left no trace.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
