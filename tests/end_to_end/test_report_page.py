"""The report in a real Chromium: accessible in light and dark, on a phone and on a desk, and it loads nothing."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.proofs.report_page import KINDS, fetch_axe, follow, inspect, make_report, read_print, violations
from tests.support import browser

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    if not browser.find():
        pytest.skip("no Chromium is installed")
    try:
        return fetch_axe(tmp_path_factory.mktemp("axe"))
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"axe-core can't be installed from npm: {error}")


@pytest.fixture(scope="module", params=[120, 0], ids=["company", "empty"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_report(tmp_path_factory.mktemp("project"), deals=request.param)


@pytest.mark.parametrize(("width", "dark"), KINDS)
async def test_the_report_is_accessible_and_asks_nothing(axe: str, report: Path, width: int, dark: bool) -> None:
    facts = await inspect(report, axe, width=width, dark=dark)
    assert violations(report, facts, dark=dark) == []


@pytest.mark.skipif(not browser.find(), reason="no Chromium is installed")
async def test_an_open_page_follows_its_window_and_the_theme(report: Path) -> None:
    assert [name for name, follows in (await follow(report)).items() if not follows] == []


@pytest.mark.skipif(not (browser.find() and shutil.which("pdftotext")), reason="no Chromium or pdftotext is installed")
async def test_what_is_printed_has_every_word_of_its_tables_uncut(report: Path) -> None:
    facts = await read_print(report)
    assert (facts["missing"], facts["cut"]) == ([], [])
    assert facts["pages"] > 1
