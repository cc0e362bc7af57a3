"""Proof: the tests find planted bugs. Each mutant is applied to a copy of the project, and tests run until one fails.

    python -m tests.proofs.mutants                           # all; hours where a bug is found by the slow tests only
    python -m tests.proofs.mutants --nearest                 # only the tests that should find each one: minutes
    python -m tests.proofs.mutants --nearest 'no overlap'    # mutants whose names contain a text
    python -m tests.proofs.mutants --nearest --json docs/evidence/mutants.json && python -m tests.test_evidence

The tests run in this order: those nearest to the bug, the rest of the suite, the proofs' slices that CI runs. The first
test that fails has found the bug, provided that it passes in a copy without it. Tests that look at the source instead
of at what it does don't count. Seconds are from the start of the first pytest to the failure.

Ends with 1 if a mutant survives, 2 if a test fails without any.
"""

# ruff: noqa: T201 - prints a report

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from tests.mutants.catalogue import MUTANTS
from tests.mutants.edit import ROOT, Mutant
from tests.support.proof import Proof

if TYPE_CHECKING:
    from collections.abc import Sequence

NEAREST, SUITE, SLICE = "nearest test", "suite", "proof's slice"
# They look at the source: an edit of it may break their rules, whatever it does.
_OF_THE_SOURCE = (
    "--ignore=tests/mutants", "--ignore=tests/test_sizes.py", "--ignore=tests/test_evidence.py",
    "--deselect=tests/core/test_sql.py::test_x6_no_statement_is_made_of_text_from_outside",
    "--deselect=tests/core/test_sql.py::test_x6_each_exception_is_still_needed",
)  # fmt: skip
_LEFT_OUT = (".git", ".venv", "venv", ".*_cache", ".hypothesis")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", re.MULTILINE)
_SEED = 0
_TEXT = """\
Each line is a bug that was planted into a copy of the project: one wrong decision of `tests/mutants/catalogue.py`. The
test beside it was the first to fail; it passes without the bug. The seconds are from the start of pytest to that
failure, with one process. A bug that its nearest tests did not find got a test: the table shows that each of these is
found by now, not how many others would be.
"""


class Outcome(Struct, frozen=True):
    """Who found a mutant, after how long."""

    mutant: Mutant
    found_by: str | None
    stage: str | None
    seconds: float


def main() -> int:
    proof = Proof("tests.proofs.mutants", __doc__, title="Planted bugs", text=_TEXT)
    parser = proof.parser
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of names; all mutants without one")
    parser.add_argument("--nearest", action="store_true", help="run only the tests that should find each mutant")
    parser.add_argument("--jobs", type=int, default=1, help="mutants side by side")
    options = proof.options()
    mutants = [each for each in MUTANTS if not options.names or any(name in each.name for name in options.names)]
    for each in mutants:
        each.planted()  # refuses one that does not fit before anything runs
    stages = _stages(nearest_only=options.nearest)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        clean = copy_project(ROOT, Path(folder) / "clean")  # the project may be edited meanwhile
        outcomes = list(pool.map(lambda each: examine(each, clean, stages), mutants))
        finders = dict.fromkeys(each.found_by for each in outcomes if each.found_by)
        if finders and (failing := _first_failure(clean, ("-m", "", *finders))):
            print(f"{failing}\nThis test fails without any mutant: correct it first.")
            return 2
    found = sum(each.found_by is not None for each in outcomes)
    print(f"{found} of {len(outcomes)} found in {time.monotonic() - began:,.0f} s")
    return proof.end(passed=found == len(outcomes), seeds=[_SEED], counts=_counts(outcomes), table=_table(outcomes))


def _stages(*, nearest_only: bool) -> list[tuple[str, tuple[str, ...]]]:
    """The stages after the nearest tests, each with its arguments of pytest."""
    return [] if nearest_only else [(SUITE, ("-m", "not proof")), (SLICE, ("-m", "proof"))]


def examine(mutant: Mutant, clean: Path, later: Sequence[tuple[str, tuple[str, ...]]]) -> Outcome:
    """Plant a mutant into a copy of the project, and run tests until one fails.

    Args:
        mutant: to plant.
        clean: a copy of the project without any mutant.
        later: the stages after the nearest tests, each with its arguments of pytest.
    """
    seconds = 0.0
    found_by = stage = None
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_project(clean, Path(folder) / "project")
        mutant.plant(copy)
        for stage, arguments in ((NEAREST, ("-m", "", *mutant.nearest)), *later):  # noqa: B007
            began = time.monotonic()
            found_by = _first_failure(copy, arguments)
            seconds += time.monotonic() - began
            if found_by:
                break
    print(f"{mutant.name}: {f'{found_by}, {seconds:.0f} s' if found_by else 'NOT FOUND'}", flush=True)
    return Outcome(mutant, found_by, stage if found_by else None, seconds)


def _first_failure(copy: Path, arguments: Sequence[str]) -> str | None:
    """The first test that fails in a copy of the project; None if all pass."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "0",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--hypothesis-seed={_SEED}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    ran = subprocess.run(
        [*command, *_OF_THE_SOURCE, *arguments], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    if ran.returncode == 0:
        return None
    failed = _FAILED.search(ran.stdout)
    if failed is None:
        raise RuntimeError(f"pytest ended with {ran.returncode}:\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}")
    return failed[1]


def copy_project(project: Path, folder: Path) -> Path:
    """A copy of the project, without what a person has in it and what can be made again."""
    left_out = shutil.ignore_patterns(*_LEFT_OUT)

    def ignore(parent: str, names: list[str]) -> set[str]:
        return left_out(parent, names) | ({"data"} if Path(parent) == project else set())

    return Path(shutil.copytree(project, folder, ignore=ignore))


def _counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    stages = Counter(each.stage for each in outcomes)
    return {
        "planted": len(outcomes),
        "found": sum(each.found_by is not None for each in outcomes),
        "found by the nearest tests": stages[NEAREST],
        "found by the rest of the suite only": stages[SUITE],
        "found by a proof's slice only": stages[SLICE],
    }


def _table(outcomes: Sequence[Outcome]) -> dict[str, list[Any]]:
    rows = [
        [
            each.mutant.name,
            each.mutant.promises,
            (each.found_by or "").partition("[")[0],
            each.stage or "not found",
            float(each.seconds),
        ]
        for each in outcomes
    ]
    return {"columns": ["bug", "promise", "found by", "in", "seconds"], "rows": rows}


if __name__ == "__main__":
    sys.exit(main())
