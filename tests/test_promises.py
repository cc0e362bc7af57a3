"""Each promise of docs/promises.md is shown by tests that carry it in their names, and the page counts them.

python -m tests.test_promises    # writes the counts anew
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "promises.md"
_LINE = re.compile(r"^\| ([SLWXO]\d+) \| (.+) \| (\d+) \|$", re.MULTILINE)


def counted() -> Counter[str]:
    """Promise → how many tests name it."""
    found: Counter[str] = Counter()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for name in re.findall(r"def test_((?:[slwxo]\d+_)+)", path.read_text(encoding="utf-8")):
            found.update(promise.upper() for promise in name.strip("_").split("_"))
    return found


def test_each_promise_is_shown_by_tests_and_the_page_counts_them() -> None:
    rows = [(promise, int(count)) for promise, _, count in _LINE.findall(PAGE.read_text(encoding="utf-8"))]
    assert len(rows) > 50
    told = dict(rows)
    assert len(told) == len(rows), "a promise has two rows"
    assert told == dict(counted()), "python -m tests.test_promises"
    assert all(told.values())


def main() -> None:
    """Write the counts into the page."""
    counts = counted()
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_LINE.sub(lambda m: f"| {m[1]} | {m[2]} | {counts[m[1]]} |", text), encoding="utf-8")


if __name__ == "__main__":
    main()
