"""Rules that every operation of the catalogue keeps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue

if TYPE_CHECKING:
    from pdsync.model import Operation

EVERY = [operation for version in catalogue.VERSIONS for operation in catalogue.operations(version).values()]

NO_COST = {"Subscriptions": "removed before the vendor began to publish costs"}
NO_SCOPES = {"Subscriptions": "removed before the vendor began to publish scopes", "Oauth": "asked without a token"}


def its_path_and_cost_are_complete(operation: Operation) -> None:
    names = [*operation.path_params, *operation.query, *operation.body]
    assert len(names) == len(set(names)), "a key=value would be ambiguous"
    assert set(re.findall(r"{(.+?)}", operation.path)) == operation.path_params.keys()
    assert all(param.required for param in operation.path_params.values())
    assert operation.path.startswith(
        "/oauth/" if operation.host else {"v1": "/v1/", "v2": "/api/v2/"}[operation.version]
    )
    assert not operation.path.endswith("/")
    assert (operation.cost is None) == (operation.tag in NO_COST)
    assert (not operation.scopes) == (operation.tag in NO_SCOPES)


def a_list_has_a_page_size_and_a_cursor(operation: Operation) -> None:
    place = {"none": set(), "cursor": {"cursor", "limit"}, "offset": {"start", "limit"}}[operation.paging]
    assert {"cursor", "start", "limit"} & operation.query.keys() == place
    assert (operation.page_size is None) == (operation.paging == "none")
    if operation.paging != "none":
        assert operation.method == "GET"
        assert operation.query["limit"].max in (None, operation.page_size)


def a_body_has_a_kind_and_a_read_has_no_body(operation: Operation) -> None:
    if operation.method == "GET":
        assert (operation.body, operation.content) == ({}, None)
    assert operation.content or not (operation.body or operation.body_required or operation.custom_fields)
    has_files = any(param.type == "string:binary" for param in operation.body.values())
    assert has_files == (operation.content == "multipart")
    if operation.custom_fields and operation.version == "v2":
        assert operation.body["custom_fields"].type == "object"


def its_parameters_are_consistent(operation: Operation) -> None:
    for param in [*operation.path_params.values(), *operation.query.values(), *operation.body.values()]:
        assert not param.many or param.type == "string"
        assert param.max is None or param.many or param.type in ("integer", "array[integer]")
        assert not param.enum or param.default is None or param.default in param.enum
        assert len(param.enum) == len(set(param.enum))


def its_successor_exists(operation: Operation) -> None:
    assert operation.deprecated or not operation.removed
    assert operation.removed == bool(operation.ended or (operation.removed and operation.replaced_by))
    assert not (operation.ended and operation.replaced_by), "`ended` says what to use"
    if operation.replaced_by:
        assert operation.deprecated
        successor = catalogue.operation(operation.replaced_by)
        assert not successor.removed
        assert successor.mutates == operation.mutates


PROMISES = [
    its_path_and_cost_are_complete,
    a_list_has_a_page_size_and_a_cursor,
    a_body_has_a_kind_and_a_read_has_no_body,
    its_parameters_are_consistent,
    its_successor_exists,
]


@pytest.mark.parametrize("operation", EVERY, ids=lambda operation: operation.name.replace(" ", ":"))
def test_each_operation_keeps_all_promises(operation: Operation) -> None:
    for promise in PROMISES:
        promise(operation)


def test_custom_fields_belong_to_the_records_that_have_them() -> None:
    verbs_and_records = {operation.name for operation in EVERY if operation.custom_fields}
    both = {"Deal", "Person", "Organization", "Product", "Project"}
    assert verbs_and_records == {
        f"{version} {verb}{record}"
        for version, records in (("v1", both | {"Lead"}), ("v2", both))
        for verb in ("add", "update")
        for record in records
    }


def test_searches_are_known_by_their_names() -> None:
    """The vendor has no list of them: itemSearch and all with `search` in the path; `users/find` costs as much."""
    named = {each.name for each in EVERY if re.search(r"/search$|/itemSearch(/field)?$|/users/find$", each.path)}
    assert {each.name for each in EVERY if each.search} == named
    assert len(named) == 16


def test_no_two_operations_of_a_version_are_the_same_request() -> None:
    requests = [(o.method, o.host, re.sub(r"{.+?}", "{}", o.path)) for o in EVERY if o.host is None]
    assert len(requests) == len(set(requests))
