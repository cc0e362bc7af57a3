"""targets.csv: each line is a target, or is refused with its number."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from pdsync.core.targets import Target, read_targets
from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "period,owner_id,pipeline_id,currency,target\n"


def test_each_line_is_a_target(tmp_path: Path) -> None:
    (tmp_path / "targets.csv").write_text(
        HEADER + "2026,,,EUR,2000000\n\n2026-q4, 7 ,,eur,50000.50\n2024-02,,3,USD,1\n"
    )
    assert read_targets(tmp_path) == [
        Target(2, "2026", date(2026, 1, 1), date(2026, 12, 31), None, None, "EUR", Decimal(2000000)),
        Target(4, "2026-Q4", date(2026, 10, 1), date(2026, 12, 31), 7, None, "EUR", Decimal("50000.50")),
        Target(5, "2024-02", date(2024, 2, 1), date(2024, 2, 29), None, 3, "USD", Decimal(1)),
    ]


@pytest.mark.parametrize("content", [None, "", HEADER])
def test_there_need_be_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "targets.csv").write_text(content)
    assert read_targets(tmp_path) == []


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_spreadsheet_s_separators_and_mark_are_understood(tmp_path: Path, separator: str) -> None:
    text = f"Period{separator}Target{separator}Currency\r\n2026-01{separator}5{separator}EUR\r\n"
    (tmp_path / "targets.csv").write_text(text, encoding="utf-8-sig")
    assert [(each.period, each.currency, each.target) for each in read_targets(tmp_path)] == [
        ("2026-01", "EUR", Decimal(5))
    ]


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        (HEADER + "2026,,,EUR,1\n2026-13,,,EUR,1\n", 3, "period is '2026-13'"),
        (HEADER + "0000,,,EUR,1\n", 2, "period is '0000'"),
        (HEADER + "2026,Ann,,EUR,1\n", 2, "owner_id is 'Ann'"),
        (HEADER + "2026,,-1,EUR,1\n", 2, "pipeline_id is '-1'"),
        (HEADER + "2026,,,Euro,1\n", 2, "currency is 'EURO'"),
        *((HEADER + f"2026,,,EUR,{target}\n", 2, f"target is '{target}'") for target in ("", "0", "-5", "NaN", "1e15")),
        (HEADER + "2026,,,EUR\n", 2, "there are 4 cells"),
        (HEADER + '2026,,,EUR,"50,000"\n', 2, "target is '50,000'"),
        (HEADER + "2026,,,EUR,1\n2026,7,,EUR,1\n\n2026,,,EUR,2\n", 5, "the same as line 2"),
        ("period,currency\n2026,EUR\n", 1, "the columns are period, currency"),
        ("period,currency,target,team\n", 1, "the columns are"),
        ("period,currency,target,target\n", 1, "the columns are"),
    ],
)
def test_a_line_that_means_nothing_is_refused_with_its_number(
    tmp_path: Path, content: str, line: int, problem: str
) -> None:
    (tmp_path / "targets.csv").write_text(content)
    with pytest.raises(ConfigError) as refused:
        read_targets(tmp_path)
    assert f"targets.csv, line {line}: " in str(refused.value)
    assert problem in str(refused.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "targets.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_targets(tmp_path)
