"""Skeletons of the example answers: keys, types, numbers, dates and codes stay; texts are replaced."""

from __future__ import annotations

import json
import re
from itertools import count
from typing import Any

from .documents import SHARED, load

# Values of an enum, ids and codes, dates and times, numbers as text.
_CODE = re.compile(r"|[a-z][a-z0-9_]*|[0-9a-f-]{32,}|[-+0-9.,:TZ /]+")


def examples() -> dict[str, Any]:
    """The skeleton of each example answer, under the operation's name or the file's path."""
    skeletons: dict[str, Any] = {}
    for version in ("v1", "v2"):
        for methods in load(version)["paths"].values():
            for spec in methods.values():
                content = spec["responses"].get("200", {}).get("content", {}).get("application/json", {})
                shown = [content.get("example"), *(each["value"] for each in content.get("examples", {}).values())]
                answer = next(filter(None, shown), None)
                if answer is not None:
                    skeletons[f"{version} {spec['operationId']}"] = skeleton(
                        json.loads(json.dumps(answer, default=str))
                    )
    index = json.loads((SHARED / "examples" / "index.json").read_text(encoding="utf-8"))
    for folder in ("examples", "seed_examples"):
        for path in sorted((SHARED / folder).glob("*.json")):
            if path.name == "index.json":
                continue
            source = (index.get(path.name) if folder == "examples" else None) or {}
            skeletons[f"{folder}/{path.name}"] = {
                "operation": f"{source['version']} {source['operation_id']}" if "operation_id" in source else None,
                "answer": skeleton(json.loads(path.read_text(encoding="utf-8"))),
            }
    return skeletons


def skeleton(value: Any) -> Any:
    """`value` with each text replaced by a numbered one, the same text by the same."""
    numbers: dict[str, int] = {}
    following = count(1)

    def copy(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: copy(inner) for key, inner in part.items()}
        if isinstance(part, list):
            return [copy(inner) for inner in part]
        if not isinstance(part, str) or _CODE.fullmatch(part):
            return part
        if part not in numbers:
            numbers[part] = next(following)
        return f"text {numbers[part]}"

    return copy(value)
