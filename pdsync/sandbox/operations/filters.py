"""Evaluates saved filters: which records of a list a `filter_id` leaves.

A filter has conditions in two groups: all of the first and, unless it is empty, at least one of the second. A condition
compares one field of the record, or of a record that it links to, with a value.
Assumptions: a filter that another kind of list has is refused; texts are compared without case; dates of records are
compared by day; relative dates ("last month") are compared as texts: what they mean depends on the user's time zone.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from pdsync.sandbox.operations.generic_records import records_at
from pdsync.sandbox.protocol.errors import bad_request
from pdsync.sandbox.protocol.messages import is_number
from pdsync.sandbox.protocol.render import OPTIONAL
from pdsync.sandbox.protocol.v1_parts import remembered

if TYPE_CHECKING:
    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record
    from pdsync.sandbox.protocol.messages import Call

FILTERS = ("filters",)
MOST_CONDITIONS = 16
TYPES = {  # of a filter → the kind of the records that it is for
    "deals": "deals", "leads": "leads", "org": "organizations", "people": "persons", "products": "products",
    "activity": "activities", "projects": "projects",
}  # fmt: skip
OBJECTS = {  # of a condition → the kind of record whose field it names
    "deal": "deals", "person": "persons", "organization": "organizations", "product": "products",
    "activity": "activities", "lead": "leads", "project": "projects",
}  # fmt: skip
LINKS = {
    "persons": ("person_id", "person_ids"),
    "organizations": ("org_id", "organization_id", "org_ids"),
    "deals": ("deal_id", "deal_ids"),
}
# Fields of deals that a lead calls otherwise.
RENAMED = {"leads": {"org_id": "organization_id"}}
COMPARED = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
}  # fmt: skip
PATTERNS = {"LIKE '$%'": True, "NOT LIKE '$%'": False, "LIKE '%$%'": True, "NOT LIKE '%$%'": False}
OPERATORS = (*COMPARED, *PATTERNS, "IS NULL", "IS NOT NULL")
DAY = len("2026-01-01")


def matching_ids(call: Call, kind: str) -> frozenset[Any] | None:
    """The ids of the records of `kind` that the query's `filter_id` leaves, deleted ones too; None without one."""
    text = call.query.get("filter_id")
    if not text:
        return None
    row = records_at(call.company, FILTERS, ()).get(text)
    if row is None or TYPES.get(row.record["type"]) != kind:
        raise bad_request(f"Filter {text} does not exist", "filter_id")
    ids: frozenset[Any] = _matching(call.company, kind, text)
    return ids


@remembered
def _matching(company: Company, kind: str, id: str) -> frozenset[Any]:
    groups = records_at(company, FILTERS, ())[id].record["conditions"]["conditions"]
    every = [each for group in groups if group["glue"] == "and" for each in group["conditions"]]
    some = [each for group in groups if group["glue"] == "or" for each in group["conditions"]]

    def matches(record: Record) -> bool:
        return all(_holds(company, kind, record, each) for each in every) and (
            not some or any(_holds(company, kind, record, each) for each in some)
        )

    rows = company[kind].rows.values() if kind in company.tables else records_at(company, (kind,), ()).values()
    return frozenset(record["id"] for record in (row.record for row in rows) if matches(record))


def check_conditions(company: Company, conditions: Any) -> Record:
    """The conditions with the code of each field. Raises a 400 for what can't be evaluated."""
    groups = conditions.get("conditions") if isinstance(conditions, dict) else None
    if not isinstance(groups, list) or conditions.get("glue") != "and" or len(groups) > 2:
        raise bad_request("conditions takes one group glued with 'and', of two groups", "conditions")
    made = []
    for group in groups:
        inner = group.get("conditions") if isinstance(group, dict) else None
        if not isinstance(inner, list) or group.get("glue") not in ("and", "or"):
            raise bad_request("a group of conditions is glued with 'and' or 'or'", "conditions")
        made.append({"glue": group["glue"], "conditions": [_condition(company, each) for each in inner]})
    if sum(len(group["conditions"]) for group in made) > MOST_CONDITIONS:
        raise bad_request(f"a filter has at most {MOST_CONDITIONS} conditions", "conditions")
    return {"glue": "and", "conditions": made}


def _condition(company: Company, sent: Any) -> Record:
    if not isinstance(sent, dict) or str(sent.get("object")) not in OBJECTS:
        raise bad_request(f"object must be one of {', '.join(OBJECTS)}", "object")
    if str(sent.get("operator")) not in OPERATORS:
        raise bad_request(f"operator must be one of {', '.join(OPERATORS)}", "operator")
    kind = OBJECTS[sent["object"]]
    kept, id = {name: sent.get(name) for name in ("object", "operator", "extra_value")}, str(sent.get("field_id"))
    value = None if sent.get("value") is None else str(sent["value"])
    code = _field_code(company, kind, id)
    return {**kept, "field_id": id, "value": value, "json_value_flag": False, "field_code": code}


def _field_code(company: Company, kind: str, id: str) -> str:
    """The code of the field with a number. Leads have the fields of deals; a project's have no numbers, but codes."""
    if kind == "projects":
        if id in records_at(company, ("projectFields",), ()) or not is_number(id):
            return id
        raise bad_request(f"There is no field {id}", "field_id")
    for field in company.fields["deals" if kind == "leads" else kind].all:
        if id == str(field.id):
            return str(field.code)
    raise bad_request(f"There is no field {id}", "field_id")


def _holds(company: Company, kind: str, record: Record, condition: Record) -> bool:
    other = OBJECTS[condition["object"]]
    if other != kind and (kind, other) != ("leads", "deals"):
        return any(
            _holds(company, other, row.record, condition)
            for id in _linked(record, other)
            if (row := company[other].rows.get(id)) is not None
        )
    value = _value(company, kind, record, condition["field_code"])
    wanted, how = condition["value"], condition["operator"]
    if how in ("IS NULL", "IS NOT NULL"):
        return (value in (None, "", [])) is (how == "IS NULL")
    values = [_plain(each) for each in value] if isinstance(value, list) else [_plain(value)]
    negated = how in ("!=", "NOT LIKE '$%'", "NOT LIKE '%$%'")
    return (all if negated else any)(_compares(each, how, wanted) for each in values)


def _linked(record: Record, kind: str) -> list[int]:
    values = [record.get(name) for name in LINKS.get(kind, ())]
    return [id for value in values for id in (value if isinstance(value, list) else [value]) if isinstance(id, int)]


def _value(company: Company, kind: str, record: Record, code: str) -> Any:
    code = RENAMED.get(kind, {}).get(code, code)
    if code in record:
        return record[code]
    custom = record.get("custom_fields") or {}
    if code in custom or kind not in company.tables:
        return custom.get(code)
    row = company[kind].rows[record["id"]]
    return OPTIONAL[kind](company, row, record).get(code) if kind in OPTIONAL else None


def _plain(value: Any) -> Any:
    """What is compared of a value with parts: the amount, the day, the address, the number of an e-mail."""
    if isinstance(value, dict):
        return value.get("value", value.get("amount"))
    return int(value) if isinstance(value, bool) else value


def _compares(value: Any, how: str, wanted: str | None) -> bool:
    if value is None or wanted is None:
        return how == "!=" or how.startswith("NOT")
    if how in PATTERNS:
        text, part = str(value).casefold(), wanted.casefold()
        matches = text.startswith(part) if how.endswith("'$%'") else part in text
        return matches is PATTERNS[how]
    if isinstance(value, int | float):
        try:
            return bool(COMPARED[how](value, float({"true": "1", "false": "0"}.get(wanted, wanted))))
        except ValueError:
            return how == "!="
    text = str(value)[:DAY] if len(wanted) == DAY and wanted[4] == wanted[7] == "-" else str(value)
    return bool(COMPARED[how](text.casefold(), wanted.casefold()))
