"""Generates users, organizations and persons."""

from __future__ import annotations

import itertools
import unicodedata
from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.clock import DAY_S, day_text, iso
from pdsync.sandbox.company.custom_values import draw_address
from pdsync.sandbox.company.data import load

if TYPE_CHECKING:
    from random import Random

    from pdsync.sandbox.company.company import Company
    from pdsync.sandbox.company.population.lifecycle import Lifecycle
    from pdsync.sandbox.company.table import Record

PERMISSION_SETS = {
    "sales": "62cc4d7f-4038-4352-abf3-a8c1c822b631",
    "global": "233b7976-39bd-43a9-b305-ef3a2b0998e5",
    "account_settings": "982c5ce5-b8ba-4b47-b102-9da024f4b990",
}
MAIL_DOMAINS = (("mail", "work"), ("home", "home"), ("old", "other"))
VISIBILITY = [3] * 14 + [7] * 4 + [1, 5]


class NamePool:
    """The cultures that names, addresses and phone numbers are taken from; each is drawn as often as its share says."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._all: list[dict[str, Any]] = load("names")["culture"]
        self._weights = list(itertools.accumulate(culture["share"] for culture in self._all))

    def draw(self) -> dict[str, Any]:
        return self._random.choices(self._all, cum_weights=self._weights)[0]


def ascii_word(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return "".join(letter for letter in plain if letter.isalnum()) or "info"


def make_users(company: Company, lifecycle: Lifecycle, count: int) -> None:
    random = lifecycle.random("users")
    cultures = NamePool(random)
    for number in range(count):
        id, culture = company.id * 1000 + number + 1, cultures.draw()
        name = f"{random.choice(culture['given'])} {random.choice(culture['family'])}"
        created = iso(lifecycle.year_starts[0] - (count - number) * DAY_S + random.randrange(8 * 3600))
        last_login = iso(lifecycle.now_s - random.randrange(60, 20 * DAY_S))
        # The first three own the tokens; of the others every fifth is deleted and every seventh deactivated.
        deleted, active = number > 2 and number % 5 == 4, not (number > 2 and (number % 5 == 4 or number % 7 == 5))
        apps = PERMISSION_SETS if number == 0 else {"sales": PERMISSION_SETS["sales"]}
        record = {
            "id": id,
            "name": name,
            "default_currency": "EUR",
            "locale": "en_GB",
            "lang": 1,
            "email": f"{ascii_word(name)}.{number}@northquay.example",
            "phone": None,
            "activated": number % 7 != 5,
            "last_login": last_login,
            "created": created,
            "modified": None if number % 4 == 3 else last_login,
            "has_created_company": number == 0,
            "access": [
                {"app": app, "admin": number == 0, "permission_set_id": permission} for app, permission in apps.items()
            ],
            "active_flag": active,
            "timezone_name": "Africa/Johannesburg",
            "timezone_offset": "+02:00",
            "role_id": 1 + number % 2,
            "icon_url": None,
            "is_deleted": deleted,
        }
        hidden = {"add_time": created, "update_time": record["modified"]}
        company["users"].put(company["users"].row(record, "live", None, hidden))
        company.groups[id] = number % 2
        lifecycle.all_users.append(id)
        if active:
            lifecycle.active_users.append(id)


def make_organizations(company: Company, lifecycle: Lifecycle) -> None:
    random, table = lifecycle.random("organizations"), company["organizations"]
    cultures, chance, choice = NamePool(random), random.random, random.choice
    values = lifecycle.custom_values_generator("organizations")
    labels = sorted(company.fields["organizations"].option_ids("label_ids"))
    for id, created_s in enumerate(lifecycle.created_s["organizations"], 1):
        culture, fate = cultures.draw(), lifecycle.fate["organizations"].get(id)
        name = choice(culture["firm"]).format(choice(culture["family"]))
        record: Record = {
            "id": id,
            "name": name,
            "owner_id": choice(lifecycle.all_users),
            "add_time": iso(created_s),
            "update_time": iso(lifecycle.draw_edit_s(random, created_s, fate)),
            "address": draw_address(random, culture) if chance() < 0.7 else None,
            "is_deleted": fate == "deleted",
            "visible_to": choice(VISIBILITY),
            "label_ids": [choice(labels)] if chance() < 0.3 else [],
            "website": f"https://{ascii_word(name)}.example" if chance() < 0.6 else None,
            "linkedin": None,
            "industry": 1 + int(chance() * 8) if chance() < 0.5 else None,
            "annual_revenue": int(random.lognormvariate(14, 1.5)) if chance() < 0.3 else None,
            "employee_count": int(random.lognormvariate(3.5, 1.3)) + 1 if chance() < 0.6 else None,
            "custom_fields": values(created_s),
        }
        table.put(table.row(record, lifecycle.state("organizations", id), {"country": culture["country"]}))
    lifecycle.remove_gone("organizations")


def make_persons(company: Company, lifecycle: Lifecycle) -> None:
    random, table = lifecycle.random("persons"), company["persons"]
    cultures, chance, choice = NamePool(random), random.random, random.choice
    values = lifecycle.custom_values_generator("persons")
    labels = sorted(company.fields["persons"].option_ids("label_ids"))
    organization_count = lifecycle.count("organizations")
    for id, created_s in enumerate(lifecycle.created_s["persons"], 1):
        culture, fate = cultures.draw(), lifecycle.fate["persons"].get(id)
        first, last = choice(culture["given"]), choice(culture["family"]) if chance() < 0.97 else None
        # Skewed: a few firms have many people, most have one or two.
        org_id = 1 + int(organization_count * chance() ** 1.6) if organization_count and chance() < 0.85 else None
        mailbox, host = ascii_word(first), ascii_word(last or "")
        emails = [
            {
                "value": f"{mailbox}.{host}{id}@{domain}.example",
                "primary": index == 0,
                "label": ("work", "home", "other")[index],
            }
            for index, domain in enumerate(("mail", "home", "old")[: _draw_count(chance())])
        ]
        phones = [
            {"value": f"{culture['dial']}{int(chance() * 9e6) + 1000000}", "primary": index == 0, "label": label}
            for index, label in enumerate(("work", "mobile", "home")[: _draw_count(chance())])
        ]
        record: Record = {
            "id": id,
            "name": first if last is None else f"{first} {last}",
            "first_name": first,
            "last_name": last,
            "owner_id": choice(lifecycle.all_users),
            "org_id": lifecycle.link("organizations", org_id),
            "add_time": iso(created_s),
            "update_time": iso(lifecycle.draw_edit_s(random, created_s, fate)),
            "emails": emails,
            "phones": phones,
            "is_deleted": fate == "deleted",
            "visible_to": choice(VISIBILITY),
            "label_ids": random.sample(labels, 1 + int(chance() * 2)) if chance() < 0.4 else [],
            "picture_id": 40_000 + id if chance() < 0.1 else None,
            "custom_fields": values(created_s),
        }
        if chance() < 0.3:  # came in through contact sync, which adds keys
            record["notes"] = "from contact sync" if chance() < 0.3 else None
            record["im"] = [{"value": f"{mailbox}.{id}", "primary": True, "label": "skype"}] if chance() < 0.3 else []
            record["birthday"] = day_text(int(chance() * 12_000)) if chance() < 0.4 else None
            record["job_title"] = choice(("Buyer", "CEO", "Einkauf", "Head of R&D", None))
            record["postal_address"] = draw_address(random, culture) if chance() < 0.5 else None
        table.put(table.row(record, lifecycle.state("persons", id)))
    lifecycle.remove_gone("persons")


def _draw_count(chance: float) -> int:
    return 0 if chance < 0.12 else 1 if chance < 0.72 else 2 if chance < 0.94 else 3
