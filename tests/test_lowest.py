"""tests/lowest.txt names the lowest release of every dependency, and CI runs tests on them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_ci_also_runs_on_the_lowest_release_of_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed = dict(re.findall(r"([\w-]+)>=([\d.]+)", " ".join(project["dependencies"])))
    assert len(allowed) == len(project["dependencies"])
    lines = (ROOT / "tests" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    assert dict(line.split("==") for line in lines if not line.startswith("#")) == allowed
    assert "tests/lowest.txt" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_ci_runs_on_the_newest_release_of_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # DuckDB's next major release is left out: it may read no file of the present one.
    assert [each for each in project["dependencies"] if "<" in each or "==" in each] == ["duckdb>=1.5.5,<3"]
    newest = re.findall(r"^\.venv/bin/pip install .*", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest
    assert not [line for line in newest if "-c " in line]
