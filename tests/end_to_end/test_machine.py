"""What the machine does to a command: full disks, little memory, proxies, no home. The answer is never "a bug"."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pdsync.sandbox import Company, Limits, Sizes, running

from .world import Project, Remote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FREE = Limits(burst=None, search_burst=None, daily_tokens=None)
NOTHING = Sizes(deals=0, persons=0, organizations=0, products=0, activities=0, files=0, mail_threads=0)


@pytest.fixture(scope="module")
def empty() -> Iterator[Remote]:
    """A company that holds no deal and no file."""
    with running(Company.generate(seed=1, sizes=NOTHING), limits=FREE) as box:
        yield Remote(box.url, box.token)


@pytest.fixture
def company_project(empty: Remote, tmp_path: Path) -> Project:
    return Project(tmp_path / "project", empty)


# Counts over no rows.


def test_s9_streams_without_a_row_are_synced_counted_and_queried(company_project: Project) -> None:
    project = company_project
    synced = project.here("sync", "--json", "deals", "files", "stages", "pipelines", "users")
    assert synced.code == 0, synced
    assert project.here("sync", "--full", "--json", "deals").code == 0
    status = project.here("status", "--json")
    assert status.code == 0, status
    rows = {each["stream"]: (each["rows"], each["deleted"]) for each in status.events if "stream" in each}
    assert rows["deals"] == rows["files"] == (0, 0)
    owners = project.here("sql", "from sales.by_owner", "-o", "json")
    assert (owners.code, json.loads(owners.out)) == (0, [])
