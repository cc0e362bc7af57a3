"""Values as text for people: amounts get thousands separators, texts lose control characters."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

from pdsync.core.log import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONG = 240  # characters; a longer text is truncated in a preview
_SHOWN = 160
_DECIMALS = 6


def brief(text: str, begin: int = 0) -> str:
    """`text`, truncated if long: then an excerpt from position `begin` on, and the length of the whole."""
    if len(text) <= _LONG:
        return text
    end = begin + _SHOWN
    return f"{'… ' if begin else ''}{text[begin:end]}{' …' if end < len(text) else ''} ({len(text):,} characters)"


def brief_pair(before: Any, after: Any, currencies: Sequence[str | None] = (None, None)) -> tuple[str, str]:
    """Two values for people; of long ones an excerpt that begins shortly before the first difference."""
    texts = [text or "–" for text in exact_texts((before, after), currencies)]
    begin = max(len(commonprefix(texts)) - 40, 0)  # noqa: RUF071 - compared by character, not by path
    return brief(texts[0], begin), brief(texts[1], begin)


def exact_texts(values: Sequence[Any], currencies: Sequence[str | None]) -> list[str]:
    """Values of one field as text for people, all in one form: no number is rounded, a time is shown to the second.

    None becomes an empty text.

    Args:
        values: if one is a number with decimals, or has a currency, the integers among them are amounts and get
            separators; otherwise they are taken for ids.
        currencies: one for each value; None where it is no amount, or its currency is not known.
    """
    are_amounts = any(currencies) or any(isinstance(value, float | Decimal) for value in values)
    texts = []
    for value, currency in zip(values, currencies, strict=True):
        is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
        is_whole = isinstance(value, int) and is_number and are_amounts
        text = cell(Decimal(value) if is_whole else value, exact=True)
        texts.append(f"{text} {clean(currency)}" if currency and is_number else text)
    return texts


def cell(value: Any, *, counts: bool = False, exact: bool = False) -> str:
    """One value as text for people.

    A double with up to six decimals is shown with all of them, as an amount of money is; one with more is the result of
    a calculation, and is rounded to four, or to six digits if it is below 1.

    Args:
        value: of a row, or of JSON.
        counts: integers get separators: they are no ids.
        exact: a double is never rounded.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if counts and abs(value) >= 10_000 else str(value)
    if isinstance(value, float | Decimal):
        return _number(value, exact=exact)
    if isinstance(value, datetime):
        moment = value.astimezone(UTC) if value.tzinfo else value
        return moment.replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list):
        return ", ".join(cell(each, exact=exact) for each in value)
    return clean(str(value))


def _number(value: float | Decimal, *, exact: bool) -> str:
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        least, number = 2 if exact else 0, Decimal(repr(value))
        if not exact and len(f"{number:f}".partition(".")[2]) > _DECIMALS:
            number = Decimal(f"{value:.4f}" if abs(value) >= 1 else f"{value:.6g}")
    else:
        least, number = 2, value
    whole, _, fraction = f"{number:,f}".partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction.ljust(least, '0')}" if fraction else whole


def size(count: int) -> str:
    """A size in bytes, for people."""
    amount, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{count:,} bytes" if unit == "bytes" else f"{amount:,.1f} {unit}"
