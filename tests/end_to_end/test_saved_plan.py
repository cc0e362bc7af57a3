"""A saved plan is carried out as it was shown: no option makes it look smaller, or decided in another way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.world import Project

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.world import Remote


@pytest.mark.parametrize(
    "option",
    [("--limit", "1"), ("--operation", "updateOrganization"), ("--batch", "another"), ("--policy", "field")],
    ids=lambda option: option[0],
)
def test_w9_an_option_that_a_saved_plan_would_ignore_is_refused(
    remote: Remote, tmp_path: Path, option: tuple[str, str]
) -> None:
    bare, plan = Project(tmp_path / "bare", remote), str(tmp_path / "plan.json")
    for name in ("One", "Two"):
        assert bare.here("queue", "add", "addOrganization", f"name={name}").code == 0
    assert bare.here("push", "--dry-run", "--policy", "theirs", "--out", plan).code == 0
    ran = bare.here("push", plan, "--yes", *option)
    assert (ran.code, f"{option[0]} can't change it. Nothing was sent." in ran.err) == (2, True), ran
    assert bare.control("SELECT DISTINCT state FROM mutations") == [("queued",)]
    assert bare.here("push", plan, "--yes", "--budget", "500").code == 0
