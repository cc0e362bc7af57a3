"""Proof: mutations under random faults and kills are each accounted for, and no effect happens twice.

    python -m tests.proofs.writes                       # 2,000 mutations, 20 kills: some minutes
    python -m tests.proofs.writes --count 300 --seed 7  # fewer, with another seed

Queues updates, additions, deletions and merges of several kinds in one file and pushes them again and again, while the
sandbox resets connections before and after the work, answers 502, 503, 429, 401 or with a web page, cuts bodies and
hangs, and while pushes are killed with SIGKILL. Each mutation has a unique text, so the sandbox's journal shows
how often it took effect. Ends with 1 if one is lost, is still open, or has an effect that its state does not match.
"""

# ruff: noqa: T201 - prints a report

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.support.chaos import FAULTS, WRITES, Batch
from tests.support.proof import Proof
from tests.support.world import Project, serving


def main() -> int:
    proof = Proof("tests.proofs.writes", __doc__, title="Writes")
    parser = proof.parser
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--deals", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = proof.options()
    with tempfile.TemporaryDirectory() as folder, serving("--deals", str(options.deals)) as remote:
        project = Project(Path(folder) / "project", remote)
        project.here("sync", "-q")
        batch = Batch(project, remote, options.count, options.seed)
        batch.queue()
        remote.post("faults", seed=options.seed, faults=[{**fault, "path": WRITES} for fault in FAULTS])
        began = time.monotonic()
        batch.push_to_the_end(kills=options.kills, most=options.kills + 60)
        struck = remote.struck()
        remote.clear_faults()
        wrong = batch.wrong()
        looks = Counter(verdict for (verdict,) in project.control("SELECT verdict FROM probes"))
        closed = Counter(str(how) for (how,) in project.control("SELECT closed_as FROM attempts"))
        seconds = time.monotonic() - began
        print(f"{len(batch.marks):,} mutations in {batch.pushes} pushes, {batch.kills} of them killed; {struck:,}"
              f" faults; {seconds:.0f} s")  # fmt: skip
        states, effects = batch.states(), batch.effects()
        print(f"ended: {_format(states)}")
        print(f"attempts: {_format(closed)}; looks: {_format(looks)}")
    for what in wrong[:20]:
        print(f"WRONG: {what}")
    print(f"{len(wrong)} wrong")
    counts = {
        "mutations": len(batch.marks), "kills": batch.kills, "faults": struck, "applied": states["applied"],
        "lost": len(batch.marks) - sum(states.values()), "doubled": sum(count > 1 for count in effects.values()),
        "wrong": len(wrong), "pushes": batch.pushes,
        **{name.replace("_", " "): count for name, count in states.most_common() if name != "applied"},
        **{f"probes that found: {name}": count for name, count in looks.most_common()},
    }  # fmt: skip
    return proof.end(passed=not wrong, seeds=[options.seed], counts=counts)


def _format(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.most_common())


if __name__ == "__main__":
    sys.exit(main())
