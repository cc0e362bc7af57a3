"""Plants a bug: edits the syntax tree of one function or constant, which is found by its qualified name.

    Mutant(
        name="no overlap", promises="S3", target="pdsync.runner.sync.walk_reader.since",
        edits=(replace("before - overlap", "before"),), nearest=("tests/runner/test_walk_reader.py",),
    )

An edit finds its place by meaning: by an expression or statement that equals its pattern whatever its layout, and that
is in the target exactly once. So a mutant survives moves and reformatting, and is refused where its code has changed.
In a pattern, `...` as the only statement of a block stands for any block: `if done: ...`.
"""

from __future__ import annotations

import ast
import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parents[2]
_BLOCKS = ("body", "orelse", "finalbody")


class DoesNotFitError(Exception):
    """The code that a mutant changes is no longer as the mutant describes it."""


class Edit(Protocol):
    """One change of a syntax tree."""

    def apply(self, target: ast.stmt) -> int:
        """Change `target` in place; in how many places."""


@dataclass(frozen=True)
class Mutant:
    """One planted bug.

    Args:
        name: what is wrong with it, in a few words.
        promises: those that it breaks, such as "S3 S4".
        target: the qualified name of a function, method or constant.
        edits: applied in order.
        nearest: the test files, or tests, that should find it; the nearest first.
    """

    name: str
    promises: str
    target: str
    edits: tuple[Edit, ...]
    nearest: tuple[str, ...]

    def plant(self, root: Path) -> None:
        """Write the mutant into the project at `root`."""
        path, text = self.planted(root)
        path.write_text(text, encoding="utf-8")

    def planted(self, root: Path = ROOT) -> tuple[Path, str]:
        """The file that it changes, and its text with the mutant.

        Raises:
            DoesNotFitError: the target is not there, or an edit does not fit exactly once.
        """
        path, inner = _module_of(self.target, root)
        if path is None:
            raise DoesNotFitError(f"{self.name}: no module has {self.target}. {_ADVICE}")
        source = path.read_text(encoding="utf-8")
        target = _find(ast.parse(source), inner)
        if target is None:
            raise DoesNotFitError(f"{self.name}: {path.relative_to(root)} has no {'.'.join(inner)}. {_ADVICE}")
        before = ast.dump(target)
        for edit in self.edits:
            if (places := edit.apply(target)) != 1:
                raise DoesNotFitError(f"{self.name}: {edit} fits {places} places of {self.target}, not one. {_ADVICE}")
        if ast.dump(target) == before:
            raise DoesNotFitError(f"{self.name}: its edits change nothing in {self.target}. {_ADVICE}")
        return path, _spliced(source, target)


_ADVICE = (
    "Adapt its entry in tests/mutants/catalogue.py to the code as it is now, so that it plants the same bug, and run"
    " `python -m tests.proofs.mutants --nearest NAME`. Remove the entry only if the code can no longer have that bug."
)


@dataclass(frozen=True)
class replace:  # noqa: N801 - reads as a verb in the catalogue
    """Replace an expression or a statement; `new` may be several statements for a statement."""

    old: str
    new: str

    def apply(self, target: ast.stmt) -> int:
        pattern, new = _parsed(self.old), ast.parse(self.new).body
        if isinstance(pattern, ast.expr):
            (statement,) = new
            assert isinstance(statement, ast.Expr)
            replacing = _Replacing(pattern, statement.value)
            replacing.visit(target)
            return replacing.places
        return _edit_blocks(target, pattern, new)


@dataclass(frozen=True)
class drop:  # noqa: N801
    """Leave a statement out."""

    statement: str

    def apply(self, target: ast.stmt) -> int:
        return _edit_blocks(target, ast.parse(self.statement).body[0], [])


@dataclass(frozen=True)
class move:  # noqa: N801
    """Move a statement in front of another one."""

    statement: str
    before: str

    def apply(self, target: ast.stmt) -> int:
        pattern, other = ast.parse(self.statement).body[0], ast.parse(self.before).body[0]
        moved = [each for each in ast.walk(target) if isinstance(each, ast.stmt) and _equal(each, pattern)]
        others = [each for each in ast.walk(target) if isinstance(each, ast.stmt) and _equal(each, other)]
        if len(moved) != 1 or len(others) != 1:
            return len(moved) if len(moved) != 1 else len(others)
        _edit_blocks(target, pattern, [])
        return _edit_blocks(target, other, [moved[0], others[0]])


@dataclass(frozen=True)
class text:  # noqa: N801
    """Replace a part of a string, such as of an SQL statement."""

    old: str
    new: str

    def apply(self, target: ast.stmt) -> int:
        places = 0
        docstrings = {id(each.body[0].value) for each in ast.walk(target) if _has_docstring(each)}  # type: ignore[attr-defined]
        for node in ast.walk(target):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                places += node.value.count(self.old)
                node.value = node.value.replace(self.old, self.new)
        return places


class _Replacing(ast.NodeTransformer):
    def __init__(self, pattern: ast.expr, new: ast.expr) -> None:
        self.places, self._pattern, self._new = 0, ast.dump(pattern), new

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.expr) and ast.dump(node) == self._pattern:
            self.places += 1
            return copy.deepcopy(self._new)
        return super().generic_visit(node)


def _parsed(pattern: str) -> ast.expr | ast.stmt:
    (statement,) = ast.parse(pattern).body
    return statement.value if isinstance(statement, ast.Expr) else statement


def _edit_blocks(target: ast.stmt, pattern: ast.stmt, new: list[ast.stmt]) -> int:
    """Put `new` in place of each statement that equals `pattern`; how many there are."""
    places = 0
    for node in list(ast.walk(target)):
        for field in _BLOCKS:
            block = getattr(node, field, None)
            if not isinstance(block, list):
                continue
            edited: list[ast.stmt] = []
            for statement in block:
                is_match = _equal(statement, pattern)
                places += is_match
                edited += new if is_match else [statement]
            block[:] = edited or ([ast.Pass()] if block else [])
    return places


def _equal(statement: ast.stmt, pattern: ast.stmt) -> bool:
    if type(statement) is not type(pattern):
        return False
    if not _is_any_block(getattr(pattern, "body", None)):
        return ast.dump(statement) == ast.dump(pattern)
    bare = copy.copy(statement)
    for field in (*_BLOCKS, "handlers"):
        if hasattr(bare, field):
            setattr(bare, field, getattr(pattern, field))
    return ast.dump(bare) == ast.dump(pattern)


def _is_any_block(body: object) -> bool:
    return (
        isinstance(body, list) and len(body) == 1 and isinstance(body[0], ast.Expr)
        and isinstance(body[0].value, ast.Constant) and body[0].value.value is ...
    )  # fmt: skip


def _has_docstring(node: ast.AST) -> bool:
    body = getattr(node, "body", None)
    return (
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and bool(body) and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
    )  # fmt: skip


def _module_of(target: str, root: Path) -> tuple[Path | None, list[str]]:
    """The file of the longest prefix that is a module, and the names inside it."""
    parts = target.split(".")
    for length in range(len(parts) - 1, 0, -1):
        path = root.joinpath(*parts[:length])
        for each in (path.with_suffix(".py"), path / "__init__.py"):
            if each.is_file():
                return each, parts[length:]
    return None, parts


def _find(tree: ast.AST, names: list[str]) -> ast.stmt | None:
    """The statement that defines a.b.c inside `tree`."""
    scope: ast.AST = tree
    for name in names:
        found = [each for each in ast.iter_child_nodes(scope) if isinstance(each, ast.stmt) and name in _defined(each)]
        if len(found) != 1:
            return None
        scope = found[0]
    return scope if isinstance(scope, ast.stmt) else None


def _defined(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return {each.id for each in targets if isinstance(each, ast.Name)}


def _spliced(source: str, target: ast.stmt) -> str:
    """The source with `target` replaced, and all other lines unchanged."""
    lines = source.splitlines(keepends=True)
    indent = " " * target.col_offset
    first, last = target.lineno - 1, target.end_lineno or target.lineno
    if decorators := getattr(target, "decorator_list", None):
        first = decorators[0].lineno - 1
    new = ast.unparse(ast.fix_missing_locations(target))
    return "".join(
        [*lines[:first], *(f"{indent}{line}\n" if line else "\n" for line in new.split("\n")), *lines[last:]]
    )
