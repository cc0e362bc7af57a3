"""The loader turns pages into batches, the same ones after a kill as before it, and fields into columns."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec
import pytest

from pdsync.core import catalogue
from pdsync.errors import StorageError, WrongCompany
from pdsync.model import Page, Stream, Version, Walk
from pdsync.runner import loader as loading
from pdsync.runner.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pdsync.load.commit import Counts

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DEALS, FIELDS = catalogue.stream("deals"), catalogue.stream("deal_fields")
LEAD_LABEL = "adf21080-0e10-11eb-879b-05d71fb426ec"
CODE = "a" * 40


@pytest.fixture
def loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loader]:
    monkeypatch.setattr(loading, "PAGES_PER_BATCH", 3)  # a batch of the real size takes a hundred thousand rows
    made = Loader(tmp_path / "work.duckdb")
    made.open(1, "Example")
    yield made
    if made._connection is not None:
        asyncio.run(made.close())


def walk(id: int = 1, stream: str = "deals", since: datetime | None = None) -> Walk:
    return Walk(id, f"run-{id}", stream, "live", "v2", "getDeals", since, NOW)


def pages(walk: Walk, records: list[list[dict[str, Any]]], start: int = 0, *, ends: bool = True) -> list[Page]:
    made = []
    for seq, each in enumerate(records, start):
        following = None if ends and seq == start + len(records) - 1 else str(seq + 1)
        made.append(Page(walk.id, seq, msgspec.json.encode({"data": each}), len(each), following, NOW))
    return made


def deals(*numbers: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": number, "title": f"deal {number}", **more} for number in numbers]


def asked(loader: Loader, query: str) -> list[tuple[Any, ...]]:
    return loader.connection.execute(query).fetchall()


def add(loader: Loader, stream: Stream, walk: Walk, pages: Sequence[Page]) -> Counts | None:
    return asyncio.run(loader.add(stream, walk, pages))


def define(loader: Loader, run: int, *fields: dict[str, Any]) -> None:
    """Sync the definitions of the fields of deals, as the run does before the deals."""
    of = walk(run, "deal_fields")
    add(loader, FIELDS, of, pages(of, [list(fields)]))


def custom(
    name: str, kind: str = "double", options: list[dict[str, Any]] | None = None, code: str = CODE
) -> dict[str, Any]:
    return {"field_code": code, "field_name": name, "field_type": kind, "options": options, "is_custom_field": True}


def test_s15_batches_are_cut_by_page_number_however_pages_come(loader: Loader) -> None:
    first = walk(1)
    everything = pages(first, [deals(n) for n in range(8)])
    for page in everything:
        add(loader, DEALS, first, [page])
    one_by_one = asked(loader, "SELECT batch, last_page, read FROM meta._applied_batches ORDER BY batch")
    second = walk(2)
    add(loader, DEALS, second, pages(second, [deals(n) for n in range(8)]))
    together = asked(loader, "SELECT batch, last_page, read FROM meta._applied_batches WHERE walk = 2 ORDER BY batch")
    assert one_by_one == together == [(2, 2, 3), (5, 5, 3), (7, 7, 2)]


def test_s1_what_was_committed_is_not_loaded_again_and_the_rest_is(loader: Loader, tmp_path: Path) -> None:
    of = walk()
    everything = pages(of, [deals(n) for n in range(5)])
    add(loader, DEALS, of, everything[:4])  # one batch, and a page that was staged only
    assert loader.pages_loaded(of) == 3
    assert loader.loaded_pages_by_walk() == {("run-1", 1): 2}
    asyncio.run(loader.close())  # the staged page dies with the connection

    after = Loader(tmp_path / "work.duckdb")
    after.open(1, "Example")
    start = after.pages_loaded(of)
    counts = add(after, DEALS, of, everything[start:])
    assert counts is not None
    assert counts.inserted == 2
    assert asked(after, "SELECT count(*), count(DISTINCT id) FROM deals") == [(5, 5)]
    again = add(after, DEALS, of, everything)
    assert again is not None
    assert asked(after, "SELECT count(*) FROM versions.deals") == [(0,)]
    asyncio.run(after.close())


def test_s1_what_is_staged_when_a_run_ends_is_committed_and_the_walk_continues_after_it(loader: Loader) -> None:
    of = walk()
    everything = pages(of, [deals(n) for n in range(5)])
    add(loader, DEALS, of, everything[:2])
    counts = asyncio.run(loader.commit_staged(DEALS, of))
    assert counts is not None
    assert (counts.read, counts.inserted, loader.pages_loaded(of)) == (2, 2, 2)
    assert asyncio.run(loader.commit_staged(DEALS, of)) is None  # nothing is staged
    assert asked(loader, "SELECT count(*) FROM meta.checkpoints") == [(0,)]  # the list was not read to its end
    add(loader, DEALS, of, everything[2:])
    assert asked(loader, "SELECT last_page, read FROM meta._applied_batches ORDER BY 1") == [(1, 2), (2, 1), (4, 2)]
    assert asked(loader, "SELECT count(*), count(DISTINCT id) FROM deals") == [(5, 5)]
    assert asked(loader, "SELECT watermark FROM meta.checkpoints") == [(NOW,)]


def test_a_walk_is_counted_over_its_batches(loader: Loader) -> None:
    of = walk()
    counts = add(loader, DEALS, of, pages(of, [deals(n, n + 100) for n in range(7)]))
    assert counts is not None
    assert (counts.read, counts.inserted, counts.unchanged) == (14, 14, 0)
    assert asked(loader, "SELECT watermark FROM meta.checkpoints") == [(NOW,)]


def test_row_groups_are_merged_after_many_replacements_or_a_few_runs(loader: Loader) -> None:
    def run(number: int, records: list[dict[str, Any]]) -> bool:
        of = walk(number)
        loader._wrote, loader._replaced = False, 0  # as in a new process
        add(loader, DEALS, of, pages(of, [records]))
        return loader.should_merge()

    assert not run(1, deals(*range(1, 11)))
    assert not run(2, deals(*range(1, 11)))  # wrote nothing
    assert not run(3, deals(1, value=5))
    assert run(4, deals(1, 2, 3, value=6))  # replaced many
    assert run(5, deals(4, value=6))  # the fourth that wrote
    assert not run(6, deals(4, value=6))
    assert not run(7, deals(5, value=6))


def test_pages_that_complete_no_batch_are_no_result_yet(loader: Loader) -> None:
    of = walk()
    assert add(loader, DEALS, of, pages(of, [deals(1)], ends=False)) is None
    assert asked(loader, "SELECT count(*) FROM deals") == [(0,)]


def test_an_empty_company_leaves_tables_and_a_watermark(loader: Loader) -> None:
    of = walk()
    counts = add(loader, DEALS, of, pages(of, [[]]))
    assert counts is not None
    assert (counts.read, counts.inserted) == (0, 0)
    loader.create_views()
    assert asked(loader, "SELECT count(*) FROM labeled.deals") == [(0,)]
    assert asked(loader, "SELECT stream, watermark FROM meta.checkpoints") == [("deals", NOW)]


def test_s16_a_field_is_learnt_renamed_and_retyped_without_moving_a_column(loader: Loader) -> None:
    define(loader, 1, custom("Deal size"))
    assert loader.sync_custom_fields(DEALS, "run-1") == []  # the first time nothing has changed
    of = walk(2)
    add(loader, DEALS, of, pages(of, [deals(1, custom_fields={CODE: 1.5})]))
    assert asked(loader, "SELECT cf_deal_size FROM deals") == [(1.5,)]

    define(loader, 3, custom("Volume"))
    assert [change.kind for change in loader.sync_custom_fields(DEALS, "run-3")] == ["field_renamed"]
    assert asked(loader, "SELECT label, column_name FROM meta.custom_fields") == [("Volume", "cf_deal_size")]

    define(loader, 4, custom("Volume", "enum", [{"id": 7, "label": "Big"}]))
    assert [change.kind for change in loader.sync_custom_fields(DEALS, "run-4")] == ["field_retyped"]
    of = walk(5)
    add(loader, DEALS, of, pages(of, [deals(1, custom_fields={CODE: 7})]))
    columns = [row[0] for row in asked(loader, "SELECT column_name FROM meta.custom_fields ORDER BY column_name")]
    assert len(columns) == 2
    newer = next(column for column in columns if column != "cf_deal_size")
    assert asked(loader, f'SELECT "{newer}", "{newer}_label" FROM deals') == [(7, "Big")]
    kinds = asked(loader, "SELECT kind FROM meta.schema_changes WHERE entity = 'deals' ORDER BY seen_at")
    assert [kind for (kind,) in kinds] == ["field_renamed", "field_retyped"]


def test_s16_a_new_field_does_not_make_the_other_rows_look_changed(loader: Loader) -> None:
    define(loader, 1, custom("One", code="b" * 40))
    loader.sync_custom_fields(DEALS, "run-1")
    of = walk(2)
    add(loader, DEALS, of, pages(of, [deals(1, 2, 3)]))
    define(loader, 3, custom("One", code="b" * 40), custom("Two"))
    assert [change.kind for change in loader.sync_custom_fields(DEALS, "run-3")] == ["field_added"]
    of = walk(4)
    counts = add(loader, DEALS, of, pages(of, [[*deals(1, 2), *deals(3, custom_fields={CODE: 5})]]))
    assert counts is not None
    assert (counts.updated, counts.unchanged) == (1, 2)


def tier(loader: Loader, run: int, *labels: str, name: str = "Tier") -> None:
    """Sync the definition of a field whose options have `labels`."""
    define(loader, run, custom(name, "enum", [{"id": id, "label": label} for id, label in enumerate(labels, 1)]))
    loader.sync_custom_fields(DEALS, f"run-{run}")


def add_gold_deal(loader: Loader) -> None:
    """A deal with the one option of such a field."""
    tier(loader, 1, "Gold")
    of = walk(2)
    add(loader, DEALS, of, pages(of, [deals(1, custom_fields={CODE: 1})]))


def test_s6_a_renamed_option_relabels_rows_that_did_not_change(loader: Loader) -> None:
    add_gold_deal(loader)
    tier(loader, 3, "Platinum")
    assert asked(loader, "SELECT cf_tier, cf_tier_label FROM deals") == [(1, "Platinum")]
    assert asked(loader, "SELECT count(*) FROM versions.deals") == [(0,)]


def test_s6_options_are_stored_together_with_the_labels_of_rows_or_not(
    loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels are compared only where options have changed: a run that dies between the two must not end that."""
    add_gold_deal(loader)
    with monkeypatch.context() as patch:
        patch.setattr(loading, "refresh_labels", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tier(loader, 3, "Platinum")
    assert asked(loader, "SELECT label FROM meta.field_options") == [("Gold",)]
    loader.sync_custom_fields(DEALS, "run-4")
    shown = "SELECT d.cf_tier_label, o.label FROM deals d, meta.field_options o"
    assert asked(loader, shown) == [("Platinum", "Platinum")]


def test_s6_labels_are_compared_again_only_where_an_option_has_changed(
    loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_gold_deal(loader)
    monkeypatch.setattr(loading, "refresh_labels", lambda *_: 1 / 0)
    tier(loader, 3, "Gold", name="Level")
    with pytest.raises(ZeroDivisionError):
        tier(loader, 4, "Gold", "Silver", name="Level")


def test_s6_a_label_column_that_comes_later_is_filled(loader: Loader) -> None:
    """As where a release of pdsync knows labels that the one before did not."""
    add_gold_deal(loader)
    loader.connection.execute("ALTER TABLE deals DROP COLUMN cf_tier_label")
    loader.sync_custom_fields(DEALS, "run-3")
    assert asked(loader, "SELECT cf_tier, cf_tier_label FROM deals") == [(1, "Gold")]


@pytest.mark.parametrize("label", ['a"b', "a'; DROP TABLE deals; --", "💾", "select", "", "\n", "x" * 10_000, "id"])
def test_s16_views_resolve_whatever_a_field_is_called(loader: Loader, label: str) -> None:
    define(loader, 1, custom(label, "set", [{"id": 1, "label": label}]), custom(label, "monetary", code="c" * 40))
    loader.sync_custom_fields(DEALS, "run-1")
    of = walk(2)
    values = {CODE: [1], "c" * 40: {"value": 1.5, "currency": "EUR"}}
    add(loader, DEALS, of, pages(of, [deals(1, custom_fields=values, label_ids=[4])]))
    loader.create_views()
    column = asked(loader, f"SELECT column_name FROM meta.custom_fields WHERE field_code = '{CODE}'")[0][0]
    quoted = column.replace('"', '""')
    assert asked(loader, f'SELECT "{quoted}" FROM labeled.deals') == [([label],)]
    assert asked(loader, f'SELECT "{quoted}", "{quoted}_labels" FROM history.deals') == [([1], [label])]
    assert asked(loader, "SELECT deal_id, position, label_id FROM deal_labels") == [(1, 1, 4)]


def test_views_name_what_ids_point_to(loader: Loader) -> None:
    users, of = catalogue.stream("users"), Walk(1, "r", "users", "all", "v1", "getUsers", None, NOW)
    add(loader, users, of, pages(of, [[{"id": 7, "name": "Ada"}]]))
    channel = {"field_code": "channel", "field_name": "Channel", "field_type": "enum"}
    status = {"field_code": "status", "field_name": "Status", "field_type": "status"}
    define(
        loader,
        3,
        custom("Engineer", "user"),
        channel | {"options": [{"id": 52, "label": "Fair"}]},
        status | {"options": [{"id": "won", "label": "Won"}]},
    )
    loader.sync_custom_fields(DEALS, "run-1")
    of = walk(2)
    more = {"channel": 52, "status": "won", "custom_fields": {CODE: 7}}
    add(loader, DEALS, of, pages(of, [deals(1, owner_id=7, person_id=None, **more)]))
    leads, labels = catalogue.stream("leads"), catalogue.stream("lead_labels")
    of = Walk(4, "r", "lead_labels", "all", "v1", "getLeadLabels", None, NOW)
    add(loader, labels, of, pages(of, [[{"id": LEAD_LABEL, "name": "Warm"}]]))
    of = Walk(5, "r", "leads", "live", "v1", "getLeads", None, NOW)
    add(loader, leads, of, pages(of, [[{"id": LEAD_LABEL, "label_ids": [LEAD_LABEL]}]]))
    loader.create_views()
    shown = "owner, owner_id, cf_engineer, cf_engineer_id, channel, channel_option_id, status FROM labeled.deals"
    assert asked(loader, f"SELECT {shown}") == [("Ada", 7, "Ada", 7, "Fair", 52, "won")]  # a code is no id
    assert asked(loader, "SELECT labels, label_ids FROM labeled.leads") == [(["Warm"], [LEAD_LABEL])]


def test_x1_a_work_file_of_another_company_is_refused(loader: Loader, tmp_path: Path) -> None:
    asyncio.run(loader.close())
    other = Loader(tmp_path / "work.duckdb")
    with pytest.raises(WrongCompany):
        other.open(2, "Other")
    asyncio.run(other.close())


async def test_what_duckdb_says_is_told_with_what_to_do(tmp_path: Path) -> None:
    loader = Loader(tmp_path / "work.duckdb")
    await loader.do(loader.open, 1, "Example")

    def fail() -> None:
        raise duckdb.IOException("No space left on device")

    with pytest.raises(StorageError, match="Free some space"):
        await loader.do(fail)
    await loader.close()


def test_a_closed_loader_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not open"):
        _ = Loader(tmp_path / "x.duckdb").connection


@pytest.mark.parametrize(
    ("stream", "operation", "more", "seq", "is_whole"),
    [
        ("notes", "getNotes", "false", 0, True),
        ("notes", "getNotes", "true", 0, False),  # the next page begins after the watermark
        ("notes", "getNotes", "null", 0, False),  # it does not say
        ("notes", "getNotes", "false", 1, False),  # records may have moved between the pages
        ("activities", "getActivities", "false", 0, False),  # a list of changes
    ],
)
def test_s6_a_list_whose_newest_page_shows_all_of_it_was_read_whole(
    loader: Loader, stream: str, operation: str, more: str, seq: int, is_whole: bool
) -> None:
    version: Version = "v1" if stream == "notes" else "v2"
    for number, since in ((1, None), (2, NOW)):
        at = NOW + timedelta(days=number)
        reading = Walk(number, f"run-{number}", stream, "all", version, operation, since, at)
        rest = b"null" if since is None else b'{"pagination":{"more_items_in_collection":%s}}' % more.encode()
        body = b'{"data":[{"id":1}],"additional_data":%s}' % rest
        last = seq if since else 0
        found = [Page(number, each, body, 1, None if each == last else "9", at) for each in range(last + 1)]
        add(loader, catalogue.stream(stream), reading, found)
    [(watermark, full_at)] = asked(loader, "SELECT watermark, full_at FROM meta.checkpoints")
    assert watermark == NOW + timedelta(days=2)
    assert (full_at == watermark) == is_whole
