"""A fleet of made-up companies that differ in custom fields, currency and time zone, each synced into its folder."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pdsync.fleet import accounts
from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.world import Project, Remote

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.fleet.accounts import Fleet
    from pdsync.sandbox.company.company import Company

STREAMS = ("users", "pipelines", "stages", "deals")
ZONES = {"acme": ("Europe/Berlin", "EUR"), "bolt": ("America/New_York", "USD"), "coda": ("Asia/Tokyo", "JPY")}
TOML = """
[fleet]
rollup = ["deals", "users"]
[accounts.acme]
tags = ["emea"]
[accounts.bolt]
[accounts.coda]
[accounts.007]
[accounts.never]
"""


class Companies:
    """The fleet, and what each company truly has."""

    def __init__(self, folder: Path) -> None:
        """Sync acme and bolt, which have deals; coda, which has none; and of 007 the users only. never never ran."""
        (folder / "fleet.toml").write_text(TOML, encoding="utf-8")
        self.folder = folder
        self.fleet: Fleet = accounts.load(folder)
        self.truth: dict[str, list[dict[str, Any]]] = {}
        self.labels: dict[str, dict[str, str]] = {}  # account → code of a custom field of deals → its label
        for number, (name, deals) in enumerate((("acme", 40), ("bolt", 25), ("coda", 0), ("007", 5)), 1):
            company = generate_company(seed=number, sizes=Sizes(deals=deals, files=0), now=datetime.now(UTC))
            company.name = name.title()
            zone, currency = ZONES.get(name, ("Etc/UTC", "GBP"))
            _settle(company, zone, currency)
            with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
                project = Project(folder / "accounts" / name, Remote(box.url, box.token))
                streams = ("users",) if name == "007" else STREAMS
                assert project.here("sync", *streams, "-q").code == 0
                self.truth[name] = [] if name == "007" else box.dump("deals")
            self.labels[name] = {field.code: field.name for field in company.fields["deals"].custom.values()}


def _settle(company: Company, zone: str, currency: str) -> None:
    """Give all users a time zone and a currency."""
    users = company["users"]
    for row in list(users.rows.values()):
        settled = {**row.record, "timezone_name": zone, "default_currency": currency}
        users.put(users.row(settled, row.state, row.extra, company.hidden("users", row)))
