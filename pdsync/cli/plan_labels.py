"""Plain words for a plan: the labels of fields instead of their names in the API, and what a group of steps does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pdsync.core import catalogue
from pdsync.core.wording import counted
from pdsync.writeback.record_names import referenced_stream
from pdsync.writeback.shapes import find_stream

if TYPE_CHECKING:
    from pdsync.writeback.company_names import CompanyNames
    from pdsync.writeback.plan import Step

_API_NAME = re.compile(r"\b[a-z]+(?:_[a-z0-9]+)+\b(?!=)")
_TARGET = re.compile(r"\b([a-z][A-Za-z]+)/([0-9]+|[0-9a-f]{8}-[0-9a-f-]{27})\b")
_WITH_ID = re.compile(r"(.+) \(([0-9]+|[0-9a-f]{8}-[0-9a-f-]{27})\)", re.DOTALL)
_WORDS = {"org": "organization", "rel": "related"}
_VERBS = {"update": "Change", "add": "Add", "delete": "Delete"}
_ORDER = ("merge", "delete", "update", "add", "other")


class PlanLabels:
    """The labels of one company's fields.

    Args:
        names: of the company; None: the names of the API are made readable.
    """

    def __init__(self, names: CompanyNames | None) -> None:
        self._names = names
        self._labels: dict[tuple[str, str], str] = {}

    def field(self, step: Step, field: str) -> str:
        """The label of a field as a plan names it; a custom field's label stays as it is."""
        if (step.operation, field) not in self._labels:
            self._labels[step.operation, field] = self._find(step, field)
        return self._labels[step.operation, field]

    def text(self, step: Step, text: str) -> str:
        """A message about a step, with the labels of the fields and the words for the records that it names."""
        labeled = _API_NAME.sub(lambda found: self.field(step, found[0]), text)
        return _TARGET.sub(lambda found: f"{record_name(found[1])} {found[2]}", labeled)

    def values(self, step: Step, field: str, before: str, after: str) -> tuple[str, str]:
        """Two values of a field; names of records without their ids, unless only those differ."""
        matches = _WITH_ID.fullmatch(before), _WITH_ID.fullmatch(after)
        names = [found[1] if found else text for found, text in zip(matches, (before, after), strict=True)]
        is_reference = field in _params(step) and referenced_stream(field, find_stream(step.kind))
        return (names[0], names[1]) if is_reference and names[0] != names[1] else (before, after)

    def _find(self, step: Step, field: str) -> str:
        if field not in _params(step):
            return field
        label = self._names.built_in_label(find_stream(step.kind), field) if self._names else None
        return label or readable(field)


def _params(step: Step) -> set[str]:
    """The built-in fields that a step's operation takes, and those of its records."""
    operation, stream = catalogue.operation(step.operation), find_stream(step.kind)
    return {*operation.path_params, *operation.query, *operation.body, *(stream.columns if stream else ())}


def readable(name: str) -> str:
    """A name of the API in plain words: `expected_close_date` is `Expected close date`, `org_id` is `Organization`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().replace("-", "_").split("_")
    if len(words) > 1 and words[-1] in ("id", "ids"):
        words.pop()
    return " ".join(_WORDS.get(word, word) for word in words).capitalize()


def record_name(kind: str) -> str:
    """What one record of a kind is called: `deals/followers` is `deal follower`, `callLogs` is `call log`."""
    return " ".join(_singular(readable(part).lower()) for part in kind.split("/"))


def _singular(noun: str) -> str:
    return f"{noun[:-3]}y" if noun.endswith("ies") else noun.removesuffix("s")


def target_name(target: str) -> str:
    """What the record of a target is called: `deals/7` is `deal 7`, `deals/7/products/3` is `deal 7, product 3`."""
    parts = target.split("/")
    pairs = [parts[index : index + 2] for index in range(0, len(parts), 2)]
    return ", ".join(
        f"{record_name(pair[0])} {pair[1]}" if len(pair) == 2 else readable(pair[0]).lower() for pair in pairs
    )


def group(step: Step) -> tuple[int, str, str]:
    """What steps are grouped by, in the order of the groups: merges, deletions, changes, additions, others."""
    verb = "delete" if step.deletes else step.verb
    return _ORDER.index(verb), step.kind, "" if verb in _VERBS or verb == "merge" else step.operation.split(" ")[-1]


def title(steps: list[Step]) -> str:
    """The title of a group of steps: `Change 40 deals`."""
    step = steps[0]
    verb, noun = _ORDER[group(step)[0]], record_name(step.kind)
    if verb == "merge":
        return f"Merge {counted(len(steps), noun)} into {'another' if len(steps) == 1 else 'others'}"
    if verb == "other":
        return f"{readable(step.operation.split(' ')[-1])} ({len(steps):,})"
    count = sum(max(each.records, 1) for each in steps) if verb == "delete" else len(steps)
    return f"{_VERBS[verb]} {counted(count, noun)}"
