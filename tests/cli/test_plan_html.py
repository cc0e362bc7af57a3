"""The page of a plan is plain to a manager, links each record that exists to Pipedrive, and escapes everything."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html import unescape
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from msgspec import structs

from pdsync.cli.plan_html import render_page
from pdsync.cli.plan_labels import PlanLabels
from pdsync.writeback.company_names import CompanyNames
from pdsync.writeback.plan import LIFE, Change, Plan, Step
from tests.support import browser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
LEAD = "adf21080-0e10-11eb-879b-05d71fb426ec"
HOSTILE = "<script>alert(1)</script> 'A' \"B\" \u202e&\x07"
STEP = Step("id", 1, "v2 updateDeal", "update", "deals", "deals/7", "A <title>", {}, {},
            (Change("title", "Old", "<New>"),), 1, 5, "send", seen=True)  # fmt: skip


def render(*steps: Step, domain: str | None = "acme", labels: PlanLabels | None = None) -> str:
    return render_page(Plan(1, "Acme", NOW, NOW + LIFE, "field", steps, 7, domain=domain), None, labels)


def page(target: str | None, domain: str | None = "acme", **more: Any) -> str:
    return render(structs.replace(STEP, target=target, **more), domain=domain)


def visible(text: str) -> list[str]:
    """The lines of text that a reader sees, below the heading of the page."""
    body = text[text.index("</header>") :]
    blocks = re.split(r"</?(?:li|ul|h2|p|div|small|section)\b[^>]*>", body)
    return [line for block in blocks if (line := unescape(re.sub(r"<[^>]+>", "", block)).strip())]


@pytest.fixture(scope="module")
def labels() -> Iterator[PlanLabels]:
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE deal_fields AS SELECT *, NULL::TIMESTAMPTZ AS _deleted_at FROM (VALUES"
            " ('owner_id', 'Besitzer'), ('label_ids', '<b>Etikett')) v(field_code, field_name)"
        )
        yield PlanLabels(CompanyNames(connection))


def steps() -> list[Step]:
    """A step of each kind, the harmless ones first."""
    owner = Change("owner_id", "Ann (5)", "Bob (6)")
    same = Change("person_id", "Ann (5)", "Ann (6)")
    kept = Change("Tier (old)", "A (1)", "B (2)")  # a custom field, and a built-in one, with text
    text = Change("channel_id", "A (1)", "B (2)")
    merge = {"target": "persons/1", "into": "persons/2", "title": "Ann (1) → Bob (2, stays)", "kind": "persons"}
    return [
        structs.replace(STEP, seq=1, changes=(owner, same, kept, text, Change("label_ids", None, ["Hot"]))),
        structs.replace(STEP, seq=2, target="deals/8", changes=(Change("expected_close_date", "2026-01-01", None),)),
        structs.replace(STEP, seq=3, operation="v2 addDealFollower", verb="add", kind="deals/followers", title=None,
                        target="deals/7/followers",
                        changes=(Change("user_id", None, "Ann (5)"),)),
        structs.replace(STEP, seq=4, operation="v2 addDeal", verb="add", target=None, title="New",
                        changes=(Change("title", None, "New"),)),
        structs.replace(STEP, seq=5, operation="v2 convertLeadToDeal", verb="other", kind="leads/convert/deal",
                        target=f"leads/{LEAD}", changes=()),
        structs.replace(STEP, seq=6, operation="v2 deleteDeal", verb="delete", target="deals/9",
                        changes=(Change("(the record)", "A", None),)),
        structs.replace(STEP, seq=7, operation="v1 mergePersons", verb="merge", changes=(), **merge,
                        warnings=("lost for good: org_id 'X (3)'", "moves to the other: 1 note",
                                  "a merge can't be undone")),
        structs.replace(STEP, seq=8, fate="conflict", changes=(),
                        detail="another user has changed owner_id of deals/7"),
        structs.replace(STEP, seq=9, fate="already_so", changes=()),
    ]  # fmt: skip


def test_steps_are_grouped_in_plain_words_what_is_final_first(labels: PlanLabels) -> None:
    assert visible(render(*steps(), labels=labels)) == [
        "Merge 1 person into another", "A merge can't be undone. What is lost is listed below.",
        "Ann (1) → Bob (2, stays)", "person 1 → person 2 · no. 7",
        "Lost for good: Organization 'X (3)'", "Moves to the other: 1 note",
        "Delete 1 deal",
        "A <title>", "deal 9 · no. 6",
        "Change 2 deals",
        "A <title>", "deal 7 · no. 1",
        "Besitzer: Ann → Bob", "Person: Ann (5) → Ann (6)", "Tier (old): A (1) → B (2)",
        "Channel: A (1) → B (2)", "<b>Etikett: empty → Hot",
        "A <title>", "deal 8 · no. 2", "Expected close date: 2026-01-01 → empty",
        "Add 1 deal",
        "New", "new deal · no. 4", "Title: New",
        "Add 1 deal follower",
        "deal 7, followers · no. 3", "User: Ann",
        "Convert lead to deal (1)",
        "A <title>", f"lead {LEAD} · no. 5",
        "Not sent, because the record is not as expected (1)",
        "A <title>", "deal 7 · no. 8", "Another user has changed Besitzer of deal 7",
        "Not sent, because it is so already (1)",
        "A <title>", "deal 7 · no. 9", "Already so",
    ]  # fmt: skip


def test_the_page_begins_with_what_cannot_be_undone() -> None:
    text = render(*steps())
    assert "7 changes will be sent, among them 1 merge and 1 deletion; 2 will not." in text
    assert "1 change will be sent." in render(STEP)
    assert "There is nothing to send." in render()


def test_x6_text_from_outside_is_escaped_wherever_it_is_shown() -> None:
    changes = (Change(HOSTILE, HOSTILE, HOSTILE), Change("title", None, [HOSTILE]))
    more = {"warnings": (HOSTILE,), "changes": changes, "title": HOSTILE}
    step = structs.replace(STEP, **more)
    hidden = (structs.replace(step, fate="rejected", detail=HOSTILE), structs.replace(step, target=HOSTILE))
    plan = Plan(1, HOSTILE, NOW, NOW + LIFE, "field", (step, *hidden), 7, domain=HOSTILE)
    text = render_page(plan, HOSTILE)
    assert "<script" not in text
    assert "\u202e" not in text
    assert "\x07" not in text
    assert text.count("alert(1)") >= 14


@pytest.mark.proof
@pytest.mark.skipif(not browser.find(), reason="needs Chromium")
async def test_the_page_fits_a_phone_and_keeps_its_policy(tmp_path: Path, labels: PlanLabels) -> None:
    path = tmp_path / "plan.html"
    path.write_text(render(*steps(), structs.replace(STEP, title="x" * 300), labels=labels), encoding="utf-8")
    async with browser.opened() as tab:
        await tab.open(path, width=390)
        assert await tab.evaluate("document.documentElement.scrollWidth") == 390
        assert (tab.messages, await tab.evaluate("window.violations"), len(tab.requests)) == ([], [], 1)


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
    assert f'<a href="{url}" target="_blank" rel="noopener noreferrer">' in text
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
