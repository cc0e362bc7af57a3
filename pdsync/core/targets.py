"""Reads targets.csv of a project: how much a company, a user or a pipeline is to win in a month, quarter or year.

A file, because each run replaces the published warehouse: what a person writes into that would be gone.
"""

from __future__ import annotations

import csv
import re
from calendar import monthrange
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

FILE = "targets.csv"
_COLUMNS = ("period", "owner_id", "pipeline_id", "currency", "target")
_REQUIRED = ("period", "currency", "target")
_PERIOD = re.compile(r"(\d{4})(?:-(?:Q([1-4])|(0[1-9]|1[0-2])))?")
_NUMBER = re.compile(r"[0-9]{1,14}(\.[0-9]{1,4})?")  # what a column of money can store


class Target(Struct, frozen=True):
    """A line of the file."""

    line: int
    period: str  # 2026, 2026-Q4 or 2026-11
    first_day: date
    last_day: date
    owner_id: int | None  # None: the whole company
    pipeline_id: int | None  # None: all pipelines
    currency: str
    target: Decimal


def read_targets(project: Path) -> list[Target]:
    """The targets of the project in the order of the file; none if there is no file.

    Raises:
        ConfigError: a line can't be understood, or two lines are about the same; names the line and what is expected.
    """
    path = project / FILE
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}. Save it as CSV in UTF-8.") from error
    if not lines:
        return []
    delimiter = max(",;\t", key=lines[0].count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    names = [name.lower() for name in rows[0]]
    if len(set(names)) < len(names) or not set(_REQUIRED) <= set(names) <= set(_COLUMNS):
        expected = f"{', '.join(_COLUMNS)}; owner_id and pipeline_id may be left out"
        raise _refusal(1, f"the columns are {', '.join(names)}", expected)
    targets: dict[tuple[object, ...], Target] = {}
    for number, cells in enumerate(rows[1:], start=2):
        if not any(cells):
            continue
        if len(cells) != len(names):
            raise _refusal(number, f"there are {len(cells)} cells", f"{len(names)}, as in the first line")
        target = _parse(number, dict(zip(names, cells, strict=True)))
        key = (target.first_day, target.last_day, target.owner_id, target.pipeline_id, target.currency)
        if key in targets:
            raise _refusal(number, f"it is about the same as line {targets[key].line}", "one line for each")
        targets[key] = target
    return list(targets.values())


def _parse(line: int, cells: dict[str, str]) -> Target:
    """The target of one line."""
    period, currency = cells["period"].upper(), cells["currency"].upper()
    parts = _PERIOD.fullmatch(period)
    if parts is None or parts[1] == "0000":
        raise _refusal(line, f"period is {period!r}", "2026, 2026-Q4 or 2026-11")
    if not re.fullmatch("[A-Z]{3}", currency):
        raise _refusal(line, f"currency is {currency!r}", "an ISO code, as EUR")
    if not _NUMBER.fullmatch(cells["target"]) or not (target := Decimal(cells["target"])):
        raise _refusal(line, f"target is {cells['target']!r}", "a number above 0, as 50000 or 50000.50")
    year, quarter, month = int(parts[1]), parts[2], parts[3]
    first_month = 3 * int(quarter) - 2 if quarter else int(month or 1)
    last_month = first_month + 2 if quarter else int(month or 12)
    return Target(
        line=line,
        period=period,
        first_day=date(year, first_month, 1),
        last_day=date(year, last_month, monthrange(year, last_month)[1]),
        owner_id=_parse_id(line, "owner_id", cells),
        pipeline_id=_parse_id(line, "pipeline_id", cells),
        currency=currency,
        target=target,
    )


def _parse_id(line: int, name: str, cells: dict[str, str]) -> int | None:
    """The id in a cell; None if it is empty."""
    cell = cells.get(name, "")
    if cell and not re.fullmatch(r"[0-9]{1,18}", cell):
        raise _refusal(line, f"{name} is {cell!r}", "an id, or empty for all")
    return int(cell) if cell else None


def _refusal(line: int, problem: str, expected: str) -> ConfigError:
    return ConfigError(f"{FILE}, line {line}: {problem}. Expected: {expected}. Nothing was changed.")
