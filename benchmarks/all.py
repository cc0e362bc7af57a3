"""Measures everything that docs/performance.md shows, then writes the page. About an hour on two idle cores.

    pip install -e '.[benchmarks]'
    python -m benchmarks.all                          # full sizes, medians of three
    python -m benchmarks.all --scale 0.02 --repeat 1  # a try: it replaces the results too
    python -m benchmarks.all --only night

Each benchmark is a process of its own and begins when the machine is quiet. The results of one that fails stay as they
were.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from benchmarks import contestants, page
from benchmarks.record import RESULTS, ROOT

SYNC_ROWS, NIGHT_ROWS = (200_000, 679_000, 2_000_000), 1_000_000
_QUIET, _WAIT_S = 0.3, 300  # processes that want a core; how long to wait for no more than that


def commands(scale: float, repeat: int) -> dict[str, list[str]]:
    """The options of each benchmark, `scale` times the full size."""
    rows = [str(int(rows * scale)) for rows in SYNC_ROWS]
    shared = ["--repeat", str(repeat), "--json"]
    options = {
        "sync": ["--rows", *rows, *shared],
        "limits": [*(["--scale", str(scale)] if scale != 1 else []), *shared],
        "night": ["--rows", str(int(NIGHT_ROWS * scale)), *shared],
    }
    results = RESULTS.relative_to(ROOT)
    return {name: [*parts, str(results / f"{name}.json")] for name, parts in options.items()}


def main() -> int:
    """Run them in turn. Returns 1 if one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--scale", type=float, default=1.0, help="times as many records")
    parser.add_argument("--repeat", type=int, default=3, help="the number of rounds; medians are shown")
    parser.add_argument("--only", nargs="+", choices=list(commands(1, 1)), help="these benchmarks")
    parser.add_argument("--wait", action=argparse.BooleanOptionalAction, default=True, help="for a quiet machine")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    contestants.prepare(contestants.CACHE, "parquet", "default")  # an installation would disturb what comes next
    failed = []
    for name, arguments in commands(options.scale, options.repeat).items():
        if options.only and name not in options.only:
            continue
        if options.wait:
            _wait()
        command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
        print(f"\n{' '.join(command[1:])}", file=sys.stderr, flush=True)
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
    page.write(page.load())
    if failed:
        print(f"Failed: {', '.join(failed)}.", file=sys.stderr)
    return int(bool(failed))


def _wait() -> None:
    """Wait until the machine is quiet, or for five minutes."""
    until = time.monotonic() + _WAIT_S
    while os.getloadavg()[0] > _QUIET and time.monotonic() < until:
        time.sleep(5)


if __name__ == "__main__":
    sys.exit(main())
