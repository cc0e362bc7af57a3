"""The report in a real Chromium: accessible in light and dark, on a phone and on a desk, and it loads nothing."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.proofs.report_page import KINDS, fetch_axe, follow, inspect, read_print
from tests.support import browser
from tests.support.world import Project, Remote

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.proof
STREAMS = ("users", "pipelines", "stages", "deals", "activities")


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
    company = generate_company(seed=3, sizes=Sizes(deals=request.param), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        project = Project(tmp_path_factory.mktemp("project"), Remote(box.url, box.token))
        assert project.here("sync", *STREAMS, "-q").code == 0
        assert project.here("report", "-q").code == 0
    return project.data / "report.html"


@pytest.mark.parametrize(("width", "dark"), KINDS)
async def test_the_report_is_accessible_and_asks_nothing(axe: str, report: Path, width: int, dark: bool) -> None:
    facts = await inspect(report, axe, width=width, dark=dark)
    assert facts["rules"] == []
    assert facts["requests"] == [report.as_uri()]
    assert (facts["messages"], facts["policy"]) == ([], [])
    assert facts["charts"] >= 2
    assert (facts["small"], facts["named"], facts["overflow"]) == (0, True, 0)
    assert facts["background"] == ("rgb(15, 21, 27)" if dark else "rgb(243, 245, 247)")
    assert facts["pdf"].startswith(b"%PDF-")
    assert facts["opened"] == 0  # printing has opened the tables, and closed them again


@pytest.mark.skipif(not browser.find(), reason="no Chromium is installed")
async def test_an_open_page_follows_its_window_and_the_theme(report: Path) -> None:
    assert [name for name, follows in (await follow(report)).items() if not follows] == []


@pytest.mark.skipif(not (browser.find() and shutil.which("pdftotext")), reason="no Chromium or pdftotext is installed")
async def test_what_is_printed_has_every_word_of_its_tables_uncut(report: Path) -> None:
    facts = await read_print(report)
    assert (facts["missing"], facts["cut"]) == ([], [])
    assert facts["pages"] > 1
