"""Plans are known by their hash, and which push carried one out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from tests.writeback.kit import COMPANY, open_outbox

if TYPE_CHECKING:
    from pathlib import Path


class Receipt(Struct):
    applied: int


def test_w9_a_plan_is_known_once_it_is_saved_and_names_the_push_that_carried_it_out(tmp_path: Path) -> None:
    log = open_outbox(tmp_path, journal=False).push_log
    assert log.plan("a") is None
    log.save_plan("a", COMPANY, 3)
    assert log.plan("a") == (COMPANY, None)
    log.start_push("push-1", "a")
    log.save_plan("a", COMPANY + 1, 3)  # saved already: it stays as it was
    assert log.plan("a") == (COMPANY, "push-1")


def test_pushes_come_newest_first_with_the_receipt_of_those_that_ended(tmp_path: Path) -> None:
    log = open_outbox(tmp_path, journal=False).push_log
    for id in ("push-1", "push-2", "push-3"):
        log.start_push(id, "a")
    log.finish_push("push-2", Receipt(5))
    found = log.pushes(2)
    assert [each["id"] for each in found] == ["push-3", "push-2"]
    assert [each["receipt"] for each in found] == [None, {"applied": 5}]
    assert [each["finished_at"] is None for each in found] == [True, False]
