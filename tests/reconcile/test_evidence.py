"""What counts as evidence that a record is gone: every verdict, and the limits of what may be marked at once."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from pdsync.core import catalogue
from pdsync.core.answer import Answer
from pdsync.errors import NotFound
from pdsync.reconcile import evidence
from pdsync.reconcile.evidence import ProbeResult, Verdict, default_max_tombstones, do_canaries_answer, judge
from tests.runner.kit import ADMIN, T0

if TYPE_CHECKING:
    from pdsync.core.http import Http
    from pdsync.core.request_builder import Call
    from pdsync.model import Operation, Stream, Version

DEALS, LEADS = catalogue.stream("deals"), catalogue.stream("leads")
THERE = ProbeResult(200, {"id": 7, "is_deleted": False})
DELETED = ProbeResult(200, {"id": 7, "is_deleted": True})
GONE = ProbeResult(404)


def verdict(probe: ProbeResult | None, **facts: Any) -> Verdict:
    usual: dict[str, Any] = {
        "version": "v2", "canaries": 20, "reason": "", "parent_is_hidden": False,
        "was_never_read": False, "winners": set(), "converted_to": None,
    }  # fmt: skip
    return judge(DEALS, "7", probe, **usual | facts)


@pytest.mark.parametrize(
    ("probe", "facts", "kind"),
    [
        (None, {"reason": "not probed"}, "absent_unknown"),
        (THERE, {}, "present"),
        (THERE, {"converted_to": "leads/x"}, "present"),  # the record itself is there: nothing else counts
        (DELETED, {}, "soft_deleted"),
        (DELETED, {"converted_to": "leads/x"}, "converted"),
        (DELETED, {"canaries": 0}, "soft_deleted"),  # an answer needs no canary
        (ProbeResult(200), {}, "absent_unknown"),  # 200 without a record
        (ProbeResult(403), {}, "hidden"),
        (ProbeResult(0), {}, "absent_unknown"),
        (ProbeResult(500), {}, "absent_unknown"),
        (GONE, {}, "purged"),
        (ProbeResult(410), {}, "purged"),
        (GONE, {"canaries": 0, "reason": "no administrator"}, "absent_unknown"),
        (GONE, {"parent_is_hidden": True}, "hidden"),
        (GONE, {"parent_is_hidden": True, "winners": {"9"}}, "hidden"),
        (GONE, {"winners": {"9"}}, "merged"),
        (GONE, {"winners": {"9", None}}, "merged"),  # some no longer point anywhere
        (GONE, {"winners": {"7"}}, "purged"),  # they still point to the record itself
        (GONE, {"winners": {"8", "9"}}, "purged"),  # no single winner
        (GONE, {"converted_to": "leads/x", "winners": {"9"}}, "converted"),
        (GONE, {"was_never_read": True}, "extra"),
        (GONE, {"was_never_read": True, "winners": {"9"}}, "merged"),
    ],
)
def test_s8_only_evidence_makes_a_record_gone(probe: ProbeResult | None, facts: dict[str, Any], kind: str) -> None:
    assert verdict(probe, **facts).kind == kind


def test_s8_the_verdict_names_its_evidence_and_the_winner() -> None:
    merged = verdict(GONE, winners={"9"})
    assert (merged.winner, merged.confidence) == ("9", "inferred")
    assert "404" in merged.evidence
    assert verdict(GONE, converted_to="leads/x").winner == "leads/x"
    assert verdict(None, reason="only 500 per run").evidence == "only 500 per run"
    assert verdict(GONE, canaries=0, reason="no administrator").evidence == "no administrator"


@pytest.mark.parametrize(
    ("kind", "is_gone"),
    [("soft_deleted", True), ("purged", True), ("merged", True), ("converted", True), ("extra", True),
     ("hidden", False), ("present", False), ("absent_unknown", False), ("stale", False)],
)  # fmt: skip
def test_s8_only_these_verdicts_mark_a_row(kind: str, is_gone: bool) -> None:
    assert Verdict("7", kind, "").is_gone is is_gone


@pytest.mark.parametrize(
    ("rows", "most"), [(0, 10), (100, 10), (500, 10), (549, 10), (550, 11), (4_999, 99), (5_000, 100), (10**6, 100)]
)
def test_the_limit_of_rows_that_may_be_gone_at_once(rows: int, most: int) -> None:
    assert default_max_tombstones(rows) == most


@pytest.mark.parametrize(
    ("canaries", "result"),
    [({}, False), ({"1": THERE}, True), ({"1": THERE, "2": GONE}, False), ({"1": ProbeResult(200)}, False)],
)
def test_s8_a_404_counts_only_while_canaries_answer(canaries: dict[str, ProbeResult], result: bool) -> None:
    assert do_canaries_answer(canaries) is result


@pytest.mark.parametrize(("stream", "operation"), [("deals", "getDeal"), ("leads", "getLead"), ("deal_fields", None)])
def test_the_operation_that_reads_one_record(stream: str, operation: str | None) -> None:
    item = evidence.find_item_operation(catalogue.stream(stream), "v2")
    if operation is not None:
        assert item is not None
        assert item.id == operation
    else:
        assert item is None or "{" in item.path


@pytest.mark.parametrize("lost", ["rights", "records"])
def test_s8_what_a_token_loses_while_records_are_requested_is_not_taken_for_deleted(lost: str) -> None:
    class Losing:
        """Answers the first canary; then the token may read less."""

        requests = 0

        async def carry_out(self, call: Call) -> Answer:
            self.requests += 1
            if call.path.endswith("/7") or (self.requests > 1 and lost == "records"):
                raise NotFound("no", status=404, operation="getDeal")
            return answer({"id": 1, "is_deleted": False})

        async def call(self, operation: Operation) -> Answer:
            return answer({"id": 1, "name": "x", "company_id": 1, "access": [] if lost == "rights" else ADMIN.access})

    def answer(data: dict[str, Any]) -> Answer:
        return Answer(200, {}, json.dumps({"success": True, "data": data}).encode(), T0)

    item = evidence.find_item_operation(DEALS, "v2")
    probes, reason = asyncio.run(
        evidence.probe_absent(cast("Http", Losing()), item, ["7"], canaries=["1"], was_admin=True)
    )
    assert probes["7"].status == 404
    assert (
        reason
        == {
            "rights": "this token is not an administrator's: records that it can't see may exist",
            "records": "records that were just listed can't be read either",
        }[lost]
    )


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("stream", catalogue.streams().values(), ids=lambda stream: stream.name)
def test_s7_a_single_record_is_requested_by_the_key_of_its_row(stream: Stream, version: Version) -> None:
    """v1 reads a field's definition by its number, and the row's key is the field's code: that is no request for it."""
    if item := evidence.find_item_operation(stream, version):
        assert list(item.path_params) == [stream.column(stream.key).path(stream.key, item.version)]
