"""A small company, so that many syncs take seconds, and the changes that others make to it.

    work = Work(box)
    work.update("deals", 3)      # the fourth deal, modulo their number
    work.silent                  # records that were changed without a new update_time: no list of changes shows it

Numbers select among the existing records, modulo their number, so that a shorter sequence of steps is valid too.
Each kind keeps a few live records, because an empty list is no evidence.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pdsync.sandbox import Clock, Company, Sizes, generate_company
from pdsync.sandbox.company.field_changes import change_fields

if TYPE_CHECKING:
    from pdsync.sandbox import RunningSandbox
    from pdsync.sandbox.company.table import Row

KINDS = ("deals", "persons", "organizations", "products", "activities")
TITLES = {"deals": "title", "persons": "name", "organizations": "name", "products": "name", "activities": "subject"}
MERGED = {"deals": "/v1/deals", "persons": "/v1/persons", "organizations": "/v1/organizations"}
BORN = datetime(2026, 1, 5, tzinfo=UTC)
FEWEST = 3  # live records that a kind keeps
Place = tuple[str, int]  # a kind and an id


class Still(Clock):
    """A clock that moves only by `advance`, so that the same steps always give the same times."""

    def seconds(self) -> float:
        return self._start_s


def generate_small(skew_s: int = 0, seed: int = 1) -> Company:
    """A dozen records of each kind and a few custom fields, at a server whose clock is `skew_s` ahead of ours."""
    sizes = Sizes(
        deals=14, persons=7, organizations=5, products=4, activities=10, files=0, mail_threads=0, users=3, pipelines=1
    )
    company = generate_company(seed=seed, sizes=sizes, now=BORN)
    company.clock = Still(datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=skew_s))
    for kind in KINDS:
        shown: set[str] = set()
        for code, field in company.fields[kind].custom.items():
            if field.type in shown or field.type not in ("enum", "set", "varchar", "monetary"):
                change_fields(company, kind, "delete", code)
            shown.add(field.type)
    return company


class Work:
    """Changes at the source: writes over the API, and silent changes."""

    def __init__(self, box: RunningSandbox) -> None:
        self.box, self.company = box, box.company
        self.silent: set[Place] = set()
        self._count = 0

    # Records.

    def rows(self, kind: str, *states: str) -> list[Row]:
        return [row for row in self.company[kind].rows.values() if row.state in (states or ("live", "archived"))]

    def states(self) -> dict[Place, str]:
        """The state of every record that exists or existed."""
        states: dict[Place, str] = {}
        for kind in KINDS:
            table = self.company[kind]
            states |= {(kind, id): removed.state for id, removed in table.removed.items()}
            states |= {(kind, id): row.state for id, row in table.rows.items()}
        return states

    def pick(self, kind: str, number: int, *states: str) -> int | None:
        ids = sorted(row.id for row in self.rows(kind, *states))
        return ids[number % len(ids)] if ids else None

    def any_id(self, kind: str, number: int) -> int:
        """The id of a record that exists or existed."""
        ids = sorted({*self.company[kind].rows, *self.company[kind].removed})
        return ids[number % len(ids)]

    def word(self) -> str:
        self._count += 1
        return f"word {self._count}"

    # Changes.

    def _act(self, method: str, path: str, body: Any = None) -> Any:
        return self.box.act(method, path, body)

    def add(self, kind: str, number: int) -> None:
        body: dict[str, Any] = {TITLES[kind]: self.word()}
        if kind in ("deals", "activities"):
            body["org_id"] = self.pick("organizations", number, "live")
        if kind == "deals":
            body |= {"person_id": self.pick("persons", number, "live"), "value": number}
        self._act("POST", f"/api/v2/{kind}", body)

    def update(self, kind: str, number: int) -> None:
        id = self.pick(kind, number, "live")
        body: dict[str, Any] = {TITLES[kind]: self.word()}
        if kind == "deals" and number % 3 == 0:
            body |= {"person_id": self.pick("persons", number, "live"), "status": "won" if number % 2 else "open"}
        if kind == "activities":
            body["done"] = number % 2 == 0
        self._act("PATCH", f"/api/v2/{kind}/{id}", body)

    def delete(self, kind: str, number: int) -> None:
        if len(self.rows(kind, "live")) > FEWEST:
            self._act("DELETE", f"/api/v2/{kind}/{self.pick(kind, number, 'live')}")

    def purge(self, kind: str, number: int) -> None:
        """Remove a record for good, without a tombstone."""
        id = self.pick(kind, number, "live", "deleted")
        row = self.company[kind].rows[id] if id is not None else None
        if row and (row.state == "deleted" or len(self.rows(kind, "live")) > FEWEST):
            with self.company.lock:
                self.company.remove(kind, row.id, "purged")

    def merge(self, kind: str, loser: int, winner: int) -> None:
        loser_id, winner_id = self.pick(kind, loser, "live"), self.pick(kind, winner, "live")
        if loser_id != winner_id and len(self.rows(kind, "live")) > FEWEST:
            self._act("PUT", f"{MERGED[kind]}/{loser_id}/merge", {"merge_with_id": winner_id})

    def archive(self, number: int) -> None:
        if len(self.rows("deals", "live")) > FEWEST:
            self._act("PATCH", f"/api/v2/deals/{self.pick('deals', number, 'live')}", {"is_archived": True})

    def unarchive(self, number: int) -> None:
        if (id := self.pick("deals", number, "archived")) is not None:
            self._act("PATCH", f"/api/v2/deals/{id}", {"is_archived": False})

    def restore(self, kind: str, number: int) -> None:
        """Restore a deleted record, as users do in the app."""
        if (id := self.pick(kind, number, "deleted")) is None:
            return
        with self.company.lock:
            now = self.company.clock.stamp()
            record = {**self.company[kind].rows[id].record, "is_deleted": False, "update_time": now}
            self.company.put(kind, "restore", record, "archived" if record.get("is_archived") else "live")

    def backdate(self, kind: str, number: int, days: int) -> None:
        """Change a record and set its update_time back, so that no list of changes shows it."""
        id = self.pick(kind, number)
        with self.company.lock:
            row = self.company[kind].rows[id or 0]
            past = (self.company.clock.now() - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
            self.company.put(kind, "silent", {**row.record, TITLES[kind]: self.word(), "update_time": past})
        self.silent.add((kind, row.id))

    def wait(self, seconds: int) -> None:
        with self.company.lock:
            self.company.clock.advance(seconds)
            self.company.purge()

    # Changes of fields.

    def rename_field(self, kind: str, number: int) -> None:
        codes = sorted(self.company.fields[kind].custom)
        if codes:
            self._fields(kind, "rename", codes[number % len(codes)], name=self.word())

    def rename_option(self, kind: str, number: int) -> None:
        options = [
            (code, option["id"])
            for code, field in sorted(self.company.fields[kind].custom.items())
            for option in field.options or ()
        ]
        if options:
            code, option = options[number % len(options)]
            self._fields(kind, "rename_option", code, name=self.word(), option_id=option)

    def add_field(self, kind: str, label: str) -> None:
        self._fields(kind, "add", name=label)

    def _fields(self, kind: str, op: str, code: str = "", **options: Any) -> None:
        with self.company.lock:
            change_fields(self.company, kind, op, code, **options)

    def updated(self) -> dict[Place, tuple[str, datetime]]:
        """State and update_time of every record that a list shows."""
        found: dict[Place, tuple[str, datetime]] = {}
        for kind in KINDS:
            table = self.company[kind]
            for id, row in table.rows.items():
                moment = datetime.fromisoformat(str(table.facet(row, "update_time")))
                found[kind, id] = (row.state, moment)
        return found
