"""Reads the first sheet of a spreadsheet, and refuses a cell whose formula has failed or was never calculated.

The library that reads spreadsheets returns both as an empty cell. In an .xlsx file, which is XML in a ZIP archive, they
are found in the XML of the sheet. In the binary .xls, and in .ods, they are not; a note says so.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from typing import TYPE_CHECKING, Any

from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_CELL = re.compile(rb"<(?:\w+:)?c\b([^>]*?)(?:/>|>(.*?)</(?:\w+:)?c>)", re.DOTALL)
_FORMULA = re.compile(rb"<(?:\w+:)?f\b")
_VALUE = re.compile(rb"<(?:\w+:)?v\b[^>]*>([^<]+)</")
_SHEET = re.compile(rb"<(?:\w+:)?sheet\b[^>]*?\w+:id\s*=\s*[\"']([^\"']+)")
_LINK = re.compile(rb"<(?:\w+:)?Relationship\b[^>]*>")
_TOO_LARGE = 10**15  # a spreadsheet keeps 15 digits of a number, and writes zeros for the others


def read(path: Path) -> tuple[list[list[Any]], list[str]]:
    """Read the first sheet: its rows, empty ones included, and notes for the person.

    Raises:
        ConfigError: the file is no spreadsheet, or a cell has no value that could be sent; says which.
    """
    from python_calamine import CalamineError, CalamineWorkbook  # noqa: PLC0415 - only spreadsheets need it

    try:
        book = CalamineWorkbook.from_path(str(path))
        rows = book.get_sheet_by_index(0).to_python(skip_empty_area=False)
    except CalamineError as error:
        raise ConfigError(f"{path} can't be read as a spreadsheet: {error}. Nothing was queued.") from error
    notes = []
    if len(book.sheet_names) > 1:
        notes.append(
            f"{path.name} has {len(book.sheet_names)} sheets; only the first, {book.sheet_names[0]!r}, was read."
        )
    if (content := _read_sheet_xml(path)) is None:
        notes.append(f"{path.name}: failed formulas count as empty cells. In an .xlsx file they would be found.")
    else:
        _refuse_failed(path, content)
    for number, row in enumerate(rows, 1):
        for column, value in enumerate(row):
            if isinstance(value, int | float) and abs(value) >= _TOO_LARGE:
                raise ConfigError(
                    f"{path}, cell {column_letters(column)}{number}: a number of more than 15 digits; a spreadsheet"
                    f" keeps the first 15 only. Nothing was queued.\nFormat the column as text, and enter it again."
                )
    return rows, notes


def column_letters(column: int) -> str:
    """The letters of a column; `column` counts from 0."""
    name = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        name = chr(ord("A") + rest) + name
    return name


def _read_sheet_xml(path: Path) -> bytes | None:
    """The XML of the first sheet; None where the file is not .xlsx."""
    try:
        with zipfile.ZipFile(path) as archive:
            book, links = archive.read("xl/workbook.xml"), archive.read("xl/_rels/workbook.xml.rels")
            first = _SHEET.search(book)
            for link in _LINK.findall(links) if first else ():
                if _attribute(link, b"Id") == first[1]:  # type: ignore[index]
                    target = _attribute(link, b"Target").decode()
                    return archive.read(posixpath.normpath(posixpath.join("/xl", target)).lstrip("/"))
    except (KeyError, zipfile.BadZipFile):
        return None
    return None


def _attribute(tag: bytes, name: bytes) -> bytes:
    found = re.search(rb"\b" + name + rb"\s*=\s*[\"']([^\"']*)", tag)
    return found[1] if found else b""


def _refuse_failed(path: Path, sheet: bytes) -> None:
    for tag, inner in _CELL.findall(sheet):
        kind, value = _attribute(tag, b"t"), _VALUE.search(inner)
        failed = kind == b"e"
        if failed or (_FORMULA.search(inner) and not value and kind != b"str"):
            where = _attribute(tag, b"r").decode()
            what = (
                f"{value[1].decode() if value else 'an error'}, the result of a formula that failed"
                if failed
                else "a formula that was never calculated"
            )
            raise ConfigError(
                f"{path}, {f'cell {where}' if where else 'a cell'}: {what}. Nothing was queued.\n"
                + (
                    "Correct it, or empty the cell."
                    if failed
                    else "Open the file in a spreadsheet program and save it."
                )
            )
