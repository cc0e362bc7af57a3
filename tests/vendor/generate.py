"""Generates the committed fingerprints from the vendor's documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import FOLDER
from .documents import sandbox_operations, sandbox_scopes
from .examples import examples
from .facts import actions, component_examples, listed_operations, operation_facts
from .schemas import answers, bodies

SANDBOX = Path(__file__).parents[2] / "pdsync" / "sandbox" / "company" / "data"


def generate() -> dict[Path, str]:
    """The content of every generated file."""
    fingerprints = {
        "operations": operation_facts(),
        "listed": listed_operations(),
        "actions": actions(),
        "answers": answers(),
        "bodies": bodies(),
        "examples": examples(),
        "component": component_examples(),
    }
    return {
        SANDBOX / "api.json": json.dumps(sandbox_operations(), separators=(",", ":"), sort_keys=True) + "\n",
        SANDBOX / "scopes.json": _render(sandbox_scopes()),
        **{FOLDER / f"{name}.json": _render(content) for name, content in fingerprints.items()},
    }


def _render(content: dict[str, Any]) -> str:
    """JSON with one line an entry, so that a diff shows the entry."""
    lines = (
        f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'), sort_keys=True)}"
        for key, value in sorted(content.items())
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"
