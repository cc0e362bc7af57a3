"""Compares answers with the schemas of the vendor's OpenAPI documents, and describes each difference in a line."""

from __future__ import annotations

import json
import re

import jsonschema

from tests.vendor import stored

_CODE = re.compile(r"\b[0-9a-f]{40}\b")


def is_described(version: str, operation: str) -> bool:
    """Whether the documents have a schema of the answer; they have none of operations that are removed."""
    return f"{version} {operation}" in stored("answers")


def differences(version: str, operation: str, body: bytes) -> set[str]:
    """Where `body` differs from the documented schema: `data/*/id: type integer, got str`."""
    schema = {**stored("answers")[f"{version} {operation}"], "components": stored("answers")[version]}
    return {_describe(error) for error in jsonschema.Draft4Validator(schema).iter_errors(json.loads(body))}


def _describe(error: jsonschema.ValidationError) -> str:
    path = "/".join("*" if isinstance(part, int) or part.isdigit() else part for part in error.absolute_path)
    if error.validator == "required":
        return f"{_CODE.sub('<code>', path)}: {error.message}"
    got = "null" if error.instance is None else f"{type(error.instance).__name__} {error.instance!r}"[:60]
    wanted = json.dumps(error.validator_value)[:120]
    return f"{_CODE.sub('<code>', path)}: {error.validator} {wanted}, got {got}"
