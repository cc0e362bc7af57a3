"""How much of a list can be requested at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pdsync.model import Operation, Source, Stream

SideBySide = Literal["windows", "pages", "parents", "no"]


def divisible(operation: Operation) -> bool:
    """Whether a list can be limited to changes within a window of time, in their order."""
    return {"updated_since", "updated_until", "sort_by", "sort_direction"} <= operation.query.keys()


def side_by_side(stream: Stream, source: Source, operation: Operation) -> SideBySide:
    """What is requested at the same time of a whole list that is long: windows of time, pages, the lists of parents.

    Args:
        stream, source: the list.
        operation: that returns it.
    """
    if source.parent:
        return "parents"
    if operation.paging == "offset":
        return "pages"
    return "windows" if stream.cursor and divisible(operation) else "no"
