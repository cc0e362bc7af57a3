"""Pages tile a list in any order, a selection matches what it names, and a viewer finds only what they may see."""

from __future__ import annotations

from typing import Any

import pytest

from pdsync.sandbox import Company, Sizes, Viewer, generate_company
from pdsync.sandbox.protocol.row_finder import Finder, Page, Selection, matcher

ADMIN = Viewer("admin", 1, True, 0)
STATES = ("live", "archived", "deleted")


@pytest.fixture(scope="module")
def company() -> Company:
    return generate_company(seed=7, sizes=Sizes(deals=80, mail_threads=30))


def matching(company: Company, selection: Selection, viewer: Viewer = ADMIN, kind: str = "deals") -> set[int]:
    matches = matcher(company[kind], selection, viewer, company)
    return {row.id for row in company[kind].rows.values() if matches(row)}


def middle(company: Company) -> str:
    order = company["deals"].order("update_time")
    return str(order[len(order) // 2][0])


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("by", ["id", "update_time", "add_time"])
@pytest.mark.parametrize("where", ["all", "window", "link", "ids"])
def test_pages_after_a_cursor_tile_the_selection(company: Company, by: str, descending: bool, where: str) -> None:
    table, finder = company["deals"], Finder(company)
    restrictions: dict[str, dict[str, Any]] = {
        "all": {},
        "window": {"since": table.order("update_time")[-9][0]},
        "link": {"equal": (("org_id", next(row.facets[6] for row in table.rows.values() if row.facets[6])),)},
        "ids": {"ids": frozenset((2, 3, 5, 7, 11, 10**9))},
    }
    selection = Selection(sort=((by, descending),), states=STATES, **restrictions[where])
    keys = sorted((table.key(table.rows[id], by) for id in matching(company, selection)), reverse=descending)
    expected = [id for _, id in keys]
    found: list[int] = []
    after, more = None, True
    while more:
        rows, more = finder.after(table, selection, Page(3, after), ADMIN)
        found += [row.id for row in rows]
        after = table.key(rows[-1], by) if rows else None
    assert found == expected


def test_a_cut_is_a_part_of_the_whole_result(company: Company) -> None:
    selection = Selection(sort=(("title", False), ("id", True)))
    finder, table = Finder(company), company["deals"]
    whole, more = finder.cut(table, selection, Page(500), ADMIN)
    assert not more
    titles = [(row.record["title"], -row.id) for row in whole]
    assert titles == sorted(titles)
    part, more = finder.cut(table, selection, Page(10, start=20), ADMIN)
    assert (part, more) == (whole[20:30], True)


def test_a_change_is_in_the_next_page() -> None:
    company = generate_company(seed=3, sizes=Sizes(deals=20))
    finder, selection = Finder(company), Selection(equal=(("org_id", 10**6),))
    assert finder.after(company["deals"], selection, Page(), ADMIN) == ([], False)
    assert finder.cut(company["deals"], selection, Page(), ADMIN) == ([], False)
    live = next(row for row in company["deals"].rows.values() if row.state == "live")
    company.put("deals", "update", {**live.record, "org_id": 10**6})
    for find in (finder.after, finder.cut):
        rows, _ = find(company["deals"], selection, Page(), ADMIN)
        assert [row.id for row in rows] == [live.id]


def test_an_overlay_shows_records_as_they_were(company: Company) -> None:
    table, finder = company["deals"], Finder(company)
    first, second = list(table.rows.values())[:2]
    older = table.row({**first.record, "owner_id": 10**6}, "live")
    overlay = {first.id: older, second.id: None}
    selection = Selection(states=STATES)
    for find in (finder.after, finder.cut):
        rows, _ = find(table, selection, Page(500), ADMIN, overlay=overlay)
        assert older in rows
        assert second not in rows
        assert second in find(table, selection, Page(500), ADMIN)[0]


def test_a_window_starts_with_since_and_ends_before_until(company: Company) -> None:
    moment = middle(company)
    times = {row.id: row.record["update_time"] for row in company["deals"].rows.values()}
    later = matching(company, Selection(states=STATES, since=moment))
    earlier = matching(company, Selection(states=STATES, until=moment))
    assert later == {id for id, time in times.items() if time and time >= moment}
    assert earlier == {id for id, time in times.items() if time and time < moment}


def test_a_status_selects_among_deals_that_are_not_deleted(company: Company) -> None:
    found = matching(company, Selection(states=STATES, statuses=frozenset(("won",))))
    rows = company["deals"].rows
    assert {rows[id].record["status"] for id in found if rows[id].state != "deleted"} == {"won"}
    assert {row.id for row in rows.values() if row.state == "deleted"} <= found


def test_a_first_letter_has_no_case(company: Company) -> None:
    letter = next(iter(company["persons"].rows.values())).record["name"][:1].lower()
    found = matching(company, Selection(first_char=letter), kind="persons")
    assert found
    assert {company["persons"].rows[id].record["name"][:1].lower() for id in found} == {letter}


@pytest.mark.parametrize(
    ("visible_to", "owner", "group", "sees"),
    [(7, 2, 0, True), (3, 2, 1, True), (3, 2, 0, False), (5, 2, 1, True), (1, 2, 1, False), (1, 9, 0, True)],
)
def test_a_member_sees_what_is_shared_with_their_group(
    company: Company, visible_to: int, owner: int, group: int, sees: bool
) -> None:
    company.groups |= {2: 1}
    table = company["deals"]
    row = table.row({**next(iter(table.rows.values())).record, "visible_to": visible_to, "owner_id": owner}, "live")
    assert matcher(table, Selection(), Viewer("member", 9, False, group), company)(row) is sees
    assert matcher(table, Selection(), ADMIN, company)(row)


def test_a_hidden_pipeline_hides_its_deals_from_an_admin_too(company: Company) -> None:
    viewer = Viewer("admin", 1, True, 0, {1})
    found = matching(company, Selection(states=STATES), viewer)
    assert {company["deals"].rows[id].record["pipeline_id"] for id in found} == {2, 3}
    assert matching(company, Selection(), viewer, "pipelines") == {2, 3}


def test_mail_is_its_owners(company: Company) -> None:
    owner = company.viewers["admin"].user_id
    found = matching(company, Selection(states=STATES), Viewer("admin", owner, True, 0), "mail_threads")
    assert {company["mail_threads"].rows[id].record["user_id"] for id in found} == {owner}
