"""Every record of any list operation, also of those whose records stand one level deeper, each of them once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, Struct

from pdsync.extract.pages import pages
from pdsync.model import Walk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from pdsync.core.http import Answer
    from pdsync.extract.pages import Caller
    from pdsync.model import Operation


class _Outer(Struct, omit_defaults=True):
    data: Raw
    additional_data: Raw = Raw(b"null")


class _Flat:
    """A client whose list answers hold their records right under `data`.

    Searches put them into `data.items`, some lists into another key of `data`: the only one that holds a list.
    """

    def __init__(self, http: Caller) -> None:
        self._http = http

    async def call(self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None) -> Answer:
        answer = await self._http.call(operation, path, query=query)
        try:
            outer = msgspec.json.decode(answer.body, type=_Outer)
            held = msgspec.json.decode(outer.data, type=dict[str, Raw])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return answer  # a list already, or what the walk will tell of
        lists = [value for value in held.values() if bytes(value).lstrip()[:1] == b"["]
        if len(lists) != 1:
            return answer
        flat = msgspec.json.encode(_Outer(lists[0], outer.additional_data))
        return msgspec.structs.replace(answer, body=flat)


async def everything(http: Caller, operation: Operation, path: str, query: Mapping[str, str]) -> AsyncGenerator[Raw]:
    """Every record of a list, as raw JSON. Of the records nothing is kept but a hash, where pages overlap.

    Raises:
        BadAnswer: the list can't be walked to its end.
        PdsyncError: what `http.call` raises.
    """
    walk = Walk(0, "", "", "", operation.version, operation.id, None, None)
    plain = msgspec.structs.replace(operation, path=path, records="list", records_in=None)
    limit = {"limit": str(operation.page_size)} if operation.page_size else {}
    seen = set[bytes]()
    async for page in pages(_Flat(http), plain, walk, {**limit, **query}):
        for record in page.records or ():
            # Pages that count offsets overlap, so that nothing slips through between them.
            if operation.paging == "offset":
                digest = hashlib.blake2b(record, digest_size=16).digest()
                if digest in seen:
                    continue
                seen.add(digest)
            yield record
