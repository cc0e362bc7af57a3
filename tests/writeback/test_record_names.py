"""The id of the record that has a name, and nothing where several have it."""

from __future__ import annotations

import pytest

from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.writeback.record_names import referenced_stream
from pdsync.writeback.resolver import NameResolver
from tests.writeback.company import open_company, resolve


@pytest.mark.parametrize(
    ("key", "value", "id"),
    [
        ("owner", "Anna Berg", 1), ("owner", " anna BERG ", 1), ("owner", "anna@example.com", 1),
        ("owner_id", "2", 2), ("owner_id", 2, 2), ("owner_id", 2.0, 2),
        ("org", "acme", 7), ("pipeline", "Partners", 11), ("stage", "Won it", 102),
    ],
)  # fmt: skip
def test_a_record_is_named_by_id_name_or_address(names: NameResolver, key: str, value: object, id: int) -> None:
    resolved = next(iter(resolve(names, {key: value}).values()))
    assert resolved in (id, str(id))


def test_a_name_of_two_records_is_refused_with_their_ids(names: NameResolver) -> None:
    with pytest.raises(ConfigError, match=r"several users are called 'bo dahl' \(2, 3, inactive\)"):
        resolve(names, {"owner": "bo dahl"})


@pytest.mark.parametrize("pipeline", ["Partners", 11, "11"])
def test_the_pipeline_decides_between_stages_of_one_name(names: NameResolver, pipeline: object) -> None:
    assert resolve(names, {"stage": "Offer", "pipeline_id": pipeline})["stage_id"] == 101
    with pytest.raises(ConfigError, match=r"several stages are called 'Offer' \(100, 101\)"):
        resolve(names, {"stage": "Offer"})


@pytest.mark.parametrize("key", ["pipeline_id", "pipeline"])
def test_the_pipeline_decides_however_many_stages_have_the_name(key: str) -> None:
    with open_company() as warehouse:
        for pipeline in range(20, 32):
            warehouse.execute("INSERT INTO pipelines VALUES (?, ?, NULL)", [pipeline, f"Pipeline {pipeline}"])
            warehouse.execute("INSERT INTO stages VALUES (?, 'Qualified', ?, NULL)", [pipeline * 10, pipeline])
        names = NameResolver(warehouse)
        for pipeline in range(20, 32):
            assert resolve(names, {"stage_id": "Qualified", key: pipeline})["stage_id"] == pipeline * 10
        assert resolve(names, {"stage_id": "Qualified", key: "Pipeline 31"})["stage_id"] == 310


def test_a_pipeline_without_a_stage_of_the_name_is_refused_by_its_name(names: NameResolver) -> None:
    with pytest.raises(ConfigError, match=r"none of the stages of pipeline 99 is called 'Offer'. Nothing was queued"):
        resolve(names, {"stage": "Offer", "pipeline_id": 99})


def test_an_emptied_pipeline_decides_nothing(names: NameResolver) -> None:
    with pytest.raises(ConfigError, match="several stages are called 'Offer'"):
        resolve(names, {"stage": "Offer", "pipeline_id": "null"})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("Ana Berg", "none of the users is called 'Ana Berg'. Did you mean 'Anna Berg'? Nothing was queued"),
        ("Zed", "none of the users is called 'Zed'. Nothing was queued"),
        (
            "left long ago",
            "owner_id: the user 'left long ago' (4) is inactive: deleted in Pipedrive. Nothing was queued",
        ),
        ("left@example.com", "or give the id if Pipedrive should decide: owner_id=4"),
    ],
)
def test_an_unknown_or_deleted_record_is_refused(names: NameResolver, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(names, {"owner": value})
    assert message in str(refused.value)


def test_the_name_of_a_user_who_left_counts_where_something_is_taken_away(names: NameResolver) -> None:
    given = {"id": 7, "user_id": "Left Long Ago"}
    assert resolve(names, given, "v1 deleteRoleAssignment")["user_id"] == 4
    with pytest.raises(ConfigError, match="inactive"):
        resolve(names, given, "v1 addRoleAssignment")


def test_a_user_who_was_deactivated_is_taken_and_shown_as_inactive(names: NameResolver) -> None:
    operation = catalogue.operation("v2 updateDeal")
    assert resolve(names, {"owner": "Cleo Eng"})["owner_id"] == 5
    shown = [names.display_value(operation, "owner_id", id) for id in (1, 4, 5)]
    assert shown == ["Anna Berg (1)", "Left Long Ago (4, inactive)", "Cleo Eng (5, inactive)"]


def test_a_table_that_was_not_synced_knows_no_names(names: NameResolver) -> None:
    with pytest.raises(ConfigError, match=r"names are known after a sync \(pdsync sync persons\)"):
        resolve(names, {"person": "Eve"})
    assert resolve(names, {"person": 5}) == {"person_id": 5}


@pytest.mark.parametrize(
    ("name", "stream", "expected"),
    [
        ("owner_id", None, "users"), ("rel_owner_org_id", None, "organizations"), ("title", None, None),
        ("stage_id", "deals", "stages"), ("creator_user_id", "deals", "users"),
    ],
)  # fmt: skip
def test_an_id_belongs_to_the_records_of_a_stream(name: str, stream: str | None, expected: str | None) -> None:
    assert referenced_stream(name, catalogue.stream(stream) if stream else None) == expected
