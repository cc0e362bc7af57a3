"""What can be found wrong without a request is refused, and what is queued is what was given."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import pytest

from pdsync.core import catalogue
from pdsync.core.actions import actions
from pdsync.errors import CatalogueError, ConfigError
from pdsync.writeback import enqueue
from pdsync.writeback.outbox import Reference
from pdsync.writeback.resolver import NameResolver
from tests.writeback.company import SIZE, open_company
from tests.writeback.kit import bring_to, entry, open_outbox

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.writeback.outbox import Entry

NAMES = NameResolver(None)
CODE = "a" * 40


def make(operation: str, given: dict[str, Any], **options: Any) -> Entry:
    return enqueue.make_entry(NAMES, catalogue.operation(operation), given, **options)


# Operations.


def test_an_operation_that_changes_data_can_be_queued() -> None:
    assert enqueue.find_operation("updateDeal").name == "v2 updateDeal"
    assert enqueue.find_operation("v1:addNote").name == "v1 addNote"


def test_an_operation_that_only_reads_is_refused_with_its_command() -> None:
    with pytest.raises(ConfigError, match=r"only reads: run it with pdsync api getDeals. Nothing was queued"):
        enqueue.find_operation("getDeals")


def test_an_operation_that_is_gone_names_its_successor() -> None:
    gone = next(each for each in catalogue.operations("v1").values() if each.removed and each.replaced_by)
    with pytest.raises(ConfigError, match=f"no longer documented by Pipedrive. Use {gone.replaced_by} instead."):
        enqueue.find_operation(gone.name)


def test_an_operation_that_has_ended_is_refused_with_the_words_of_its_action() -> None:
    ended = [each for each in catalogue.operations("v1").values() if each.ended]
    assert {each.tag for each in ended} == {"Channels", "Subscriptions"}
    for each in ended:
        with pytest.raises(ConfigError) as refused:
            enqueue.find_operation(each.name)
        assert str(refused.value) == f"{each.name}: {each.ended}\nNothing was queued."
    assert actions()["addChannel"].removed == catalogue.operation("addChannel").ended


def test_an_operation_of_signing_in_is_refused() -> None:
    hosted = [each for version in catalogue.VERSIONS for each in catalogue.operations(version).values() if each.host]
    for each in hosted:
        with pytest.raises(ConfigError, match="Nothing was queued"):
            enqueue.find_operation(each.name)


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(CatalogueError, match="There is no operation 'beamDeal'"):
        enqueue.find_operation("beamDeal")


# One change.


@pytest.mark.parametrize(
    ("operation", "given", "verb", "target"),
    [
        ("updateDeal", {"id": "12", "title": "x"}, "update", "deals/12"),
        ("addDeal", {"title": "x"}, "add", None),
        ("deleteDeal", {"id": 12}, "delete", "deals/12"),
        ("v1 mergeDeals", {"id": 12, "merge_with_id": 13}, "merge", "deals/12"),
        ("addDealProduct", {"id": 12, "product_id": 3, "item_price": 5, "quantity": 1}, "add", "deals/12/products"),
    ],
)
def test_an_entry_says_what_it_does_to_which_record(
    operation: str, given: dict[str, Any], verb: str, target: str | None
) -> None:
    made = make(operation, given)
    assert (made.verb, made.target) == (verb, target)


def test_values_get_the_types_of_their_parameters() -> None:
    made = make("updateDeal", {"id": "12", "title": "x", "value": "1,200.50", "is_archived": "no", CODE: "5"})
    assert made.payload == {
        "id": "12", "title": "x", "value": 1200.5, "is_archived": False, "custom_fields": {CODE: "5"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "given", "message"),
    [
        ("updateDeal", {"id": 12}, "would set nothing"),
        ("updateDeal", {"title": "x"}, "id"),
        ("updateDeal", {"id": "twelve", "title": "x"}, "id"),
        ("addDeal", {"value": 5}, "title"),
        ("updateDeal", {"id": 1, "value": float("nan")}, "value is nan, and is no finite number"),
        ("updateDeal", {"id": 1, "custom_fields": {CODE: float("inf")}}, "no finite number"),
        ("v1 mergeDeals", {"id": 12, "merge_with_id": 12}, "12 can't be merged with itself"),
        ("v1 addFile", {"file": "/no/such/file"}, "/no/such/file is not a file"),
    ],
)
def test_what_is_wrong_is_refused(operation: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make(operation, given)
    assert message in str(refused.value)


def test_a_file_is_queued_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "offer.pdf").write_bytes(b"%PDF")
    assert make("v1 addFile", {"file": "offer.pdf"}).payload == {"file": str(tmp_path / "offer.pdf")}


def test_a_reference_stands_for_an_id_and_is_a_text_elsewhere() -> None:
    made = make("addDeal", {"title": "@acme", "org_id": "@acme"}, name="deal")
    assert made.payload == {"title": "@acme", "org_id": Reference("acme")}
    assert made.name == "deal"


@pytest.mark.parametrize("operation", ["v1 updateLead", "v2 updateDeal"])
def test_a_text_of_a_custom_field_may_begin_as_a_reference_does(operation: str) -> None:
    id = "00000000-0000-0000-0000-000000000001" if operation == "v1 updateLead" else 1
    payload = make(operation, {"id": id, CODE: "@acme"}).payload
    assert {**payload, **payload.get("custom_fields", {})}[CODE] == "@acme"


def test_a_body_that_is_a_text_is_refused_and_no_crash() -> None:
    listed = next(each for each in catalogue.operations("v2").values() if each.mutates and each.body_list)
    with pytest.raises(ConfigError):
        make(listed.name, {**dict.fromkeys(listed.path_params, 1), "body": "@acme"})


def test_a_reference_in_the_path_leaves_the_target_open() -> None:
    assert make("updateDeal", {"id": "@new", "title": "x"}).target is None


def test_only_an_addition_gives_its_record_a_name() -> None:
    with pytest.raises(ConfigError, match="adds no record that others could refer to as 'x'"):
        make("updateDeal", {"id": 1, "title": "x"}, name="x")


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (Decimal("5.00"), 5), (Decimal("5.25"), 5.25), (date(2026, 3, 1), "2026-03-01"), (time(9, 30), "09:30:00"),
        (datetime(2026, 3, 1, 9, tzinfo=UTC), "2026-03-01T09:00:00Z"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"), ([Decimal(1), {"a": Decimal(2)}], [1, {"a": 2}]),
    ],
)  # fmt: skip
def test_a_value_of_a_query_is_queued_as_json(value: object, sent: object) -> None:
    assert make("updateDeal", {"id": 1, "custom_fields": {CODE: value}}).payload["custom_fields"] == {CODE: sent}


# Rows.


def test_a_row_is_a_change_and_a_bad_one_says_why() -> None:
    rows = [{"id": 1, "title": "x"}, {"id": 2, "titel": "x"}, {"id": 3, "title": "y", "_as": "third", "_key": "k"}]
    operation = catalogue.operation("updateDeal")
    good, bad = enqueue.make_entries(NAMES, operation, rows[:2], null_clears=False)
    assert [each.target for each in good] == ["deals/1"]
    assert [(each.number, each.row) for each in bad] == [(2, rows[1])]
    assert "has no parameter 'titel'" in bad[0].why
    assert "\n" not in bad[0].why
    assert "Nothing was queued" not in bad[0].why
    added, _ = enqueue.make_entries(NAMES, catalogue.operation("addDeal"), [{"title": "y", "_as": 3, "_key": 7}],
                                    null_clears=False)  # fmt: skip
    assert (added[0].name, added[0].key, added[0].payload) == ("3", "v2 addDeal:7", {"title": "y"})


@pytest.mark.parametrize(("null_clears", "payload"), [(True, {"id": 1, "title": "x", "value": None}),
                                                      (False, {"id": 1, "title": "x"})])  # fmt: skip
def test_a_null_empties_the_field_only_on_purpose(null_clears: bool, payload: dict[str, Any]) -> None:
    row = {"id": 1, "title": "x", "value": None}
    good, _ = enqueue.make_entries(NAMES, catalogue.operation("updateDeal"), [row], null_clears=null_clears)
    assert good[0].payload == payload


def test_a_key_column_must_be_filled() -> None:
    rows: list[dict[str, Any]] = [{"id": 1, "title": "x"}, {"id": None, "title": "y"}]
    good, bad = enqueue.make_entries(NAMES, catalogue.operation("updateDeal"), rows, null_clears=False, key="id")
    assert [each.key for each in good] == ["v2 updateDeal:1"]
    assert "the column 'id' is empty" in bad[0].why


# Again, and out.


def test_a_second_try_supersedes_the_first(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, journal=False)
    first = bring_to(outbox, "rejected", outbox.add([entry(key="k", expected={"title": "Old"})])[0])
    second = outbox.add([enqueue.copy_for_retry(first)])[0]
    assert (second.operation, second.payload, second.target) == (first.operation, first.payload, first.target)
    assert (second.supersedes, second.expected, second.state) == (first.id, {"title": "Old"}, "queued")


def test_what_was_exported_is_queued_the_same_again(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, journal=False)
    outbox.add([
        make("addOrganization", {"name": "Acme"}, name="acme"), make("addDeal", {"title": "D", "org_id": "@acme"}),
        make("updateDeal", {"id": 12, "title": "x", CODE: "5"}),
    ])  # fmt: skip
    rows = list(enqueue.export_rows(outbox.mutations()))
    assert [row["_operation"] for row in rows] == ["v2 addOrganization", "v2 addDeal", "v2 updateDeal"]
    assert "_as" not in rows[1] | rows[2]
    again = []
    for row in rows:
        plain = {name: value for name, value in row.items() if name != "_operation"}
        good, bad = enqueue.make_entries(NAMES, catalogue.operation(row["_operation"]), [plain], null_clears=True)
        assert bad == []
        again += good
    copies = outbox.add(again)
    assert copies[1].references == {copies[0].id}
    assert [each.payload for each in copies[::2]] == [each.payload for each in outbox.mutations()[:3:2]]


def test_what_undo_expects_of_a_record_survives_export_and_import(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, journal=False)
    expected = {"title": "Ours", f"custom_fields/{CODE}": [5, 6]}
    mutation = outbox.add([entry(expected=expected)])[0]
    (row,) = enqueue.export_rows([mutation])
    for given in (row, {**row, "_expected": msgspec.json.encode(row["_expected"]).decode()}):  # a cell of a text file
        good, bad = enqueue.make_entries(NAMES, catalogue.operation("updateDeal"), [given], null_clears=True)
        assert bad == []
        assert (good[0].expected, good[0].payload) == (expected, mutation.payload)


@pytest.mark.parametrize("value", ["title", "[1]", [1], 5])
def test_expected_values_that_are_no_object_are_refused(value: object) -> None:
    row = {"id": 1, "title": "x", "_expected": value}
    good, bad = enqueue.make_entries(NAMES, catalogue.operation("updateDeal"), [row], null_clears=True)
    assert (good, "the column '_expected' is no JSON object" in bad[0].why) == ([], True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"title": "Old", "update_time": "2026-03-01T00:00:00Z"},
            {"title": "Old", "update_time": "2026-03-01T00:00:00Z"},
        ),
        ({"owner": "Anna Berg", "stage_id": None}, {"owner_id": 1, "stage_id": None}),
        ({"Deal size": "Large"}, {f"custom_fields/{SIZE}": 1}),
        ({f"custom_fields/{SIZE}": 1}, {f"custom_fields/{SIZE}": 1}),
        ({SIZE: 1}, {f"custom_fields/{SIZE}": 1}),
    ],
)
def test_w6_expected_values_go_by_the_names_that_the_record_shows(
    given: dict[str, Any], expected: dict[str, Any]
) -> None:
    row = {"id": 1, "title": "x", "_expected": given}
    names = NameResolver(open_company())
    good, bad = enqueue.make_entries(names, catalogue.operation("updateDeal"), [row], null_clears=True)
    assert ([each.expected for each in good], bad) == ([expected], [])


@pytest.mark.parametrize(
    ("operation", "row", "why"),
    [
        ("updateDeal", {"id": 1, "title": "x", "_expected": {"titel": "Old"}}, "no parameter 'titel'"),
        ("deleteDeal", {"id": 1, "_expected": {"tytle": "Old"}}, "no parameter 'tytle'"),
        ("addDeal", {"title": "x", "_expected": {"title": "Old"}}, "takes no '_expected'"),
    ],
)
def test_w6_expected_values_that_would_never_be_compared_are_refused(
    operation: str, row: dict[str, Any], why: str
) -> None:
    good, bad = enqueue.make_entries(NAMES, catalogue.operation(operation), [row], null_clears=True)
    assert (good, why in bad[0].why) == ([], True), bad


@pytest.mark.parametrize("id", [12, "12", "012", 12.0])
def test_w5_an_id_with_leading_zeros_is_the_same_record(id: object) -> None:
    for operation, target in (("updateDeal", "deals/12"), ("addDealProduct", "deals/12/products")):
        body = {"title": "x"} if operation == "updateDeal" else {"product_id": 1, "item_price": 1, "quantity": 1}
        made = enqueue.make_entry(NAMES, catalogue.operation(operation), {"id": id, **body})
        assert made.target == target
