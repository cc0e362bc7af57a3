"""Generates pipelines with their stages, products, and deals."""

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

ORG = 5  # facet of a person


def make_pipelines(company: Company, lifecycle: Lifecycle, count: int) -> None:
    """Generate `count` pipelines. A stage that was never edited has no update_time, as in the API."""
    random, words = lifecycle.random("pipelines"), load("words")["pipelines"]
    created, stage_id, now_s = iso(lifecycle.year_starts[0]), 10, lifecycle.now_s
    for number in range(count):
        template = number % len(words["names"])
        edited = None if number % 3 == 2 else iso(now_s - random.randrange(40 * DAY_S, 300 * DAY_S))
        record: Record = {
            "id": number + 1,
            "name": words["names"][template] + (f" {number + 1}" if number >= len(words["names"]) else ""),
            "order_nr": number + 1,
            "is_deleted": False,
            "is_deal_probability_enabled": number % 2 == 0,
            "add_time": created,
            "update_time": edited,
        }
        company["pipelines"].put(company["pipelines"].row(record, "live"))
        names = words["stages"][template]
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
                "add_time": created,
                "update_time": None
                if random.random() < 0.6
                else iso(lifecycle.now_s - random.randrange(900) * DAY_S // 2),
            }
            company["stages"].put(company["stages"].row(stage, "live"))
        stage_id += 5


def make_products(company: Company, lifecycle: Lifecycle) -> None:
    random, table, words = lifecycle.random("products"), company["products"], load("words")["products"]
    chance, choice = random.random, random.choice
    values = lifecycle.custom_values_generator("products")
    for id, created_s in enumerate(lifecycle.created_s["products"], 1):
        fate = lifecycle.fate["products"].get(id)
        price = round(random.lognormvariate(4, 1.3), 2)
        frequency = choice(words["frequencies"])
        record: Record = {
            "id": id,
            "name": f"{choice(words['what'])} {choice(words['which'])}",
            "code": f"{choice('ABCDEF')}{choice('KLMN')}-{id}" if chance() < 0.85 else None,
            "description": choice(("Field kit", "See data sheet", "Für den Außeneinsatz", None)),
            "unit": choice(words["units"]),
            "tax": choice((0, 7, 19, 20, 23)),
            "category": str(1 + int(chance() * 3)) if chance() < 0.7 else None,
            "is_linkable": chance() < 0.95,
            "is_deleted": fate == "deleted",
            "visible_to": choice(VISIBILITY),
            "owner_id": choice(lifecycle.all_users),
            "add_time": iso(created_s),
            "update_time": iso(lifecycle.draw_edit_s(random, created_s, fate)),
            "billing_frequency": frequency,
            "billing_frequency_cycles": int(chance() * 24) + 1 if frequency != "one-time" and chance() < 0.6 else None,
            "prices": [
                {
                    "product_id": id,
                    "price": round(price * rate, 2),
                    "currency": currency,
                    "cost": round(price * rate * 0.4, 2),
                    "direct_cost": None,
                    "notes": "",
                }
                for currency, rate in (("EUR", 1), ("USD", 1.1), ("GBP", 0.85))[: 1 + int(chance() * 3)]
            ],
            "custom_fields": values(created_s),
        }
        table.put(table.row(record, lifecycle.state("products", id)))
    lifecycle.remove_gone("products")


def make_deals(company: Company, lifecycle: Lifecycle) -> None:
    random, words = lifecycle.random("deals"), load("words")
    chance, choice, table = random.random, random.choice, company["deals"]
    custom_values = lifecycle.custom_values_generator("deals")
    labels = sorted(company.fields["deals"].option_ids("label_ids"))
    pipelines = _weighted_pipelines(company)
    org_of_person = {id: row.facets[ORG] for id, row in company["persons"].rows.items()}
    for id, created_s in enumerate(lifecycle.created_s["deals"], 1):
        person_id, org_id = _draw_contacts(random, lifecycle, org_of_person)
        progress = _draw_progress(random, lifecycle, id, created_s, pipelines)
        currency = choice(words["currencies"])
        owner = choice(lifecycle.all_users)
        channel = 52 + int(chance() * 2) if chance() < 0.1 else None
        reason = choice(words["lost_reasons"]) if chance() < 0.8 else None
        record: Record = {
            "id": id,
            "title": f"{choice(words['deal_what'])}{choice(words['deal_why'])} #{id}",
            "creator_user_id": owner if chance() < 0.7 else choice(lifecycle.all_users),
            "owner_id": owner,
            "value": _draw_value(random, currency),
            "person_id": person_id,
            "org_id": org_id,
            "currency": currency,
            **progress,
            "probability": int(chance() * 20) * 5 if chance() < 0.2 else None,
            "lost_reason": reason if progress["status"] == "lost" else None,
            "visible_to": choice(VISIBILITY),
            "expected_close_date": day_text(created_s // DAY_S + 20 + int(chance() * 120)) if chance() < 0.6 else None,
            "label_ids": [choice(labels)] if chance() < 0.35 else [],
            "origin": choice(words["origins"]),
            "origin_id": None,
            "channel": channel,
            "channel_id": "Fair 2025 – Halle 4" if channel == 52 else None,
            "source_lead_id": None,
            **dict.fromkeys(("acv", "arr", "mrr")),
            "custom_fields": custom_values(created_s),
        }
        table.put(table.row(record, lifecycle.state("deals", id)))
    lifecycle.remove_gone("deals")


def _draw_contacts(
    random: Random, lifecycle: Lifecycle, org_of_person: dict[int, int | None]
) -> tuple[int | None, int | None]:
    """The person of a deal and its organization, which is the person's where there is one."""
    chance, person_count, org_count = random.random, lifecycle.count("persons"), lifecycle.count("organizations")
    person_id = lifecycle.link("persons", 1 + int(person_count * chance())) if person_count and chance() < 0.8 else None
    org_id = org_of_person.get(person_id) if person_id else None
    if org_id is None and org_count and chance() < 0.6:
        org_id = lifecycle.link("organizations", 1 + int(org_count * chance() ** 1.4))
    return person_id, org_id


def _draw_progress(
    random: Random, lifecycle: Lifecycle, id: int, created_s: int, pipelines: list[tuple[int, list[int]]]
) -> Record:
    """The columns that say how far a deal has come: its stage, its status, and the times of its changes."""
    chance, fate = random.random, lifecycle.fate["deals"].get(id)
    edited_s = lifecycle.draw_edit_s(random, created_s, fate)
    age_days = (lifecycle.now_s - created_s) / DAY_S
    is_closed = chance() < min(0.85, age_days / 200)
    is_won, progress_share, close_share, move_share = chance() < 0.42, chance(), 0.4 + 0.6 * chance(), 0.9 * chance()
    status = "open" if not is_closed else "won" if is_won else "lost"
    pipeline_id, stages = random.choice(pipelines) if pipelines else (None, [None])
    stage_id = stages[-1 if status == "won" else int(len(stages) * progress_share**1.5)]
    was_moved = stage_id != stages[0] and edited_s != created_s
    edited = iso(edited_s)
    closed = iso(created_s + int((edited_s - created_s) * close_share)) if is_closed else None
    closed_on = local_date(closed) if closed else None
    # Assumption: a deal that was never edited has its add_time as update_time, a few have null.
    has_no_update = edited_s == created_s and fate is None and not is_closed and id % 3 == 0
    return {
        "stage_id": stage_id,
        "pipeline_id": pipeline_id,
        "add_time": iso(created_s),
        "update_time": None if has_no_update else edited,
        "stage_change_time": iso(created_s + int((edited_s - created_s) * move_share)) if was_moved else None,
        "status": status,
        "is_archived": fate == ARCHIVED,
        "archive_time": edited if fate == ARCHIVED else None,
        "is_deleted": fate == "deleted",
        "close_time": closed,
        "won_time": closed if status == "won" else None,
        "lost_time": closed if status == "lost" else None,
        "local_won_date": closed_on if status == "won" else None,
        "local_lost_date": closed_on if status == "lost" else None,
        "local_close_date": closed_on,
    }


def _weighted_pipelines(company: Company) -> list[tuple[int, list[int]]]:
    """Pipelines with the ids of their stages, the first ones repeated so that they are drawn more often."""
    pipelines = [
        (pipeline, [stage.id for stage in company["stages"].where("pipeline_id", pipeline)])
        for pipeline in company["pipelines"].rows
    ]
    return [
        funnel for weight, funnel in zip(range(len(pipelines), 0, -1), pipelines, strict=True) for _ in range(weight)
    ]


def _draw_value(random: Random, currency: str) -> Any:
    if random.random() < 0.06:
        return 0
    value = random.lognormvariate(8.2, 1.1)
    if currency == "JPY":
        return int(value) * 100
    return round(value, 2) if random.random() < 0.2 else int(value / 50 + 1) * 50
