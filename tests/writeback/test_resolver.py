"""Every way to name a field, an option, a record: what it resolves to, and what is refused with a guess."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.writeback.record_names import referenced_stream
from pdsync.writeback.resolver import NameResolver
from tests.writeback.kit import open_warehouse

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

SIZE, TIER, AMOUNT, OWNER, TWIN, TWIN_2, OLD, GONE = (letter * 40 for letter in "abcdef01")
NOW, BEFORE = "2026-03-02 00:00:00+00", "2026-03-01 00:00:00+00"
FIELDS = [
    (SIZE, "Deal size", "cf_deal_size", "enum", NOW),
    (TIER, "Tiers", "cf_tiers", "set", NOW),
    (AMOUNT, "Amount due", "cf_amount_due", "monetary", NOW),
    (OWNER, "Second owner", "cf_second_owner", "user", NOW),
    (TWIN, "Twin", "cf_twin_cccc", "varchar", NOW),
    (TWIN_2, "Twin", "cf_twin_dddd", "varchar", NOW),
    (OLD, "Deal size", "cf_deal_size_old", "enum", BEFORE),
    (GONE, "Gone", "cf_gone", "varchar", BEFORE),
]
OPTIONS = [(SIZE, "1", "Large"), (SIZE, "2", "Small"), (TIER, "5", "Gold"), (TIER, "6", "Silver"),
           ("status", "open", "Open"), ("status", "won", "Won")]  # fmt: skip
TABLES: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "users": ("id BIGINT, name VARCHAR, email VARCHAR", [
        (1, "Anna Berg", "anna@example.com"), (2, "Bo Dahl", "bo@example.com"), (3, "Bo Dahl", "bo2@example.com"),
    ]),
    "pipelines": ("id BIGINT, name VARCHAR", [(10, "Sales"), (11, "Partners")]),
    "stages": ("id BIGINT, name VARCHAR, pipeline_id BIGINT", [
        (100, "Offer", 10), (101, "Offer", 11), (102, "Won it", 10),
    ]),
    "organizations": ("id BIGINT, name VARCHAR", [(7, "Acme"), (8, "Globex")]),
    "deal_fields": ("field_code VARCHAR, field_name VARCHAR, field_type VARCHAR", [
        ("title", "Titel", "varchar"), ("status", "Status", "status"), (SIZE, "Deal size", "enum"),
    ]),
}  # fmt: skip


@pytest.fixture(scope="module")
def warehouse() -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse() as warehouse:
        warehouse.executemany(
            "INSERT INTO meta.custom_fields (entity, field_code, label, column_name, field_type, last_seen)"
            " VALUES ('deals', ?, ?, ?, ?, ?)",
            FIELDS,
        )
        warehouse.executemany(
            "INSERT INTO meta.field_options (entity, field_code, option_id, label) VALUES ('deals', ?, ?, ?)", OPTIONS
        )
        for table, (columns, rows) in TABLES.items():
            warehouse.execute(f"CREATE TABLE {table} ({columns}, _deleted_at TIMESTAMPTZ)")
            for row in rows:
                warehouse.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))}, NULL)", list(row))
        warehouse.execute("INSERT INTO users VALUES (4, 'Left Long Ago', 'left@example.com', now())")
        yield warehouse


@pytest.fixture(scope="module")
def names(warehouse: duckdb.DuckDBPyConnection) -> NameResolver:
    return NameResolver(warehouse)


def resolve(names: NameResolver, given: dict[str, Any], operation: str = "v2 updateDeal") -> dict[str, Any]:
    return names.resolve(catalogue.operation(operation), given)


# Parameters.


@pytest.mark.parametrize(
    ("given", "params"),
    [
        ({"title": "x"}, {"title": "x"}),
        ({"id": "12", "title": "x"}, {"id": "12", "title": "x"}),
        ({"owner": 1}, {"owner_id": 1}),
        ({"org": 7}, {"org_id": 7}),
        ({"label": [5]}, {"label_ids": [5]}),
        ({"labels": [5]}, {"label_ids": [5]}),
    ],
)
def test_a_parameter_is_named_by_the_api_or_shorter(
    names: NameResolver, given: dict[str, Any], params: dict[str, Any]
) -> None:
    assert resolve(names, given) == params


def test_a_column_of_the_table_names_the_parameter_of_v1(names: NameResolver) -> None:
    assert resolve(names, {"owner_id": 1}, "v1 updateDeal") == {"user_id": 1}


def test_a_part_of_an_object_has_a_column_of_its_own(names: NameResolver) -> None:
    given = {"title": "x", "value": "1,200.50 usd", "currency": "USD"}
    assert resolve(names, given, "v1 addLead")["value"] == {"amount": 1200.5, "currency": "USD"}
    with pytest.raises(ConfigError, match="value is given twice"):
        resolve(names, {**given, "currency": "EUR"}, "v1 addLead")


def test_a_parameter_that_is_named_twice_is_refused(names: NameResolver) -> None:
    with pytest.raises(ConfigError, match=r"owner_id is given twice \('owner_id' means it too\). Nothing was queued"):
        resolve(names, {"owner": 1, "owner_id": 2})


def test_an_amount_names_the_currency_unless_another_one_is_given(names: NameResolver) -> None:
    assert resolve(names, {"value": "12.50 eur"}) == {"value": 12.5, "currency": "EUR"}
    assert resolve(names, {"value": "12.50 eur", "currency": "EUR"})["currency"] == "EUR"
    with pytest.raises(ConfigError, match="the amount is in EUR, and currency is 'USD'"):
        resolve(names, {"value": "12.50 eur", "currency": "usd"})


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("titel", "Did you mean 'title'"),
        ("Deal syze", "Did you mean 'Deal size'"),
        ("cf_deal_sice", "Did you mean 'cf_deal_size'"),
        ("zzzzzzzz", "It takes id, "),
    ],
)
def test_an_unknown_name_is_refused_with_a_guess(names: NameResolver, key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"has no parameter '{key}'") as refused:
        resolve(names, {key: "x"})
    assert message in str(refused.value)
    assert str(refused.value).endswith("Nothing was queued.")


def test_an_operation_without_custom_fields_takes_no_label(names: NameResolver) -> None:
    with pytest.raises(ConfigError, match="has no parameter 'Deal size'"):
        resolve(names, {"content": "x", "Deal size": "Large"}, "v1 addNote")


# Custom fields.


@pytest.mark.parametrize("key", ["Deal size", "deal SIZE", " Deal size ", "cf_deal_size", SIZE])
@pytest.mark.parametrize("value", ["Large", "large", "1"])
def test_a_custom_field_is_named_by_label_column_or_code(names: NameResolver, key: str, value: str) -> None:
    assert resolve(names, {key: value}) == {"custom_fields": {SIZE: 1}}


def test_custom_fields_may_be_given_as_one_object(names: NameResolver) -> None:
    given = {"custom_fields": {"Deal size": "Small", TIER: [5, 6]}}
    assert resolve(names, given) == {"custom_fields": {SIZE: 2, TIER: [5, 6]}}


def test_v1_takes_custom_fields_beside_the_others(names: NameResolver) -> None:
    given = {"id": 1, "Tiers": "Gold, Silver", "Amount due": "12.50 eur"}
    assert resolve(names, given, "v1 updateDeal") == {
        "id": 1, TIER: "5,6", AMOUNT: 12.5, f"{AMOUNT}_currency": "EUR",
    }  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        {"Amount due": "12.50 EUR"},
        {"Amount due": 12.5, "cf_amount_due_currency": "eur"},
        {"cf_amount_due_currency": "eur", "Amount due": 12.5},
        {"Amount due": {"value": 12.5, "currency": "EUR"}},
        {"Amount due": '{"value": 12.5, "currency": "EUR"}'},
        {f"{AMOUNT}": 12.5, f"{AMOUNT}_currency": "EUR"},
    ],
)
def test_the_parts_of_a_value_may_be_given_together_or_one_by_one(names: NameResolver, given: dict[str, Any]) -> None:
    assert resolve(names, given) == {"custom_fields": {AMOUNT: {"value": 12.5, "currency": "EUR"}}}


def test_parts_that_contradict_each_other_are_refused(names: NameResolver) -> None:
    with pytest.raises(ConfigError, match="'Amount due' is given twice"):
        resolve(names, {"Amount due": "12 EUR", "cf_amount_due_currency": "USD"})
    with pytest.raises(ConfigError, match="'Deal size' is given twice"):
        resolve(names, {"Deal size": "Large", SIZE: 2})


def test_a_new_record_needs_the_main_part_and_an_existing_one_does_not(names: NameResolver) -> None:
    given = {"cf_amount_due_currency": "EUR"}
    assert resolve(names, given) == {"custom_fields": {AMOUNT: {"currency": "EUR"}}}
    with pytest.raises(ConfigError, match="'Amount due' has currency and no value"):
        resolve(names, {"title": "x", **given}, "v2 addDeal")


def test_null_empties_a_custom_field(names: NameResolver) -> None:
    assert resolve(names, {"Amount due": None, "cf_amount_due_currency": None}) == {"custom_fields": {AMOUNT: None}}
    assert resolve(names, {"Deal size": None}) == {"custom_fields": {SIZE: None}}


def test_a_label_of_two_fields_is_refused_with_their_columns(names: NameResolver) -> None:
    with pytest.raises(ConfigError, match="several custom fields are called 'Twin'") as refused:
        resolve(names, {"Twin": "x"})
    assert "Name one by its column: cf_twin_cccc, cf_twin_dddd." in str(refused.value)
    assert resolve(names, {"cf_twin_cccc": "x"}) == {"custom_fields": {TWIN: "x"}}


@pytest.mark.parametrize("key", ["Gone", "cf_gone", GONE, f"{GONE}_currency"])
def test_a_field_that_was_deleted_is_refused(names: NameResolver, key: str) -> None:
    with pytest.raises(ConfigError, match=r"the custom field 'Gone' \(cf_gone\) was deleted. Nothing was queued"):
        resolve(names, {key: "x"})


def test_a_field_that_was_deleted_and_added_again_names_its_successor(names: NameResolver) -> None:
    with pytest.raises(ConfigError, match=r"was deleted\. The field of that name is now cf_deal_size\."):
        resolve(names, {OLD: "Large"})


def test_a_code_that_no_sync_has_seen_is_accepted(names: NameResolver) -> None:
    assert resolve(names, {"9" * 40: "x"}) == {"custom_fields": {"9" * 40: "x"}}


# Options.


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("Deal size", "Huge", "There are Large, Small."),
        ("Deal size", "Lage", "Did you mean 'Large'?"),
        ("Deal size", 9, "There are Large, Small."),
        ("Tiers", "Gold, Bronze", "There are Gold, Silver."),
        ("status", "wonn", "There are Open, Won."),
    ],
)
def test_an_unknown_option_is_refused_with_those_that_exist(
    names: NameResolver, key: str, value: object, message: str
) -> None:
    with pytest.raises(ConfigError, match="Nothing was queued") as refused:
        resolve(names, {key: value})
    assert message in str(refused.value)


def test_an_option_of_a_built_in_field_is_named_by_its_label(names: NameResolver) -> None:
    assert resolve(names, {"status": "WON"}) == {"status": "won"}


# Records.


@pytest.mark.parametrize(
    ("key", "value", "id"),
    [
        ("owner", "Anna Berg", 1), ("owner", " anna BERG ", 1), ("owner", "anna@example.com", 1),
        ("owner_id", "2", 2), ("owner_id", 2, 2), ("owner_id", 2.0, 2),
        ("org", "acme", 7), ("pipeline", "Partners", 11), ("stage", "Won it", 102),
    ],
)  # fmt: skip
def test_a_record_is_named_by_id_name_or_address(names: NameResolver, key: str, value: object, id: int) -> None:
    resolved = next(iter(resolve(names, {key: value}).values()))
    assert resolved in (id, str(id))


def test_a_custom_field_that_refers_to_a_record_takes_its_name(names: NameResolver) -> None:
    assert resolve(names, {"Second owner": "Anna Berg"}) == {"custom_fields": {OWNER: 1}}


def test_a_name_of_two_records_is_refused_with_their_ids(names: NameResolver) -> None:
    with pytest.raises(ConfigError, match=r"several users are called 'bo dahl' \(2, 3\)"):
        resolve(names, {"owner": "bo dahl"})


@pytest.mark.parametrize("pipeline", ["Partners", 11, "11"])
def test_the_pipeline_decides_between_stages_of_one_name(names: NameResolver, pipeline: object) -> None:
    assert resolve(names, {"stage": "Offer", "pipeline_id": pipeline})["stage_id"] == 101
    with pytest.raises(ConfigError, match=r"several stages are called 'Offer' \(100, 101\)"):
        resolve(names, {"stage": "Offer"})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("Ana Berg", "none of the users is called 'Ana Berg'. Did you mean 'Anna Berg'? Nothing was queued"),
        ("Zed", "none of the users is called 'Zed'. Nothing was queued"),
        ("Left Long Ago", "none of the users is called 'Left Long Ago'"),  # deleted
        ("left@example.com", "none of the users is called"),
    ],
)
def test_an_unknown_or_deleted_record_is_refused(names: NameResolver, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(names, {"owner": value})
    assert message in str(refused.value)


def test_a_table_that_was_not_synced_knows_no_names(names: NameResolver) -> None:
    with pytest.raises(ConfigError, match=r"names are known after a sync \(pdsync sync persons\)"):
        resolve(names, {"person": "Eve"})
    assert resolve(names, {"person": 5}) == {"person_id": 5}


@pytest.mark.parametrize("value", [None, "@acme", {"$ref": "a-mutation"}])
def test_null_and_references_stay_as_they_are(names: NameResolver, value: object) -> None:
    assert resolve(names, {"org": value}) == {"org_id": value}
    assert resolve(names, {"Second owner": value}) == {"custom_fields": {OWNER: value}}


# Without a warehouse.


def test_without_a_sync_codes_and_ids_can_be_used() -> None:
    names = NameResolver(None)
    assert resolve(names, {"owner": 1, SIZE: 1}) == {"owner_id": 1, "custom_fields": {SIZE: 1}}
    for given, message in (
        ({"owner": "Anna Berg"}, "names are known after a sync"),
        ({"Deal size": 1}, "Custom fields are known by name after a sync"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve(names, given)


# Headings, labels and values to show.


@pytest.mark.parametrize(
    ("heading", "parameter"),
    [
        ("title", "title"), ("Title", "title"), ("Deal - Title", "title"), ("Titel", "title"),
        ("Deal - Titel", "title"),
        ("Deal - Deal size", "Deal size"), ("Deal size", "Deal size"), ("cf_deal_size", "cf_deal_size"), (SIZE, SIZE),
        ("Person - Title", "Person - Title"), ("Nonsense", "Nonsense"), ("_as", "_as"),
    ],
)  # fmt: skip
def test_the_heading_of_an_export_is_resolved(names: NameResolver, heading: str, parameter: str) -> None:
    assert names.resolve_heading(catalogue.operation("updateDeal"), heading) == parameter


def test_a_heading_that_means_two_fields_is_refused(warehouse: duckdb.DuckDBPyConnection) -> None:
    with open_warehouse() as other:
        other.execute(
            "INSERT INTO meta.custom_fields (entity, field_code, label, column_name, field_type, last_seen)"
            " VALUES ('deals', ?, 'Title', 'cf_title', 'varchar', ?)",
            [SIZE, NOW],
        )
        with pytest.raises(ConfigError, match="means title, or the custom field 'Title'"):
            NameResolver(other).resolve_heading(catalogue.operation("updateDeal"), "Deal - Title")


@pytest.mark.parametrize(
    ("field", "label"),
    [("title", "title"), (f"custom_fields/{SIZE}", "Deal size"), (SIZE, "Deal size"), ("9" * 40, "9" * 40)],
)
def test_a_field_is_shown_by_its_label(names: NameResolver, field: str, label: str) -> None:
    assert names.label(catalogue.operation("updateDeal"), field) == label


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("title", "x", "x"), ("title", None, None),
        (f"custom_fields/{SIZE}", 1, "Large"), (f"custom_fields/{TIER}", [5, 9], ["Gold", 9]),
        ("status", "won", "Won"), ("owner_id", 1, "Anna Berg (1)"), ("owner_id", 99, 99), ("person_id", 5, 5),
        (f"custom_fields/{OWNER}", 2, "Bo Dahl (2)"), (f"custom_fields/{AMOUNT}", {"value": 5, "currency": "EUR"}, 5),
        ("emails", [{"value": "a@example.com", "primary": True}], ["a@example.com"]),
        ("org_id", {"$ref": "m1"}, "that of #3"), ("org_id", {"$ref": "m2"}, {"$ref": "m2"}),
    ],
)  # fmt: skip
def test_a_value_is_shown_as_people_read_it(names: NameResolver, field: str, value: object, shown: object) -> None:
    names.pending = {"m1": "that of #3"}
    assert names.display_value(catalogue.operation("updateDeal"), field, value) == shown


@pytest.mark.parametrize(
    ("name", "stream", "expected"),
    [
        ("owner_id", None, "users"), ("rel_owner_org_id", None, "organizations"), ("title", None, None),
        ("stage_id", "deals", "stages"), ("creator_user_id", "deals", "users"),
    ],
)  # fmt: skip
def test_an_id_belongs_to_the_records_of_a_stream(name: str, stream: str | None, expected: str | None) -> None:
    assert referenced_stream(name, catalogue.stream(stream) if stream else None) == expected
