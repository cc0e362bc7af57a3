"""The page of a plan links each record that exists to Pipedrive, and nothing else."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs

from pdsync.cli.plan_html import render_page
from pdsync.writeback.plan import LIFE, Change, Plan, Step

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
LEAD = "adf21080-0e10-11eb-879b-05d71fb426ec"


def page(target: str | None, domain: str | None = "acme", **more: Any) -> str:
    changes = (Change("title", "Old", "<New>"),)
    step = Step(
        "id", 1, "v2 updateDeal", "update", "deals", target, "A <title>", {}, {}, changes, 1, 5, "send", seen=True
    )
    plan = Plan(1, "Acme", NOW, NOW + LIFE, "field", (structs.replace(step, **more),), 7, domain=domain)
    return render_page(plan, None)


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("deals/7", "https://acme.pipedrive.com/deal/7"),
        ("persons/8", "https://acme.pipedrive.com/person/8"),
        ("organizations/9", "https://acme.pipedrive.com/organization/9"),
        ("products/10", "https://acme.pipedrive.com/product/10"),
        (f"leads/{LEAD}", f"https://acme.pipedrive.com/leads/inbox/{LEAD}"),
        ("deals/7/products/3", "https://acme.pipedrive.com/deal/7"),
    ],
)
def test_a_record_is_linked_to_its_page_in_pipedrive(target: str, url: str) -> None:
    text = page(target)
    assert f'<a href="{url}" target="_blank" rel="noopener noreferrer">{target}</a>' in text
    assert re.findall(r"https?://[^\"]+", text) == [url]
    assert "&lt;New&gt;" in text


@pytest.mark.parametrize(
    ("target", "domain", "more"),
    [
        (None, "acme", {}),  # it is added
        ("deals/7", None, {}),
        ("deals/7", 'evil.com/"onload=x', {}),
        ("deals/7", "acme", {"seen": False}),
        ("deals/7", "acme", {"fate": "conflict", "reason": "target_gone"}),
        ('deals/7"><script>', "acme", {}),
        ("activities/7", "acme", {}),  # has no page of its own
    ],
)
def test_what_has_no_page_is_not_linked(target: str | None, domain: str | None, more: dict[str, Any]) -> None:
    text = page(target, domain, **more)
    assert "<a " not in text
    assert "://" not in text
    assert "<script" not in text
