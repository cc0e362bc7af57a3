"""Reconciles the warehouse with the source: sweeps every list, says what differs and why, and repairs it if asked to.

Streams are swept first, all of them, because what became of a record is often told by others: those that pointed to a
merged one point to the winner now. Then each absence is looked into (`reconcile.evidence`), then it is repaired: what
is missing or stale is read again by its key, a hundred at a time, and what is known to be gone is buried. Both come
through the archive like everything else, so a replay ends in the same tables.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.log import log
from pdsync.core.request_builder import check
from pdsync.errors import ApiError, DependentsBudgetSpent, FeatureOff, GuardTripped, NotFound, PdsyncError, Stopped
from pdsync.extract import raw_archive
from pdsync.extract.pages import pages, query_of
from pdsync.load import warehouse
from pdsync.model import IncompleteStream, Page, StreamReceipt, Tombstone, Walk
from pdsync.reconcile import evidence
from pdsync.reconcile.evidence import CANARIES, MOST, Verdict
from pdsync.reconcile.sweep import MADE_OF, MERGEABLE, Difference, Sweep, moved_before
from pdsync.runner.reconcile import findings
from pdsync.runner.reconcile.by_count import CountReconciler
from pdsync.runner.reconcile.findings import (
    Finding,
    ReconcileRequest,
    Result,
    conclude,
)
from pdsync.runner.sync import sync as running
from pdsync.sql import first, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pdsync.core.config import Settings
    from pdsync.core.http import Answer
    from pdsync.model import Operation, Parent, Source, Stream, Version
    from pdsync.runner.sync.sync import Event, SyncRun

_BY_IDS = 100
_CHECKING = 10**6  # the number of the sweep of what a repair fetched: no stream has it
_REFETCHED = ("missing", "restored", "archived", "unarchived", "stale", "backdated", "differs", "present")


async def reconcile(
    settings: Settings, asked: ReconcileRequest, tell: Callable[[Event], None] = lambda event: None
) -> Result:
    """Compare the warehouse with the source, and repair it if asked to.

    Args:
        settings: of the project.
        asked: which streams, how deep, and whether to repair.
        tell: is called with each event.

    Returns:
        What was found; the receipt's exit code is 0 only if every list was read to its end.

    Raises:
        As `run.sync`. Nothing is taken for gone where a list could not be read.
    """
    words = running.SyncRequest(asked.streams, budget=asked.budget, words=asked.command)
    async with running.open_session(settings, words, tell) as (run, _):
        work = ReconcileRun(run, asked)
        result = Result(run.receipt)
        try:
            await work.all(result)
        finally:
            await conclude(run, result, asked, work.failed)
    return result


class ReconcileRun:
    """One reconciliation under way."""

    def __init__(self, run: SyncRun, asked: ReconcileRequest) -> None:
        self.run, self.asked, self.loader, self.http = run, asked, run.loader, run.http
        self.sweeps: dict[str, Sweep] = {}
        self.counted: dict[str, CountReconciler] = {}
        self.failed: dict[str, PdsyncError] = {}
        self.differing: dict[str, set[str]] = {}  # keys that were repaired, and that the table holds otherwise still

    async def all(self, result: Result) -> None:
        streams = await self.loader.do(self._selected, result)
        samples: dict[str, list[str]] = {}
        for number, stream in enumerate(streams):
            self.run.live[stream.name] = StreamReceipt()
            self.run.tell(running.Event("started", stream.name, self.run.live[stream.name]))
            try:
                result.swept[stream.name] = await self._read(stream, number, samples)
            except FeatureOff as error:
                log.info("%s is not part of the plan: %s", stream.name, error)
            except PdsyncError as error:
                self.failed[stream.name] = error
                if isinstance(error, Stopped) and not isinstance(error, DependentsBudgetSpent):
                    break
        # Deals before leads: what a lead was converted to says so itself.
        for stream in sorted(streams, key=lambda each: each.name == "leads"):
            if stream.name in result.swept:
                await self._settle(stream, samples.get(stream.name), result)
        await self._repair(streams, result)
        for name in result.swept.keys() & self.counted.keys():
            result.counts_off[name] = await self.loader.do(self.counted[name].off, self.sweeps[name])

    # What is compared.

    async def _read(self, stream: Stream, number: int, samples: dict[str, list[str]]) -> tuple[int, int, int]:
        """Sweep a stream: keys at the source, keys here, rows seen to be the same.

        Raises:
            PdsyncError: it could not be read whole.
        """
        await self.run.resume_stream(stream)
        if parent := self._parent(stream):
            self.counted[stream.name] = CountReconciler(
                self.run, stream, parent, self.sweeps.get(parent.stream), deep=self.asked.deep
            )
            self.sweeps[stream.name] = await self.counted[stream.name].sweep(number)
        elif self.asked.sample is None:
            await self._sweep(stream, number)
        else:
            samples[stream.name] = await self.loader.do(self._chosen, stream, self.asked.sample)
            await self._sweep_some(stream, number, samples[stream.name])
        sweep = self.sweeps[stream.name]
        if sweep.unreadable:
            said = f"{sweep.unreadable} of its records can't be read, so it can't be compared whole"
            raise PdsyncError(f"{said}.\nRead it first: pdsync sync {stream.name} --full")
        verified = await self.loader.do(sweep.verify)
        if (counted := self.counted.get(stream.name)) and counted.parent.counts:
            return counted.counts.at_source, counted.counts.here, verified
        return await self.loader.do(sweep.alive), await self.loader.do(self._here, stream), verified

    def _selected(self, result: Result) -> list[Stream]:
        """The streams that were asked for, or all that were read; behind them those that their records count.

        Whatever can't be compared is told in the result; one that was asked for by name has failed.
        """
        have = warehouse.tables(self.loader.connection)
        read = {row[0] for row in self.loader.connection.execute("SELECT stream FROM meta.checkpoints").fetchall()}
        lists: list[Stream] = []
        counted: list[Stream] = []
        for each in [catalogue.stream(name) for name in self.asked.streams] or list(catalogue.streams().values()):
            if each.name in self.asked.leave_out or (not self.asked.streams and each.name not in have & read):
                continue
            if why := self._why_not(each, have & read):
                result.left_out[each.name] = why
                if self.asked.streams:
                    self.failed[each.name] = PdsyncError(f"It can't be compared: {why}")
            elif parent := self._parent(each):
                result.by_count += [each.name] if parent.counts else []
                counted.append(each)
            else:
                lists.append(each)
        return lists + counted

    def _why_not(self, stream: Stream, read: set[str]) -> str | None:
        """Why a stream can't be compared, and what to do; None if it can."""
        anew = f"read it anew: pdsync sync {stream.name} --full"
        if stream.name not in read:
            return f"it was never read: pdsync sync {stream.name}"
        if any(source.params for source in stream.sources(self.run.settings.api)[1]):
            return f"it tells of a time that is chosen when it is read; {anew}"
        if not stream.parents(self.run.settings.api):
            return None
        parent = self._parent(stream)
        if not parent:
            return f"it is put together of several lists of each record, and none of them counts; {anew}"
        if not parent.counts and stream.optional and stream.name not in self.asked.streams:
            return f"it is a request a record, as no record counts what it lists: pdsync reconcile {stream.name}"
        return "it is compared record by record, without a sample: leave --sample out" if self.asked.sample else None

    def _parent(self, stream: Stream) -> Parent | None:
        """Whose records have a list of `stream` each, where that is one list."""
        sources = stream.sources(self.run.settings.api)[1]
        return sources[0].parent if len(sources) == 1 else None

    async def _sweep(self, stream: Stream, number: int) -> None:
        version, sources = stream.sources(self.run.settings.api)
        table = await self.loader.do(self.loader.table, stream, version)
        sweep = await self.loader.do(Sweep, self.loader.connection, table, number)
        for source in sources:
            operation = catalogue.operations(version)[source.operation]
            walk = self._walk(stream, number, source, version, operation)
            async for page in pages(self.http, operation, walk, query_of(stream, source, version, operation, None)):
                live = self.run.live[stream.name]
                live.requests, live.tokens = live.requests + 1, live.tokens + (operation.cost or 0)
                live.read += page.rows
                self.run.tell(running.Event("page", stream.name, live))
                await self.loader.do(sweep.add, source.name, operation, [page])
        self.sweeps[stream.name] = sweep

    async def _sweep_some(self, stream: Stream, number: int, keys: Sequence[str]) -> None:
        version, sources = stream.sources(self.run.settings.api)
        table = await self.loader.do(self.loader.table, stream, version)
        sweep = await self.loader.do(Sweep, self.loader.connection, table, number)
        for source in sources:
            operation, bodies = await self._by_key(stream, version, source, keys)
            if operation is None:
                await self._sweep(stream, number)
                return
            walk = self._walk(stream, number, source, version, operation)
            for answer in bodies:
                page = running.page_of(operation, answer, walk.id)
                await self.loader.do(sweep.add, source.name, operation, [page])
        self.sweeps[stream.name] = sweep

    def _walk(self, stream: Stream, number: int, source: Source, version: Version, operation: Operation) -> Walk:
        """What pages of a sweep belong to; nothing of it is kept."""
        run_id = self.run.receipt.run_id
        return Walk(-1 - number, run_id, stream.name, source.name, version, operation.id, None, None)

    def _chosen(self, stream: Stream, most: int) -> list[str]:
        """Rows that are alive, chosen at random; those that were verified longest ago come first."""
        rows = self.loader.connection.execute(
            f"SELECT {quoted(stream.key)}::VARCHAR FROM {quoted('main', stream.name)} WHERE _deleted_at IS NULL"
            " ORDER BY date_trunc('day', _verified_at), random() LIMIT ?",
            [most],
        ).fetchall()
        return [str(row[0]) for row in rows]

    def _here(self, stream: Stream) -> int:
        sql = f"SELECT count(*) FROM {quoted('main', stream.name)} WHERE _deleted_at IS NULL"
        return int(first(self.loader.connection.execute(sql))[0])

    # What it means.

    async def _settle(self, stream: Stream, sample: list[str] | None, result: Result) -> None:
        sweep = self.sweeps[stream.name]
        found: list[Difference]
        if stream.name in self.counted:
            found, verdicts = await self.counted[stream.name].differences(sweep)
            result.findings += [Finding(stream.name, v.key, v.kind, v.evidence, v.winner) for v in verdicts]
        else:
            found = await self.loader.do(
                lambda: sweep.differences(deep=self.asked.deep or sample is not None, only=sample)
            )
        absent = [each.key for each in found if each.kind == "absent"]
        deleted = [each.key for each in found if each.kind == "soft_deleted"]
        made_of = await self.loader.do(self._made_of, stream, deleted) if deleted else {}
        for each in found:
            if each.kind == "differs":
                said = "values differ, though the time of change does not"
                result.findings.append(Finding(stream.name, each.key, "stale", said, source=each.source))
            elif each.key in made_of:
                became = made_of[each.key]
                result.findings.append(Finding(stream.name, each.key, "converted", f"it became {became}", became))
            elif each.kind != "absent":
                said = f"so says the list {each.source}"
                result.findings.append(Finding(stream.name, each.key, each.kind, said, source=each.source))
        verdicts = await self._look_into(stream, absent) if absent else []
        result.findings += [Finding(stream.name, v.key, v.kind, v.evidence, v.winner) for v in verdicts]

    async def _look_into(self, stream: Stream, absent: Sequence[str]) -> list[Verdict]:
        """What became of records that no list shows."""
        sweep = self.sweeps[stream.name]
        item = evidence.item(stream, self.run.settings.api)
        winners: dict[str, set[str | None]] = {}
        if stream.name in MERGEABLE:
            for other in self.sweeps.values():
                for key, now in (await self.loader.do(other.moved, stream.name, absent)).items():
                    winners.setdefault(key, set()).update(now)
            for key, now in (await self.loader.do(self._moved_before, stream, absent)).items():
                winners.setdefault(key, set()).update(now)
        made_of = await self.loader.do(self._made_of, stream, absent)
        hidden = await self.loader.do(self._hidden, stream, absent)
        unknown = await self.loader.do(self._never_read, stream, absent)
        can_tell, why_not = True, ""
        sightings: dict[str, evidence.ProbeResult] = {}
        if item is None:
            can_tell, why_not = False, "there is no way to ask for one of these by itself"
        else:
            canaries = await evidence.probe_records(self.http, item, await self.loader.do(sweep.canaries, CANARIES))
            if not self.run.identity.is_admin:
                can_tell, why_not = False, "this token is no administrator's: what it can't see may well be there"
            elif not evidence.healthy(canaries):
                can_tell, why_not = False, "records that were just listed can't be read either"
            sightings = await evidence.probe_records(self.http, item, absent[:MOST])
        return [
            evidence.judge(
                stream, key, sightings.get(key), version=item.version if item else "v2", can_tell=can_tell,
                why_not=why_not or f"only {MOST} a run are asked for one by one", hidden=key in hidden,
                unknown_here=key in unknown, winners=winners.get(key, set()), converted_to=made_of.get(key),
            )
            for key in absent
        ]  # fmt: skip

    def _moved_before(self, of: Stream, keys: Sequence[str]) -> dict[str, set[str | None]]:
        """As `Sweep.moved`, of what earlier syncs have brought."""
        have = warehouse.tables(self.loader.connection)
        found: dict[str, set[str | None]] = {}
        for other in catalogue.streams().values():
            if other.name in have:
                for key, now in moved_before(self.loader.connection, other, of, keys).items():
                    found.setdefault(key, set()).update(now)
        return found

    def _made_of(self, stream: Stream, keys: Sequence[str]) -> dict[str, str]:
        """Leads and deals that were converted: key → what says that it was made of it."""
        other, column = MADE_OF.get(stream.name, ("", ""))
        if other not in warehouse.tables(self.loader.connection):
            return {}
        made = quoted(catalogue.stream(other).key)
        rows = self.loader.connection.execute(
            f"SELECT {quoted(column)}::VARCHAR, {made}::VARCHAR FROM {quoted('main', other)}"
            f" WHERE {quoted(column)}::VARCHAR IN (SELECT unnest(?::VARCHAR[]))",
            [list(keys)],
        ).fetchall()
        found = {str(key): str(id) for key, id in rows}
        if other in self.sweeps:  # what was made of it may not be here yet
            found |= self.sweeps[other].made_of(column, keys)
        return {key: f"{other}/{id}" for key, id in found.items()}

    def _hidden(self, stream: Stream, keys: Sequence[str]) -> set[str]:
        """Those whose pipeline the source does not show any more, while the warehouse has it."""
        seen = self.sweeps.get("pipelines")
        if "pipeline_id" not in stream.columns or seen is None:
            return set()
        rows = self.loader.connection.execute(
            f"SELECT {quoted(stream.key)}::VARCHAR FROM {quoted('main', stream.name)}"
            f" WHERE {quoted(stream.key)}::VARCHAR IN (SELECT unnest(?::VARCHAR[])) AND pipeline_id IS NOT NULL"
            f" AND pipeline_id::VARCHAR NOT IN (SELECT key FROM {seen.relation} WHERE NOT is_gone)",
            [list(keys)],
        ).fetchall()
        return {str(row[0]) for row in rows}

    def _never_read(self, stream: Stream, keys: Sequence[str]) -> set[str]:
        """Rows that no run of this project has read."""
        rows = self.loader.connection.execute(
            f"SELECT {quoted(stream.key)}::VARCHAR FROM {quoted('main', stream.name)}"
            f" WHERE {quoted(stream.key)}::VARCHAR IN (SELECT unnest(?::VARCHAR[]))"
            " AND NOT EXISTS (SELECT 1 FROM meta._applied_batches b WHERE b.run_id = _run_id)",
            [list(keys)],
        ).fetchall()
        return {str(row[0]) for row in rows}

    # What is done about it.

    async def _repair(self, streams: Sequence[Stream], result: Result) -> None:
        if not self.asked.repair:
            return
        await self.loader.do(findings.save_findings, self.run, result, self.asked)  # a kill must not lose it
        for stream in streams:
            mine = [each for each in result.findings if each.stream == stream.name]
            refetched = [each for each in mine if each.kind in _REFETCHED]
            mended = await self._refetch(stream, refetched)
            mended |= await self._bury(stream, mine, result)
            # What no answer shows any more has gone since: it is left, and what became of it the next run tells.
            if failed := [each for each in refetched if each.key in self.differing.get(stream.name, ())]:
                some = ", ".join(each.key for each in failed[:5]) + (", …" if len(failed) > 5 else "")
                detail = f"{len(failed):,} records differ after the repair, too ({some}): run the same command later"
                result.receipt.gaps.append(IncompleteStream(stream.name, "differs", detail))
            result.findings = [
                replace(each, repaired=True) if each.stream == stream.name and each.key in mended else each
                for each in result.findings
            ]

    async def _refetch(self, stream: Stream, wanted: Sequence[Finding]) -> set[str]:
        """Read records again by their keys and load them; those that are in the table now as the source shows them."""
        version, sources = stream.sources(self.run.settings.api)
        came: set[str] = set()
        if wanted and stream.name in self.counted:  # read already, by the records that have them
            listing = catalogue.operations(version)[sources[0].operation]
            fetched = self.counted[stream.name].pages
            await self.run.seal_and_load(stream, version, listing, fetched)
            return await self._confirmed(stream, version, sources[0], listing, fetched, [each.key for each in wanted])
        for source in sources:
            own = [each.key for each in wanted if (each.source or sources[0].name) == source.name]
            if not own:
                continue
            operation, bodies = await self._by_key(stream, version, source, own)
            if operation is None:  # nothing asks for single ones: all of it, once more
                came = set()
                for each, walk in await self.run.refetch_stream(stream):
                    listing = catalogue.operations(version)[walk.operation]
                    fetched = await asyncio.to_thread(self._sealed, walk)
                    came |= await self._confirmed(stream, version, each, listing, fetched, [f.key for f in wanted])
                return came
            if bodies:
                await self.run.load_single_records(stream, version, operation, bodies)
                fetched = [running.page_of(operation, answer) for answer in bodies]
                came |= await self._confirmed(stream, version, source, operation, fetched, own)
        return came

    def _sealed(self, walk: Walk) -> list[Page]:
        """The pages of a walk, from the archive."""
        return [
            Page(
                walk.id, entry.seq, raw_archive.read(self.run.settings.raw, entry), entry.rows, entry.next,
                entry.served_at,
                context=msgspec.json.decode(entry.context or "{}", type=dict[str, str]),
            )
            for entry in self.run.control.sealed_pages(walk.id)
        ]  # fmt: skip

    async def _confirmed(
        self,
        stream: Stream,
        version: Version,
        source: Source,
        operation: Operation,
        fetched: Sequence[Page],
        keys: Sequence[str],
    ) -> set[str]:
        """Those of `keys` that the table holds as `fetched`, which was loaded, shows them, and as the sweep did."""
        table = await self.loader.do(self.loader.table, stream, version)

        def confirm() -> set[str]:
            check = Sweep(self.loader.connection, table, _CHECKING)
            try:
                pages = [replace(page, seq=seq) for seq, page in enumerate(fetched) if page.body]
                check.add(source.name, operation, pages)
                shown = check.shown(keys)
                differing = {each.key for each in check.differences(deep=True, only=keys)}
                # An answer that lags behind the list agrees with an old row: the list has shown a newer one.
                swept = self.sweeps[stream.name].differences(deep=False, only=keys)
                differing |= {each.key for each in swept if each.kind in ("missing", "stale")}
                self.differing.setdefault(stream.name, set()).update(shown & differing)
                return shown - differing
            finally:
                check.close()

        return await self.loader.do(confirm)

    async def _by_key(
        self, stream: Stream, version: Version, source: Source, keys: Sequence[str]
    ) -> tuple[Operation | None, list[Answer]]:
        """Answers that hold the records of `keys`: a hundred at a time, or one by one, or None where neither goes."""
        listing = catalogue.operations(version)[source.operation]
        shown = {name: value for name, value in source.query.items() if name == "include_fields"}
        if "ids" in listing.query and version == "v2":
            parts = [keys[at : at + _BY_IDS] for at in range(0, len(keys), _BY_IDS)]
            calls = [check(listing, {**shown, "ids": ",".join(part), "limit": _BY_IDS}) for part in parts]
            return listing, list(await asyncio.gather(*(self.http.carry_out(call) for call in calls)))
        item = evidence.item(stream, self.run.settings.api)
        if item is None or listing.paging == "none":
            return None, []
        known = {name: value for name, value in shown.items() if name in item.query}
        found = await asyncio.gather(*(self._single(item, key, known) for key in keys))
        return item, [answer for answer in found if answer]

    async def _single(self, item: Operation, key: str, query: dict[str, str]) -> Answer | None:
        try:
            return await self.http.carry_out(check(item, {list(item.path_params)[-1]: key, **query}))
        except NotFound:
            return None
        except ApiError as error:
            if error.status in (400, 403):
                return None
            raise

    async def _bury(self, stream: Stream, findings: Iterable[Finding], result: Result) -> set[str]:
        """Mark rows of records that are known to be gone, unless they are so many that something else must be wrong."""
        gone = [each for each in findings if Verdict(each.key, each.kind, "").is_gone]
        if not gone:
            return set()
        rows = result.swept[stream.name][1]
        most = self.asked.max_tombstones
        allowed = most if most is not None else evidence.most_gone(rows)
        if len(gone) > allowed:
            error = GuardTripped(
                "tombstones",
                f"{len(gone):,} {stream.name} of {rows:,} seem to be gone; at most {allowed:,} are marked without more"
                f" ado.\nNone of them was marked. If they are: --max-tombstones {len(gone)}",
            )
            result.held = str(error)
            return set()
        now = datetime.now(UTC).replace(microsecond=0)
        await self.run.tombstone(
            stream,
            [
                Tombstone(
                    each.key, "deleted" if each.kind == "soft_deleted" else each.kind, each.evidence, now,
                    each.winner if each.kind == "merged" else None, "inferred" if each.kind == "merged" else "exact",
                )
                for each in gone
            ],
        )  # fmt: skip
        marked = await self.loader.do(self._marked, stream, [each.key for each in gone])
        if left := len(gone) - len(marked):
            detail = f"{left:,} records that are known to be gone could not be marked: run the same command later"
            result.receipt.gaps.append(IncompleteStream(stream.name, "differs", detail))
        return marked

    def _marked(self, stream: Stream, keys: Sequence[str]) -> set[str]:
        """Those of `keys` whose rows are marked as gone."""
        key = f"{quoted(stream.key)}::VARCHAR"
        rows = self.loader.connection.execute(
            f"SELECT {key} FROM {quoted('main', stream.name)} WHERE _deleted_at IS NOT NULL"
            f" AND {key} IN (SELECT unnest(?::VARCHAR[]))",
            [list(keys)],
        ).fetchall()
        return {str(row[0]) for row in rows}
