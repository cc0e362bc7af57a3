"""Groups deals by a date of theirs into days, weeks, months or quarters, and sums each group up.

Assumptions: one interval is the object that the schema shows, several are a list of such; for the rates of
currencies see `rates`; a time falls on its day in UTC.
"""

from __future__ import annotations

import calendar
from collections import defaultdict
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from pdsync.sandbox.operations import rates
from pdsync.sandbox.operations.filters import matching_ids
from pdsync.sandbox.operations.nested_lists import plain
from pdsync.sandbox.protocol import v1_records
from pdsync.sandbox.protocol.errors import bad_request
from pdsync.sandbox.protocol.messages import is_number, success
from pdsync.sandbox.protocol.row_finder import Selection, matcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.sandbox.company.fields import Field
    from pdsync.sandbox.company.table import Record, Row
    from pdsync.sandbox.protocol.messages import Call, Reply, Route

MONTHS = {"month": 1, "quarter": 3}
DAYS = {"day": 1, "week": 7}
MOST_INTERVALS = 1000  # Assumption: there is some limit
FILTERS = {"user_id": "owner_id", "pipeline_id": "pipeline_id"}


def deals_timeline(call: Call, route: Route) -> Reply:
    """Open and won deals whose `field_key` is in one of the intervals."""
    first, interval = read_date(call, "start_date"), call.query.get("interval", "")
    if interval not in (*MONTHS, *DAYS):
        raise bad_request(f"interval must be one of {', '.join((*DAYS, *MONTHS))}", "interval")
    amount = read_number(call, "amount") or 0
    if not 1 <= amount <= MOST_INTERVALS:
        raise bad_request(f"amount must be a number from 1 to {MOST_INTERVALS}", "amount")
    convert = call.query.get("totals_convert_currency", "")
    if convert not in ("", "default_currency") and not (len(convert) == 3 and convert.isalpha()):
        raise bad_request("totals_convert_currency must be the code of a currency", "totals_convert_currency")
    target = rates.BASE if convert == "default_currency" else convert.upper()
    try:
        starts = [_later(first, interval, number) for number in range(amount + 1)]
    except (ValueError, OverflowError):
        raise bad_request("the last interval ends after the year 9999", "amount") from None
    groups: list[list[Record]] = [[] for _ in range(amount)]
    for day, row in _dated(call, "archived" if route.pattern[-1] == "archived" else "live"):
        if starts[0] <= day < starts[-1]:
            place = next(at for at in range(amount) if day < starts[at + 1])
            groups[place].append(plain(v1_records.shape(call.company, "deals", row)))
    with_deals = call.query.get("exclude_deals") != "1"
    shown = [
        {
            "period_start": f"{start} 00:00:00",
            "period_end": f"{end - timedelta(days=1)} 23:59:59",
            **({"deals": deals} if with_deals else {}),
            "totals": _totals(deals),
            **({"totals_converted": _converted(deals, target)} if convert else {}),
        }
        for start, end, deals in zip(starts, starts[1:], groups, strict=False)
    ]
    return success(shown[0] if amount == 1 else shown)


def read_date(call: Call, name: str) -> date:
    text = call.query.get(name, "")
    try:
        if len(text) != len("2026-01-01"):
            raise ValueError(text)
        return date.fromisoformat(text)
    except ValueError:
        raise bad_request(f"{name} is required, as YYYY-MM-DD", name) from None


def read_number(call: Call, name: str) -> int | None:
    text = call.query.get(name, "")
    if text and not is_number(text):
        raise bad_request(f"{name} must be a number", name)
    return int(text) if text else None


def _later(first: date, interval: str, number: int) -> date:
    if interval in DAYS:
        return first + timedelta(days=number * DAYS[interval])
    months = first.month - 1 + number * MONTHS[interval]
    year, month = first.year + months // 12, months % 12 + 1
    return date(year, month, min(first.day, calendar.monthrange(year, month)[1]))


def _dated(call: Call, state: str) -> Iterator[tuple[date, Row]]:
    """Open and won deals with the day of `field_key`."""
    company, key = call.company, call.query.get("field_key", "")
    field = next((field for field in company.fields["deals"] if key in (field.key, field.code)), None)
    if field is None or field.type != "date":
        raise bad_request("field_key must be the key of a field of deals with dates", "field_key")
    equal: tuple[tuple[str, Any], ...] = tuple(
        (facet, id) for name, facet in FILTERS.items() if (id := read_number(call, name)) is not None
    )
    ids = matching_ids(call, "deals")
    chosen = Selection(equal=equal, ids=ids, states=(state,), statuses=frozenset(("open", "won")))
    for row in filter(matcher(company["deals"], chosen, call.viewer, company), company["deals"].rows.values()):
        text = _value(call, field, row)
        if text:
            yield date.fromisoformat(text[:10]), row


def _value(call: Call, field: Field, row: Row) -> str | None:
    record = row.record
    if field.custom:
        record = record["custom_fields"]
    elif field.code not in record:  # what is counted, and not kept
        record = v1_records.shape(call.company, "deals", row)
    value: str | None = record.get(field.code)
    return value


def _totals(deals: list[Record]) -> Record:
    by_status = {status: [deal for deal in deals if deal["status"] == status] for status in ("open", "won")}
    return {
        "count": len(deals),
        "values": values(deals),
        "weighted_values": values(deals, "weighted_value"),
        "open_count": len(by_status["open"]),
        "open_values": values(by_status["open"]),
        "weighted_open_values": values(by_status["open"], "weighted_value"),
        "won_count": len(by_status["won"]),
        "won_values": values(by_status["won"]),
    }


def _converted(deals: list[Record], target: str) -> Record:
    """The totals in one currency."""
    return {
        name: round(sum(rates.convert(value, currency, target) for currency, value in total.items()), 2)
        if isinstance(total, dict)
        else total
        for name, total in _totals(deals).items()
    }


def values(deals: list[Record], name: str = "value") -> dict[str, float]:
    """What the deals are worth, by currency."""
    sums: dict[str, float] = defaultdict(float)
    for deal in deals:
        sums[deal["currency"]] += deal[name] or 0
    return {currency: round(value, 2) for currency, value in sorted(sums.items())}
