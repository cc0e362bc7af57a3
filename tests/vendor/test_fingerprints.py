"""The fingerprints are generated from the vendor's documents, and contain none of their prose."""

from __future__ import annotations

from tests.vendor.documents import SHARED
from tests.vendor.examples import skeleton
from tests.vendor.generate import generate
from tests.vendor.schemas import to_json_schema

if SHARED.is_dir():  # defined only where the documents are: nothing is skipped without them

    def test_the_committed_fingerprints_are_those_of_the_documents() -> None:
        stale = [path.name for path, content in generate().items() if path.read_text(encoding="utf-8") != content]
        assert stale == [], "write them again with: python -m tests.vendor"


def test_a_skeleton_keeps_keys_types_and_codes_and_replaces_texts() -> None:
    example = {
        "id": 5,
        "name": "Ada L.",
        "again": ["Ada L.", "B C"],
        "type": "varchar_auto",
        "time": "2026-11-01T10:00:00Z",
    }
    assert skeleton(example) == {
        "id": 5,
        "name": "text 1",
        "again": ["text 1", "text 2"],
        "type": "varchar_auto",
        "time": "2026-11-01T10:00:00Z",
    }


def test_a_plain_schema_has_null_among_its_types_and_no_prose() -> None:
    schema = {
        "type": "object",
        "description": "A text",
        "properties": {"description": {"type": "string", "nullable": True, "enum": ["a"], "example": "a"}},
        "required": True,
    }
    assert to_json_schema(schema) == {
        "type": "object",
        "properties": {"description": {"type": ["string", "null"], "enum": ["a", None]}},
    }
