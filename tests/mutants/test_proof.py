"""The proof of the planted bugs names the test that finds each one, and reports those that no test finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.mutants.edit import ROOT, Mutant, replace
from tests.proofs.mutants import NEAREST, copy_project, examine

if TYPE_CHECKING:
    from pathlib import Path

CELLS, OTHER = "tests/core/test_cells.py", "tests/core/test_wording.py"


@pytest.mark.proof
def test_a_mutant_is_found_by_the_first_test_that_fails_or_by_none(tmp_path: Path) -> None:
    clean = copy_project(ROOT, tmp_path / "clean")
    assert not (clean / ".git").exists()
    edit = replace("""f"'{text}" if _GUARDED.match(text) else text""", "text")
    mutant = Mutant("a formula is not guarded", "X10", "pdsync.core.cells.guarded", (edit,), (OTHER,))
    later = (("another stage", (CELLS,)),)
    by_nobody, later_on = examine(mutant, clean, ()), examine(mutant, clean, later)
    assert (by_nobody.found_by, by_nobody.stage) == (None, None)
    assert (later_on.found_by or "").startswith(f"{CELLS}::test_a_guarded_text_comes_back[")
    assert later_on.stage == "another stage" != NEAREST
    assert later_on.seconds > 0
    path, _ = mutant.planted()
    assert (clean / path.relative_to(ROOT)).read_bytes() == path.read_bytes()  # the copies are thrown away
