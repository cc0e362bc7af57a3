"""The programs that are compared. Each runs in a folder of its own, an empty one by default; its rows are counted."""

from __future__ import annotations

import compileall
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmarks.company import write_listings
from benchmarks.measure import BenchmarkError, Usage, clean_env, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.company import Company

Loader = Literal["parquet", "default"]
Strategy = Literal["append", "delete-insert", "upsert"]

HERE = Path(__file__).resolve().parent
CACHE = Path.home() / ".cache" / "pdsync-bench"  # dlt's environments between runs
FILE_ROWS = 50_000  # large enough to be fast, small enough for each worker to get some


@dataclass(frozen=True)
class Changes:
    """What happened to the records of a company after a time."""

    since: datetime
    rows: dict[str, int]  # added or updated, by stream

    @property
    def total(self) -> int:
        """Of all streams."""
        return sum(self.rows.values())


def download(company: Company, since: datetime | None = None) -> tuple[Usage, int]:
    """Fetch everything, or what changed since a time, and store nothing. Returns the usage and the number of bytes.

    Raises:
        BenchmarkError: it failed, or the lists do not show as many rows as the sandbox has.
    """
    with tempfile.TemporaryDirectory(prefix="pdsync-bench-") as name:
        folder = Path(name)
        write_listings(company.rows, folder / "lists.json", since)
        usage = run([sys.executable, str(HERE / "download.py"), "lists.json"], env=_env(company), folder=folder)
        totals = json.loads((folder / "output.log").read_text())
    if since is None and totals["rows"] != company.total:
        raise BenchmarkError(f"The lists showed {totals['rows']:,} rows; the sandbox says {company.total:,}.")
    return usage, int(totals["bytes"])


def pdsync(company: Company, folder: Path | None = None, changes: Changes | None = None) -> Usage:
    """`pdsync sync` into the project in `folder`, or into an empty one.

    Args:
        changes: what the tables must show after it, besides as many rows as are listed.

    Raises:
        BenchmarkError: it failed, or a table differs from the sandbox's lists.
    """
    with _folder(folder) as project:
        env = _env(company) | {"PDSYNC_BURST": "0", "PDSYNC_DAILY_TOKENS": "0"}
        # All files of a project are below the folder, so no file of the user is read or written.
        command = [sys.executable, "-m", "pdsync", "--project", str(project), "--no-input", "sync", *company.rows]
        usage = run(command, env=env, folder=project)
        _verify(sys.executable, project / "data" / "warehouse.duckdb", "main", company, changes)
    return usage


def dlt(
    company: Company,
    loader: Loader,
    cache: Path,
    workers: int,
    *,
    folder: Path | None = None,
    strategy: Strategy = "append",
    since: datetime | None = None,
    changes: Changes | None = None,
) -> Usage:
    """dlt's REST API source, with its fastest loader or with its default one, into the file in `folder` or a new one.

    Args:
        cache: folder for dlt's environments between runs.
        workers: processes that normalise, for the fastest; dlt's default is one.
        strategy: how rows with the same id are merged; "append": not at all.
        since: read only what changed since this time.
        changes: what the tables must show after it, besides as many rows as are listed.

    Raises:
        BenchmarkError: it failed, or a table differs from the sandbox's lists.
    """
    python = str(dlt_python(loader, cache))
    settings = {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "CRITICAL"}
    if loader == "parquet":
        settings |= {
            "NORMALIZE__WORKERS": str(workers),
            "DATA_WRITER__FILE_MAX_ITEMS": str(FILE_ROWS),
            "DATA_WRITER__DISABLE_COMPRESSION": "true",
        }
    with _folder(folder) as place:
        write_listings(company.rows, place / "lists.json", since)
        command = [python, str(HERE / "dlt_pipeline.py"), "lists.json", "warehouse.duckdb", loader, strategy]
        usage = run(command, env=_env(company) | settings | {"DLT_DATA_DIR": str(place / "dlt")}, folder=place)
        _verify(python, place / "warehouse.duckdb", "pipedrive", company, changes)
    return usage


def prepare(cache: Path, *loaders: Loader) -> None:
    """Compile pdsync and install dlt where that was not done yet, as after an ordinary installation."""
    compileall.compile_dir(str(HERE.parent / "pdsync"), quiet=2)
    for loader in loaders:
        dlt_python(loader, cache)


def dlt_python(loader: Loader, cache: Path) -> Path:
    """The Python of dlt's environment, which is made if there is none for these pins."""
    required = pins_file(loader).read_bytes()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache / f"dlt-{loader}-py{version}-{hashlib.sha256(required).hexdigest()[:10]}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        cache.mkdir(parents=True, exist_ok=True)
        print(f"Installing dlt into {folder} …", file=sys.stderr)
        _do([sys.executable, "-m", "venv", "--clear", str(folder)])
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        _do([*pip, "-r", str(pins_file(loader))])
        ready.touch()
    return python


def pins_file(loader: Loader) -> Path:
    """The requirements of dlt's environment."""
    return HERE / f"dlt-{loader}.txt"


def pins(loader: Loader) -> dict[str, str]:
    """The pinned versions of dlt's environment, by package."""
    lines = [line for line in pins_file(loader).read_text().splitlines() if "==" in line]
    return {name.partition("[")[0]: version for name, _, version in (line.partition("==") for line in lines)}


def _env(company: Company) -> dict[str, str]:
    return clean_env(PDSYNC_BASE_URL=company.url, PDSYNC_API_TOKEN=company.token)


@contextlib.contextmanager
def _folder(folder: Path | None) -> Iterator[Path]:
    """`folder`, or a temporary one."""
    if folder:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="pdsync-bench-") as name:
        yield Path(name)


def _verify(python: str, file: Path, schema: str, company: Company, changes: Changes | None) -> None:
    """Compare the tables with the sandbox's counts: rows, ids, and rows that changed."""
    since = (changes.since if changes else datetime.now(UTC)).isoformat()
    counted = json.loads(_do([python, str(HERE / "counts.py"), str(file), schema, since, *company.rows]))
    for stream, listed in company.rows.items():
        rows, ids, changed = counted[stream]
        if (rows, ids) != (listed, listed):
            raise BenchmarkError(f"{stream}: {rows:,} rows with {ids:,} ids; the sandbox lists {listed:,}.")
        if changes and changed != changes.rows[stream]:
            raise BenchmarkError(f"{stream}: {changed:,} rows changed; the sandbox changed {changes.rows[stream]:,}.")


def _do(command: list[str]) -> str:
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(command[:4])} … ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
