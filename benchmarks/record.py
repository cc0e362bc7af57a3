"""Writes the figures of a benchmark as JSON, with what a reader needs to judge or repeat them.

    record.save(Path("benchmarks/results/sync.json"), "sync", {"sizes": […]})

A file says what ran (command, commit, versions, seed), where (cores, memory, processor) and when, and how much of the
machine other programs used meanwhile: seconds that were measured beside them compare nothing. It has no name of a host,
a person or a folder. Import this module before anything is measured.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import contestants
from benchmarks.company import SEED
from pdsync.version import __version__

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_GIB = 1024**3


def _busy_s() -> float | None:
    """Processor time that all programs of the machine used since it started, that of its host too; Linux only."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """Processor time of this program and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


_BEGAN, _BUSY, _OWN = time.monotonic(), _busy_s(), _own_s()


def save(path: Path, name: str, figures: dict[str, object]) -> None:
    """Write `figures` of the benchmark `name` and their surroundings to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(_surroundings(name) | figures), indent=1) + "\n", encoding="utf-8")


def used_by_others() -> float | None:
    """The share of the machine's processor time that other programs used since the import; None if that is unknown."""
    busy = _busy_s()
    if busy is None or _BUSY is None:
        return None
    capacity = (time.monotonic() - _BEGAN) * (os.cpu_count() or 1)
    return max(busy - _BUSY - (_own_s() - _OWN), 0.0) / capacity


def _rounded(value: object) -> object:
    """Figures with four digits after the point: more mean nothing."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value


def _surroundings(name: str) -> dict[str, object]:
    options = [_without_folder(option) for option in sys.argv[1:]]
    return {
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *options]),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short=10", "HEAD") or None,
        "is_modified": bool(_git("status", "--porcelain", "--", "pdsync", "schemas", "benchmarks/*.py")),
        "seed": SEED,
        "machine": {
            "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB, 1),
            "processor": _processor(),
            "system": f"{platform.system()} {platform.machine()}",
            "used_by_others": used_by_others(),
        },
        "versions": {
            "pdsync": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("duckdb", "pyarrow", "aiohttp", "msgspec")},
            "dlt_parquet": contestants.pins("parquet"),
            "dlt_default": contestants.pins("default"),
        },
    }


def _without_folder(option: str) -> str:
    """An option of the command line; of an absolute path only the last part."""
    return Path(option).name if Path(option).is_absolute() else option


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    """The processor's model."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
