"""Writes numbers with their nouns, for people: `1 row`, `2,000 rows`, `1 query`."""

from __future__ import annotations


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
