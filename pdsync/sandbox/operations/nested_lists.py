"""Answers for what hangs on a company's own records: its files, the deals of a pipeline, the sums of its deals."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.clock import v1_time
from pdsync.sandbox.operations.users_files_mail import message
from pdsync.sandbox.protocol import v1_records
from pdsync.sandbox.protocol.errors import bad_request

if TYPE_CHECKING:
    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.table import Record, Row
    from pdsync.sandbox.protocol.messages import Call

# A collection below a record → the kind it holds, and the facet that names the record.
NESTED: dict[tuple[str, ...], tuple[str, str]] = {
    ("deals", "{}", "files"): ("files", "deal_id"),
    ("persons", "{}", "files"): ("files", "person_id"),
    ("organizations", "{}", "files"): ("files", "org_id"),
    ("products", "{}", "files"): ("files", "product_id"),
    ("pipelines", "{}", "deals"): ("deals", "pipeline_id"),
    ("stages", "{}", "deals"): ("deals", "stage_id"),
}
MAILED = {"deals": "deal_id", "persons": "person_id", "organizations": "org_id"}
NESTING = frozenset(("creator_user_id", "user_id", "owner_id", "person_id", "org_id"))
STATES = ("open", "won", "lost", "deleted", "all_not_deleted")


def records_of(company: Company, collection: tuple[str, ...], parent: int) -> list[Record]:
    """The live records of a nested list, as v1 shows them, in the order of their ids."""
    kind, facet = NESTED[collection]
    rows = sorted((row for row in company[kind].where(facet, parent) if row.state == "live"), key=lambda row: row.id)
    shown = [v1_records.shape(company, kind, row) for row in rows]
    return [plain(record) for record in shown]


def plain(record: Record) -> Record:
    """A record of v1 with plain ids, where its list nests users and contacts."""
    return {
        name: value["value"] if name in NESTING and isinstance(value, dict) else value for name, value in record.items()
    }


def messages_of(company: Company, facet: str, id: int, *, with_body: bool = False) -> list[Record]:
    """The mail of a record, whoever's mailbox it is in; the newest thread first, and in it the newest message."""
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

    Assumption: every currency converts one to one, and what is weighted is the value times the probability.
    """
    table = call.company["deals"]
    wanted = {
        facet: call.query[name]
        for name, facet in (("user_id", "owner_id"), ("pipeline_id", "pipeline_id"), ("stage_id", "stage_id"))
        if call.query.get(name)
    }
    status = call.query.get("status", "all_not_deleted")
    if status not in STATES:
        raise bad_request(f"status must be one of {', '.join(STATES)}", "status")
    totals: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for row in table.rows.values():
        if _counts(row, table.facet(row, "status"), status, archived=archived) and all(
            str(table.facet(row, facet)) == value for facet, value in wanted.items()
        ):
            record = row.record
            value, chance = record["value"] or 0, record["probability"]
            total = totals[record["currency"]]
            total[0] += 1
            total[1] += value
            total[2] += value * (100 if chance is None else chance) / 100
    values = {currency: _sum(count, value) for currency, (count, value, _) in sorted(totals.items())}
    weighted = {currency: _sum(count, value) for currency, (count, _, value) in sorted(totals.items())}
    whole, heavy = sum(t[1] for t in totals.values()), sum(t[2] for t in totals.values())
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


def _sum(count: float, value: float) -> Record:
    said = f"{value:,.2f}"
    return {
        "value": round(value, 2),
        "count": int(count),
        "value_converted": round(value, 2),
        "value_formatted": said,
        "value_converted_formatted": said,
    }
