"""Parses a value of a person, a file or a query as the type of its field.

Cells are text: `1.234,56 EUR`, `yes`, `31.03.2026`, `9:30 - 17:00`, `Food, drinks`. Each parser returns what the API
takes, or raises InvalidValue with an example of a right one. An ambiguous text is refused, never guessed: `1.234` is
more than a thousand in one country and a little more than one in another. The other cells of its column often decide
(`detect_styles`); so may the person.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.core import cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_GROUPING = " \u00a0\u202f\u2009'\u2019"  # never a decimal mark, in any country
_BODY = rf"[0-9][0-9.,{_GROUPING}]*[0-9]|[0-9]|[.,][0-9]+"
_NUMBER = re.compile(rf"([+\-\u2212]?) *({_BODY})([eE][+-]?[0-9]{{1,4}})?")
_MONEY = re.compile(
    rf"(?:(?P<before>[A-Za-z]{{3}}|€) *)?(?P<amount>[+\-\u2212]? *(?:{_BODY})(?:[eE][+-]?[0-9]{{1,4}})?)"
    r"(?: *(?P<after>[A-Za-z]{3}|€))?"
)
_CURRENCY = re.compile(r"[A-Za-z]{3}")
_WHOLE = re.compile(r"-?[0-9]+")
# What spreadsheets and forms write, in the languages that translate it.
_YES = frozenset(
    ("true", "yes", "y", "1", "on", "wahr", "ja", "vrai", "oui", "verdadero", "si", "sí", "vero", "sì", "verdadeiro",
     "sim", "waar", "prawda", "tak")
)  # fmt: skip
_NO = frozenset(
    ("false", "no", "n", "0", "off", "falsch", "nein", "faux", "non", "falso", "não", "onwaar", "nee", "fałsz", "nie")
)
# With dots between, the day is always the first.
_DAY = re.compile(r"(?a)(\d{4})[-/](\d\d?)[-/](\d\d?)|(\d\d?)\.(\d\d?)\.(\d{4})")
_CLOCK = re.compile(r"(?a)(\d\d?):([0-5]\d)(?::([0-5]\d)(?:\.\d+)?)?")
_SPAN = re.compile(r"(?a)(\d{1,4}):([0-5]\d)(?::([0-5]\d))?")
# What separates the begin and the end of a range, the least ambiguous first.
_BETWEEN = (re.compile(r"\s+(?:-|–|—|to|until|bis)\s+"), re.compile(r"\s*(?:/|–|—|\.\.+|→)\s*"), re.compile(r"-"))
_SEPARATOR = re.compile(r"[,;\n]")

A_NUMBER = "a number, like 12.5"
A_WHOLE = "a whole number, like 12"
AN_AMOUNT = "an amount, like 1234.56, with its currency if it has one: 1234.56 EUR"
A_FLAG = "yes or no, true or false, 1 or 0"
A_DAY = "a date, like 2026-03-31"
A_CLOCK = "a time of day, like 09:30"
A_SPAN = "a duration, like 01:30"
A_MOMENT = "a time, like 2026-03-31T10:20:00Z; without a zone it is UTC"
A_CURRENCY = "the code of a currency, like EUR"


class InvalidValue(Exception):
    """A value that can't be parsed as the type of its field; the message continues "… is …, and"."""

    def __init__(self, expected: str, *, why: str | None = None) -> None:
        super().__init__(f"should be {expected}" if why is None else why)


class NumberStyle(Struct, frozen=True):
    """How numbers in text are written: the decimal mark, and whether the person has named it."""

    mark: str | None = None
    is_named: bool = False


_UNKNOWN = NumberStyle()


class Option(Struct, frozen=True):
    """One choice of a field."""

    id: str
    label: str

    @property
    def value(self) -> int | str:
        """The id as the API takes it."""
        return int(self.id) if _WHOLE.fullmatch(self.id) else self.id


# Numbers and money.


def parse_number(value: object, style: NumberStyle = _UNKNOWN, expected: str = A_NUMBER) -> int | float:
    """A finite number. In text, digits may be grouped, with either decimal mark, if that is unambiguous."""
    if isinstance(value, str):
        return _finite(_parse_decimal(value, style, expected), expected)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise InvalidValue(expected)
    return _finite(value, expected)


def parse_integer(value: object, style: NumberStyle = _UNKNOWN) -> int:
    """An integer."""
    found = parse_number(value, style, A_WHOLE)
    if found != int(found):
        raise InvalidValue(A_WHOLE)
    return int(found)


def parse_money(value: object, style: NumberStyle = _UNKNOWN) -> tuple[int | float, str | None]:
    """An amount and its currency, if it names one."""
    if not isinstance(value, str):
        return parse_number(value, style, AN_AMOUNT), None
    match = _MONEY.fullmatch(_trim(value))
    if not match or (match["before"] and match["after"]):
        raise InvalidValue(AN_AMOUNT)
    code = match["before"] or match["after"]
    amount = match["amount"] if code else value  # otherwise `value` itself: it may be a Numeral
    return parse_number(amount, style, AN_AMOUNT), ("EUR" if code == "€" else code.upper()) if code else None


def parse_currency(value: object) -> str:
    """The code of a currency in upper case."""
    text = value.strip() if isinstance(value, str) else ""
    if not _CURRENCY.fullmatch(text):
        raise InvalidValue(A_CURRENCY)
    return text.upper()


def detect_styles(
    rows: Iterable[Mapping[str, object]], named: str | None, file: str | None = None
) -> dict[str, NumberStyle]:
    """How numbers are written in each column: as named, as its unambiguous cells show, or as in the file.

    Args:
        rows: the values by column.
        named: the decimal mark that the person names; it applies to every column.
        file: the decimal mark that the delimiter of the file implies, if it does.
    """
    shown: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            marks = shown.setdefault(name, set())
            if isinstance(value, str) and not isinstance(value, cells.Numeral) and len(marks) < 2:
                match = _MONEY.fullmatch(_trim(value))
                parts = _NUMBER.fullmatch(match["amount"]) if match else None
                if parts and not parts[2].isdigit() and len(found := _readings(parts[2])) == 1:
                    marks.update(found)
    if named:
        return {name: NumberStyle(named, is_named=True) for name in shown}
    return {name: NumberStyle(next(iter(marks)) if len(marks) == 1 else None if marks else file)
            for name, marks in shown.items()}  # fmt: skip


def _parse_decimal(text: str, style: NumberStyle, expected: str) -> Decimal:
    style = NumberStyle(".") if isinstance(text, cells.Numeral) else style
    parts = _NUMBER.fullmatch(_trim(text))
    readings = _readings(parts[2]) if parts else {}
    if not parts or not readings:
        raise InvalidValue(expected)
    if style.is_named and style.mark not in readings:
        raise InvalidValue(expected, why=f"does not have {style.mark!r} for its decimal mark, as --decimal says")
    if style.mark in readings:
        found = readings[style.mark]
    elif len(set(readings.values())) == 1:
        found = next(iter(readings.values()))
    else:
        few, many = sorted(readings.values())
        raise InvalidValue(
            expected,
            why=f"could mean {few} or {many:.0f}. Write {few}0 for the first or {many:.1f} for the second,"
            " or name the decimal mark with --decimal",
        )
    exponent = Decimal(f"1{parts[3]}") if parts[3] else Decimal(1)
    return found * exponent * (-1 if parts[1] in ("-", "\u2212") else 1)


def _readings(body: str) -> dict[str, Decimal]:
    """The numbers that digits may mean, by the decimal mark that is assumed."""
    found = {}
    for mark in ".,":
        before, _, after = body.partition(mark)
        grouped = re.fullmatch(rf"(?!0)\d{{1,3}}(?:([{_GROUPING}.,])\d{{3}})(?:\1\d{{3}})*", before)
        indian = re.fullmatch(r"(?!0)\d{1,2}(?:,\d\d)+,\d{3}", before)
        if mark in body and not after.isdigit():
            continue
        if before == "" or before.isdigit() or indian or (grouped and grouped[1] != mark):
            found[mark] = Decimal(f"{re.sub(r'[^0-9]', '', before) or 0}.{after or 0}")
    return found


def _finite(value: float | Decimal, expected: str) -> int | float:
    if isinstance(value, int):
        return value
    found = float(value)
    if not math.isfinite(found):
        raise InvalidValue(expected, why=f"is no finite number, and should be {expected}")
    whole = int(value)  # exact: not every whole number has a float
    return whole if whole == value and abs(whole) < 2**63 else found


# Yes and no, days and times.


def parse_boolean(value: object) -> bool:
    """Yes or no."""
    word = value.strip().lower() if isinstance(value, str) else str(int(value)) if value in (0, 1) else ""
    if word in _YES:
        return True
    if word in _NO:
        return False
    raise InvalidValue(A_FLAG)


def parse_date(value: object) -> str:
    """A date; a time is accepted only if it is midnight, as spreadsheets write dates."""
    if isinstance(value, datetime):
        value = value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    text = re.sub(r"[T ]00:00(:00(\.0+)?)?(Z|[+-]00(:?00)?)?$", "", value.strip()) if isinstance(value, str) else ""
    match = _DAY.fullmatch(text)
    if not match:
        raise InvalidValue(A_DAY)
    parts = (match[1], match[2], match[3]) if match[1] else (match[6], match[5], match[4])
    try:
        return date(*map(int, parts)).isoformat()
    except ValueError:
        raise InvalidValue(A_DAY) from None


def parse_time(value: object, *, seconds: bool = True) -> str:
    """A time of day."""
    if isinstance(value, time):
        value = value.isoformat()
    match = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match or int(match[1]) > 23:
        raise InvalidValue(A_CLOCK)
    return f"{int(match[1]):02}:{match[2]}" + (f":{match[3] or '00'}" if seconds else "")


def parse_duration(value: object, *, seconds: bool = True) -> str:
    """A duration, which may be longer than a day: 26:00."""
    if isinstance(value, timedelta) and value >= timedelta():
        minutes, rest = divmod(int(value.total_seconds()), 60)
        value = f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
    if isinstance(value, time):
        value = value.isoformat()
    match = _SPAN.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        raise InvalidValue(A_SPAN)
    return f"{int(match[1]):02}:{match[2]}" + (f":{match[3] or '00'}" if seconds else "")


def parse_timestamp(value: object, *, v1: bool = False) -> str:
    """A timestamp in UTC, as v2 of the API takes it, or v1."""
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
        found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidValue(A_MOMENT) from None
    if v1:
        return found.strftime("%Y-%m-%d %H:%M:%S")
    return found.isoformat().replace("+00:00", "Z")


def parse_range(value: object, kind: str) -> dict[str, str]:
    """A `daterange` or `timerange`: begin and end, or only the begin."""
    one, like = (parse_date, "2026-03-01 - 2026-03-31") if kind == "daterange" else (parse_time, "09:00 - 17:00")
    divided = [[value]]
    if isinstance(value, str):
        divided = [[value], *(list(mark.split(value.strip())) for mark in _BETWEEN)]
    found: list[str] = []
    for parts in divided:
        try:
            found = found or [one(part) for part in parts]
        except InvalidValue:
            continue
    expected = f"a begin and an end, like {like}"
    if len(found) not in (1, 2):
        raise InvalidValue(expected)
    if found != sorted(found) and kind == "daterange":
        raise InvalidValue(expected, why=f"ends before it begins, and should be {expected}")
    return dict(zip(("value", "until"), found, strict=False))


# Choices.


def find_option(value: object, options: list[Option]) -> int | str:
    """The id of the option with this label or id. A label that is the id of another option is ambiguous.

    Raises:
        InvalidValue: it is ambiguous; or it is no option, and the message is empty: the caller has to say why.
    """
    text = _trim(str(int(value) if isinstance(value, float) and value.is_integer() else value))
    found = _matching_options(text, options)
    if len(found) == 1:
        return found[0].value
    if not found:
        raise InvalidValue("", why="")
    if any(each.id == text for each in found) and len(found) == 2:
        one, other = sorted(found, key=lambda each: each.id != text)
        raise InvalidValue(
            "", why=f"is the label of option {other.id} and the id of {one.label!r}: give {other.id} or {one.label!r}"
        )
    ids = ", ".join(sorted(each.id for each in found))
    raise InvalidValue("", why=f"is what several options are called ({ids}): give the id")


def find_options(value: object, options: list[Option]) -> list[int | str]:
    """The ids of the options in a list: JSON, or labels separated by commas, which labels may contain as well.

    Raises:
        InvalidValue: as `find_option`; also where the text can be divided in several ways.
    """
    if not isinstance(value, str):
        return _find_each(value if isinstance(value, list | tuple) else [value], options)
    text = value.strip()
    if _matching_options(text, options):
        return _split_into_options(text, options)
    if text.startswith("[") and text.endswith("]"):
        try:
            return _find_each(msgspec.json.decode(text, type=list[str | int | float]), options)
        except msgspec.DecodeError:
            text = text[1:-1]
    return _split_into_options(text, options)


def _find_each(values: Iterable[object], options: list[Option]) -> list[int | str]:
    found = []
    for value in values:
        try:
            found.append(find_option(value, options))
        except InvalidValue as error:
            raise InvalidValue("", why=f"has {value!r}, which {error}" if str(error) else "") from None
    return list(dict.fromkeys(found))


def _split_into_options(text: str, options: list[Option]) -> list[int | str]:
    """The options of `text`, if it can be divided into options in one way only."""
    ends = [*(each.start() for each in _SEPARATOR.finditer(text)), len(text)]
    most = max((len(_SEPARATOR.findall(each.label)) for each in options), default=0) + 1  # parts of one label
    ways: dict[int, list[tuple[Option, ...]]] = {-1: [()]}  # the end of a part → the ways to divide the text before it
    for at, end in enumerate(ends):
        ways[end] = list(ways.get(ends[at - 1] if at else -1, [])) if not _between(text, ends, at).strip() else []
        for begin in [-1, *ends[:at]][-most:]:
            for fit in _matching_options(text[begin + 1 : end].strip(), options) if ways.get(begin) else ():
                ways[end] += [(*way, fit) for way in ways[begin]]
        ways[end] = list({tuple(sorted({each.id for each in way})): way for way in ways[end]}.values())[:9]
    found = ways[len(text)]
    if len(found) == 1:
        return list(dict.fromkeys(each.value for each in found[0]))
    if not found:
        return _find_each(
            [part.strip() for part in _SEPARATOR.split(text) if part.strip()], options
        )  # says which is none
    one, other = (", ".join(f"{each.label!r} ({each.id})" for each in way) for way in found[:2])
    raise InvalidValue(
        "", why=f'may be {one} or {other}: give a list of ids, like {found[0][0].id},…, or of JSON, like ["…"]'
    )


def _between(text: str, ends: list[int], at: int) -> str:
    return text[(ends[at - 1] + 1 if at else 0) : ends[at]]


def _matching_options(text: str, options: list[Option]) -> list[Option]:
    """The options that a text may mean: with this label, otherwise with it in another case; and with this id."""
    plain = text.casefold()
    named = [each for each in options if each.label == text]
    named = named or [each for each in options if each.label.strip().casefold() == plain and plain]
    return named + [each for each in options if each.id == text and each not in named]


# E-mail addresses and phone numbers.


def parse_contacts(value: object) -> list[dict[str, Any]] | None:
    """The entries of a list of e-mail addresses or phone numbers: objects as they are, texts as the value of one.

    Returns:
        None if it is no such list.
    """
    if isinstance(value, str):
        text = value.strip()
        if text.startswith(("[", "{")):
            try:
                value = msgspec.json.decode(text)
            except msgspec.DecodeError:
                return None
        else:
            value = [each.strip() for each in re.split(r"[,;\n]", text) if each.strip()]
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list | tuple) or not all(isinstance(each, str | dict) for each in value):
        return None
    return [{"value": each.strip()} if isinstance(each, str) else each for each in value]


def complete_contacts(given: list[dict[str, Any]], stored: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries with the labels that the record has for the same values, and the primary one marked.

    Where no entry has the key `primary`, true or false, the first one is primary; but if it was the first before as
    well, the primary entry of the record stays the primary one.

    Args:
        given: the new entries.
        stored: the entries that the record has now.
    """
    existing = {_same_contact(each): each for each in reversed(stored)}
    made = []
    for each in given:
        old = existing.get(_same_contact(each), {})
        made.append({"value": each.get("value"), "label": old.get("label") or "work", **each})
    if not any("primary" in each for each in given):
        main = next((_same_contact(each) for each in stored if each.get("primary")), None)
        kept = [_same_contact(each) for each in made]
        stays = main in kept and kept[0] == _same_contact(stored[0])
        at = kept.index(main) if main is not None and stays else 0
        made = [{**each, "primary": index == at} for index, each in enumerate(made)]
    return made


def _same_contact(entry: Mapping[str, Any]) -> str:
    return str(entry.get("value")).strip().lower()


def refuse_not_finite(value: object) -> None:
    """Raise InvalidValue for NaN and infinities, which JSON does not have, anywhere in a value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            refuse_not_finite(each)
    elif isinstance(value, float | Decimal) and not math.isfinite(value):
        raise InvalidValue(A_NUMBER, why="is no finite number. Give a number, or null (None) for none")


def _trim(text: str) -> str:
    return text.strip(f" \t\r\n{_GROUPING[1:4]}")
