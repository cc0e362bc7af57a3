"""JSON Schemas of the answers that the vendor's OpenAPI documents describe, without their texts."""

from __future__ import annotations

from typing import Any

from .documents import METHODS, load

_KEPT = ("$ref", "type", "enum", "minimum", "maximum", "pattern", "minItems", "maxItems", "minLength", "maxLength")


def answers() -> dict[str, Any]:
    """The schema of the successful answer of each operation by name; and under each version, its shared components."""
    schemas: dict[str, Any] = {}
    for version in ("v1", "v2"):
        document = load(version)
        parts = document.get("components", {}).get("schemas", {})
        schemas[version] = {"schemas": {name: plain(part) for name, part in parts.items()}}
        for item in document["paths"].values():
            for method in METHODS:
                schema = _answer(item[method]) if method in item else None
                if schema is not None:
                    schemas[f"{version} {item[method]['operationId']}"] = plain(schema)
    return schemas


def _answer(operation: dict[str, Any]) -> dict[str, Any] | None:
    answers = operation["responses"]
    best: dict[str, Any] = next((answers[key] for key in ("200", "201", 200, 201) if key in answers), {})
    schema: dict[str, Any] | None = best.get("content", {}).get("application/json", {}).get("schema")
    return schema


def plain(schema: Any) -> Any:
    """A schema of OpenAPI 3.0 as JSON Schema (draft 4): `nullable` becomes a type, texts and examples are left out."""
    if not isinstance(schema, dict):
        return schema  # additionalProperties: false
    made = {key: schema[key] for key in _KEPT if key in schema}
    made |= {key: [plain(part) for part in schema[key]] for key in ("allOf", "anyOf", "oneOf") if key in schema}
    made |= {key: plain(schema[key]) for key in ("items", "additionalProperties", "not") if key in schema}
    if "properties" in schema:
        made["properties"] = {name: plain(part) for name, part in schema["properties"].items()}
    if isinstance(schema.get("required"), list):  # v1 writes `required: true` beside some properties
        made["required"] = schema["required"]
    if schema.get("nullable") and isinstance(schema.get("type"), str):
        made["type"] = [schema["type"], "null"]
        if "enum" in schema:
            made["enum"] = [*schema["enum"], None]
    return made
