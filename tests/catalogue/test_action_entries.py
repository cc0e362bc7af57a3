"""The entries of schemas/actions: 149 actions, 442 inputs, each with a target; errors name file, key and a guess."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from pdsync.core.actions import HONOURED, action, actions, read_action, read_inputs, snake
from pdsync.errors import CatalogueError, ConfigError
from pdsync.runner.actions.prepare import STRATEGIES
from tests.vendor import stored

GOOD = {"title": "Get Deals", "kind": "read_list", "operation": "v2 getDeals"}


def test_149_of_149_actions_and_442_of_442_inputs() -> None:
    inputs = [each for one in actions().values() for each in one.inputs.values()]
    assert (len(actions()), len(inputs)) == (149, 442)
    # Targets: a parameter, a local condition, further requests, paging, pdsync itself; or refused with a reason.
    honoured = Counter(each.honoured for each in inputs)
    assert honoured == {"parameter": 281, "paging": 85, "client": 18, "requests": 17, "here": 14, "refused": 27}


def test_they_are_the_component_s() -> None:
    seed = stored("actions")
    assert seed.keys() == actions().keys()
    kinds = {"string Key Value List": "pairs"}
    for key, expected in seed.items():
        own = actions()[key]
        assert (own.title, own.kind) == (expected["title"], expected["kind"])
        inputs = {name: [each.type, each.required] for name, each in own.inputs.items()}
        facts = {name: [kinds.get(type, type), needed] for name, (type, needed) in expected["inputs"].items()}
        assert inputs == facts, key
        assert list(inputs) == list(facts), key
        versions = {f"{version} {id}" for version, id in expected["maps_to"].items() if id}
        assert own.operation in versions or key == "rawRequest"
        assert own.operation is None or own.operation.startswith("v2") == bool(expected["maps_to"]["v2"])


def test_every_input_says_what_it_means_and_every_refusal_why() -> None:
    for key, one in actions().items():
        for name, each in one.inputs.items():
            assert each.meaning, (key, name)
            assert (each.how == "removed") == bool(one.removed), (key, name)
            if each.how == "refused":
                assert each.reason, (key, name)


def test_an_action_is_refused_where_its_operation_has_ended() -> None:
    ended = {key: one.called.ended for key, one in actions().items() if one.called and one.called.ended}
    assert {key: one.removed for key, one in actions().items() if one.removed} == ended
    assert len(ended) == 8
    with pytest.raises(CatalogueError, match="leave out 'removed'"):
        read_action("getDeals", {**GOOD, "removed": "x"}, "schemas/actions/deals.toml [getDeals]")


def test_every_strategy_has_a_name_and_is_used() -> None:
    used = {each.how for one in actions().values() for each in one.inputs.values()}
    assert used == STRATEGIES.keys()
    assert HONOURED.keys() < STRATEGIES.keys()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**GOOD, "titel": "x"}, "unknown field `titel`.*Did you mean 'title'"),
        ({**GOOD, "kind": "read_lst"}, "Did you mean 'read_list'"),
        ({**GOOD, "operation": "v2 getDeal5"}, "Did you mean"),
        ({**GOOD, "inputs": {"a": {"meaning": "x", "hwo": "sort"}}}, "inputs.a.*Did you mean 'how'"),
        ({**GOOD, "inputs": {"a": {"meaning": "x", "how": "first_chr"}}}, "Did you mean 'first_char'"),
        ({**GOOD, "inputs": {"a": {"meaning": "x", "to": "ownerid"}}}, "no parameter 'ownerid'.*Did you mean"),
        ({**GOOD, "inputs": {"a": {"meaning": "x", "how": "refused"}}}, "add `reason`"),
        ("text", "expected a table"),
    ],
)
def test_a_wrong_entry_is_refused_with_the_file_the_key_and_a_guess(entry: Any, message: str) -> None:
    with pytest.raises(CatalogueError, match=message) as message_text:
        read_action("getDeals", entry, "schemas/actions/deals.toml [getDeals]")
    assert "getDeals" in str(message_text.value)


def test_names_of_inputs() -> None:
    deals = action("get_deals")
    assert deals is action("getDeals")
    spellings = ("filterId", "filter_id")
    assert {str(read_inputs(deals, {name: 3}).inputs["filterId"]) for name in spellings} == {"3"}
    assert read_inputs(deals, {"owner_id": 5}).inputs["userId"] == 5  # the API's name
    assert read_inputs(deals, {"pipeline_id": 5}).parameters == {"pipeline_id": 5}  # not an input of the component
    assert read_inputs(action("addDealProduct"), {"id": 1, "productId": 2}).parameters == {"product_id": 2}
    assert snake("retryDelayMS") == "retry_delay_ms"
    assert "limit" not in read_inputs(deals, {"limit": ""}).inputs  # an empty input counts as not given


@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        ("getDeals", {"fltrId": 1}, "no input 'fltrId'. Did you mean 'filterId'"),
        ("getDeals", {"filterId": 1, "filter_id": 2}, "filterId is given twice"),
        ("getDeals", {"pipeline_id": 1, "pipelineId": 1}, "pipeline_id is given twice"),  # no input
        ("addDeal", {"isArchived": 1, "is_archived": 0}, "is_archived is given twice"),
        ("getDeals", {"sort": "id ASC", "sortBy": "add_time"}, "sort_by is given twice"),  # which the input sets
        ("getDeals", {"userId": 1, "ownerId": 2}, "owner_id is given twice"),
        ("getDeals", {"sortBy": "add_time", "sort_by": "id"}, "sort_by is given twice"),
        ("getDeal", {}, "needs id"),
        ("mergeDeals", {"id": 1}, "needs mergeWithId"),
        ("getSubscription", {"id": 1}, "getSubscription: Pipedrive removed subscriptions"),
        ("getCurrentUser", {"fetchAll": True}, "no input 'fetchAll'"),
    ],
)
def test_a_wrong_input_is_refused(key: str, given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_inputs(action(key), given)


def test_an_unknown_action_gets_a_guess() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'getDeals'"):
        action("getDealsz")
    with pytest.raises(ConfigError, match="an operation: pdsync api addNote"):
        action("addNote")
