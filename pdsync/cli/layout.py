"""Lays rows out as lines of a given width: a table, records side by side, records one by one, or a glimpse.

A table is drawn if every column stays legible: numbers, dates and ids whole, texts shortened with an ellipsis, the
widest first. Where that does not fit, few rows are turned (columns down, records across), and of many rows the first
columns are drawn and the others named below. Without a width, for a file or pipe, nothing is shortened or left out.
"""

from __future__ import annotations

import re
from datetime import date, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from msgspec import Struct

from pdsync.cli.render import cell
from pdsync.cli.text_width import cell_width, left_to_right, pad, shorten, wrap
from pdsync.core.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_ROWS = 1_000  # drawn on a terminal
_GAP, _INDENT = 2, 4  # between columns; of remarks below a row
_LEGIBLE, _TIGHT = 12, 6  # the least width of a text; where no column may be left out, if need be
_NATURAL = 40  # a longer text is shortened where columns may scroll out of sight
_TITLE = 20  # of the column that people know a record by
_ACROSS, _FEW_ROWS = 16, 5  # the width of a record beside others, and how many rows are always turned
_GLIMPSED = 10  # values of a column
_ALIGNED = 400  # a longer value in a file moves the rest of its line to the right
_NAMED_LINES = 3  # of the names of columns that are left out
_TITLES = ("title", "name", "subject")
_WHOLE = (int, float, Decimal, date, time, timedelta, UUID)
_ID = re.compile(
    r"[-+]?[\d.,]+( ?%)?"  # a number, also as text
    r"|-?infinity|\d{4,}-\d\d-\d\d([ T][\d:.+Z]+)?( \(BC\))?"  # a time, also beyond Python's
    r"|#?[a-z0-9_.:+-]*\d[a-z0-9_.:+-]*"  # an id: it contains a digit, and no space
    r"|[a-z0-9]+(_[a-z0-9]+)+|(?-i:[a-z]+([A-Z]+[a-z]+)+)"  # the name of a table, a column or an operation
    r"|[a-z_]+[ /]#?[a-z0-9-]*\d[a-z0-9-]*",  # a record: `deals/42`
    re.IGNORECASE | re.ASCII,
)
_LONGEST_ID = 60
_PLAIN = re.compile(r"-?[\d,]+(\.\d+)?")  # a number without an exponent


class Line(NamedTuple):
    """One line, and its style."""

    text: str
    style: str = ""


class Hints(Struct, frozen=True):
    """How to see what a terminal has no room for. Without a hint no column is left out; rows beyond MOST_ROWS are."""

    columns: str = ""  # `{columns}` in it stands for columns that could be chosen
    empty: str = ""  # columns that are NULL in every row
    rows: str = ""  # beyond MOST_ROWS


class Rows(Struct, frozen=True):
    """Rows to be shown."""

    names: Sequence[str]
    values: Sequence[Sequence[Any]]  # n rows of as many values as there are names
    total: int | None = None  # rows of the whole answer, where `values` are the first of them
    counts: bool = False  # integers are counts, not ids: with thousands separators
    notes: bool = False  # the last column has lists of remarks: below the rows if they do not fit beside them
    hints: Hints = Hints()
    is_data: bool = False  # an empty text or list is visible, so that only NULL is blank


class _Column(NamedTuple):
    name: str
    texts: list[str]
    whole: list[int]  # for each text, its width if it is never shortened, else 0
    natural: int  # width of the widest text, and of the name
    is_number: bool = False
    is_empty: bool = False

    def least(self, legible: int) -> int:
        return max([min(self.natural, legible), *self.whole])


def lay_out(rows: Rows, width: int | None, *, scrolls: bool = False) -> list[Line]:
    """The lines of a table, none wider than `width`.

    Args:
        rows: what to show; at most MOST_ROWS of them are drawn.
        width: of the terminal, in cells; None: unlimited, and nothing is left out.
        scrolls: the reader can scroll to the right; columns that do not fit are drawn instead of named.
    """
    if width is None:
        columns = _columns(rows, len(rows.values))
        return _draw(columns, [min(column.natural, _ALIGNED) for column in columns])
    columns = _columns(rows, MOST_ROWS)
    drawn = min(len(rows.values), MOST_ROWS)
    if not columns:
        return []
    if rows.notes:
        lines = _with_notes(columns, [row[-1] for row in rows.values[:MOST_ROWS]], width)
    elif widths := _fit(columns, width, _LEGIBLE) or ([] if rows.hints.columns else _fit(columns, width, _TIGHT)):
        lines = _draw(columns, widths, is_bounded=True)
    elif not rows.hints.columns:
        lines = _record_lines(columns, drawn, width)
    elif 0 < drawn <= max(_FEW_ROWS, (width - _names_width(columns, width)) // (_ACROSS + _GAP)):
        lines = _pivot(*_without_empty(columns, rows.hints.empty), width)
    else:
        lines = _first_columns(columns, width, rows.hints, scrolls=scrolls)
    return lines + _more_rows(rows, drawn)


def lay_out_records(rows: Rows, width: int | None) -> list[Line]:
    """One record below the other, a line for each column and line of text; a terminal wraps long ones."""
    drawn = len(rows.values) if width is None else min(len(rows.values), MOST_ROWS)
    columns = _columns(rows, drawn, breaks_lines=True)
    if width is None:
        return _record_lines(columns, drawn, None)
    shown, footer = _without_empty(columns, rows.hints.empty)
    return _record_lines(shown, drawn, width) + footer + _more_rows(rows, drawn)


def lay_out_glimpse(rows: Rows, types: Sequence[str], width: int | None) -> list[Line]:
    """One line for each column: name, type, first values."""
    first = rows.values[:_GLIMPSED]
    total = len(rows.values) if rows.total is None else rows.total
    names = [one_line(name) for name in rows.names]
    name_width = max(map(cell_width, names), default=0)
    type_width = max(map(len, types), default=0)
    if width is not None:
        name_width, type_width = min(name_width, width // 3), min(type_width, width // 4)
    lines = [Line(f"{counted(total, 'row')}, {counted(len(names), 'column')}", "dim")]
    for index, (name, kind) in enumerate(zip(names, types, strict=True)):
        head = f"{pad(shorten(name, name_width), name_width)}  {pad(shorten(kind, type_width), type_width)}  "
        room = None if width is None else width - name_width - type_width - 2 * _GAP
        lines.append(
            Line(
                left_to_right(
                    (head + _first_values([row[index] for row in first], room)).rstrip(), on_terminal=width is not None
                )
            )
        )
    return lines


def _first_values(values: list[Any], room: int | None) -> str:
    shown = ""
    for number, value in enumerate(values):
        text = "NULL" if value is None else f"'{one_line(value)}'" if isinstance(value, str) else one_line(value)
        if room is not None and not _is_whole(value, text):
            text = shorten(text, min(_NATURAL, room - 3))
        longer = f"{shown}, {text}" if number else text
        if room is not None and cell_width(longer) > room - 3 * (number < len(values) - 1):
            return f"{shown}, …" if number else "…"
        shown = longer
    return shown


def one_line(value: Any, *, counts: bool = False) -> str:
    """A value as text for people, in one line."""
    return _in_lines(value, counts=counts).replace("\n", "\\n")


def _in_lines(value: Any, *, counts: bool) -> str:
    """A value as text for people, with the line breaks it has."""
    text = ", ".join(map(_element, value)) if isinstance(value, list) else cell(value, counts=counts)
    return text.replace("\\x0d\n", "\n").replace("\t", "\\t")


def _element(value: Any) -> str:
    """An element of a list, in quotes where the list could be read in another way."""
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return f"[{', '.join(map(_element, value))}]"
    text = cell(value)
    is_clear = text == text.strip() and text not in ("", "NULL") and not set(text) & set(",'[]")
    return text if is_clear or not isinstance(value, str) else "'" + text.replace("'", "''") + "'"


def _columns(rows: Rows, most: int, *, breaks_lines: bool = False) -> list[_Column]:
    drawn = rows.values[:most]
    columns = [[row[index] for row in drawn] for index in range(len(rows.names))]
    if rows.notes:
        columns[-1] = ["; ".join(remarks) for remarks in columns[-1]]
    return [
        _column(one_line(str(name)), values, _texts(rows, values, breaks_lines=breaks_lines))
        for name, values in zip(rows.names, columns, strict=True)
    ]


def _texts(rows: Rows, values: list[Any], *, breaks_lines: bool) -> list[str]:
    """The values of a column as texts; floats with as many decimals as the one that has most."""
    as_text = _in_lines if breaks_lines else one_line
    texts = [as_text(value, counts=rows.counts) for value in values]
    decimals = max(
        (_decimals(text) for text, value in zip(texts, values, strict=True) if isinstance(value, float)), default=0
    )
    for index, value in enumerate(values):
        if decimals and isinstance(value, float) and _PLAIN.fullmatch(texts[index]):
            missing = decimals - _decimals(texts[index])
            texts[index] += ("." if missing == decimals else "") + "0" * missing
        elif rows.is_data and value in ("", []):
            texts[index] = "''" if value == "" else "[]"
    return texts


def _decimals(text: str) -> int:
    """How many decimals a number has; 0 if it is written with an exponent."""
    return len(text.partition(".")[2]) if _PLAIN.fullmatch(text) else 0


def _column(name: str, values: list[Any], texts: list[str]) -> _Column:
    widths = [cell_width(text) for text in texts]
    whole = [width if _is_whole(value, text) else 0 for value, text, width in zip(values, texts, widths, strict=True)]
    present = [value for value in values if value is not None]
    is_number = all(isinstance(v, int | float | Decimal) and not isinstance(v, bool) for v in present)
    return _Column(
        name, texts, whole, max([cell_width(name), *widths]),
        is_number=bool(present) and is_number, is_empty=bool(values) and not present,
    )  # fmt: skip


def _is_whole(value: Any, text: str) -> bool:
    """Whether a value is never shortened: a number, a date, an id."""
    return isinstance(value, _WHOLE) or (len(text) <= _LONGEST_ID and _ID.fullmatch(text) is not None)


def _fit(columns: Sequence[_Column], width: int, legible: int) -> list[int] | None:
    """The widths of columns that share `width`, the widest texts shortened; None: they are not legible in it."""
    room = width - _GAP * (len(columns) - 1)
    least = [column.least(legible) for column in columns]

    def capped(cap: int) -> list[int]:
        return [min(c.natural, max(cap, low)) for c, low in zip(columns, least, strict=True)]

    if sum(least) > room:
        return None
    low, high = 0, max((column.natural for column in columns), default=0)
    while low < high:  # the widest cap that fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(capped(middle)) <= room else (low, middle - 1)
    return capped(low)


def _draw(columns: Sequence[_Column], widths: Sequence[int], *, is_bounded: bool = False) -> list[Line]:
    """The lines of a table; `is_bounded`: on a terminal, where what is wider than its column is shortened."""
    places = list(zip(columns, widths, strict=True))

    def line(texts: Iterable[str]) -> str:
        cells = (
            pad(shorten(text, width) if is_bounded else text, width, right=column.is_number)
            for text, (column, width) in zip(texts, places, strict=True)
        )
        return left_to_right((" " * _GAP).join(cells).rstrip(), on_terminal=is_bounded)

    names = [column.name for column in columns]
    header = [Line(line(names), "bold")] if any(names) else []
    return header + [Line(line(texts)) for texts in zip(*(column.texts for column in columns), strict=True)]


def _with_notes(columns: list[_Column], notes: list[list[str]], width: int) -> list[Line]:
    """A table whose remarks are put below the rows if they do not all fit beside them."""
    others = columns[:-1]
    fits = sum(column.natural for column in columns) + _GAP * len(others) <= width
    if fits and all(len(remarks) < 2 for remarks in notes):
        return _draw(columns, [column.natural for column in columns], is_bounded=True)
    widths = _fit(others, width, _LEGIBLE) or _fit(others, width, _TIGHT)
    if widths is None:
        return _record_lines(columns, len(notes), width)
    drawn = _draw(others, widths, is_bounded=True)
    lines = drawn[: len(drawn) - len(notes)]
    for line, remarks in zip(drawn[len(lines) :], notes, strict=True):
        parts = [part for remark in remarks for part in wrap(one_line(remark), width - _INDENT)]
        lines += [line, *(Line(left_to_right(" " * _INDENT + part)) for part in parts)]
    return lines


def _names_width(columns: Sequence[_Column], width: int) -> int:
    return min(max((cell_width(column.name) for column in columns), default=0), max(width // 3, _LEGIBLE))


def _without_empty(columns: list[_Column], hint: str) -> tuple[list[_Column], list[Line]]:
    """Columns without those that are NULL in every row, and a line that counts these."""
    shown = [column for column in columns if not (hint and column.is_empty)]
    left = len(columns) - len(shown)
    if not shown or not left:
        return columns, []
    return shown, [Line(f"… {left:,} more {'is' if left == 1 else 'are'} empty; {hint}", "dim")]


def _pivot(columns: list[_Column], footer: list[Line], width: int) -> list[Line]:
    """Columns down and records across, in as many blocks as the width needs."""
    columns = _leading(columns)
    names = [column.name for column in columns]
    records = [
        _Column("", texts, whole, max(map(cell_width, texts)))
        for texts, whole in zip(
            map(list, zip(*(column.texts for column in columns), strict=True)),
            map(list, zip(*(column.whole for column in columns), strict=True)),
            strict=True,
        )
    ]
    names_width = min(_names_width(columns, width), max(width - _GAP - max(r.least(0) for r in records), _TIGHT))
    room = width - names_width - _GAP
    lines: list[Line] = []
    while records:
        across = len(records)
        while across > 1 and _fit(records[:across], room, _ACROSS) is None:
            across -= 1
        across = -(-len(records) // -(-len(records) // across))  # blocks of about the same size
        widths = _fit(records[:across], room, _ACROSS) or [min(records[0].natural, max(room, records[0].least(0)))]
        head = _Column("", names, [], 0)
        block = _draw([head, *records[:across]], [names_width, *widths], is_bounded=True)
        lines += ([Line("")] if lines else []) + [block[0]._replace(style="bold"), *block[1:]]
        records = records[across:]
    return lines + footer


def _leading(columns: list[_Column]) -> list[_Column]:
    """Columns with the key and the title in front."""
    by_name = {column.name: column for column in reversed(columns)}
    title = next((by_name[name] for name in _TITLES if name in by_name), None)
    front = [column for column in (by_name.get("id"), title) if column]
    return front + [column for column in columns if not any(column is each for each in front)]


def _first_columns(columns: list[_Column], width: int, hints: Hints, *, scrolls: bool) -> list[Line]:
    """The key, the title and the columns after them, as far as they fit; the others are named below.

    An id or a position with the name beside it (`stage_id`, `stage_nr` and `stage`) comes last.
    """
    ordered = _leading(columns)
    names = {column.name for column in columns}
    if scrolls:
        return _draw(ordered, [c.least(_NATURAL) for c in ordered], is_bounded=True)
    ordered.sort(key=lambda column: _has_name_beside(column.name, names))
    chosen, used = [], -_GAP
    for column in ordered:
        if hints.empty and column.is_empty:
            continue
        legible = _TITLE if column.name in _TITLES else _LEGIBLE
        used += _GAP + column.least(legible)
        if used > width:
            break
        chosen.append(column)
    widths = _fit(chosen, width, _LEGIBLE)
    if not chosen or widths is None:
        return _record_lines(columns, len(columns[0].texts), width)
    rest = [column.name for column in columns if not any(column is each for each in chosen)]
    named = wrap(f"… {len(rest):,} more: {', '.join(rest)}", width)
    if len(named) > _NAMED_LINES:
        named = [*named[: _NAMED_LINES - 1], shorten(f"{named[_NAMED_LINES - 1].rstrip(',')}, …", width)]
    example = _choose_example(ordered, rest)
    hint = hints.columns.replace("{columns}", ",".join(example) or "A,B")
    lines = [*named, *wrap(hint, width)]
    return _draw(chosen, widths, is_bounded=True) + [Line(left_to_right(line), "dim") for line in lines]


def _has_name_beside(name: str, names: set[str]) -> bool:
    """Whether a column is the id or the position of what another column names."""
    what, _, kind = name.rpartition("_")
    return kind in ("id", "nr") and not names.isdisjoint((what, f"{what}_name"))


def _choose_example(ordered: Sequence[_Column], rest: Sequence[str]) -> list[str]:
    """Up to three columns that could be chosen: the first two, and one that was left out: the value, or a number."""
    left = sorted(
        (column for column in ordered if column.name in rest and not column.is_empty),
        key=lambda column: (column.name != "value", not column.is_number or column.name.endswith("_id")),
    )
    example = [column.name for column in (*ordered[:2], *left[:1])]
    return [name for name in dict.fromkeys(example) if re.fullmatch(r"\w+", name)]


def _record_lines(columns: list[_Column], count: int, width: int | None) -> list[Line]:
    """Records one by one, a line for each column."""
    names_width = max((cell_width(column.name) for column in columns), default=0)
    if width is not None:
        whole = max((column.least(0) for column in columns), default=0)
        names_width = min(names_width, width // 2, max(width - _GAP - whole, _TIGHT))
    lines = []
    for index in range(count):
        lines.append(Line(f"── {index + 1:,} {'─' * 20}"[: width or 40], "dim"))
        for column in columns:
            name = pad(shorten(column.name, names_width), names_width)
            text = column.texts[index]
            parts = text.split("\n") if width is None else wrap(text, max(width - names_width - _GAP, _TIGHT))
            for number, part in enumerate(parts):
                line = f"{' ' * names_width if number else name}  {part}".rstrip()
                lines.append(Line(left_to_right(line, on_terminal=width is not None)))
    return lines


def _more_rows(rows: Rows, drawn: int) -> list[Line]:
    total = len(rows.values) if rows.total is None else rows.total
    if total <= drawn:
        return []
    hint = f"; {rows.hints.rows}" if rows.hints.rows else ""
    return [Line(f"… {total - drawn:,} more of {counted(total, 'row')}{hint}", "dim")]
