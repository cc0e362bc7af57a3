"""An administrator's changes of fields: the definition changes, and no record's update_time does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.sandbox import Company, Sizes, generate_company
from pdsync.sandbox.company.field_changes import change_fields

if TYPE_CHECKING:
    from pdsync.sandbox.company.fields import Field


@pytest.fixture
def company() -> Company:
    return generate_company(seed=5, sizes=Sizes(deals=30))


def field_of_type(company: Company, type: str) -> Field:
    return next(field for field in company.fields["deals"].custom.values() if field.type == type)


def test_a_field_is_added_renamed_and_retyped(company: Company) -> None:
    added = change_fields(company, "deals", "add", name="Colour", type="enum", options=["red", "blue"])
    assert [option["label"] for option in added["options"]] == ["red", "blue"]
    code = added["field_code"]
    assert change_fields(company, "deals", "rename", code, name="Color")["field_name"] == "Color"
    assert change_fields(company, "deals", "retype", code, type="set")["field_type"] == "set"
    assert company.journal == []


def test_options_are_added_renamed_and_removed(company: Company) -> None:
    field = field_of_type(company, "enum")
    before = [option["label"] for option in field.options or ()]
    added = change_fields(company, "deals", "add_option", field.code, name="Late")["options"][-1]
    change_fields(company, "deals", "rename_option", field.code, option_id=added["id"], name="Later")
    assert [option["label"] for option in field.options or ()] == [*before, "Later"]
    change_fields(company, "deals", "remove_option", field.code, option_id=added["id"])
    assert [option["label"] for option in field.options or ()] == before
    assert (field.options_deleted or [])[-1]["label"] == "Later"


def test_a_deleted_field_is_gone_from_records_whose_time_stays(company: Company) -> None:
    code = field_of_type(company, "varchar").code
    before = {row.id: row.record for row in company["deals"].rows.values()}
    assert any(code in record["custom_fields"] for record in before.values())
    change_fields(company, "deals", "delete", code)
    assert code in company.fields["deals"].retired
    for id, row in company["deals"].rows.items():
        expected = before[id]
        expected["custom_fields"].pop(code, None)
        assert row.record == expected


@pytest.mark.parametrize(("op", "error"), [("explode", ValueError), ("rename", KeyError)])
def test_an_unknown_change_or_field_is_refused(company: Company, op: str, error: type[Exception]) -> None:
    code = "0" * 40 if op == "rename" else field_of_type(company, "varchar").code
    with pytest.raises(error):
        change_fields(company, "deals", op, code)
