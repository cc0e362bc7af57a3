"""Proof: the cost of a night is what `plan` estimates, stream by stream.

    python -m tests.proofs.nightly                # 40,000 deals, 1 % changed each night
    python -m tests.proofs.nightly --deals 2000

A sandbox in another process is the remote side, with its own costs. After a first sync and a night of changes, each
further night is planned, then run; the tokens in the sandbox's log are compared with the plan. Ends with 1 where the
estimate of a stream, or of the night, is off by more than 10 % (or one request).
"""

# ruff: noqa: T201 - prints a report

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.proof import Proof
from tests.support.world import Project, serving

if TYPE_CHECKING:
    from tests.support.world import Remote

MOST_OFF = 0.10
NIGHTS = 2
SEED = 8


def nights(remote: Remote, folder: Path, *streams: str, count: int = NIGHTS) -> list[tuple[str, int, int, int]]:
    """Per night and stream: its name, the tokens planned, those that the log charged, and those of one request."""
    project = Project(folder, remote).configure(verify_cycle=0)  # no list takes turns
    first = project.run("sync", *streams, "--json")
    assert first.code == 0, first
    results = []
    for night in range(count + 1):
        remote.advance(24 * 3600)
        remote.change(0.01)
        remote.advance(3600)
        plan = project.run("plan", *streams, "--json")
        planned: Counter[str] = Counter()
        dearest: dict[str, int] = {}
        for line in plan.events[:-1]:
            if not line.get("optional") and line["way"] != "verify":  # not of one stream
                planned[line["name"]] += line["tokens"]
                dearest[line["name"]] = max(dearest.get(line["name"], 0), line["tokens"] // max(line["requests"], 1))
        remote.clear_log()
        ran = project.run("sync", *streams, "--json")
        assert ran.code == 0, ran
        charged = sum(entry["cost"] for entry in remote.log())
        spent = {name: stream["tokens"] for name, stream in ran.summary["streams"].items()}
        if night == 0:
            continue  # there is no estimate before the first night
        results += [(name, planned[name], spent[name], dearest.get(name, 0)) for name in spent]
        results.append(("all of it", plan.events[-1]["tokens"], charged, 20))
    return results


def off(planned: int, spent: int, request: int) -> bool:
    """Whether an estimate is further from the truth than it may be."""
    return abs(planned - spent) > max(MOST_OFF * spent, request)


def main() -> int:
    proof = Proof("tests.proofs.nightly", __doc__, title="Costs of a night")
    proof.parser.add_argument("--deals", type=int, default=40_000)
    options = proof.options()
    with tempfile.TemporaryDirectory() as folder, serving("--deals", str(options.deals), "--seed", str(SEED)) as remote:
        results = nights(remote, Path(folder) / "project")
    for name, planned, spent, request in results:
        print(f"{'✗' if off(planned, spent, request) else ' '} {name:30} planned {planned:6,}  spent {spent:6,}")
    wrong = sum(off(*figures) for _, *figures in results)
    whole = [(planned, spent) for name, planned, spent, _ in results if name == "all of it"]
    counts = {
        "nights": len(whole), "estimates compared": len(results), "estimates that are off": wrong,
        "tokens planned": sum(planned for planned, _ in whole), "tokens spent": sum(spent for _, spent in whole),
    }  # fmt: skip
    return proof.end(passed=not wrong, seeds=[SEED], counts=counts)


if __name__ == "__main__":
    sys.exit(main())
