"""Stores in control.db how many records the lists have that were never read, as far as `plan` has measured it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from pdsync.model import Version  # noqa: TC001 - msgspec reads it at run time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pdsync.core.control import Control


class ListSize(Struct, frozen=True):
    """The number of records in a list; of those of a stream with a count above 0, where the source is that column."""

    stream: str
    source: str
    version: Version
    rows: int  # likely
    most: int  # an upper bound
    basis: str  # how it was found, for people
    is_assumed: bool = False  # the upper bound is no measurement


class ListSizes:
    """The sizes in a project's control.db."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def save(self, sizes: Iterable[ListSize]) -> None:
        """Store `sizes`, in place of earlier ones of the same lists."""
        now = datetime.now(UTC).isoformat()
        with self._control.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO list_sizes VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(*msgspec.structs.astuple(size), now) for size in sizes],
            )

    def load(self, max_age: timedelta | None = None) -> dict[tuple[str, str], ListSize]:
        """(stream, source) → its size; None: of whatever age."""
        since = (datetime.now(UTC) - max_age).isoformat() if max_age is not None else ""
        query = "SELECT stream, source, version, rows, most, basis, is_assumed FROM list_sizes WHERE measured_at >= ?"
        rows = [dict(zip(ListSize.__struct_fields__, row, strict=True)) for row in self._control.rows(query, since)]
        return {(size.stream, size.source): size for size in msgspec.convert(rows, list[ListSize], strict=False)}
