"""Proof: the report in a real Chromium, in light and dark, on a phone and on a desk, violates no rule of axe-core.

    python -m tests.proofs.report_page                         # of a made-up company, and of an empty one
    python -m tests.proofs.report_page REPORT.html FOLDER      # this report; keeps a PNG and a PDF of each kind

It loads nothing. A change of the window's width or of the theme redraws it, and what it prints has every word of its
tables, uncut. tests/end_to_end/test_report_page.py does the same in CI, where Chromium and npm are installed.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support import browser
from tests.support.proof import Proof
from tests.support.world import Project, Remote

SEED = 3
STREAMS = ("users", "pipelines", "stages", "deals", "activities")
AXE = "4.14.1"
KINDS = [(width, dark) for width in (390, 1280) for dark in (False, True)]
_RULES = """
axe.run().then((result) => result.violations.map((each) => [each.id, each.nodes.map((node) => node.html)]))
"""
_SMALL = "[...document.querySelectorAll('.chart svg')].filter((svg) => svg.getBoundingClientRect().width < 200).length"
_NAMED = "[...document.querySelectorAll('.chart svg')].every((svg) => svg.role === 'img' && svg.ariaLabel)"

# Drawn for its width, not scaled to it.
_FITS = (
    "[...document.querySelectorAll('.chart')].every((box) => box.firstChild.viewBox.baseVal.width === box.clientWidth)"
)
_COLOURS = "[...document.querySelectorAll('.chart svg *')].map((mark) => getComputedStyle(mark).fill).join()"
_WORDS = "[...document.querySelectorAll('h1, h3, figcaption p, th, td')].map((part) => part.textContent).join(' ')"


def make_report(folder: Path, *, deals: int) -> Path:
    """The report of a made-up company in a project in `folder`."""
    company = generate_company(seed=SEED, sizes=Sizes(deals=deals), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        project = Project(folder, Remote(box.url, box.token))
        for command in (("sync", *STREAMS, "-q"), ("report", "-q")):
            ran = project.here(*command)
            assert ran.code == 0, ran
    return project.data / "report.html"


def fetch_axe(folder: Path) -> str:
    """The source of axe-core, from npm."""
    npm = shutil.which("npm") or "npm"
    subprocess.run(
        [npm, "install", "--silent", "--ignore-scripts", "--prefix", str(folder), f"axe-core@{AXE}"], check=True,
        timeout=100,
    )  # fmt: skip
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


async def inspect(path: Path, axe: str, *, width: int, dark: bool, folder: Path | None = None) -> dict[str, Any]:
    """What Chromium says of the report at that width and in that theme."""
    async with browser.opened() as page:
        await page.open(path, width=width, dark=dark)
        requests, overflow = list(page.requests), await page.evaluate("document.documentElement.scrollWidth")
        picture, pdf = await page.screenshot(), await page.print()
        facts = {
            "charts": await page.evaluate("document.querySelectorAll('.chart svg').length"),
            "small": await page.evaluate(_SMALL),
            "named": await page.evaluate(_NAMED),
            "overflow": overflow - width,
            "policy": await page.evaluate("window.violations"),
            "opened": await page.evaluate("document.querySelectorAll('details[open]').length"),
            "background": await page.evaluate("getComputedStyle(document.body).backgroundColor"),
        }
        await page.evaluate(axe)
        facts |= {"rules": await page.evaluate(_RULES), "messages": page.messages, "requests": requests, "pdf": pdf}
        if folder:
            name = f"{width}-{'dark' if dark else 'light'}"
            folder.joinpath(f"{name}.png").write_bytes(picture)
            folder.joinpath(f"{name}.pdf").write_bytes(pdf)
        return facts


def violations(path: Path, facts: dict[str, Any], *, dark: bool) -> list[str]:
    """What is wrong with what `inspect` has seen of the report at `path`; empty if nothing is."""
    expected = {
        "rules": [], "requests": [path.as_uri()], "messages": [], "policy": [], "small": 0, "named": True,
        "overflow": 0, "background": "rgb(15, 21, 27)" if dark else "rgb(243, 245, 247)",
        "opened": 0,  # printing has opened the tables, and closed them again
    }  # fmt: skip
    wrong = [f"{name}: {facts[name]}" for name, value in expected.items() if facts[name] != value]
    wrong += [f"{facts['charts']} charts"] if facts["charts"] < 2 else []
    return wrong + ([] if facts["pdf"].startswith(b"%PDF-") else ["no PDF"])


async def follow(path: Path) -> dict[str, bool]:
    """Whether the charts of an open page follow its window and the system's theme."""
    async with browser.opened() as page:
        await page.open(path, width=1280)
        first, facts = await page.evaluate(_COLOURS), {}
        for width in (390, 700, 1280):
            await page.resize(width)
            facts[f"fits {width}"] = await page.wait_for(_FITS)
        await page.set_theme(dark=True)
        facts["dark"] = await page.wait_for(f"{_COLOURS} !== {first!r}")
        await page.set_theme(dark=False)
        facts["light again"] = await page.wait_for(f"{_COLOURS} === {first!r}")
        return facts


async def read_print(path: Path) -> dict[str, Any]:
    """The words of headings, sentences and tables that the printed page lacks, and those that its edge cuts."""
    async with browser.opened() as page:
        await page.open(path, width=1280, dark=True)
        expected, pdf = await page.evaluate(_WORDS), await page.print()
    boxes = subprocess.run(["pdftotext", "-bbox", "-", "-"], input=pdf, capture_output=True, check=True).stdout
    pages = ET.fromstring(boxes).findall(".//{*}page")
    words = [(sheet, word) for sheet in pages for word in sheet.iterfind("{*}word")]
    cut = [
        word.text for sheet, word in words
        if float(word.attrib["xMin"]) < 0 or float(word.attrib["xMax"]) > float(sheet.attrib["width"])
        or float(word.attrib["yMin"]) < 0 or float(word.attrib["yMax"]) > float(sheet.attrib["height"])
    ]  # fmt: skip
    printed = Counter(part for _, word in words for part in (word.text or "").split())
    return {
        "pages": len(pages),
        "words": len(words),
        "missing": sorted((Counter(expected.split()) - printed).elements()),
        "cut": cut,
    }


def main() -> int:
    proof = Proof("tests.proofs.report_page", __doc__, title="Report page")
    proof.parser.add_argument("report", nargs="?", type=Path, help="a page that `pdsync report` has written")
    proof.parser.add_argument("folder", nargs="?", type=Path, help="where pictures and PDFs are kept")
    options = proof.options()
    programs = {"Chromium": browser.find(), "npm": shutil.which("npm"), "pdftotext": shutil.which("pdftotext")}
    if absent := [name for name, path in programs.items() if path is None]:
        sys.exit(f"This proof needs {', '.join(programs)}. Not installed: {', '.join(absent)}.")
    wrong: list[str] = []
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        target = options.folder or Path(temporary)
        target.mkdir(parents=True, exist_ok=True)
        axe = fetch_axe(Path(temporary))
        if options.report:
            reports = [options.report.absolute()]
        else:
            reports = [make_report(Path(temporary) / str(deals), deals=deals) for deals in (120, 0)]
        for report in reports:
            wrong += examine(report, axe, target, counts)
    sys.stdout.write("".join(f"WRONG: {what}\n" for what in wrong) + f"{dict(counts)}\n")
    counts["wrong"] = len(wrong)
    return proof.end(passed=not wrong, seeds=[SEED] if not options.report else [], counts=counts)


def examine(report: Path, axe: str, folder: Path, counts: Counter[str]) -> list[str]:
    """What is wrong with a report in any kind of window, when that changes, and in print."""
    wrong = []
    for width, dark in KINDS:
        facts = asyncio.run(inspect(report, axe, width=width, dark=dark, folder=folder))
        found = violations(report, facts, dark=dark)
        wrong += [f"{width} {'dark' if dark else 'light'}: {each}" for each in found]
        counts.update({"pages opened": 1, "charts": facts["charts"], "rules violated": len(facts["rules"])})
        counts["files loaded"] += len(facts["requests"]) - 1
    followed, printed = asyncio.run(follow(report)), asyncio.run(read_print(report))
    wrong += [f"it does not follow: {name}" for name, follows in followed.items() if not follows]
    wrong += [f"{name} in print: {printed[name]}" for name in ("missing", "cut") if printed[name]]
    counts.update({"changes followed": sum(followed.values()), "words printed": printed["words"]})
    counts.update({"words missing": len(printed["missing"]), "words cut": len(printed["cut"])})
    return wrong


if __name__ == "__main__":
    sys.exit(main())
