"""Reads list answers that were saved as files: whole answers, bare lists, one record a line, packed or not.

What comes out are bodies as the API would have sent them, so that they are sealed and loaded like any page.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from typing import TYPE_CHECKING

import msgspec
import zstandard
from msgspec import Raw

from pdsync.core.list_response import open_envelope, says_no_success
from pdsync.errors import BadAnswer, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECORDS_A_PAGE = 500


def read_answers(path: Path) -> list[bytes]:
    """The answers in the file at `path`: JSON or NDJSON, plain, gzip or zstd, told by their content.

    Raises:
        ConfigError: it can't be read, or holds something that is neither an answer, a list nor a record, or an answer
            that is a refusal; says where.
    """
    try:
        text = _unpacked(path.read_bytes())
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise ConfigError(f"{path} can't be read: {error}. Nothing was loaded.") from error
    found: list[bytes] = []
    loose: list[bytes] = []
    for number, document in enumerate(_documents(text, path), 1):
        begins = document.lstrip()[:1]
        if says_no_success(document):
            raise ConfigError(
                f"{path}: value {number} is an answer that says success is false, so it is no list: {document[:160]!r}"
                f"\nNothing was loaded."
            )
        if begins == b"[":
            found.append(b'{"data":' + document + b"}")
        elif begins == b"{" and _is_answer(document):
            found.append(document)
        elif begins == b"{":
            loose.append(document)
        else:
            raise ConfigError(
                f"{path}: value {number} is neither an answer, a list of records nor a record: {document[:60]!r}.\n"
                f"Nothing was loaded."
            )
    found += [
        b'{"data":[' + b",".join(loose[at : at + RECORDS_A_PAGE]) + b"]}" for at in range(0, len(loose), RECORDS_A_PAGE)
    ]
    for body in found:
        try:
            open_envelope(body)
        except BadAnswer as error:
            raise ConfigError(f"{path}: {error}\nNothing was loaded.") from error
    return found


def _unpacked(content: bytes) -> bytes:
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    elif content[:4] == b"\x28\xb5\x2f\xfd" or content[1:4] == b"\x2a\x4d\x18":  # a frame, or one that is skipped
        content = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True).read()
    return content.removeprefix(b"\xef\xbb\xbf")


def _is_answer(document: bytes) -> bool:
    """Whether an object is an envelope: records have no `data` of their own."""
    try:
        keys = msgspec.json.decode(document, type=dict[str, Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        keys = json.loads(document)
    return "data" in keys


def _documents(text: bytes, path: Path) -> Iterator[bytes]:
    """The JSON values that stand one behind the other: one, one a line, or with nothing between them."""
    try:
        yield from ([text] if _is_json(text) else map(bytes, msgspec.json.Decoder(Raw).decode_lines(text)))
    except (msgspec.DecodeError, UnicodeDecodeError):
        yield from _scanned(text, path)


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=Raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _scanned(text: bytes, path: Path) -> Iterator[bytes]:
    """The slow way, with Python's own parser, which takes lone surrogates and needs no line ends."""
    decoder = json.JSONDecoder()
    try:
        characters = text.decode("utf-8")
        at = 0
        while characters[at:].strip():
            at += len(characters[at:]) - len(characters[at:].lstrip())
            _, end = decoder.raw_decode(characters, at)
            yield characters[at:end].encode()
            at = end
    except (ValueError, RecursionError) as error:
        line = characters.count("\n", 0, at) + 1 if isinstance(error, json.JSONDecodeError) else 1
        raise ConfigError(f"{path}, line {line}: this is no JSON: {error}. Nothing was loaded.") from error
