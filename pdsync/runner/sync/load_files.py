"""Loads list answers that were saved as files into a stream's table, as the source once showed them.

They are sealed and committed like pages of a walk, but move no watermark: a file does not contain later changes. Rows
that are newer than the file are not changed. The same id is another record in another stream, so the content is checked
first: if a record has more keys of another stream, all files are refused.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.list_response import open_envelope
from pdsync.errors import ConfigError
from pdsync.extract.saved_answers import read_answers
from pdsync.model import FROM_FILES, Page, Receipt, Stream, Version
from pdsync.normalise.tables import CODE
from pdsync.runner.report.receipt import StreamEnd, begin_receipt, conclude, count_changes
from pdsync.runner.session import log_notes, open_offline_session
from pdsync.runner.sync import walk_loader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.runner.session import OnEvent, Session

_KEY_OF_DEFINITIONS = "field_code"
_MIN_OWN_KEYS = 4  # a record with all keys of a stream that has at least this many is of that stream
_MIN_FOREIGN_FIELDS = 3  # fields that another stream's records have more than the chosen one's: fewer prove nothing
_SAMPLE_RECORDS = 50  # of the first answer, to detect the version


async def load(
    settings: Settings,
    stream: Stream,
    paths: Sequence[Path],
    on_event: OnEvent = log_notes,
    *,
    version: Version | None = None,
    as_of: datetime | None = None,
    company: int | None = None,
) -> Receipt:
    """Load `paths` into the table of `stream` and publish the warehouse.

    Args:
        settings: of the project.
        stream: of the records.
        paths: files of answers, lists or records.
        on_event: is called with each event, in the event loop's thread.
        version: of the API; None: detected by the keys of the records.
        as_of: when the files were saved; None: the time of each file.
        company: its id, if the project has none yet.

    Returns:
        The receipt of the load.

    Raises:
        ConfigError: a file can't be read or has records that are not of this stream, the stream can't be loaded from
            files, or the company is unknown or another one. Nothing was loaded.
        ProjectLocked, StorageError: as `sync.sync`.
    """
    contents = [(path, read_answers(path)) for path in paths]
    is_given = version is not None
    version = version or _detect_version(stream, [body for _, content in contents for body in content])
    for path, content in contents:
        check_records(path, content, stream, version, is_given=is_given)
    async with open_offline_session(
        settings, lambda control: _begin(control, stream), on_event, company_id=company
    ) as session:
        loader, receipt = session.loader, session.receipt
        await walk_loader.sync_custom_fields(session, stream)
        for path, content in contents:
            await _load(session, stream, version, content, as_of or datetime.fromtimestamp(path.stat().st_mtime, UTC))
        counted = await loader.do(count_changes, loader, receipt.run_id)
        conclude(receipt, {name: StreamEnd(entry) for name, entry in counted.items()})
        receipt.exit_code = 1 if receipt.gaps else 0
    return receipt


def _begin(control: Control, stream: Stream) -> Receipt:
    receipt = begin_receipt(f"load --stream {stream.name}")
    control.start_run(receipt.run_id, receipt.command, receipt.started_at)
    for walk, _ in control.unfinished_walks(stream.name):
        if walk.source == FROM_FILES:  # of an interrupted load, which this one repeats
            control.end_walk(walk.id, "dropped")
    return receipt


async def _load(
    session: Session, stream: Stream, version: Version, content: Sequence[bytes], file_time: datetime
) -> None:
    """Seal and load the answers of one file, as a walk.

    Args:
        session: open.
        stream: of the records.
        version: of the API.
        content: the answers.
        file_time: when they were saved, by the file or by --as-of.
    """
    # Not in the future: such rows would win over everything that is read until then.
    saved_at = min(file_time, datetime.now(UTC)).replace(microsecond=0)
    # As changes since the epoch: newer rows of the table stay.
    since = datetime.fromtimestamp(0, UTC)
    operation = (stream.v1 if version == "v1" else stream.v2)[0].operation
    walk = session.control.open_walk(session.receipt.run_id, stream.name, FROM_FILES, version, operation, since)
    walk = replace(walk, started_at=saved_at)
    for seq, body in enumerate(content):
        next_page = str(seq + 1) if seq + 1 < len(content) else None
        page = Page(walk.id, seq, body, len(open_envelope(body).records), next_page, saved_at)
        await session.archive.seal(walk, page)
        await session.loader.add(stream, walk, [page])
    session.control.end_walk(walk.id, "applied")


def check_records(path: Path, content: Sequence[bytes], stream: Stream, version: Version, *, is_given: bool) -> None:
    """Check by their keys that a file's records are those of `stream`; field definitions by the fields that they name.

    Args:
        path: of the file, for messages.
        content: its answers.
        stream: of the records.
        version: of the API.
        is_given: a person chose the version: only its keys count as those of `stream`, not those of both versions.

    Raises:
        ConfigError: they are of another stream, which the message names, or have no key; an answer is null that may be
            a refusal; or only the request for a list of this stream says which record it is of.
    """
    if not _has_key_of_its_own(stream, version):
        raise ConfigError(
            f"{stream.name} can't be loaded from files: only the request for such a list says which record it is"
            f" of.\n"
            f"Nothing was loaded. Read it: pdsync sync {stream.name}"
        )
    record_by_keys: dict[frozenset[str], Raw] = {}
    for body in content:
        envelope = open_envelope(body)
        if envelope.was_null and not _may_answer_null(stream, version):
            raise ConfigError(
                f"{path}: its data is null: that is an empty list of v1, or a refusal.\n"
                f"Nothing was loaded. If it is an empty list of v1: --api v1"
            )
        for record in envelope.records:
            record_by_keys.setdefault(_keys_of(record), record)
    for keys, record in record_by_keys.items():
        _check_keys(path, keys, record, stream, version, is_given=is_given)
    if stream.key == _KEY_OF_DEFINITIONS:
        _check_definitions(path, content, stream, version)


def _check_definitions(path: Path, content: Sequence[bytes], stream: Stream, version: Version) -> None:
    """Check that field definitions are those of `stream`; raises as `check_records` does.

    All definitions have the same keys, but those of persons name the keys of persons. Fields of leads can't be
    distinguished from those of deals, and a few fields prove nothing.
    """
    own = _own_key(stream, version)
    records = (record for body in content for record in open_envelope(body).records)
    named = frozenset(str(json.loads(bytes(record))[own]) for record in records)
    streams = [name for name, each in catalogue.streams().items() if each.key == _KEY_OF_DEFINITIONS]
    score, name = max((len(named & _fields_of(name)), name) for name in streams)
    if score >= len(named & _fields_of(stream.name)) + _MIN_FOREIGN_FIELDS:
        foreign = sorted(named & _fields_of(name) - _fields_of(stream.name))
        raise ConfigError(
            f"{path} contains {name}, not {stream.name}: it defines {', '.join(foreign[:5])}."
            f"\nNothing was loaded. Load them into {name}: pdsync load {path.name} --stream {name}"
        )


@cache
def _fields_of(definitions: str) -> frozenset[str]:
    """The built-in fields that the stream `definitions` may define: the keys of the records, and of those like them."""
    stem = definitions.removesuffix("_fields")
    streams = catalogue.streams().values()
    own = next(each for each in streams if each.name in (f"{stem}s", f"{stem[:-1]}ies"))
    alike = [each.name for each in streams if each.fields and each.fields == own.fields]  # leads have the deals' fields
    return frozenset[str]().union(*map(_expected_keys_of_any, {own.name, *alike}))


def _check_keys(
    path: Path, keys: frozenset[str], record: Raw, stream: Stream, version: Version, *, is_given: bool
) -> None:
    """Check that a record with these `keys` is one of `stream`; raises as `check_records` does."""
    own = _own_key(stream, version)
    if own not in keys:
        raise ConfigError(
            f"{path}: a record has no {own!r}, the key of {stream.name}: {bytes(record)[:80]!r}\nNothing was loaded."
        )
    if stream.key == _KEY_OF_DEFINITIONS:
        return
    own_score = _score(keys, stream, (version,) if is_given else catalogue.VERSIONS)
    name, best = max(
        (
            (name, _score(keys, other))
            for name, other in catalogue.streams().items()
            if any(_has_key_of_its_own(other, each) for each in catalogue.VERSIONS)
        ),
        key=lambda scored: scored[1],
    )
    if best > own_score:
        foreign = sorted(keys & _expected_keys_of_any(name) - _expected_keys_of_any(stream.name))
        raise ConfigError(
            f"{path} contains {name}, not {stream.name}: a record has {', '.join(foreign[:5]) or 'all of their keys'}."
            f"\nNothing was loaded. Load them into {name}: pdsync load {path.name} --stream {name}"
        )


def _score(keys: frozenset[str], stream: Stream, versions: Sequence[Version] = catalogue.VERSIONS) -> tuple[int, bool]:
    """How many of `keys` a stream has columns for, and whether `keys` has all of its keys."""
    expected = [_expected_keys(stream.name, version) for version in versions]
    return max((len(keys & each), len(each) >= _MIN_OWN_KEYS and each <= keys) for each in expected)


def _keys_of(record: Raw) -> frozenset[str]:
    """The keys of a record, without those of custom fields; none if it is not an object."""
    try:
        value: object = msgspec.json.decode(record, type=dict[str, Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        value = json.loads(bytes(record))  # with a lone surrogate, or no object
    return frozenset(key for key in value if not CODE.match(key)) if isinstance(value, dict) else frozenset()


@cache
def _expected_keys(name: str, version: Version) -> frozenset[str]:
    """The keys of a record of the stream `name` that fill a column; none if the version has no such list."""
    stream = catalogue.stream(name)
    if not (stream.v1 if version == "v1" else stream.v2):
        return frozenset()
    columns = {each: stream.column(each) for each in stream.columns}
    keys = {column.path(each, version).split("/")[0] for each, column in columns.items() if not column.join}
    keys |= {column.v1_else for column in columns.values() if column.v1_else and version == "v1"}
    return frozenset(keys | ({"custom_fields"} if stream.fields and version == "v2" else set()))


def _expected_keys_of_any(name: str) -> frozenset[str]:
    return frozenset[str]().union(*(_expected_keys(name, version) for version in catalogue.VERSIONS))


def _own_key(stream: Stream, version: Version) -> str:
    """The key of a record: one of its own keys, or `@param` of the request for its list."""
    name = next(iter(stream.column(stream.key).join), stream.key)
    return stream.column(name).path(name, version).split("/")[0]


def _has_key_of_its_own(stream: Stream, version: Version) -> bool:
    """Whether a record contains its key, rather than the request for its list."""
    return not _own_key(stream, version).startswith("@")


def _may_answer_null(stream: Stream, version: Version) -> bool:
    """Whether an empty list of it may be null."""
    sources = stream.v1 if version == "v1" else ()
    return any(catalogue.operations(version)[source.operation].paging == "offset" for source in sources)


def _detect_version(stream: Stream, content: Sequence[bytes]) -> Version:
    """The version of the first records, by their keys."""
    if not (stream.v1 and stream.v2):
        return "v2" if stream.v2 else "v1"
    records = [record for body in content[:1] for record in open_envelope(body).records[:_SAMPLE_RECORDS]]
    keys = frozenset[str]().union(*map(_keys_of, records))
    matching = {version: len(keys & _expected_keys(stream.name, version)) for version in catalogue.VERSIONS}
    return "v1" if matching["v1"] > matching["v2"] else "v2"
