"""A preview says of what refers to a record that is not added that it will not be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.world import Project, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.world import Remote


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "20", "--seed", "31") as remote:
        yield remote


@pytest.fixture
def bare(remote: Remote, tmp_path: Path) -> Project:
    return Project(tmp_path / "bare", remote)


def test_w10_a_preview_says_what_is_held_back_because_its_parent_was_dropped(bare: Project) -> None:
    file = bare.folder / "rows.csv"
    file.write_text("_operation,_as,name,org_id\naddOrganization,a,A,\naddOrganization,b,B,\naddPerson,,P,@a\n"
                    "addPerson,,Q,@b\n", encoding="utf-8")  # fmt: skip
    assert bare.here("queue", "import", str(file)).code == 0
    assert bare.here("queue", "drop", "1").code == 0
    steps = [each for each in bare.here("push", "--dry-run", "--json").events if each["event"] == "step"]
    why = "not sent as long as #1, which it refers to, is not applied"
    assert [(each["seq"], each["warnings"]) for each in steps] == [(2, []), (3, [why]), (4, [])]
    assert bare.here("push", "--yes").code == 5
    assert bare.control("SELECT seq, state FROM mutations ORDER BY seq") == [
        (1, "cancelled"), (2, "applied"), (3, "queued"), (4, "applied"),
    ]  # fmt: skip
