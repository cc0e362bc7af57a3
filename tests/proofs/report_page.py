"""The report in a real Chromium: in light and dark, on a phone and on a desk, no violation of axe-core's rules.

python -m tests.proofs.report_page REPORT.html FOLDER    # also keeps a PNG and a PDF of each kind

tests/end_to_end/test_report_page.py runs it in CI, where Chromium and npm are installed.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
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


if __name__ == "__main__":
    source, target = Path(sys.argv[1]).absolute(), Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    script = fetch_axe(target)
    for each_width, is_dark in KINDS:
        seen = asyncio.run(inspect(source, script, width=each_width, dark=is_dark, folder=target))
        sys.stdout.write(f"{each_width} {'dark' if is_dark else 'light'}: { {**seen, 'pdf': len(seen['pdf'])} }\n")
