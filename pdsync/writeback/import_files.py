"""Reads the rows of a file of changes: CSV, NDJSON, JSON, Parquet or a spreadsheet.

In a CSV file or a spreadsheet every cell is text. An empty cell sets nothing; NULL (or another word) empties the field.
Types come from the catalogue and are not guessed from the first rows: a postcode keeps its leading zero. The quote that
`pdsync sql -o csv` puts before a text that a spreadsheet could run is removed (`core.cells`).

What is ambiguous is refused, with the cell and what to do: bytes in an unknown encoding, a formula that failed or was
never calculated, a value in a column without a name. Then nothing is queued.
"""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.core import cells
from pdsync.core.wording import counted
from pdsync.errors import ConfigError
from pdsync.writeback import spreadsheets

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = ("csv", "ndjson", "json", "parquet", "xlsx")
_ENDINGS = {"jsonl": "ndjson", "tsv": "csv", "pq": "parquet", "ods": "xlsx", "xls": "xlsx", "xlsm": "xlsx"}
_BOMS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16",
         b"\xfe\xff": "utf-16"}  # fmt: skip
_DELIMITERS = "\t;,|"
_SEP = re.compile(r'"?sep=(.)"?[;,\t]*(\r\n|\r|\n|\Z)', re.IGNORECASE)  # Excel's line that names the delimiter
_LINE_END = re.compile(r"\r\n|\r|\n")
_QUOTED = re.compile(r'"(?:[^"]|"")*(?:"|\Z)')
_SAMPLE = 1 << 16  # characters from which the delimiter is detected
_WHY_NOT_CSV = {
    "unexpected end of data": "a quote that opens there is never closed",
    "expected after": "text follows a closing quote",
}
BAD = ("_row", "_why")  # columns that --skip-bad adds to a row


class Format(Struct, frozen=True):
    """The options of a file; None where they are detected.

    Args:
        kind: one of FORMATS.
        null: the text of a cell of a CSV file or spreadsheet that empties the field.
        encoding: of a text file.
        header: the line of the CSV file, or the row of the spreadsheet, that names the columns, from 1 on.
        raw: cells are taken as they are: no quote is removed, and `#N/A` is a text.
    """

    kind: str | None = None
    null: str = cells.NULL
    encoding: str | None = None
    header: int | None = None
    raw: bool = False


class Rows(Struct, frozen=True):
    """Rows with their columns by name.

    Args:
        null_clears: whether a null empties the field; otherwise it sets nothing.
        numbers: the line of the file, or the row of the sheet, where each begins; empty for other formats.
        notes: for the person, about how the file was read.
        decimal: the decimal mark that the delimiter of the file implies, if it does.
    """

    rows: list[dict[str, Any]]
    null_clears: bool
    numbers: list[int]
    unit: str = "row"
    notes: list[str] = []
    decimal: str | None = None

    def position(self, row: int) -> str:
        """The position of a row, for messages; `row` counts from 1."""
        if not self.numbers:
            return f"row {row}"
        return f"row {row} ({self.unit} {self.numbers[row - 1]}{' of the sheet' if self.unit == 'row' else ''})"


class _Table(Struct, frozen=True):
    """The cells of a file, before one of its rows gives the columns their names."""

    path: Path
    rows: list[tuple[int, list[str]]]  # each with its number in the file
    unit: str
    notes: list[str] = []
    decimal: str | None = None

    def position(self, number: int, column: int) -> str:
        """The position of a cell, for messages; `column` counts from 0."""
        return f"cell {spreadsheets.column_letters(column)}{number}" if self.unit == "row" else f"line {number}"


def read(path: Path, options: Format | None = None) -> Rows:
    """Read the rows of the file at `path`; its ending names the format, unless `options` does.

    Raises:
        ConfigError: it can't be read, its format is unknown, or a cell is ambiguous; says where, and what to do.
            Nothing was queued.
    """
    options = options or Format()
    ending = path.suffix.lstrip(".").lower()
    kind = options.kind or _ENDINGS.get(ending, ending)
    if kind not in FORMATS:
        raise ConfigError(f"{path}: {ending or 'no ending'} does not name the format. Name it: --format csv.")
    try:
        if kind == "parquet":
            return _read_parquet(path)
        if kind == "xlsx":
            found, notes = spreadsheets.read(path)
            rows = [(number, [_sheet_cell(value) for value in row]) for number, row in enumerate(found, 1)]
            return _name_columns(_Table(path, rows[(options.header or 1) - 1 :], "row", notes), options)
        text = _decode(path, path.read_bytes(), kind, options.encoding)
        if kind == "csv":
            return _name_columns(_read_csv(path, text, options.header), options)
        if kind == "json":
            return Rows(msgspec.json.decode(text, type=list[dict[str, Any]]), null_clears=True, numbers=[])
        return _read_ndjson(path, text)
    except (OSError, ValueError, NotImplementedError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path} can't be read as {kind}: {error}. Nothing was queued.") from error


def _read_ndjson(path: Path, text: str) -> Rows:
    decoder = msgspec.json.Decoder(dict[str, Any])
    found = Rows([], null_clears=True, numbers=[], unit="line")
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found.rows.append(decoder.decode(line))
            except msgspec.DecodeError as error:
                raise ConfigError(
                    f"{path} can't be read as ndjson: line {number}: {error}. Nothing was queued."
                ) from error
            found.numbers.append(number)
    return found


def _read_parquet(path: Path) -> Rows:
    from pyarrow import parquet  # noqa: PLC0415 - slow to import, and rarely needed

    from pdsync.load import results  # noqa: PLC0415 - likewise

    with parquet.ParquetFile(path) as file:  # one file, and no columns from the names of its folders
        table = file.read()
    refuse_duplicate_columns(path, table.column_names)
    return Rows(results.python_rows(table), null_clears=False, numbers=[])


def _decode(path: Path, content: bytes, kind: str, encoding: str | None) -> str:
    """The text of a file, without its byte order mark."""
    bom = next((mark for mark in _BOMS if content.startswith(mark)), b"")
    found = _BOMS.get(bom, "utf-8")
    low, high = content[:_SAMPLE:2].count(0), content[1:_SAMPLE:2].count(0)
    if not bom and max(low, high) > min(len(content), _SAMPLE) // 8:  # every other byte of UTF-16 is often 0
        found = "utf-16-le" if high > low else "utf-16-be"
    try:
        return content.decode(encoding or found).removeprefix("\ufeff")
    except LookupError:
        raise ConfigError(
            f"--encoding {encoding} is unknown. Try utf-8, utf-16 or windows-1252. Nothing was queued."
        ) from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        if encoding or found != "utf-8":
            raise ConfigError(
                f"{path} can't be read as {kind}: line {line} is not {encoding or found}. Nothing was queued."
            ) from error
        around = content[content.rfind(b"\n", 0, error.start) + 1 :].split(b"\n", 1)[0].decode("cp1252", "replace")
        at = error.start - content.rfind(b"\n", 0, error.start) - 1
        cells = re.finditer(r"[^,;\t|]+", around)
        cell = next((each[0].strip() for each in cells if each.start() <= at < each.end()), around)[:60]
        raise ConfigError(
            f"{path} can't be read as {kind}: line {line} is not UTF-8. Nothing was queued.\n"
            f"As Windows-1252 it says {cell!r}. If that is right: --encoding windows-1252. Otherwise save the file as"
            f" UTF-8 (in Excel: CSV UTF-8)."
        ) from error


def _read_csv(path: Path, text: str, header: int | None) -> _Table:
    """The records of a CSV file, each with the line where it begins."""
    separator, number = _SEP.match(text), 1
    delimiter = separator[1] if separator else None
    if separator:
        text, number = text[separator.end() :], 2
    while header and number < header and (end := _LINE_END.search(text)):
        text, number = text[end.end() :], number + 1
    delimiter = delimiter or _detect_delimiter(text)
    csv.field_size_limit(1 << 30)  # a note may be longer than the 128 KiB that Python takes for a mistake
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    began = 0
    try:
        for row in reader:
            rows.append((number + began, row))
            began = reader.line_num
    except csv.Error as error:
        why = next((message for sign, message in _WHY_NOT_CSV.items() if sign in str(error)), str(error))
        raise ConfigError(
            f"{path} can't be read as csv: line {number + began}: {why}. Nothing was queued.\n"
            f"Inside a quoted cell, a quote is written twice."
        ) from error
    return _Table(path, rows, "line", decimal="." if delimiter == "," else None)  # a decimal comma needs another one


def _detect_delimiter(text: str) -> str:
    """The delimiter of the cells: of those in the first line the one on whose number most lines agree.

    Of several, it is the most frequent one in that line.
    """
    lines = [line for line in _LINE_END.split(_QUOTED.sub('""', text[:_SAMPLE])) if line.strip()][:50]
    if not lines:
        return ","
    head = lines[0]
    if not any(mark in head for mark in _DELIMITERS):  # there may be a title above the table
        head = max(lines, key=lambda line: max(map(line.count, _DELIMITERS)))

    def fits(mark: str) -> tuple[int, int]:
        width = head.count(mark)
        return sum(line.count(mark) == width for line in lines), width

    present = [mark for mark in _DELIMITERS if mark in head]
    return max(present, key=fits, default=",")


def _sheet_cell(value: object) -> str:
    """A cell of a spreadsheet as text, as the spreadsheet shows it: a number has 15 digits."""
    if isinstance(value, float):  # a spreadsheet has no integers
        return str(int(value)) if value.is_integer() else cells.Numeral(repr(float(f"{value:.15g}")))
    if isinstance(value, timedelta):
        minutes, seconds = divmod(int(value.total_seconds()), 60)
        return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
    return cells.cell_text(value)


def _name_columns(table: _Table, options: Format) -> Rows:
    """The rows of a table, with the names of the columns from its first row that is not empty."""
    path = table.path
    rows = [(number, row) for number, row in table.rows if any(cell.strip() for cell in row)]
    if not rows:
        what = f"has nothing from {table.unit} {options.header} on" if options.header else "is empty"
        raise ConfigError(f"{path} {what}: the first line names the columns. Nothing was queued.")
    names = [(name if options.raw else cells.unguarded(name)).strip() for name in rows[0][1]]
    further = _hint_at_header(table, rows, options)
    for number, row in rows[1:]:
        for column, cell in enumerate(row):
            name = names[column] if column < len(names) else ""
            if name and cell[:1] not in ("#", "="):
                continue
            where, shown = f"{path}, {table.position(number, column)}", repr(cell[:60])
            if cell.strip() and not name:
                raise ConfigError(
                    f"{where}: {shown} is in column {column + 1}, which has no name in {table.unit} {rows[0][0]}"
                    f" ({', '.join(filter(None, names))[:200]}). Nothing was queued.\n"
                    f"Name the column, or empty it.{further}"
                )
            if not options.raw and cells.FAILED.fullmatch(cell):
                raise ConfigError(
                    f"{where}: {name!r} is {cell}, the result of a formula that failed. Nothing was queued.\n"
                    f"Correct it, or empty the cell. --raw-csv takes it as a text."
                )
            if not options.raw and table.unit == "line" and cell.startswith("="):
                raise ConfigError(
                    f"{where}: {name!r} is the formula {shown}, and not its result. Nothing was queued.\n"
                    f"Replace it by its result. If it is a text, put a quote before it, or use --raw-csv for the file."
                )
    refuse_duplicate_columns(path, [name for name in names if name])
    made = [
        {
            name: None if cell == options.null else cell if options.raw else cells.unguarded(cell)
            for name, cell in zip(names, row, strict=False)
            if cell != "" and name not in ("", *BAD)
        }
        for _, row in rows[1:]
    ]
    short = [number for number, row in rows[1:] if len(row) < len(names)]
    notes = list(table.notes)
    if short:
        listed = ", ".join(map(str, short[:5])) + (" …" if len(short) > 5 else "")
        notes.append(
            f"{counted(len(short), 'row')} with fewer cells than {table.unit} {rows[0][0]} names columns; the missing"
            f" ones count as empty: {table.unit} {listed}"
        )
    return Rows(made, True, [number for number, _ in rows[1:]], table.unit, notes, table.decimal)


def _hint_at_header(table: _Table, rows: list[tuple[int, list[str]]], options: Format) -> str:
    """A hint at the first row that has a value in every column, if it is not the one that was taken."""
    filled = [(number, sum(bool(cell.strip()) for cell in row)) for number, row in rows[:50]]
    most = max(count for _, count in filled)
    number = next(number for number, count in filled if count == most)
    if options.header or number == filled[0][0]:
        return ""
    return f" If the names of the columns are in {table.unit} {number}: --header {number}"


def refuse_duplicate_columns(source: Path | str, names: list[str]) -> None:
    """Refuse rows of which one value of two would be left out.

    Raises:
        ConfigError: two columns of `source` have one name.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        listed = ", ".join(names)[:200]
        raise ConfigError(f"{source}: a column is named twice: {twice!r} ({listed}). Nothing was queued.")
