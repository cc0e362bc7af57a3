"""Works out what a push would do: each record as it is now, before → after, what it costs, and what speaks against it.

A plan reads and changes nothing. It is bound to its company, to the mutations as they stood, and to its own hash: a
saved plan that was edited, has expired or was made for another company is not carried out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.request_builder import check
from pdsync.errors import ApiError, ConfigError, WrongCompany
from pdsync.model import Verb  # noqa: TC001 - msgspec reads it at run time
from pdsync.writeback import fresh_reads, merge_preview
from pdsync.writeback.effects import effect_of, entries_to_go, is_state
from pdsync.writeback.equality import (
    changed_fields,
    equivalent,
    fields,
    snapshot_fields,
    value_in,
)
from pdsync.writeback.shapes import key_of, link_to_itself, records_named, shape
from pdsync.writeback.typed_values import complete_contacts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pdsync.core.http import Http
    from pdsync.model import Mutation, Operation
    from pdsync.writeback.known_records import KnownRecords
    from pdsync.writeback.resolver import NameResolver
    from pdsync.writeback.shapes import Shape

Policy = Literal["field", "record", "theirs", "ours", "append"]
Fate = Literal["send", "already_so", "rejected", "conflict"]
LIFE = timedelta(hours=24)
_SHOWN = 5  # titles of records that go


class Change(Struct, frozen=True):
    """One field, before → after, as people read it."""

    field: str
    before: Any
    after: Any


class Step(Struct, frozen=True):
    """What becomes of one mutation."""

    mutation: str
    seq: int
    operation: str
    verb: Verb
    kind: str
    target: str | None
    title: str | None  # what people call the record
    payload: dict[str, Any]  # as it will be sent
    base: dict[str, Any] | None  # what the fields hold now; it is looked at again just before sending
    changes: tuple[Change, ...]
    records: int  # how many the guards count
    cost: int  # tokens, without the reads before it
    fate: Fate
    seen: bool = False  # its record is there, or is known to have been
    reason: str | None = None
    detail: str | None = None
    warnings: tuple[str, ...] = ()
    moves: dict[str, list[str]] = {}  # of a merge: what hangs on the record that goes, by the list that shows it

    @property
    def deletes(self) -> int:
        """How many records it deletes."""
        return self.records if self.verb == "delete" or catalogue.operation(self.operation).method == "DELETE" else 0


class Plan(Struct, frozen=True):
    """What a push does, and nothing else."""

    company_id: int
    company: str
    made_at: datetime
    expires_at: datetime
    policy: Policy
    steps: tuple[Step, ...]
    read_tokens: int  # that the reads and looks beside the writes will cost, as far as can be told
    hash: str = ""

    @property
    def sending(self) -> list[Step]:
        """The steps that send something."""
        return [step for step in self.steps if step.fate == "send"]

    @property
    def tokens(self) -> int:
        """What carrying it out costs."""
        return self.read_tokens + sum(step.cost for step in self.sending)

    def sealed(self) -> Plan:
        """The plan with the hash of its content."""
        bare = msgspec.structs.replace(self, hash="")
        digest = hashlib.sha256(msgspec.json.encode(bare, order="deterministic")).hexdigest()
        return msgspec.structs.replace(self, hash=digest)


def save(plan: Plan, path: Path) -> None:
    """Write a plan to a file."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=1))


def load(path: Path) -> Plan:
    """A saved plan.

    Raises:
        ConfigError: it can't be read, is no plan, or not the one that was saved. Nothing was sent.
    """
    try:
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no plan: {error}. Nothing was sent. Make one: push --dry-run --out") from error
    if plan.sealed().hash != plan.hash:
        raise ConfigError(
            f"{path} is not the plan that was saved: it was changed. Nothing was sent. Make a new one: push --dry-run"
        )
    return plan


async def make(
    http: Http,
    names: NameResolver,
    mutations: Sequence[Mutation],
    *,
    company: tuple[int, str],
    policy: Policy = "field",
    currency: str | None = None,
    memory: KnownRecords,
) -> Plan:
    """Read what `mutations` are about, and work out what sending them would do.

    Args:
        names: say what codes and ids mean.
        mutations: in the order in which they were queued.
        company: id and name of the one that the token belongs to.
        policy: what to do where somebody else has changed the same fields meanwhile.
        currency: of amounts for which nothing else says one.
        memory: knows which records were there once.

    Raises:
        WrongCompany: one of them was queued for another company. Nothing was read.
        PdsyncError: a read failed; nothing was changed.
    """
    for each in mutations:
        if each.company_id not in (None, company[0]):
            raise WrongCompany(expected=each.company_id or 0, found=company[0], name=company[1])
    names.pending |= {each.id: f"that of #{each.seq}" for each in mutations}
    fit = [each for each in mutations if _unfit(each) is None]
    known = await fresh_reads.read(http, [place for each in fit for place in _places(each)])
    images = {target: read if not read.gone else None for target, read in known.items()}
    never_shown = {target for target, read in known.items() if read.record is None and not read.hidden}
    merges = await merge_preview.children(http, [each for each in fit if each.verb == "merge"])
    doomed = {each.id: found for each in fit if (found := await _doomed(http, each)) is not None}
    touched: set[str] = set()
    steps = []
    for each in mutations:
        planner = _Planner(each, names, policy, currency, images, merges.get(each.id, {}), never_shown, memory)
        planner.doomed = doomed.get(each.id)
        planner.is_first = not touched.intersection(roots := _roots(each))
        touched |= roots
        steps.append(planner.step())
    now = datetime.now(UTC).replace(microsecond=0)
    read_tokens = _read_tokens([step for step in steps if step.fate == "send"])
    return Plan(company[0], company[1], now, now + LIFE, policy, tuple(steps), read_tokens).sealed()


class _Doomed(Struct, frozen=True):
    """What a deletion of several would take away."""

    entries: list[dict[str, Any]]
    named: bool  # by what they are called; otherwise it takes all that there are
    unread: str | None = None  # why they can't be read


async def _doomed(http: Http, mutation: Mutation) -> _Doomed | None:
    """What `mutation` would take away of a list; None where it is about a record, or about one that does not exist."""
    if mutation.references:
        return None
    try:
        found = await entries_to_go(http, catalogue.operation(mutation.operation), mutation.payload)
    except ApiError as error:
        return _Doomed([], named=True, unread=str(error).split("\n", 1)[0])
    return _Doomed(*found) if found is not None else None


def _roots(mutation: Mutation) -> set[str]:
    """The outermost records that a mutation changes."""
    shaped = shape(catalogue.operation(mutation.operation))
    return {f"{shaped.root}/{mutation.payload.get(shaped.places[0])}"} if shaped.places else set()


def _places(mutation: Mutation) -> list[fresh_reads.RecordAddress]:
    shaped = shape(catalogue.operation(mutation.operation))
    if shaped.verb not in ("update", "delete", "merge"):
        return []
    found = fresh_reads.place(shaped, mutation.payload)
    if found and shaped.verb == "merge":
        return [found, merge_preview.winner(shaped, mutation.payload)]
    return [found] if found else []


def _unfit(mutation: Mutation) -> tuple[str, str] | None:
    """Why a mutation can't be sent, whatever the records hold: a reason, and what is wrong; None if it can."""
    operation = catalogue.operation(mutation.operation)
    try:
        check(operation, without_references(operation, mutation.payload))
    except ConfigError as error:
        return "not_valid", str(error).split("\n", 1)[0]
    if operation.removed:
        return "removed", f"{operation.name} is no longer part of the API"
    if wrong := link_to_itself(operation, mutation.payload):
        return "not_valid", wrong
    return None


class _Planner:
    """Works out one step. `images` are the records as the steps before leave them."""

    def __init__(
        self,
        mutation: Mutation,
        names: NameResolver,
        policy: Policy,
        currency: str | None,
        images: dict[str, fresh_reads.FreshRecord | None],
        children: dict[str, list[str]],
        never_shown: set[str],
        memory: KnownRecords,
    ) -> None:
        self.mutation, self.names, self.policy, self.currency = mutation, names, policy, currency
        self.images, self.children, self.never_shown, self.memory = images, children, never_shown, memory
        self.operation = catalogue.operation(mutation.operation)
        self.payload = dict(mutation.payload)
        self.changes: tuple[Change, ...] = ()
        self.base: dict[str, Any] | None = None
        self.warnings: tuple[str, ...] = ()
        self.title: str | None = None
        self.doomed: _Doomed | None = None
        self.is_first = True  # of this plan's to change its record

    def step(self) -> Step:
        unfit = _unfit(self.mutation)
        fate, reason, detail = ("rejected", *unfit) if unfit else self._fate()
        if self.mutation.verb == "add" and self.mutation.target:  # it may bring what is not there yet
            self.never_shown -= {each for each in self.never_shown if each.startswith(f"{self.mutation.target}/")}
        return Step(
            mutation=self.mutation.id,
            seq=self.mutation.seq,
            operation=self.mutation.operation,
            verb=self.mutation.verb,
            kind=self.mutation.kind,
            target=self.mutation.target,
            title=self.title,
            payload=self.payload,
            base=self.base,
            changes=self.changes,
            records=len(self.doomed.entries) if self.doomed else records_named(self.operation, self.payload),
            cost=self.operation.cost or 0,
            fate=fate,
            seen=self._is_seen(),
            reason=reason,
            detail=detail,
            warnings=self.warnings,
            moves=self.children,
        )

    def _fate(self) -> tuple[Fate, str | None, str | None]:
        if self.mutation.verb == "merge":
            return self._merge()
        if self.doomed:
            return self._delete_several(self.doomed)
        target = self.mutation.target
        if self.mutation.verb not in ("update", "delete") or target not in self.images:
            self._shows(self.payload, None)
            return "send", None, None
        image = self.images[target]
        if image is not None and image.hidden:
            return "rejected", "permission", "this token may not see it"
        if image is None or image.record is None:
            if never := self._never_there(target):
                return never
            if self.mutation.verb == "delete" and image is None:  # only this plan says so: one before it may yet fail
                return "send", None, None
            if self.mutation.verb == "delete":
                return "already_so", "already_so", "it is not there any more"
            return "conflict", "target_gone", "it was deleted, merged away, or can't be seen with this token"
        self.title = title_of(image.record)
        if self.mutation.verb == "delete":
            return self._delete(target, image)
        return self._update(target, image)

    def _delete(self, target: str, image: fresh_reads.FreshRecord) -> tuple[Fate, str | None, str | None]:
        record = image.record or {}
        if self.mutation.expected and (moved := changed_fields(record, self.mutation.expected)):
            return "conflict", "changed", f"somebody has changed {self._named(moved)} since"
        self.base = snapshot_fields(record, self.mutation.expected or {})
        self.changes = (Change("(the record)", self.title or target, None),)
        self.images[target] = None
        return "send", None, None

    def _delete_several(self, doomed: _Doomed) -> tuple[Fate, str | None, str | None]:
        if doomed.unread:
            return "rejected", "permission", f"what it would delete can't be counted: {doomed.unread}"
        if not doomed.entries and self.is_first:
            if doomed.named and not self._is_seen():
                return "rejected", "not_found", "none of what it names is there"
            return "already_so", "already_so", "it is gone" if doomed.named else "there is nothing left to delete"
        titles = [str(title_of(each) or key_of(each)) for each in doomed.entries[:_SHOWN]]
        more = f" and {len(doomed.entries) - _SHOWN:,} more" if len(doomed.entries) > _SHOWN else ""
        self.changes = (Change(f"({len(doomed.entries):,} records)", ", ".join(titles) + more, None),)
        return "send", None, None

    def _update(self, target: str, image: fresh_reads.FreshRecord) -> tuple[Fate, str | None, str | None]:
        record = image.record or {}
        self.payload = self._completed(record)
        wanted = dict(fields(body_of(self.operation, self.payload)))
        if image.archived and wanted.get("is_archived") is not False:
            return "conflict", "archived", "it is archived; un-archive it first (is_archived=false)"
        self.base = snapshot_fields(record, body_of(self.operation, self.payload))
        if self.policy == "record":
            self.base["update_time"] = record.get("update_time")
        expected = self.mutation.expected or {}
        moved = [
            name for name in changed_fields(record, expected) if name not in wanted or not self._at_target(record, name)
        ]
        if moved:
            return "conflict", "changed", f"somebody has changed {self._named(moved)} since"
        self._shows(body_of(self.operation, self.payload), record)
        if not self.changes:
            return "already_so", "already_so", "every field holds that value already"
        after = dict(record)
        for name, value in wanted.items():
            outer, _, code = name.partition("/")
            after[outer] = {**(after.get(outer) or {}), code: value} if code else value
        self.images[target] = msgspec.structs.replace(image, record=after)
        return "send", None, None

    def _is_seen(self) -> bool:
        target = self.mutation.target
        if self.doomed and self.doomed.entries:
            return True
        if target is None or self.mutation.verb not in ("update", "delete", "merge"):
            return target is None and bool(self.mutation.references)  # one of ours adds it
        is_read = target in self.images and target not in self.never_shown
        return is_read or self.memory.existed(self.mutation.kind, target)

    def _never_there(self, target: str) -> tuple[Fate, str | None, str | None] | None:
        """What becomes of a change of a record that no read shows and nothing remembers."""
        kind = self.mutation.kind
        if target not in self.never_shown or self.memory.existed(kind, target):
            return None
        return "rejected", "not_found", f"there is no {target}: {self.memory.hint(kind, target)}"

    def _at_target(self, record: Mapping[str, Any], name: str) -> bool:
        wanted = dict(fields(self.payload))
        return name in wanted and equivalent(wanted[name], value_in(record, name)[1])

    def _merge(self) -> tuple[Fate, str | None, str | None]:
        shaped = shape(self.operation)
        loser, winner = merge_preview.targets(shaped, self.payload)
        into = self.memory.merged_into(shaped.kind, loser.rpartition("/")[2])
        for target in (loser, winner):
            image = self.images.get(target)
            if image is None or image.record is None:
                if never := self._never_there(target):
                    return never
                if target == loser and into and f"{shaped.kind}/{into}" == winner:
                    return "already_so", "already_so", f"{loser} was merged into {into} before"
                what = f"was merged into {into}" if target == loser and into else "was deleted, merged away"
                return "conflict", "target_gone", f"{target} {what}, or can't be seen"
        one, other = self.images[loser], self.images[winner]
        lost, kept = (one and one.record) or {}, (other and other.record) or {}
        self.title = f"{title_of(lost)} → {title_of(kept)}"
        self.base = merge_preview.stamp(lost, kept)
        filled, dropped = merge_preview.outcome(lost, kept)
        self.changes = tuple(
            Change(self.names.label(self.operation, name), self._read(name, before), self._read(name, after))
            for name, before, after in filled
        )
        gone = [f"{self.names.label(self.operation, name)} {self._read(name, value)!r}" for name, value in dropped]
        moving = [merge_preview.counted(list, len(ids)) for list, ids in self.children.items() if ids]
        self.warnings = (
            *((f"lost for good: {', '.join(gone)}",) if gone else ()),
            *((f"moves to the other: {', '.join(moving)}",) if moving else ()),
            "a merge can't be undone",
        )
        self.images[loser] = None
        return "send", None, None

    def _completed(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The payload with what only the record can say.

        That is the currency of an amount and other parts that nobody gave, the labels of e-mail addresses and phone
        numbers, and the list that is added to.
        """
        payload = {
            name: complete_contacts(value, _entries(record.get(name))) if _is_bare(value) else value
            for name, value in self.payload.items()
        }
        custom = payload.get("custom_fields")
        if isinstance(custom, dict):
            held = record.get("custom_fields") or {}
            payload["custom_fields"] = {
                code: self._with_currency(_with_parts(value, held.get(code)), held.get(code), record)
                if self.policy != "append"
                else _joined(value, held.get(code))
                for code, value in custom.items()
            }
        if self.policy == "append":
            for name, value in payload.items():
                if name in self.operation.body and name != "custom_fields":
                    payload[name] = _joined(value, record.get(name))
        return payload

    def _with_currency(self, value: Any, held: Any, record: Mapping[str, Any]) -> Any:
        if not isinstance(value, dict) or set(value) != {"value"} or not isinstance(value["value"], int | float):
            return value
        own = held.get("currency") if isinstance(held, dict) else None
        return {**value, "currency": own or record.get("currency") or self.currency}

    def _shows(self, body: Mapping[str, Any], record: Mapping[str, Any] | None) -> None:
        """The fields that change, as people read them."""
        changes = []
        for name, value in fields(body):
            shown, before = value_in(record, name) if record is not None else (False, None)
            if record is None or not shown or not equivalent(value, before):
                label = self.names.label(self.operation, name)
                was, becomes = self._read(name, before), self._read(name, value)
                if shown and was == becomes:  # what differs is beside the value
                    was, becomes = _in_full(before), _in_full(value)
                changes.append(Change(label, was, becomes))
        self.changes = tuple(changes)
        if record is None and self.title is None:
            self.title = title_of(body)

    def _read(self, name: str, value: Any) -> Any:
        return self.names.display_value(self.operation, name, value)

    def _named(self, names: Sequence[str]) -> str:
        return ", ".join(self.names.label(self.operation, name) for name in names)


def body_of(operation: Operation, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a payload that says what the record shall hold."""
    places = {*operation.path_params, *operation.query}
    return {name: value for name, value in payload.items() if name not in places}


def without_references(operation: Operation, payload: Mapping[str, Any]) -> dict[str, Any]:
    """A payload in which ids stand for records that do not exist yet: to check the rest."""
    declared = {**operation.path_params, **operation.query, **operation.body}
    sample = {"string:uuid": "00000000-0000-0000-0000-000000000000"}
    return {
        name: sample.get(declared[name].type, 1) if isinstance(value, dict) and "$ref" in value else value
        for name, value in payload.items()
    }


def title_of(record: Mapping[str, Any]) -> str | None:
    """What people call a record."""
    for key in ("title", "name", "subject", "field_name", "content", "label"):
        if isinstance(record.get(key), str) and record[key]:
            return str(record[key])[:80]
    return None


def mass_changes(plan: Plan) -> list[tuple[str, Any, int, int]]:
    """Fields that most of many records would be given the same value in: (field, value, so many, of how many)."""
    updates = [step for step in plan.sending if step.verb == "update"]
    values: Counter[tuple[str, str]] = Counter()
    for step in updates:
        values.update((change.field, msgspec.json.encode(change.after).decode()) for change in step.changes)
    return [
        (field, msgspec.json.decode(value), count, len(updates))
        for (field, value), count in values.items()
        if len(updates) >= 20 and count > 0.9 * len(updates)
    ]


def _is_bare(value: Any) -> bool:
    """Whether it is a list of contacts of which not all say their label, or none which is the main one."""
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(each, dict) and "value" in each for each in value)
    ):
        return False
    return not all("label" in each for each in value) or not any("primary" in each for each in value)


def _in_full(value: Any) -> Any:
    """A value with what `NameResolver.shown` leaves out: the label of a contact, and which is the main one."""
    if not isinstance(value, list):
        return value
    return [_contact(each) if isinstance(each, dict) and "value" in each else each for each in value]


def _contact(entry: Mapping[str, Any]) -> str:
    beside = [entry.get("label"), "main" if entry.get("primary") else None]
    return f"{entry['value']} ({', '.join(filter(None, beside))})"


def _entries(held: Any) -> list[dict[str, Any]]:
    return [each for each in held if isinstance(each, dict)] if isinstance(held, list) else []


def _with_parts(value: Any, held: Any) -> Any:
    """A value of several parts with those that the record has and nobody gave: the API empties what it isn't sent.

    The lines of an address belong to the address: those of another one are not kept.
    """
    if not isinstance(value, dict) or "$ref" in value or not isinstance(held, dict):
        return value
    if "value" in value and "formatted_address" in held:
        return value
    kept = {part: inner for part, inner in held.items() if inner is not None and part != "timezone_id"}
    return {**kept, **value}


def _joined(value: Any, held: Any) -> Any:
    """Both lists, each element once; what is no list stays as it was asked for."""
    if not isinstance(value, list):
        return value
    kept = list(held) if isinstance(held, list) else []
    return kept + [
        {**each, "primary": False} if isinstance(each, dict) and kept and "primary" in each else each
        for each in value
        if not any(_is_same_entry(each, other) for other in kept)
    ]


def _is_same_entry(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict) and "value" in one:
        return str(one["value"]).lower() == str(other.get("value")).lower()
    return equivalent(one, other)


def _read_tokens(steps: Sequence[Step]) -> int:
    """Tokens of the reads just before and after writing, and of the looks at the lists that grow."""
    total = 0
    groups = Counter((step.kind, step.operation) for step in steps)
    for (_, name), count in groups.items():
        operation = catalogue.operation(name)
        shaped = shape(operation)
        if effect := effect_of(operation):
            reader = catalogue.operation(effect.read or "")
            total += (reader.cost or 0) * len(effect.queries) * count * (2 if is_state(operation) else 1)
        elif shaped.verb in ("update", "delete", "merge"):
            total += _cost_of_reading(shaped, count * (2 if shaped.verb == "merge" else 1))
            total += _cost_of_reading(shaped, 1) * count if shaped.verb != "update" else 0
        elif shaped.verb == "add" and shaped.listing:
            total += (shaped.listing.cost or 0) * (count if shaped.places else -(-count // 50))
    return total


def _cost_of_reading(shaped: Shape, records: int) -> int:
    if shaped.listing and "ids" in shaped.listing.query and records >= 4:
        return (shaped.listing.cost or 0) * -(-records // 30)
    reader = shaped.item or shaped.listing
    return (reader.cost or 0) * records if reader else 0
