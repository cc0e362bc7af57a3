"""Serves a generated company in another process, without limits, and lists what to read from it.

The lists and their parameters are those that pdsync requests on a first sync, so that every contestant sends the
same requests: deals come from two lists (the archived ones have their own), the others from one each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from benchmarks.measure import TAIL_CHARS, BenchmarkError, clean_env, stop
from pdsync.core import catalogue
from pdsync.extract.pages import query_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

SHARES = {"deals": 250, "persons": 150, "organizations": 50, "activities": 200, "products": 29}
SEED = 1  # of the sandbox
UNREAD = ("files", "mail_threads")  # not read here, so not generated
# States of records that a list shows.
LISTED = {"deals": ("live", "archived", "deleted")}


@dataclass(frozen=True)
class Listing:
    """One list operation, and the stream that its records belong to."""

    stream: str
    name: str
    path: str
    query: dict[str, str]


@dataclass(frozen=True)
class Company:
    """A company that is being served."""

    url: str
    token: str
    rows: dict[str, int]  # records in its lists, by stream

    @property
    def total(self) -> int:
        """The rows of all streams."""
        return sum(self.rows.values())


def sizes(total: int) -> dict[str, int]:
    """`total` records in the proportions of SHARES."""
    counts = {stream: total * share // sum(SHARES.values()) for stream, share in SHARES.items()}
    counts["deals"] += total - sum(counts.values())
    return counts


def listings(streams: Mapping[str, int], since: datetime | None = None) -> list[Listing]:
    """The lists that pdsync reads when it syncs `streams`: all records, or those that changed since a time."""
    result = []
    for name in streams:
        stream = catalogue.stream(name)
        version, sources = stream.sources("v2")
        for source in sources:
            operation = catalogue.operations(version)[source.operation]
            query = query_of(stream, source, version, operation, since)
            result.append(Listing(name, f"{name}_{source.name}", operation.path, query))
    return result


def write_listings(streams: Mapping[str, int], path: Path, since: datetime | None = None) -> None:
    """Put the lists into a JSON file, for programs that can't import pdsync."""
    path.write_text(json.dumps([asdict(listing) for listing in listings(streams, since)]))


@contextmanager
def served(records: Mapping[str, int], folder: Path) -> Iterator[Company]:
    """A company of `records`, served until the block ends. A million records take minutes to make.

    Raises:
        BenchmarkError: the sandbox did not start; the message has its output.
    """
    wanted = {**dict.fromkeys((*SHARES, *UNREAD), 0), **records}
    counts = [part for kind, count in wanted.items() for part in (f"--{kind.replace('_', '-')}", str(count))]
    limits = ["--port", "0", "--burst", "0", "--daily-tokens", "0", "--seed", str(SEED)]
    errors = folder / "sandbox.log"
    with errors.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "pdsync", "sandbox", "serve", *limits, *counts, "--json"],
            env=clean_env(),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            ready = json.loads(line) if line.startswith(b"{") else {}
            if ready.get("event") != "ready":
                error_text = line.decode(errors="replace") + errors.read_text(errors="replace")
                raise BenchmarkError(f"The sandbox did not start:\n{error_text[-TAIL_CHARS:]}")
            yield Company(ready["url"], ready["token"], listed(ready["url"], records))
        finally:
            stop(process)
            if process.stdout is not None:
                process.stdout.close()


def listed(url: str, streams: Mapping[str, int]) -> dict[str, int]:
    """The number of rows in the lists of `streams`, by the sandbox's own count."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"{url}/_admin/summary", timeout=60) as answer:
        counts = json.load(answer)["counts"]
    return {stream: sum(counts[stream][state] for state in LISTED.get(stream, ("live",))) for stream in streams}
