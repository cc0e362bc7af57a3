"""A client is opened with the project's own credentials and budget, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.core import config
from pdsync.core.account import fetch_account
from pdsync.core.control import Control
from pdsync.errors import AuthError, BudgetSpent
from pdsync.runner.connection import connect

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.sandbox import RunningSandbox


@pytest.fixture
def settings(box: RunningSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PDSYNC_API_TOKEN", box.token)
    made = config.load(tmp_path, {"account.base_url": box.url, "limits.burst": 0, "limits.daily_tokens": 0})
    Control(made.control).close()
    return made


async def test_l5_the_run_spends_no_more_than_it_may(settings: Settings) -> None:
    async with connect(settings, run_tokens=3) as http:
        assert (await fetch_account(http)).is_admin
        with pytest.raises(BudgetSpent):
            await fetch_account(http)
        assert http.budget.spent == 2


async def test_without_a_token_nothing_is_called(
    settings: Settings, box: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PDSYNC_API_TOKEN")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    box.clear_log()
    with pytest.raises(AuthError):
        async with connect(settings):
            pass
    assert box.log == []
