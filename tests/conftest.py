"""Fixtures for every test: a sandbox on a thread or in another process, a project folder, the real command line."""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.world import Project, Ran, Remote, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox

# Hundreds of child processes import the same modules, and pytest rewrites each test: compiled once, also where the
# environment says that Python should not write what it compiles.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that starts the tests in its background has them ignore Ctrl-C, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """Two workers a core: for half of its time a test waits, for the disk or for another process."""
    return 2 * (os.cpu_count() or 1)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of a developer's own account, and secrets that an earlier test hid, stay out of each test."""
    for name in os.environ:
        if name.startswith("PDSYNC_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("pdsync.core.log._hidden", set())


@pytest.fixture
def box() -> Iterator[RunningSandbox]:
    """A small company on a thread of this process, without limits."""
    company = generate_company(seed=3, sizes=Sizes(deals=120, mail_threads=30, files=60), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        yield box


@pytest.fixture
def sandbox_process() -> Iterator[Remote]:
    """A small company in another process, without limits."""
    with serving("--deals", "150") as remote:
        yield remote


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project that knows no account and no limits."""
    return Project(tmp_path / "project")


@pytest.fixture
def pdsync(project: Project) -> Callable[..., Ran]:
    """The real command line on `project`, in a process of its own: exit code, stdout, stderr."""
    return project.run
