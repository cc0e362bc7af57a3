"""Measures lists that were never read, for at most 150 tokens: how many records each of them has.

A request costs the same whatever it returns, so each one requests a full page. The first one of a list that sorts by id
is its newest page: the largest id is an upper bound of the number, and how dense the ids of the page are says how many
there are. Where that leaves doubt, 100 ids spread over the rest show how many of them exist; where ids are sparse, the
oldest page does. A list with offsets is requested from the offset on at which it may end, until that is near enough.

Which list is measured next is decided by how many tokens its doubt is worth, for each token that the request costs.
What is left is assumed (schemas/sizes.toml), and the price says so.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.control.sizes import ListSize, ListSizes
from pdsync.core.list_response import open_envelope
from pdsync.core.log import log
from pdsync.errors import ApiError, BadAnswer, BudgetSpent, FeatureOff, Forbidden, NotFound
from pdsync.extract.pages import query_of
from pdsync.runner import connection, unlocked
from pdsync.runner.pipelines.list_cost import assumption, count_requests
from pdsync.runner.pipelines.list_probe import ListProbe

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

    from pdsync.core.config import Settings
    from pdsync.core.list_response import Envelope
    from pdsync.extract.pages import Caller
    from pdsync.model import Parent, Stream, Version
    from pdsync.runner.sync.sync_request import SyncRequest

MOST_TOKENS = 150
_DEALS = 1000  # assumed, where deals are not among the lists
MEASURED_FOR = timedelta(days=1)  # a measurement is good for so long
_SHARE = 0.5  # of parents with children, where none was seen


class Measurement(Struct):
    """What was measured or assumed, and what that cost."""

    sizes: list[ListSize] = []
    requests: int = 0
    tokens: int = 0


class _Count(Struct):
    """Of the parents that were seen: how many have children, and how many children."""

    seen: int = 0
    having: int = 0
    total: int = 0

    @property
    def share(self) -> float:
        return self.having / self.seen if self.seen else _SHARE


class Measuring:
    """One measurement of the lists of some streams."""

    def __init__(self, client: Caller, streams: Sequence[Stream], prefer: Version, *, deals: int | None = None) -> None:
        """
        Args:
            client: makes the calls.
            streams: that were never read.
            prefer: the version of the API that is read where there is a choice.
            deals: how many the company has, if that is known already.
        """
        self._client, self._deals = client, deals
        self._children: dict[str, list[tuple[Parent, float]]] = {}  # by parent stream: tokens for each parent
        self._havings: dict[str, set[str]] = {}  # by parent stream: its columns that count children
        for child in catalogue.streams().values():
            for parent in (source.parent for source in child.sources(prefer)[1] if source.parent):
                self._havings.setdefault(parent.stream, set()).update([parent.having] if parent.having else [])
        self._counts: dict[tuple[str, str], _Count] = {}
        self.result = Measurement()
        self.lists: list[ListProbe] = []
        for stream in streams:
            version, sources = stream.sources(prefer)
            for source in sources:
                operation = catalogue.operations(version)[source.operation]
                if source.parent:
                    unmarked = assumption(stream.name, source.name).unmarked and not source.parent.counts
                    tokens = count_requests(operation, 1, unmarked=unmarked) * (operation.cost or 0)
                    entry = (source.parent, tokens / source.parent.batch)
                    self._children.setdefault(source.parent.stream, []).append(entry)
                else:
                    self.lists.append(ListProbe(stream, source, version, operation))

    async def measure(self, most_tokens: int = MOST_TOKENS) -> Measurement:
        """Measure the lists for at most `most_tokens`, repeated requests not counted; the rest is assumed.

        Raises:
            Stopped, AuthError, ServerTrouble: a request could not be sent, or was not answered. Tokens that are spent
                after the first request only end the measurement.
        """
        self._assume()
        while (probe := self._choose(most_tokens - self.result.tokens)) is not None:
            try:
                await self._request(probe)
            except BudgetSpent:  # requests that had to be repeated cost more
                if not self.result.requests:
                    raise
                break
            except (Forbidden, FeatureOff, NotFound):
                probe.refuse()
            except (ApiError, BadAnswer) as error:
                log.info("%s: not measured: %s", probe.stream.name, error)
                probe.give_up()
            self.result.requests += 1
            self.result.tokens += probe.operation.cost or 0
            self._assume()
        self.result.sizes = [*(each.size() for each in self.lists), *self._count_parents()]
        return self.result

    def _assume(self) -> None:
        """Assume the sizes of the lists that are not measured, by the number of deals."""
        missing = {each.stream.name: each.missing_ids for each in self.lists if each.probes and each.missing_ids}
        of_deals = [each for each in self.lists if each.stream.name == "deals"]
        for each in of_deals:
            if not each.probes:
                each.assume(_DEALS, missing.get("deals", 0))
        deals = self._deals
        if deals is None:
            deals = round(sum(each.rows for each in of_deals)) if any(each.probes for each in of_deals) else _DEALS
        for each in self.lists:
            if not each.probes:
                each.assume(deals, missing.get(each.stream.name, 0))

    def _choose(self, tokens: int) -> ListProbe | None:
        """The list whose doubt is worth most for each token of a request; None if none is worth it.

        Args:
            tokens: that are left.
        """
        best, worth = None, 1.0
        for each in self.lists:
            cost = each.operation.cost or 0
            if not cost or cost > tokens or not each.can_be_probed:
                continue
            if each.stream.name == "deals" and not each.probes and not any(x.probes for x in self.lists):
                return each  # what is assumed of the others depends on it
            value = each.doubt(self._tokens_a_row(each.stream.name)) / cost
            if value > worth:
                best, worth = each, value
        return best

    def _tokens_a_row(self, stream: str) -> float:
        """The tokens that lists by parent cost for each record of `stream`."""
        return sum(
            tokens * (self._counts.get((stream, parent.having), _Count()).share if parent.having else 1)
            for parent, tokens in self._children.get(stream, [])
        )

    async def _request(self, probe: ListProbe) -> None:
        """Request what `probe` needs next, and learn from the answer."""
        query = query_of(probe.stream, probe.source, probe.version, probe.operation, None) | probe.next_query()
        answer = await self._client.call(probe.operation, query=query)
        envelope = open_envelope(answer.body, probe.operation)
        records = [msgspec.json.decode(each) for each in envelope.records]
        probe.learn([each.get("id") for each in records], more=_says_more(envelope))
        self._count(probe, records)

    def _count(self, probe: ListProbe, records: Iterable[dict[str, Any]]) -> None:
        """Count how many records of a page have children, where there are lists of them."""
        for having in self._havings.get(probe.stream.name, ()):
            path = probe.stream.column(having).path(having, probe.version)
            count = self._counts.setdefault((probe.stream.name, having), _Count())
            for record in records:
                number = record.get(path)
                number = int(number) if isinstance(number, int | bool) else 1
                count.seen, count.having, count.total = (
                    count.seen + 1,
                    count.having + (number > 0),
                    count.total + number,
                )

    def _count_parents(self) -> list[ListSize]:
        """The number of records with children, and of their children."""
        sizes = []
        for (stream, having), count in self._counts.items():
            lists = [each for each in self.lists if each.stream.name == stream]
            rows, most = sum(each.rows for each in lists), sum(each.most for each in lists)
            if all(each.largest_id for each in lists):  # they share their ids
                most = min(most, max(each.largest_id for each in lists))
            is_whole = all(each.is_exact for each in lists)
            share = count.share if is_whole else min(1.5 * count.share + 0.1, 1.0)
            basis = f"{count.share:.0%} of {count.seen:,} {stream} that were seen"
            is_assumed = any(each.is_assumed for each in lists)
            version = lists[0].version
            sizes.append(
                ListSize(stream, having, version, round(rows * count.share), round(most * share), basis, is_assumed)
            )
            each = count.total / count.seen if count.seen else 1.0
            total = ListSize(stream, f"sum of {having}", version, round(rows * each), round(most * each * 1.5), basis)
            sizes.append(total)
        return sizes


def _says_more(envelope: Envelope) -> bool | None:
    """Whether a page says that another one follows; None if it does not say."""
    if envelope.next_cursor:
        return True
    return envelope.more if envelope.more is not None else False if envelope.described else None


async def measure_unread(
    settings: Settings,
    request: SyncRequest,
    max_age: timedelta | None = MEASURED_FOR,
    *,
    on_spent: Callable[[int, int], None] = lambda requests, tokens: None,
) -> Measurement | None:
    """Measure the lists of a sync that were never read, for at most 150 tokens, and store their sizes.

    Args:
        settings: of the project.
        request: the sync.
        max_age: of an earlier measurement that is as good; None: any.
        on_spent: is called with the requests and tokens that were spent, also where it fails.

    Returns:
        What was measured; None if nothing had to be: all lists were read, or measured before.

    Raises:
        PdsyncError: a request could not be sent or had no usable answer. Nothing was stored.
    """
    with unlocked.open_control(settings) as control:
        last_walks, stored = control.pages_of_last_walks(), ListSizes(control).load(max_age)
        unread = [stream for stream in request.selected() if _is_unread(stream, settings.api, last_walks, stored)]
        if not unread:
            return None
        names = {stream.name for stream in unread}  # what their children cost decides what is worth measuring
        unread += [each for each in request.selected() if each.parents(settings.api) & names and each not in unread]
        deals = [rows for (stream, _, whole), (_, rows) in last_walks.items() if stream == "deals" and whole]
        lists = {source.name for source in catalogue.stream("deals").sources(settings.api)[1]}
        deals = deals or [size.rows for (stream, name), size in stored.items() if stream == "deals" and name in lists]
        async with connection.connect(settings, run_tokens=MOST_TOKENS) as http:
            measuring = Measuring(http, unread, settings.api, deals=sum(deals) if deals else None)
            try:
                measurement = await measuring.measure()
            finally:
                on_spent(http.budget.requests, http.budget.spent)
            measurement.requests, measurement.tokens = http.budget.requests, http.budget.spent
        ListSizes(control).save(measurement.sizes)
    return measurement


def _is_unread(
    stream: Stream, prefer: Version, last_walks: Container[tuple[str, str, bool]], stored: Container[tuple[str, str]]
) -> bool:
    """Whether a stream has a list with pages that was never read to its end, and not measured lately."""
    version, sources = stream.sources(prefer)
    return any(
        not source.parent
        and (stream.name, source.name, True) not in last_walks
        and (stream.name, source.name) not in stored
        for source in sources
        if catalogue.operations(version)[source.operation].paging != "none" or _is_parent(stream.name)
    )


def _is_parent(stream: str) -> bool:
    """Whether lists that are not optional are requested for each record of a stream."""
    return any(stream in each.parents("v2") for each in catalogue.streams().values() if not each.optional)
