"""Loads list answers that were saved as files into a stream's table, as the source once showed them.

They are sealed and committed like pages of a walk, but move no watermark: a file says nothing of what changed since.
A record that the table knows from a later moment stays as it is.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.envelope import open_envelope
from pdsync.errors import ConfigError
from pdsync.extract.saved import bodies
from pdsync.extract.seal import Archive
from pdsync.load import publish
from pdsync.model import FROM_FILES, Gap, Page, Receipt, Stream, Version
from pdsync.runner import project, stores
from pdsync.runner import receipt as receipts
from pdsync.runner.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.core.control import Control

_LOOKED_AT = 50  # records of a file, to tell which version's they are


async def load(
    settings: Settings,
    stream: Stream,
    paths: Sequence[Path],
    *,
    version: Version | None = None,
    as_of: datetime | None = None,
    company: int | None = None,
) -> Receipt:
    """Load `paths` into the table of `stream` and publish the warehouse.

    Args:
        settings: of the project.
        stream: whose records they are.
        paths: files of answers, lists or records.
        version: the API version they came from; None tells it by their keys.
        as_of: when they were saved; None takes each file's own time.
        company: its id, where the project does not know it yet.

    Returns:
        The receipt of the load.

    Raises:
        ConfigError: a file can't be read, or nothing tells which company this is. Nothing was loaded.
        Busy, StorageError: as a sync does.
    """
    found = [(path, bodies(path)) for path in paths]
    version = version or _version(stream, [body for _, content in found for body in content])
    with project.locked(settings) as control:
        known = control.company()
        if known is None and company is None:
            raise ConfigError(
                "This project knows no company yet. Nothing was loaded. Sync it first (pdsync sync), or say which one"
                " the files are of: --company ID"
            )
        company_id, name = known or (company or 0, "")
        control.check_company(company or company_id, name)
        project.ready_work_file(settings)
        loader = Loader(project.work_path(settings))
        try:
            await loader.do(loader.open, company_id, name)
            control.bind_company(company_id, name, None)
            await loader.do(stores.settle, loader, control)
            receipt = await _load(settings, control, loader, company_id, stream, version, found, as_of)
            await loader.do(loader.views)
            await loader.do(receipts.keep, loader, receipt)
        finally:
            await loader.close()
        publish.publish(project.work_path(settings), settings.warehouse)
        control.finish_run(receipt)
    return receipt


async def _load(
    settings: Settings,
    control: Control,
    loader: Loader,
    company_id: int,
    stream: Stream,
    version: Version,
    found: Sequence[tuple[Path, list[bytes]]],
    as_of: datetime | None,
) -> Receipt:
    receipt = receipts.begun(f"load --stream {stream.name}")
    control.start_run(receipt.run_id, receipt.command, receipt.started_at)
    for walk, _ in control.unfinished(stream.name):
        if walk.source == FROM_FILES:  # of a load that was cut: this one brings the same
            control.end_walk(walk.id, "dropped")
    await loader.do(loader.learn_fields, stream, receipt.run_id)
    operation = (stream.v1 if version == "v1" else stream.v2)[0].operation
    async with Archive(settings.raw, control, receipt.run_id, company_id) as archive:
        for path, content in found:
            saved_at = as_of or datetime.fromtimestamp(path.stat().st_mtime, UTC).replace(microsecond=0)
            # As changes since the beginning of time: what is in the table from later stays.
            since = datetime.fromtimestamp(0, UTC)
            walk = control.open_walk(receipt.run_id, stream.name, FROM_FILES, version, operation, since)
            walk = replace(walk, started_at=saved_at)
            for seq, body in enumerate(content):
                behind = str(seq + 1) if seq + 1 < len(content) else None
                page = Page(walk.id, seq, body, len(open_envelope(body).records), behind, saved_at)
                await archive.seal(walk, page)
                await loader.add(stream, walk, [page])
            control.end_walk(walk.id, "applied")
    counted = await loader.do(receipts.counted, loader, receipt.run_id)
    for name, entry in counted.items():
        entry.complete = not entry.quarantined
        receipt.streams[name] = entry
        if entry.quarantined:
            receipt.gaps.append(Gap(name, "quarantined", f"{entry.quarantined} records can't be read: meta.quarantine"))
    receipt.finished_at = datetime.now(UTC)
    receipt.exit_code = 1 if receipt.gaps else 0
    return receipt


def _version(stream: Stream, content: Sequence[bytes]) -> Version:
    """The version whose keys the first records have more of."""
    keys: set[str] = set()
    for body in content[:1]:
        for record in open_envelope(body).records[:_LOOKED_AT]:
            value = msgspec.json.decode(record)
            keys |= set(value) if isinstance(value, dict) else set()
    if not (stream.v1 and stream.v2):
        return "v2" if stream.v2 else "v1"
    matching: dict[Version, int] = {}
    for version in catalogue.VERSIONS:
        expected = {stream.column(name).path(name, version).split("/")[0] for name in stream.columns}
        matching[version] = len(keys & expected) + (version == "v2" and "custom_fields" in keys)
    return "v1" if matching["v1"] > matching["v2"] else "v2"
