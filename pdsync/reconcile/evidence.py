"""Decides what happened to a record that a list no longer shows. Absence alone is no evidence.

A record is deleted only if an answer shows it as deleted, or if a request for it answers 404 while records that were
just listed answer 200 and the token is an administrator's, who sees everything. Otherwise the row stays alive, and the
verdict says what is known: the record is hidden, it exists, or its state is unknown.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.account import fetch_account
from pdsync.core.list_response import record_in
from pdsync.core.request_builder import check
from pdsync.core.wording import counted
from pdsync.errors import ApiError, BadAnswer, FeatureOff, Forbidden, NotFound, ServerTrouble

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pdsync.core.http import Http
    from pdsync.model import Operation, Stream, Version

CANARIES = 20
MAX_PROBES = 500  # per stream and run; the others are left for the next run
_GONE = (404, 410)  # statuses


def find_item_operation(stream: Stream, prefer: Version) -> Operation | None:
    """The operation that reads one record of a stream by its key; None if there is none.

    v1 reads the definition of a field by a number, which is not its key.
    """
    version, sources = stream.sources(prefer)
    listed = catalogue.operations(version)[sources[0].operation].path
    key = stream.column(stream.key).path(stream.key, version)
    return next(
        (
            each for each in catalogue.operations(version).values()
            if each.method == "GET" and not each.removed and not each.binary
            and each.path == f"{listed}/{{{key}}}"
        ),
        None,
    )  # fmt: skip


def default_max_tombstones(rows: int) -> int:
    """How many of `rows` one run may mark as deleted without --max-tombstones: 2 %, but at least 10 and at most 100."""
    return min(100, max(10, rows * 2 // 100))


class ProbeResult(Struct, frozen=True):
    """The answer to a request for one record."""

    status: int  # 0: no usable answer
    record: dict[str, Any] | None = None
    body: bytes = b""


class Verdict(Struct, frozen=True):
    """What happened to a record that no list shows."""

    key: str
    kind: str  # soft_deleted, purged, merged, converted, hidden, present, extra, absent_unknown
    evidence: str
    winner: str | None = None
    confidence: str | None = None

    @property
    def is_gone(self) -> bool:
        """Whether the record is known to be deleted: only then is its row marked."""
        return self.kind in ("soft_deleted", "purged", "merged", "converted", "extra")


async def probe_records(http: Http, item: Operation, keys: Iterable[str]) -> dict[str, ProbeResult]:
    """Request records one by one; the answers by key.

    Raises:
        PdsyncError: no more requests are possible: the token is refused, the budget is spent, the server blocks.
    """
    requested = list(keys)
    results = await asyncio.gather(*(_probe_one(http, item, key) for key in requested))
    return dict(zip(requested, results, strict=True))


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


async def probe_absent(
    http: Http, item: Operation | None, absent: Sequence[str], *, canaries: Sequence[str], was_admin: bool
) -> tuple[dict[str, ProbeResult], str]:
    """Request absent records one by one; the answers by key, and why a 404 among them is no evidence ("" if it is).

    Rights and canaries are checked before the probes and after them: a right that is lost meanwhile hides records.

    Args:
        http: makes the requests.
        item: the operation that reads one record; None if there is none.
        absent: the keys of records that no list shows; of too many, only the first are requested.
        canaries: the keys of records that were just listed.
        was_admin: whether the token was an administrator's when the run began.

    Raises:
        PdsyncError: no more requests are possible: the token is refused, the budget is spent, the server blocks.
    """
    if item is None:
        return {}, "no operation reads a single one"
    before = await probe_records(http, item, canaries)
    probes = await probe_records(http, item, absent[:MAX_PROBES])
    reason = weigh_404(is_admin=was_admin, canaries=before)
    if not reason and any(each.status in _GONE for each in probes.values()):
        after = await probe_records(http, item, canaries)
        reason = weigh_404(is_admin=(await fetch_account(http)).is_admin, canaries=after)
    return probes, reason


def weigh_404(*, is_admin: bool, canaries: dict[str, ProbeResult]) -> str:
    """Why a 404 is no evidence; "" if it is.

    Args:
        is_admin: whether the token is an administrator's, who sees everything.
        canaries: the answers to requests for records that were just listed.
    """
    if not is_admin:
        return "this token is not an administrator's: records that it can't see may exist"
    if not do_canaries_answer(canaries):
        return "records that were just listed can't be read either"
    return ""


def do_canaries_answer(canaries: dict[str, ProbeResult]) -> bool:
    """Whether records that were just listed can be read: otherwise a 404 is no evidence."""
    return bool(canaries) and all(each.status == 200 and each.record for each in canaries.values())


def judge(
    stream: Stream,
    key: str,
    probe: ProbeResult | None,
    *,
    version: Version,
    canaries: int,
    reason: str,
    parent_is_hidden: bool,
    was_never_read: bool,
    winners: set[str | None],
    converted_to: str | None,
) -> Verdict:
    """Decide what happened to one record.

    Args:
        stream: of the record.
        key: of the record.
        probe: the answer to a request for it; None if it was not requested.
        version: of the API.
        canaries: how many records that were just listed are found; 0 if a 404 is no evidence in this run.
        reason: why it is not, or why there was no request.
        parent_is_hidden: whether its parent, such as its pipeline, is no longer visible.
        was_never_read: whether no sealed page ever showed it.
        winners: the records to which those that pointed to it point now.
        converted_to: the record that names it as its origin.
    """
    if probe is None:
        return Verdict(key, "absent_unknown", reason)
    if probe.status == 200 and probe.record is not None:
        if not stream.says_deleted(probe.record, version):
            return Verdict(key, "present", "a request for it finds it, though no list shows it")
        if converted_to:
            return Verdict(key, "converted", f"it became {converted_to}", converted_to, "exact")
        return Verdict(key, "soft_deleted", "a request for it shows it as deleted")
    if probe.status == 403:
        return Verdict(key, "hidden", "this token may not see it")
    if probe.status not in _GONE:
        return Verdict(key, "absent_unknown", f"a request for it answered {probe.status or 'nothing usable'}")
    if parent_is_hidden:
        return Verdict(key, "hidden", "its parent is no longer visible to this token")
    if not canaries:
        return Verdict(key, "absent_unknown", reason)
    others = f"{counted(canaries, 'other')} {'is' if canaries == 1 else 'are'} found"
    answer = f"a request for it answers {probe.status}, while {others}"
    return _judge_gone(
        key, answer, was_never_read=was_never_read, winners=winners - {key, None}, converted_to=converted_to
    )


def _judge_gone(
    key: str, answer: str, *, was_never_read: bool, winners: set[str | None], converted_to: str | None
) -> Verdict:
    """How a record was deleted: converted, merged or purged; or it never existed at the source (`extra`)."""
    if converted_to:
        return Verdict(key, "converted", f"{answer}; it became {converted_to}", converted_to, "exact")
    if len(winners) == 1:
        (winner,) = winners
        return Verdict(key, "merged", f"{answer}; records that pointed to it point to {winner}", winner, "inferred")
    if was_never_read:
        return Verdict(key, "extra", f"{answer}; no answer ever showed it")
    return Verdict(key, "purged", answer)
