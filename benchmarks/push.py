"""Measures a push of many updates: its time compared with what the rate limit allows, and its memory.

    python -m benchmarks.push                              # 10,000 updates at 120 requests in 2 s: minutes
    python -m benchmarks.push --updates 1000 --burst 40

The sandbox runs in another process and answers after `--latency` ms. The figure is seconds of sending divided by
(requests ÷ limit): 1.0 is the best that the limit allows. Memory is that of the pushing process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from tests.support.world import Project, serving


def main() -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/push.py", description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--burst", type=int, default=120, help="requests in any 2 s")
    parser.add_argument("--latency", type=int, default=30, help="ms")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving("--deals", str(options.updates * 6 // 5)) as remote:
        project = Project(Path(folder) / "project", remote)
        ids = [entry["id"] for entry in remote.dump("deals") if entry["state"] == "live"][: options.updates]
        rows = Path(folder) / "rows.ndjson"
        rows.write_text("".join(json.dumps({"id": id, "title": f"pushed {id}"}) + "\n" for id in ids), encoding="utf-8")
        queued = project.here("queue", "import", str(rows), "--operation", "updateDeal", "-q")
        assert queued.code == 0, queued
        remote.post("limits", burst=options.burst)
        remote.fault(kind="latency", ms=options.latency)
        remote.clear_log()
        project.configure(burst=options.burst)
        began = time.monotonic()
        process = project.start("push", "--yes", "--max-changes", str(options.updates), "--json", "-q")
        memory = _watched(process.pid, process)
        out, _ = process.communicate()
        summary = json.loads(out.splitlines()[-1])
        log = remote.log()
        sent = [entry["monotonic_s"] for entry in log]
        seconds, best = max(sent) - min(sent), len(log) * 2 / options.burst
        window = remote.window()
        thirds = [memory[len(memory) * n // 3 : len(memory) * (n + 1) // 3] or memory for n in range(3)]
        print(f"{summary['mutations']} in {time.monotonic() - began:.0f} s, {len(log):,} requests in {seconds:.1f} s")
        print(f"seconds ÷ (requests ÷ limit) = {seconds / best:.3f}")
        print(f"429s: {window['count_429']}   most in 2 s: {window['max']}")
        results = ", ".join(f"{statistics.median(third) / 2**20:.0f}" for third in thirds)
        print(f"memory in each third, MiB: {results}; at most {max(memory) / 2**20:.0f}")
    return 0


def _watched(pid: int, process: object) -> list[int]:
    """The memory of a process in bytes, measured twice a second; a thread adds to the list while the process runs."""
    samples: list[int] = []

    def watch() -> None:
        try:
            one = psutil.Process(pid)
            while one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                samples.append(one.memory_info().rss)
                time.sleep(0.5)
        except psutil.Error:
            return

    threading.Thread(target=watch, daemon=True).start()
    return samples


if __name__ == "__main__":
    sys.exit(main())
