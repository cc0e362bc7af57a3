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

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.core.control import Control
    from pdsync.runner.session import OnEvent, Session

_KEY_OF_DEFINITIONS = "field_code"
_MIN_OWN_KEYS = 4  # a record with all keys of a stream that has at least this many is of that stream
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
        ConfigError: a file can't be read, has no records of this stream, or the company is unknown. Nothing was loaded.
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
        await loader.do(loader.sync_custom_fields, stream, receipt.run_id)
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
    """Check by their keys that a file's records are those of `stream`.

    Field definitions of different streams have the same keys: they can't be distinguished.

    Raises:
        ConfigError: they are of another stream, which the message names, or have no key.
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
