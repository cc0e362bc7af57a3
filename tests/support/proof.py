"""The command line of a proof, and the figures that it saves for docs/evidence.md.

    proof = Proof("tests.proofs.drift", __doc__, title="Drift")
    proof.parser.add_argument("--count", type=int, default=100)
    options = proof.options()
    …
    return proof.end(passed=not wrong, seeds=[options.seed], counts={"differences planted": 1300})

Every proof has `--json FILE`. The file is removed first and written at the end, also by a proof that fails: then its
outcome is "failed". So no older figures remain that read as if this run had passed.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Proof:
    """A proof's command.

    Args:
        module: of the proof, as `python -m` takes it.
        doc: its docstring: the first line describes the command; the page shows all of it but the examples.
        title: of its section.
        text: of its section, in place of the docstring.
    """

    def __init__(self, module: str, doc: str, title: str, text: str = "") -> None:
        self._module, self._title, self._text = module, title, text or describe(doc)
        self._path: Path | None = None
        self.parser = argparse.ArgumentParser(prog=f"python -m {module}", description=doc.splitlines()[0])
        self.parser.add_argument("--json", type=Path, metavar="FILE", help="where to save the figures")

    def options(self) -> argparse.Namespace:
        """The options of the command line. Removes the file that `--json` names."""
        options = self.parser.parse_args()
        self._path = options.json
        if self._path:
            self._path.unlink(missing_ok=True)
        return options

    def end(
        self,
        *,
        passed: bool,
        seeds: Sequence[int],
        counts: Mapping[str, float],
        table: Mapping[str, list[Any]] | None = None,
    ) -> int:
        """Save the figures if `--json` was given.

        Args:
            passed: whether all that the proof has checked was right.
            seeds: of everything random.
            counts: figure → its value, the most important first.
            table: `columns`, and `rows` of as many cells.

        Returns:
            The exit code: 0 if it passed, else 1.
        """
        if self._path:
            evidence.save(
                self._path, module=self._module, title=self._title, text=self._text, passed=passed, seeds=seeds,
                counts=counts, table=table,
            )  # fmt: skip
        return 0 if passed else 1


def describe(doc: str) -> str:
    """The paragraphs of a proof's docstring, without its examples and the word "Proof"."""
    paragraphs = doc.removeprefix("Proof: ").strip().split("\n\n")
    kept = [each for each in paragraphs if not each.startswith((" ", "python -m "))]
    kept[0] = kept[0][0].upper() + kept[0][1:]
    return "\n\n".join(each.strip() for each in kept)


def add_up(paths: Iterable[Path]) -> Counter[str]:
    """The sums of the counts in files that processes of one proof have saved."""
    total: Counter[str] = Counter()
    for path in paths:
        if path.exists():
            total.update(evidence.read(path)["counts"])
    return total
