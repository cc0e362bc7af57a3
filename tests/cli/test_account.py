"""A token is asked for its owner without a project, and a project accepts only the company it belongs to."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from pdsync.cli.account import ask_account, check_company
from pdsync.core import config
from pdsync.core.control import Control
from pdsync.core.credentials import ApiToken
from pdsync.errors import AuthError, WrongCompany

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox


async def test_the_owner_of_a_token_is_known_before_there_is_a_project(box: RunningSandbox, tmp_path: Path) -> None:
    settings = config.load(tmp_path / "new", {"account.base_url": box.url})
    who = await ask_account(settings, ApiToken(box.token))
    assert (who.company_id, who.is_admin) == (box.company.id, True)
    assert not settings.project.exists()


async def test_a_refused_token_creates_nothing(box: RunningSandbox, tmp_path: Path) -> None:
    settings = config.load(tmp_path / "new", {"account.base_url": box.url})
    with pytest.raises(AuthError):
        await ask_account(settings, ApiToken("f" * 40))
    assert not settings.project.exists()


def test_x1_a_project_accepts_only_its_own_company(tmp_path: Path) -> None:
    settings = config.load(tmp_path)
    check_company(settings, 1, "One")  # no control.db: any company
    settings.state.mkdir()
    with contextlib.closing(Control(settings.control)) as control:
        check_company(settings, 1, "One")  # no company yet: any
        control.bind_company(1, "One", "one")
    check_company(settings, 1, "One")
    with pytest.raises(WrongCompany):
        check_company(settings, 2, "Two")
