"""What no module of its own serves is served from the documents: every operation, and every write in the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.sandbox.operations.collections import KINDS
from pdsync.sandbox.operations.documented import DocumentedOperation, operations
from pdsync.sandbox.server.routes import ROUTES
from tests.sandbox.api import Api

if TYPE_CHECKING:
    from pdsync.sandbox import RunningSandbox


def test_every_documented_operation_is_served() -> None:
    assert operations().keys() <= {f"{route.version} {route.operation}" for route in ROUTES}


def example_of(facts: DocumentedOperation, ids: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """A path and a query for an operation: the parents are the company's own, needed parameters are filled in."""
    path, known = facts.path, ""
    for part in facts.path.split("/"):
        if part.startswith("{"):
            path = path.replace(part, str(ids.get(known, 1)), 1)
        known = part
    values = {
        "deal_ids": str(ids["deals"]), "start_date": "2026-01-01", "end_date": "2026-03-31", "interval": "month",
        "amount": "1", "field_key": "add_time", "since_timestamp": "2026-11-01 00:00:00", "org_id": "1", "term": "al",
        "folder": "inbox", "period.start": "2026-01-01", "period.end": "2026-12-31", "item_type": "deal",
        "field": "title",
        "entity_type": "deal", "type.name": "deals_won", "search_for_related_items": "0", "match": "exact",
    }  # fmt: skip
    return path, {name: values.get(name, "1") for name in facts.needed}


@pytest.fixture(scope="module")
def ids(shared_box: RunningSandbox) -> dict[str, Any]:
    """An id of each kind, by the part of the path before it."""
    box, reader = shared_box, Api(shared_box)
    found: dict[str, Any] = {}
    for kind in (
        "deals",
        "persons",
        "organizations",
        "products",
        "activities",
        "pipelines",
        "stages",
        "users",
        "files",
    ):
        found[kind] = next(entry["id"] for entry in box.dump(kind) if entry["state"] == "live")
    found["mailThreads"] = reader.get("/v1/mailbox/mailThreads", folder="inbox").data[0]["id"]
    for parts, kind_of in KINDS.items():
        first = next(iter(box.dump(kind_of.name)), None)
        if first and len(parts) == 1:
            found[parts[-1]] = first["id"]
    return {**found, "comments": next(iter(box.dump("note_comments")))["id"].rsplit("/", 1)[-1], "user": found["users"]}


READS = {name: facts for name, facts in operations().items() if facts.method == "GET"}
ELSEWHERE = {  # what this test has no id, or no account, for
    "v1 downloadFile": "an answer that is no JSON",
    "v1 getMailMessage": "its id is made from the thread's",
    "v2 getLeadConversionStatus": "of a conversion that nobody began",
    "v2 getDealConversionStatus": "the same",
}


@pytest.mark.parametrize("name", [name for name in READS if name not in ELSEWHERE])
def test_every_read_answers_as_documented(reader: Api, ids: dict[str, Any], name: str) -> None:
    facts = READS[name]
    if "Fields" in facts.path and facts.path.endswith("}"):
        listing = facts.path.rpartition("/")[0]
        field = reader.get(listing).data[0]
        path, query = f"{listing}/{field.get('field_code') or field['id']}", dict[str, str]()
    else:
        path, query = example_of(facts, ids)

    answer = reader.get(path, **query)

    assert answer.status == 200, answer.body
    assert answer.json["success"] is True
    assert answer.json.keys() >= {"success", "data"}
    shape = facts.answer.get("data") if name != "v1 getPermissionSet" else {}  # a list in the schema, one in the words
    if isinstance(shape, list) and answer.data:
        assert isinstance(answer.data, list)
        if isinstance(shape[0], dict) and isinstance(answer.data[0], dict):
            assert answer.data[0].keys() & shape[0].keys()
    if isinstance(shape, dict) and answer.data is not None:
        assert isinstance(answer.data, dict)


SHOWN_ONLY = {  # parameters that choose a page, an order or what is shown, and no records
    "limit", "start", "cursor", "sort", "sort_by", "sort_direction", "order_by", "include_fields", "include_labels",
    "include_option_labels", "include_field_code", "custom_fields", "include_body", "fields", "exact_match", "match",
    "item_types", "entity_type", "field", "search_for_related_items", "totals_convert_currency", "exclude_deals",
    "skip_users", "get_summary",
}  # fmt: skip
WITHOUT_EFFECT = {  # on what this company holds
    ("v1 findUsersByName", "search_by_email"): "e-mails are made of names",
    ("v1 getOrganizationRelationship", "org_id"): "neither end of the relation: what is calculated stays",
    ("v1 getStageDeals", "user_id"): "the first stage has no open deal of the caller",
    **{
        (f"v1 get{one}Updates", "all_changes"): "no custom field was changed"
        for one in ("Deal", "Person", "Organization")
    },
}
NONE_MATCHES = {  # values that leave less than everything
    "type": "leads", "status": "open", "updated_since": "2031-01-01T00:00:00Z", "updated_until": "2001-01-01T00:00:00Z",
    "start_date": "2031-01-01", "end_date": "2001-01-01", "term": "zzzz", "app": "nova", "title": "zzzz",
    "items": "note", "folder": "sent", "is_active": "false", "visible": "false", "parent_task_id": "null",
    **dict.fromkeys(("owned_by_you", "everyone", "done", "all_changes", "search_by_email"), "1"),
    **dict.fromkeys(("include_archived", "is_done", "is_milestone"), "true"),
}  # fmt: skip


def test_every_documented_filter_of_a_list_has_an_effect(reader: Api, ids: dict[str, Any]) -> None:
    ignored = set()
    for name, facts in READS.items():
        path, query = example_of(facts, ids)
        conditions = [param for param in facts.query if param not in SHOWN_ONLY and param not in facts.needed]
        whole = reader.get(path, **query) if conditions and name not in ELSEWHERE else None
        if whole is None or whole.status != 200:
            continue
        for param in conditions:
            found = reader.get(path, **{**query, param: NONE_MATCHES.get(param, "987654")})
            if found.status == 200 and found.json.get("data") == whole.json.get("data"):
                ignored.add((name, param))
    assert ignored <= WITHOUT_EFFECT.keys()


def test_a_note_is_added_changed_and_deleted_and_the_journal_tells(api: Api) -> None:
    before = len(api.box.journal)
    made = api.post("/v1/notes", content="<p>x</p>", deal_id=api.live("deals")[0])
    id = made.data["id"]
    assert api.get(f"/v1/notes/{id}").data["content"] == "<p>x</p>"
    assert api.put(f"/v1/notes/{id}", content="<p>y</p>").data["content"] == "<p>y</p>"
    assert api.delete(f"/v1/notes/{id}").data is True  # as the documents say of notes
    assert api.get(f"/v1/notes/{id}").status == 404
    assert [(entry.kind, entry.id, entry.op) for entry in api.box.journal[before:]] == [
        ("notes", id, "add"),
        ("notes", id, "update"),
        ("notes", id, "delete"),
    ]


def test_what_lies_below_a_parent_is_in_the_journal_by_the_dump_s_id(api: Api) -> None:
    deal, user = api.live("deals")[0], max(api.box.company["users"].rows)
    answer = api.post(f"/v1/deals/{deal}/followers", user_id=user)
    assert answer.status in (200, 201), answer.body
    assert api.box.journal[-1].kind == "deal_followers"
    assert api.box.journal[-1].id in api.truth("deal_followers")


def test_what_is_required_or_of_another_type_is_refused(api: Api) -> None:
    assert api.post("/v1/notes", deal_id=1).status == 400
    assert api.post("/v1/leads", title=5).status == 400
    assert api.get("/api/v2/deals/products").status == 400
    assert api.get("/v1/deals/99999999/followers").status == 404


def test_archived_leads_stand_in_a_list_of_their_own(api: Api) -> None:
    live = {lead["id"] for lead in api.get("/v1/leads", limit="500").data}
    archived = {lead["id"] for lead in api.get("/v1/leads/archived", limit="500").data}
    truth = {entry["record"]["id"]: entry["state"] for entry in api.box.dump("leads")}
    assert live == {id for id, state in truth.items() if state == "live"}
    assert archived == {id for id, state in truth.items() if state == "archived"}
    assert archived


def test_deals_of_a_stage_and_their_sums_are_the_company_s_own(api: Api) -> None:
    deals = [entry["record"] for entry in api.box.dump("deals") if entry["state"] == "live"]
    stage = deals[0]["stage_id"]
    shown = api.get(f"/v1/stages/{stage}/deals", limit="100", everyone=1).data
    assert {deal["id"] for deal in shown} == {deal["id"] for deal in deals if deal["stage_id"] == stage}

    won = [deal for deal in deals if deal["status"] == "won"]
    summary = api.get("/v1/deals/summary", status="won").data
    assert summary["total_count"] == len(won)
    by_currency = {deal["currency"] for deal in won}
    assert summary["values_total"].keys() == by_currency
    for currency in by_currency:
        value = sum(deal["value"] or 0 for deal in won if deal["currency"] == currency)
        assert summary["values_total"][currency]["value"] == pytest.approx(value, abs=0.01)
    assert api.get("/v1/deals/summary", status="bogus").status == 400


def test_lists_page_to_their_end(api: Api) -> None:
    whole = [note["id"] for note in api.get("/v1/notes", limit="500").data]
    pages, start = list[int](), 0
    while True:
        answer = api.get("/v1/notes", limit="7", start=str(start))
        pages += [note["id"] for note in answer.data]
        paging = answer.json["additional_data"]["pagination"]
        if not paging["more_items_in_collection"]:
            break
        start = paging["next_start"]
    assert pages == whole


@pytest.mark.parametrize("order", ["id ASC", "id DESC", "content ASC"])
def test_every_page_of_a_list_shows_what_was_written_since_the_page_before(api: Api, order: str) -> None:
    deal = api.live("deals")[0]
    for _ in range(2):  # two lists of the same company do not share what they chose
        listed = api.get("/v1/notes", sort=order, limit="500").ids
        other = api.get("/v1/notes", sort=order, limit="500", deal_id=str(deal)).ids
        assert len(other) < len(listed)
        made = api.post("/v1/notes", content="<p>0</p>", deal_id=deal).data["id"]
        assert set(api.get("/v1/notes", sort=order, limit="500").ids) == {*listed, made}
        assert set(api.get("/v1/notes", sort=order, limit="500", deal_id=str(deal)).ids) == {*other, made}
        api.put(f"/v1/notes/{made}", content="<p>zz</p>")
        contents = {note["id"]: note["content"] for note in api.get("/v1/notes", sort=order, limit="500").data}
        assert contents[made] == "<p>zz</p>"
        api.delete(f"/v1/notes/{made}")
        assert api.get("/v1/notes", sort=order, limit="500").ids == listed


def test_what_a_deal_has_first_is_what_it_keeps_when_one_is_added(api: Api) -> None:
    deal = next(id for id in api.live("deals") if api.get("/api/v2/deals/products", deal_ids=str(id)).data)
    before = api.get("/api/v2/deals/products", deal_ids=str(deal)).data
    added = api.post(f"/api/v2/deals/{deal}/products", product_id=1, item_price=5, quantity=1).data["id"]
    after = api.get("/api/v2/deals/products", deal_ids=str(deal)).data
    assert [each for each in after if each["id"] != added] == before
    assert {each["id"] for each in after} == {*(each["id"] for each in before), added}
