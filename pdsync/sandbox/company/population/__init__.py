"""Fills a company with three years of believable history.

The same (seed, sizes, now) give the same company. Each kind draws from a random stream of its own, so asking
for more files does not change the deals. The number of draws for a record does not depend on its age: the company of
another day has the same people and deals, some with another status. Ids grow with time, as the API's do.

    lifecycle               when records were created and edited, which were deleted, archived or merged
    people                  users, organizations, persons
    deals                   pipelines, stages, products, deals
    activities_files_mail   activities, files, mail threads
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from pdsync.sandbox.company.clock import Clock, iso
from pdsync.sandbox.company.company import (
    ADMIN,
    LIMITED,
    MEMBER,
    Company,
    Sizes,
    Viewer,
)
from pdsync.sandbox.company.fields import make_fields
from pdsync.sandbox.company.population.activities_files_mail import make_activities, make_files, make_mail
from pdsync.sandbox.company.population.deals import make_deals, make_pipelines, make_products
from pdsync.sandbox.company.population.lifecycle import Lifecycle
from pdsync.sandbox.company.population.people import make_organizations, make_persons, make_users
from pdsync.sandbox.company.resources import FIELD_PATHS

if TYPE_CHECKING:
    from datetime import datetime


def generate_company(
    seed: int = 1, sizes: Sizes | None = None, *, now: datetime | None = None, company_id: int = 5550
) -> Company:
    """Make a company: the same one for the same arguments, if `now` is one of them.

    Its history ends at `now`, where its clock starts; by default that is the present.
    """
    clock = Clock(now)
    company = Company(company_id=company_id, seed=seed, clock=clock)
    populate(company, sizes or Sizes(), int(now.timestamp() if now else clock.seconds()))
    company.sizes = {kind: len(table.rows) for kind, table in company.tables.items()}
    company.last_ids = {kind: table.next_id - 1 for kind, table in company.tables.items()}
    if now is not None:
        company.clock = Clock(now)  # without the time that the generation took
    return company


def populate(company: Company, sizes: Sizes, now_s: int) -> None:
    """Fill an empty company with history up to `now_s`, in seconds since 1970."""
    was_on = gc.isenabled()
    gc.disable()  # millions of short-lived dicts and no cycles: the garbage collector would double the time
    try:
        _populate(company, sizes, now_s)
    finally:
        if was_on:
            gc.enable()


def _populate(company: Company, sizes: Sizes, now_s: int) -> None:
    lifecycle = Lifecycle(company.seed, now_s, company)
    make_users(company, lifecycle, max(1, sizes.users))
    for name, user_id in zip((ADMIN, MEMBER, LIMITED), sorted(lifecycle.active_users), strict=False):
        company.viewers[name] = Viewer(name, user_id, name == ADMIN, company.groups[user_id])
    dates = [iso(start) for start in lifecycle.year_starts]
    for kind in FIELD_PATHS.values():
        extra = sizes.extra_deal_fields if kind == "deals" else 0
        seed = f"{company.id}/{company.seed}"
        company.fields[kind] = make_fields(kind, seed, dates, min(lifecycle.active_users), extra)

    for kind in ("organizations", "persons", "products", "deals", "activities", "files", "mail_threads"):
        count = sizes.of(kind) if kind != "deals" else sizes.deals
        lifecycle.decide(kind, count, purged=sizes.purged, archived=sizes.archived)
    make_pipelines(company, lifecycle, sizes.pipelines)
    make_organizations(company, lifecycle)
    make_persons(company, lifecycle)
    make_products(company, lifecycle)
    make_deals(company, lifecycle)
    make_activities(company, lifecycle)
    make_mail(company, lifecycle)
    make_files(company, lifecycle)
