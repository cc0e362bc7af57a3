"""The changelog shows who changed a field between our read and our write, and who deleted a record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.errors import ApiError
from pdsync.writeback.lost_updates import find_changelog, find_deleter, find_overwritten
from tests.writeback.api import answering

if TYPE_CHECKING:
    from pathlib import Path

ME, OTHER = 1, 2
CHANGELOG = "/v1/deals/12/changelog"


def entry(field: str, old: object, new: object, user: int = ME) -> dict[str, Any]:
    return {"field_key": field, "old_value": old, "new_value": new, "actor_user_id": user}


@pytest.mark.parametrize(
    ("kind", "operation"),
    [("deals", "v1 getDealChangelog"), ("persons", "v1 getPersonChangelog"), ("leads", None), ("deals/products", None)],
)
def test_only_some_kinds_have_a_changelog(kind: str, operation: str | None) -> None:
    found = find_changelog(kind)
    assert (found.name if found else None) == operation


@pytest.mark.parametrize(
    ("answer", "user"),
    [
        ([entry("status", "open", "deleted", OTHER)], OTHER),
        ([entry("active_flag", "1", "0", OTHER)], OTHER),
        ([entry("active_flag", True, False)], ME),
        ([entry("title", "a", "b"), entry("status", "open", "deleted", OTHER)], OTHER),
        ([entry("status", "open", "deleted"), entry("status", "open", "deleted", OTHER)], ME),  # the newest one counts
        ([entry("status", "open", "won", OTHER), entry("active_flag", "0", "1", OTHER)], None),
        ([], None),
        (404, None),  # purged
        (403, None),
    ],
)
async def test_s8_the_user_who_deleted_a_record(tmp_path: Path, answer: object, user: int | None) -> None:
    async with answering(tmp_path, {CHANGELOG: answer}) as api:
        assert await find_deleter(api.http, "deals", "12") == user


async def test_s8_without_a_changelog_no_user_is_named_and_nothing_is_read(tmp_path: Path) -> None:
    async with answering(tmp_path, {}) as api:
        assert await find_deleter(api.http, "leads", "12") is None
        assert await find_overwritten(api.http, "leads", "12", base={"title": "a"}, desired={"title": "b"}, me=ME) == {}
    assert api.requests == []


@pytest.mark.parametrize(
    ("entries", "base", "desired", "lost"),
    [
        ([entry("title", "Old", "New")], {"title": "Old"}, {"title": "New"}, {}),
        ([entry("title", "Hers", "New")], {"title": "Old"}, {"title": "New"}, {"title": "Hers"}),
        ([entry("title", "Hers", "New"), entry("title", "Old", "Hers", OTHER)], {"title": "Old"}, {"title": "New"},
         {"title": "Hers"}),
        ([entry("title", "Hers", "New", OTHER)], {"title": "Old"}, {"title": "New"}, {}),  # her change, not ours
        ([entry("title", "Old", "New"), entry("title", "x", "New")], {"title": "Old"}, {"title": "New"}, {}),
        ([entry("value", "5", "7.00")], {"value": 5.0}, {"value": 7}, {}),  # the same values, written otherwise
        ([entry("title", "Hers", "New")], {}, {"title": "New"}, {}),  # what it was before is not known
        ([entry("user_id", 4, 5)], {"owner_id": 3}, {"owner_id": 5}, {"owner_id": 4}),  # the name that v1 has for it
        ([entry("owner_id", 4, 5)], {"owner_id": 3}, {"owner_id": 5}, {}),
        ([entry("a" * 40, "Hers", "New")], {"custom_fields": {"a" * 40: "Old"}}, {f"custom_fields/{'a' * 40}": "New"},
         {f"custom_fields/{'a' * 40}": "Hers"}),
        ([entry("label", "3", "5")], {"label_ids": [4]}, {"label_ids": [5]}, {}),  # lists are not compared
        ([entry("label", "3", None)], {"label_ids": [4]}, {"label_ids": None}, {"label_ids": "3"}),
        ([], {"title": "Old"}, {"title": "New"}, {}),
    ],
)  # fmt: skip
async def test_w6_an_edit_that_ours_replaced_unseen_is_found(
    tmp_path: Path, entries: list[Any], base: dict[str, Any], desired: dict[str, Any], lost: dict[str, Any]
) -> None:
    async with answering(tmp_path, {CHANGELOG: entries}) as api:
        assert await find_overwritten(api.http, "deals", "12", base=base, desired=desired, me=ME) == lost


async def test_w6_an_organizations_owner_has_one_name_everywhere(tmp_path: Path) -> None:
    async with answering(tmp_path, {"/v1/organizations/12/changelog": [entry("owner_id", 4, 5)]}) as api:
        lost = await find_overwritten(
            api.http, "organizations", "12", base={"owner_id": 3}, desired={"owner_id": 5}, me=ME
        )
    assert lost == {"owner_id": 4}


async def test_w6_a_changelog_that_cannot_be_read_shows_nothing_and_says_so(tmp_path: Path) -> None:
    async with answering(tmp_path, {CHANGELOG: 403}) as api:
        with pytest.raises(ApiError):
            await find_overwritten(api.http, "deals", "12", base={"title": "a"}, desired={"title": "b"}, me=ME)
