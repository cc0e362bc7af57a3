"""What counts as evidence that a record is gone: every verdict, and the limits of what may be marked at once."""

from __future__ import annotations

from typing import Any

import pytest

from pdsync.core import catalogue
from pdsync.reconcile import evidence
from pdsync.reconcile.evidence import ProbeResult, Verdict, default_max_tombstones, do_canaries_answer, judge

DEALS, LEADS = catalogue.stream("deals"), catalogue.stream("leads")
THERE = ProbeResult(200, {"id": 7, "is_deleted": False})
DELETED = ProbeResult(200, {"id": 7, "is_deleted": True})
GONE = ProbeResult(404)


def verdict(probe: ProbeResult | None, **facts: Any) -> Verdict:
    usual: dict[str, Any] = {
        "version": "v2", "is_404_evidence": True, "reason": "", "parent_is_hidden": False, "was_never_read": False,
        "winners": set(), "converted_to": None,
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
        (DELETED, {"is_404_evidence": False}, "soft_deleted"),  # an answer needs no canary
        (ProbeResult(200), {}, "absent_unknown"),  # 200 without a record
        (ProbeResult(403), {}, "hidden"),
        (ProbeResult(0), {}, "absent_unknown"),
        (ProbeResult(500), {}, "absent_unknown"),
        (GONE, {}, "purged"),
        (ProbeResult(410), {}, "purged"),
        (GONE, {"is_404_evidence": False, "reason": "no administrator"}, "absent_unknown"),
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
    assert verdict(GONE, is_404_evidence=False, reason="no administrator").evidence == "no administrator"


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
