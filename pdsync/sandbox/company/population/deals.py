"""Makes pipelines with their stages, products, and deals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.clock import (
    DAY_S,
    day_text,
    iso,
    local_date,
)
from pdsync.sandbox.company.data import load
from pdsync.sandbox.company.population.lifecycle import ARCHIVED
from pdsync.sandbox.company.population.people import VISIBILITY

if TYPE_CHECKING:
    from random import Random

    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.population.lifecycle import Lifecycle
    from pdsync.sandbox.company.table import Record


def make_pipelines(company: Company, past: Lifecycle, count: int) -> None:
    """Stages that were never touched since have no update_time, as the API shows them."""
    random, words = past.stream("pipelines"), load("words")["pipelines"]
    born, stage_id = iso(past.year_starts[0]), 10
    for number in range(count):
        at = number % len(words["names"])
        edited = None if number % 3 == 2 else iso(past.now_s - random.randrange(40 * DAY_S, 300 * DAY_S))
        record: Record = {
            "id": number + 1,
            "name": words["names"][at] + (f" {number + 1}" if number >= len(words["names"]) else ""),
            "order_nr": number + 1,
            "is_deleted": False,
            "is_deal_probability_enabled": number % 2 == 0,
            "add_time": born,
            "update_time": edited,
        }
        company["pipelines"].put(company["pipelines"].row(record, "live"))
        names = words["stages"][at]
        for order, name in enumerate(names, 1):
            stage_id += 1
            rots = random.random() < 0.4
            stage: Record = {
                "id": stage_id,
                "order_nr": order,
                "name": name,
                "is_deleted": False,
                "deal_probability": round(100 * order / (len(names) + 1)),
                "pipeline_id": number + 1,
                "is_deal_rot_enabled": rots,
                "days_to_rotten": 14 * order if rots else None,
                "add_time": born,
                "update_time": None if random.random() < 0.6 else iso(past.now_s - random.randrange(900) * DAY_S // 2),
            }
            company["stages"].put(company["stages"].row(stage, "live"))
        stage_id += 5


def make_products(company: Company, past: Lifecycle) -> None:
    random, table, words = past.stream("products"), company["products"], load("words")["products"]
    rnd, choice = random.random, random.choice
    values = past.custom_values("products")
    for id, born in enumerate(past.born["products"], 1):
        fate = past.fate["products"].get(id)
        price = round(random.lognormvariate(4, 1.3), 2)
        frequency = choice(words["frequencies"])
        record: Record = {
            "id": id,
            "name": f"{choice(words['what'])} {choice(words['which'])}",
            "code": f"{choice('ABCDEF')}{choice('KLMN')}-{id}" if rnd() < 0.85 else None,
            "description": choice(("Field kit", "See data sheet", "Für den Außeneinsatz", None)),
            "unit": choice(words["units"]),
            "tax": choice((0, 7, 19, 20, 23)),
            "category": str(1 + int(rnd() * 3)) if rnd() < 0.7 else None,
            "is_linkable": rnd() < 0.95,
            "is_deleted": fate == "deleted",
            "visible_to": choice(VISIBILITY),
            "owner_id": choice(past.all_users),
            "add_time": iso(born),
            "update_time": iso(past.edited(random, born, fate)),
            "billing_frequency": frequency,
            "billing_frequency_cycles": int(rnd() * 24) + 1 if frequency != "one-time" and rnd() < 0.6 else None,
            "prices": [
                {
                    "product_id": id,
                    "price": round(price * rate, 2),
                    "currency": currency,
                    "cost": round(price * rate * 0.4, 2),
                    "direct_cost": None,
                    "notes": "",
                }
                for currency, rate in (("EUR", 1), ("USD", 1.1), ("GBP", 0.85))[: 1 + int(rnd() * 3)]
            ],
            "custom_fields": values(born),
        }
        table.put(table.row(record, past.state("products", id)))
    past.settle("products")


def make_deals(company: Company, past: Lifecycle) -> None:
    random, words = past.stream("deals"), load("words")
    rnd, choice, table = random.random, random.choice, company["deals"]
    values = past.custom_values("deals")
    labels = sorted(company.fields["deals"].option_ids("label_ids"))
    funnels = _funnels(company)
    people, firms, now_s = past.count("persons"), past.count("organizations"), past.now_s
    firm_of = {id: row.facets[5] for id, row in company["persons"].rows.items()}
    for id, born in enumerate(past.born["deals"], 1):
        fate = past.fate["deals"].get(id)
        person = past.link("persons", 1 + int(people * rnd())) if people and rnd() < 0.8 else None
        firm = firm_of.get(person) if person else None
        if firm is None and firms and rnd() < 0.6:
            firm = past.link("organizations", 1 + int(firms * rnd() ** 1.4))
        edited = past.edited(random, born, fate)
        age_days = (now_s - born) / DAY_S
        closed = rnd() < min(0.85, age_days / 200)
        won, reached, ended, moved = rnd() < 0.42, rnd(), 0.4 + 0.6 * rnd(), 0.9 * rnd()
        status = "open" if not closed else "won" if won else "lost"
        pipeline, stages = choice(funnels) if funnels else (None, [None])
        stage = stages[-1 if status == "won" else int(len(stages) * reached**1.5)]
        edited_text = iso(edited)
        closed_text = iso(born + int((edited - born) * ended)) if closed else None
        moved_text = None if stage == stages[0] or edited == born else iso(born + int((edited - born) * moved))
        local = local_date(closed_text) if closed_text else None
        currency = choice(words["currencies"])
        owner = choice(past.all_users)
        channel = 52 + int(rnd() * 2) if rnd() < 0.1 else None
        reason = choice(words["lost_reasons"]) if rnd() < 0.8 else None
        # Assumption: a deal that was never edited has its add_time as update_time, a few have null.
        never = None if edited == born and fate is None and not closed and id % 3 == 0 else edited_text
        record: Record = {
            "id": id,
            "title": f"{choice(words['deal_what'])}{choice(words['deal_why'])} #{id}",
            "creator_user_id": owner if rnd() < 0.7 else choice(past.all_users),
            "owner_id": owner,
            "value": _value(random, currency),
            "person_id": person,
            "org_id": firm,
            "stage_id": stage,
            "pipeline_id": pipeline,
            "currency": currency,
            "archive_time": edited_text if fate == ARCHIVED else None,
            "add_time": iso(born),
            "update_time": never,
            "stage_change_time": moved_text,
            "status": status,
            "is_archived": fate == ARCHIVED,
            "is_deleted": fate == "deleted",
            "probability": int(rnd() * 20) * 5 if rnd() < 0.2 else None,
            "lost_reason": reason if status == "lost" else None,
            "visible_to": choice(VISIBILITY),
            "close_time": closed_text,
            "won_time": closed_text if status == "won" else None,
            "lost_time": closed_text if status == "lost" else None,
            "local_won_date": local if status == "won" else None,
            "local_lost_date": local if status == "lost" else None,
            "local_close_date": local,
            "expected_close_date": day_text(born // DAY_S + 20 + int(rnd() * 120)) if rnd() < 0.6 else None,
            "label_ids": [choice(labels)] if rnd() < 0.35 else [],
            "origin": choice(words["origins"]),
            "origin_id": None,
            "channel": channel,
            "channel_id": "Fair 2025 – Halle 4" if channel == 52 else None,
            "source_lead_id": None,
            "acv": None,
            "arr": None,
            "mrr": None,
            "custom_fields": values(born),
        }
        table.put(table.row(record, past.state("deals", id)))
    past.settle("deals")


def _funnels(company: Company) -> list[tuple[int, list[int]]]:
    """Pipelines with their stages, the first ones more often."""
    made = [
        (pipeline, [stage.id for stage in company["stages"].where("pipeline_id", pipeline)])
        for pipeline in company["pipelines"].rows
    ]
    return [funnel for weight, funnel in zip(range(len(made), 0, -1), made, strict=True) for _ in range(weight)]


def _value(random: Random, currency: str) -> Any:
    if random.random() < 0.06:
        return 0
    value = random.lognormvariate(8.2, 1.1)
    if currency == "JPY":
        return int(value) * 100
    return round(value, 2) if random.random() < 0.2 else int(value / 50 + 1) * 50
