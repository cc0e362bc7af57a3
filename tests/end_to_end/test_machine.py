"""Problems of the machine: full disk, little memory, proxy, no home. The message never says that it is a bug."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.world import Project, Remote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FREE = Limits(burst=None, search_burst=None, daily_tokens=None)
NOTHING = Sizes(deals=0, persons=0, organizations=0, products=0, activities=0, files=0, mail_threads=0)


@pytest.fixture(scope="module")
def empty() -> Iterator[Remote]:
    """A company that holds no deal and no file."""
    with running(generate_company(seed=1, sizes=NOTHING), limits=FREE) as box:
        yield Remote(box.url, box.token)


@pytest.fixture
def company_project(empty: Remote, tmp_path: Path) -> Project:
    return Project(tmp_path / "project", empty)


# Counts over no rows.


def test_s9_streams_without_a_row_are_synced_counted_and_queried(company_project: Project) -> None:
    project = company_project
    synced = project.here("sync", "--json", "deals", "files", "stages", "pipelines", "users")
    assert synced.code == 0, synced
    assert project.here("sync", "--full", "--json", "deals").code == 0
    status = project.here("status", "--json")
    assert status.code == 0, status
    rows = {each["stream"]: (each["rows"], each["deleted"]) for each in status.events if "stream" in each}
    assert rows["deals"] == rows["files"] == (0, 0)
    owners = project.here("sql", "from sales.by_owner", "-o", "json")
    assert (owners.code, json.loads(owners.out)) == (0, [])


# Disks that take no more, and too little memory.


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with running(generate_company(seed=2, sizes=Sizes(deals=60)), limits=FREE) as box:
        yield Remote(box.url, box.token)


def small_files(most: int) -> str:
    """What makes every file of a process end after `most` bytes, as a full disk does, wherever it writes."""
    return f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))"


@pytest.mark.parametrize("most", [0, 60_000])
def test_o2_a_full_disk_is_named_with_a_remedy_and_the_same_command_continues(
    remote: Remote, tmp_path: Path, most: int
) -> None:
    project = Project(tmp_path / "project", remote).configure(burst=20, daily_tokens=30_000)
    for command in (("queue", "add", "updateDeal", "id=1", "title=New"), ("sync", "stages")):
        ran = project.run(*command, first=small_files(most))
        assert ran.code == 1 or (ran.code == 0 and most > 0), ran
        assert "This is a bug" not in ran.err, ran
        if ran.code:
            assert "space" in ran.err, ran
            assert "same command" in ran.err or "pdsync doctor" in ran.err, ran
    assert project.run("queue", "add", "updateDeal", "id=1", "title=New").code == 0
    pushed = project.run("push", "--yes", first=small_files(most))
    assert pushed.code in ((0, 1) if most else (1,)), pushed
    assert "This is a bug" not in pushed.err, pushed
    assert project.run("push", "--yes").code == 0
    found = json.loads(project.here("api", "getDeal", "id=1").out)
    assert found["data"]["title"] == "New"


@pytest.mark.parametrize("spare_mb", [40, 400, 700])
def test_o2_little_memory_is_named_and_nothing_aborts(remote: Remote, tmp_path: Path, spare_mb: int) -> None:
    project = Project(tmp_path / "project", remote)
    limit = (
        "import resource; most = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()"
        f" + {spare_mb * 2**20}; resource.setrlimit(resource.RLIMIT_AS, (most, most))"
    )
    ran = project.run("sync", "stages", first=limit)
    assert ran.code in (0, 1), ran
    assert "This is a bug" not in ran.err, ran
    if ran.code:
        assert "memory" in ran.err, ran
    if spare_mb < 500:
        assert "ulimit -v" in ran.err, ran


# What a company has not booked.


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (402, "Payment required"),
        (403, "This feature is not enabled for your company"),
        (410, "The Projects add-on is not part of your plan"),
        (415, "Unsupported"),
    ],
)
def test_s9_a_stream_that_the_plan_does_not_include_is_noted_and_is_no_gap(
    remote: Remote, tmp_path: Path, status: int, error: str
) -> None:
    project = Project(tmp_path / "project", remote)
    body = json.dumps({"success": False, "error": error})
    remote.fault(kind="status", path="^/api/v2/projects", status=status, body=body, times=100)
    try:
        ran = project.here("sync", "projects", "stages", "--json")
    finally:
        remote.clear_faults()
    assert ran.code == 0, ran
    assert ran.summary["gaps"] == []
    assert "not part of this company's plan" in ran.summary["streams"]["projects"]["note"]


@pytest.mark.parametrize(("status", "error"), [(403, "Forbidden"), (410, "Gone")])
def test_s9_what_is_refused_for_another_reason_is_a_gap(
    remote: Remote, tmp_path: Path, status: int, error: str
) -> None:
    project = Project(tmp_path / "project", remote)
    body = json.dumps({"success": False, "error": error})
    remote.fault(kind="status", path="^/api/v2/projects", status=status, body=body, times=100)
    try:
        ran = project.here("sync", "projects", "stages", "--json")
    finally:
        remote.clear_faults()
    assert {gap["stream"] for gap in ran.summary["gaps"]} == {"projects"}


# Files with a mark in front, users without a home, values without an end.


def test_a_byte_order_mark_is_skipped(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote)
    (project.folder / "pdsync.toml").write_text("[limits]\nconcurrency = 3\n", encoding="utf-8-sig")
    (project.folder / "pipelines").mkdir()
    (project.folder / "pipelines" / "mine.toml").write_text(
        'description = "Mine"\njob = "sync"\nstreams = ["stages"]\n', encoding="utf-8-sig"
    )
    ran = project.here("sync", "--pipeline", "mine")
    assert ran.code == 0, ran


@pytest.mark.parametrize("kind", ["systemd", "launchd", "cron"])
def test_a_user_without_a_home_is_told_what_to_set(tmp_path: Path, kind: str) -> None:
    project = Project(tmp_path / "project")
    nobody = "import os, pwd; os.environ.pop('HOME', None); pwd.getpwuid = {}.__getitem__"  # no entry for anybody
    shown = project.run("schedule", "--as", kind, first=nobody)
    assert shown.code == 0, shown
    for command in (("status", "--project", "~/x"), ("schedule", "--as", "systemd", "--install")):
        ran = project.run(*command, first=nobody)
        assert ran.code == 2, ran
        assert "Set HOME" in ran.err


def test_a_preview_cuts_long_values_and_shows_where_they_differ(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote)
    long = "\n".join(f"line {number} of the note" for number in range(4000))
    added = project.here("api", "addNote", "deal_id=1", f"content={long}", "--yes")
    id = json.loads(added.out)["data"]["id"]
    assert project.here("queue", "add", "updateNote", f"id={id}", f"content={long} and its end").code == 0
    page = tmp_path / "plan.html"
    shown = project.here("push", "--dry-run", "--html", str(page))
    assert shown.code == 0, shown
    text = page.read_text(encoding="utf-8")
    for preview in (shown.out, text):
        assert "and its end" in preview
        assert f"({len(long) + len(' and its end'):,} characters)" in preview
        assert preview.count("of the note") < 30


def test_o3_the_doctor_looks_at_a_folder_that_it_may_only_read(remote: Remote, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", remote).configure(daily_tokens=30_000)
    assert project.here("sync", "stages").code == 0
    told = "import os; real = os.access; os.access = lambda path, mode, **more: not mode & os.W_OK and real(path, mode)"
    before, spent = project.kept(), project.control("SELECT * FROM tokens")
    ran = project.run("doctor", "--json", first=told)  # whoever runs the tests may be allowed to write everywhere
    checks = {each["name"]: each for each in ran.events}
    assert ran.code == 1, ran
    assert not checks["folder"]["ok"]
    for name in ("control", "warehouse", "archive", "account", "company"):
        assert checks[name]["ok"], ran
    assert project.kept() == before
    assert project.control("SELECT * FROM tokens") == spent  # nothing was written there, not even what was spent
