"""docs/own-tables.md: its examples run as they stand, and nothing that a reader created is lost unnamed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

import pdsync
from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "own-tables.md").read_text(encoding="utf-8")
QUERY, ATTACHED, MOVED = re.findall(r"```sql\n(.+?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with the page's view, a file that makes none, and its first sync."""
    company = generate_company(seed=6, sizes=Sizes(deals=12, files=1, mail_threads=1))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        project = Project(tmp_path_factory.mktemp("own") / "project")
        project.configure(base_url=box.url, api_token=box.token)
        (project.folder / "views").mkdir()
        (project.folder / "views" / "open_value.sql").write_text(QUERY)
        (project.folder / "views" / "wrong.sql").write_text("FROM nowhere")
        ran = project.here("sync", "deals", "users")
        assert ran.code == 0
        assert ran.err.count("views/wrong.sql makes no view: ") == 1
        yield project


def test_a_file_of_views_is_a_view_of_every_reader(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    direct = project.ask("SELECT count(*), sum(deals) FROM my.open_value")
    assert direct == project.ask("SELECT count(DISTINCT (owner_id, currency)), count(*) FROM deals"
                                 " WHERE status = 'open' AND NOT is_archived AND _deleted_at IS NULL")  # fmt: skip
    assert "Open deals by owner and currency." in project.here("describe").out
    assert project.here("sql", "from my.open_value", "--as-of", "2999-01-01", "-q").code == 0

    monkeypatch.chdir(project.folder)
    with duckdb.connect() as connection:
        assert connection.execute(ATTACHED).fetchall() == []
        connection.execute("INSERT INTO mine.targets SELECT owner_id, currency, 2 * value FROM company.my.open_value")
        assert {row[2] for row in connection.execute("FROM mine.attainment").fetchall()} == {0.5}


@pytest.fixture
def with_table(project: Project) -> Iterator[Project]:
    """The project, whose warehouse has a table of a reader; files that are kept for it are removed again."""
    with duckdb.connect(str(project.data / "warehouse.duckdb")) as reader:
        reader.execute("CREATE TABLE mine AS SELECT 1 AS one")
    yield project
    for kept in project.data.glob("warehouse.own-*"):
        kept.unlink()


def check_named(project: Project, reported: str) -> None:
    (kept,) = project.data.glob("warehouse.own-*.duckdb")
    assert "main.mine" in reported
    assert kept.name in reported


@pytest.mark.parametrize(
    "command",
    [
        "sync users", "reconcile users", "reconcile users --json", "backfill deals --since 1d",
        "load users.json --stream users", "replay", "push --yes",
        "forget person 1 --also Nobody-Nowhere --yes",
    ],
)  # fmt: skip
def test_every_command_that_publishes_names_the_tables_of_a_reader(
    with_table: Project, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    project = with_table
    monkeypatch.chdir(project.folder)
    (project.folder / "users.json").write_text('{"success": true, "data": [{"id": 1, "name": "A", "email": "a@b.c"}]}')
    ran = project.here(*command.split())
    assert ran.code == 0, ran.err
    check_named(project, ran.err)
    assert ("may still contain this person" in ran.err) == command.startswith("forget")


@pytest.mark.parametrize(
    "change", [("updateDeal", {"id": 1, "title": "T"}), ("addNote", {"deal_id": 1, "content": "C"})]
)
def test_a_push_from_a_program_names_the_tables_of_a_reader(
    with_table: Project,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: tuple[str, dict[str, Any]],
) -> None:
    for name, value in with_table.env.items():
        if name.startswith("PDSYNC_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setattr("pdsync.core.log.log.propagate", True)
    queue = pdsync.Queue(with_table.folder)
    queue.add(change[0], **change[1])
    receipt = queue.push()
    assert receipt is not None
    assert receipt.complete
    check_named(with_table, caplog.text)


def test_a_sync_and_the_list_of_runs_show_the_same_duration(project: Project) -> None:
    summary = project.here("sync", "users", "--json").summary
    shown = project.here("runs", "show", summary["run_id"], "--json").summary
    assert summary["seconds"] == shown["seconds"] > 0


def test_a_table_of_a_reader_is_named_and_kept_before_the_next_publish(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with duckdb.connect(str(project.data / "warehouse.duckdb")) as reader:
        reader.execute("CREATE TABLE notes_of_mine AS SELECT 'call Anna' AS text")
    ran = project.here("sync", "users")
    (kept,) = project.data.glob("warehouse.own-*.duckdb")
    assert ran.code == 0
    assert "(main.notes_of_mine)" in ran.err
    assert kept.name in ran.err
    assert not project.ask("FROM duckdb_tables() WHERE table_name = 'notes_of_mine'")

    again = project.here("sync", "users")  # the next one has none
    assert "notes_of_mine" not in again.err
    assert list(project.data.glob("warehouse.own-*")) == [kept]

    monkeypatch.chdir(project.folder)
    (project.folder / "mine.duckdb").unlink(missing_ok=True)
    with duckdb.connect() as connection:
        connection.execute(re.sub(r"warehouse\.own-\d+T\d+\.duckdb", kept.name, MOVED))
        assert connection.execute("FROM mine.notes").fetchall() == [("call Anna",)]
