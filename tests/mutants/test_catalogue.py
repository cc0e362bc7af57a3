"""Each planted bug still fits the code: it is applied once, and gives other code that compiles."""

from __future__ import annotations

import ast
import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.mutants.catalogue import MUTANTS
from tests.mutants.edit import ROOT, DoesNotFitError, Edit, Mutant, drop, move, replace, text

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code_as_it_is(mutant: Mutant) -> None:
    path, planted = mutant.planted()
    compile(planted, str(path), "exec")
    assert ast.dump(ast.parse(planted)) != ast.dump(ast.parse(path.read_text(encoding="utf-8")))


def test_each_mutant_has_a_name_of_its_own_breaks_a_promise_and_names_tests_that_exist() -> None:
    promises = re.findall(r"^\| ([SLWXO]\d+) \|", (ROOT / "docs" / "promises.md").read_text("utf-8"), re.MULTILINE)
    assert [name for name, count in Counter(each.name for each in MUTANTS).items() if count > 1] == []
    assert [each.name for each in MUTANTS if not {*each.promises.split()} <= {*promises} or not each.promises] == []
    assert [test for each in MUTANTS for test in each.nearest if not _exists(test)] == []


def _exists(test: str) -> bool:
    """Whether a test, or a file of tests, is there."""
    path, _, name = test.partition("::")
    return (ROOT / path).is_file() and f"def {name}" in (ROOT / path).read_text(encoding="utf-8")


_SOURCE = '''
import os

LIMIT = 3


class Store:
    @property
    def size(self):
        """Returns less, never more."""
        # a comment
        if self.full: return 0
        total = f"at most {LIMIT}"
        write(total)
        os.fsync(total)
        return total


def after(): pass  # stays as it is
'''


@pytest.mark.parametrize(
    ("target", "edit", "line"),
    [
        ("pdsync.x.LIMIT", replace("3", "4"), "LIMIT = 4"),
        ("pdsync.x.Store.size", replace("self.full", "False"), "        if False:"),
        ("pdsync.x.Store.size", replace("return total", "total += 1\nreturn total"), "        total += 1"),
        ("pdsync.x.Store.size", text("at most", "at least"), "        total = f'at least {LIMIT}'"),
        ("pdsync.x.Store.size", drop("if self.full: ..."), "        os.fsync(total)"),
        ("pdsync.x.Store.size", move("os.fsync(total)", before="write(total)"), "        write(total)\n        return"),
        ("pdsync.x.after", replace("pass", "raise"), "    raise"),
    ],
)
def test_an_edit_changes_its_target_and_no_other_line(tmp_path: Path, target: str, edit: Edit, line: str) -> None:
    path, planted = _mutant(target, edit).planted(_project(tmp_path))
    assert line in planted
    assert "import os\n" in planted
    assert "@property\n    def size" in planted
    assert path.read_text(encoding="utf-8") == _SOURCE
    assert ("# stays as it is" in planted) == (target != "pdsync.x.after")


@pytest.mark.parametrize(
    ("target", "edit", "why"),
    [
        ("pdsync.y.LIMIT", replace("3", "4"), "no module has pdsync.y.LIMIT"),
        ("pdsync.x.Store.gone", replace("3", "4"), "has no Store.gone"),
        ("pdsync.x.Store.size", replace("LIMIT + 1", "LIMIT"), "fits 0 places"),
        ("pdsync.x.Store.size", replace("total", "self"), "fits 3 places"),
        ("pdsync.x.Store.size", text("less", "more"), "fits 0 places"),  # a docstring decides nothing
        ("pdsync.x.Store.size", drop("if self.empty: ..."), "fits 0 places"),
        ("pdsync.x.Store.size", move("os.fsync(total)", before="read(total)"), "fits 0 places"),
        ("pdsync.x.LIMIT", replace("3", "3"), "change nothing"),
    ],
)
def test_a_mutant_that_does_not_fit_is_refused_with_what_to_do(
    tmp_path: Path, target: str, edit: Edit, why: str
) -> None:
    with pytest.raises(DoesNotFitError) as refusal:
        _mutant(target, edit).planted(_project(tmp_path))
    assert why in str(refusal.value)
    assert "tests/mutants/catalogue.py" in str(refusal.value)


def _mutant(target: str, edit: Edit) -> Mutant:
    return Mutant("a bug", "S1", target, (edit,), ())


def _project(folder: Path) -> Path:
    (folder / "pdsync").mkdir()
    (folder / "pdsync" / "x.py").write_text(_SOURCE, encoding="utf-8")
    return folder
