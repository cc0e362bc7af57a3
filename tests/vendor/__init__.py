"""Compact fingerprints of the vendor's documents, so that a clone without the documents runs the same tests.

python -m tests.vendor     # writes them again from ../shared/api

operations.json   method, path, parameters, body keys, scopes and cost of each operation, for the catalogue
listed.json       the vendor's list of operations: which are current, what replaced the others, what they answer,
                  and which parameters narrow a list where they are absent
actions.json      the vendor's actions and the operations they call
answers.json      JSON Schemas of the answers by status, for the sandbox
bodies.json       JSON Schemas of the bodies of requests, with their nested items, for what pdsync sends
component.json    the component's own example answers
examples.json     example answers with their keys, types and formats; texts are replaced by `text 1`, `text 2`, ...
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@cache
def stored(name: str) -> dict[str, Any]:
    """The committed fingerprints of one kind: shared between tests, not to be changed."""
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return content
