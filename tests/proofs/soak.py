"""Proof: night after night in one process, memory, descriptors, tasks, threads and files are constant, no row drifts.

    python -m tests.proofs.soak                    # 100 nights
    python -m tests.proofs.soak --nights 30 --seed 3 --deals 400 --streams    # of all streams

A sandbox in another process is the company. Prints the measurements every ten nights; then for each figure the median
of the last third of the nights, that of the middle third, and the largest allowed difference. What must grow (raw
pages, control.db and the warehouse keep history) may grow by no more a night than before. Ends with 1 if a figure is
too large, a file is left over, or a table differs from the source.
"""

# ruff: noqa: T201 - prints a report

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from tests.support.proof import Proof
from tests.support.soak import KINDS, Soak
from tests.support.truth import COMPARED
from tests.support.world import Project, serving

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.soak import Night


STREAMS = (*KINDS, "pipelines", "stages", "users", "notes", "leads", "files")


class Figure(Struct, frozen=True):
    """A measured figure, and by how much the last third may exceed the middle third, in its unit or as a share."""

    name: str
    share: float = 0.0
    slack: float = 0.0
    grows: bool = False  # its growth per night is compared


FIGURES = (
    Figure("rss_mb", share=0.05, slack=8),
    Figure("descriptors"),
    Figure("threads"),
    Figure("tasks"),
    Figure("wal_mb"),
    Figure("control_mb", share=0.5, slack=0.01, grows=True),
    Figure("raw_mb", share=0.5, slack=0.05, grows=True),
    Figure("warehouse_mb", share=0.5, slack=0.3, grows=True),
    Figure("cpu_s", share=0.5, slack=0.5),
)


def compare_thirds(nights: Sequence[Night]) -> list[tuple[str, float, float, float]]:
    """By figure: its value in the middle third, in the last third, and the most that this may be."""
    third = len(nights) // 3
    results = []
    for figure in FIGURES:
        values = [float(getattr(night, figure.name)) for night in nights]
        if figure.grows:
            step = max(third, 1)
            middle = (values[2 * third - 1] - values[third - 1]) / step
            last = (values[-1] - values[-1 - step]) / step
        else:
            middle, last = median(values[third : 2 * third] or values), median(values[-third:] or values)
        name = f"{figure.name} a night" if figure.grows else figure.name
        # What shrank may stay as it is: a file's size goes up and down from night to night.
        results.append((name, middle, last, max(middle, 0.0) * (1 + figure.share) + figure.slack))
    return results


def main() -> int:
    proof = Proof("tests.proofs.soak", __doc__, title="Soak")
    parser = proof.parser
    parser.add_argument("--nights", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--deals", type=int, default=200)
    parser.add_argument("--streams", nargs="*", default=STREAMS, help="none: all of them")
    options = proof.options()
    names = [figure.name for figure in FIGURES] + ["rows"]
    print("night" + "".join(f"{name:>13}" for name in names) + "  leftovers", flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving("--deals", str(options.deals), "--seed", str(options.seed)) as remote,
    ):
        soak = Soak(remote, Project(Path(folder) / "project", remote), options.seed, tuple(options.streams))
        for number in range(1, options.nights + 1):
            soak.night()
            if number % 10 == 0 or number == 1:
                figures = (float(getattr(soak.nights[-1], name)) for name in names)
                shown = "".join(f"{figure:13,.2f}".replace(".00", "   ") for figure in figures)
                print(f"{number:5}{shown}  {len(soak.nights[-1].leftovers)}", flush=True)
        drift = soak.drift()
    leftovers = sorted({name for night in soak.nights for name in night.leftovers})
    wrong = [f"left over: {name}" for name in leftovers] + [f"drift: {what}" for what in drift[:20]]
    thirds = compare_thirds(soak.nights)
    print(f"\n{'figure':22}{'middle third':>14}{'last third':>14}{'at most':>14}")
    for name, middle, last, most in thirds:
        holds = last <= most
        print(f"{name:22}{middle:14.3f}{last:14.3f}{most:14.3f}  {'flat' if holds else 'GROWS'}")
        if not holds:
            wrong.append(f"{name} grows")
    for what in wrong:
        print(f"WRONG: {what}")
    print(f"{len(soak.nights)} nights, {soak.repaired} differences repaired, {len(drift)} left; --seed {options.seed}")
    counts = {
        "nights": len(soak.nights), "differences repaired": soak.repaired, "differences left": len(drift),
        "files left over": len(leftovers), "figures that grow": sum(last > most for _, _, last, most in thirds),
        "rows read": sum(night.rows for night in soak.nights), **COMPARED,
    }  # fmt: skip
    rows: list[Any] = [[name, middle, last, most] for name, middle, last, most in thirds]
    columns: list[Any] = ["figure", "middle third", "last third", "at most"]
    table = {"columns": columns, "rows": rows}
    return proof.end(passed=not wrong, seeds=[options.seed], counts=counts, table=table)


if __name__ == "__main__":
    sys.exit(main())
