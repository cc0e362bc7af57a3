"""Walks and pages for a control.db."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pdsync.core.control import SealedPage
from pdsync.model import Page

if TYPE_CHECKING:
    from pdsync.core.control import Control
    from pdsync.model import Walk

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def open_walk(control: Control, *, stream: str = "deals", run: str = "run", since: datetime | None = None) -> Walk:
    return control.open_walk(run, stream, "all", "v2", "getDeals", since)


def page(walk: Walk, seq: int, following: str | None, served: float | None = None) -> tuple[Page, SealedPage]:
    """A page with two records, served `served` seconds after NOW, or as many as its number, and where it is sealed."""
    moment = NOW + timedelta(seconds=seq if served is None else served)
    return (
        Page(walk.id, seq, b"{}", 2, following, moment),
        SealedPage(walk.id, seq, "run.zst", 100 * seq, 90, 2, bytes([seq, 0, 255]), following, moment),
    )
