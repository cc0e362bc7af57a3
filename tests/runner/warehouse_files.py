"""Warehouse files that are made of a few walks."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from pdsync.core import catalogue
from pdsync.model import Page, Walk
from pdsync.runner.loader import Loader
from tests.writeback.kit import COMPANY

if TYPE_CHECKING:
    from pathlib import Path

T0 = datetime(2026, 11, 22, 12, tzinfo=UTC)


def load(path: Path, *walks: tuple[int, list[int]]) -> Path:
    """Load walks, each with the deals of these ids, into the file at `path`."""
    loader = Loader(path)
    loader.open(COMPANY, "Acme")
    for number, ids in walks:
        walk = Walk(number, f"run-{number}", "deals", "live", "v2", "getDeals", None, T0)
        body = msgspec.json.encode({"data": [{"id": each, "title": f"deal {each}"} for each in ids]})
        asyncio.run(loader.add(catalogue.stream("deals"), walk, [Page(number, 0, body, len(ids), None, T0)]))
    asyncio.run(loader.close())
    return path
