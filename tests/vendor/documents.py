"""What each operation's answer and body look like in the vendor's OpenAPI documents, as the sandbox serves them.

A shape is a dict of keys, a list of one shape, or a word for a value: int, num, bool, str, date, time, oldtime (v1's
way to write a time), uuid, or `a|b` of an enum; `#0|1` of an enum of numbers.
"""

from __future__ import annotations

import datetime
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

SHARED = Path(__file__).parents[3] / "shared" / "api"
DOCUMENTS = SHARED / "openapi"
DEEPEST = 9
METHODS = ("get", "post", "put", "patch", "delete")


def sandbox_operations() -> dict[str, dict[str, Any]]:
    """Method, path, tokens, paging, status, answer and body of every operation but those of OAuth, by its name."""
    operations: dict[str, dict[str, Any]] = {}
    for version in ("v1", "v2"):
        document = load(version)
        base = "v1" if version == "v1" else "api/v2"
        for path, item in document["paths"].items():
            for method in METHODS:
                operation = item.get(method)
                if operation is None or operation["operationId"] in ("get-tokens", "refresh-tokens", "authorize"):
                    continue
                operations[f"{version} {operation['operationId']}"] = {
                    "method": method.upper(),
                    "path": f"/{base}{path}",
                    **describe(document, operation),
                }
    return dict(sorted(operations.items()))


def sandbox_scopes() -> dict[str, list[str]]:
    """The OAuth scopes of which an operation needs one, by its name."""
    return {
        f"{version} {operation['operationId']}": sorted(
            {scope for each in operation.get("security", []) for scope in each.get("oauth2", [])}
        )
        for version in ("v1", "v2")
        for item in load(version)["paths"].values()
        for operation in (item.get(method) for method in METHODS)
        if operation and any("oauth2" in each for each in operation.get("security", []))
    }


@cache
def load(version: str) -> dict[str, Any]:
    """The OpenAPI document of a version, as it stands: not to be changed."""
    text = (DOCUMENTS / f"pipedrive-openapi-{version}.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return document


def describe(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    parameters = [resolve(document, each) for each in operation.get("parameters", [])]
    queries = {each["name"]: each for each in parameters if each["in"] == "query"}
    paging = "cursor" if "cursor" in queries else "offset" if "start" in queries else "none"
    description: dict[str, Any] = {"cost": operation.get("x-token-cost", 0), "paging": paging}
    description["query"] = sorted(queries)
    needed = sorted(name for name, each in queries.items() if each.get("required"))
    if needed:
        description["needed"] = needed
    status, answer = next(
        ((int(code), body) for code, body in operation["responses"].items() if str(code).startswith("2")), (200, {})
    )
    description["status"] = status
    content = resolve(document, answer).get("content", {}).get("application/json", {})
    shape = merge_shapes(shape_of(document, content.get("schema", {})), infer_shape(example_of(document, content)))
    description["answer"] = shape if isinstance(shape, dict) else {}
    body = resolve(document, operation.get("requestBody", {})).get("content", {})
    for kind, media in body.items():
        schema = resolve(document, media.get("schema", {}))
        description["body"] = shape_of(document, schema)
        description["required"] = sorted(flatten(document, schema).get("required", []))
        if kind != "application/json":
            description["content"] = kind
        break
    return description


def resolve(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in value:
        target: Any = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        value = target
    return value


def flatten(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with its allOf, and the first of its oneOf and anyOf, merged into it."""
    schema = resolve(document, schema)
    parts = [*schema.get("allOf", []), *schema.get("oneOf", [])[:1], *schema.get("anyOf", [])[:1]]
    properties, required = dict(schema.get("properties", {})), list(schema.get("required", []))
    flat = {key: value for key, value in schema.items() if key not in ("allOf", "oneOf", "anyOf")}
    for part in parts:
        inner = flatten(document, part)
        properties = {**inner.get("properties", {}), **properties}
        required += inner.get("required", [])
        flat = {**inner, **flat}
    return {**flat, **({"properties": properties} if properties else {}), "required": required}


def shape_of(document: dict[str, Any], schema: dict[str, Any], depth: int = 0) -> Any:
    schema = flatten(document, schema)
    if depth > DEEPEST:
        return "str"
    if "properties" in schema:
        return {key: shape_of(document, value, depth + 1) for key, value in schema["properties"].items()}
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), None)
    if kind == "array" or "items" in schema:
        return [shape_of(document, schema.get("items", {}), depth + 1)]
    if schema.get("enum") and kind in ("string", None):
        return "|".join(str(value) for value in schema["enum"])
    if schema.get("enum") and kind in ("integer", "number"):
        return "#" + "|".join(str(value) for value in schema["enum"])
    formats = {"date": "date", "date-time": "time", "uuid": "uuid"}
    names = {"integer": "int", "number": "num", "boolean": "bool", "object": {}}
    return names.get(str(kind), formats.get(str(schema.get("format")), "str"))


def example_of(document: dict[str, Any], content: dict[str, Any]) -> Any:
    if "example" in content:
        return content["example"]
    for each in content.get("examples", {}).values():
        return resolve(document, each).get("value")
    return None


def infer_shape(value: Any) -> Any:
    """The shape of an example; None where it shows none."""
    if isinstance(value, dict):
        return {str(key): infer_shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        whole: Any = None
        for each in value:
            whole = merge_shapes(whole, infer_shape(each))
        return [whole] if value else None
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "int" if isinstance(value, int) else "num"
    if isinstance(value, datetime.datetime):
        return "time"
    if isinstance(value, datetime.date):
        return "date"
    if isinstance(value, str):
        if re.fullmatch(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d.*", value):
            return "time" if "T" in value else "oldtime"
        return "date" if re.fullmatch(r"\d{4}-\d\d-\d\d", value) else "str"
    return None


def merge_shapes(one: Any, other: Any) -> Any:
    """The union of two shapes; the first, the schema, wins, except that a time in the example is a time."""
    if one is None or one == {}:
        return other if other is not None else one
    if other is None:
        return one
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: merge_shapes(one.get(key), other.get(key)) for key in {**one, **other}}
    if isinstance(one, list) and isinstance(other, list):
        return [merge_shapes(one[0] if one else None, other[0] if other else None)]
    return other if one == "str" and other in ("time", "date", "oldtime") else one
