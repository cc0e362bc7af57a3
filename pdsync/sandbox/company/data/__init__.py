"""The words a company is made of, and the records nobody has filled in yet: files beside this module."""

from __future__ import annotations

import functools
import json
import tomllib
from importlib.resources import files
from typing import Any


def words(text: str) -> tuple[str, ...]:
    """Names in a row, without the quotes and commas of a list."""
    return tuple(text.split())


@functools.cache
def load(name: str) -> dict[str, Any]:
    return tomllib.loads((files(__package__) / f"{name}.toml").read_text("utf-8"))


@functools.cache
def api() -> dict[str, Any]:
    """What the vendor's documents say of each operation; made by tests/sandbox/api_facts.py."""
    found: dict[str, Any] = json.loads((files(__package__) / "api.json").read_bytes())
    return found


@functools.cache
def blank_records() -> bytes:
    """JSON by kind; "@me" stands for whoever makes the record."""
    return (files(__package__) / "blank.json").read_bytes()
