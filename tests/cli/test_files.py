"""`pdsync files`: which files it selects, its cost, output and exit codes, and what an upload sends."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.core.servers import server
from tests.support.knobs import smaller_pages
from tests.support.world import Project, Ran, wait_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox

ADMIN = 2  # tokens: every download and upload asks whose token it is


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningSandbox, Project]]:
    """A small company whose file records are in the warehouse."""
    company = generate_company(seed=4, sizes=Sizes(deals=60, files=40), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        project = Project(tmp_path_factory.mktemp("files") / "project").configure(base_url=box.url, api_token=box.token)
        assert project.here("sync", "files", "-q").code == 0
        yield box, project


@pytest.fixture
def box(synced: tuple[RunningSandbox, Project]) -> RunningSandbox:
    synced[0].faults.clear()
    synced[0].clear_log()
    return synced[0]


@pytest.fixture
def project(synced: tuple[RunningSandbox, Project]) -> Project:
    return synced[1]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def live(box: RunningSandbox) -> dict[int, dict[str, Any]]:
    return {entry["id"]: entry["record"] for entry in box.dump("files") if entry["state"] == "live"}


def held(out: Path) -> dict[int, dict[str, Any]]:
    return {row["id"]: row for row in map(json.loads, (out / "files.ndjson").read_text().splitlines())}


def get(project: Project, out: Path, *arguments: str) -> Ran:
    return project.here("files", "download", *arguments, "--out", str(out), "--json")


# Download.


def test_all_files_are_fetched_and_a_second_time_none(box: RunningSandbox, project: Project, out: Path) -> None:
    ran = get(project, out, "--all")
    assert ran.code == 0, ran
    records = live(box)
    assert ran.events[0] == {
        "event": "started",
        "files": len(records),
        "already": 0,
        "bytes": sum(record["file_size"] for record in records.values()),
        "tokens": 20 * len(records),
    }
    assert held(out).keys() == records.keys()
    assert (ran.summary["fetched"], ran.summary["complete"], ran.summary["exit_code"]) == (len(records), True, 0)
    assert ran.summary["tokens"] == sum(seen.cost for seen in box.log) == 20 * len(records) + ADMIN
    for id, row in held(out).items():
        body = (out / row["path"]).read_bytes()
        assert (len(body), hashlib.sha256(body).hexdigest()) == (records[id]["file_size"], row["sha256"])

    again = get(project, out, "--all")
    assert (again.code, again.summary["fetched"], again.summary["already"]) == (0, 0, len(records))
    assert again.summary["tokens"] == ADMIN


def test_people_see_the_number_and_the_cost_first(box: RunningSandbox, project: Project, out: Path) -> None:
    id = min(live(box))
    ran = project.here("files", "download", str(id), "--out", str(out))
    assert ran.code == 0
    assert ran.out == ""
    said = ran.err.splitlines()
    assert said[0].startswith("1 file to fetch, ")
    assert "20 tokens" in said[0]
    assert said[-1].startswith("1 fetched (")
    assert said[-1].endswith(str(out))


def test_a_dry_run_makes_no_request(box: RunningSandbox, project: Project, out: Path) -> None:
    ran = get(project, out, "--all", "--dry-run")
    assert (ran.code, ran.summary["files"], ran.summary["tokens"]) == (0, len(live(box)), 20 * len(live(box)))
    assert list(box.log) == []
    assert not list(out.iterdir())


def test_files_of_records_and_of_a_time_are_chosen_from_the_warehouse(
    box: RunningSandbox, project: Project, out: Path
) -> None:
    records = live(box)
    of_deals = {id for id, record in records.items() if record["deal_id"]}
    deal = records[min(of_deals)]["deal_id"]
    of_one = {id for id, record in records.items() if record["deal_id"] == deal}
    assert 0 < len(of_one) < len(of_deals) < len(records)
    assert get(project, out / "one", "--stream", "deals", "--id", str(deal)).code == 0
    assert held(out / "one").keys() == of_one
    assert get(project, out / "deals", "--stream", "deals").code == 0
    assert held(out / "deals").keys() == of_deals

    times = sorted(record["update_time"] for record in records.values())
    since = times[len(times) // 2]
    late = {id for id, record in records.items() if record["update_time"] >= since}
    assert get(project, out / "late", "--since", since).code == 0
    assert held(out / "late").keys() == late
    both = get(project, out / "both", "--stream", "deals", "--since", since, "--dry-run")
    assert both.summary["files"] == len(late & of_deals)
    assert get(project, out / "none", "--stream", "deals", "--id", "999999").code == 0


def test_ids_that_the_warehouse_does_not_know_are_requested(box: RunningSandbox, out: Path, tmp_path: Path) -> None:
    project = Project(tmp_path / "empty").configure(base_url=box.url, api_token=box.token)
    id, record = min(live(box).items())
    ran = get(project, out, str(id), str(id), "999999999")
    assert ran.code == 4, ran
    assert held(out)[id]["name"] == record["name"]
    assert [gap["kind"] for gap in ran.summary["gaps"]] == ["gone"]
    assert ran.summary["tokens"] == sum(seen.cost for seen in box.log)
    assert get(project, out, "--all").code == 2  # there is no warehouse to choose from


def test_the_budget_stops_with_3_and_the_same_command_goes_on(box: RunningSandbox, project: Project, out: Path) -> None:
    total = len(live(box))
    runs = 0
    while (ran := get(project, out, "--all", "--budget", str(ADMIN + 200 + 7))).code == 3:
        runs += 1
        assert ran.summary["fetched"] == 10
        assert ran.summary["left"] == total - 10 * runs
        assert ran.summary["tokens"] == ADMIN + 200
        assert not ran.summary["complete"]
        assert not list(out.glob(".*"))
    assert ran.code == 0
    assert runs == (total - 1) // 10
    downloads = [seen.path for seen in box.log if seen.path.endswith("/download")]
    assert len(downloads) == len(set(downloads)) == total


def test_gaps_give_exit_code_4_and_the_other_files_are_fetched(
    box: RunningSandbox, project: Project, out: Path
) -> None:
    first, second, *others = sorted(live(box))
    box.faults.add(kind="status", status=410, path=rf"/files/{first}/download")
    box.faults.add(kind="permission_403", path=rf"/files/{second}/download")
    ran = get(project, out, "--all")
    assert ran.code == 4
    assert sorted(gap["kind"] for gap in ran.summary["gaps"]) == ["forbidden", "gone"]
    assert sorted(held(out)) == others
    assert len([event for event in ran.events if event["event"] == "gap"]) == 2
    box.faults.clear()
    ran = get(project, out, "--all")
    assert (ran.code, ran.summary["fetched"]) == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Name the files"),
        (["1", "--all"], "exclude each other"),
        (["--all", "--stream", "deals"], "exclude each other"),
        (["--id", "3"], "--stream"),
        (["0"], "0"),
        (["x"], "x"),
        (["--stream", "nope"], "nope"),
        (["--all", "--since", "soon"], "soon"),
        (["--all", "--budget", "0"], "budget"),
    ],
)
def test_o7_a_wrong_call_ends_with_2_before_any_request(
    box: RunningSandbox, project: Project, out: Path, arguments: list[str], says: str
) -> None:
    ran = get(project, out, *arguments)
    assert ran.code == 2
    assert says in ran.err
    assert list(box.log) == []
    assert not out.exists()


def test_x5_files_of_another_company_are_not_fetched(box: RunningSandbox, project: Project, out: Path) -> None:
    company = generate_company(seed=4, sizes=Sizes(deals=5, files=5), now=datetime.now(UTC), company_id=99)
    with running(company, limits=Limits(burst=None, daily_tokens=None)) as other:
        swapped = Project(project.folder).configure(base_url=other.url, api_token=other.token)
        ran = get(swapped, out, "--all")
        assert ran.code == 2
        assert "belongs to company 99" in ran.err
        assert [seen.operation for seen in other.log] == ["getCurrentUser"]
        ran = swapped.here("files", "upload", str(__file__), "--deal", "1", "--yes")
        assert ran.code == 2
        assert not other.journal


def test_links_to_other_services_are_skipped_and_counted(tmp_path: Path, out: Path) -> None:
    company = generate_company(seed=4, sizes=Sizes(deals=10, files=10), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, daily_tokens=None)) as box:
        linked = min(live(box))
        row = company["files"].rows[linked]
        company.put("files", "update", {**row.record, "remote_location": "googledrive", "file_size": 0})
        project = Project(tmp_path / "linked").configure(base_url=box.url, api_token=box.token)
        assert project.here("sync", "files", "-q").code == 0
        ran = project.here("files", "download", "--all", "--out", str(out))
        assert ran.code == 0, ran
        assert "1 more is a link to Google Drive: there is nothing to download." in ran.err
        assert held(out).keys() == live(box).keys() - {linked}


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_download_ends_with_130_and_goes_on(
    box: RunningSandbox, project: Project, out: Path, with_signal: signal.Signals
) -> None:
    box.faults.add(kind="latency", ms=150, path="download")
    started = project.start("files", "download", "--all", "--out", str(out))
    deadline = time.monotonic() + 30
    while len(list(out.glob("[0-9]*"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(started.pid, with_signal)
    ran = wait_for(started)
    assert ran.code == 130, ran
    assert "run the same command again to continue" in ran.err
    assert not list(out.glob(".*"))
    whole = {path: path.stat().st_mtime_ns for path in out.glob("[0-9]*")}
    assert 5 <= len(whole) < len(live(box))
    box.faults.clear()
    assert get(project, out, "--all").code == 0
    assert {path: path.stat().st_mtime_ns for path in whole} == whole
    assert held(out).keys() == live(box).keys()


def test_s1_a_killed_download_leaves_no_half_file_under_a_name(
    box: RunningSandbox, project: Project, out: Path
) -> None:
    records = live(box)
    for after in (1, 4, 9, 15):
        box.faults.clear()
        box.faults.add(kind="latency", ms=40, path="download")
        started = project.start("files", "download", "--all", "--out", str(out))
        deadline = time.monotonic() + 30
        while len(list(out.glob("[0-9]*"))) < after and time.monotonic() < deadline:
            time.sleep(0.002)
        started.kill()
        started.communicate()
        for path in out.glob("[0-9]*"):
            assert path.stat().st_size == records[int(path.stem)]["file_size"]
    box.faults.clear()
    before = {path.name for path in out.glob("[0-9]*")}
    assert len(before) < len(records)
    ran = get(project, out, "--all")
    assert (ran.code, ran.summary["already"]) == (0, len(before))
    assert held(out).keys() == records.keys()
    assert not list(out.glob(".*"))


# Upload.


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    path = tmp_path / "Angebot für “Müller” 3.pdf"
    path.write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 40)
    return path


def test_an_uploaded_file_is_downloaded_unchanged(
    box: RunningSandbox, project: Project, paper: Path, out: Path
) -> None:
    deal = next(entry["id"] for entry in box.dump("deals") if entry["state"] == "live")
    ran = project.here("files", "upload", str(paper), "--deal", str(deal), "--yes", "--json")
    assert ran.code == 0, ran
    id = ran.summary["ids"][0]
    assert (ran.summary["uploaded"], ran.summary["tokens"]) == (1, 10 + ADMIN)
    record = live(box)[id]
    assert (record["name"], record["file_size"], record["deal_id"]) == (paper.name, paper.stat().st_size, deal)
    assert box.company.contents[id] == paper.read_bytes()
    assert get(project, out, str(id)).code == 0
    assert (out / f"{id}.pdf").read_bytes() == paper.read_bytes()
    assert held(out)[id]["name"] == paper.name


def test_w_an_upload_shows_what_it_sends_and_asks(
    box: RunningSandbox, project: Project, paper: Path, tmp_path: Path
) -> None:
    other = tmp_path / "b.txt"
    other.write_text("b")
    before = len(box.journal)
    ran = project.here("files", "upload", str(paper), str(other), "--org", "3")
    assert ran.code == 2
    assert paper.name in ran.err
    assert "Adding 2 files (10.0 KiB, 20 tokens) to org 3 may change data. Nothing was sent" in ran.err
    assert len(box.journal) == before
    assert list(box.log) == []


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (lambda path: path.write_bytes(b"x"), (), "Name the record"),
        (lambda path: path.write_bytes(b""), ("--deal", "1"), "is empty"),
        (lambda path: path.mkdir(), ("--deal", "1"), "is no file"),
        (os.mkfifo, ("--deal", "1"), "is no file"),
        (lambda path: None, ("--deal", "1"), "No such file"),
        (lambda path: path.write_bytes(b"x" * (2**20 + 1)), ("--deal", "1", "--max-size", "1"), "the limit is 1 MiB"),
        (lambda path: path.write_bytes(b"x"), ("--lead", "7"), "UUID"),
    ],
)
def test_a_file_that_can_not_be_uploaded_is_refused_before_any_request(
    box: RunningSandbox,
    project: Project,
    tmp_path: Path,
    make: Callable[[Path], Any],
    options: tuple[str, ...],
    says: str,
) -> None:
    make(tmp_path / "x.bin")
    ran = project.here("files", "upload", str(tmp_path / "x.bin"), *options, "--yes")
    assert ran.code == 2
    assert says in ran.err
    assert list(box.log) == []


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset_after"},
        {"kind": "status", "status": 502, "when": "after"},
        {"kind": "truncate"},
    ],
    ids=lambda fault: str(fault["kind"]),
)
def test_w4_an_upload_whose_answer_is_lost_is_sent_once(
    box: RunningSandbox, project: Project, paper: Path, fault: dict[str, Any]
) -> None:
    before = len(box.journal)
    box.faults.add(fault | {"method": "POST"})
    ran = project.here("files", "upload", str(paper), str(paper), "--deal", "1", "--yes")
    assert ran.code == 1
    assert "not known" in ran.err
    assert "0 were uploaded before it, 1 not sent" in ran.err
    assert [seen.method for seen in box.log].count("POST") == 1
    assert len(box.journal) == before + 1


def test_w4_an_upload_that_is_interrupted_says_that_it_may_have_arrived(
    box: RunningSandbox, project: Project, paper: Path, tmp_path: Path
) -> None:
    box.faults.add(kind="timeout", method="POST", seconds=20.0, when="after")
    before = len(box.journal)
    started = project.start("files", "upload", str(paper), str(paper), "--deal", "1", "--yes", "--json")
    deadline = time.monotonic() + 30
    while len(box.journal) == before and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(started.pid, signal.SIGINT)
    ran = wait_for(started)
    assert ran.code == 130
    assert "It is unknown whether the upload under way took effect" in ran.err
    assert "0 were uploaded before it, 1 not sent" in ran.err
    assert ran.summary["exit_code"] == 130
    assert len(box.journal) == before + 1


def test_an_upload_that_was_refused_before_it_was_read_is_sent_again(
    box: RunningSandbox, project: Project, paper: Path
) -> None:
    box.faults.add(kind="burst_429", method="POST", nth=1)
    ran = project.here("files", "upload", str(paper), "--deal", "1", "--yes", "--json")
    assert ran.code == 0, ran
    assert box.company.contents[ran.summary["ids"][0]] == paper.read_bytes()


def test_w_one_that_is_refused_does_not_stop_the_others(box: RunningSandbox, project: Project, paper: Path) -> None:
    box.faults.add(kind="status", status=413, method="POST", nth=1)
    ran = project.here("files", "upload", str(paper), str(paper), "--deal", "1", "--yes", "--json")
    assert (ran.code, ran.summary["uploaded"], ran.summary["refused"]) == (5, 1, 1)
    box.faults.clear()
    assert project.here("files", "upload", str(paper), "--deal", "999999", "--yes").code == 1


def test_a_large_file_is_uploaded_in_pieces(project: Project, tmp_path: Path) -> None:
    """Forty megabytes, with no room for them: a process that may take 30 more than it has before it sends."""
    big = tmp_path / "big.bin"
    size = 40 * 2**20
    with big.open("wb") as file:
        file.truncate(size)
    received = 0

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal received
        if request.method == "GET":
            me = {"id": 1, "name": "A", "company_id": 1, "company_name": "C"}
            return web.json_response({"success": True, "data": me})
        async for piece in request.content.iter_any():
            received += len(piece)
        return web.json_response({"success": True, "data": {"id": 5}})

    with listening(answer) as url:
        alone = Project(tmp_path / "alone").configure(base_url=url, api_token="0123456789abcdef")
        code = (
            "import tracemalloc, atexit, sys; tracemalloc.start();"
            " atexit.register(lambda: print(tracemalloc.get_traced_memory()[1], file=sys.stderr))"
        )
        ran = wait_for(alone.start("files", "upload", str(big), "--deal", "1", "--yes", first=code))
    assert ran.code == 0, ran
    assert size < received < size + 2000
    assert int(ran.err.split()[-1]) < 30 * 2**20


@contextlib.contextmanager
def listening(handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> Iterator[str]:
    """A server of `tests.core.servers` on a thread, for commands that run here or in another process."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    stack = contextlib.AsyncExitStack()
    try:
        yield asyncio.run_coroutine_threadsafe(stack.enter_async_context(server(handler)), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(_closed(stack), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _closed(stack: contextlib.AsyncExitStack) -> None:
    await stack.aclose()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def test_s9_all_files_are_not_complete_where_their_list_was_never_read_to_its_end(
    box: RunningSandbox, tmp_path: Path, out: Path
) -> None:
    project = Project(tmp_path / "half").configure(base_url=box.url, api_token=box.token)
    with smaller_pages(10):
        box.faults.add(kind="status", status=500, path=r"/files\?", nth=2, times=99)
        assert project.here("sync", "files", "-q").code == 1
    box.faults.clear()
    half = get(project, out, "--all")
    assert 0 < half.events[-1]["fetched"] < len(live(box))
    assert (half.code, half.events[-1]["complete"]) == (4, False)
    assert project.here("sync", "files", "-q").code == 0
    assert get(project, out, "--all").code == 0
    assert held(out).keys() == live(box).keys()
