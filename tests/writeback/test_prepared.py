"""What a mutation is, worked out once: body, addresses, faults, and the ids that its references stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.writeback.outbox import Reference
from pdsync.writeback.prepared import HeldBack, prepare, prepare_to_send
from tests.writeback.kit import bring_to, entry, open_outbox

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.writeback.outbox import Outbox


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return open_outbox(tmp_path)


@pytest.mark.parametrize(
    ("operation", "payload", "addresses", "body"),
    [
        ("v2 updateDeal", {"id": 12, "title": "A"}, ["deals/12"], {"title": "A"}),
        ("v2 deleteDeal", {"id": 12}, ["deals/12"], {}),
        ("v1 mergeDeals", {"id": 12, "merge_with_id": 7}, ["deals/12", "deals/7"], {"merge_with_id": 7}),
        ("v2 addDeal", {"title": "A"}, [], {"title": "A"}),
        ("v2 deleteManyDealProducts", {"id": 12, "ids": "1,2"}, [], {}),
        ("v2 updateDeal", {"id": 12, "titel": "A"}, [], {"titel": "A"}),  # a fault: nothing is read for it
    ],
)
def test_addresses_and_body(
    outbox: Outbox, operation: str, payload: dict[str, Any], addresses: list[str], body: dict[str, Any]
) -> None:
    prepared = prepare(outbox.add([entry(operation, payload)])[0])
    assert [each.target for each in prepared.addresses] == addresses
    assert prepared.body == body


def test_w1_what_waits_for_an_operation_that_has_ended_since_is_refused(outbox: Outbox) -> None:
    prepared = prepare(outbox.add([entry("v1 addChannel", {"name": "Chat", "provider_channel_id": "c1"})])[0])
    assert prepared.fault == ("removed", f"v1 addChannel: {catalogue.operation('addChannel').ended}")


def test_a_reference_is_valid_and_has_no_address_until_its_record_is_added(outbox: Outbox) -> None:
    added = entry("v2 addDeal", {"title": "A"}, name="deal")
    _, update = outbox.add([added, entry("v2 updateDeal", {"id": Reference("deal"), "title": "B"})])
    assert (prepare(update).addresses, prepare(update).fault) == ((), None)


def test_w5_a_reference_is_filled_in_once_its_record_is_added(outbox: Outbox) -> None:
    added = entry("v2 addDeal", {"title": "A"}, name="deal")
    add, update = outbox.add([added, entry("v2 updateDeal", {"id": Reference("deal"), "title": "B"})])
    with pytest.raises(HeldBack, match=f"#{add.seq}"):
        prepare_to_send(outbox, update, update.payload)
    bring_to(outbox, "applied", add, remote_id="34")
    prepared = prepare_to_send(outbox, update, update.payload)
    assert [each.target for each in prepared.addresses] == ["deals/34"]


def test_w5_what_refers_to_an_addition_that_was_rejected_is_held_back(outbox: Outbox) -> None:
    add, update = outbox.add(
        [
            entry("v2 addDeal", {"title": "A"}, name="deal"),
            entry("v2 updateDeal", {"id": Reference("deal"), "title": "B"}),
        ]
    )
    bring_to(outbox, "rejected", add)
    with pytest.raises(HeldBack):
        prepare_to_send(outbox, update, update.payload)


def test_w4_an_addition_has_a_marker_where_its_operation_takes_one(outbox: Outbox) -> None:
    lead, deal = outbox.add([entry("v1 addLead", {"title": "A", "person_id": 3}), entry("v2 addDeal", {"title": "A"})])
    assert prepare_to_send(outbox, lead, lead.payload).payload["origin_id"] == f"pdsync:{lead.id}"
    assert "origin_id" not in prepare_to_send(outbox, deal, deal.payload).payload


def test_a_completed_payload_changes_the_body_and_not_the_address(outbox: Outbox) -> None:
    prepared = prepare(outbox.add([entry()])[0])
    completed = prepared.with_payload({"id": 12, "title": "Completed"})
    assert (completed.body, completed.addresses) == ({"title": "Completed"}, prepared.addresses)
