"""The catalogue says what the vendor's own documents say: nothing is missing, and nothing is invented.

Each fact of an operation is compared with the two OpenAPI files, and where an operation is no longer in them, with
operations.json. A difference that is meant stands in EXPLAINED with its reason, and has to go when it is gone.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue

if TYPE_CHECKING:
    from pdsync.model import Operation, Param

SHARED = Path(__file__).parents[3] / "shared" / "api"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the vendor's documents (../shared/api) are not here")

Facts = dict[str, dict[str, object]]  # operation → fact → value

EXPLAINED: dict[tuple[str, str], str] = {
    ("v1 refresh-tokens", "path"): "with a slash at the end the server redirects, and clients turn the POST into a GET",
    ("v1 get-tokens", "header Authorization"): "client id and secret: core.auth sends them, never a caller",
    ("v1 refresh-tokens", "header Authorization"): "client id and secret: core.auth sends them, never a caller",
    ("v1 addUser", "body access default"): "a list of objects, which the server fills in just as well",
}


def test_the_catalogue_agrees_with_the_vendors_documents() -> None:
    ours, theirs = our_facts(), their_facts()

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
    assert not EXPLAINED.keys() - differences.keys(), "explained, and yet the same"


def test_both_know_all_operations_and_what_replaced_the_old_ones() -> None:
    listed = {f"{entry['version']} {entry['operation_id']}": entry for entry in all_listed()}
    ours = {
        operation.name: operation
        for version in catalogue.VERSIONS
        for operation in catalogue.operations(version).values()
    }

    assert ours.keys() == listed.keys()
    assert {name: operation.replaced_by for name, operation in ours.items()} == {
        name: entry["replaced_by"] and entry["replaced_by"].replace(".", " ") for name, entry in listed.items()
    }
    assert {name for name, operation in ours.items() if operation.removed} == {
        name for name, entry in listed.items() if not entry["in_current_spec"]
    }


@pytest.mark.parametrize("version", catalogue.VERSIONS)
def test_files_are_named_for_the_vendors_tags(version: str) -> None:
    tags = {entry["tag"] for entry in all_listed() if entry["version"] == version}
    names = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", tag).lower() for tag in tags}
    assert {path.stem for path in (catalogue.schemas() / "operations" / version).glob("*.toml")} == names


NO_OPERATION = {"rawRequest": "any method and path; `pdsync api --request` sends it, and it has no entry of its own"}


def test_every_action_of_the_seed_has_an_operation_that_does_it_today() -> None:
    """The operation itself where it still stands, else the one that replaced it; else the vendor took it away."""
    actions = json.loads((SHARED / "seed_actions.json").read_text())
    assert len(actions) == 149
    gone, unmapped = set(), set()
    for action in actions:
        named = [catalogue.operation(f"{version}:{id}") for version, id in action["maps_to"].items() if id]
        current = [operation for operation in named if not operation.removed]
        current += [catalogue.operation(operation.replaced_by) for operation in named if operation.replaced_by]
        if not named:
            unmapped.add(action["key"])
        elif not current:
            gone |= {operation.tag for operation in named}
    assert unmapped == NO_OPERATION.keys()
    assert gone == {"Subscriptions"}  # removed on 2025-06-27, with nothing that does the same


# What the catalogue says, and what the documents say, as the same facts


def our_facts() -> Facts:
    return {
        operation.name: _facts_of(operation)
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
        "scopes": set(operation.scopes),
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
        f"{name} enum": set(param.enum),
        f"{name} default": param.default,
        f"{name} many": param.many,
        f"{name} max": param.max,
    }


def their_facts() -> Facts:
    yaml = pytest.importorskip("yaml")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the pure one takes ten times as long
    facts: Facts = {}
    for version, base in (("v1", "/v1"), ("v2", "/api/v2")):
        text = (SHARED / "openapi" / f"pipedrive-openapi-{version}.yaml").read_text()
        document = yaml.load(text, Loader=loader)
        for path, methods in document["paths"].items():
            for method, spec in methods.items():
                servers = spec.get("servers")
                full = servers[0]["url"] + path if servers else base + path
                facts[f"{version} {spec['operationId']}"] = _documented(spec, method, full)
    for entry in all_listed():
        name = f"{entry['version']} {entry['operation_id']}"
        if name not in facts:
            facts[name] = _listed(entry)
    return facts


def _documented(spec: dict[str, Any], method: str, path: str) -> dict[str, object]:
    """The facts of an operation of an OpenAPI document."""
    content = spec.get("requestBody", {}).get("content", {})
    fields, required, is_list = _body_fields(next(iter(content.values()))["schema"]) if content else ({}, set(), False)
    answers = {kind for answer in spec["responses"].values() for kind in answer.get("content", {})}
    oauth = [scope for each in spec.get("security", []) for scope in each.get("oauth2", [])]
    facts: dict[str, object] = {
        "method": method.upper(),
        "path": path,
        "tag": spec["tags"][0],
        "cost": spec["x-token-cost"],
        "deprecated": spec.get("deprecated", False),
        "scopes": set(oauth),
        "binary": "application/octet-stream" in answers,
        "content": _content(next(iter(content), None)),
        "body_required": spec.get("requestBody", {}).get("required", False),
        "body_list": is_list,
    }
    for each in spec.get("parameters", []):
        if each["in"] == "header":
            facts[f"header {each['name']}"] = each["schema"]["type"]
            continue
        facts |= _documented_param(
            f"{each['in']} {each['name']}", each["schema"], each.get("required", False), each.get("description", "")
        )
    for name, schema in fields.items():
        facts |= _documented_param(f"body {name}", schema, name in required)
    return facts | _paging(facts)


def _listed(entry: dict[str, Any]) -> dict[str, object]:
    """The facts of an operation that only operations.json still knows."""
    facts: dict[str, object] = {
        "method": entry["method"],
        "path": entry["path"],
        "tag": entry["tag"],
        "cost": entry["token_cost"],
        "deprecated": True,
        "scopes": set(entry["oauth_scopes"] or ()),
        "binary": False,
        "content": _content(entry["content_type"]),
        "body_required": entry["body_required"],
        "body_list": False,
    }
    for each in entry["params"] + [{"in": "body", **field} for field in entry["body_fields"]]:
        kind, _, inner = re.sub(r"[)>]", "", each["type"]).replace("<", "(").partition("(")
        schema = each | {"type": kind, "items": {"type": inner}, "format": None if kind == "array" else inner or None}
        facts |= _documented_param(
            f"{each['in']} {each['name']}", schema, each["required"], each.get("description", "")
        )
    return facts | _paging(facts)


def _documented_param(name: str, schema: dict[str, Any], required: bool, text: str = "") -> dict[str, object]:
    for part in schema.get("allOf", ()):
        schema = schema | part
    kind = schema.get("type", "object")
    if kind == "array":
        kind = f"array[{schema['items'].get('type', 'object')}]"
    elif kind == "string" and schema.get("format"):
        kind = "string:" + schema["format"].replace("YYYY-MM-DD", "date")
    many = name.startswith("query") and kind == "string" and bool(re.search("comma|ultiple s", text, re.IGNORECASE))
    # Where several may be given, some lists hold each combination; the single names say the same.
    enum = {value for value in schema.get("enum", ()) if not many or "," not in value}
    stated = re.search(r"(?:maximum(?: value)?(?: of)?|upper limit is|array of up to) (\d+)", text, re.IGNORECASE)
    default = schema.get("default")
    return {
        name: kind,
        f"{name} required": required,
        f"{name} enum": enum,
        # Every list starts at 0, which needs no saying.
        f"{name} default": None if name == "query start" else default,
        f"{name} many": many,
        f"{name} max": schema.get("maximum") or (int(stated[1]) if stated else None),
    }


def _body_fields(schema: dict[str, Any]) -> tuple[dict[str, Any], set[str], bool]:
    if schema.get("type") == "array":
        return *_body_fields(schema["items"])[:2], True
    fields, required = dict(schema.get("properties", {})), set(schema.get("required", ()))
    for part in schema.get("allOf", ()):
        more, needed, _ = _body_fields(part)
        fields |= more
        required |= needed
    return fields, required, False


def _paging(facts: dict[str, object]) -> dict[str, object]:
    way = "cursor" if "query cursor" in facts else "offset" if "query start" in facts else "none"
    # The pagination page says 500 wherever a list names no bound of its own.
    return {"paging": way, "page_size": None if way == "none" else facts["query limit max"] or 500}


def _content(type: str | None) -> str | None:
    kinds = {
        "application/json": "json",
        "application/x-www-form-urlencoded": "form",
        "multipart/form-data": "multipart",
    }
    return kinds[type] if type else None


def all_listed() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads((SHARED / "operations.json").read_text())
    return listed
