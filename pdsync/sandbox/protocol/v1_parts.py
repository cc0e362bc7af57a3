"""What v1 nests in its records and puts beside them: users, contacts, flat custom fields, related objects."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.fields import ADDRESS_PARTS
from pdsync.sandbox.protocol import derived_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record, Row

MOST_REMEMBERED = 100_000
NO_CONTACT = [{"value": "", "primary": True}]
SIGNS = {"EUR": "€", "USD": "$", "GBP": "£", "JPY": "¥"}


def remembered(make: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what `make` returns until the company changes: a page names the same few users 500 times.

    All callers get the same object: do not change it.
    """

    @functools.wraps(make)
    def kept(company: Company, *args: Any) -> Any:
        key, memo = (make, *args), company.memo
        if key in memo:
            return memo[key]
        if len(memo) > MOST_REMEMBERED:
            memo.clear()
        made = memo[key] = make(company, *args)
        return made

    return kept


@remembered
def user(company: Company, id: int | None) -> Record | None:
    row = company["users"].rows.get(id) if id is not None else None
    if row is None:
        return None
    record = row.record
    return {
        "id": id,
        "name": record["name"],
        "email": record["email"],
        "has_pic": 0,
        "pic_hash": None,
        "active_flag": record["active_flag"],
    }


@remembered
def organization(company: Company, id: int | None) -> Record | None:
    row = company["organizations"].rows.get(id) if id is not None else None
    if row is None:
        return None
    record = row.record
    return {
        "name": record["name"],
        "people_count": derived_fields.people(company, row.id),
        "owner_id": record["owner_id"],
        "address": record["address"]["value"] if record["address"] else None,
        "label_ids": record["label_ids"],
        "active_flag": not record["is_deleted"],
        "cc_email": derived_fields.bcc(company),
        "owner_name": name_of(company, "users", record["owner_id"]),
    }


@remembered
def person(company: Company, id: int | None) -> Record | None:
    row = company["persons"].rows.get(id) if id is not None else None
    if row is None:
        return None
    record = row.record
    return {
        "active_flag": not record["is_deleted"],
        "name": record["name"],
        "email": contacts(record["emails"]),
        "phone": contacts(record["phones"]),
        "owner_id": record["owner_id"],
    }


def valued(nested: Record | None, id: int | None) -> Record | None:
    return None if nested is None else {**nested, "value": id}


@remembered
def name_of(company: Company, kind: str, id: int | None) -> str | None:
    row = company[kind].rows.get(id) if id is not None else None
    return None if row is None else str(row.record["title" if kind == "deals" else "name"])


def custom(company: Company, kind: str, values: Record) -> Record:
    """`custom_fields` as flat keys: one for the value, more with suffixes for its parts."""
    fields = company.fields[kind].custom
    flat: Record = {}
    for code, value in values.items():
        field = fields.get(code)
        if field is None:
            continue
        match field.type:
            case "monetary":
                spread(flat, code, value, ("currency",))
            case "daterange":
                spread(flat, code, value, ("until",))
            case "time":
                spread(flat, code, value, ("timezone_id",))
            case "timerange":
                spread(flat, code, value, ("until", "timezone_id"))
            case "address":
                spread(flat, code, value, ADDRESS_PARTS)
            case "enum":
                flat[code] = None if value is None else str(value)
            case "set":
                flat[code] = None if not value else ",".join(map(str, value))
            case _:
                flat[code] = value
    return flat


def spread(flat: Record, code: str, value: Record | None, parts: Iterable[str]) -> None:
    flat[code] = value and value.get("value")
    for part in parts:
        flat[f"{code}_{part}"] = value and value.get(part)


def contacts(contacts: list[Record]) -> list[Record]:
    return [{key: c.get(key) for key in ("label", "value", "primary")} for c in contacts] or NO_CONTACT


def money(value: Any, currency: str) -> str:
    return f"{SIGNS.get(currency, currency + ' ')}{value or 0:,}"


def activity_stub(company: Company, row: Row | None, record: Record | None = None) -> Record:
    record = row.record if row else None
    return {
        "id": record and record["id"],
        "date": record and record["due_date"],
        "time": record and record["due_time"],
        "subject": record and record["subject"],
        "type": record and record["type"],
        "duration": record and record["duration"],
        "note": record and record["note"],
    }


def counted_only(counted: Record) -> Record:
    return {name: value for name, value in counted.items() if name.endswith("_count")}


def neighbours(company: Company, facet: str, row: Row, counted: Record) -> Record:
    following, last, _, _ = derived_fields.activity_rows(company, facet, row.id)
    next_one, last_one = activity_stub(company, following), activity_stub(company, last)
    return {
        "next_activity_date": next_one["date"],
        "next_activity_time": next_one["time"],
        "next_activity_id": next_one["id"],
        "last_activity_id": last_one["id"],
        "last_activity_date": last_one["date"],
    }


@remembered
def stage_of(company: Company, id: int | None) -> Record:
    row = company["stages"].rows.get(id or 0)
    return row.record if row else {}


def related(company: Company, kind: str, rows: list[Row]) -> Record:
    """What the rows of a page refer to, by kind and id.

    Assumption: a kind that no row refers to is left out.
    """
    table = company[kind]

    def ids(*facets: str) -> set[int]:
        at = [table.position[facet] for facet in facets if facet in table.position]
        return {row.facets[i] for row in rows for i in at if row.facets[i] is not None}

    found = {
        "user": {id: user(company, id) for id in ids("owner_id")},
        "organization": {id: organization(company, id) for id in ids("org_id")},
        "person": {id: person(company, id) for id in ids("person_id")},
        "deal": {id: _deal_stub(company, id) for id in ids("deal_id")},
        "stage": {id: _stub(company, "stages", id) for id in ids("stage_id")},
        "pipeline": {id: _stub(company, "pipelines", id) for id in ids("pipeline_id")},
    }
    return {
        name: {str(id): {"id": id, **nested} for id, nested in some.items() if nested is not None}
        for name, some in found.items()
        if some
    }


def _deal_stub(company: Company, id: int) -> Record | None:
    row = company["deals"].rows.get(id)
    record = row.record if row else None
    names = ("title", "status", "value", "currency", "stage_id", "pipeline_id")
    return record and {name: record[name] for name in names}


def _stub(company: Company, kind: str, id: int) -> Record | None:
    row = company[kind].rows.get(id)
    if row is None:
        return None
    record = row.record
    if kind == "pipelines":
        return {"name": record["name"], "active": not record["is_deleted"]}
    return {"name": record["name"], "active_flag": not record["is_deleted"], "pipeline_id": record["pipeline_id"]}
