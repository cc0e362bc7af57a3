"""Checks what is installed: each licence against a list, each version against the known vulnerabilities.

python -m tests.dependencies [PIP_AUDIT]    # exit code 1: a licence is not in the list, or a vulnerability is known

An audit needs pip-audit and its advisory database. Where one of them can't be reached, a line says that nothing was
audited, and that is no failure.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from email.message import Message

ROOT = Path(__file__).parents[1]
# Licences that only ask for their text, and for the names of the authors, to be kept.
ALLOWED = {"0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PSF-2.0"}
# Tools and tests are not distributed with pdsync.
ALLOWED_FOR_TOOLS = ALLOWED | {"MPL-2.0"}
EXTRAS = ("fleet",)  # of pdsync, for users

_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_NO_LICENCE = {"License :: OSI Approved", "License :: DFSG approved"}
_AUDIT_S = 600


def licence_of(facts: Message) -> str:
    """The licence in the metadata of a package, as an SPDX expression; what it has instead, where that is none."""
    if expression := facts.get("License-Expression"):
        return str(expression)
    classifiers = [text for text in facts.get_all("Classifier", []) if text.startswith("License :: ")]
    names = [text.rpartition(" :: ")[2] for text in classifiers if text not in _NO_LICENCE]
    if names:
        return " AND ".join(_CLASSIFIERS.get(name, name) for name in names)
    return str(facts.get("License") or "none").split("\n", 1)[0]


def is_allowed(licence: str, allowed: Iterable[str]) -> bool:
    """Whether an SPDX expression, which has no parentheses, can be met with the licences in `allowed`."""
    allowed = set(allowed)
    return any(
        all(part.strip() in allowed for part in re.split(r" AND ", choice)) for choice in re.split(r" OR ", licence)
    )


def needed() -> set[str]:
    """The packages that pdsync needs, directly or not, by their canonical names; with its extras for users."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [text for extra in EXTRAS for text in project["optional-dependencies"][extra]]
    waiting = [Requirement(text) for text in (*project["dependencies"], *extras)]
    found: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        found.add(name)
        with contextlib.suppress(metadata.PackageNotFoundError):  # for another system
            waiting += [
                each
                for each in map(Requirement, metadata.requires(name) or [])
                if each.marker is None or any(each.marker.evaluate({"extra": x}) for x in ("", *requirement.extras))
            ]
    return found


def find_refused(packages: Iterable[metadata.Distribution]) -> list[str]:
    """A line for each package whose licence is not in its list."""
    shipped = needed()
    lines = set()
    for package in packages:
        name, licence = canonicalize_name(package.metadata["Name"]), licence_of(cast("Message", package.metadata))
        if not is_allowed(licence, ALLOWED if name in shipped else ALLOWED_FOR_TOOLS):
            lines.add(
                f"{name} {package.version}: the licence is {licence!r}, which tests/dependencies.py does not list"
            )
    return sorted(lines)


def audit(program: str) -> tuple[str, bool]:
    """Compare the installed versions with the known vulnerabilities.

    Args:
        program: the path of pip-audit.

    Returns:
        What was found, and whether a vulnerability is known.
    """
    paths = [part for path in sys.path if path.endswith("site-packages") for part in ("--path", path)]
    command = [program, "--format", "json", "--progress-spinner", "off", *paths]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_AUDIT_S)
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except OSError:
        return "Nothing was audited: pip-audit is not installed.", False
    except (ValueError, KeyError, TypeError, subprocess.TimeoutExpired):
        return "Nothing was audited: pip-audit reaches no advisory database.", False
    audited = [package for package in packages if "vulns" in package]
    if not audited:
        return "Nothing was audited: the registry has no advisories.", False
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'none'}"
        for package in audited
        for found in package["vulns"]
    ]
    if lines:
        return "\n".join(lines), True
    left = [package["name"] for package in packages if "vulns" not in package and package["name"] != "pdsync"]
    others = f" Without advisories: {', '.join(left)}." if left else ""
    return f"{len(audited)} packages audited, no known vulnerability.{others}", False


def main() -> int:
    """Check the licences, and audit if a path of pip-audit is given."""
    refused = find_refused(metadata.distributions())
    for line in refused or ["All licences are in the list."]:
        sys.stdout.write(f"{line}\n")
    is_vulnerable = False
    if len(sys.argv) > 1:
        result, is_vulnerable = audit(sys.argv[1])
        sys.stdout.write(f"{result}\n")
    return int(bool(refused) or is_vulnerable)


if __name__ == "__main__":
    sys.exit(main())
