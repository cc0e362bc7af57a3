"""What a sync selects, and when a run that was cut short is continued."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.control import Control
from pdsync.errors import CatalogueError
from pdsync.runner.report.receipt import begin_receipt
from pdsync.runner.session import begin_run
from pdsync.runner.sync.sync_request import SyncRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    opened = Control(tmp_path / "control.db")
    yield opened
    opened.close()


def test_all_streams_are_selected_but_those_that_are_optional() -> None:
    selected = {stream.name for stream in SyncRequest().selected()}
    assert selected == {name for name, stream in catalogue.streams().items() if not stream.optional}


def test_a_stream_brings_the_definitions_of_its_fields_first() -> None:
    names = [stream.name for stream in SyncRequest(("deals",)).selected()]
    assert set(names) == {"deals", "deal_fields"}
    order = list(catalogue.streams())
    assert names == sorted(names, key=order.index)


def test_an_optional_stream_is_selected_by_name() -> None:
    optional = next(name for name, stream in catalogue.streams().items() if stream.optional)
    assert optional in {stream.name for stream in SyncRequest((optional,)).selected()}


def test_a_stream_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(CatalogueError):
        SyncRequest(("dales",)).selected()


@pytest.mark.parametrize(
    ("request_", "command"),
    [
        (SyncRequest(), "sync"),
        (SyncRequest(("deals", "notes"), full=True), "sync deals notes --full"),
        (SyncRequest(since=datetime(2026, 1, 1, tzinfo=UTC)), "sync --since=2026-01-01T00:00:00+00:00"),
        (SyncRequest(params={"b": "2", "a": "1"}), "sync --param=a=1 --param=b=2"),
        (SyncRequest(refetch=("notes",), budget=50), "sync --full=notes"),  # a budget does not make it another run
    ],
)
def test_s1_the_command_says_which_run_is_continued(request_: SyncRequest, command: str) -> None:
    assert request_.command == command


def test_a_stream_is_read_whole_if_it_or_everything_is() -> None:
    assert SyncRequest(full=True).reads_whole("deals")
    assert SyncRequest(refetch=("notes",)).reads_whole("notes")
    assert not SyncRequest(refetch=("notes",)).reads_whole("deals")


@pytest.mark.parametrize(
    ("exit_code", "age", "command", "is_continued"),
    [
        (None, timedelta(minutes=5), "sync", True),  # killed
        (3, timedelta(minutes=5), "sync", True),  # out of budget
        (130, timedelta(minutes=5), "sync", True),  # interrupted
        (0, timedelta(minutes=5), "sync", False),
        (1, timedelta(minutes=5), "sync", False),
        (4, timedelta(minutes=5), "sync", False),
        (None, timedelta(minutes=61), "sync", False),
        (None, timedelta(minutes=5), "sync deals", False),
    ],
)
def test_s1_a_run_that_was_cut_short_is_continued_within_the_hour(
    control: Control, exit_code: int | None, age: timedelta, command: str, is_continued: bool
) -> None:
    last = replace(begin_receipt("sync"), started_at=datetime.now(UTC) - age)
    control.start_run(last.run_id, last.command, last.started_at)
    if exit_code is not None:
        control.finish_run(replace(last, finished_at=datetime.now(UTC), exit_code=exit_code))
    receipt = begin_run(control, command)
    assert receipt.resumed is is_continued
    assert (receipt.run_id == last.run_id) is is_continued


def test_only_the_last_run_is_continued(control: Control) -> None:
    for command in ("sync", "sync deals"):
        receipt = begin_receipt(command)
        control.start_run(receipt.run_id, receipt.command, receipt.started_at)
    assert not begin_run(control, "sync").resumed
