"""Shows records of v2 with the keys that they had in v1: what an integration with the component reads.

Which key is made of what is data: schemas/v1_records.toml. What v1 nested (the owner, the person, the organization, the
next activity) is read by id, for as many records at a time as one request may name.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.errors import CatalogueError, Forbidden, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pdsync.model import Operation
    from pdsync.runner.actions.caller import Caller

    Record = dict[str, Any]

_FILE = "v1_records.toml"
_BATCH = 100  # ids that one request may name
# What an id names: the list that takes several ids and the operation for one, or the whole list where it is short.
_READ_BY_IDS = {
    "person": ("v2 getPersons", "v2 getPerson", {}),
    "organization": ("v2 getOrganizations", "v2 getOrganization", {"include_fields": "people_count,smart_bcc_email"}),
    "activity": ("v2 getActivities", "v2 getActivity", {}),
    "deal": ("v2 getDeals", "v2 getDeal", {}),
}
_READ_WHOLE = {"user": "v1 getUsers", "stage": "v2 getStages", "pipeline": "v2 getPipelines"}
_ADDRESS = (
    "subpremise", "street_number", "route", "sublocality", "locality", "admin_area_level_1", "admin_area_level_2",
    "country", "postal_code", "formatted_address",
)  # fmt: skip
_PARTS = {
    "monetary": ("currency",), "daterange": ("until",), "time": ("timezone_id",), "timerange": ("until", "timezone_id"),
    "address": _ADDRESS,
}  # fmt: skip
_SIGNS = {"EUR": "€", "USD": "$", "GBP": "£", "JPY": "¥"}


class RecordKeys(Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of records: an entry of schemas/v1_records.toml."""

    operations: tuple[str, ...]
    keys: dict[str, str]
    fields: str | None = None  # the list of its fields, which says what its custom fields are
    include: tuple[str, ...] = ()  # optional fields of v2 that v1 always showed


@cache
def shapes() -> dict[str, RecordKeys]:
    """By the operation that answers with them, the kinds of records that v1 showed otherwise.

    Raises:
        CatalogueError: an entry can't be understood.
    """
    found = {}
    content = tomllib.loads((catalogue.schemas() / _FILE).read_text(encoding="utf-8"))
    for name, entry in content.items():
        shape = catalogue.read(entry, RecordKeys, f"schemas/{_FILE} [{name}]")
        for key, source in shape.keys.items():
            word = source.partition(":")[0].partition(".")[0]
            if ":" in source and word not in (*_CONVERSIONS, *_READ_BY_IDS, *_READ_WHOLE):
                raise CatalogueError(f"schemas/{_FILE} [{name}.keys] {key}: there is no conversion {word!r}.")
        found.update(dict.fromkeys(shape.operations, shape))
    return found


def key_of_today(operation: Operation, key: str) -> str:
    """The key of v2 that holds what `key` held in v1, as far as it can be sorted by."""
    shape = shapes().get(operation.name)
    word, colon, source = (shape.keys.get(key, key) if shape else key).partition(":")
    if not colon:
        return word
    return key if "." in word else source


class V1Records:
    """Gives records of one operation the keys of v1; what it looks up, it looks up once."""

    def __init__(self, caller: Caller, shape: RecordKeys) -> None:
        self._caller, self._shape = caller, shape
        self._known: dict[str, dict[int, Record]] = defaultdict(dict)
        self._whole: set[str] = set()
        self._types: dict[str, str] | None = None  # of custom fields, by code
        self._company: int | None = None

    @staticmethod
    def of(caller: Caller, operation: Operation) -> V1Records | None:
        """For the records of `operation`; None where they are as they were."""
        shape = shapes().get(operation.name)
        return V1Records(caller, shape) if shape else None

    @property
    def include(self) -> str:
        """The optional fields to ask for."""
        return ",".join(self._shape.include)

    async def show(self, records: Sequence[Record]) -> list[Record]:
        """The records with the keys of v1.

        Raises:
            Forbidden: the token may not read what v1 nested; the records can be shown without it.
            PdsyncError: as `Http.call`.
        """
        try:
            await self._look_up(records)
        except Forbidden as error:
            raise Forbidden(
                f"{error}\nThe keys of v1 need it. --as-today (in Python as_today=True) shows the records without it.",
                status=error.status, operation=error.operation, correlation_id=error.correlation_id,
            ) from error  # fmt: skip
        return [self._shown(record) for record in records]

    async def _look_up(self, records: Sequence[Record]) -> None:
        for kind, source in dict.fromkeys(self._named()):
            await self._read(kind, {record[source] for record in records if record.get(source) is not None})
        # What v1 nests names an owner in turn, who is among the users.
        if self._types is None and self._shape.fields:
            fields = self._caller.walk(catalogue.operation(self._shape.fields), {})
            self._types = {each["field_code"]: each["field_type"] async for each in fields if each["is_custom_field"]}
        if self._company is None and any(source.startswith("company:") for source in self._shape.keys.values()):
            self._company = (await self._caller.account()).company_id

    def _named(self) -> Iterator[tuple[str, str]]:
        """The kinds of records that are looked up, and the keys that hold their ids."""
        for source in self._shape.keys.values():
            word, _, key = source.partition(":")
            kind = word.partition(".")[0]
            if key and (kind in _READ_BY_IDS or kind in _READ_WHOLE):
                yield kind, key

    async def _read(self, kind: str, ids: set[int]) -> None:
        known = self._known[kind]
        if kind in _READ_WHOLE:
            if kind not in self._whole:
                operation = catalogue.operation(_READ_WHOLE[kind])
                self._whole.add(kind)
                known.update({each["id"]: each async for each in self._caller.walk(operation, {})})
            return
        name, _, options = _READ_BY_IDS[kind]
        missing = sorted(ids - known.keys())
        for begin in range(0, len(missing), _BATCH):
            several = ",".join(map(str, missing[begin : begin + _BATCH]))
            listed = self._caller.walk(catalogue.operation(name), {"ids": several, **options})
            known.update({each["id"]: each async for each in listed})
        for id in sorted(ids - known.keys()):  # deleted ones stand in no list
            known[id] = await self._read_one(kind, id)

    async def _read_one(self, kind: str, id: int) -> Record:
        """A record by its id; an empty one where Pipedrive no longer shows it."""
        _, name, options = _READ_BY_IDS[kind]
        try:
            answer = await self._caller.ask(catalogue.operation(name), {"id": id, **options})
        except NotFound:
            return {}
        record: Record = answer["data"]
        return record

    def _shown(self, record: Record) -> Record:
        shown: Record = {}
        for key, source in self._shape.keys.items():
            word, colon, name = source.partition(":")
            if source.startswith("="):
                shown[key] = msgspec.json.decode(source[1:])
            elif not colon:
                if source in record:
                    shown[key] = record[source]
            elif word in _CONVERSIONS:
                if name in record:
                    shown |= _CONVERSIONS[word](self, key, name, record)
            elif name in record:
                kind, _, part = word.partition(".")
                shown[key] = self._part(kind, part, record[name]) if part else self.nested(kind, record[name])
        return shown | self._custom(record.get("custom_fields") or {})

    def _part(self, kind: str, part: str, id: int | None) -> Any:
        return self._known[kind].get(id or 0, {}).get(part)

    def nested(self, kind: str, id: int | None) -> Record | None:
        """The record that an id names, as v1 nests it."""
        record = self._known[kind].get(id or 0)
        if not record or id is None:
            return None
        if kind == "user":
            picture = record.get("icon_url")
            return {
                "id": id, "name": record["name"], "email": record["email"], "has_pic": int(bool(picture)),
                "pic_hash": None, "active_flag": record["active_flag"], "value": id,
            }  # fmt: skip
        if kind == "person":
            return {
                "active_flag": not record["is_deleted"], "name": record["name"], "email": _contacts(record["emails"]),
                "phone": _contacts(record["phones"]), "owner_id": record["owner_id"], "value": id,
            }  # fmt: skip
        return {
            "name": record["name"], "people_count": record.get("people_count"), "owner_id": record["owner_id"],
            "address": (record["address"] or {}).get("value"), "label_ids": record["label_ids"],
            "active_flag": not record["is_deleted"], "cc_email": record.get("smart_bcc_email"),
            "owner_name": self._part("user", "name", record["owner_id"]), "value": id,
        }  # fmt: skip

    def weighted(self, record: Record) -> float:
        """The value by its probability: the deal's own, else its stage's."""
        own = record["probability"]
        probability = self._part("stage", "deal_probability", record["stage_id"]) if own is None else own
        value = round((record["value"] or 0) * (100 if probability is None else probability) / 100, 2)
        return int(value) if value == int(value) else value

    def _custom(self, values: Record) -> Record:
        """Custom fields beside the others, their parts under keys of their own."""
        flat: Record = {}
        for code, value in values.items():
            kind = (self._types or {}).get(code)
            if kind in _PARTS:
                flat |= _spread(code, value, _PARTS[kind])
            elif kind == "enum":
                flat[code] = None if value is None else str(value)
            elif kind == "set":
                flat[code] = ",".join(map(str, value)) if value else None
            else:
                flat[code] = value
        return flat

    def is_hidden(self, kind: str, id: int | None) -> bool:
        """Whether a record is named that Pipedrive does not show to this token."""
        return id is not None and not self._known[kind].get(id)

    def company(self) -> int | None:
        """The company's id."""
        return self._company


def _contacts(contacts: list[Record] | None) -> list[Record]:
    shown = [{key: each.get(key) for key in ("label", "value", "primary")} for each in contacts or ()]
    return shown or [{"value": "", "primary": True}]


def _spread(key: str, value: Any, parts: Sequence[str], empty: Any = None) -> Record:
    """A value of several parts under a key each."""
    whole = value if isinstance(value, dict) else {}
    return {key: whole.get("value")} | {
        f"{key}_{part}": (whole.get(part) or empty) if whole else whole.get(part) for part in parts
    }


def _time(value: str | None) -> str | None:
    """`2026-01-05T10:00:00.123Z` as `2026-01-05 10:00:00`."""
    if not value or not re.match(r"\d{4}-\d\d-\d\dT", value):
        return value
    return datetime.fromisoformat(value).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _money(value: Any, currency: str | None) -> str:
    return f"{_SIGNS.get(currency or '', f'{currency} ')}{value or 0:,}"


def _picture(record: Record, id: int | None) -> Record | None:
    if id is None:
        return None
    return {"item_type": "person", "item_id": record["id"], "active_flag": True, "value": id}


def _attendees(some: list[Record] | None) -> list[Record] | None:
    if some is None:
        return None
    return [
        {"email_address": one.get("email"), "is_organizer": int(one.get("is_organizer") or 0)}
        | {name: one.get(name) for name in ("name", "status", "person_id", "user_id")}
        for one in some
    ]


def _prices(record: Record) -> list[Record]:
    return [
        {
            "id": price.get("id"),
            "product_id": record["id"],
            **{name: price.get(name) for name in ("price", "currency", "cost")},
            "overhead_cost": price.get("direct_cost"),
            "notes": price.get("notes"),
        }
        for price in record["prices"]
    ]


_CONVERSIONS: dict[str, Callable[[V1Records, str, str, Record], Record]] = {
    "time": lambda _, key, name, record: {key: _time(record[name])},
    "filled_time": lambda _, key, name, record: {key: _time(record[name]) or ""},
    "minutes": lambda _, key, name, record: {key: (record[name] or "")[:5]},
    "attendees": lambda _, key, name, record: {key: _attendees(record[name])},
    "participants": lambda _, key, name, record: {
        key: [{"person_id": one["person_id"], "primary_flag": one["primary"]} for one in record[name] or ()]
    },
    "prices": lambda _, key, _name, record: {key: _prices(record)},
    "url_title": lambda _, key, name, record: {key: "-".join(record[name].split())},
    "text": lambda _, key, name, record: {key: None if record[name] is None else str(record[name])},
    "not": lambda _, key, name, record: {key: not record[name]},
    "is_open": lambda _, key, name, record: {key: record[name] == "open" and not record["is_deleted"]},
    "status": lambda _, key, name, record: {key: "deleted" if record["is_deleted"] else record[name]},
    "delete_time": lambda _, key, name, record: {key: _time(record[name]) if record["is_deleted"] else None},
    "joined": lambda _, key, name, record: {key: ",".join(map(str, record[name] or ())) or None},
    "first": lambda _, key, name, record: {key: (record[name] or [None])[0]},
    "first_char": lambda _, key, name, record: {key: str(record[name] or "")[:1].lower()},
    "contacts": lambda _, key, name, record: {key: _contacts(record.get(name))},
    "primary": lambda _, key, name, record: {
        key: next((each["value"] for each in record[name] or () if each.get("primary")), None)
    },
    "picture": lambda _, key, name, record: {key: _picture(record, record[name])},
    "address": lambda _, key, name, record: _spread(key, record[name], _ADDRESS),
    "filled_address": lambda _, key, name, record: _spread(key, record[name], _ADDRESS, ""),
    "money": lambda _, key, name, record: {key: _money(record[name], record["currency"])},
    "weighted": lambda shaper, key, _, record: {key: shaper.weighted(record)},
    "weighted_money": lambda shaper, key, _, record: {key: _money(shaper.weighted(record), record["currency"])},
    "person_hidden": lambda shaper, key, name, record: {key: shaper.is_hidden("person", record[name])},
    "organization_hidden": lambda shaper, key, name, record: {key: shaper.is_hidden("organization", record[name])},
    "null": lambda _, key, _name, _record: {key: None},  # where v1 had a value that v2 does not tell
    "company": lambda shaper, key, _name, _record: {key: shaper.company()},
}
