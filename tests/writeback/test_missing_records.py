"""A change of a record that neither the warehouse nor an earlier push has seen is named when it is queued."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.writeback.missing_records import describe_missing, find_missing
from pdsync.writeback.resolver import NameResolver
from tests.writeback.company import open_company
from tests.writeback.kit import bring_to, entry, open_outbox

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.writeback.outbox import Entry


@pytest.fixture
def names() -> NameResolver:
    return NameResolver(open_company())


@pytest.mark.parametrize(
    ("queued", "missing"),
    [
        (entry("v2 updateOrganization", {"id": 7, "name": "A"}), []),
        (entry("v2 updateOrganization", {"id": 99, "name": "A"}), ["organizations/99"]),
        (entry("v2 deleteOrganization", {"id": 99}), ["organizations/99"]),
        (entry("v1 mergeOrganizations", {"id": 7, "merge_with_id": 99999}), ["organizations/99999"]),
        (entry("v2 addOrganizationFollower", {"id": 99, "user_id": 1}), ["organizations/99"]),
        (entry("v2 updateDeal", {"id": 99, "title": "there is no table of deals"}), []),
        (entry("v2 addOrganization", {"name": "A"}), []),
    ],
)  # fmt: skip
def test_a_record_that_the_warehouse_does_not_have_is_named(
    tmp_path: Path, names: NameResolver, queued: Entry, missing: list[str]
) -> None:
    outbox = open_outbox(tmp_path)
    found = find_missing(names.names, outbox, outbox.add([queued]))
    assert list(found) == missing
    assert all(f"{record} (#1)" in describe_missing(found) for record in missing)


def test_without_a_warehouse_nothing_is_called_missing(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    queued = outbox.add([entry("v2 updateOrganization", {"id": 99, "name": "A"})])
    assert find_missing(NameResolver(None).names, outbox, queued) == {}


def test_a_record_that_a_push_added_is_not_missing(tmp_path: Path, names: NameResolver) -> None:
    outbox = open_outbox(tmp_path)
    again = entry("v2 updateOrganization", {"id": 99, "name": "B"})
    bring_to(outbox, "applied", outbox.add([again])[0])
    assert find_missing(names.names, outbox, outbox.add([again])) == {}
