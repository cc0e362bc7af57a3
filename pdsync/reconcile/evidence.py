"""Decides what it means that a list no longer shows a record. Absence alone means nothing.

A record is taken for gone only if it is shown as deleted, or if asking for it by itself answers 404 while records that
were just listed answer 200, and while the token is an administrator's, who sees everything. Everything else leaves the
row alive and says what is known: that it is hidden, that it is there after all, or nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.list_response import record_in
from pdsync.core.request_builder import check
from pdsync.errors import ApiError, BadAnswer, FeatureOff, Forbidden, NotFound, ServerTrouble

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pdsync.core.http import Http
    from pdsync.model import Operation, Stream, Version

CANARIES = 20
MOST = 500  # single reads a stream and run; what is beyond them waits


def item(stream: Stream, prefer: Version) -> Operation | None:
    """What reads one record of a stream by itself; None where nothing does."""
    version, sources = stream.sources(prefer)
    listed = catalogue.operations(version)[sources[0].operation].path
    return next(
        (
            each for each in catalogue.operations(version).values()
            if each.method == "GET" and not each.removed and not each.binary
            and each.path.startswith(f"{listed}/{{") and each.path.count("/") == listed.count("/") + 1
        ),
        None,
    )  # fmt: skip


def most_gone(rows: int) -> int:
    """How many of `rows` may be gone at once without more to say so: 2 %, at least 10 and at most 100."""
    return min(100, max(10, rows * 2 // 100))


class ProbeResult(Struct, frozen=True):
    """What asking for one record by itself gave."""

    status: int  # 0: no usable answer
    record: dict[str, Any] | None = None
    body: bytes = b""


class Verdict(Struct, frozen=True):
    """What has become of a record that no list shows."""

    key: str
    kind: str  # soft_deleted, purged, merged, converted, hidden, present, extra, absent_unknown
    evidence: str
    winner: str | None = None
    confidence: str | None = None

    @property
    def is_gone(self) -> bool:
        """Whether it is known to be gone: nothing else buries a row."""
        return self.kind in ("soft_deleted", "purged", "merged", "converted", "extra")


async def probe_records(http: Http, item: Operation, keys: Iterable[str]) -> dict[str, ProbeResult]:
    """Ask for records one by one.

    Raises:
        PdsyncError: nothing more can be asked: the token is refused, the budget is spent, the server blocks.
    """
    wanted = list(keys)
    found = await asyncio.gather(*(_one(http, item, key) for key in wanted))
    return dict(zip(wanted, found, strict=True))


async def _one(http: Http, item: Operation, key: str) -> ProbeResult:
    param = list(item.path_params)[-1]
    try:
        answer = await http.carry_out(check(item, {param: key}))
        return ProbeResult(answer.status, record_in(answer.body), answer.body)
    except NotFound as error:
        return ProbeResult(error.status)
    except (Forbidden, FeatureOff) as error:
        return ProbeResult(error.status)
    except ApiError as error:
        return ProbeResult(error.status)
    except (ServerTrouble, BadAnswer):
        return ProbeResult(0)


def healthy(sightings: dict[str, ProbeResult]) -> bool:
    """Whether records that are known to be there can be read: otherwise a 404 says nothing."""
    return bool(sightings) and all(each.status == 200 and each.record for each in sightings.values())


def judge(
    stream: Stream,
    key: str,
    sighting: ProbeResult | None,
    *,
    version: Version,
    can_tell: bool,
    why_not: str,
    hidden: bool,
    unknown_here: bool,
    winners: set[str | None],
    converted_to: str | None,
) -> Verdict:
    """What has become of one record.

    Args:
        stream: whose it is.
        key: its key.
        sighting: what asking for it gave; None where nobody asked.
        version: of the API that was asked.
        can_tell: whether a 404 is evidence in this run.
        why_not: why it is not.
        hidden: whether what it belongs to, such as its pipeline, can't be seen any more.
        unknown_here: whether no sealed page ever showed it.
        winners: to whom those point now that pointed to it.
        converted_to: the record that says it was made of it.
    """
    if sighting is None:
        return Verdict(key, "absent_unknown", why_not)
    if sighting.status == 200 and sighting.record is not None:
        if not stream.says_deleted(sighting.record, version):
            return Verdict(key, "present", "there when asked for, though no list shows it")
        if converted_to:
            return Verdict(key, "converted", f"it became {converted_to}", converted_to, "exact")
        return Verdict(key, "soft_deleted", "shown as deleted when asked for")
    if sighting.status == 403:
        return Verdict(key, "hidden", "this token may not see it")
    if sighting.status not in (404, 410):
        return Verdict(key, "absent_unknown", f"asking for it answered {sighting.status or 'nothing usable'}")
    if hidden:
        return Verdict(key, "hidden", "what it belongs to is not visible to this token any more")
    if not can_tell:
        return Verdict(key, "absent_unknown", why_not)
    said = f"{sighting.status} when asked for, while {CANARIES} others answer"
    return _gone(key, said, unknown_here=unknown_here, winners=winners - {key, None}, converted_to=converted_to)


def _gone(key: str, said: str, *, unknown_here: bool, winners: set[str | None], converted_to: str | None) -> Verdict:
    """How a record has gone that is known to be gone."""
    if converted_to:
        return Verdict(key, "converted", f"{said}; it became {converted_to}", converted_to, "exact")
    if len(winners) == 1:
        (winner,) = winners
        return Verdict(key, "merged", f"{said}; what hung on it hangs on {winner}", winner, "inferred")
    if unknown_here:
        return Verdict(key, "extra", f"{said}; no answer ever showed it")
    return Verdict(key, "purged", said)
