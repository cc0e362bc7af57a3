"""Walks whose pages are sealed in a raw archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.extract.raw_archive import Archive
from pdsync.model import Page, Walk

from .conftest import NOW

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.core.control import Control, SealedPage


def begin(control: Control) -> Walk:
    return control.open_walk("run", "deals", "all", "v2", "getDeals", None)


def page_of(walk: Walk, seq: int, body: bytes, *, last: bool = False) -> Page:
    return Page(walk.id, seq, body, 1, None if last else f"cursor-{seq}", NOW, f"cursor-{seq - 1}" if seq else None)


async def seal_all(control: Control, folder: Path, bodies: list[bytes]) -> tuple[Walk, list[SealedPage]]:
    walk = begin(control)
    async with Archive(folder, control, "run", 42) as archive:
        for seq, body in enumerate(bodies):
            await archive.seal(walk, page_of(walk, seq, body, last=seq == len(bodies) - 1))
    return walk, control.sealed_pages(walk.id)
