"""Proof: every row of a whole company, key by key and value by value, in three runs.

    python -m tests.proofs.values                      # the sizes below: some minutes
    python -m tests.proofs.values --deals 2000         # smaller; other sizes are in proportion to the deals

A sandbox in another process is the remote side. The first run writes all rows, the second, without changes, none.
The third, after 1 % has changed, writes exactly those rows. Ends with 1 if anything differs.
"""

# ruff: noqa: T201 - prints a report

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.support.truth import differences
from tests.support.values import check_changes
from tests.support.world import STREAMS, Project, Ran, serving

SIZES = {
    "deals": 20_000, "persons": 15_000, "organizations": 5_000, "activities": 30_000, "products": 2_000,
    "files": 2_000, "mail_threads": 2_000,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.values", description=__doc__.splitlines()[0])
    for kind in SIZES:
        parser.add_argument(f"--{kind.replace('_', '-')}", type=int)
    arguments = {kind: size for kind, size in vars(parser.parse_args()).items() if size is not None}
    sizes = arguments or SIZES
    options = [text for kind, size in sizes.items() for text in (f"--{kind.replace('_', '-')}", str(size))]
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder, serving("--seed", "42", *options) as remote:
        remote.advance(3600)  # no record is so recent that the second run requests it again
        project = Project(Path(folder) / "project", remote)

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
        print(f"3. 1 % changed:      {changed} changes, {sum(third.written.values())} rows written in {seconds:.1f} s, "
              f"exit {third.code}; {len(problems)} differences")  # fmt: skip
        wrong += problems
    print("\n".join(wrong[:40]) if wrong else "Every value is the truth.")
    return 1 if wrong else 0


def _timed(project: Project) -> tuple[Ran, float]:
    began = time.monotonic()
    return project.run("sync", "--json"), time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
