"""What the tests of the names share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.writeback.resolver import NameResolver
from tests.writeback.company import open_company

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def names() -> Iterator[NameResolver]:
    """The names of the company of `tests.writeback.company`."""
    with open_company() as warehouse:
        yield NameResolver(warehouse)
