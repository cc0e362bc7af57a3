"""`pdsync history` and `pdsync diff`: the changes of one record, and of all records between two times."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from pdsync.cli.commands.history import _before_and_after
from pdsync.runner.report.record_history import Change
from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.world import Project, Remote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox


class Changed:
    """A company that was synced, changed in known ways, and synced again."""

    def __init__(self, box: RunningSandbox, project: Project) -> None:
        self.box, self.project = box, project
        assert project.here("sync", "deals", "users", "stages", "-q").code == 0
        live = "_deleted_at IS NULL AND NOT is_archived"
        rows = project.ask(f"SELECT id, owner_id, title FROM deals WHERE {live} ORDER BY id LIMIT 2")
        (self.id, self.owner, self.title), (self.gone, *_) = rows
        query = "SELECT id FROM users WHERE id <> ? AND active_flag ORDER BY id LIMIT 1"
        self.other = project.ask(query, self.owner)[0][0]
        self.before = datetime.now(UTC)
        box.clock.advance(3600)
        self.send("PATCH", f"deals/{self.id}", {"owner_id": self.other, "title": "Renamed"})
        self.send("DELETE", f"deals/{self.gone}")
        self.added = self.send("POST", "deals", {"title": "Brand new"})["id"]
        assert project.here("sync", "deals", "-q").code == 0

    def send(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"x-api-token": self.box.token, "Content-Type": "application/json"}
        request = Request(f"{self.box.url}/api/v2/{path}", data, headers, method=method)
        with build_opener(ProxyHandler({})).open(request, timeout=30) as answer:
            return json.load(answer)["data"]


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Changed]:
    company = generate_company(seed=11, sizes=Sizes(deals=30, files=5), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        yield Changed(box, Project(tmp_path_factory.mktemp("project"), Remote(box.url, box.token)))


def test_history_shows_each_changed_field_with_names(changed: Changed) -> None:
    ran = changed.project.here("history", "deals", str(changed.id), "--json")
    told = {each["field"]: each for each in ran.events}
    assert ran.code == 0
    assert [(each["event"], each["basis"]) for each in ran.events[:2]] == [
        ("created", "estimate"), ("first_observed", "history")
    ]  # fmt: skip
    created, observed = (datetime.fromisoformat(each["at"]) for each in ran.events[:2])
    assert created < changed.before - timedelta(hours=1) < observed <= changed.before
    [(since,)] = changed.project.ask("SELECT observed_from FROM meta.observed_from WHERE stream = 'deals'")
    assert {datetime.fromisoformat(each["observed_from"]) for each in ran.events} == {since}
    assert observed <= since <= changed.before
    assert (told["title"]["before"], told["title"]["after"]) == (changed.title, "Renamed")
    names = dict(changed.project.ask("SELECT id, name FROM users"))
    owner = told["owner_id"]
    assert (owner["before"], owner["after"]) == (changed.owner, changed.other)
    assert (owner["before_label"], owner["after_label"]) == (names[changed.owner], names[changed.other])
    runs = [row[0] for row in changed.project.ask("SELECT run_id FROM meta.runs ORDER BY started_at, run_id")]
    assert {owner["run_id"]} < set(runs)
    assert datetime.fromisoformat(owner["at"]) == datetime.fromisoformat(told["update_time"]["after"])
    shown = changed.project.here("history", "deals", str(changed.id)).out
    assert f"{names[changed.other]} ({changed.other})" in shown


def test_history_shows_each_edit_and_its_author_if_the_changelog_was_synced(tmp_path: Path) -> None:
    company = generate_company(seed=4, sizes=Sizes(deals=5, files=1), now=datetime.now(UTC) - timedelta(days=1))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        changed = Changed(box, Project(tmp_path / "project", Remote(box.url, box.token)))
        for title in ("Once", "Twice"):
            box.clock.advance(60)
            changed.send("PATCH", f"deals/{changed.id}", {"title": title})
        box.clock.advance(60)
        project = changed.project
        assert project.here("sync", "deals", "deal_changelog", "-q").code == 0
    told = project.here("history", "deals", str(changed.id), "--json").events
    titles = [(each["event"], each["before"], each["after"]) for each in told if each["field"] == "title"]
    assert titles == [
        ("edited", changed.title, "Renamed"),
        ("edited", "Renamed", "Once"),
        ("edited", "Once", "Twice"),
    ]
    names = dict(project.ask("SELECT id, name FROM users"))
    owner = next(each for each in told if each["field"] == "owner_id" and each["event"] == "edited")
    assert (owner["after"], owner["after_label"]) == (str(changed.other), names[changed.other])
    assert {each["by"] for each in told if each["event"] == "edited"} <= set(names.values())
    # The record was made long before the first sync, and that is told first; what no edit explains is told as it was.
    assert (told[0]["event"], told[0]["field"], told[0]["basis"]) == ("created", None, "changelog")
    assert {each["basis"] for each in told if each["event"] == "edited"} == {"changelog"}
    assert told[0]["by"] in names.values()
    assert [each["event"] for each in told].count("first_observed") == 1
    assert any(each["event"] == "changed" for each in told)
    moments = [datetime.fromisoformat(each["at"]) for each in told]
    assert moments == sorted(moments)
    shown = project.here("history", "deals", str(changed.id)).out
    assert "  by  " in shown.splitlines()[0]
    # Between two times before the first sync: what was edited then, by the changelog alone.
    id, time, key = project.ask(
        "SELECT deal_id, time, field_key FROM deal_changelog c JOIN deals d ON d.id = deal_id"
        " WHERE field_key <> 'add_time'"
        " AND time > d.add_time AND c.new_value IS DISTINCT FROM c.old_value AND time < (SELECT min(_valid_from)"
        " FROM history.deals h WHERE h.id = deal_id) ORDER BY time LIMIT 1"
    )[0]
    times = [(time + timedelta(seconds=seconds)).isoformat() for seconds in (-1, 1)]
    rows = project.here("diff", "deals", "--from", times[0], "--to", times[1], "--rows", "--json").events
    row = next(each for each in rows if each["id"] == id and each["change"] == "changed")
    column = "owner_id" if key == "user_id" else key
    assert (row["basis"], column in {each["field"] for each in row["fields"]}) == ("changelog", True)


def test_history_warns_where_what_a_record_was_is_not_known(changed: Changed) -> None:
    plain, strict = (changed.project.here("history", "deals", str(changed.id), *more) for more in ([], ["--strict"]))
    assert (plain.code, strict.code) == (0, 4)
    assert "is not known: pdsync sync deal_changelog reads its changelog." in plain.err
    assert "first observed" in plain.out
    assert "created" in plain.out.splitlines()[1]
    new = changed.project.here("history", "deals", str(changed.added), "--strict")
    assert (new.code, "not known" in new.err) == (0, False)


def test_history_shows_the_deletion(changed: Changed) -> None:
    events = changed.project.here("history", "deals", str(changed.gone), "--json").events
    assert [each["event"] for each in events][:3] == ["created", "first_observed", "deleted"]
    assert "deleted" in changed.project.here("history", "deals", str(changed.gone)).out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["history", "deals", "987654"], "There is no record '987654'"),
        (["history", "deels", "1"], "Did you mean 'deals'"),
        (["history", "leads", "1"], "never been synced"),
        (["diff", "leads", "--from", "2026-01-01"], "never been synced"),
        (["diff", "--from", "2026-02-01", "--to", "2026-01-01"], "later than --to"),
        (["diff"], "--from"),
        (["diff", "--from", "yesterday", "--to", "7d"], "later than --to"),
    ],
)
def test_what_does_not_exist_is_named(changed: Changed, arguments: list[str], says: str) -> None:
    ran = changed.project.here(*arguments)
    assert (ran.code, says in ran.err) == (2, True), ran


def test_diff_counts_and_shows_what_differs(changed: Changed) -> None:
    since, until = changed.before.isoformat(), "2999-01-01"
    counted = changed.project.here("diff", "--from", since, "--to", until, "--json").events
    deals = next(each for each in counted if each["name"] == "deals")
    assert datetime.fromisoformat(deals.pop("observed_from")) <= changed.before
    assert deals == {
        "name": "deals", "added": 1, "changed": 1, "gone": 1, "first_observed": 0, "unknown": 0, "basis": {"history": 3}
    }  # fmt: skip
    rows = changed.project.here("diff", "deals", "--from", since, "--to", until, "--rows", "--json").events
    by_id = {each["id"]: each for each in rows}
    assert {id: each["change"] for id, each in by_id.items()} == {
        changed.added: "added",
        changed.id: "changed",
        changed.gone: "gone",
    }
    title = next(each for each in by_id[changed.id]["fields"] if each["field"] == "title")
    assert title == {"field": "title", "before": changed.title, "after": "Renamed"}
    shown = changed.project.here("diff", "deals", "--from", since, "--to", until, "--rows").out
    assert f"title: {changed.title} → Renamed" in shown
    assert "Nothing differs" in changed.project.here("diff", "--from", until, "--to", until).err


@pytest.mark.parametrize(
    ("arguments", "warns"),
    [
        (["sql", "from labeled.deals", "--as-of", "2020-01-01"], True),
        (["sql", "from labeled.deals", "--as-of", "2999-01-01"], False),
        (["diff", "deals", "--from", "2020-01-01"], True),
    ],
)
def test_the_past_before_the_first_sync_is_not_told_as_known(
    changed: Changed, arguments: list[str], warns: bool
) -> None:
    plain, strict = changed.project.here(*arguments), changed.project.here(*arguments, "--strict")
    assert (plain.code, strict.code) == (0, 4 if warns else 0)
    assert ("history is complete from the first sync on (deals " in plain.err) == warns


def test_as_of_shows_lists_and_labels_of_that_time(changed: Changed) -> None:
    query = f"select title, owner from labeled.deals where id = {changed.id}"
    names = dict(changed.project.ask("SELECT id, name FROM users"))
    then = changed.project.here("sql", query, "--as-of", changed.before.isoformat(), "--json").events
    assert then == [{"title": changed.title, "owner": names[changed.owner]}]
    now = changed.project.here("sql", query, "--json").events
    assert now == [{"title": "Renamed", "owner": names[changed.other]}]
    versions = f"select count(*) n from history.deals where id = {changed.id}"
    assert changed.project.here("sql", versions, "--as-of", changed.before.isoformat(), "--json").events == [{"n": 1}]
    assert changed.project.here("sql", "from read_csv('/etc/passwd')", "--as-of", "2026-01-01").code == 2


def test_a_merge_is_shown_with_the_record_that_stays() -> None:
    merged = Change("2026-01-01", "merged", None, None, "12", after_label="Acme")
    assert _before_and_after(merged) == ["→ Acme (12)"]
    assert _before_and_after(Change("2026-01-01", "deleted", None, None, None)) == []
