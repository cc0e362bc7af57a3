"""Facts of the vendor's operations that tests compare with: names, types and numbers, no text."""

from __future__ import annotations

import json
import re
from typing import Any

from .documents import SHARED, load

_NARROWS = re.compile(
    r"(omitted|by default)[^.]*?(\bonly\b|authorized user|API token|not deleted|not returned|without|'s goal)",
    re.IGNORECASE,
)
Facts = dict[str, dict[str, Any]]  # operation → fact → value


def compact(facts: dict[str, Any]) -> dict[str, Any]:
    """`facts` without empty ones: no enum, no default, no bound, not required, not several."""
    empty: tuple[object, ...] = (None, [])
    return {
        name: value
        for name, value in facts.items()
        if value not in empty and not (value is False and name.endswith((" required", " many")))
    }


def listed_operations() -> Facts:
    """Every operation of operations.json by its name, those also those that were removed from the API."""
    names = ("method", "path", "tag", "token_cost", "in_current_spec", "replaced_by")
    return {
        f"{entry['version']} {entry['operation_id']}": {
            **{name: entry[name] for name in names},
            "answer": (entry["response"] or {}).get("kind"),
            **({"narrows": narrows} if (narrows := _narrowing(entry)) else {}),
        }
        for entry in _listing()
    }


def _narrowing(entry: dict[str, Any]) -> list[str]:
    """The query parameters of a read without which it shows a part only: by their default, or as their text says."""
    if entry["method"] != "GET":
        return []
    return sorted(
        each["name"]
        for each in entry["params"]
        if each["in"] == "query"
        and each["name"] not in ("start", "limit", "sort_by", "sort_direction", "order_by", "folder")
        and (each.get("default") is not None or _NARROWS.search(each.get("description") or ""))
    )


def actions() -> Facts:
    """Title, kind, operations and inputs of every action of seed_actions.json by its key.

    An input's facts are its type and whether it is required.
    """
    entries = json.loads((SHARED / "seed_actions.json").read_text(encoding="utf-8"))
    return {
        entry["key"]: {
            "title": entry["title"],
            "kind": entry["kind"],
            "maps_to": entry["maps_to"],
            "inputs": {each["name"]: [each["type"], each["required"]] for each in entry["inputs"]},
        }
        for entry in entries
    }


def operation_facts() -> Facts:
    """The facts of every operation by its name: of the OpenAPI documents, of operations.json where they lack it."""
    facts: Facts = {}
    for version, base in (("v1", "/v1"), ("v2", "/api/v2")):
        for path, methods in load(version)["paths"].items():
            for method, spec in methods.items():
                servers = spec.get("servers")
                full = servers[0]["url"] + path if servers else base + path
                facts[f"{version} {spec['operationId']}"] = _documented(spec, method, full)
    for entry in _listing():
        name = f"{entry['version']} {entry['operation_id']}"
        if name not in facts:
            facts[name] = _listed(entry)
    return {name: compact(each) for name, each in facts.items()}


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
        "scopes": sorted(set(oauth)),
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
    """The facts of an operation that only operations.json has."""
    facts: dict[str, object] = {
        "method": entry["method"],
        "path": entry["path"],
        "tag": entry["tag"],
        "cost": entry["token_cost"],
        "deprecated": True,
        "scopes": sorted(set(entry["oauth_scopes"] or ())),
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
    # Where several values are allowed, some enums list all combinations; the single values are enough.
    enum = {value for value in schema.get("enum", ()) if not many or "," not in value}
    stated = re.search(r"(?:maximum(?: value)?(?: of)?|upper limit is|array of up to) (\d+)", text, re.IGNORECASE)
    default = schema.get("default")
    return {
        name: kind,
        f"{name} required": required,
        f"{name} enum": sorted(enum, key=str),
        # Every list starts at 0: the catalogue does not repeat it.
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
    # The pagination page says 500 for lists without another bound.
    return {"paging": way, "page_size": None if way == "none" else facts["query limit max"] or 500}


def _content(type: str | None) -> str | None:
    kinds = {
        "application/json": "json",
        "application/x-www-form-urlencoded": "form",
        "multipart/form-data": "multipart",
    }
    return kinds[type] if type else None


def _listing() -> list[dict[str, Any]]:
    listing: list[dict[str, Any]] = json.loads((SHARED / "operations.json").read_text(encoding="utf-8"))
    return listing


def component_examples() -> dict[str, Any]:
    """The component's own example answers, by name: made-up records, as they are."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((SHARED / "seed_examples").glob("*.json"))
    }
