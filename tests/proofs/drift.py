"""Proof: reconcile finds every difference, classifies it, repairs it, and reports no others.

    python -m tests.proofs.drift               # 100 of each class in each stream that can have them: some minutes
    python -m tests.proofs.drift --count 20

Makes a company, syncs it, makes it drift (records changed, backdated, deleted, purged, merged, archived at the source;
rows lost, invented and wrongly marked as deleted in the warehouse), reconciles, repairs, and reconciles again; and
reconciles once without differences before. Ends with 1 if a difference was missed, misclassified, invented, or is left.
"""

# ruff: noqa: T201 - prints a report

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.drift import KINDS, Drift
from tests.support.proof import Proof
from tests.support.world import Project

STREAMS = (*KINDS, "pipelines", "users", "stages")


def main() -> int:
    proof = Proof("tests.proofs.drift", __doc__, title="Drift")
    proof.parser.add_argument("--count", type=int, default=100)
    proof.parser.add_argument("--seed", type=int, default=1)
    options = proof.options()
    need = options.count * 13 + 60
    sizes = Sizes(deals=2 * need, persons=2 * need, organizations=2 * need, products=need, activities=need, files=need)
    company = generate_company(seed=options.seed, sizes=sizes, now=datetime.now(UTC))
    wrong: list[str] = []
    free = Limits(burst=None, search_burst=None, daily_tokens=None)
    with tempfile.TemporaryDirectory() as folder, running(company, limits=free) as box:
        project = Project(Path(folder) / "project")
        project.configure(base_url=box.url, api_token=box.token)
        project.here("sync", "-q", *STREAMS)
        box.clock.advance(3600)
        clean = project.here("reconcile", "--json", "--deep")
        wrong += [f"without differences: {event}" for event in clean.events[:-1]]
        drift = Drift(project, box, options.count, options.seed)
        drift.make()
        print("differences made:", ", ".join(f"{count} {kind}" for kind, count in drift.by_class().most_common()))
        by_stream = Counter(stream for stream, _ in drift.expected)
        print("in:", ", ".join(f"{count} {stream}" for stream, count in by_stream.most_common()))
        began = time.monotonic()
        reconciled = project.here("reconcile", "--json", "--exit-code")
        print(f"reconciled in {time.monotonic() - began:.0f} s, {reconciled.summary['requests']:,} requests,"
              f" {reconciled.summary['tokens']:,} tokens")  # fmt: skip
        wrong += drift.wrong(reconciled.events[:-1])
        began = time.monotonic()
        project.here("reconcile", "--json", "--repair", "--deep", "--max-tombstones", "100000")
        print(f"repaired in {time.monotonic() - began:.0f} s")
        remaining = project.here("reconcile", "--json", "--deep", "--exit-code")
        wrong += [f"left after the repair: {event}" for event in remaining.events[:-1]]
    for problem in wrong[:20]:
        print(f"WRONG: {problem}")
    print(f"{len(drift.expected):,} differences, {len(wrong)} wrong")
    counts = {
        **drift.counts, "left after the repair": len(remaining.events) - 1,
        "found where none were planted": len(clean.events) - 1, "streams": len(by_stream),
        "classes": len(drift.by_class()), "requests": reconciled.summary["requests"],
    }  # fmt: skip
    return proof.end(passed=not wrong, seeds=[options.seed], counts=counts)


if __name__ == "__main__":
    sys.exit(main())
