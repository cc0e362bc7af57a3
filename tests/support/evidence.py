"""Figures of the proofs: each proof saves its own as JSON, and docs/evidence.md is written from all of them.

    evidence.save(path, module="tests.proofs.mutants", title="Planted bugs", text="…", passed=True, seeds=[0],
                  counts={"planted": 30})

A file says what ran (command, commit, seeds, versions), where and when, whether it passed, what was counted, and may
have a table of single results. It becomes a line of the summary and a section of the page without further code.
`python -m tests.test_evidence` writes the page; `tests.support.proof` has the command line of a proof.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "evidence.md"
FIGURES = ROOT / "docs" / "evidence"
PROOFS = ROOT / "tests" / "proofs"
PASSED, FAILED = "passed", "failed"
_HEADLINE = 8  # figures of a proof in the summary
_MOST_HIDDEN = 2  # planted bugs that only a slow proof may find, or nothing, before a simulator is built
_BEGAN = time.monotonic()
_INTRO = """\
# Evidence

What the proofs of [promises.md](promises.md) have counted, each with the command that repeats it. Written from the JSON
files in [`docs/evidence`](evidence) by `python -m tests.test_evidence`; `tests/test_evidence.py` compares both. At a
release CI wants figures of every proof, by its command in [CONTRIBUTING.md](../CONTRIBUTING.md), at most 30 days old.
"""

Figures = dict[str, Any]


def save(
    path: Path,
    *,
    module: str,
    title: str,
    text: str,
    passed: bool,
    seeds: Sequence[int],
    counts: Mapping[str, float],
    table: Mapping[str, list[Any]] | None = None,
) -> None:
    """Write the figures of a proof.

    Args:
        path: of the JSON file.
        module: that ran, as `python -m` takes it.
        title: of the section.
        text: what was done, and how to read the figures.
        passed: whether all that the proof has checked was right.
        seeds: of everything random.
        counts: figure → its value, the most important first.
        table: `columns`, and `rows` of as many cells.
    """
    content = {
        "title": title,
        "text": text,
        "outcome": PASSED if passed else FAILED,
        "seeds": list(seeds),
        "seconds": round(time.monotonic() - _BEGAN, 1),
        "counts": dict(counts),
        "table": table,
    }
    record.write(path, record.surroundings(module, ("pdsync", "schemas", "tests/*.py")) | content)


def read(path: Path) -> Figures:
    """The figures that a proof has saved."""
    figures: Figures = json.loads(path.read_text(encoding="utf-8"))
    return figures


def load(folder: Path = FIGURES) -> dict[str, Figures]:
    """The figures of each proof, by the names of their files."""
    return {path.stem: read(path) for path in sorted(folder.glob("*.json"))}


def commands() -> list[str]:
    """The names of all proofs."""
    return sorted(path.stem for path in PROOFS.glob("*.py") if path.stem != "__init__")


def page(found: Mapping[str, Figures]) -> str:
    """The text of docs/evidence.md."""
    sections = [found[name] for name in sorted(found)]
    parts = [_INTRO, _summary(sections)]
    if mutants := found.get("mutants"):
        parts.append(_simulator(mutants))
    return "\n".join([*parts, *map(_section, sections)])


def hidden(mutants: Figures) -> int:
    """How many planted bugs were found by a slow proof only, or by nothing."""
    counts = mutants["counts"]
    return int(counts["found by a proof's slice only"] + counts["planted"] - counts["found"])


def _summary(sections: list[Figures]) -> str:
    rows = [
        [
            f"[{each['title']}](#{_anchor(each['title'])})",
            ", ".join(f"{_cell(value)} {name}" for name, value in list(each["counts"].items())[:_HEADLINE]),
            each["outcome"],
            each["at"][:10],
            each["commit"],
        ]
        for each in sections
    ]
    return _table(["proof", "counted", "outcome", "date", "commit"], rows) + "\n"


def _anchor(title: str) -> str:
    """The address of a section within its page."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _simulator(mutants: Figures) -> str:
    """Whether a simulation of the whole in one process is worth building, by the figures of the planted bugs."""
    count = hidden(mutants)
    decision = "there is none" if count <= _MOST_HIDDEN else "it has to be built"
    return f"""\
## A simulation in one process

A seeded scheduler with a virtual clock, which runs pdsync and the sandbox in one process, pays if the fast tests miss
bugs of timing: if of the planted bugs more than {_MOST_HIDDEN} are found by a slow proof only, or by nothing. Of
{mutants["counts"]["planted"]} it is {count}: {decision}.
"""


def _section(figures: Figures) -> str:
    machine, versions = figures["machine"], figures["versions"]
    modified = ", with changes" if figures["is_modified"] else ""
    seeds = f"seed {', '.join(map(str, figures['seeds']))}; " if figures["seeds"] else ""
    source = (
        f"{figures['outcome'].title()} on {figures['at'][:10]} after {figures['seconds']:,.0f} s; {seeds}"
        f"commit {figures['commit']}{modified}; {machine['cores']} cores, {machine['processor']},"
        f" {machine['memory_gib']:g} GiB, {machine['used_by_others'] or 0:.0%} of them used by other programs;"
        f" {', '.join(f'{name} {version}' for name, version in versions.items())}."
    )
    counts = _table(["figure", "value"], [[name, value] for name, value in figures["counts"].items()])
    parts = [f"## {figures['title']}", figures["text"].strip(), f"```sh\n{figures['command']}\n```", source, counts]
    if table := figures["table"]:
        parts.append(_table(table["columns"], table["rows"]))
    return "\n\n".join(parts) + "\n"


def _table(columns: list[str], rows: list[list[Any]]) -> str:
    numeric = [all(isinstance(row[at], int | float) for row in rows) for at in range(len(columns))]
    lines = [
        columns,
        ["--:" if right else "---" for right in numeric],
        *([_cell(each) for each in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("|", "\\|")
