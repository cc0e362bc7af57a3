"""A queued change in one line shows the values exactly as they are sent, amounts with their currency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.cli.queue_overview import summarize
from pdsync.writeback.resolver import NameResolver
from tests.writeback.company import AMOUNT, open_company
from tests.writeback.kit import entry, open_outbox

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("operation", "payload", "shown"),
    [
        ("v2 updateDeal", {"id": 12, "value": 99999.99}, "value=99,999.99 SEK"),
        ("v2 updateDeal", {"id": 12, "value": 19850, "title": "20000"}, "value=19,850 SEK, title=20000"),
        ("v2 updateDeal", {"id": 12, "value": 123456.78, "currency": "EUR"}, "value=123,456.78 EUR, currency=EUR"),
        ("v2 updateDeal", {"id": 13, "value": 12345.67}, "value=12,345.67"),
        ("v2 updateDeal", {"id": 12, "value": None, "org_id": 12345}, "value=null, org_id=12345"),
        ("v2 updateDeal", {"id": 12, "custom_fields": {AMOUNT: {"value": 1010.5, "currency": "USD"}}},
         "Amount due=1,010.50 USD"),
        ("v2 addDeal", {"title": "New", "value": 1234567.891}, "title=New, value=1,234,567.891"),
        ("v1 updateLead", {"id": "a" * 8 + "-0000-4000-8000-" + "0" * 12, "value": {"amount": 5000, "currency": "EUR"}},
         "value=5,000 EUR"),
    ],
)  # fmt: skip
def test_a_change_in_one_line_shows_what_is_sent(
    tmp_path: Path, operation: str, payload: dict[str, Any], shown: str
) -> None:
    with open_company() as warehouse:
        warehouse.execute("CREATE TABLE deals (id BIGINT, title VARCHAR, currency VARCHAR, _deleted_at TIMESTAMPTZ)")
        warehouse.execute("INSERT INTO deals VALUES (12, 'Old', 'SEK', NULL)")
        (mutation,) = open_outbox(tmp_path).add([entry(operation, payload)])
        assert summarize(NameResolver(warehouse), mutation) == shown
