"""What is known of the number of records in one list, and which request would say more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pdsync.core.control.sizes import ListSize
from pdsync.runner.pipelines.list_cost import assumption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pdsync.model import Operation, Source, Stream, Version

_IDS = 100  # that a request takes
_DENSE = 0.3  # share of the ids that exist; below it, a sample of ids says little
_MOST_PROBES = 3


class ListProbe:
    """The number of records in a list: known for certain (`seen`), likely (`rows`), and at most (`most`)."""

    def __init__(self, stream: Stream, source: Source, version: Version, operation: Operation) -> None:
        self.stream, self.source, self.version, self.operation = stream, source, version, operation
        self.seen, self.rows, self.most, self.spread = 0.0, 0.0, 0.0, 0.0  # rows; `spread` is how far `rows` may be off
        self.probes, self.is_exact, self.is_assumed = 0, False, True
        self.basis = "assumed"
        self._page = operation.page_size or 1
        self._largest = 0  # id
        self._above, self._below = 0, 0  # ids between them were not seen: above the oldest page, below the newest one
        self._density = 1.0  # share of the ids that exist where they are densest
        self._way = ""  # of the request that was answered last
        self._ids: list[int] = []
        self._is_sampled = False
        self._is_short = False  # it ends before the offset at which the density of its newest page would have it end
        self._start = 0

    @property
    def can_be_probed(self) -> bool:
        """Whether another request would say more."""
        if self.is_exact or self.probes >= _MOST_PROBES:
            return False
        return bool(self._next_way())

    @property
    def largest_id(self) -> int:
        """The largest id in the list; 0 if it is not known."""
        return self._largest

    @property
    def missing_ids(self) -> float:
        """How many ids below the largest one are not in the list; 0 if that is not known."""
        return max(self._largest - self.rows, 0)

    def assume(self, deals: float, missing_ids: float = 0) -> None:
        """Take what is assumed of the list.

        Args:
            deals: of the company.
            missing_ids: in another list of the same kind of records: this one may have them.
        """
        assumed = assumption(self.stream.name, self.source.name)
        self.rows = max(assumed.likely_rows(deals), missing_ids / 2)
        self.most = max(assumed.most_rows(deals), missing_ids)
        self.spread = max((self.most - self.rows) / 4, missing_ids / 2)
        self.basis = f"assumed: {round(self.rows):,} rows"

    def refuse(self) -> None:
        """The list is refused: it takes one request, and has no records."""
        self.probes, self.seen, self.rows, self.most, self.spread = self.probes + 1, 0, 0, 0, 0
        self.is_exact, self.is_assumed, self.basis = True, False, "refused"

    def give_up(self) -> None:
        """It can't be measured: what is assumed stays."""
        self.probes = _MOST_PROBES

    def doubt(self, tokens_a_row: float) -> float:
        """The tokens that the number may be off by.

        Args:
            tokens_a_row: what each record costs in lists that are requested by it.
        """
        is_paged = self.operation.paging != "none"
        cost = (self.operation.cost or 0) / self._page if is_paged else 0.0
        first = self._page if self.rows < self._page else 0  # the first page is requested anyway
        return max(self.spread - first, 0) * cost + self.spread * tokens_a_row

    def size(self) -> ListSize:
        """The size as it is known now."""
        rows = max(round(self.rows), 0)
        most = max(math.ceil(self.most), rows)
        return ListSize(self.stream.name, self.source.name, self.version, rows, most, self.basis, self.is_assumed)

    def _sorts_by_id(self) -> bool:
        if self.stream.columns.get("id") is None or self.stream.column("id").type != "BIGINT":
            return False
        sort_by = self.operation.query.get("sort_by")
        return "id" in (sort_by.enum or ()) if sort_by else self.version == "v1" and "sort" in self.operation.query

    def _next_way(self) -> str:
        if self._sorts_by_id() and not self.probes:
            return "newest"
        if self.operation.paging == "offset":
            return "offset"
        if not self._sorts_by_id():
            return "" if self.probes else "first"
        if self._density >= _DENSE and "ids" in self.operation.query:
            return "ids"
        return "oldest" if self.probes == 1 else ""

    def next_query(self) -> dict[str, str]:
        """The parameters of the next request, beside those of the walk."""
        self._way = self._next_way()
        if self._way in ("newest", "oldest"):
            direction = "desc" if self._way == "newest" else "asc"
            if self.version == "v1":
                return {"sort": f"id {direction.upper()}"}
            return {"sort_by": "id", "sort_direction": direction}
        if self._way == "ids":
            shift = 0.5 if self.probes == 1 else 0.25
            rest = self._below - self._above - 1
            self._ids = sorted({self._above + 1 + int(rest * (number + shift) / _IDS) for number in range(_IDS)})
            return {"ids": ",".join(map(str, self._ids))}
        if self._way == "offset":
            self._start = self._next_start()
            return {"start": str(self._start)}
        return {}

    def _next_start(self) -> int:
        if not self.probes:
            return int(self.rows // self._page * self._page)
        if self._sorts_by_id():  # where it ends if the ids are as dense all over; well before, if it ends earlier
            return int(self.most * 0.8) if self._is_short else max(int(self.rows) - self._page // 2, 0)
        return int(self.seen * 2 if self.is_assumed else (self.seen + self.most) / 2)

    def learn(self, ids: Sequence[object], *, more: bool | None) -> None:
        """Take in the answer to the request of `next_query`.

        Args:
            ids: of the records in the answer.
            more: whether it says that others follow; None if it does not say.
        """
        self.probes += 1
        has_more = (len(ids) >= self._page if more is None else more) and self.operation.paging != "none"
        if self._way == "newest":
            self._learn_newest([each for each in ids if isinstance(each, int)], has_more=has_more)
        elif self._way == "oldest":
            self._learn_oldest([each for each in ids if isinstance(each, int)])
        elif self._way == "ids":
            self._learn_ids(len(ids))
        else:
            self._learn_page(len(ids), has_more=has_more)

    def _set_exact(self, rows: float) -> None:
        self.seen = self.rows = self.most = rows
        self.spread, self.is_exact, self.is_assumed = 0, True, False
        self.basis = f"measured: {round(rows):,} rows"

    def _learn_newest(self, ids: list[int], *, has_more: bool) -> None:
        self._largest = max(ids, default=0)
        if not has_more or not ids:
            self._set_exact(len(ids))
            return
        self._below, self.is_assumed = min(ids), False
        rest = self._below - 1
        self._density = min(len(ids) / (self._largest - self._below + 1), 1.0)
        self.seen, self.most = len(ids), len(ids) + rest
        self.rows = len(ids) + rest * self._density
        self.spread = (self.rows - self.seen) / 4
        self.basis = f"measured: about {round(self.rows):,} rows, the largest id is {self._largest:,}"

    def _learn_oldest(self, ids: list[int]) -> None:
        reached = max(ids, default=0)
        if reached >= self._below:
            self._set_exact(self.seen + sum(each < self._below for each in ids))
            return
        self._above = reached
        gap = self._below - 1 - reached
        newer, older = self._density, min(len(ids) / max(reached, 1), 1.0)
        self._density = max(newer, older)
        self.seen += len(ids)
        self.most = self.seen + gap
        self.rows = self.seen + gap * (newer + older) / 2
        self.spread = gap * abs(newer - older) / 4
        self.basis = f"measured: about {round(self.rows):,} rows, at both ends of the list"

    def _learn_ids(self, hits: int) -> None:
        rest, share = self._below - self._above - 1, min(hits / max(len(self._ids), 1), 1.0)
        rows = self.seen + rest * share
        self.rows = (self.rows + rows) / 2 if self._is_sampled else rows
        self.most -= len(self._ids) - hits
        deviation = math.sqrt(max(share * (1 - share), 0.01) / max(len(self._ids), 1))
        self.spread = rest * deviation / (2 if self._is_sampled else 1)
        self._is_sampled = True
        self.basis = f"measured: about {round(self.rows):,} rows, by a sample of ids"

    def _learn_page(self, count: int, *, has_more: bool) -> None:
        """Take in a page from offset `_start` on; 0 for a list without offsets."""
        if has_more and count:
            self.seen = max(self.seen, self._start + count)
            self.rows = max(self.rows, self.seen * (1.25 if self._sorts_by_id() else 1.5))
            self.rows = self.rows if self.is_assumed else min(self.rows, self.most)
            self.most = max(self.most, self.rows * 2) if self.is_assumed else self.most
            self.spread = (self.most - (self.rows if self.is_assumed else self.seen)) / 4
            self.basis = f"measured: more than {round(self.seen):,} rows"
        elif count or not self._start:
            self._set_exact(self._start + count)
        else:
            self.most, self.is_assumed = min(self.most, self._start), False
            self.spread = (self.most - self.seen) / 4
            self.rows = min(self.rows, (self.seen + self.most) / 2)
            if self._sorts_by_id() and not self._is_short:
                self.rows, self.spread, self._is_short = max(self._start * 0.95, self.seen), self._start * 0.1, True
            self.basis = f"measured: at most {round(self.most):,} rows"
