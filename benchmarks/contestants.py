"""The programs that are compared. Each runs in an empty folder; its rows are counted, then the folder is deleted."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmarks.company import write_listings
from benchmarks.measure import BenchmarkError, Usage, clean_env, run

if TYPE_CHECKING:
    from benchmarks.company import Company

Loader = Literal["parquet", "default"]

HERE = Path(__file__).resolve().parent
FILE_ROWS = 50_000  # large enough to be fast, small enough for each worker to get some


def download(company: Company) -> tuple[Usage, int]:
    """Fetch everything and store nothing. Returns the number of bytes."""
    with tempfile.TemporaryDirectory(prefix="pdsync-bench-") as name:
        folder = Path(name)
        write_listings(company.rows, folder / "lists.json")
        usage = run([sys.executable, str(HERE / "download.py"), "lists.json"], env=_env(company), folder=folder)
        totals = json.loads((folder / "output.log").read_text())
    if totals["rows"] != company.total:
        raise BenchmarkError(f"The lists showed {totals['rows']:,} rows; the sandbox says {company.total:,}.")
    return usage, int(totals["bytes"])


def pdsync(company: Company) -> Usage:
    """`pdsync sync` into an empty project."""
    with tempfile.TemporaryDirectory(prefix="pdsync-bench-") as name:
        folder = Path(name)
        env = _env(company) | {"PDSYNC_BURST": "0", "PDSYNC_DAILY_TOKENS": "0"}
        # All files of a project are below the folder, so no file of the user is read or written.
        command = [sys.executable, "-m", "pdsync", "--project", name, "--no-input", "sync", *company.rows]
        usage = run(command, env=env, folder=folder)
        _verify(sys.executable, folder / "data" / "warehouse.duckdb", "main", company)
    return usage


def dlt(company: Company, loader: Loader, cache: Path, workers: int) -> Usage:
    """dlt's REST API source, with its fastest loader or with its default one.

    Args:
        cache: folder for dlt's environments between runs.
        workers: processes that normalise, for the fastest; dlt's default is one.
    """
    python = str(dlt_python(loader, cache))
    settings = {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "CRITICAL"}
    if loader == "parquet":
        settings |= {
            "NORMALIZE__WORKERS": str(workers),
            "DATA_WRITER__FILE_MAX_ITEMS": str(FILE_ROWS),
            "DATA_WRITER__DISABLE_COMPRESSION": "true",
        }
    with tempfile.TemporaryDirectory(prefix="pdsync-bench-") as name:
        folder = Path(name)
        write_listings(company.rows, folder / "lists.json")
        command = [python, str(HERE / "dlt_pipeline.py"), "lists.json", "warehouse.duckdb", loader]
        usage = run(command, env=_env(company) | settings | {"DLT_DATA_DIR": str(folder / "dlt")}, folder=folder)
        _verify(python, folder / "warehouse.duckdb", "pipedrive", company)
    return usage


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


def _verify(python: str, file: Path, schema: str, company: Company) -> None:
    """Compare the tables with the sandbox's counts: as many rows, and as many ids."""
    counted = json.loads(_do([python, str(HERE / "counts.py"), str(file), schema, *company.rows]))
    for stream, listed in company.rows.items():
        if counted[stream] != [listed, listed]:
            rows, ids = counted[stream]
            raise BenchmarkError(f"{stream}: {rows:,} rows with {ids:,} ids; the sandbox lists {listed:,}.")


def _do(command: list[str]) -> str:
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(command[:4])} … ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
