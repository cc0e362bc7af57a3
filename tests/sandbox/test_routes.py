"""A request finds the route of its method and path, names before parameters."""

from __future__ import annotations

import pytest

from pdsync.sandbox.protocol.errors import Refused
from pdsync.sandbox.server.routes import INDEX, ROUTES, find_route


@pytest.mark.parametrize(
    ("version", "method", "path", "operation", "params"),
    [
        ("v1", "GET", "users/me", "getCurrentUser", ()),
        ("v1", "GET", "users/5", "getUser", ("5",)),
        ("v2", "GET", "deals/archived", "getArchivedDeals", ()),
        ("v2", "GET", "deals/7", "getDeal", ("7",)),
        ("v2", "PATCH", "deals/7", "updateDeal", ("7",)),
        ("v1", "PUT", "deals/7/merge", "mergeDeals", ("7",)),
        ("v1", "GET", "mailbox/mailThreads/3/mailMessages", "getMailThreadMessages", ("3",)),
    ],
)
def test_a_route_is_found(version: str, method: str, path: str, operation: str, params: tuple[str, ...]) -> None:
    route, found = find_route(version, method, tuple(path.split("/")))
    assert (route.operation, found) == (operation, params)


@pytest.mark.parametrize(
    ("version", "method", "path", "status"),
    [
        ("v2", "GET", "unicorns", 404),
        ("v2", "GET", "deals/1/2/3/4/5", 404),
        ("v2", "PUT", "deals/1", 405),
        ("v1", "PATCH", "deals/1", 405),
        ("v2", "GET", "", 404),
    ],
)
def test_another_request_is_refused(version: str, method: str, path: str, status: int) -> None:
    with pytest.raises(Refused) as caught:
        find_route(version, method, tuple(path.split("/")))
    assert caught.value.status == status


def test_the_index_has_every_route_once_and_no_request_two() -> None:
    assert sum(map(len, INDEX.values())) == len(ROUTES)
    keys = [(route.version, route.method, route.pattern) for route in ROUTES]
    assert len(keys) == len(set(keys))
