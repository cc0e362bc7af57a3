"""Carries out the actions that change nothing, and gives their answers the component's shape.

`{"data": <Pipedrive's answer>}`; of a picklist `{"result": [{"key", "label"}]}`; of a file its content and type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pdsync.core.answer import PLAIN_CAP
from pdsync.core.atomic_file import AtomicFile
from pdsync.core.request import request_of_call
from pdsync.core.request_builder import check
from pdsync.core.sinks import MemorySink
from pdsync.errors import ConfigError
from pdsync.extract.attachments import MOST_BYTES
from pdsync.runner.actions import raw
from pdsync.runner.actions.lists import Listing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from pdsync.core.actions import Action
    from pdsync.core.sinks import ByteSink
    from pdsync.runner.actions.caller import Caller
    from pdsync.runner.actions.prepare import Prepared


async def read(made: Prepared) -> dict[str, Any]:
    """The whole answer of a read action.

    Raises:
        ConfigError: a parameter does not fit, and nothing was called; or no record of a list has the key to sort by.
        PdsyncError: as `Http.call`.
    """
    if made.action.kind == "picklist":
        return {"result": [choice async for choice in _choices(made)]}
    if made.action.kind == "download":
        file = MemorySink()
        content_type = await download(made, file, most_bytes=PLAIN_CAP)
        return {"data": bytes(file.body), "contentType": content_type}
    if made.action.kind == "read_one":
        answer = await made.caller.ask(made.operation, made.params)
        if made.v1:
            answer["data"] = (await made.v1.show([answer["data"]]))[0]
        return {"data": answer}
    listing = Listing(made)
    if listing.is_one_request:
        return {"data": await listing.answer()}
    records = [record async for record in listing.records()]
    return {"data": _envelope(made, records, listing.additional)}


async def pieces(made: Prepared) -> AsyncGenerator[bytes]:
    """The same answer as JSON, piece by piece: a list is never in memory as a whole, unless it is sorted here.

    Raises:
        PdsyncError: as `read`, also after the first pieces: what was yielded is no whole answer then.
    """
    listing = Listing(made)
    if made.action.kind == "picklist":
        yield b'{"result": ['
        async for piece in _joined(_choices(made)):
            yield piece
        yield b"]}"
    elif made.action.kind in ("download", "read_one") or listing.is_one_request:
        yield as_json(await read(made))
    else:
        before, after = msgspec.json.encode({"data": _envelope(made, [None], 0)}).split(b"[null]")
        yield before + b"["
        async for piece in _joined(listing.records()):
            yield piece
        end = after.replace(b'"additional_data":0', b'"additional_data":' + msgspec.json.encode(listing.additional))
        yield b"]" + end


async def download(made: Prepared, sink: ByteSink, *, most_bytes: int = MOST_BYTES) -> str | None:
    """Hand the bytes of a file to `sink` as they come; its content type."""
    call = check(made.operation, made.params)
    await made.caller.download(request_of_call(call), sink, most_bytes=most_bytes)
    return made.caller.content_type


async def download_to(made: Prepared, path: Path) -> dict[str, Any]:
    """Stream a file to `path`, which is replaced when it is complete, and unchanged if it never is.

    Raises:
        ConfigError: the action answers with no file, or `path` can't be written. Nothing was called.
        PdsyncError: as `Http.download`.
    """
    if made.action.kind != "download":
        raise ConfigError(f"{made.action.key} answers with no file: leave `out` away. Nothing was called.")
    with AtomicFile(path) as file:
        content_type = await download(made, file)
    return {"data": str(path), "contentType": content_type}


async def raw_request(action: Action, inputs: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
    """Carry out `rawRequest`.

    Raises:
        ConfigError: the request is malformed, or leads away from the API. Nothing was sent.
        PdsyncError: as `Http.send`.
    """
    kind, policy = raw.response_type(action, inputs), raw.policy_of(action, inputs)
    with raw.raw_of(action, inputs, caller.http.base_url) as request:
        answer = await caller.request(request, policy)
    if kind == "json":
        return {"data": answer.json() if answer.body else None}
    if kind == "text":
        return {"data": answer.body.decode(errors="replace")}
    return {"data": answer.body, "contentType": answer.headers.get("content-type")}


def as_json(answer: Mapping[str, Any]) -> bytes:
    """An answer as JSON; bytes as the component writes them: `{"type": "Buffer", "data": [72, …]}`."""
    data = answer.get("data")
    if isinstance(data, bytes):
        answer = {**answer, "data": {"type": "Buffer", "data": list(data)}}
    return msgspec.json.encode(answer)


async def _choices(made: Prepared) -> AsyncGenerator[dict[str, str]]:
    async for record in made.caller.walk(made.operation, made.params):
        label = " - ".join(str(record[key]) for key in made.action.label)
        yield {"key": str(record["id"]), "label": label}


async def _joined(records: AsyncGenerator[dict[str, Any]]) -> AsyncGenerator[bytes]:
    first = True
    async for record in records:
        yield (b"" if first else b",") + msgspec.json.encode(record)
        first = False


def _envelope(made: Prepared, records: list[Any], additional: Any) -> dict[str, Any]:
    """The answer of a list. The lists that the component pages itself show no `success`."""
    data = {"items": records} if made.action.kind == "search" else records
    success = {} if "fetchAll" in made.action.inputs else {"success": True}
    return {**success, "data": data, "additional_data": additional}
