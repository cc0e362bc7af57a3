"""The sandbox knows the API from its documents only: it imports nothing of what it is there to test."""

from __future__ import annotations

import ast
from pathlib import Path

import pdsync.sandbox

HOME = Path(pdsync.sandbox.__file__).parent


def test_no_module_imports_or_reads_the_rest_of_the_project() -> None:
    for path in HOME.rglob("*.py"):
        text = path.read_text("utf-8")
        depth = len(path.relative_to(HOME).parts)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                assert not any(name.name.startswith("pdsync") for name in node.names), path
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                assert not module.startswith("pdsync") or module.startswith("pdsync.sandbox"), path
                assert node.level <= depth, path
        assert "schemas/" not in text, path


def test_what_is_assumed_says_so() -> None:
    assumed = sum(path.read_text("utf-8").count("Assumption") for path in HOME.rglob("*.py"))
    assert assumed > 20
