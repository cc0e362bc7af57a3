"""Rules that every stream keeps; and every list of the API is read by a stream, or has a reason why not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue
from pdsync.model import Parent
from tests.vendor import stored

if TYPE_CHECKING:
    from pdsync.model import Operation, Source, Stream, Version

STREAMS = catalogue.streams()
EVERY = list(STREAMS.values())
TYPE = re.compile(r"(BIGINT|VARCHAR)(\[\])?|BOOLEAN|DATE|TIME|TIMESTAMPTZ|INTERVAL|DOUBLE|DECIMAL\(18, 4\)|LIST")
# Parents of which a company has few: a request for each is cheap.
FEW = {"roles", "permission_sets", "project_boards"}

# Lists that no stream reads, because another one has the records, or they are not records of the company.
NOT_READ = {
    "v2 getDealProducts": "deal_products reads them for a hundred deals at a time",
    "v1 getPersonProducts": "its elements are keyed by deal ids; deal_products says the same",
    "v1 getPipelineDeals": "deals know their pipeline",
    "v1 getStageDeals": "deals know their stage",
    "v1 getProjectTasks": "tasks know their project",
    "v1 getProjectActivities": "activities know their project",
    "v1 getTeamUsers": "legacy_teams list their members",
    "v1 getRecents": "a month of records that other lists show completely",
    "v1 getFilterHelpers": "words for making filters, the same for every company",
}
# What a list leaves out by default, and is left out: (list, parameter) → why.
LEFT_OUT = {
    ("v1 getTeams", "skip_users"): "the default shows the members",
    ("v1 getGoals", "assignee.id"): "the tracking metric finds everyone's goals",
    **{
        (f"v1 get{one}MailMessages", "include_body"): "leaves_out says so" for one in ("Deal", "Person", "Organization")
    },
    ("v1 getDeals", "status"): "without it all that are not deleted; another source asks for the deleted ones",
    ("v1 getArchivedDeals", "status"): "as getDeals",
    ("v1 getProductDeals", "status"): "leaves_out says so; deals knows deleted ones",
    ("v1 getProjects", "status"): "leaves_out says so: no document tells how a deleted one shows",
    ("v2 getProjects", "status"): "leaves_out says so: no document tells how a deleted one shows",
    ("v2 getArchivedProjects", "status"): "leaves_out says so: no document tells how a deleted one shows",
}
# Requested by a user, or for one record only; never read completely.
NO_LIST = re.compile(r"search\w*|find\w*|authorize|get\w+ConversionStatus|getCurrentUser|getUserTeams")


def sources(stream: Stream) -> list[tuple[Version, Source, Operation]]:
    listed: list[tuple[Version, tuple[Source, ...]]] = [("v2", stream.v2), ("v1", stream.v1)]
    return [
        (version, each, catalogue.operations(version)[each.operation]) for version, lists in listed for each in lists
    ]


def its_columns_have_types_and_sources(stream: Stream) -> None:
    versions = {version for version, *_ in sources(stream)}
    for name in stream.columns:
        column = stream.column(name)
        assert TYPE.fullmatch(column.type), name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert bool(column.items) == (column.type == "LIST"), name
        assert not (column.ref and column.type != "BIGINT"), name
        assert set(column.negated) <= versions
        assert not column.join or column.type == "VARCHAR"
        assert not any(stream.column(part).join or stream.column(part).items for part in column.join), name
    pointers = [
        (version, stream.column(name).path(name, version))
        for version in versions
        for name in stream.columns
        if not stream.column(name).join
    ]
    assert len(pointers) == len(set(pointers)), "two columns would hold the same value"


def its_references_exist(stream: Stream) -> None:
    assert {stream.key, stream.title} <= stream.columns.keys()
    for column, pointed in stream.labels.items():
        assert column in stream.columns
        assert pointed in STREAMS, column
    assert stream.fields is None or {"field_code", "field_name", "field_type"} <= STREAMS[stream.fields].columns.keys()
    if stream.changelog:
        changelog = STREAMS[stream.changelog]
        assert {"time", "field_key", "old_value", "new_value", "actor_user_id"} <= changelog.columns.keys()
        assert list(changelog.labels.values()).count(stream.name) == 1
    if stream.cursor:
        assert stream.column(stream.cursor).type == "TIMESTAMPTZ"
    if stream.deleted:
        assert stream.column(stream.deleted.lstrip("!")).type == "BOOLEAN"
    for child in stream.children.values():
        assert bool(stream.column(child.of).items) != bool(child.value)


def its_lists_can_be_requested(stream: Stream) -> None:
    for version, source, operation in sources(stream):
        assert not operation.mutates
        assert (operation.records == "one") <= (operation.paging == "none")
        takes = {**operation.query, **operation.path_params}
        given = [*source.query, *source.since_query, *source.params, *([source.parent.param] if source.parent else [])]
        assert set(given) <= takes.keys()
        assert {name for name, param in takes.items() if param.required} <= set(given), source.operation
        if source.way == "updated_since":
            assert "updated_since" in takes
        if source.way == "newest_first":
            assert stream.cursor is not None
            assert version == "v1"
            assert "sort" in takes
        assert (source.way in ("changed_parents", "new_parents")) <= (source.parent is not None)
        assert not source.params or not source.parent or source.way == "full"
    for listed in (stream.v1, stream.v2):
        assert len({source.name for source in listed}) == len(listed)


def its_query_parameters_exist(stream: Stream) -> None:
    parameters = {
        stream.column(name).path(name, version)[1:]
        for name in stream.columns
        for version, *_ in sources(stream)
        if stream.column(name).path(name, version).startswith("@")
    }
    for _, source, _ in sources(stream):
        parent = source.parent or Parent("")
        set_by_walk = {*source.params, *({parent.param} if source.parent and parent.batch == 1 else ())}
        assert parameters <= set_by_walk


def expensive_lists_are_optional(stream: Stream) -> None:
    for _, source, operation in sources(stream):
        parent = source.parent
        if parent and parent.batch == 1 and parent.stream not in FEW:
            assert stream.optional, "a nightly run could not pay for a request a parent"
        if parent and parent.batch > 1:
            limit = operation.query[parent.param].max
            assert limit is not None
            assert parent.batch <= limit


def its_deletions_are_seen_as_it_says(stream: Stream) -> None:
    """A flag in the records is no evidence that a list has deleted ones: only a request for them is."""
    asked = {"deleted" in source.query.get("status", "").split(",") for _, source, _ in sources(stream)}
    assert (stream.deletions == "listed") == (True in asked)
    assert (stream.deletions == "not shown") >= (stream.deleted is None)
    if stream.deleted:
        left_out = (stream.leaves_out or "").startswith("deleted ")
        assert left_out == (stream.deletions == "not shown"), "`leaves_out` says so, or it is not so"


PROMISES = [
    its_columns_have_types_and_sources,
    its_references_exist,
    its_lists_can_be_requested,
    its_query_parameters_exist,
    expensive_lists_are_optional,
    its_deletions_are_seen_as_it_says,
]


@pytest.mark.parametrize("stream", EVERY, ids=lambda stream: stream.name)
def test_each_stream_keeps_all_promises(stream: Stream) -> None:
    for promise in PROMISES:
        promise(stream)


def test_table_names_are_unique() -> None:
    names = [*STREAMS, *(child for stream in EVERY for child in stream.children)]
    assert sorted(names) == sorted(set(names))


def is_list(operation: Operation) -> bool:
    """A GET that is neither of one record by its id, nor a search, nor a file."""
    one = operation.path.endswith(("{id}", "{field_code}", "{commentId}"))
    return not (operation.mutates or operation.removed or operation.binary or one or NO_LIST.fullmatch(operation.id))


def lists() -> set[str]:
    every = (each for version in catalogue.VERSIONS for each in catalogue.operations(version).values())
    return {each.name for each in every if is_list(each)}


def test_each_list_operation_is_read_by_a_stream_or_says_why_not() -> None:
    read = {operation.name for stream in EVERY for _, _, operation in sources(stream)}
    assert lists() - read == NOT_READ.keys()
    assert not read & NOT_READ.keys()


def test_the_vendors_lists_are_lists_here() -> None:
    listed = {
        name
        for name, each in stored("listed").items()
        if each["method"] == "GET" and each["in_current_spec"] and each["answer"] == "list"
        if not NO_LIST.fullmatch(name.split(" ")[1])
    }
    assert listed <= lists()


def test_s9_what_a_list_leaves_out_by_default_is_asked_for_or_explained() -> None:
    """The vendor's documents say which parameters narrow a list when they are absent."""
    unasked = set()
    for stream in EVERY:
        for _, source, operation in sources(stream):
            given = {*source.query, *source.params}
            narrows = set(stored("listed")[operation.name].get("narrows", ()))
            unasked |= {(operation.name, name) for name in narrows - given}
            explained = [LEFT_OUT.get((operation.name, name), "") for name in narrows - given]
            assert stream.leaves_out or not any(why.startswith("leaves_out") for why in explained), stream.name
    assert unasked == LEFT_OUT.keys()


def test_lists_of_the_token_users_own_records_say_so() -> None:
    """No document names a parameter for these; facts of the API say that they are one user's."""
    own = {"getUserCallLogs", "getMailThreads", "getMailThreadMessages", "getUserConnections", "getUserSettings"}
    for stream in EVERY:
        if own & {source.operation for _, source, _ in sources(stream)}:
            assert stream.leaves_out, stream.name
            assert "other users" in stream.leaves_out
