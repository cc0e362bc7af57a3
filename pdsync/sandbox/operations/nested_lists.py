"""Answers for what hangs on a company's own records: its files, the deals of a pipeline, the sums of its deals."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.clock import v1_time
from pdsync.sandbox.operations.filters import matching_ids
from pdsync.sandbox.operations.generic_records import all_rows
from pdsync.sandbox.operations.list_filters import sort_by_query
from pdsync.sandbox.operations.rates import convert
from pdsync.sandbox.operations.users_files_mail import message
from pdsync.sandbox.protocol import v1_records
from pdsync.sandbox.protocol.errors import bad_request
from pdsync.sandbox.protocol.v1_parts import remembered

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record, Row
    from pdsync.sandbox.protocol.messages import Call

PRODUCT_DEALS = ("products", "{}", "deals")
# A collection below a record → the kind it holds, and the facet that names the record.
NESTED: dict[tuple[str, ...], tuple[str, str]] = {
    ("deals", "{}", "files"): ("files", "deal_id"),
    ("persons", "{}", "files"): ("files", "person_id"),
    ("organizations", "{}", "files"): ("files", "org_id"),
    ("products", "{}", "files"): ("files", "product_id"),
    ("pipelines", "{}", "deals"): ("deals", "pipeline_id"),
    ("stages", "{}", "deals"): ("deals", "stage_id"),
    PRODUCT_DEALS: ("deals", ""),
}
MAILED = {"deals": "deal_id", "persons": "person_id", "organizations": "org_id"}
NESTING = frozenset(("creator_user_id", "user_id", "owner_id", "person_id", "org_id"))
STATES = ("open", "won", "lost", "deleted", "all_not_deleted")


def records_of(call: Call, collection: tuple[str, ...], parent: int) -> list[Record]:
    """The records of a nested list that the query asks for, as v1 shows them, in its order or that of their ids."""
    company = call.company
    if collection == PRODUCT_DEALS:
        linked = (company["deals"].rows[id] for id in deals_by_product(company).get(parent, ()))
        return [v1_records.shape(company, "deals", row) for row in linked if _has_status(call, row)]
    kind, facet = NESTED[collection]
    rows = sorted((row for row in company[kind].where(facet, parent) if row.state == "live"), key=lambda row: row.id)
    if kind == "deals":
        rows = list(filter(_deal_test(call), rows))
    records = [plain(v1_records.shape(company, kind, row)) for row in rows]
    if kind == "files":  # under two names here
        records = [{**record, "people_name": record["person_name"]} for record in records]
    return sort_by_query(call.query, records, lambda record: record)


def _deal_test(call: Call) -> Callable[[Row], bool]:
    """Whose deals a pipeline or a stage lists: everyone's, one user's, those of a filter, or the caller's own.

    Assumption: only a request without any of its parameters leaves out those that are not open.
    """
    table, query = call.company["deals"], call.query
    stage = query.get("stage_id")
    owner, ids = query.get("user_id"), None
    if query.get("everyone") in ("1", "true"):
        owner = None
    elif not owner:
        ids = matching_ids(call, "deals")
        owner = None if ids is not None else str(call.viewer.user_id)
    is_open = not any(query.get(name) for name in ("everyone", "user_id", "filter_id", "stage_id"))

    def matches(row: Row) -> bool:
        return (
            (owner is None or str(table.facet(row, "owner_id")) == owner)
            and (ids is None or row.id in ids)
            and (not stage or str(table.facet(row, "stage_id")) == stage)
            and (not is_open or table.facet(row, "status") == "open")
        )

    return matches


def _has_status(call: Call, row: Row) -> bool:
    status = call.query.get("status") or "all_not_deleted"
    if status not in STATES:
        raise bad_request(f"status must be one of {', '.join(STATES)}", "status")
    return _counts(row, call.company["deals"].facet(row, "status"), status, archived=False)


@remembered
def deals_by_product(company: Company) -> dict[int, list[int]]:
    """The deals of each product, in the order of their ids."""
    deals: dict[int, set[int]] = defaultdict(set)
    for (deal,), _, row in all_rows(company, "deal_products"):
        deals[row.record["product_id"]].add(int(deal))
    return {product: sorted(ids) for product, ids in deals.items()}


def plain(record: Record) -> Record:
    """A record of v1 with plain ids, where its list nests users and contacts."""
    return {
        name: value["value"] if name in NESTING and isinstance(value, dict) else value for name, value in record.items()
    }


def messages_of(company: Company, facet: str, id: int, *, with_body: bool = False) -> list[Record]:
    """The mail of a record in every mailbox; the newest thread first, and in it the newest message."""
    threads = [row.record for row in company["mail_threads"].where(facet, id) if row.state == "live"]
    threads.sort(key=lambda thread: (thread["last_message_timestamp"], thread["id"]), reverse=True)
    return [
        _linked_message(company, thread, number, with_body=with_body)
        for thread in threads
        for number in reversed(range(thread["message_count"]))
    ]


def _linked_message(company: Company, thread: Record, number: int, *, with_body: bool) -> Record:
    shown = message(thread, number, with_body=with_body)
    time = shown["message_time"]
    mail = {
        **shown,
        "external_deleted_flag": bool(thread["external_deleted_flag"]),
        "company_id": company.id,
        "nylas_id": f"nylas{shown['id']}",
        "s3_bucket": "sandbox-mail",
        "s3_bucket_path": f"{company.id}/{shown['id']}/body",
        "mua_message_id": f"{shown['id']}@{company.domain}.example",
        "template_id": None,
        "item_type": "mailMessage",
        "timestamp": time,
    }
    return {"object": "mailMessage", "timestamp": v1_time(time), "data": mail}


def deals_summary(call: Call, *, archived: bool) -> Record:
    """How many deals there are and what they are worth, in all and by currency.

    Assumption: what is weighted is the value times the probability. For the rates see `rates`.
    """
    table, ids = call.company["deals"], matching_ids(call, "deals")
    wanted = {
        facet: call.query[name]
        for name, facet in (("user_id", "owner_id"), ("pipeline_id", "pipeline_id"), ("stage_id", "stage_id"))
        if call.query.get(name) and not (ids is not None and name == "user_id")  # a filter comes before the user
    }
    status = call.query.get("status", "all_not_deleted")
    if status not in STATES:
        raise bad_request(f"status must be one of {', '.join(STATES)}", "status")
    totals: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for row in table.rows.values():
        if (
            _counts(row, table.facet(row, "status"), status, archived=archived)
            and all(str(table.facet(row, facet)) == value for facet, value in wanted.items())
            and (ids is None or row.id in ids)
        ):
            record = row.record
            value, chance = record["value"] or 0, record["probability"]
            total = totals[record["currency"]]
            total[0] += 1
            total[1] += value
            total[2] += value * (100 if chance is None else chance) / 100
    values = {
        currency: _sum(count, value, convert(value, currency)) for currency, (count, value, _) in sorted(totals.items())
    }
    weighted = {currency: _weighted_sum(count, value) for currency, (count, _, value) in sorted(totals.items())}
    whole, heavy = (sum(convert(t[at], currency) for currency, t in totals.items()) for at in (1, 2))
    return {
        "values_total": values,
        "weighted_values_total": weighted,
        "total_count": sum(int(t[0]) for t in totals.values()),
        "total_currency_converted_value": round(whole, 2),
        "total_weighted_currency_converted_value": round(heavy, 2),
        "total_currency_converted_value_formatted": f"€{whole:,.2f}",
        "total_weighted_currency_converted_value_formatted": f"€{heavy:,.2f}",
    }


def _counts(row: Row, has: Any, status: str, *, archived: bool) -> bool:
    if archived:
        return row.state == "archived" and status in ("all_not_deleted", has)
    if status == "deleted":
        return row.state == "deleted"
    return row.state == "live" and status in ("all_not_deleted", has)


def _sum(count: float, value: float, converted: float) -> Record:
    shown = {"value_converted": round(converted, 2), "value_converted_formatted": f"€{converted:,.2f}"}
    return {**_weighted_sum(count, value), **shown}


def _weighted_sum(count: float, value: float) -> Record:
    return {"value": round(value, 2), "count": int(count), "value_formatted": f"{value:,.2f}"}
