"""A command with a receipt ends with the exit code of its run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import pytest

from pdsync.cli.job import exit_with, expect_requests
from pdsync.cli.progress import Expected
from pdsync.core import config
from pdsync.core.control import Control, SealedPage
from pdsync.core.control.sizes import ListSize, ListSizes
from pdsync.model import Page
from pdsync.runner.sync.sync_request import SyncRequest

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_a_command_ends_with_its_exit_code_and_zero_is_no_error() -> None:
    exit_with(0)
    with pytest.raises(click.exceptions.Exit) as ended:
        exit_with(4)
    assert ended.value.exit_code == 4


def test_a_first_sync_expects_what_the_plan_has_measured(tmp_path: Path) -> None:
    settings = config.load(tmp_path)
    request = SyncRequest(("persons", "users"))
    assert expect_requests(settings, request)["persons"].at_least
    control = Control(settings.control)
    fields = ListSize("person_fields", "all", "v2", 60, 1_000, "assumed", is_assumed=True)
    ListSizes(control).save([ListSize("persons", "all", "v2", 7_116, 7_473, "measured"), fields])
    walk = control.open_walk("run", "persons", "all", "v2", "getPersons", None)
    control.close()
    assert expect_requests(settings, request) == {
        "person_fields": Expected(1, tokens=10),
        "persons": Expected(15, tokens=150),
        "users": Expected(1, tokens=20),
    }
    control = Control(settings.control)
    for seq in range(4):  # of a run that was interrupted: they are not requested again
        page = Page(walk.id, seq, b"", 500, "next", NOW)
        control.record_pages([(page, SealedPage(walk.id, seq, "f", 0, 0, 500, b"", page.next, NOW))])
    control.close()
    assert expect_requests(settings, request)["persons"] == Expected(11, tokens=110)
