"""The history of a record joins what syncs have seen with what the changelog says, each change once, with names."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.model import Page, Walk
from pdsync.runner.loader import Loader
from pdsync.runner.report.record_history import _Labels, _sort_key, build_timeline
from tests.runner.kit import T0, deal, encode, load_rows, text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEALS = catalogue.stream("deals")
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loader]:
    """Deal 1 was changed twice, deleted and restored; deal 2 has a changelog; deal 3 never changed."""
    made = Loader(tmp_path_factory.mktemp("history") / "work.duckdb")
    made.open(1, "Example")
    made.loaded_at = T0
    load_rows(made, "users", {"id": 5, "name": "Ada"}, {"id": 6, "name": "Bob"})
    versions = [
        [deal(1, owner_id=5), deal(2), deal(3)],
        [deal(1, T0 + HOUR, title="Renamed", owner_id=6), deal(2, T0 + HOUR, title="Later", value=5)],
        [deal(1, T0 + 2 * HOUR, title="Renamed", owner_id=6, is_deleted=True)],
        [deal(1, T0 + 3 * HOUR, title="Renamed", owner_id=6)],
    ]
    for hours, records in enumerate(versions):
        load_rows(made, "deals", *records, number=hours + 2, at=T0 + hours * HOUR)
    load_changelog(
        made,
        change(T0 - HOUR, "title", "First", "deal 2", 5),  # before the first sync
        change(T0 + HOUR / 2, "title", "deal 2", "Between", 5),
        change(T0 + HOUR, "title", "Between", "Later", 6),
        change(T0 + HOUR, "user_id", "5", "6", None),
    )
    made.connection.execute(
        "INSERT INTO meta.field_options VALUES ('deals', 'label', '7', 'Hot'), ('deals', 'channel', '9', 'Web')"
    )
    yield made
    asyncio.run(made.close())


def change(at: datetime, key: str, old: str, new: str, actor: int | None) -> dict[str, Any]:
    return {"field_key": key, "old_value": old, "new_value": new, "actor_user_id": actor, "time": text(at)}


def load_changelog(loader: Loader, *changes: dict[str, Any]) -> None:
    stream = catalogue.stream("deal_changelog")
    walk = Walk(99, "run-99", stream.name, stream.v1[0].name, "v1", stream.v1[0].operation, None, T0)
    page = Page(99, 0, encode(changes), len(changes), None, T0, context={"id": "2"})
    asyncio.run(loader.add(stream, walk, [page]))


def events(loader: Loader, id: str) -> list[tuple[Any, ...]]:
    timeline = build_timeline(loader.connection, DEALS, id)
    assert [_sort_key(each.at) for each in timeline] == sorted(_sort_key(each.at) for each in timeline)
    return [(each.at, each.event, each.field, each.before, each.after, each.by) for each in timeline
            if each.field != "update_time"]  # fmt: skip


def test_a_merged_record_says_into_which(tmp_path: Path) -> None:
    made = Loader(tmp_path / "work.duckdb")
    made.open(1, "Example")
    made.loaded_at = T0
    load_rows(made, "deals", deal(1), deal(2), deal(12))
    load_rows(made, "deals", deal(1, is_deleted=True), deal(2, is_deleted=True), number=2, at=T0 + HOUR)
    made.connection.execute(
        "INSERT INTO meta.merges VALUES ('deals', 1, 12, 'exact', now(), 'r'), ('persons', 2, 3, 'exact', now(), 'r')"
    )
    merged = build_timeline(made.connection, DEALS, "1")
    assert [(each.event, each.after, each.after_label) for each in merged if not each.field] == [
        ("first_observed", "deal 1", None), ("merged", "12", "deal 12"),
    ]  # fmt: skip
    assert "deleted" in {each.event for each in build_timeline(made.connection, DEALS, "2")}
    load_rows(made, "deals", deal(1), number=3, at=T0 + 2 * HOUR)
    events = {each.event for each in build_timeline(made.connection, DEALS, "1")}
    assert {"deleted", "restored"} < events
    assert "merged" not in events
    asyncio.run(made.close())


def test_each_version_that_a_sync_has_seen_is_an_event(loader: Loader) -> None:
    assert events(loader, "1") == [
        (T0, "first_observed", None, None, "deal 1", None),
        (T0 + HOUR, "changed", "title", "deal 1", "Renamed", None),
        (T0 + HOUR, "changed", "owner_id", 5, 6, None),
        (T0 + 2 * HOUR, "deleted", None, None, None, None),
        (T0 + 2 * HOUR, "changed", "is_deleted", False, True, None),
        (T0 + 3 * HOUR, "restored", None, None, None, None),
        (T0 + 3 * HOUR, "changed", "is_deleted", True, False, None),
    ]
    owner = next(each for each in build_timeline(loader.connection, DEALS, "1") if each.field == "owner_id")
    assert (owner.before_label, owner.after_label, owner.run_id) == ("Ada", "Bob", "run-3")
    assert events(loader, "3") == [(T0, "first_observed", None, None, "deal 3", None)]


def test_an_edit_of_the_changelog_replaces_the_change_that_a_sync_saw(loader: Loader) -> None:
    assert events(loader, "2") == [
        (T0 - HOUR, "edited", "title", "First", "deal 2", "Ada"),
        (T0, "first_observed", None, None, "deal 2", None),
        (T0 + HOUR / 2, "edited", "title", "deal 2", "Between", "Ada"),
        (T0 + HOUR, "edited", "title", "Between", "Later", "Bob"),
        (T0 + HOUR, "edited", "owner_id", "5", "6", None),  # v1 calls it user_id
        (T0 + HOUR, "changed", "value", None, 5, None),  # no edit explains it
    ]


@pytest.mark.parametrize(("name", "id"), [("leads", "1"), ("deals", "987654")])
def test_what_was_never_synced_is_named(loader: Loader, name: str, id: str) -> None:
    with pytest.raises(ConfigError, match="synced"):
        build_timeline(loader.connection, catalogue.stream(name), id)


@pytest.mark.parametrize(
    ("field", "value", "label"),
    [
        ("owner_id", 5, "Ada"),
        ("owner_id", 404, None),
        ("label_ids", [7, 8], "Hot"),
        ("channel", 9, "Web"),
        ("title", "x", None),
        ("owner_id", None, None),
        ("_extra/x", 5, None),
    ],
)
def test_values_have_the_names_of_today(loader: Loader, field: str, value: Any, label: str | None) -> None:
    assert _Labels(loader.connection, DEALS).label_of(field, value, {}) == label


@pytest.mark.parametrize(
    ("key", "value", "label"),
    [("user_id", "5", "Ada"), ("label", "7,8", "Hot"), ("title", "x", None), ("user_id", None, None)],
)
def test_texts_of_the_changelog_have_the_same_names(loader: Loader, key: str, value: str | None, label: str) -> None:
    assert _Labels(loader.connection, DEALS).label_of_text(key, value) == label


def test_far_times_come_first_and_last() -> None:
    for moment in ("0044-03-15 00:00:00+00 (BC)", "-0043-03-15 00:00:00+00"):
        assert _sort_key(moment) == datetime.min.replace(tzinfo=UTC)
    assert _sort_key("10001-01-01 00:00:00+00") == datetime.max.replace(tzinfo=UTC)
    assert _sort_key(T0) == T0
