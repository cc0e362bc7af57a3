"""Turns the inputs of an action into a request of today: one strategy an input, named by its `how`.

A strategy sets a parameter, adds a condition on the records that come, or notes what else is to be read. What depends
on several inputs, or on one that is missing, is settled when all of them are known.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from pdsync.core import catalogue
from pdsync.core.actions import Action, ActionInput, How, inputs_of, is_true
from pdsync.errors import ConfigError
from pdsync.runner.actions.v1_records import V1Records, key_of_today

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pdsync.core.actions import Given
    from pdsync.model import Operation
    from pdsync.runner.actions.caller import Caller

    Condition = Callable[[dict[str, Any]], bool]
    Strategy = Callable[["Prepared", str, ActionInput, Any], Awaitable[None] | None]

_DEFAULT_ROWS = 100  # a page, where no limit is given: what Pipedrive serves then
_ENTITIES = {"deal", "person", "product", "activity", "lead", "project"}
_CODE = re.compile(r"[0-9a-f]{40}")
_OLD_TIME = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)")


class Prepared:
    """An action with its inputs: the operation's parameters, and what happens to the records that come."""

    def __init__(self, action: Action, caller: Caller) -> None:
        self.action, self.caller = action, caller
        self.params: dict[str, object] = {}
        self.conditions: list[Condition] = []
        self.sort: list[tuple[str, bool]] = []  # key of a record, and whether the largest come first
        self.start, self.limit = 0, _DEFAULT_ROWS
        self.fetches_all = action.kind == "picklist" or "limit" not in action.inputs
        self.v1: V1Records | None = None  # gives the records the keys of v1
        self.wants: dict[How, Any] = {}  # strategies that act when all inputs are known, with what was given

    @property
    def operation(self) -> Operation:
        """The operation of today."""
        if self.action.called is None:
            raise ConfigError(f"{self.action.key} has no operation of its own. Nothing was called.")
        return self.action.called

    def refuse(self, name: str, why: str) -> ConfigError:
        """The error that refuses an input."""
        return ConfigError(f"{self.action.key}: {name} can't be honoured. {why}\nNothing was called.")


async def prepare(action: Action, given: Given, caller: Caller, *, as_today: bool = False) -> Prepared:
    """Apply every input of `action`.

    Args:
        action: the action.
        given: its inputs.
        caller: looks up what an input needs.
        as_today: show records as today's operation has them, and not with the keys of v1.

    Raises:
        ConfigError: one can't be honoured, or does not fit; says why, and what to use. Nothing was changed.
        PdsyncError: what was to be looked up could not be read.
    """
    made = Prepared(action, caller)
    inputs = inputs_of(action)
    for name, value in given.inputs.items():
        outcome = STRATEGIES[inputs[name].how](made, name, inputs[name], value)
        if outcome is not None:
            await outcome
    made.params |= given.parameters
    if "limit" in given.parameters:
        made.limit, made.fetches_all = int(str(made.params.pop("limit"))), False
    if not as_today and action.kind != "picklist":
        made.v1 = V1Records.of(caller, made.operation)
        if made.v1 and made.v1.include:
            made.params.setdefault("include_fields", made.v1.include)
    for how in dict.fromkeys(each.how for each in inputs.values()):
        if how in _AFTERWARDS:
            await _AFTERWARDS[how](made)
    return made


# Parameters.


def _parameter(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    made.params[each.to or name] = value


def _flag(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    made.params[each.to or name] = int(is_true(made.action, name, value))


def _time(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    old = _OLD_TIME.fullmatch(str(value))
    made.params[each.to or name] = f"{old[1]}T{old[2]}Z" if old else value


def _status_filter(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    if value != "all_not_deleted":
        made.params[each.to or name] = value


def _deal_status(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    if value == "deleted":
        raise made.refuse(name, "Pipedrive deletes a deal no more by its status: use deleteDeal.")
    made.params[each.to or name] = value


def _owner_over_filter(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    made.wants["owner_over_filter"] = value
    made.params[each.to or name] = value


def _note(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    made.wants[each.how] = value


def _noted_flag(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    if is_true(made.action, name, value):
        made.wants[each.how] = True


def _contacts(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    items = _list_of(made, name, value)
    contacts = [item if isinstance(item, dict) else {"value": str(item)} for item in items]
    if not any(contact.get("primary") for contact in contacts):
        contacts = [{**contact, "primary": index == 0} for index, contact in enumerate(contacts)]
    made.params[each.to or name] = [{"label": "work", **contact} for contact in contacts]


def _prices(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    prices = [dict(item) if isinstance(item, dict) else {"price": item} for item in _list_of(made, name, value)]
    made.params[each.to or name] = [
        {"direct_cost" if key == "overhead_cost" else key: part for key, part in price.items()} for price in prices
    ]


# Conditions on the records that come.


def _one_of(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    wanted, key = set(_texts(value)), each.to or name
    made.conditions.append(lambda record: str(record.get(key)) in wanted)


def _not_in(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    unwanted, key = set(_texts(value)), each.to or name
    made.conditions.append(lambda record: str(record.get(key)) not in unwanted)


def _from_date(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    first, key = _date(made, name, value), each.to or name
    made.conditions.append(lambda record: (record.get(key) or "") >= first)


def _until_date(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    last, key = _date(made, name, value), each.to or name
    made.conditions.append(lambda record: "" < (record.get(key) or "")[:10] <= last)


def _first_char(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    first, key = str(value).casefold(), each.to or name
    made.conditions.append(lambda record: str(record.get(key) or "").casefold().startswith(first))


def _sort(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    """Sorted by Pipedrive where it can, else here, when all records have come."""
    for term in _texts(value):
        key, _, direction = term.partition(" ")
        if direction.strip().lower() not in ("", "asc", "desc"):
            raise ConfigError(f"{made.action.key}: {name} is {value!r}. Write it like: title ASC, id DESC.")
        made.sort.append((key_of_today(made.operation, key), direction.strip().lower() == "desc"))
    sortable = made.operation.query["sort_by"].enum if "sort_by" in made.operation.query else ()
    if len(made.sort) == 1 and made.sort[0][0] in sortable:
        ((key, descending),) = made.sort
        made.params |= {"sort_by": key, "sort_direction": "desc" if descending else "asc"}
        made.sort = []


# Further requests.


async def _owned_by_you(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    if is_true(made.action, name, value):
        made.params[each.to or name] = (await made.caller.account()).id


async def _field(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    noun = re.sub(r"^(get|delete)", "", made.operation.id)
    made.params[each.to or name] = await _field_code(made, name, noun, str(value).strip())


async def _field_code(made: Prepared, name: str, noun: str, text: str) -> str:
    """The code of a field that is called by its number, its code or its label."""
    if text.isdigit():
        answer = await made.caller.ask(catalogue.operation(f"v1 get{noun}"), {"id": text})
        return str(answer["data"]["key"])
    if _CODE.fullmatch(text):
        return text
    fields = [field async for field in made.caller.walk(catalogue.operation(f"v2 get{noun}s"), {})]
    codes = [field["field_code"] for field in fields if text == field["field_code"]] or [
        field["field_code"] for field in fields if text.casefold() == str(field["field_name"]).casefold()
    ]
    if len(codes) != 1:
        why = f"{len(codes)} fields are called so: give the code" if codes else "no field has this code or label"
        raise ConfigError(f"{made.action.key}: {name} is {text!r}, and {why}. Nothing was changed.")
    return str(codes[0])


async def _money(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    """An amount alone is in the company's currency."""
    given = _json(value)
    if not isinstance(given, dict):
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise ConfigError(
                f"{made.action.key}: {name} is {value!r}, and should be an amount,"
                ' or {"amount": 5, "currency": "EUR"}. Nothing was queued.'
            )
        given = {"amount": given, "currency": (await made.caller.account()).default_currency}
    made.params[each.to or name] = given


# Paging.


def _limit(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    made.limit = _whole(made, name, value)
    if made.limit < 1:
        raise ConfigError(f"{made.action.key}: {name} is {value!r}, and should be 1 or more. Nothing was called.")


def _start(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    made.start = _whole(made, name, value)


def _fetch_all(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    made.fetches_all = made.fetches_all or is_true(made.action, name, value)


def _nothing(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    """Settled elsewhere: the log of requests, the inputs of a raw request."""


def _refused(made: Prepared, name: str, each: ActionInput, value: Any) -> None:
    if str(value).lower() not in each.accepts:
        raise made.refuse(name, each.reason or "")


STRATEGIES: dict[How, Strategy] = {
    "parameter": _parameter, "flag": _flag, "time": _time, "status_filter": _status_filter,
    "deal_status": _deal_status, "everyone": _noted_flag, "owner_over_filter": _owner_over_filter,
    "contacts": _contacts, "prices": _prices, "entity_type": _note, "entity_id": _note, "file": _note,
    "file_name": _note, "custom_field": _note, "custom_value": _note,
    "one_of": _one_of, "not_in": _not_in, "from_date": _from_date, "until_date": _until_date,
    "first_char": _first_char, "sort": _sort,
    "owner_or_me": _note, "owned_by_you": _owned_by_you, "field": _field, "product_data": _noted_flag,
    "deals_summary": _noted_flag, "product_count": _noted_flag, "archived": _note, "related_deals": _noted_flag,
    "money": _money, "item_price": _parameter,
    "limit": _limit, "start": _start, "fetch_all": _fetch_all,
    "debug": _nothing, "raw": _nothing, "refused": _refused, "removed": _refused,
}  # fmt: skip


# What several inputs decide, or one that is missing.


async def _everyone(made: Prepared) -> None:
    if "everyone" in made.wants:
        made.params.pop("filter_id", None)
        made.params.pop("owner_id", None)


async def _drop_filter(made: Prepared) -> None:
    if "owner_over_filter" in made.wants:
        made.params.pop("filter_id", None)


async def _owner_or_me(made: Prepared) -> None:
    """Without a user the token's own records, with 0 everyone's."""
    user = str(made.wants.get("owner_or_me", ""))
    if "owner_id" not in made.params and user != "0":
        made.params["owner_id"] = user or (await made.caller.account()).id


async def _item_price(made: Prepared) -> None:
    """Without a price that of the product, in the currency of the deal."""
    if "item_price" in made.params or not {"id", "product_id"} <= made.params.keys():
        return
    deal = (await made.caller.ask(catalogue.operation("v2 getDeal"), {"id": made.params["id"]}))["data"]
    product = (await made.caller.ask(catalogue.operation("v2 getProduct"), {"id": made.params["product_id"]}))["data"]
    prices = [price["price"] for price in product["prices"] if price["currency"] == deal["currency"]]
    if not prices:
        raise ConfigError(
            f"{made.action.key} needs itemPrice: {product['name']} has no price in {deal['currency']}."
            " Nothing was changed."
        )
    made.params["item_price"] = prices[0]


async def _custom_field(made: Prepared) -> None:
    code = await _field_code(made, "customFieldKey", "PersonField", str(made.wants["custom_field"]).strip())
    if _CODE.fullmatch(code):
        made.params["custom_fields"] = {code: made.wants["custom_value"]}
    else:
        made.params[code] = made.wants["custom_value"]


async def _entity(made: Prepared) -> None:
    kind = str(made.wants["entity_type"]).lower().removesuffix("_id").removesuffix("s")
    kind = {"organization": "org", "organisation": "org", "activitie": "activity"}.get(kind, kind)
    if kind not in _ENTITIES | {"org"}:
        raise ConfigError(
            f"{made.action.key}: entityType is {made.wants['entity_type']!r}, and may be {', '.join(sorted(_ENTITIES))}"
            " or organization. Nothing was called."
        )
    made.params[f"{kind}_id"] = made.wants["entity_id"]


_AFTERWARDS: dict[How, Callable[[Prepared], Awaitable[None]]] = {
    "everyone": _everyone, "owner_over_filter": _drop_filter, "owner_or_me": _owner_or_me, "item_price": _item_price,
    "custom_field": _custom_field, "entity_type": _entity,
}  # fmt: skip


# Values.


def _texts(value: Any) -> list[str]:
    items = value if isinstance(value, list | tuple) else str(value).strip("[] ").split(",")
    return [str(item).strip() for item in items if str(item).strip()]


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return value


def _list_of(made: Prepared, name: str, value: Any) -> list[Any]:
    given = _json(value) if not isinstance(value, str) or value.lstrip()[:1] in ("[", "{") else value
    return given if isinstance(given, list) else [given]


def _date(made: Prepared, name: str, value: Any) -> str:
    text = str(value)[:10]
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        raise ConfigError(f"{made.action.key}: {name} is {value!r}, and should be a date, like 2026-03-31.")
    return text


def _whole(made: Prepared, name: str, value: Any) -> int:
    text = str(value).strip()
    if not text.isdigit():
        raise ConfigError(f"{made.action.key}: {name} is {value!r}, and should be a whole number. Nothing was called.")
    return int(text)
