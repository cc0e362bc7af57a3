"""Reads the entries of schemas/actions: the component's 149 actions, and where each of their inputs goes.

One table an action. An entry says only what differs from these rules:

- An input is a string, is not required and becomes the parameter `to` of the action's operation.
- `how` names a strategy of `runner.actions`; `HONOURED` says what each strategy amounts to.
- An input that can't be honoured is `refused`, with the `reason` and what to use; values in `accepts` change nothing.
- Every action takes `debugRequest`, and every list `fetchAll`.

An input is given by the component's name (`filterId`), in snake_case (`filter_id`) or by its name in the API
(`owner_id`); parameters of the operation that the component does not know are given by their API names.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, structs

from pdsync.core import catalogue
from pdsync.errors import CatalogueError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pdsync.model import Operation

Kind = Literal[
    "picklist", "read_list", "read_one", "search", "download", "raw", "add", "update", "delete", "merge", "upload"
]
Honoured = Literal["parameter", "here", "requests", "paging", "client", "refused"]
How = Literal[
    "parameter", "flag", "time", "status_filter", "deal_status", "everyone", "owner_over_filter", "contacts", "prices",
    "entity_type", "entity_id", "file", "file_name", "custom_value",
    "one_of", "not_in", "from_date", "until_date", "first_char", "sort",
    "owner_or_me", "owned_by_you", "field", "product_data", "deals_summary", "product_count", "archived",
    "related_deals", "money", "item_price", "custom_field",
    "limit", "start", "fetch_all",
    "debug", "raw",
    "refused", "removed",
]  # fmt: skip
HONOURED: dict[How, Honoured] = {
    **dict.fromkeys(("one_of", "not_in", "from_date", "until_date", "first_char", "sort"), "here"),
    **dict.fromkeys(
        ("owner_or_me", "owned_by_you", "field", "product_data", "deals_summary", "product_count", "archived",
         "related_deals", "money", "item_price", "custom_field"),
        "requests",
    ),
    **dict.fromkeys(("limit", "start", "fetch_all"), "paging"),
    **dict.fromkeys(("debug", "raw"), "client"),
    **dict.fromkeys(("refused", "removed"), "refused"),
}  # fmt: skip
EXPLAINED: dict[How, str] = {
    "flag": "parameter, as 1 or 0",
    "time": "parameter; a time without a zone is UTC",
    "status_filter": "parameter; `all_not_deleted` is what Pipedrive lists anyway",
    "deal_status": "parameter; `deleted` is refused: use deleteDeal",
    "everyone": "leaves `filterId` and `userId` out",
    "owner_over_filter": "parameter; `filterId` is then left out",
    "contacts": "parameter; one text becomes a primary entry",
    "prices": "parameter; `overhead_cost` becomes `direct_cost`",
    "entity_type": "chooses the parameter: `deal_id`, `person_id`, `org_id` …",
    "entity_id": "the value of that parameter",
    "file": "streamed from the file",
    "file_name": "the name in the upload",
    "custom_value": "the value in `custom_fields`",
    "one_of": "compared here",
    "not_in": "left out here",
    "from_date": "compared here",
    "until_date": "compared here",
    "first_char": "compared here, whatever the case",
    "sort": "by Pipedrive where its `sort_by` knows the field, else here, when all records have come",
    "owner_or_me": "parameter; without it the token's own user, who is read first",
    "owned_by_you": "parameter, after asking whose token it is",
    "field": "looked up: by number in v1, by label in the list of fields",
    "custom_field": "a label is looked up in the list of fields",
    "product_data": "one further request for each 100 lines",
    "deals_summary": "counted here over all pages",
    "product_count": "counted here over all pages",
    "archived": "archived leads have a list of their own",
    "related_deals": "without it also the deals of its persons, and those that name it in a custom field",
    "money": "an amount alone is in the company's currency, which is read first",
    "item_price": "parameter; without it the product's price in the deal's currency",
    "limit": "counted over the records that match",
    "start": "counted over the records that match",
    "fetch_all": "follows the pages",
    "debug": "to stderr, or to the log `pdsync`",
    "raw": "part of the request",
}
LISTS = ("read_list", "search")
QUEUED = ("add", "update", "delete", "merge", "upload")
DEBUG, ALL = "debugRequest", "fetchAll"


class ActionInput(Struct, frozen=True, forbid_unknown_fields=True):
    """One input of an action."""

    meaning: str
    type: Literal["string", "boolean", "data", "pairs"] = "string"
    required: bool = False
    default: str | None = None
    how: How = "parameter"
    to: str | None = None  # the operation's parameter, or the key of a record that a condition looks at
    reason: str | None = None  # of a refusal: why, and what to use
    accepts: tuple[str, ...] = ()  # of a refusal: values that ask for what happens anyway

    @property
    def honoured(self) -> Honoured:
        """How the input is honoured, in one of six words."""
        return HONOURED.get(self.how, "parameter")

    @property
    def explained(self) -> str:
        """How the input is honoured, for people."""
        if self.honoured == "refused":
            return f"refused: {self.reason}" if self.reason else "removed by Pipedrive"
        place = f"`{self.to}`: " if self.to else ""
        return f"parameter `{self.to}`" if self.how == "parameter" else f"{place}{EXPLAINED[self.how]}"


class Replacement(Struct, frozen=True, forbid_unknown_fields=True):
    """The list of today that gives what a removed action gave."""

    title: str
    operation: str
    inputs: dict[str, ActionInput] = {}


class Action(Struct, frozen=True, forbid_unknown_fields=True):
    """One action of the component."""

    key: str
    title: str
    kind: Kind
    operation: str | None = None  # today's, "v2 getDeals"; None: a raw request
    label: tuple[str, ...] = ()  # of a picklist: the keys of a record that make the label
    removed: str | None = None  # why Pipedrive no longer does it, and what to use: `ended` of the operation
    replacement: Replacement | None = None  # of what was removed, where something gives the same
    inputs: dict[str, ActionInput] = {}

    @property
    def called(self) -> Operation | None:
        """The operation of today."""
        return catalogue.operation(self.operation) if self.operation else None

    @property
    def is_queued(self) -> bool:
        """Whether it changes data, so that it goes through the queue."""
        return self.kind in QUEUED


class Given(Struct, frozen=True):
    """What an action is given: inputs by the component's names, and further parameters of its operation."""

    inputs: dict[str, object]
    parameters: dict[str, object]


COMMON = {
    DEBUG: ActionInput("log each request, with the secret redacted", "boolean", default="false", how="debug"),
    ALL: ActionInput("follow the pages to the end", "boolean", default="false", how="fetch_all"),
}


@cache
def actions() -> dict[str, Action]:
    """All actions by their keys, in alphabetical order. The dict is shared: leave it as it is.

    Raises:
        CatalogueError: an entry can't be understood; says the file, the table, the key and a guess.
    """
    found: dict[str, Action] = {}
    for file, tables in catalogue.files("actions"):
        for key, entry in tables.items():
            if key in found:
                raise CatalogueError(f"{file} [{key}]: there is an action of that name already.")
            found[key] = read_action(key, entry, f"{file} [{key}]")
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def read_action(key: str, entry: object, where: str) -> Action:
    """The action of one table.

    Raises:
        CatalogueError: an unknown key, operation or parameter, or a refusal without a reason.
    """
    if not isinstance(entry, dict):
        raise CatalogueError(f"{where}: expected a table, got `{entry!r}`.")
    inputs = _read_inputs(entry, where)
    instead = entry.get("replacement")
    if instead is not None:
        instead_of = {**instead, "kind": "read_list"}
        found = read_action(key, instead_of, f"{where} replacement")
        instead = Replacement(found.title, found.operation or "", found.inputs)
    if "removed" in entry:
        raise CatalogueError(f"{where}: leave out 'removed'; the operation's entry says it (`ended`).")
    action = catalogue.read({**entry, "inputs": {}, "replacement": None, "key": key}, Action, where)
    operation = action.called
    parameters = _parameters(operation)
    for name, each in inputs.items():
        if each.how == "refused" and not each.reason:
            raise CatalogueError(f"{where} inputs.{name}: a refusal says why, and what to use: add `reason`.")
        if each.to and each.honoured not in ("here", "refused") and each.to not in parameters:
            raise CatalogueError(
                f"{where} inputs.{name}: {action.operation} has no parameter {each.to!r}.{_guess(each.to, parameters)}"
            )
    removed = operation.ended if operation else None
    return structs.replace(action, inputs=inputs, replacement=instead, removed=removed)


def _read_inputs(entry: dict[str, Any], where: str) -> dict[str, ActionInput]:
    # One at a time, because msgspec names the key it stumbles over, and not the input that holds the key.
    return {
        name: catalogue.read(each, ActionInput, f"{where} inputs.{name}")
        for name, each in entry.get("inputs", {}).items()
    }


def replacement_of(action: Action) -> Action:
    """What gives today what `action` gave before it was removed.

    Raises:
        ConfigError: it is not removed, or nothing gives the same. Nothing was called.
    """
    if instead := action.replacement:
        return Action(action.key, instead.title, "read_list", instead.operation, inputs=instead.inputs)
    why = action.removed or "Pipedrive still does it: leave --replacement out."
    raise ConfigError(f"{action.key} has no replacement that gives the same. {why}\nNothing was called.")


def action(key: str) -> Action:
    """The action called `key`, also in snake_case.

    Raises:
        ConfigError: there is none; says which come near.
    """
    if key in actions():
        return actions()[key]
    spelt = {snake(each): each for each in actions()} | {each.lower(): each for each in actions()}
    if key.lower() in spelt:
        return actions()[spelt[key.lower()]]
    if any(key in catalogue.operations(version) for version in catalogue.VERSIONS):
        raise ConfigError(
            f"{key} is no action of the component, but an operation: pdsync api {key}\nNothing was called."
        )
    raise ConfigError(
        f"There is no action {key!r}.{_guess(key, actions())}\nNothing was called. `pdsync actions` lists all of them."
    )


def read_inputs(action: Action, given: Mapping[str, object]) -> Given:
    """What `action` is given, by the component's names; defaults where an input is missing, empty or null.

    Raises:
        ConfigError: an unknown name, one given twice, or a required one that is missing; or Pipedrive removed what the
            action does: says what replaced it. Nothing was called.
    """
    if action.removed:
        instead = " --replacement reads these." if action.replacement else ""
        raise ConfigError(f"{action.key}: {action.removed}{instead}\nNothing was called.")
    inputs = inputs_of(action)
    parameters = _parameters(action.called)
    spelt = _spellings(inputs)
    found: dict[str, object] = {}
    further: dict[str, object] = {}
    for name, value in given.items():
        known = spelt.get(name)
        if known is None:
            parameter = _parameter(action, name, parameters, inputs)
            if parameter in further:
                raise _given_twice(action, parameter)
            further[parameter] = value
            continue
        if known in found:
            raise _given_twice(action, known)
        if value is not None and value != "":
            found[known] = value
    set_by_inputs = {inputs[name].to for name in found if inputs[name].how == "sort"}
    if twice := next((each for each in further if spelt.get(each) in found or each in set_by_inputs), None):
        raise _given_twice(action, twice)  # as an input, and as the parameter that this sets
    defaults = {name: each.default for name, each in inputs.items() if each.default is not None and name not in found}
    if missing := [
        name for name, each in inputs.items()
        if each.required and name not in found and name not in defaults
    ]:  # fmt: skip
        wanted = "; ".join(f"{name}: {inputs[name].meaning}" for name in missing)
        raise ConfigError(f"{action.key} needs {' and '.join(missing)} ({wanted}).\nNothing was called.")
    ordered = {name: found.get(name, defaults.get(name)) for name in inputs if name in found or name in defaults}
    return Given(ordered, further)


def _given_twice(action: Action, name: str) -> ConfigError:
    return ConfigError(f"{action.key}: {name} is given twice. Nothing was called.")


def inputs_of(action: Action) -> dict[str, ActionInput]:
    """Its own inputs, and those that every action of its kind takes."""
    operation = action.called
    common = dict(COMMON)
    if action.kind not in LISTS or operation is None or operation.paging == "none":
        del common[ALL]
    return {**common, **action.inputs}


def hint_for(operation: Operation, name: str) -> str | None:
    """What became of a parameter that an older version of `operation` took; None where no action knows the name."""
    by_use = [each for each in actions().values() if each.operation == operation.name and not each.removed]
    for each in sorted(by_use, key=lambda action: action.key != operation.id):
        known = next((one for key, one in each.inputs.items() if name in (key, snake(key))), None)
        if known is None or (known.to == "id" and name == "id"):
            continue
        if known.how == "refused":
            return f" {known.reason}"
        if known.to and known.to != name and (known.honoured == "parameter" or known.how == "owner_or_me"):
            return f" Did you mean {known.to!r}?"
        return f" `pdsync action {each.key}` takes it."
    return None


def snake(name: str) -> str:
    """`filterId` as `filter_id`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z]+)", r"_\1", name).lower()


def is_true(action: Action, name: str, value: object) -> bool:
    """A flag as the component writes it: true, false, 1 or 0.

    Raises:
        ConfigError: it is something else.
    """
    text = str(value).strip().lower()
    if text not in ("true", "false", "1", "0"):
        raise ConfigError(f"{action.key}: {name} is {value!r}, and should be true or false. Nothing was called.")
    return text in ("true", "1")


def _spellings(inputs: Mapping[str, ActionInput]) -> dict[str, str]:
    """Every way to write an input's name → the component's; a name of the component wins over one of the API."""
    by_parameter = {
        each.to: name
        for name, each in inputs.items()
        if each.to and each.honoured != "here" and each.how != "owned_by_you"
    }
    return by_parameter | {snake(name): name for name in inputs} | {name: name for name in inputs}


def _parameters(operation: Operation | None) -> set[str]:
    return {*operation.path_params, *operation.query, *operation.body} if operation else set()


def _parameter(action: Action, name: str, parameters: set[str], inputs: Mapping[str, ActionInput]) -> str:
    """The parameter of the operation that `name` means."""
    operation = action.called
    if name in parameters or (operation and operation.custom_fields and re.match(r"[0-9a-f]{40}", name)):
        return name
    if snake(name) in parameters:
        return snake(name)
    takes = f"It takes {', '.join(inputs)}."
    raise ConfigError(f"{action.key} has no input {name!r}.{_guess(name, inputs)}\nNothing was called. {takes}")


def _guess(word: str, words: Iterable[str]) -> str:
    spelt = {each.lower(): each for each in words}
    near = [spelt[each] for each in difflib.get_close_matches(word.lower(), spelt, n=1)]
    return f" Did you mean {near[0]!r}?" if near else ""
