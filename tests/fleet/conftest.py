from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from pdsync.fleet import lease, rollup
from pdsync.fleet.store import open_store
from tests.fleet.companies import Companies
from tests.support.object_store import serving_s3

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.fleet.store import Store
    from tests.support.object_store import S3


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    with serving_s3() as server:
        yield server


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker's lease is looked at often."""
    monkeypatch.setattr(lease, "_POLL_S", 0.05)


@pytest.fixture(params=["folder", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty store of each kind; the environment has what it needs."""
    if request.param == "folder":
        return str(tmp_path / "store")
    server: S3 = request.getfixturevalue("s3")
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    return f"{server.url}/{secrets.token_hex(4)}"


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


@pytest.fixture(scope="session")
def companies(tmp_path_factory: pytest.TempPathFactory) -> Companies:
    """A fleet whose accounts are synced and rolled up. A test that changes it puts it back."""
    made = Companies(tmp_path_factory.mktemp("companies"))
    results = rollup.roll_up(made.fleet, made.fleet.accounts.values())
    assert {name: result.error for name, result in results.items()} == dict.fromkeys(made.fleet.accounts, "")
    return made
