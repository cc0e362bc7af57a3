"""A company: its tables, its fields, its users, and the journal of all changes to its records.

Changes of records go through `put()`, `remove()` or (generic records) `store_record()`, which write the journal: the
truth that tests compare a sync or a push with. Not in it: what `touch()` does, and what `change_fields()` does to a
definition. Reading changes nothing, except that `purge()` removes records that were deleted 30 days ago.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import threading
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.sandbox.company.clock import (
    DAY_S,
    Clock,
    iso,
    seconds_of,
)
from pdsync.sandbox.company.data import words
from pdsync.sandbox.company.resources import RESOURCES
from pdsync.sandbox.company.table import (
    Record,
    Row,
    Table,
    decode,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.sandbox.company.fields import FieldSet

KEPT_DAYS = 30  # soft-deleted records stay that long
ADMIN, MEMBER, LIMITED = "admin", "member", "limited"
LOGGED = ("deals", "persons", "organizations")  # kinds whose changes have a changelog in the API
JOINED = words(  # and those whose additions and removals are in the changelog of their parent
    "deal_followers person_followers organization_followers product_followers deal_participants"
)
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


class Sizes(Struct, frozen=True, kw_only=True):
    """How many records of each kind to generate. None: in proportion to the number of deals."""

    deals: int = 200
    persons: int | None = None
    organizations: int | None = None
    products: int | None = None
    activities: int | None = None
    files: int | None = None
    mail_threads: int | None = None
    users: int = 12
    pipelines: int = 3
    extra_deal_fields: int = 0  # beyond the 26 custom ones; 100 make the field list paged
    purged: float = 0.0  # share of the records of each kind that are gone for good: the ids of the others are sparse
    archived: float | None = None  # share of the deals that are archived, the oldest ones; None: 4 % of any age

    def of(self, kind: str) -> int:
        share = {
            "persons": 0.75,
            "organizations": 0.35,
            "products": 0.05,
            "activities": 1.4,
            "files": 0.15,
            "mail_threads": 0.1,
        }
        count: int | None = getattr(self, kind)
        return count if count is not None else round(self.deals * share[kind])


class Viewer(Struct):
    """A user with a token, and what they may see. Mutable: tests change permissions while the sandbox runs."""

    name: str
    user_id: int
    admin: bool
    group: int
    hidden_pipelines: set[int] = set()


class Actor(Struct, frozen=True):
    """Who makes changes, and with which client."""

    user_id: int | None = None  # None: the owner of the record
    source: str = "app"
    agent: str | None = BROWSER
    is_bulk: bool = False


class Entry(Struct, frozen=True):
    """One change in the journal. `before` and `after` are the row, None where there was or is none."""

    seq: int
    time: str
    at_s: float  # seconds of the sandbox's clock with their fraction, for lists that lag
    kind: str
    id: int | str  # of a lead its UUID; of a child both ids, as in the dump: 5/3
    op: str  # add, update, delete, archive, unarchive, restore, merge, purge, silent, field_deleted, option_deleted
    before: Row | None
    after: Row | None
    request: str | None  # the request's x-correlation-id; None: not over the API
    actor: Actor = Actor()


class Conversion(Struct, frozen=True):
    """A job that converted a lead into a deal, or a deal into a lead."""

    lead_id: str
    deal_id: int
    at_s: float


NOTHING = Row(0, "", b"{}", ())


class Company:
    """Make one with `population.generate_company()`; change it over the API, by `simulate_changes()`, or by `put()`.

    Its methods do not take `lock`: hold it around them while a sandbox serves the company.
    """

    def __init__(self, *, company_id: int, seed: int, clock: Clock) -> None:
        self.id, self.seed, self.clock = company_id, seed, clock
        self.name = "Northquay Instruments"
        self.domain = f"northquay-{company_id}"
        self.tables = {kind: Table(resource) for kind, resource in RESOURCES.items()}
        self.fields: dict[str, FieldSet] = {}
        self.viewers: dict[str, Viewer] = {}
        self._tokens: dict[str, str] = {}
        self.groups: dict[int, int] = {}
        self.journal: list[Entry] = []
        self.history: dict[tuple[str, int | str], list[Entry]] = {}  # of the journal, by record or by its parent
        self.actor = Actor()
        self.collections: dict[tuple[str, tuple[str, ...]], dict[str, Row]] = {}  # see operations.generic_records
        self.created_s = int(clock.seconds())  # when the company was generated,
        self.sizes: dict[str, int] = dict.fromkeys(RESOURCES, 0)  # and how many records of each kind it had then
        self.last_ids: dict[str, int] = {}
        self._generic_ids = 900_000
        self.conversions: dict[str, Conversion] = {}  # between leads and deals, by the job's id
        self.contents: dict[int, bytes] = {}  # of uploaded files
        self.features_off: set[str] = set()  # kinds that answer 415
        self.contact_sync = True
        self.merge_touches_children = True  # Assumption: a merge sets update_time of the children that it moves
        self.deals_cap: int | None = None
        self._purge_from = 0.0  # sandbox seconds; when the next deleted record is due
        self.version = 0  # grows with every change; caches of rendered records look at it
        self.lock = threading.RLock()
        self.memo: dict[tuple[Any, ...], Any] = {}  # what many answers share, until the next change

    def __getitem__(self, kind: str) -> Table:
        return self.tables[kind]

    def token_of(self, viewer: str) -> str:
        digest = hashlib.blake2b(f"sandbox {self.id} {viewer}".encode(), digest_size=16).hexdigest()
        return f"sandbox-{digest}"

    @property
    def tokens(self) -> dict[str, str]:
        """The API tokens by the name of their viewer: admin, member, limited."""
        if len(self._tokens) != len(self.viewers):
            self._tokens = {name: self.token_of(name) for name in self.viewers}
        return self._tokens

    # -- changes ---------------------------------------------------------------------------------

    def touch(self, kind: str, id: int) -> None:
        """Set a record's update_time to now because a child of it changed; the journal does not show it.

        Assumption: line items do this to their deal, whose value they make up; followers and participants do not.
        """
        table = self.tables[kind]
        row = table.rows[id]
        record = {**row.record, "update_time": self.clock.stamp()}
        table.put(table.row(record, row.state, row.extra, self.hidden(kind, row)))

    def put(
        self,
        kind: str,
        op: str,
        record: Record,
        state: str | None = None,
        *,
        extra: Record | None = None,
        hidden: Record | None = None,
        request: str | None = None,
    ) -> Row:
        """Write `record`, new or changed, and log it as `op`. State, extra and hidden stay as they are where None."""
        table = self.tables[kind]
        before = table.rows.get(record["id"])
        if before is not None:
            state, extra = state or before.state, before.extra if extra is None else extra
            hidden = {**self.hidden(kind, before), **(hidden or {})}
        row = table.row(record, state or "live", extra, hidden)
        table.put(row)
        if row.state == "deleted":
            self._purge_from = min(self._purge_from, self.clock.seconds() + KEPT_DAYS * DAY_S - 1)
        self._log(kind, row.id, op, before, row, request)
        return row

    def remove(
        self, kind: str, id: int, state: str, *, merged_into: int | None = None, request: str | None = None
    ) -> None:
        """Remove a record for good, and log it. `state`: merged or purged."""
        before = self.tables[kind].rows[id]
        self.tables[kind].remove(id, state, merged_into)
        self._log(kind, id, "merge" if state == "merged" else "purge", before, None, request)

    def last_initial_id(self, kind: str) -> int:
        """The largest id of a kind at generation. Fabricated links stay within it, so that they never change."""
        return self.last_ids.get(kind, 0)

    def next_generic_id(self) -> int:
        """A new id for a generic record."""
        self._generic_ids += 1
        return self._generic_ids

    def log_generic_write(
        self, kind: str, id: int | str, op: str, before: Row | None, after: Row | None, request: str | None
    ) -> None:
        """Log a write to a generic record in the journal; its id may be a text."""
        self._log(kind, id, op, before, after, request)

    @contextlib.contextmanager
    def acting(self, actor: Actor) -> Iterator[None]:
        """Log changes as made by `actor` for the length of a `with`, in which the caller holds the lock."""
        before, self.actor = self.actor, actor
        try:
            yield
        finally:
            self.actor = before

    def hidden(self, kind: str, row: Row) -> Record:
        """The facets of `row` that are not in its record."""
        record = row.record
        names = self.tables[kind].resource.facets
        return {name: value for name, value in zip(names, row.facets, strict=True) if name not in record}

    def purge(self) -> None:
        """Remove the records that were deleted 30 days ago or more. Costs nothing while none is due."""
        now_s = self.clock.seconds()
        if now_s < self._purge_from:
            return
        self._purge_from = math.inf
        for kind, table in self.tables.items():
            for id in list(table.deleted):
                due_s = seconds_of(table.facet(table.rows[id], "update_time")) + KEPT_DAYS * DAY_S
                if due_s <= now_s:
                    self.remove(kind, id, "purged")
                else:
                    self._purge_from = min(self._purge_from, due_s)

    def _log(
        self, kind: str, id: int | str, op: str, before: Row | None, after: Row | None, request: str | None
    ) -> None:
        self.version += 1
        self.memo.clear()
        at_s, seq = self.clock.seconds(), len(self.journal) + 1
        entry = Entry(seq, iso(int(at_s)), at_s, kind, id, op, before, after, request or None, self.actor)
        self.journal.append(entry)
        if kind in LOGGED or kind in JOINED:
            parent = id if kind in LOGGED else str(id).partition("/")[0]
            self.history.setdefault((kind, parent), []).append(entry)


def entry_json(entry: Entry) -> Record:
    """`entry` as `/_admin/journal` shows it."""
    return {
        "seq": entry.seq,
        "time": entry.time,
        "kind": entry.kind,
        "id": entry.id,
        "op": entry.op,
        "before": decode(entry.before.body) if entry.before else None,
        "after": decode(entry.after.body) if entry.after else None,
        "request": entry.request,
        "actor_user_id": acting_user_id(entry),
        "change_source": entry.actor.source,
    }


def acting_user_id(entry: Entry) -> int | None:
    """Who made a change; None for a purge. Assumption: simulated changes are made by the owner of the record."""
    if entry.actor.user_id is not None or entry.op == "purge":
        return entry.actor.user_id
    record = (entry.before or entry.after or NOTHING).record
    owner = record.get("owner_id", record.get("user_id"))
    return owner if isinstance(owner, int) else None
