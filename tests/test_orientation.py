"""What the orientation names is there: every package, file, test and link."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PRINCIPLES = (ROOT / "docs" / "principles.md").read_text(encoding="utf-8")
PATTERNS = (ROOT / "docs" / "patterns.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_each_package_has_a_line_that_names_the_file_to_open_first() -> None:
    rows = re.findall(r"^\| `(pdsync/[\w/]*)` \| .+ \| `(\w+\.py)` \|$", CONTRIBUTING, re.MULTILINE)
    packages = {f"{path.parent.relative_to(ROOT)}/" for path in (ROOT / "pdsync").rglob("__init__.py")}
    assert sorted(package for package, _ in rows) == sorted(packages)
    assert [first for package, first in rows if not (ROOT / package / first).is_file()] == []


def test_each_module_of_the_pictures_is_there() -> None:
    pictures = "".join(re.findall(r"```mermaid\n(.*?)```", CONTRIBUTING, re.DOTALL))
    modules = re.findall(r"<br/>(\w+/\w+\.py)", pictures)
    assert len(modules) > 8
    assert [module for module in modules if not (ROOT / "pdsync" / module).is_file()] == []


def test_the_glossary_fits_on_a_screen_and_is_in_order() -> None:
    terms = re.findall(r"^- \*\*(.+?)\*\*", CONTRIBUTING.split("## Glossary")[1], re.MULTILINE)
    assert 20 < len(terms) <= 30
    assert terms == sorted(terms)


def test_there_are_at_most_twelve_principles_and_each_names_a_test_that_exists() -> None:
    principles = re.split(r"^\d+\. ", PRINCIPLES, flags=re.MULTILINE)[1:]
    assert 1 < len(principles) <= 12
    for principle in principles:
        shown = re.findall(r"Shown by `(tests/[\w/]+\.py)::(\w+)`\.", principle)
        assert shown, principle
        assert [name for path, name in shown if name not in functions_of(path)] == []


def test_each_pattern_is_short_and_names_a_test() -> None:
    patterns = PATTERNS.split("\n## ")[1:]
    assert [pattern.splitlines()[0] for pattern in patterns] == [
        "A stream", "An operation", "A view", "A fault of the sandbox", "A setting", "A write rule",
    ]  # fmt: skip
    for pattern in patterns:
        assert len(pattern.strip().splitlines()) <= 13, pattern
        assert "`tests/" in pattern


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_and_each_file_of_the_repository_that_is_named_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text)]
    assert [link for link in links if not (page.parent / link).exists()] == []
    named = re.findall(r"`((?:tests|schemas|benchmarks|pdsync|docs)/[\w./-]+\w)", text)
    assert [name for name in named if not (ROOT / name).exists()] == []
