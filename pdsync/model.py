"""The values that cross a stage boundary: small, frozen, and known to every layer.

`Operation` and `Stream` are entries of the catalogue (schemas/); `Page` is what extract hands on.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations at run time
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Raw, Struct

from pdsync.sql import quoted as sql_name

if TYPE_CHECKING:
    from collections.abc import Mapping

Version = Literal["v1", "v2"]
FROM_FILES = "file"  # the source of walks that were loaded from saved answers
REPAIR = "repair"  # the source of walks that read single records anew; they say nothing of the whole list
FINDINGS = "findings"  # the source of walks whose page says which records are gone, and how that is known
BACKFILL = "backfill:"  # what the source of a backfill's walks begins with: they move no watermark
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
JsonType = Literal[
    "integer",
    "number",
    "boolean",
    "string",
    "string:date",
    "string:date-time",
    "string:uuid",
    "string:url",
    "string:binary",
    "object",
    "array[integer]",
    "array[number]",
    "array[string]",
    "array[object]",
]


class Param(Struct, frozen=True, forbid_unknown_fields=True):
    """A parameter of an operation's path or query, or a field of its body.

    `type` is JSON's own word (`integer`, `number`, `string`, `boolean`, `object`, `array`), with the items of an
    array in brackets (`array[integer]`) and a string's format behind a colon (`string:date`).
    """

    type: JsonType
    required: bool = False
    enum: tuple[str | int | float | bool, ...] = ()
    many: bool = False  # a string that may name several, with commas between; `enum` and `max` are of the items
    max: int | None = None  # of a `limit`, rows; of a comma-separated list, items
    default: str | int | float | bool | None = None


class Operation(Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that the API can do, by its API name.

    Paths are written from the host on, with {name} for each path parameter: `/v1/files/{id}`, `/api/v2/deals`.
    """

    id: str
    version: Version
    method: Method
    path: str
    tag: str
    cost: int | None = None  # tokens a request, whatever it returns; None: not documented
    search: bool = False  # has a burst limit of its own, besides the one that it shares with every other
    paging: Literal["none", "cursor", "offset"] = "none"
    page_size: int | None = None  # the largest `limit`, in rows; None: not documented
    query: dict[str, Param] = {}
    path_params: dict[str, Param] = {}
    body: dict[str, Param] = {}
    body_list: bool = False  # the body is a list of objects with the fields of `body`, not one such object
    body_required: bool = False
    custom_fields: bool = False  # also takes 40-hex keys: v1 beside the other fields, v2 inside `custom_fields`
    content: Literal["json", "form", "multipart"] | None = None  # of the request's body
    binary: bool = False  # the answer is a file, not JSON
    records: Literal["list", "one", "values"] = "list"  # what `data` holds: records, (mostly) one, or plain values
    records_in: str | None = None  # the key of `data` that holds them, where `data` itself is not it
    scopes: tuple[str, ...] = ()
    deprecated: bool = False
    removed: bool = False  # gone from the vendor's current documents; may or may not still answer
    replaced_by: str | None = None  # "v2 getDeals"
    host: str | None = None  # where it is not the company's own

    @property
    def name(self) -> str:
        """Its name among those of both versions: `v2 getDeals`."""
        return f"{self.version} {self.id}"

    @property
    def mutates(self) -> bool:
        """Whether a request of this operation may change data. Only what can't is ever repeated blindly."""
        return self.method != "GET"


class Effect(Struct, frozen=True, forbid_unknown_fields=True):
    """How the effect of an operation can be read where its path does not tell: an entry of schemas/effects.toml.

    `gone`: nothing of what was named is among the entries, or no entry where nothing was named. `added`: every record
    of the answer is among them. `sent`: everything that was sent is. `set`, `unset`: a value is there, or is not.
    `done`: a job is completed.
    """

    shows: Literal["gone", "added", "sent", "set", "unset", "done"] | None = None
    read: str | None = None  # the operation that shows it, "v2 getDeal"; None: there is none
    params: dict[str, str] = {}  # parameter of `read` → parameter of the operation; "@id": that of the answered record
    queries: tuple[dict[str, str], ...] = ({},)  # constants of `read`; what each of several shows counts
    at: str | None = (
        None  # the key under which the entries, or the value, stand in a record; "@name": a parameter is it
    )
    key: str = "id"  # what an entry is called by
    names: str | None = None  # the parameter that holds what was sent
    only: dict[str, str] = {}  # what the entries that count hold
    equals: str | None = None  # what the value is: a parameter, or "@id"

    @property
    def is_state(self) -> bool:
        """Whether it can be read without the answer: to have it twice is to have it once."""
        by_answer = [each for each in (*self.params.values(), self.equals or "") if each.startswith("@")]
        return self.shows in ("gone", "sent", "set", "unset") and not by_answer


class Column(Struct, frozen=True, forbid_unknown_fields=True):
    """One column of a stream's table, and where its value stands in a record.

    `v2` and `v1` are slash-separated paths (`address/locality`); by default the value stands under the column's
    own name; `v1_else` is the key that answers of v1 from before this one have in its place. `@deal_id` is not in the
    record: the list was asked for it. A reference (`ref`) may come as an id or as
    an object that holds one; `negated` turns the flag round (v1's `active_flag` is v2's `is_deleted`).
    """

    type: str
    v2: str | None = None
    v1: str | None = None
    v1_else: str | None = None
    ref: bool = False
    negated: tuple[Version, ...] = ()
    items: dict[str, str] = {}  # `type` is "LIST": the columns of its elements, which are objects
    join: tuple[str, ...] = ()  # made of other columns' texts, with "/" between: a key for what has none
    items_v2: dict[str, str] = {}  # element columns whose values stand under another key in v2,
    items_v1: dict[str, str] = {}  # or in v1

    @property
    def sql_type(self) -> str:
        """The DuckDB type."""
        if not self.items:
            return self.type
        return f"STRUCT({', '.join(f'{sql_name(name)} {kind}' for name, kind in self.items.items())})[]"

    def path(self, name: str, version: Version) -> str:
        """Where a record of `version` holds the value of this column, which is called `name`."""
        return (self.v1 if version == "v1" else self.v2) or name


class Child(Struct, frozen=True, forbid_unknown_fields=True):
    """A list inside a record, shown as a table of its own with one row an element, in the list's order."""

    of: str  # the column of the parent's table that holds the list
    parent: str  # what the child calls the parent's key: `person_id`
    value: str | None = None  # what the one column of a list of plain values is called


class Parent(Struct, frozen=True, forbid_unknown_fields=True):
    """Another stream whose records a list is asked for, one request for each, or for `batch` of them at a time.

    Of a list with a parent, every record knows the parent's key as `@param`; where several shared the request, all of
    theirs.
    """

    stream: str
    param: str = "id"  # the parameter of the path or query that takes the parent's key
    batch: int = 1
    having: str | None = None  # a count in the parent's table: where it is 0 there is nothing to ask for
    counts: bool = False  # whether `having` is the very number of records in the parent's list


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    """One list operation whose records belong into a stream's table, and how its changes are found.

    `way` names the strategy: `updated_since` asks for what changed; `newest_first` sorts by the cursor, newest first,
    and stops at the watermark; `changed_parents` asks again for the parents that changed; `full` reads everything and
    lets row hashes decide.
    """

    operation: str
    way: Literal["updated_since", "newest_first", "changed_parents", "full"] = "full"
    query: dict[str, str] = {}
    since_query: dict[str, str] = {}  # added to `query` when only changes are asked for
    name: str = "all"
    parent: Parent | None = None  # it is read for each record of another stream; after the first time, of changed ones
    # What a person may ask for otherwise, with its default: `@today`, `@month_start`, `@year_ago` or a text. A record
    # knows what was asked for as `@start_date`.
    params: dict[str, str] = {}


class Stream(Struct, frozen=True, forbid_unknown_fields=True):
    """The records of one kind, replicated into one table of the same name."""

    name: str
    columns: dict[str, str | Column]
    key: str = "id"
    cursor: str | None = None  # the column that tells when a record last changed
    v2: tuple[Source, ...] = ()
    v1: tuple[Source, ...] = ()
    fields: str | None = None  # the stream that holds the definitions of its custom fields
    children: dict[str, Child] = {}
    labels: dict[str, str] = {}  # column of an id → the stream it points to: labeled.* shows that record's name
    deleted: str | None = None  # the flag that says that a record is deleted; a leading "!" turns it round
    gone: Literal["listed", "sweep"] = "sweep"  # how deletions are seen: in the list itself, or by a key sweep
    title: str = "name"  # the column that people call a record by
    changelog: str | None = None  # the stream that tells each edit of its records, by field
    optional: bool = False  # read only when named: a nightly run could not pay for a request a parent

    def sources(self, prefer: Version) -> tuple[Version, tuple[Source, ...]]:
        """The list operations to read: those of `prefer` where it has any, else the other version's."""
        if prefer == "v1" and self.v1:
            return "v1", self.v1
        return ("v2", self.v2) if self.v2 else ("v1", self.v1)

    def parents(self, prefer: Version) -> set[str]:
        """The streams for whose records its lists are asked."""
        return {source.parent.stream for source in self.sources(prefer)[1] if source.parent}

    @property
    def counted(self) -> list[Parent]:
        """The parents whose records say how many there are."""
        return [source.parent for source in (*self.v1, *self.v2) if source.parent and source.parent.counts]

    def parent_column(self, parent: Parent, version: Version) -> str | None:
        """The column that holds the key of the record whose list it stands in."""
        asked = (name for name in self.columns if self.column(name).path(name, version) == f"@{parent.param}")
        labeled = (name for name, other in self.labels.items() if other == parent.stream)
        return next(asked, None) or next(labeled, None)

    def says_deleted(self, record: Mapping[str, Any], version: Version) -> bool:
        """Whether a record of `version`, as it came, is marked as deleted."""
        if self.deleted is None:
            return False
        name = self.deleted.lstrip("!")
        column = self.column(name)
        says = self.deleted.startswith("!") == (version in column.negated)
        return bool(record.get(column.path(name, version)) == says)

    def column(self, name: str) -> Column:
        """The column `name`, whichever way it is written in the entry."""
        declared = self.columns[name]
        return Column(type=declared) if isinstance(declared, str) else declared


class Walk(Struct, frozen=True):
    """One reading of a list to its end: what was asked, and since when its answer stands."""

    id: int
    run_id: str
    stream: str
    source: str
    version: Version
    operation: str
    since: datetime | None  # None: everything was asked for
    started_at: datetime | None  # the server's own Date at the first request; None before it

    @property
    def is_of_a_list(self) -> bool:
        """Whether it says that a list is complete until it began: no other walk moves a watermark."""
        return self.source not in (FROM_FILES, REPAIR, FINDINGS) and not self.source.startswith(BACKFILL)


class Page(Struct, frozen=True):
    """One answer to a list operation, as it came."""

    walk: int
    seq: int  # 0 for the first page of the walk
    body: bytes  # JSON; nothing in it is changed before it is sealed
    rows: int
    next: str | None  # the cursor or offset of the page behind it; None: this was the last
    served_at: datetime  # the server's own Date, UTC
    asked_for: str | None = None  # the cursor or offset that this page was asked for with
    records: list[Raw] | None = None  # those in `body`, where it has been opened already
    context: dict[str, str] = {}  # what was asked for: the parent's key, chosen parameters


class Tombstone(Struct, frozen=True):
    """A record that is known to be gone, and how that is known: never by its absence alone."""

    key: str
    how: str  # deleted, merged, purged
    evidence: str  # what has shown it
    at: datetime  # since when, as far as is known; UTC
    winner: str | None = None  # of a merge: the record that stays
    confidence: str = "exact"


class IncompleteStream(Struct, frozen=True):
    """Something a run should have brought and did not: it is named in the receipt, never passed over."""

    stream: str
    kind: str  # failed, forbidden, quarantined, stopped, incomplete, unknown, fewer, rights
    detail: str


class Proof(Struct, frozen=True):
    """How complete a table is: what the source had when all of it was last read, and what stands here."""

    here: int  # rows that are alive
    at_source: int | None = None  # records that the source showed alive when it was last read whole; None: never
    counted_at: datetime | None = None  # when that was
    left: int | None = None  # differences that were left then
    verified: float = 1.0  # share of the rows that the source has shown within the verify cycle
    oldest_verified_at: datetime | None = None


class StreamReceipt(Struct):
    """What a run did for one stream. Rows, requests and tokens are counts."""

    requests: int = 0
    tokens: int = 0
    read: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    quarantined: int = 0
    schema_changes: int = 0
    complete: bool = False
    error: str | None = None
    note: str | None = None  # why there is nothing to read, where the company's plan does not include it
    proof: Proof | None = None


class Receipt(Struct):
    """What a run did, kept for good: in control.db, in meta.runs and meta.streams, and on the screen."""

    run_id: str
    command: str
    started_at: datetime
    finished_at: datetime | None = None
    streams: dict[str, StreamReceipt] = {}
    gaps: list[IncompleteStream] = []
    tokens: int = 0
    requests: int = 0
    exit_code: int = 1
    resumed: bool = False
    as_of: datetime | None = None  # the server's time when its first list began: what changed later may be missing
    is_admin: bool | None = None  # whether the token was an administrator's, who sees everything; None: not asked

    @property
    def complete(self) -> bool:
        """Whether every selected stream reached its end and nothing was left out."""
        return bool(self.streams) and all(stream.complete for stream in self.streams.values()) and not self.gaps


class FieldType(Struct, frozen=True, forbid_unknown_fields=True):
    """What a type of custom field becomes: its columns by the parts of a value, the part "value" first."""

    columns: dict[str, str]
    options: bool = False  # the value is an option's id, or a list of them
    ref: bool = False  # the value may come as an object that holds the id


class CustomField(Struct, frozen=True):
    """A custom field, and the column that it was given for good when it was first seen."""

    stream: str
    code: str  # 40 hexadecimal digits; the only name of a field that never changes
    type: str
    label: str
    column: str
    first_seen: datetime
    last_seen: datetime


class SchemaChange(Struct, frozen=True):
    """Something about a stream's fields that is not as it was in the run before."""

    stream: str
    kind: str  # field_added, field_renamed, field_retyped, unknown_key, unfit_value
    name: str
    detail: str


Verb = Literal["add", "update", "delete", "merge", "other"]
State = Literal[
    "queued", "approved", "armed", "unknown", "applied", "rejected", "conflict", "needs_review", "cancelled"
]
OPEN: frozenset[State] = frozenset({"queued", "approved", "armed", "unknown"})


class Mutation(Struct, frozen=True):
    """One change that waits in the outbox, or how it ended.

    `payload` holds the operation's parameters by name, custom fields by code and options by id. A value
    `{"$ref": id}` stands for the record that the mutation `id` adds.
    """

    seq: int  # the order in which they were queued; what people call it by: #12
    id: str
    batch: str
    company_id: int | None
    operation: str  # "v2 updateDeal"
    verb: Verb
    kind: str  # of the record it is about: "deals", "deals/products"
    target: str | None  # that record's place: "deals/12", "deals/12/products/7"; None where it does not exist yet
    payload: dict[str, Any]
    expected: dict[str, Any] | None  # what the fields must hold now, where that is not to be read afresh: undo
    queued_at: datetime
    queued_by: str
    state: State
    reason: str | None = None
    detail: str | None = None
    push_id: str | None = None
    remote_id: str | None = None  # of the record that it added
    base_image: dict[str, Any] | None = None  # the record as it was before
    after_image: dict[str, Any] | None = None  # and afterwards
    settled_at: datetime | None = None
    undo_of: str | None = None
    supersedes: str | None = None

    @property
    def references(self) -> set[str]:
        """The mutations that add the records it points to."""
        return {value["$ref"] for value in self.payload.values() if isinstance(value, dict) and "$ref" in value}
