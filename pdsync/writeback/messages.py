"""Sentences that several refusals of the queue share."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pdsync.writeback.typed_values import InvalidValue

NOTHING = "Nothing was queued."
_MAX_SHOWN = 100  # characters of a value


def invalid_value(name: str, value: object, error: InvalidValue) -> ConfigError:
    """The refusal of a value; `name` says whose value it is."""
    shown = repr(str(value)) if isinstance(value, str) else repr(value)
    shown = shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}…"
    why = str(error)
    return ConfigError(f"{name} is {shown}, and {why if why.endswith(('.', '?')) else f'{why}.'} {NOTHING}")


def did_you_mean(value: str, names: Iterable[str]) -> str:
    """A question with the names that are similar to `value`, whatever its case, after a space; empty without any."""
    by_lower = {each.casefold(): each for each in names}
    near = [by_lower[each] for each in difflib.get_close_matches(value.casefold(), by_lower, n=3)]
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
