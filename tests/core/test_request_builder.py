"""What someone wants to send is sorted and typed by the catalogue, or refused before anything is sent."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from pdsync.core import catalogue
from pdsync.core.request_builder import Call, check
from pdsync.errors import ConfigError

KEY = "0123456789abcdef0123456789abcdef01234567"
LEAD = "adf21080-0e10-11eb-879b-05d71fb426ec"


def call(name: str, params: dict[str, object]) -> Call:
    return check(catalogue.operation(name), params)


def refusal(name: str, params: dict[str, object]) -> str:
    with pytest.raises(ConfigError) as caught:
        call(name, params)
    assert "\nNothing was sent." in str(caught.value)
    return str(caught.value)


def test_each_value_goes_where_its_name_belongs() -> None:
    found = call("updateDeal", {"id": "7", "title": "Boat", "owner_id": "3"})
    assert (found.path, found.query) == ("/api/v2/deals/7", {})
    assert found.body == {"title": "Boat", "owner_id": 3}

    found = call("getDeals", {"status": "open,won", "ids": [1, 2], "include_labels": True, "limit": "100"})
    assert (found.path, found.body) == ("/api/v2/deals", None)
    assert found.query == {"status": "open,won", "ids": "1,2", "include_labels": "true", "limit": "100"}


@pytest.mark.parametrize(
    ("name", "given", "sent"),
    [
        ("value", "12", 12),
        ("value", "1.50", 1.5),
        ("value", Decimal("1.50"), 1.5),
        ("owner_id", "-1", -1),
        ("is_archived", "TRUE", True),
        ("is_archived", "0", False),
        ("title", "12", "12"),
        ("title", 12, "12"),
        ("title", "null", "null"),
        ("title", "{}", "{}"),
        ("owner_id", "null", None),
        ("lost_reason", None, None),
        ("expected_close_date", date(2026, 3, 31), "2026-03-31"),
        ("expected_close_date", "2026-03-31", "2026-03-31"),
        ("label_ids", "1, 2", [1, 2]),
        ("label_ids", "[1, 2]", [1, 2]),
        ("label_ids", [1, "2"], [1, 2]),
        ("label_ids", "[]", []),
        ("custom_fields", f'{{"{KEY}": null}}', {KEY: None}),
    ],
)
def test_a_value_is_read_as_the_type_of_its_field(name: str, given: object, sent: object) -> None:
    body = call("updateDeal", {"id": 1, name: given}).body
    assert body == {name: sent}
    assert isinstance(body, dict)
    assert type(body[name]) is type(sent)


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("owner_id", "x", "a whole number"),
        ("owner_id", "1_000", "a whole number"),
        ("owner_id", "1.0", "a whole number"),
        ("owner_id", True, "a whole number"),
        ("value", "nan", "a number"),
        ("value", float("inf"), "a number"),
        ("is_archived", "maybe", "true or false"),
        ("is_archived", 2, "true or false"),
        ("title", True, "text"),
        ("title", "M\udcfcller", "text (UTF-8)"),
        ("title", {"a": 1}, "text"),
        ("expected_close_date", "31.3.2026", "a date"),
        ("expected_close_date", "20260331", "a date"),
        ("expected_close_date", "2026-02-30", "a date"),
        ("label_ids", "1,x", "whole numbers"),
        ("label_ids", "[1", "whole numbers"),
        ("label_ids", 1, "whole numbers"),
        ("custom_fields", "[]", "a JSON object"),
        ("custom_fields", "{", "a JSON object"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, given: object, wanted: str) -> None:
    said = refusal("updateDeal", {"id": 1, name: given})
    assert said.startswith(f"v2 updateDeal: {name} is {given!r}, and should be {wanted}")


@pytest.mark.parametrize(
    ("operation", "params", "says"),
    [
        ("getDeals", {"statuss": "open"}, "v2 getDeals has no parameter 'statuss'. Did you mean 'status'?"),
        ("getDeals", {"status": "open,wom"}, "v2 getDeals: status can't be 'wom'. Did you mean 'won'?"),
        ("getDeals", {"sort_by": "title"}, "It may be id, update_time, add_time."),
        ("getDeals", {"limit": 501}, "limit is 501, and 500 is the most."),
        ("getDeals", {"ids": ",".join(map(str, range(101)))}, "ids has 101 items, and 100 is the most."),
        ("getDealsProducts", {"deal_ids": [*range(101)]}, "deal_ids has 101 items, and 100 is the most."),
        ("getDeals", {"owner_id": None}, "owner_id is None, and should be a whole number"),
        ("addDeal", {"value": 1}, "v2 addDeal needs title."),
        ("addDeal", {"title": None}, "title is None, and should be text"),
        ("getDeal", {}, "v2 getDeal needs id."),
        ("getUsers", {"id": 1}, "v1 getUsers has no parameter 'id'.\nNothing was sent. It takes none."),
        ("updateDealField", {"field_code": "x"}, "v2 updateDealField needs something to send."),
        ("getLead", {"id": 7}, "id is 7, and should be a UUID."),
        ("addNote", {"content": "x", "pinned_to_deal_flag": "true"}, "should be a number"),
        ("addNote", {"content": "x", "pinned_to_deal_flag": 2}, "pinned_to_deal_flag can't be 2."),
    ],
)
def test_what_the_catalogue_does_not_know_is_refused(operation: str, params: dict[str, object], says: str) -> None:
    assert says in refusal(operation, params)


@pytest.mark.parametrize(
    ("given", "sent"), [("a/b", "a%2Fb"), ("ä ?#", "%C3%A4%20%3F%23"), ("%2e%2e", "%252e%252e"), ("a..", "a..")]
)
def test_a_path_is_percent_encoded(given: str, sent: str) -> None:
    assert call("getDealField", {"field_code": given}).path == f"/api/v2/dealFields/{sent}"


@pytest.mark.parametrize("part", ["", ".", ".."])
def test_a_path_never_becomes_that_of_another_operation(part: str) -> None:
    assert "field_code can't be" in refusal("deleteDealField", {"field_code": part})


def test_v1_takes_custom_fields_and_their_parts_beside_the_others() -> None:
    params: dict[str, object] = {"title": "x", "person_id": "1", KEY: "5", f"{KEY}_currency": "EUR"}
    assert call("addLead", params).body == {"title": "x", "person_id": 1, KEY: "5", f"{KEY}_currency": "EUR"}
    assert "no parameter" in refusal("addLead", {"title": "x", f"{KEY}_colour": "red"})
    assert "no parameter" in refusal("addNote", {"content": "x", KEY: "5"})


def test_v2_takes_custom_fields_inside_custom_fields() -> None:
    fields = {KEY: {"value": 5, "currency": "EUR"}}
    assert call("addDeal", {"title": "x", "custom_fields": fields}).body == {"title": "x", "custom_fields": fields}
    assert "takes inside 'custom_fields'" in refusal("addDeal", {"title": "x", KEY: 5})
    assert "'size' in 'custom_fields' is not the code" in refusal(
        "addDeal", {"title": "x", "custom_fields": {"size": 1}}
    )
    assert "'custom_fields' is empty" in refusal("updateDeal", {"id": 1, "custom_fields": {}})


def test_a_body_that_is_a_list_is_given_whole() -> None:
    params: dict[str, object] = {"field_code": "x", "body": '[{"id": "1", "label": "A"}]'}
    assert call("updateDealFieldOptions", params).body == [{"id": 1, "label": "A"}]
    assert "Did you mean 'label'?" in refusal("addDealFieldOptions", {"field_code": "x", "body": [{"lable": "A"}]})
    assert "needs id" in refusal("updateDealFieldOptions", {"field_code": "x", "body": [{"label": "A"}]})
    assert "needs body" in refusal("addDealFieldOptions", {"field_code": "x"})
    assert "'body' is empty" in refusal("addDealFieldOptions", {"field_code": "x", "body": "[]"})


def test_an_upload_names_its_files_and_the_rest_is_text() -> None:
    found = call("addFile", {"file": "offer.pdf", "deal_id": 7, "lead_id": UUID(LEAD)})
    assert found.files == {"file": Path("offer.pdf")}
    assert found.body == {"deal_id": "7", "lead_id": LEAD}


@pytest.mark.parametrize(
    ("sort", "fine"), [("id", True), ("update_time DESC, id asc", True), ("update_time down", False)]
)
def test_a_sort_of_v1_may_have_a_direction(sort: str, fine: bool) -> None:
    if fine:
        assert call("getLeads", {"sort": sort}).query["sort"] == sort.replace(", ", ",")
    else:
        assert "sort can't be 'update_time down'" in refusal("getLeads", {"sort": sort})


def test_a_time_has_a_zone() -> None:
    def since(value: Any) -> str:
        return call("getNotes", {"updated_since": value}).query["updated_since"]

    assert since("2026-03-31T10:20:00Z") == since(datetime(2026, 3, 31, 10, 20, tzinfo=UTC)) == "2026-03-31T10:20:00Z"
    assert "a time with its zone" in refusal("getNotes", {"updated_since": "2026-03-31 10:20:00"})
