"""Sentences that several refusals of the queue share."""

from __future__ import annotations

import difflib
import re
import unicodedata
from typing import TYPE_CHECKING

from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pdsync.writeback.typed_values import InvalidValue

NOTHING = "Nothing was queued."
_NEAR = 3  # names in a question
_MAX_SHOWN = 100  # characters of a value


def invalid_value(name: str, value: object, error: InvalidValue) -> ConfigError:
    """The refusal of a value; `name` says whose value it is."""
    shown = repr(str(value)) if isinstance(value, str) else repr(value)
    shown = shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}…"
    why = str(error)
    return ConfigError(f"{name} is {shown}, and {why if why.endswith(('.', '?')) else f'{why}.'} {NOTHING}")


def row_reason(error: ConfigError) -> str:
    """Why one row is refused, as one line with all of its hints: the other rows may well be queued."""
    text = re.sub(rf"\s*{re.escape(NOTHING)}", "", str(error))
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def did_you_mean(value: str, names: Iterable[str]) -> str:
    """A question with the names that are similar to `value`, after a space; empty without any.

    Case and accents do not count, and the one name that has all words of `value` comes first: a first name is enough.
    """
    by_folded = {_folded(each): each for each in names}
    words = set(_folded(value).split())
    containing = [each for each in by_folded if words and words <= set(each.split())]
    close = difflib.get_close_matches(_folded(value), by_folded, n=_NEAR)
    near = [by_folded[each] for each in dict.fromkeys([*(containing if len(containing) == 1 else []), *close])][:_NEAR]
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def _folded(text: str) -> str:
    """A text for comparison, without case and accents."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(each for each in plain if not unicodedata.combining(each)).strip()
