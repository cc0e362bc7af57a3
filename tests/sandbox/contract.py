"""Holds answers against the vendor's OpenAPI documents: every place where one says otherwise, in a few words."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema

from .api_facts import METHODS, load

_CODE = re.compile(r"\b[0-9a-f]{40}\b")


class Contract:
    """What the documents say that answers look like."""

    def __init__(self) -> None:
        self._documents = {version: load(version) for version in ("v1", "v2")}
        self._operations: dict[tuple[str, str], dict[str, Any]] = {}
        for version, document in self._documents.items():
            _plain(document)
            for item in document["paths"].values():
                for method in METHODS:
                    if method in item:
                        self._operations[version, item[method]["operationId"]] = item[method]

    def knows(self, version: str, operation: str) -> bool:
        """Whether the answer of an operation is described; what Pipedrive has removed is not."""
        return self._schema(version, operation) is not None

    def differences(self, version: str, operation: str, body: bytes) -> set[str]:
        """Where `body` is not what the document says: `data/*/id: type integer, got str`."""
        schema = self._schema(version, operation)
        components = self._documents[version].get("components", {})
        validator = jsonschema.Draft4Validator({**(schema or {}), "components": components})
        return {_told(error) for error in validator.iter_errors(json.loads(body))}

    def _schema(self, version: str, operation: str) -> dict[str, Any] | None:
        answers = self._operations.get((version, operation), {}).get("responses", {})
        best: dict[str, Any] = next((answers[status] for status in ("200", "201", 200, 201) if status in answers), {})
        found: dict[str, Any] | None = best.get("content", {}).get("application/json", {}).get("schema")
        return found


def _plain(node: Any) -> None:
    """Turn what OpenAPI 3.0 says in its own way into JSON Schema, in place."""
    if isinstance(node, list):
        for each in node:
            _plain(each)
    if not isinstance(node, dict):
        return
    node.pop("example", None)
    for each in node.values():
        _plain(each)
    if node.get("nullable") and isinstance(node.get("type"), str):
        node["type"] = [node["type"], "null"]
        if "enum" in node:
            node["enum"] = [*node["enum"], None]
    if not isinstance(node.get("required", []), list):  # v1 writes it beside a property here and there
        del node["required"]


def _told(error: jsonschema.ValidationError) -> str:
    path = "/".join("*" if isinstance(part, int) or part.isdigit() else part for part in error.absolute_path)
    if error.validator == "required":
        return f"{_CODE.sub('<code>', path)}: {error.message}"
    got = "null" if error.instance is None else f"{type(error.instance).__name__} {error.instance!r}"[:60]
    wanted = json.dumps(error.validator_value)[:120]
    return f"{_CODE.sub('<code>', path)}: {error.validator} {wanted}, got {got}"
