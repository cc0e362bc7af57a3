"""Generates values of custom fields: one generator for each type of field.

A generator takes no argument and returns a value in the form of API v2. It is made once per field and called for
every record, so it looks up as much as possible in advance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.clock import DAY_S, day_text
from pdsync.sandbox.company.data import load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from pdsync.sandbox.company.fields import Field, FieldSet

ZONES = ((318, "Europe/London"), (97, "Africa/Johannesburg"), (221, "America/New_York"))
TEXTS = (
    "see attachment",
    "Rückfrage offen",
    "n/a",
    "per e-mail",
    "«très urgent»",
    "Line one\nLine two",
    'says "maybe"',
    "0",
    "null",
    "=1+1",
    "確認済み",
    "👍",
)


class Pools:
    """What generated values refer to: ids of users, persons and organizations, addresses, and the current day."""

    def __init__(self, users: Sequence[int], persons: Sequence[int], organizations: Sequence[int], now_s: int) -> None:
        self.users, self.persons, self.organizations = users, persons, organizations
        self.today = now_s // DAY_S
        self.addresses: list[dict[str, Any]] = []


def draw_address(random: Random, culture: dict[str, Any]) -> dict[str, Any]:
    city, area, code = random.choice(culture["places"])
    street, number = random.choice(culture["streets"]), str(random.randint(1, 220))
    value = f"{number} {street}, {city}, {culture['country']}"
    return {
        "value": value,
        "street_number": number,
        "route": street,
        "sublocality": None,
        "locality": city,
        "admin_area_level_1": area,
        "admin_area_level_2": None,
        "country": culture["country"],
        "postal_code": code,
        "subpremise": random.choice((None, None, None, "2b")),
        "formatted_address": f"{number} {street}, {city}, {code}, {culture['country']}",
    }


def make_value_generator(  # noqa: C901, PLR0912 - a table
    field: Field, random: Random, pools: Pools
) -> Callable[[], Any]:
    """A function that returns another value for `field` at each call; a ValueError for a field of unknown type."""
    chance, choice, today = random.random, random.choice, pools.today
    options = [option["id"] for option in field.options or ()]

    def clock_time(first: int = 7) -> str:
        return f"{first + int(chance() * 9):02}:{int(chance() * 4) * 15:02}:00"

    def zone() -> dict[str, Any]:
        id, name = choice(ZONES)
        return {"timezone_id": id, "timezone_name": name}

    match field.type:
        case "varchar" | "varchar_auto":
            return lambda: (
                choice(TEXTS) if chance() < 0.2 else f"{field.name[:2].strip().upper()}-{int(chance() * 1e6)}"
            )
        case "text":
            return lambda: "\n".join(choice(TEXTS) for _ in range(1 + int(chance() * 4)))
        case "double":
            return lambda: round(chance() * 100, 2)
        case "int":
            return lambda: int(chance() * 500)
        case "boolean":
            return lambda: chance() < 0.5
        case "visible_to":
            return lambda: choice((1, 3, 7))
        case "monetary":
            currencies = load("words")["currencies"]
            return lambda: {"value": round(random.lognormvariate(6, 1.2), 2), "currency": choice(currencies)}
        case "date":
            return lambda: day_text(today - int(chance() * 900))
        case "daterange":
            return lambda: _date_range(today - int(chance() * 700), 1 + int(chance() * 60))
        case "time":
            return lambda: {"value": clock_time(), **zone()}
        case "timerange":
            return lambda: {"value": clock_time(6), "until": clock_time(15), **zone()}
        case "enum":
            return lambda: choice(options)
        case "set":
            return lambda: sorted(random.sample(options, 1 + int(chance() * 3)))
        case "user":
            return lambda: choice(pools.users)
        case "org":
            return lambda: choice(pools.organizations) if pools.organizations else None
        case "people":
            return lambda: choice(pools.persons) if pools.persons else None
        case "phone":
            return lambda: f"+49 30 {int(chance() * 9e6) + 1000000}"
        case "address":
            if not pools.addresses:
                cultures = load("names")["culture"]
                pools.addresses = [draw_address(random, choice(cultures)) for _ in range(500)]
            return lambda: choice(pools.addresses)
    raise ValueError(f"cannot generate values for a field of type {field.type!r}")


def _date_range(day: int, days: int) -> dict[str, str]:
    return {"value": day_text(day), "until": day_text(day + days)}


def make_record_generator(
    fields: FieldSet, random: Random, pools: Pools, year_starts: list[int]
) -> Callable[[int], Any]:
    """A function from the second a record was created in to its `custom_fields`.

    Assumption: whether unset keys are null or missing is not documented. Here a field that existed when the record
    was created is null, and one that was added to the company later is missing.
    """
    plan = [
        (field.code, field.share, year_starts[field.year], make_value_generator(field, random, pools))
        for field in fields.all
        if field.custom
    ]
    chance = random.random

    def values(created_s: int) -> dict[str, Any]:
        custom_fields: dict[str, Any] = {}
        for code, share, since_s, make in plan:
            if created_s < since_s and chance() > share / 3:
                continue
            custom_fields[code] = make() if chance() < share else None
        return custom_fields

    return values
