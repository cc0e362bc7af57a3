"""What of a list can be requested at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue
from pdsync.core.reading import divisible, side_by_side

if TYPE_CHECKING:
    from pdsync.core.reading import SideBySide
    from pdsync.model import Version


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("deals", "v2", "windows"),
        ("deals", "v1", "pages"),
        ("pipelines", "v2", "no"),  # sorts by nothing that changes
        ("notes", "v2", "pages"),
        ("deal_followers", "v2", "parents"),
        ("mail_messages", "v2", "parents"),
        ("users", "v2", "no"),
    ],
)
def test_what_of_a_list_is_requested_side_by_side(name: str, version: Version, expected: SideBySide) -> None:
    stream = catalogue.stream(name)
    used, sources = stream.sources(version)
    operation = catalogue.operations(used)[sources[0].operation]
    assert side_by_side(stream, sources[0], operation) == expected
    assert divisible(operation) == (expected == "windows")
