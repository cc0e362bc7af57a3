"""What a parameter of the component or of v1 is told where today's operation does not know it."""

from __future__ import annotations

import pytest

from pdsync.core import catalogue
from pdsync.core.actions import hint_for
from pdsync.core.request_builder import check
from pdsync.errors import ConfigError


@pytest.mark.parametrize(
    ("operation", "name", "hint"),
    [
        ("getDeals", "start", "`pdsync action getDeals` takes it"),
        ("getDeals", "user_id", "Did you mean 'owner_id'?"),
        ("getDeals", "owned_by_you", "`pdsync action getDeals` takes it"),
        ("getDeals", "ownedByYou", "`pdsync action getDeals` takes it"),
        ("getDeals", "everyone", "`pdsync action getPipelineDeals` takes it"),
        ("getActivities", "user_id", "Did you mean 'owner_id'?"),
        ("getActivities", "type", "`pdsync action getActivities` takes it"),
        ("getActivities", "exclude", "`pdsync action getDealActivities` takes it"),
        ("getOrganizations", "first_char", "`pdsync action getOrganizations` takes it"),
        ("getDealProducts", "include_product_data", "`pdsync action getDealProducts` takes it"),
        ("getLeads", "archived_status", "`pdsync action getLeads` takes it"),
        ("getDealField", "id", "`pdsync action getDealField` takes it"),
        ("getDealFiles", "include_deleted_files", "Pipedrive no longer lists deleted files"),
        ("addDeal", "add_time", "Pipedrive takes no creation time for a new deal"),
        ("addDeal", "user_id", "Did you mean 'owner_id'?"),
        ("addProduct", "selectable", "Did you mean 'is_linkable'?"),
        ("addStage", "rotten_days", "Did you mean 'days_to_rotten'?"),
        ("addStage", "rotten_flag", "Did you mean 'is_deal_rot_enabled'?"),
        ("addPipeline", "order_nr", "Pipedrive adds a pipeline after the others"),
        ("addDealProduct", "enabled_flag", "Did you mean 'is_enabled'?"),
        ("addDealProduct", "duration", "Pipedrive removed durations"),
    ],
)
def test_an_old_name_is_told_what_became_of_it(operation: str, name: str, hint: str) -> None:
    asked = catalogue.operation(operation)
    assert hint in str(hint_for(asked, name))
    with pytest.raises(ConfigError) as told:
        check(asked, {name: "1"})
    assert hint in str(told.value)


def test_a_name_that_no_action_knows_gets_a_guess_of_today() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'owner_id'"):
        check(catalogue.operation("getDeals"), {"ownr_id": "1"})
    assert hint_for(catalogue.operation("getDeals"), "id") is not None  # of getOrganizationDeals: org_id
    assert hint_for(catalogue.operation("getDeal"), "ids") is None


def test_a_word_of_v1_is_not_taken_for_its_opposite() -> None:
    with pytest.raises(ConfigError, match="Without status all that are not deleted are listed"):
        check(catalogue.operation("getDeals"), {"status": "all_not_deleted"})
