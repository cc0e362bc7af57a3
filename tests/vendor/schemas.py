"""JSON Schemas of the bodies and answers that the vendor's OpenAPI documents describe, without their texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .documents import METHODS, load

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSIONS = ("v1", "v2")
_KEPT = ("$ref", "type", "enum", "minimum", "maximum", "pattern", "minItems", "maxItems", "minLength", "maxLength")


def answers() -> dict[str, Any]:
    """The schema of each answer of each operation: name → status → schema; and of each version, shared components."""
    schemas: dict[str, Any] = {}
    for version in VERSIONS:
        parts = load(version).get("components", {}).get("schemas", {})
        schemas[version] = {"schemas": {name: to_json_schema(part) for name, part in parts.items()}}
        for name, operation in _operations(version):
            schemas[name] = {str(status): _answer(answer) for status, answer in operation["responses"].items()}
    return schemas


def bodies() -> dict[str, Any]:
    """The schema of each operation's body by name."""
    schemas: dict[str, Any] = {}
    for version in VERSIONS:
        for name, operation in _operations(version):
            for media in operation.get("requestBody", {}).get("content", {}).values():
                schemas[name] = to_json_schema(media.get("schema", {}), kept=(*_KEPT, "format"))
    return schemas


def _operations(version: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in load(version)["paths"].values():
        for method in METHODS:
            if method in item:
                yield f"{version} {item[method]['operationId']}", item[method]


def _answer(answer: dict[str, Any]) -> dict[str, Any]:
    """Empty where the documents have no schema, as for the bytes of a file."""
    schema: dict[str, Any] = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return dict(to_json_schema(schema))


def to_json_schema(schema: Any, kept: tuple[str, ...] = _KEPT) -> Any:
    """A schema of OpenAPI 3.0 as JSON Schema (draft 4): `nullable` becomes a type, texts and examples are left out."""
    if not isinstance(schema, dict):
        return schema  # additionalProperties: false
    made = {key: schema[key] for key in kept if key in schema}
    made |= {
        key: [to_json_schema(part, kept) for part in schema[key]]
        for key in ("allOf", "anyOf", "oneOf")
        if key in schema
    }
    made |= {
        key: to_json_schema(schema[key], kept) for key in ("items", "additionalProperties", "not") if key in schema
    }
    if "properties" in schema:
        made["properties"] = {name: to_json_schema(part, kept) for name, part in schema["properties"].items()}
    if isinstance(schema.get("required"), list):  # v1 writes `required: true` beside some properties
        made["required"] = schema["required"]
    if schema.get("nullable") and isinstance(schema.get("type"), str):
        made["type"] = [schema["type"], "null"]
        if "enum" in schema:
            made["enum"] = [*schema["enum"], None]
    return made
