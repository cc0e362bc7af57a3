"""The values that cross a stage boundary: small, frozen, and used by every layer.

`Operation` and `Stream` are entries of the catalogue (schemas/); `Page` is the output of extract.
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
REPAIR = "repair"  # the source of walks that read single records again; they say nothing about the whole list
FINDINGS = "findings"  # the source of walks whose page lists removed records with the evidence
BACKFILL = "backfill:"  # the prefix of the source of a backfill's walks: they move no watermark
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
JsonType = Literal[
    "integer", "number", "boolean", "string", "string:date", "string:date-time", "string:uuid", "string:url",
    "string:binary", "object", "array[integer]", "array[number]", "array[string]", "array[object]",
]  # fmt: skip


class Param(Struct, frozen=True, forbid_unknown_fields=True):
    """A parameter of an operation's path or query, or a field of its body.

    `type` is JSON's own word (`integer`, `number`, `string`, `boolean`, `object`, `array`), with the items of an
    array in brackets (`array[integer]`) and a string's format after a colon (`string:date`).
    """

    type: JsonType
    required: bool = False
    enum: tuple[str | int | float | bool, ...] = ()
    many: bool = False  # a string that may name several, with commas between; `enum` and `max` are of the items
    max: int | None = None  # of a `limit`, rows; of a comma-separated list, items
    default: str | int | float | bool | None = None


class Operation(Struct, frozen=True, forbid_unknown_fields=True):
    """An operation of the API, by its API name.

    Paths are written from the host on, with {name} for each path parameter: `/v1/files/{id}`, `/api/v2/deals`.
    """

    id: str
    version: Version
    method: Method
    path: str
    tag: str
    cost: int | None = None  # tokens a request, whatever it returns; None: not documented
    search: bool = False  # has its own burst limit, besides the common one
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
    records: Literal["list", "one", "values"] = "list"  # the content of `data`: records, (mostly) one, or plain values
    records_in: str | None = None  # the key of `data` with the records, where they are not `data` itself
    scopes: tuple[str, ...] = ()
    deprecated: bool = False
    removed: bool = False  # gone from the vendor's current documents, where it may still answer, or `ended`
    ended: str | None = None  # where Pipedrive carries it out no more: since when, and what to use; for people
    replaced_by: str | None = None  # "v2 getDeals"
    host: str | None = None  # where it is not the company's

    @property
    def name(self) -> str:
        """Its name among those of both versions: `v2 getDeals`."""
        return f"{self.version} {self.id}"

    @property
    def mutates(self) -> bool:
        """Whether a request of this operation may change data. Only a request that can't is repeated blindly."""
        return self.method != "GET"


class Effect(Struct, frozen=True, forbid_unknown_fields=True):
    """How to read the effect of an operation where its path does not show it: an entry of schemas/effects.toml.

    `gone`: nothing of what was named is among the entries, or no entry where nothing was named. `added`: every record
    of the answer is among them. `sent`: everything that was sent is. `set`, `unset`: a value is there, or is not.
    `done`: a job is completed.
    """

    shows: Literal["gone", "added", "sent", "set", "unset", "done"] | None = None
    read: str | None = None  # the operation that shows it, "v2 getDeal"; None: there is none
    params: dict[str, str] = {}  # parameter of `read` → parameter of the operation; "@id": that of the answered record
    queries: tuple[dict[str, str], ...] = ({},)  # constants of `read`; one request for each
    at: str | None = None  # the key of the entries, or of the value, in a record; "@name": that parameter is the key
    key: str = "id"  # the key that identifies an entry
    names: str | None = None  # the parameter with the values that were sent
    only: dict[str, str] = {}  # the values that an entry must have to count
    equals: str | None = None  # the expected value: a parameter, or "@id"

    @property
    def is_state(self) -> bool:
        """Whether it can be read without the answer: applying it twice has the same effect as once."""
        by_answer = [each for each in (*self.params.values(), self.equals or "") if each.startswith("@")]
        return self.shows in ("gone", "sent", "set", "unset") and not by_answer


class Column(Struct, frozen=True, forbid_unknown_fields=True):
    """One column of a stream's table, and the path of its value in a record.

    `v2` and `v1` are slash-separated paths (`address/locality`); the default is the column's own name. `v1_else` is
    the key that older answers of v1 use instead. `@deal_id` is a parameter of the list's request, not in the record.
    A reference (`ref`) may come as an id or as an object with an id; `negated` inverts the flag (v1's `active_flag` is
    v2's `is_deleted`).
    """

    type: str
    v2: str | None = None
    v1: str | None = None
    v1_else: str | None = None
    ref: bool = False
    negated: tuple[Version, ...] = ()
    items: dict[str, str] = {}  # `type` is "LIST": the columns of its elements, which are objects
    join: tuple[str, ...] = ()  # made of other columns' texts, joined by "/": a key for records without one
    items_v2: dict[str, str] = {}  # element columns whose values have another key in v2,
    items_v1: dict[str, str] = {}  # or in v1

    @property
    def sql_type(self) -> str:
        """The DuckDB type."""
        if not self.items:
            return self.type
        return f"STRUCT({', '.join(f'{sql_name(name)} {kind}' for name, kind in self.items.items())})[]"

    def path(self, name: str, version: Version) -> str:
        """The path in a record of `version` to the value of this column, whose name is `name`."""
        return (self.v1 if version == "v1" else self.v2) or name


class Child(Struct, frozen=True, forbid_unknown_fields=True):
    """A list inside a record, shown as a table of its own with one row an element, in the list's order."""

    of: str  # the column of the parent's table with the list
    parent: str  # the child's column for the parent's key: `person_id`
    value: str | None = None  # the name of the one column of a list of plain values


class Parent(Struct, frozen=True, forbid_unknown_fields=True):
    """Another stream: the list is requested for each of its records, or for `batch` of them at a time.

    Every record of such a list has the parent's key as `@param`; where several parents shared the request, all their
    keys.
    """

    stream: str
    param: str = "id"  # the parameter of the path or query that takes the parent's key
    batch: int = 1
    having: str | None = None  # a count in the parent's table: where it is 0 no request is needed
    counts: bool = False  # whether `having` is the exact number of records in the parent's list
    unless: str | None = None  # a flag in the parent's table: where it is set no request is made


class Origin(Struct, frozen=True, forbid_unknown_fields=True):
    """The list that a record leaves when it comes into another one of the same stream."""

    source: str
    flag: str  # the column that is true for records of the other list


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    """One list operation whose records belong into a stream's table, and how its changes are found.

    `way` names the strategy: `updated_since` requests the changed records; `newest_first` sorts by the cursor, newest
    first, and stops at the watermark; `changed_parents` requests the lists of the parents that changed; `new_parents`
    of those that changed and have no row yet, as what was read does not change; `full` reads everything and lets row
    hashes decide.
    """

    operation: str
    way: Literal["updated_since", "newest_first", "changed_parents", "new_parents", "full"] = "full"
    query: dict[str, str] = {}
    since_query: dict[str, str] = {}  # added to `query` when only changes are read
    name: str = "all"
    parent: Parent | None = None  # the list is read for each record of another stream; later on, for changed ones
    origin: Origin | None = None  # its records don't change: it takes turns while the other list loses none
    # What a person may set, and a record has as `@start_date`: `@today`, `@month_start`, `@year_ago` or a text.
    params: dict[str, str] = {}


# What streams are about, in the order in which people see them.
Topic = Literal[
    "deals", "leads", "contacts", "activities", "products", "mail", "notes", "projects", "users", "company"
]  # fmt: skip


class Stream(Struct, frozen=True, forbid_unknown_fields=True):
    """The records of one kind, replicated into one table of the same name."""

    name: str
    columns: dict[str, str | Column]
    topic: Topic
    key: str = "id"
    cursor: str | None = None  # the column with the time of a record's last change
    v2: tuple[Source, ...] = ()
    v1: tuple[Source, ...] = ()
    fields: str | None = None  # the stream of the definitions of its custom fields
    children: dict[str, Child] = {}
    labels: dict[str, str] = {}  # column of an id → the stream it points to: labeled.* shows that record's name
    deleted: str | None = None  # the flag that says that a record is deleted; a leading "!" inverts it
    deletions: Literal["listed", "flagged", "not shown"] = "not shown"  # by its lists; flagged: if one is listed at all
    title: str = "name"  # the column with a record's name
    comment: str = ""  # what a row is
    # Column, or element of a list (`options.label`) → what it is, its unit, what it references; the comments that many
    # tables share are in schemas/columns.toml.
    comments: dict[str, str] = {}
    changelog: str | None = None  # the stream with each edit of its records, by field
    optional: bool = False  # read only when named: a nightly run could not pay for a request a parent
    takes_turns: bool = False  # hardly ever changes, or can't be requested for changes: read once per verify cycle
    omits_unset: tuple[Version, ...] = ()  # versions whose records leave out custom fields that are not set
    leaves_out: str | None = None  # which records exist that no request for its lists shows, for people

    def sources(self, prefer: Version) -> tuple[Version, tuple[Source, ...]]:
        """The list operations to read: those of `prefer` if there are any, else the other version's."""
        if prefer == "v1" and self.v1:
            return "v1", self.v1
        return ("v2", self.v2) if self.v2 else ("v1", self.v1)

    def parents(self, prefer: Version) -> set[str]:
        """The streams whose records its lists are requested for."""
        return {source.parent.stream for source in self.sources(prefer)[1] if source.parent}

    @property
    def counted(self) -> list[Parent]:
        """The parents whose records count the records of this stream."""
        return [source.parent for source in (*self.v1, *self.v2) if source.parent and source.parent.counts]

    def parent_column(self, parent: Parent, version: Version) -> str | None:
        """The column with the key of the parent whose list the record is in."""
        by_parameter = (name for name in self.columns if self.column(name).path(name, version) == f"@{parent.param}")
        labeled = (name for name, other in self.labels.items() if other == parent.stream)
        return next(by_parameter, None) or next(labeled, None)

    def says_deleted(self, record: Mapping[str, Any], version: Version) -> bool:
        """Whether a raw record of `version` is marked as deleted."""
        if self.deleted is None:
            return False
        name = self.deleted.lstrip("!")
        column = self.column(name)
        expected = self.deleted.startswith("!") == (version in column.negated)
        return bool(record.get(column.path(name, version)) == expected)

    def column(self, name: str) -> Column:
        """The column `name`, whichever way it is written in the entry."""
        declared = self.columns[name]
        return Column(type=declared) if isinstance(declared, str) else declared


class Walk(Struct, frozen=True):
    """One reading of a list to its end: the operation, and the time that its result is valid for."""

    id: int
    run_id: str
    stream: str
    source: str
    version: Version
    operation: str
    since: datetime | None  # None: the whole list is read
    started_at: datetime | None  # the server's own Date at the first request; None before it

    @property
    def is_of_a_list(self) -> bool:
        """Whether it says that a list is complete until it began: no other walk moves a watermark."""
        return self.source not in (FROM_FILES, REPAIR, FINDINGS) and not self.source.startswith(BACKFILL)


class Page(Struct, frozen=True):
    """One answer to a list operation, unchanged."""

    walk: int
    seq: int  # 0 for the first page of the walk
    body: bytes  # JSON; it is not changed before it is sealed
    rows: int
    next: str | None  # the cursor or offset of the page after it; None: this was the last
    served_at: datetime  # the server's own Date, UTC
    cursor: str | None = None  # the cursor or offset of this page; None for the first one
    records: list[Raw] | None = None  # those in `body`, where it has been opened already
    context: dict[str, str] = {}  # parameters of the request: the parent's key, chosen parameters


class Unmentioned(Struct, frozen=True):
    """What staged rows of some shapes do not mention: it is not known, so the table keeps what it has."""

    shapes: tuple[int, ...]  # hashes of keys, in the column `_shape` of the staging table
    columns: tuple[str, ...]
    left_over: tuple[str, ...]  # the keys of `_extra` that values of these columns have
    keys: tuple[str, ...]  # the records' own keys


class Tombstone(Struct, frozen=True):
    """A record that was removed, with the evidence: its absence alone never suffices."""

    key: str
    how: str  # deleted, merged, purged
    evidence: str  # the observation that shows the removal
    at: datetime  # the time of the removal, or of the evidence; UTC
    winner: str | None = None  # of a merge: the record that stays
    confidence: str = "exact"


class IncompleteStream(Struct, frozen=True):
    """A part of a stream that a run did not load; it is in the run's receipt."""

    stream: str
    kind: str  # failed, forbidden, quarantined, stopped, incomplete, unknown, fewer, rights, differs, gone
    detail: str


class Proof(Struct, frozen=True):
    """How complete a table is: its count, and the source's count when it was last read whole."""

    here: int  # rows that are alive
    at_source: int | None = None  # live records at the source when it was last read whole; None: never
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


_GAPS, _COMMAND = 3, 40  # that the short form of a receipt names; characters of its command


class Receipt(Struct):
    """What a run did, stored for good in control.db, meta.runs and meta.streams, and shown on the screen."""

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
    is_admin: bool | None = None  # whether the token was an administrator's, who sees everything; None: not checked
    user_id: int | None = None  # the token's user: what that user may not see is missing
    user: str | None = None  # the name
    deferred: list[str] = []  # streams that take turns within the verify cycle, and are read in another night
    seconds: float | None = None  # from its start to the published warehouse; None: not ended, or of an older pdsync

    def __repr__(self) -> str:
        read = sum(entry.read for entry in self.streams.values())
        gaps = ", ".join(f"{gap.stream} ({gap.kind})" for gap in self.gaps[:_GAPS])
        more = f" and {len(self.gaps) - _GAPS:,} more" if len(self.gaps) > _GAPS else ""
        return (
            f"<Receipt {self.run_id} of {self.command[:_COMMAND]}: {'complete' if self.complete else 'not complete'},"
            f" rows={read:,} requests={self.requests:,} tokens={self.tokens:,} exit_code={self.exit_code}"
            f"{f'{chr(10)} gaps: {gaps}{more}' if gaps else ''}>"
        )

    @property
    def duration(self) -> float:
        """Seconds from its start to the published warehouse; 0 if it has not ended."""
        if self.seconds is not None:
            return self.seconds
        return (self.finished_at - self.started_at).total_seconds() if self.finished_at else 0.0

    @property
    def complete(self) -> bool:
        """Whether every selected stream reached its end and nothing was left out."""
        return bool(self.streams) and all(stream.complete for stream in self.streams.values()) and not self.gaps


Verb = Literal["add", "update", "delete", "merge", "other"]
State = Literal[
    "queued", "approved", "armed", "unknown", "applied", "rejected", "conflict", "needs_review", "cancelled"
]
OPEN: frozenset[State] = frozenset({"queued", "approved", "armed", "unknown"})
LEFT_BY_PUSH: tuple[State, ...] = ("approved", "armed", "unknown")  # of an interrupted push, if none is running


class Mutation(Struct, frozen=True):
    """One change in the outbox, and its state.

    `payload`: the operation's parameters by name, custom fields by code and options by id. A value `{"$ref": id}` is
    the id of the record that the mutation `id` adds.
    """

    seq: int  # its number in the order of queueing, shown as #12
    id: str
    batch: str
    company_id: int | None
    operation: str  # "v2 updateDeal"
    verb: Verb
    kind: str  # of the record it is about: "deals", "deals/products"
    target: str | None  # its address: "deals/12"; of an addition its list's, "deals/12/products"; None: it has none yet
    payload: dict[str, Any]
    expected: dict[str, Any] | None  # the values that the fields must have now; None: they are read first. Set by undo
    queued_at: datetime
    queued_by: str
    state: State
    reason: str | None = None
    detail: str | None = None
    push_id: str | None = None
    remote_id: str | None = None  # of the record that it added; of a merge that of the record that stays
    base_image: dict[str, Any] | None = None  # the record as it was before; of a merge `loser`, `winner` and `moves`
    after_image: dict[str, Any] | None = None  # and afterwards
    settled_at: datetime | None = None
    undo_of: str | None = None
    supersedes: str | None = None

    @property
    def references(self) -> set[str]:
        """The mutations that add the records it refers to."""
        return {value["$ref"] for value in self.payload.values() if isinstance(value, dict) and "$ref" in value}
