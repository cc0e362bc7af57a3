"""Fetches every page of the lists and discards it: the least that any sync must do, at the sandbox's speed.

The lists are read concurrently, as pdsync reads them. Prints the number of bytes, pages and rows as JSON.

    PDSYNC_BASE_URL=… PDSYNC_API_TOKEN=… python download.py LISTS.json
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import aiohttp
import msgspec


class Additional(msgspec.Struct):
    """The paging of a list."""

    next_cursor: str | None = None


class Answer(msgspec.Struct):
    """A page; its records are not parsed."""

    data: list[msgspec.Raw]
    additional_data: Additional | None = None


async def fetch_all(session: aiohttp.ClientSession, path: str, query: dict[str, str]) -> tuple[int, int, int]:
    """Bytes, pages and rows of one list."""
    size = pages = rows = 0
    cursor: str | None = None
    while pages == 0 or cursor:
        async with session.get(path, params={**query, **({"cursor": cursor} if cursor else {})}) as response:
            response.raise_for_status()
            body = await response.read()
        answer = msgspec.json.decode(body, type=Answer)
        cursor = answer.additional_data.next_cursor if answer.additional_data else None
        size, pages, rows = size + len(body), pages + 1, rows + len(answer.data)
    return size, pages, rows


async def main(listings: list[dict[str, Any]]) -> None:
    """Fetch all lists and print the totals."""
    headers = {"x-api-token": os.environ["PDSYNC_API_TOKEN"]}
    async with aiohttp.ClientSession(os.environ["PDSYNC_BASE_URL"], headers=headers) as session:
        totals = await asyncio.gather(*(fetch_all(session, each["path"], each["query"]) for each in listings))
    size, pages, rows = (sum(figures) for figures in zip(*totals, strict=True))
    print(json.dumps({"bytes": size, "pages": pages, "rows": rows}))


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
