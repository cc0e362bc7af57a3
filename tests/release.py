"""Refuses a release whose docs/evidence.md is no evidence of it.

    python -m tests.release      # .ci/run calls it

A commit is a release if it carries a tag v…, or if it takes the "unreleased" off the top heading of CHANGELOG.md. Then
each proof must have figures that are at most 30 days old, of its command in CONTRIBUTING.md that passed, without
changes beside its commit.
"""

# ruff: noqa: T201 - prints its verdict

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.support import evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OLDEST = timedelta(days=30)


def is_release(tags: Iterable[str], changelog: str, changelog_before: str) -> bool:
    """Whether a commit is a release.

    Args:
        tags: of the commit.
        changelog: CHANGELOG.md, as the commit has it.
        changelog_before: as its parent has it; empty if that is unknown.
    """
    heading, before = _heading(changelog), _heading(changelog_before)
    has_released = bool(heading) and "unreleased" not in heading.lower() and heading != before
    return has_released or any(re.fullmatch(r"v\d.*", tag) for tag in tags)


def published() -> dict[str, str]:
    """The command of each proof with `--json`, by the list in CONTRIBUTING.md."""
    text = (evidence.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = re.findall(r"^(python -m tests\.proofs\.(\w+)[^#\n]*)", text, re.MULTILINE)
    return {name: f"{command.strip()} --json docs/evidence/{name}.json" for command, name in listed}


def refusals(commands: Mapping[str, str], found: Mapping[str, evidence.Figures], now: datetime) -> list[str]:
    """Why the figures are no evidence of a release; empty if they are.

    Args:
        commands: the published commands by the names of their proofs.
        found: the figures by the names of their proofs.
        now: with a time zone.
    """
    return [
        f"{name}: {why}. Repeat it:\n  {command} && python -m tests.test_evidence"
        for name, command in commands.items()
        if (why := _refusal(found.get(name), command, now))
    ]


def _refusal(figures: evidence.Figures | None, command: str, now: datetime) -> str:
    if figures is None:
        return "it has no figures"
    if figures["outcome"] != evidence.PASSED:
        return f"its outcome is {figures['outcome']!r}"
    if figures["is_modified"]:
        return f"it ran with changes that commit {figures['commit']} does not have"
    if figures["command"] != command:
        return f"it ran as `{figures['command']}`"
    age = now - datetime.fromisoformat(figures["at"])
    return f"its figures are {age.days} days old, at most {OLDEST.days} may be" if age > OLDEST else ""


def _heading(changelog: str) -> str:
    """The first heading of a version."""
    found = re.search(r"^## (.*)$", changelog, re.MULTILINE)
    return found[1] if found else ""


def _git(*arguments: str) -> str:
    ran = subprocess.run(["git", *arguments], cwd=evidence.ROOT, capture_output=True, text=True, check=False)
    return ran.stdout if ran.returncode == 0 else ""


def main() -> int:
    tags = _git("tag", "--points-at", "HEAD").split()
    changelog = (evidence.ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not is_release(tags, changelog, _git("show", "HEAD^:CHANGELOG.md")):
        print("Evidence: this commit is no release, so its age is not checked.")
        return 0
    found = refusals(published(), evidence.load(), datetime.now(UTC))
    print("\n".join(found) or f"Evidence: all proofs have passed within {OLDEST.days} days.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
