"""Every record of a list operation, each once: for callers that want records, and not pages to seal.

Offset pages overlap, so that no record is missed between them, and a record that is edited meanwhile may come twice:
duplicates are recognised by their ids, or by their bytes where records have none.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, Struct

from pdsync.extract.pages import REPEATS, pages
from pdsync.model import Walk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from pdsync.core.answer import Answer
    from pdsync.extract.pages import Caller
    from pdsync.model import Operation


async def records(
    client: Caller, operation: Operation, path: str, query: Mapping[str, str], *, attempts: int = REPEATS
) -> AsyncGenerator[Raw]:
    """Yield every record of a list as raw JSON, from the first page to the last, each once.

    Args:
        client: makes the calls.
        operation: the list operation.
        path: the operation's path with its placeholders filled.
        query: the parameters that every page shares.
        attempts: how often a page is requested whose answer can't be right.

    Raises:
        BadAnswer: the list can't be walked to its end.
        PdsyncError: what `client.call` raises.
    """
    walk = Walk(0, "", "", "", operation.version, operation.id, None, None)
    limit = {"limit": str(operation.page_size)} if operation.page_size and operation.paging != "none" else {}
    # Where the catalogue describes `data`, or it is one record, no list has to be searched.
    is_described = operation.records != "list" or operation.records_in is not None or operation.path.endswith("}")
    seen = set[object]()
    caller = client if is_described else _FlatClient(client)
    async for page in pages(caller, operation, walk, {**limit, **query}, path=path, attempts=attempts):
        for record in page.records or ():
            identity = _identity(record, operation)
            if identity in seen:
                continue
            if identity is not None:
                seen.add(identity)
            yield record


class _Identified(Struct):
    id: int | str
    item: str = ""  # lists of several kinds (recents) name each one's


def _identity(record: Raw, operation: Operation) -> object:
    """What identifies a record in its list; None where two that are alike may be two records."""
    try:
        found = msgspec.json.decode(record, type=_Identified)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # A cursor never returns to earlier records: two changelog entries that are alike are two.
        return hashlib.blake2b(record, digest_size=16).digest() if operation.paging == "offset" else None
    return found.item, found.id


class _Outer(Struct, omit_defaults=True):
    data: Raw
    additional_data: Raw = Raw(b"null")


class _FlatClient:
    """A client whose list answers have their records directly under `data`.

    Searches have them in `data.items`, some lists in another key of `data`: the only one whose value is a list.
    """

    def __init__(self, http: Caller) -> None:
        self._http = http

    async def call(self, operation: Operation, path: str | None = None, *, query: Mapping[str, str] | None) -> Answer:
        answer = await self._http.call(operation, path, query=query)
        try:
            outer = msgspec.json.decode(answer.body, type=_Outer)
            members = msgspec.json.decode(outer.data, type=dict[str, Raw])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return answer  # a list already, or an error that the walk reports
        lists = [value for value in members.values() if bytes(value).lstrip()[:1] == b"["]
        if len(lists) != 1:
            return answer
        body = msgspec.json.encode(_Outer(lists[0], outer.additional_data))
        return msgspec.structs.replace(answer, body=body)
