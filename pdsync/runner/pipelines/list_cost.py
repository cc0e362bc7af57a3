"""Computes how many requests it takes to read a list for the first time: the only place where rows become requests.

A list is read page after page, or in windows side by side; pages of a list with offsets overlap. The number of rows is
measured (`measure`), or assumed as in schemas/sizes.toml.
"""

from __future__ import annotations

import math
import tomllib
from functools import cache
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.control.sizes import ListSize  # noqa: TC001 - part of the signatures
from pdsync.core.reading import side_by_side
from pdsync.extract.long_list import LONG
from pdsync.extract.pages import overlap
from pdsync.extract.parallel import UNDECIDED
from pdsync.model import Operation, Parent, Source, Stream, Version  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Mapping

_WINDOWS = 16  # pages of a long list for each one that is not full, because a window ends in it
_ENDS = 3  # requests of a list in windows besides: its newest and its oldest page, and what changed meanwhile
_CUTS = 20  # pages for each one that is requested twice, because windows of a list meet in it


class Assumption(Struct, frozen=True, forbid_unknown_fields=True):
    """What is assumed of a list that was never read: an entry of schemas/sizes.toml."""

    rows: float = 20
    most: float = 1000
    rows_per_deal: float = 0
    most_per_deal: float = 0
    unmarked: bool = False  # its pages do not say whether another one follows

    def likely_rows(self, deals: float) -> float:
        """The likely number of rows in a company, by its number of deals."""
        return self.rows + self.rows_per_deal * deals

    def most_rows(self, deals: float) -> float:
        """The upper bound of it."""
        return self.most + self.most_per_deal * deals


class Range(Struct, frozen=True):
    """What reading a list for the first time takes: a likely number and an upper bound."""

    rows: int  # of a list with a parent: the parents whose lists are read
    most_rows: int
    requests: int
    most_requests: int
    basis: str
    is_assumed: bool


@cache
def assumptions() -> dict[str, Assumption]:
    """`stream` or `stream.source` → what is assumed of the list.

    Raises:
        CatalogueError: an entry is invalid, or names a list that does not exist.
    """
    where = "schemas/sizes.toml"
    found = {}
    for name, entry in tomllib.loads((catalogue.schemas() / "sizes.toml").read_text(encoding="utf-8")).items():
        stream = catalogue.stream(name)
        names = {source.name for source in (*stream.v1, *stream.v2)}
        if entry.keys() <= names:
            for key, each in entry.items():
                found[f"{name}.{key}"] = catalogue.read(each, Assumption, f"{where} [{name}.{key}]")
        else:
            found[name] = catalogue.read(entry, Assumption, f"{where} [{name}]")
    return found


def assumption(stream: str, source: str) -> Assumption:
    """What is assumed of a list."""
    return assumptions().get(f"{stream}.{source}") or assumptions().get(stream) or Assumption()


def count_requests(operation: Operation, rows: float, *, unmarked: bool = False) -> int:
    """The requests that a list of `rows` rows takes, page after page.

    Args:
        operation: the list.
        rows: how many it has.
        unmarked: its pages do not say whether another one follows.
    """
    size = operation.page_size
    if operation.paging == "none" or not size:
        return 1
    if operation.paging == "cursor":
        return max(math.ceil(rows / size), 1)
    pages = 1 + max(math.ceil((rows - size) / (size - overlap(size))), 0)
    return pages + (unmarked and rows > 0)


def count_most_requests(operation: Operation, rows: float, *, unmarked: bool = False) -> int:
    """The most requests that a list of at most `rows` rows takes, however it is read."""
    requests = count_requests(operation, rows, unmarked=unmarked)
    return requests + requests // _CUTS + (requests > 2)


def estimate_unread(
    stream: Stream, source: Source, prefer: Version, sizes: Mapping[tuple[str, str], ListSize]
) -> Range | None:
    """What reading a list for the first time takes; None where it is not known.

    Args:
        stream: of the list.
        source: the list.
        prefer: the version of the API that is read where there is a choice.
        sizes: what was measured or assumed, by stream and source.
    """
    version, _ = stream.sources(prefer)
    operation = catalogue.operations(version)[source.operation]
    if source.parent:
        return _estimate_by_parent(stream, source, source.parent, prefer, sizes)
    if operation.paging == "none":
        return Range(1, 1, 1, 1, "one request", False)
    size = sizes.get((stream.name, source.name))
    if size is None or size.version != version:
        return None
    unmarked = assumption(stream.name, source.name).unmarked
    requests = count_requests(operation, size.rows, unmarked=unmarked)
    most_requests = count_most_requests(operation, size.most, unmarked=unmarked)
    if side_by_side(stream, source, operation) == "windows":
        requests += _count_extra(requests, LONG + UNDECIDED)
        most_requests += _count_extra(most_requests, LONG)
    return Range(size.rows, size.most, requests, most_requests, size.basis, size.is_assumed)


def _count_extra(pages: int, long: int) -> int:
    """The requests besides those of its pages that a list takes which can be read in windows, if `long` pages are."""
    if pages >= long:
        return _ENDS + pages // _WINDOWS
    return int(pages > UNDECIDED)  # one to see that it is not long


def _estimate_by_parent(
    stream: Stream,
    source: Source,
    parent: Parent,
    prefer: Version,
    sizes: Mapping[tuple[str, str], ListSize],
) -> Range | None:
    operation = catalogue.operations(stream.sources(prefer)[0])[source.operation]
    lists = [sizes.get((parent.stream, each.name)) for each in catalogue.stream(parent.stream).sources(prefer)[1]]
    parents = [size for size in lists if size]
    if len(parents) < len(lists):
        return None
    rows, most = sum(size.rows for size in parents), sum(size.most for size in parents)
    basis = f"about {rows:,} {parent.stream}"
    is_assumed = any(size.is_assumed for size in parents)
    if parent.having and (counted := sizes.get((parent.stream, parent.having))):
        rows, most, basis, is_assumed = counted.rows, counted.most, counted.basis, counted.is_assumed
    unmarked = assumption(stream.name, source.name).unmarked
    each = count_requests(operation, 1, unmarked=unmarked and not parent.counts)
    requests, most_requests = math.ceil(rows / parent.batch) * each, math.ceil(most / parent.batch) * each
    if unmarked and parent.counts:  # the lists whose count may be a full page take one request more
        most_requests += math.ceil(most / 2)
    if parent.batch > 1:  # the lists of several parents may take more than a page
        children = sizes.get((parent.stream, f"sum of {parent.having}"))
        if children and rows:
            requests = max(requests, count_requests(operation, children.rows))
        if children and most:
            most_requests += count_requests(operation, children.most)
    return Range(rows, most, requests, most_requests, basis, is_assumed)
