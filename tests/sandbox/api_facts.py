"""Makes pdsync/sandbox/company/data/api.json: what the vendor's documents say of each operation.

    python -m tests.sandbox.api_facts          # writes the file anew from ../shared/api/openapi

Per operation: method, path, tokens, paging, status, the shape of its answer and the fields of its body. A shape is a
dict of keys, a list of one shape, or a word for a value: int, num, bool, str, date, time, uuid, or `a|b` of an enum;
`#0|1` of an enum of numbers.
"""

# ruff: noqa: T201 - a command

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import yaml

DOCUMENTS = Path(__file__).parents[3] / "shared" / "api" / "openapi"
FILE = Path(__file__).parents[2] / "pdsync" / "sandbox" / "company" / "data" / "api.json"
DEEPEST = 9
METHODS = ("get", "post", "put", "patch", "delete")


def facts() -> dict[str, dict[str, Any]]:
    """Every operation but those of OAuth, by version and id."""
    found: dict[str, dict[str, Any]] = {}
    for version in ("v1", "v2"):
        document = load(version)
        base = "v1" if version == "v1" else "api/v2"
        for path, item in document["paths"].items():
            for method in METHODS:
                operation = item.get(method)
                if operation is None or operation["operationId"] in ("get-tokens", "refresh-tokens", "authorize"):
                    continue
                found[f"{version} {operation['operationId']}"] = {
                    "method": method.upper(),
                    "path": f"/{base}{path}",
                    **about(document, operation),
                }
    return dict(sorted(found.items()))


def load(version: str) -> dict[str, Any]:
    text = (DOCUMENTS / f"pipedrive-openapi-{version}.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return document


def about(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    parameters = [resolved(document, each) for each in operation.get("parameters", [])]
    queries = {each["name"]: each for each in parameters if each["in"] == "query"}
    paging = "cursor" if "cursor" in queries else "offset" if "start" in queries else "none"
    made: dict[str, Any] = {"cost": operation.get("x-token-cost", 0), "paging": paging}
    made["query"] = sorted(queries)
    needed = sorted(name for name, each in queries.items() if each.get("required"))
    if needed:
        made["needed"] = needed
    status, answer = next(
        ((int(code), body) for code, body in operation["responses"].items() if str(code).startswith("2")), (200, {})
    )
    made["status"] = status
    content = resolved(document, answer).get("content", {}).get("application/json", {})
    shape = merged(shape_of(document, content.get("schema", {})), inferred(example_of(document, content)))
    made["answer"] = shape if isinstance(shape, dict) else {}
    body = resolved(document, operation.get("requestBody", {})).get("content", {})
    for kind, media in body.items():
        schema = resolved(document, media.get("schema", {}))
        made["body"] = shape_of(document, schema)
        made["required"] = sorted(flat(document, schema).get("required", []))
        if kind != "application/json":
            made["content"] = kind
        break
    return made


def resolved(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in value:
        target: Any = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        value = target
    return value


def flat(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with all that it is made of in one place."""
    schema = resolved(document, schema)
    parts = [*schema.get("allOf", []), *schema.get("oneOf", [])[:1], *schema.get("anyOf", [])[:1]]
    properties, required = dict(schema.get("properties", {})), list(schema.get("required", []))
    made = {key: value for key, value in schema.items() if key not in ("allOf", "oneOf", "anyOf")}
    for part in parts:
        inner = flat(document, part)
        properties = {**inner.get("properties", {}), **properties}
        required += inner.get("required", [])
        made = {**inner, **made}
    return {**made, **({"properties": properties} if properties else {}), "required": required}


def shape_of(document: dict[str, Any], schema: dict[str, Any], depth: int = 0) -> Any:
    schema = flat(document, schema)
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
    words = {"integer": "int", "number": "num", "boolean": "bool", "object": {}}
    return words.get(str(kind), formats.get(str(schema.get("format")), "str"))


def example_of(document: dict[str, Any], content: dict[str, Any]) -> Any:
    if "example" in content:
        return content["example"]
    for each in content.get("examples", {}).values():
        return resolved(document, each).get("value")
    return None


def inferred(value: Any) -> Any:
    """The shape of an example; None says nothing."""
    if isinstance(value, dict):
        return {str(key): inferred(inner) for key, inner in value.items()}
    if isinstance(value, list):
        whole: Any = None
        for each in value:
            whole = merged(whole, inferred(each))
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


def merged(one: Any, other: Any) -> Any:
    """What two shapes say together; the first is the schema, which is right where both speak, save for times."""
    if one is None or one == {}:
        return other if other is not None else one
    if other is None:
        return one
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: merged(one.get(key), other.get(key)) for key in {**one, **other}}
    if isinstance(one, list) and isinstance(other, list):
        return [merged(one[0] if one else None, other[0] if other else None)]
    return other if one == "str" and other in ("time", "date", "oldtime") else one


def main() -> None:
    FILE.write_text(json.dumps(facts(), separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8")
    print(f"{FILE}: {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
