"""Writes values as cells of a CSV file, so that a spreadsheet can't run them and a reader gets them back.

A text that a spreadsheet would run as a formula (`=…`, `+…`, `-…`, `@…`), or that a reader of these files takes for
something else (`NULL`, `#N/A`), gets a quote before it. So does a text that looks as if it already had one: `'+1` is
written as `''+1`. Hence each cell has one meaning, and `unguarded` removes only the quote that `guarded` has added.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

NULL = "NULL"  # a cell with this text empties a field
# The results of failed formulas in spreadsheets, in the most common languages.
FAILED = re.compile(
    r"#(N/A|N/D|NV|NAME\?|NOM\?|REF!|BEZUG!|VALUE!|VALOR!|VALEUR!|WERT!|DIV/0!|¡DIV/0!|NUM!|ZAHL!|NOMBRE!|NULL!|NUL!"
    r"|SPILL!|CALC!|FIELD!|GETTING_DATA|BLOCKED!|CONNECT!|UNKNOWN!|BUSY!|PYTHON!)"
)
_GUARDED = re.compile(rf"'*([=+\-@＝＋－＠\t\r\n]|({NULL}|{FAILED.pattern})\Z)")
_LIST_IN_WORDS = re.compile(r'[^,;"\[\]{}\s]([^,;"\[\]{}\r\n\t]*[^,;"\[\]{}\s])?')
_JSON = msgspec.json.Encoder(enc_hook=str, decimal_format="number")


class Numeral(str):
    """The text of a cell that a spreadsheet stores as a number: its decimal mark is a point, in every country."""

    __slots__ = ()


def guarded(text: str) -> str:
    """`text`, with a quote before it where a spreadsheet or a reader would take it for something else."""
    return f"'{text}" if _GUARDED.match(text) else text


def unguarded(cell: str) -> str:
    """The text of `cell`, which `guarded` has made."""
    return cell[1:] if cell.startswith("'") and _GUARDED.match(cell) else cell


def cell_text(value: Any) -> str:
    """A value as text: None is empty, a time is ISO 8601, a list is `a, b`, or JSON where an element has a comma."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, list) and not any(isinstance(each, list | dict | tuple) for each in value):
        words = [cell_text(each) for each in value]
        if all(map(_LIST_IN_WORDS.fullmatch, words)):
            return ", ".join(words)
    if isinstance(value, list | dict | tuple):
        return _JSON.encode(value).decode()
    if isinstance(value, bytes):
        return str(msgspec.to_builtins(value))
    return str(value.isoformat() if hasattr(value, "isoformat") else value)
