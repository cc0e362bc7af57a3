"""Reads list answers that were saved as files: whole answers, bare lists, one record a line, packed or not.

The results are bodies as the API would have sent them, so that they are sealed and loaded like any page. Answers may
be in envelopes of other programs, `{"data": {"success": true, "data": […]}}`; other envelopes are refused with the
command that opens them.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import shlex
import zlib
from typing import TYPE_CHECKING, NoReturn

import msgspec
import zstandard
from msgspec import Raw

from pdsync.core.list_response import open_envelope, says_no_success
from pdsync.errors import BadAnswer, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECORDS_A_PAGE = 500
_DEEPEST = 4  # levels of envelopes in which a list is looked for
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # needs no quotes in a path of jq


def read_answers(path: Path) -> list[bytes]:
    """The answers in the file at `path`: JSON or NDJSON, plain, gzip or zstd, recognised by its content.

    Raises:
        ConfigError: it can't be read, or a value in it is neither an answer, a list nor a record, or is a refusal; says
            where, and how to extract the records where there are any.
    """
    try:
        text = _unpacked(path.read_bytes())
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise ConfigError(f"{path} can't be read: {error}. Nothing was loaded.") from error
    found: list[bytes] = []
    loose: list[bytes] = []
    for number, document in enumerate(_documents(text, path), 1):
        begins = document.lstrip()[:1]
        if begins == b"[":
            found.append(b'{"data":' + document + b"}")
        elif begins != b"{":
            raise ConfigError(
                f"{path}: value {number} is neither an answer, a list of records nor a record: {document[:60]!r}.\n"
                f"Nothing was loaded."
            )
        elif (answer := _open_envelopes(document, path, number)) is not None:
            found.append(answer)
        else:
            loose.append(document)
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


def _open_envelopes(document: bytes, path: Path, number: int) -> bytes | None:
    """The list answer in an object, whatever envelopes are around it; None where the object is a record.

    Records have no `data` of their own.
    """
    where, keys = "", _members(document)
    while True:
        if says_no_success(document):
            raise ConfigError(
                f"{path}: value {number} is an answer that says success is false, so it is no list: {document[:160]!r}"
                f"\nNothing was loaded."
            )
        if keys.get("type") == b'"Buffer"':
            raise ConfigError(f"{path}: value {number} is the contents of a file, not its record. Nothing was loaded.")
        inner = keys.get("data")
        if inner is None or inner[:1] != b"{":
            break
        document, where, keys = inner, f"{where}.data", _members(inner)
    if inner is not None:
        return document
    list_path = None if "id" in keys else _find_list(json.loads(document))
    if list_path:
        _refuse_envelope(path, number, "its records are in", where + list_path)
    if where:
        _refuse_envelope(path, number, "it is about one record, no list:", f"[{where}]")
    return None


def _refuse_envelope(path: Path, number: int, reason: str, records: str) -> NoReturn:
    """Raise an error that describes the envelope, with the command that extracts the records.

    Args:
        path: the file.
        number: of the value in it.
        reason: why it can't be loaded as it is.
        records: where the records are, for jq.
    """
    unpack = {".gz": "gzip -dc", ".zst": "zstd -dc"}.get(path.suffix)
    name = shlex.quote(str(path))
    command = f"{unpack} {name} | jq '{records}'" if unpack else f"jq '{records}' {name}"
    raise ConfigError(
        f"{path}: value {number} is no answer to a list: {reason} {records}. Nothing was loaded.\n"
        f"Take them out, and load the new file: {command} > records.json"
    )


def _find_list(value: object) -> str | None:
    """The path of the only list of objects in an object, for jq: `.body.results`."""
    found: list[str] = []
    left: list[tuple[str, object]] = [("", value)]
    for where, each in left:  # level by level: the list grows meanwhile
        if isinstance(each, dict) and where.count(".") < _DEEPEST:
            left += [(f"{where}.{name}", inner) for name, inner in each.items() if _NAME.fullmatch(name)]
        elif isinstance(each, list) and each and all(isinstance(one, dict) for one in each):
            found.append(where)
    return found[0] if len(found) == 1 else None


def _members(document: bytes) -> dict[str, bytes]:
    """The values of an object, as JSON."""
    try:
        found = msgspec.json.decode(document, type=dict[str, Raw])
        return {name: bytes(value).strip() for name, value in found.items()}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {name: json.dumps(value).encode() for name, value in json.loads(document).items()}


def _documents(text: bytes, path: Path) -> Iterator[bytes]:
    """The JSON values of a text: one, one a line, or with nothing between them."""
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
