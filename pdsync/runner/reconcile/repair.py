"""Repairs the differences of a reconciliation: fetches records again, marks deleted ones, and verifies both."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.extract import raw_archive
from pdsync.model import IncompleteStream, Tombstone
from pdsync.reconcile import evidence
from pdsync.reconcile.evidence import Verdict
from pdsync.reconcile.sweep import Sweep
from pdsync.runner.reconcile import findings
from pdsync.runner.reconcile.single_records import fetch_by_key
from pdsync.runner.sync import walk_loader
from pdsync.sql import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from pdsync.model import Operation, Page, Source, Stream, Version, Walk
    from pdsync.runner.reconcile.comparison import Comparison
    from pdsync.runner.reconcile.findings import Finding, ReconcileResult

_CHECK_NUMBER = 10**6  # of the sweep over what a repair fetched; no stream's sweep has this number
_REFETCHED = ("missing", "restored", "archived", "unarchived", "stale", "backdated", "differs", "present")


class Repair:
    """The repairs of one reconciliation."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison, self.session, self.request = comparison, comparison.session, comparison.request
        self.loader, self.sweeps = comparison.loader, comparison.sweeps
        self.still_different: dict[str, set[str]] = {}  # by stream: keys that differ after the repair
        self._held: dict[str, tuple[int, int, int]] = {}  # by stream over its limit: deleted records, rows, the limit

    async def repair_all(self, streams: Sequence[Stream], result: ReconcileResult) -> None:
        """Repair the findings, stream by stream, and mark those that are repaired."""
        await self.loader.do(findings.save_findings, self.session, result, self.request)  # a kill must not lose them
        for stream in streams:
            found = [each for each in result.findings if each.stream == stream.name]
            refetched = [each for each in found if each.kind in _REFETCHED]
            repaired_keys = await self._refetch(stream, refetched)
            repaired_keys |= await self._tombstone(stream, found, result)
            # A record that no answer shows was deleted meanwhile: it remains a finding, for the next run.
            if failed := [each for each in refetched if each.key in self.still_different.get(stream.name, ())]:
                keys = ", ".join(each.key for each in failed[:5]) + (", …" if len(failed) > 5 else "")
                detail = f"{len(failed):,} records still differ after the repair ({keys}): run the same command later"
                result.receipt.gaps.append(IncompleteStream(stream.name, "differs", detail))
            result.findings = [
                replace(each, repaired=True) if each.stream == stream.name and each.key in repaired_keys else each
                for each in result.findings
            ]

    async def _refetch(self, stream: Stream, wanted: Sequence[Finding]) -> set[str]:
        """Fetch records again and load them; the keys of those whose rows equal the source now."""
        version, sources = stream.sources(self.session.settings.api)
        confirmed: set[str] = set()
        if wanted and stream.name in self.comparison.counted:
            listing = catalogue.operations(version)[sources[0].operation]
            counted = self.comparison.counted[stream.name]
            fetched = await counted.fetch_lists(self.sweeps[stream.name], [each.key for each in wanted])
            await walk_loader.seal_and_load(self.session, stream, version, listing, fetched)
            return await self._confirm(stream, version, sources[0], listing, fetched, [each.key for each in wanted])
        for source in sources:
            keys = [each.key for each in wanted if (each.source or sources[0].name) == source.name]
            if not keys:
                continue
            operation, answers = await fetch_by_key(self.session, stream, version, source, keys)
            if operation is None:  # no operation reads single records: read the whole stream again
                confirmed = set()
                for each, walk in await self.comparison.reader.refetch_stream(stream):
                    listing = catalogue.operations(version)[walk.operation]
                    fetched = await asyncio.to_thread(self._read_pages, walk)
                    confirmed |= await self._confirm(stream, version, each, listing, fetched, [f.key for f in wanted])
                return confirmed
            if answers:
                await walk_loader.load_single_records(self.session, stream, version, operation, answers)
                fetched = [walk_loader.page_of(operation, answer) for answer in answers]
                confirmed |= await self._confirm(stream, version, source, operation, fetched, keys)
        return confirmed

    async def _confirm(
        self,
        stream: Stream,
        version: Version,
        source: Source,
        operation: Operation,
        fetched: Sequence[Page],
        keys: Sequence[str],
    ) -> set[str]:
        """Those of `keys` whose rows equal the records in `fetched`, now loaded, and are not older than the sweep."""
        table = await self.loader.do(self.loader.table, stream, version)

        def confirm() -> set[str]:
            check = Sweep(self.loader.connection, table, _CHECK_NUMBER)
            try:
                pages = [replace(page, seq=seq) for seq, page in enumerate(fetched) if page.body]
                check.add(source.name, operation, pages)
                shown = check.find_shown(keys)
                different = {each.key for each in check.differences(deep=True, only=keys)}
                # An answer from before the list may equal an old row, while the list has shown a newer version.
                swept = self.sweeps[stream.name].differences(deep=False, only=keys)
                different |= {each.key for each in swept if each.kind in ("missing", "stale")}
                self.still_different.setdefault(stream.name, set()).update(shown & different)
                return shown - different
            finally:
                check.close()

        return await self.loader.do(confirm)

    async def _tombstone(self, stream: Stream, found: Iterable[Finding], result: ReconcileResult) -> set[str]:
        """Mark the rows of deleted records, unless they exceed the limit; the keys that are marked."""
        gone = [each for each in found if Verdict(each.key, each.kind, "").is_gone]
        if not gone:
            return set()
        rows = result.swept[stream.name][1] + result.not_compared.get(stream.name, 0)
        limit = self.request.max_tombstones
        if limit is None:
            limit = evidence.default_max_tombstones(rows)
        if len(gone) > limit:
            self._held[stream.name] = (len(gone), rows, limit)
            result.held_back = self._describe_held()
            return set()
        now = self.session.began
        await walk_loader.tombstone(
            self.session,
            stream,
            [make_tombstone(each, now) for each in gone],
        )
        marked = await self.loader.do(self._find_marked, stream, [each.key for each in gone])
        if left := len(gone) - len(marked):
            detail = f"{left:,} deleted records could not be marked: run the same command later"
            result.receipt.gaps.append(IncompleteStream(stream.name, "differs", detail))
        return marked

    def _describe_held(self) -> str:
        """Why streams got no tombstones: each with its numbers, and the one option that lets all of them pass."""
        each = [
            f"{gone:,} {name} of {rows:,} would be marked as deleted; the limit is {limit:,} (--max-tombstones)."
            for name, (gone, rows, limit) in self._held.items()
        ]
        most = max(gone for gone, _, _ in self._held.values())
        return "\n".join(each) + f"\nNone of them was marked. If they are deleted: --max-tombstones {most}"

    def _find_marked(self, stream: Stream, keys: Sequence[str]) -> set[str]:
        """Those of `keys` whose rows are marked as deleted."""
        key = f"{quoted(stream.key)}::VARCHAR"
        rows = self.loader.connection.execute(
            f"SELECT {key} FROM {quoted('main', stream.name)} WHERE _deleted_at IS NOT NULL"
            f" AND {key} IN (SELECT unnest(?::VARCHAR[]))",
            [list(keys)],
        ).fetchall()
        return {str(row[0]) for row in rows}

    def _read_pages(self, walk: Walk) -> list[Page]:
        """The pages of a walk, from the archive."""
        sealed = self.session.control.sealed_pages(walk.id)
        return [raw_archive.read_page(self.session.settings.raw, entry) for entry in sealed]


def make_tombstone(finding: Finding, at: datetime) -> Tombstone:
    """The tombstone of a record that is known to be gone. No answer names the winner of a merge: it is inferred."""
    how = "deleted" if finding.kind == "soft_deleted" else finding.kind
    if finding.kind == "merged":
        return Tombstone(finding.key, how, finding.evidence, at, finding.winner, "inferred")
    return Tombstone(finding.key, how, finding.evidence, at)
