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
from typing import TYPE_CHECKING, Any

from benchmarks import contestants
from benchmarks.company import SEED
from pdsync.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    found = surroundings(f"benchmarks.{name}")
    found["versions"] = {
        **found["versions"],
        "dlt_parquet": contestants.pins("parquet"),
        "dlt_default": contestants.pins("default"),
    }
    write(path, found | {"seed": SEED} | figures)


def write(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as JSON to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(content), indent=1) + "\n", encoding="utf-8")


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


def surroundings(module: str, code: Sequence[str] = ("pdsync", "schemas", "benchmarks/*.py")) -> dict[str, Any]:
    """What a reader needs to judge or repeat what `python -m module` has measured by means of `code`."""
    options = [_without_folder(option) for option in sys.argv[1:]]
    return {
        "command": shlex.join(["python", "-m", module, *options]),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short=10", "HEAD") or None,
        "is_modified": bool(_git("status", "--porcelain", "--", *code)),
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
        },
    }


def _without_folder(option: str) -> str:
    """An option of the command line; of a path that leads out of the current folder only the last part."""
    name, equals, value = option.partition("=") if option.startswith("-") else ("", "", option)
    path = Path(value)
    leads_out = path.is_absolute() or ".." in path.parts or value.startswith("~")
    return f"{name}{equals}{path.name if leads_out else value}"


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
