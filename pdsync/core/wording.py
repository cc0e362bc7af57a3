"""Writes numbers with their nouns, for people: `1 row`, `2,000 rows`, `1 query`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_RANGES = 10  # of numbers in a message


def counted(number: int, noun: str) -> str:
    """`number` with `noun` in its singular or plural.

    Args:
        number: 0 or more.
        noun: one English noun or noun phrase in the singular, such as `schema change`.
    """
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """The plural of an English noun: `day` → `days`, `query` → `queries`, `match` → `matches`."""
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


def number_ranges(numbers: Iterable[int]) -> str:
    """Numbers of mutations in queue order, neighbours as a range: `#1 to #3, #7`; of many ranges the first ones."""
    ranges: list[list[int]] = []
    for each in numbers:
        if ranges and each == ranges[-1][-1] + 1:
            ranges[-1][1:] = [each]
        else:
            ranges.append([each])
    shown = [" to ".join(f"#{number}" for number in each) for each in ranges[:_RANGES]]
    more = [f"{len(ranges) - _RANGES:,} more"] if len(ranges) > _RANGES else []
    return ", ".join([*shown, *more])
