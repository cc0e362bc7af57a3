"""What a sync selects, and by which command it is continued."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pdsync.core import catalogue
from pdsync.errors import CatalogueError
from pdsync.runner.sync.sync_request import SyncRequest


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
