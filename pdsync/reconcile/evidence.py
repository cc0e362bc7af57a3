"""Decides what became of a record that a list no longer shows. Absence alone is no evidence.

A record is gone only if an answer shows it as deleted, or if a request for it answers 404 while records that were just
listed answer 200 and the token is an administrator's, who sees everything. Otherwise the row stays alive, and the
verdict says what is known: that the record is hidden, that it exists, or nothing.
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
MAX_PROBES = 500  # for each stream and run; the rest waits for the next run


def find_item_operation(stream: Stream, prefer: Version) -> Operation | None:
    """The operation that reads one record of a stream; None where there is none."""
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


def default_max_tombstones(rows: int) -> int:
    """How many of `rows` may be marked as gone in one run without --max-tombstones: 2 %, but 10 to 100."""
    return min(100, max(10, rows * 2 // 100))


class ProbeResult(Struct, frozen=True):
    """The answer to a request for one record."""

    status: int  # 0: no usable answer
    record: dict[str, Any] | None = None
    body: bytes = b""


class Verdict(Struct, frozen=True):
    """What became of a record that no list shows."""

    key: str
    kind: str  # soft_deleted, purged, merged, converted, hidden, present, extra, absent_unknown
    evidence: str
    winner: str | None = None
    confidence: str | None = None

    @property
    def is_gone(self) -> bool:
        """Whether the record is known to be gone: only then is its row marked."""
        return self.kind in ("soft_deleted", "purged", "merged", "converted", "extra")


async def probe_records(http: Http, item: Operation, keys: Iterable[str]) -> dict[str, ProbeResult]:
    """Request records one by one; the answers by key.

    Raises:
        PdsyncError: no more requests are possible: the token is refused, the budget is spent, the server blocks.
    """
    wanted = list(keys)
    found = await asyncio.gather(*(_probe_one(http, item, key) for key in wanted))
    return dict(zip(wanted, found, strict=True))


async def _probe_one(http: Http, item: Operation, key: str) -> ProbeResult:
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


def do_canaries_answer(sightings: dict[str, ProbeResult]) -> bool:
    """Whether records that were just listed can be read: otherwise a 404 is no evidence."""
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
    """What became of one record.

    Args:
        stream: whose it is.
        key: its key.
        sighting: the answer to a request for it; None where there was no request.
        version: of the API.
        can_tell: whether a 404 is evidence in this run.
        why_not: why it is not.
        hidden: whether its parent, such as its pipeline, is no longer visible.
        unknown_here: whether no sealed page ever showed it.
        winners: the records to which those that pointed to it point now.
        converted_to: the record that names it as its origin.
    """
    if sighting is None:
        return Verdict(key, "absent_unknown", why_not)
    if sighting.status == 200 and sighting.record is not None:
        if not stream.says_deleted(sighting.record, version):
            return Verdict(key, "present", "a request for it finds it, though no list shows it")
        if converted_to:
            return Verdict(key, "converted", f"it became {converted_to}", converted_to, "exact")
        return Verdict(key, "soft_deleted", "a request for it shows it as deleted")
    if sighting.status == 403:
        return Verdict(key, "hidden", "this token may not see it")
    if sighting.status not in (404, 410):
        return Verdict(key, "absent_unknown", f"a request for it answered {sighting.status or 'nothing usable'}")
    if hidden:
        return Verdict(key, "hidden", "its parent is no longer visible to this token")
    if not can_tell:
        return Verdict(key, "absent_unknown", why_not)
    answer = f"a request for it answers {sighting.status}, while {CANARIES} others are found"
    return _judge_gone(key, answer, unknown_here=unknown_here, winners=winners - {key, None}, converted_to=converted_to)


def _judge_gone(
    key: str, answer: str, *, unknown_here: bool, winners: set[str | None], converted_to: str | None
) -> Verdict:
    """How a record went that is known to be gone: converted, merged, purged, or never the source's."""
    if converted_to:
        return Verdict(key, "converted", f"{answer}; it became {converted_to}", converted_to, "exact")
    if len(winners) == 1:
        (winner,) = winners
        return Verdict(key, "merged", f"{answer}; records that pointed to it point to {winner}", winner, "inferred")
    if unknown_here:
        return Verdict(key, "extra", f"{answer}; no answer ever showed it")
    return Verdict(key, "purged", answer)
