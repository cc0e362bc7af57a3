"""What is installed: its licences are in a list, and an audit that could not look does not look like a clean one."""

from __future__ import annotations

import json
import sys
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from tests import dependencies

ROOT = Path(__file__).parents[1]
SKIPPED = {"name": "aiohttp", "skip_reason": "Dependency not found on PyPI and could not be audited"}
CLEAN: dict[str, Any] = {"name": "click", "version": "8.3.0", "vulns": []}


def test_what_pdsync_needs_has_a_licence_of_the_list() -> None:
    needed = dependencies.needed()
    assert {"aiohttp", "duckdb", "multidict", "distributed", "obstore"} <= needed
    assert not {"pytest", "hypothesis", "ruff"} & needed
    installed = [each for each in metadata.distributions() if canonicalize_name(each.metadata["Name"]) in needed]
    assert len(installed) > 20
    assert dependencies.find_refused(installed) == []


@pytest.mark.parametrize(
    ("facts", "licence", "is_allowed"),
    [
        ([("License-Expression", "Apache-2.0 AND MIT")], "Apache-2.0 AND MIT", True),
        ([("License-Expression", "GPL-3.0-only OR MIT")], "GPL-3.0-only OR MIT", True),
        ([("License-Expression", "GPL-3.0-only AND MIT")], "GPL-3.0-only AND MIT", False),
        ([("License-Expression", "(MIT OR GPL-3.0-only) AND MIT")], "(MIT OR GPL-3.0-only) AND MIT", False),
        ([("License-Expression", "MPL-2.0")], "MPL-2.0", False),
        ([("License", "see file"), ("Classifier", "License :: OSI Approved :: MIT License")], "MIT", True),
        (
            [
                ("Classifier", "License :: DFSG approved"),
                ("Classifier", "License :: OSI Approved :: BSD License"),
                ("Classifier", "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"),
            ],
            "BSD AND GNU General Public License v3 (GPLv3)",
            False,
        ),
        ([("Classifier", "License :: Other/Proprietary License")], "Other/Proprietary License", False),
        ([("License", "BSD-3-Clause")], "BSD-3-Clause", True),
        ([("License", "Copyright of somebody\nMIT")], "Copyright of somebody", False),
        ([], "none", False),
    ],
)
def test_a_licence_that_is_not_in_the_list_is_named(
    facts: list[tuple[str, str]], licence: str, is_allowed: bool
) -> None:
    message = Message()
    for name, value in facts:
        message[name] = value
    assert dependencies.licence_of(message) == licence
    assert dependencies.is_allowed(licence, dependencies.ALLOWED) is is_allowed


def program(folder: Path, output: str, code: int = 0) -> str:
    """A program that answers as pip-audit does."""
    path = folder / "pip-audit"
    path.write_text(f"#!{sys.executable}\nprint({output!r})\nraise SystemExit({code})\n", encoding="utf-8")
    path.chmod(0o700)
    return str(path)


def answer(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_a_package_with_a_known_vulnerability_fails(tmp_path: Path) -> None:
    found = {"id": "PYSEC-2026-1", "fix_versions": ["3.14.5"], "aliases": [], "description": ""}
    weak = {"name": "aiohttp", "version": "3.14.4", "vulns": [found]}
    result = dependencies.audit(program(tmp_path, answer(CLEAN, weak), 1))
    assert result == ("aiohttp 3.14.4: PYSEC-2026-1, fixed in 3.14.5", True)


def test_packages_without_advisories_are_named_beside_those_that_were_audited(tmp_path: Path) -> None:
    result = dependencies.audit(
        program(tmp_path, answer(CLEAN, SKIPPED, {"name": "pdsync", "skip_reason": "editable"}))
    )
    assert result == ("1 packages audited, no known vulnerability. Without advisories: aiohttp.", False)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (answer(SKIPPED, SKIPPED), "the registry has no advisories"),
        (answer(), "the registry has no advisories"),
        ("Traceback: no route to host", "pip-audit reaches no advisory database"),
        (None, "pip-audit is not installed"),
    ],
)
def test_an_audit_that_could_not_look_says_so_in_one_line(tmp_path: Path, output: str | None, reason: str) -> None:
    path = str(tmp_path / "none") if output is None else program(tmp_path, output, 1)
    assert dependencies.audit(path) == (f"Nothing was audited: {reason}.", False)


def test_ci_checks_licences_and_audits() -> None:
    assert "python -m tests.dependencies .venv/audit/bin/pip-audit" in (ROOT / ".ci/run").read_text(encoding="utf-8")
