"""Makes users, organizations and persons."""

from __future__ import annotations

import itertools
import unicodedata
from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.clock import DAY_S, day_text, iso
from pdsync.sandbox.company.custom_values import address
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
VISIBILITY = [3] * 14 + [7] * 4 + [1, 5]


class NamePool:
    """Draws a culture by its share."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._all: list[dict[str, Any]] = load("names")["culture"]
        self._weights = list(itertools.accumulate(culture["share"] for culture in self._all))

    def draw(self) -> dict[str, Any]:
        return self._random.choices(self._all, cum_weights=self._weights)[0]


def ascii_word(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return "".join(letter for letter in plain if letter.isalnum()) or "info"


def make_users(company: Company, past: Lifecycle, count: int) -> None:
    random = past.stream("users")
    cultures = NamePool(random)
    for number in range(count):
        id, culture = company.id * 1000 + number + 1, cultures.draw()
        name = f"{random.choice(culture['given'])} {random.choice(culture['family'])}"
        created = iso(past.year_starts[0] - (count - number) * DAY_S + random.randrange(8 * 3600))
        seen = iso(past.now_s - random.randrange(60, 20 * DAY_S))
        # The first three hold the tokens; of the others every fifth has left, every seventh sleeps.
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
            "last_login": seen,
            "created": created,
            "modified": None if number % 4 == 3 else seen,
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
        past.all_users.append(id)
        if active:
            past.active_users.append(id)


def make_organizations(company: Company, past: Lifecycle) -> None:
    random, table = past.stream("organizations"), company["organizations"]
    cultures, rnd, choice = NamePool(random), random.random, random.choice
    values = past.custom_values("organizations")
    labels = sorted(company.fields["organizations"].option_ids("label_ids"))
    for id, born in enumerate(past.born["organizations"], 1):
        culture, fate = cultures.draw(), past.fate["organizations"].get(id)
        name = choice(culture["firm"]).format(choice(culture["family"]))
        record: Record = {
            "id": id,
            "name": name,
            "owner_id": choice(past.all_users),
            "add_time": iso(born),
            "update_time": iso(past.edited(random, born, fate)),
            "address": address(random, culture) if rnd() < 0.7 else None,
            "is_deleted": fate == "deleted",
            "visible_to": choice(VISIBILITY),
            "label_ids": [choice(labels)] if rnd() < 0.3 else [],
            "website": f"https://{ascii_word(name)}.example" if rnd() < 0.6 else None,
            "linkedin": None,
            "industry": 1 + int(rnd() * 8) if rnd() < 0.5 else None,
            "annual_revenue": int(random.lognormvariate(14, 1.5)) if rnd() < 0.3 else None,
            "employee_count": int(random.lognormvariate(3.5, 1.3)) + 1 if rnd() < 0.6 else None,
            "custom_fields": values(born),
        }
        table.put(table.row(record, past.state("organizations", id), {"country": culture["country"]}))
    past.settle("organizations")


def make_persons(company: Company, past: Lifecycle) -> None:
    random, table = past.stream("persons"), company["persons"]
    cultures, rnd, choice = NamePool(random), random.random, random.choice
    values = past.custom_values("persons")
    labels = sorted(company.fields["persons"].option_ids("label_ids"))
    firms = past.count("organizations")
    for id, born in enumerate(past.born["persons"], 1):
        culture, fate = cultures.draw(), past.fate["persons"].get(id)
        first, last = choice(culture["given"]), choice(culture["family"]) if rnd() < 0.97 else None
        # Skewed: a few firms have many people, most have one or two.
        firm = 1 + int(firms * rnd() ** 1.6) if firms and rnd() < 0.85 else None
        box, host = ascii_word(first), ascii_word(last or "")
        emails = [
            {"value": f"{box}.{host}{id}@{domain}.example", "primary": n == 0, "label": ("work", "home", "other")[n]}
            for n, domain in enumerate(("mail", "home", "old")[: _few(rnd())])
        ]
        phones = [
            {"value": f"{culture['dial']}{int(rnd() * 9e6) + 1000000}", "primary": n == 0, "label": label}
            for n, label in enumerate(("work", "mobile", "home")[: _few(rnd())])
        ]
        record: Record = {
            "id": id,
            "name": first if last is None else f"{first} {last}",
            "first_name": first,
            "last_name": last,
            "owner_id": choice(past.all_users),
            "org_id": past.link("organizations", firm),
            "add_time": iso(born),
            "update_time": iso(past.edited(random, born, fate)),
            "emails": emails,
            "phones": phones,
            "is_deleted": fate == "deleted",
            "visible_to": choice(VISIBILITY),
            "label_ids": random.sample(labels, 1 + int(rnd() * 2)) if rnd() < 0.4 else [],
            "picture_id": 40_000 + id if rnd() < 0.1 else None,
            "custom_fields": values(born),
        }
        if rnd() < 0.3:  # came in through contact sync, which adds keys
            record["notes"] = "from contact sync" if rnd() < 0.3 else None
            record["im"] = [{"value": f"{box}.{id}", "primary": True, "label": "skype"}] if rnd() < 0.3 else []
            record["birthday"] = day_text(int(rnd() * 12_000)) if rnd() < 0.4 else None
            record["job_title"] = choice(("Buyer", "CEO", "Einkauf", "Head of R&D", None))
            record["postal_address"] = address(random, culture) if rnd() < 0.5 else None
        table.put(table.row(record, past.state("persons", id)))
    past.settle("persons")


def _few(chance: float) -> int:
    return 0 if chance < 0.12 else 1 if chance < 0.72 else 2 if chance < 0.94 else 3
