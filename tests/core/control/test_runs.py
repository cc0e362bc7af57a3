"""A project's company, and its runs in the order in which they began."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pdsync.core.control import ONLY_ARCHIVED
from pdsync.errors import WrongCompany
from pdsync.model import IncompleteStream, Receipt, StreamReceipt

from .kit import NOW

if TYPE_CHECKING:
    from pdsync.core.control import Control


def test_x1_a_project_belongs_to_one_company_for_good(control: Control) -> None:
    assert control.company() is None
    control.check_company(7, "anyone")
    control.bind_company(7, "Acme", "acme")
    control.bind_company(7, "Acme & Co", "acme-and-co")  # names and domains may change
    assert control.company() == (7, "Acme & Co")
    before = control.path.read_bytes(), control.path.with_name("control.db-wal").read_bytes()
    with pytest.raises(WrongCompany) as caught:
        control.bind_company(8, "Acme & Co", "acme-and-co")
    with pytest.raises(WrongCompany):
        control.check_company(8, "Acme & Co")
    assert (caught.value.expected, caught.value.found) == (7, 8)
    assert (control.path.read_bytes(), control.path.with_name("control.db-wal").read_bytes()) == before


def test_s9_a_run_that_was_killed_has_a_receipt_without_an_end(control: Control) -> None:
    done = Receipt(
        "b",
        "sync",
        NOW,
        NOW + timedelta(minutes=1),
        {"deals": StreamReceipt(read=3)},
        [IncompleteStream("x", "failed", "no")],
        10,
    )
    control.start_run("a", "sync deals", NOW - timedelta(hours=1))
    control.start_run("b", "sync", NOW)
    control.start_run("c", "replay", NOW + timedelta(hours=1))
    control.finish_run(done)
    killed, finished, oldest = control.receipts(9)
    assert (killed.run_id, killed.command, killed.finished_at, killed.complete) == ("c", "replay", None, False)
    assert finished == done
    assert oldest.run_id == "a"
    assert [receipt.run_id for receipt in control.receipts(1)] == ["c"]


def test_runs_from_the_archive_are_inserted_by_time_and_the_others_keep_their_order(
    control: Control,
) -> None:
    for name, hour in (("second", 2), ("clock set back", 1), ("fifth", 5)):
        control.start_run(name, "sync", NOW.replace(hour=hour))
    control.restore_from_archive(
        [("first", NOW.replace(hour=0)), ("fourth", NOW.replace(hour=4)), ("fifth", NOW)], [], [], {}
    )
    assert list(control.run_order()) == ["first", "second", "clock set back", "fourth", "fifth"]
    assert [receipt.command for receipt in control.receipts(-1)] == [
        "sync",
        ONLY_ARCHIVED,
        "sync",
        "sync",
        ONLY_ARCHIVED,
    ]


def test_receipts_that_this_state_lacks_are_taken_over_and_its_own_stay(control: Control) -> None:
    own = Receipt("b", "sync", NOW, NOW + timedelta(minutes=1))
    control.start_run("b", "sync", NOW)
    control.finish_run(own)
    control.start_run("c", "replay", NOW + timedelta(hours=2))  # killed
    older = Receipt("a", "sync deals", NOW - timedelta(hours=1), NOW)
    killed = Receipt("c", "replay --all", NOW + timedelta(hours=2), NOW + timedelta(hours=3))
    control.restore_receipts([older, Receipt("b", "another", NOW, NOW), killed])
    assert control.receipts(9) == [killed, own, older]
