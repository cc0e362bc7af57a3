"""The house stays readable: modules, classes and signatures keep to a size that fits a reader's head."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pdsync

PACKAGE = Path(pdsync.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES, MOST_CLASS_LINES, MOST_PARAMETERS = 450, 300, 10


def _is_click_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("command" in ast.unparse(each) or "option" in ast.unparse(each) for each in function.decorator_list)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_its_classes_and_its_signatures_are_small(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MOST_CLASS_LINES, f"class {node.name} has {lines} lines"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_click_command(node):
            parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            named = [each.arg for each in parameters if each.arg not in ("self", "cls")]
            assert len(named) <= MOST_PARAMETERS, f"{node.name} has {len(named)} parameters"
