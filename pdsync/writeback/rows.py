"""Reads the rows of a file that is to be queued: CSV, NDJSON, JSON, Parquet or a spreadsheet.

In a CSV file or a spreadsheet every cell is text, and an empty one is not given; NULL (or another word) empties the
field. Types are the catalogue's business, not guessed from the first rows: a postcode keeps its leading zero.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import msgspec

from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = ("csv", "ndjson", "json", "parquet", "xlsx")
_ENDINGS = {"jsonl": "ndjson", "tsv": "csv", "pq": "parquet", "ods": "xlsx", "xls": "xlsx"}


class Rows(msgspec.Struct, frozen=True):
    """Rows with their columns by name, and whether a null among them was put there on purpose."""

    rows: list[dict[str, Any]]
    null_clears: bool


def read(path: Path, kind: str | None = None, *, null: str = "NULL") -> Rows:
    """The rows of the file at `path`, whose ending says what it is, unless `kind` does.

    Args:
        null: the word in a cell of a CSV file or spreadsheet that empties the field.

    Raises:
        ConfigError: it can't be read, is of no known kind, or has no header. Nothing was queued.
    """
    ending = path.suffix.lstrip(".").lower()
    kind = kind or _ENDINGS.get(ending, ending)
    if kind not in FORMATS:
        raise ConfigError(f"{path}: {ending or 'no ending'} says nothing of the format. Name it: --format csv.")
    try:
        if kind == "parquet":
            from pyarrow import parquet  # noqa: PLC0415 - slow to import, and rarely needed

            return Rows(parquet.read_table(path).to_pylist(), null_clears=False)
        if kind == "xlsx":
            return Rows(_named(_sheet(path), path, null), null_clears=True)
        content = path.read_bytes()
        if kind == "csv":
            return Rows(_named(_csv(content), path, null), null_clears=True)
        if kind == "json":
            return Rows(msgspec.json.decode(content, type=list[dict[str, Any]]), null_clears=True)
        return Rows(msgspec.json.Decoder(dict[str, Any]).decode_lines(content), null_clears=True)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path} can't be read as {kind}: {error}. Nothing was queued.") from error


def _csv(content: bytes) -> list[list[str]]:
    text = content.decode("utf-8-sig")
    head = text.split("\n", 1)[0]
    # Spreadsheets of half of Europe write semicolons. The header decides: no parameter has either in its name.
    delimiter = max(",;\t", key=head.count)
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))


def _sheet(path: Path) -> list[list[str]]:
    from python_calamine import CalamineError, CalamineWorkbook  # noqa: PLC0415 - only spreadsheets need it

    try:
        table = CalamineWorkbook.from_path(str(path)).get_sheet_by_index(0).to_python(skip_empty_area=False)
    except CalamineError as error:
        raise ConfigError(f"{path} can't be read as a spreadsheet: {error}. Nothing was queued.") from error
    return [[_cell(value) for value in row] for row in table]


def _cell(value: object) -> str:
    if isinstance(value, float) and value.is_integer():  # a spreadsheet knows no whole numbers
        return str(int(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _named(table: list[list[str]], path: Path, null: str) -> list[dict[str, Any]]:
    rows = [row for row in table if any(cell.strip() for cell in row)]
    if not rows:
        raise ConfigError(f"{path} is empty: its first line names the columns. Nothing was queued.")
    header = [name.strip() for name in rows[0]]
    if "" in header or len(set(header)) < len(header):
        what = "has no name" if "" in header else "is named twice"
        raise ConfigError(f"{path}: a column {what} in the first line ({', '.join(header)}). Nothing was queued.")
    for number, row in enumerate(rows[1:], 1):
        if len(row) > len(header) and any(row[len(header) :]):
            raise ConfigError(
                f"{path}, row {number}: {len(row)} cells, and the first line names {len(header)}. Nothing was queued."
            )
    return [
        {name: None if cell == null else cell for name, cell in zip(header, row, strict=False) if cell != ""}
        for row in rows[1:]
    ]
