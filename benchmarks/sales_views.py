"""How long the sales views take on a large company, and what keeping their stored rows costs a night.

    python benchmarks/sales_views.py                   # 1,000,000 deals, a fifth of them with recorded changes
    python benchmarks/sales_views.py --deals 100000

The company is the one of tests/proofs/sales.py, copied until it is large enough: of ten deals one has a changelog, one
a version for each change, the others only their present row. Each view is read once, into a temporary table. At last
`pdsync report` runs on the published warehouse, as a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # the company is one of the tests'

from pdsync.core import catalogue
from pdsync.core.config import load
from pdsync.core.views import views
from pdsync.load import publish
from pdsync.runner import project
from pdsync.runner.loader import Loader
from tests.proofs import sales

if TYPE_CHECKING:
    from collections.abc import Callable

_LIVES = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deals", type=int, default=1_000_000)
    deals = parser.parse_args().deals
    with tempfile.TemporaryDirectory() as folder:
        settings = load(Path(folder))
        settings.state.mkdir()
        loader = Loader(project.work_path(settings))
        loader.open(1, "Benchmark")
        make(loader, deals)
        timed("first: all stored rows", loader.create_views)
        timed("again: nothing changed", loader.create_views)
        loader.connection.execute(
            "UPDATE main.deals SET value = value + 1, _valid_from = _valid_from + INTERVAL 1 SECOND WHERE id % 100 = 1"
        )
        timed("again: 1 % changed", loader.create_views)
        loader.connection.execute("RESET threads")  # the loader has half of them, readers have all
        total = 0.0
        for view in views().values():
            if view.question and not view.parameters:
                total += timed(view.name, partial(read, loader, view.name))
        print(f"{'all views':36} {total:8.2f} s")
        asyncio.run(loader.close())
        publish.publish(project.work_path(settings), settings.warehouse)
        timed("pdsync report", partial(report, settings.project))
        print(f"{'its size':36} {(settings.state / 'report.html').stat().st_size / 1024:8.0f} KB")


def make(loader: Loader, deals: int) -> None:
    """Fill the tables: lives made in Python, copied under further ids."""
    rng = random.Random(1)
    lives = [sales.live(rng, id) for id in range(1, min(_LIVES, deals) + 1)]
    for number, life in enumerate(lives):
        life.known_from = {0: "changelog", 1: "history"}.get(number % 10, "single")
    for stream in catalogue.streams().values():  # the other tables are empty
        loader.table(stream, "v2")
    sales.fill(loader, lives)
    connection = loader.connection
    for table, key in (("main.deals", "id"), ("versions.deals", "id"), ("main.deal_changelog", "deal_id")):
        connection.execute(
            f"INSERT INTO {table} SELECT t.* REPLACE (t.{key} + n * {len(lives)} AS {key}) FROM {table} t,"
            f" range(1, {max(1, deals // len(lives))}) r(n)"
        )
    connection.execute("CHECKPOINT warehouse")


def read(loader: Loader, view: str) -> None:
    """Compute all rows and columns of a view."""
    loader.connection.execute(f"CREATE OR REPLACE TEMP TABLE answer AS FROM {view}")


def report(folder: Path) -> None:
    """Write the report of the project in `folder`, as a person does."""
    command = [sys.executable, "-m", "pdsync", "--project", str(folder), "report", "-q"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def timed(name: str, work: Callable[[], object]) -> float:
    """Run `work`, print and return its seconds; those of the CPU include the processes that it starts."""
    began, busy = time.perf_counter(), os.times()
    work()
    seconds = time.perf_counter() - began
    cpu = sum(os.times()[:4]) - sum(busy[:4])
    print(f"{name:36} {seconds:8.2f} s {cpu:8.2f} CPU s", flush=True)
    return seconds


if __name__ == "__main__":
    main()
