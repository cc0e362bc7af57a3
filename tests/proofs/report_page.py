"""The report in a real Chromium: in light and dark, on a phone and on a desk, no violation of axe-core's rules.

A change of the window's width or of the theme redraws it, and what it prints has every word of its tables, uncut.

python -m tests.proofs.report_page REPORT.html FOLDER    # also keeps a PNG and a PDF of each kind

tests/end_to_end/test_report_page.py runs it in CI, where Chromium and npm are installed.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support import browser

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
    return {"pages": len(pages), "missing": sorted((Counter(expected.split()) - printed).elements()), "cut": cut}


if __name__ == "__main__":
    source, target = Path(sys.argv[1]).absolute(), Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    script = fetch_axe(target)
    for each_width, is_dark in KINDS:
        seen = asyncio.run(inspect(source, script, width=each_width, dark=is_dark, folder=target))
        sys.stdout.write(f"{each_width} {'dark' if is_dark else 'light'}: { {**seen, 'pdf': len(seen['pdf'])} }\n")
    sys.stdout.write(f"window and theme: {asyncio.run(follow(source))}\nprint: {asyncio.run(read_print(source))}\n")
