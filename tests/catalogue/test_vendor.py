"""The catalogue agrees with the vendor's documents: no operation or parameter is missing or invented.

Each fact of an operation is compared with the fingerprints of the documents (tests/vendor/). An intended difference
is listed in EXPLAINED with its reason, and must be removed from it when it disappears.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue
from tests.vendor import stored
from tests.vendor.facts import compact

if TYPE_CHECKING:
    from pdsync.model import Operation, Param
    from tests.vendor.facts import Facts

EXPLAINED: dict[tuple[str, str], str] = {
    ("v1 refresh-tokens", "path"): "with a slash at the end the server redirects, and clients turn the POST into a GET",
    ("v1 get-tokens", "header Authorization"): "client id and secret: core.auth sends them, never a caller",
    ("v1 refresh-tokens", "header Authorization"): "client id and secret: core.auth sends them, never a caller",
    ("v1 addUser", "body access default"): "a list of objects, and the server fills it in itself",
}


def test_the_catalogue_agrees_with_the_vendors_documents() -> None:
    ours, theirs = our_facts(), stored("operations")

    differences = {
        (name, fact): (ours.get(name, {}).get(fact), theirs.get(name, {}).get(fact))
        for name in ours | theirs
        for fact in ours.get(name, {}) | theirs.get(name, {})
        if ours.get(name, {}).get(fact) != theirs.get(name, {}).get(fact)
    }

    unexplained = {key: values for key, values in differences.items() if key not in EXPLAINED}
    assert not unexplained, "\n".join(
        f"{key}: ours {ours!r}, theirs {theirs!r}" for key, (ours, theirs) in unexplained.items()
    )
    assert not EXPLAINED.keys() - differences.keys(), "explained, but there is no difference"


def test_all_operations_and_their_replacements_are_in_the_catalogue() -> None:
    listed = stored("listed")
    ours = {
        operation.name: operation
        for version in catalogue.VERSIONS
        for operation in catalogue.operations(version).values()
    }

    assert ours.keys() == listed.keys()
    assert {name: operation.replaced_by for name, operation in ours.items()} == {
        name: entry["replaced_by"] and entry["replaced_by"].replace(".", " ") for name, entry in listed.items()
    }
    documented = {name for name, entry in listed.items() if entry["in_current_spec"]}
    assert {name for name, each in ours.items() if each.removed and not each.ended} == {
        name for name in ours.keys() - documented if not ours[name].ended
    }
    # Still in the documents, as deprecated; the changelog says that they answer until 2026-02-01.
    assert {ours[name].tag for name in documented if ours[name].ended} == {"Channels"}


@pytest.mark.parametrize("version", catalogue.VERSIONS)
def test_files_are_named_for_the_vendors_tags(version: str) -> None:
    tags = {entry["tag"] for name, entry in stored("listed").items() if name.startswith(version)}
    names = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", tag).lower() for tag in tags}
    assert {path.stem for path in (catalogue.schemas() / "operations" / version).glob("*.toml")} == names


NO_OPERATION = {"rawRequest": "any method and path; `pdsync api --request` sends it, and it has no entry of its own"}


def test_every_action_of_the_seed_has_an_operation_that_does_it_today() -> None:
    """The action's operation while the API has it, else its replacement; some have none."""
    actions = stored("actions")
    assert len(actions) == 149
    without_replacement, unmapped = set(), set()
    for key, action in actions.items():
        named = [catalogue.operation(f"{version}:{id}") for version, id in action["maps_to"].items() if id]
        current = [operation for operation in named if not operation.removed]
        current += [catalogue.operation(operation.replaced_by) for operation in named if operation.replaced_by]
        if not named:
            unmapped.add(key)
        elif not current:
            without_replacement |= {operation.tag for operation in named}
    assert unmapped == NO_OPERATION.keys()
    assert without_replacement == {"Subscriptions", "Channels"}  # ended without a replacement


# The catalogue in the form of the fingerprints


def our_facts() -> Facts:
    return {
        operation.name: compact(_facts_of(operation))
        for version in catalogue.VERSIONS
        for operation in catalogue.operations(version).values()
    }


def _facts_of(operation: Operation) -> dict[str, object]:
    facts: dict[str, object] = {
        "method": operation.method,
        "path": f"https://{operation.host}{operation.path}" if operation.host else operation.path,
        "tag": operation.tag,
        "cost": operation.cost,
        "deprecated": operation.deprecated,
        "paging": operation.paging,
        "page_size": operation.page_size,
        "scopes": sorted(operation.scopes),
        "binary": operation.binary,
        "content": operation.content,
        "body_required": operation.body_required,
        "body_list": operation.body_list,
    }
    for group, params in (("path", operation.path_params), ("query", operation.query), ("body", operation.body)):
        for name, param in params.items():
            facts |= _facts_of_param(f"{group} {name}", param)
    return facts


def _facts_of_param(name: str, param: Param) -> dict[str, object]:
    return {
        name: param.type,
        f"{name} required": param.required,
        f"{name} enum": sorted(param.enum, key=str),
        f"{name} default": param.default,
        f"{name} many": param.many,
        f"{name} max": param.max,
    }
