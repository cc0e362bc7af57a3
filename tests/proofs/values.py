"""Proof: every row of a whole company, key by key and value by value, in three runs.

    python -m tests.proofs.values                      # the sizes below: some minutes
    python -m tests.proofs.values --deals 2000         # smaller; other sizes are in proportion to the deals

A sandbox in another process is the remote side. The first run writes all rows, the second, without changes, none.
The third, after 1 % has changed, writes exactly those rows. Ends with 1 if anything differs.
"""

# ruff: noqa: T201 - prints a report

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.support.proof import Proof
from tests.support.truth import COMPARED, differences
from tests.support.values import check_changes
from tests.support.world import STREAMS, Project, Ran, serving

SEED = 42
SIZES = {
    "deals": 20_000, "persons": 15_000, "organizations": 5_000, "activities": 30_000, "products": 2_000,
    "files": 2_000, "mail_threads": 2_000,
}  # fmt: skip


def main() -> int:
    proof = Proof("tests.proofs.values", __doc__, title="Values")
    for kind in SIZES:
        proof.parser.add_argument(f"--{kind.replace('_', '-')}", type=int)
    given = vars(proof.options())
    sizes = {kind: given[kind] for kind in SIZES if given[kind] is not None} or SIZES
    options = [text for kind, size in sizes.items() for text in (f"--{kind.replace('_', '-')}", str(size))]
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder, serving("--seed", str(SEED), *options) as remote:
        remote.advance(3600)  # no record is so recent that the second run requests it again
        project = Project(Path(folder) / "project", remote).configure(verify_cycle=0)  # no list takes turns

        first, seconds = _timed(project)
        truth = remote.truth()
        began = time.monotonic()
        compared = 0
        with project.warehouse() as warehouse:
            for stream in STREAMS:
                wrong += differences(warehouse, stream, truth[stream].values())
                counted = warehouse.execute(f"SELECT count(*) FROM main.{stream}").fetchone()
                compared += counted[0] if counted else 0
        print(f"1. all of it:        {compared:,} rows in {seconds:.1f} s, exit {first.code}; "
              f"compared in {time.monotonic() - began:.0f} s, {len(wrong)} differences")  # fmt: skip
        wrong += [] if first.code == 0 else [str(first)]

        second, seconds = _timed(project)
        written = sum(second.written.values())
        versions = sum(project.ask(f"SELECT count(*) FROM versions.{stream}")[0][0] for stream in STREAMS)
        print(f"2. nothing changed:  {written} rows, {versions} versions in {seconds:.1f} s, exit {second.code}")
        wrong += ["the second run wrote rows"] if written or versions or second.code else []

        done = remote.change(0.01)
        changed = sum(len(ids) for ids_by_change in done.values() for ids in ids_by_change.values())
        third, seconds = _timed(project)
        problems = check_changes(project, third, truth, remote.truth(), done)
        rewritten = sum(third.written.values())
        print(f"3. 1 % changed:      {changed} changes, {rewritten} rows written in {seconds:.1f} s, "
              f"exit {third.code}; {len(problems)} differences")  # fmt: skip
        wrong += problems
    print("\n".join(wrong[:40]) if wrong else "Every value is the truth.")
    counts = {
        **COMPARED, "differences found": len(wrong), "rows of the first run": compared,
        "rows written without a change": written, "changes": changed, "rows written for the changes": rewritten,
    }  # fmt: skip
    return proof.end(passed=not wrong, seeds=[SEED], counts=counts)


def _timed(project: Project) -> tuple[Ran, float]:
    began = time.monotonic()
    return project.run("sync", "--json"), time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
