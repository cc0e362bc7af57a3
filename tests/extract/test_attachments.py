"""Contents of files: whole or not at all, under harmless names, and the token goes nowhere but to the API."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import random
import resource
import tracemalloc
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from pdsync.core.request import ATTEMPTS
from pdsync.errors import ConfigError
from pdsync.extract.attachments import (
    DownloadReport,
    FileToFetch,
    download,
    file_to_fetch,
    plan_download,
    type_mismatch,
)
from pdsync.extract.download_folder import MANIFEST, Folder
from pdsync.model import IncompleteStream
from tests.core.servers import TOKEN, client, server

from .hostile_names import HOSTILE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from pdsync.core.http import Http
    from pdsync.sandbox import RunningSandbox

COMPANY = 7


# A server whose every answer is scripted.


class Files:
    """Answers getFile and downloadFile from `bodies`; `instead` may answer a download otherwise."""

    def __init__(
        self, bodies: dict[int, bytes], instead: Callable[[int, web.BaseRequest], Awaitable[Any]] | None = None
    ):
        self.bodies, self.instead = bodies, instead
        self.sizes = {id: len(body) for id, body in bodies.items()}
        self.names = {id: f"file {id}.pdf" for id in bodies}
        self.requested: list[str] = []
        self.headers: list[dict[str, str]] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requested.append(request.path)
        self.headers.append(dict(request.headers))
        parts = request.path.strip("/").split("/")
        id = int(parts[2])
        if len(parts) == 3:
            return web.json_response({"success": True, "data": self.record(id)})
        if self.instead and (answer := await self.instead(id, request)) is not None:
            assert isinstance(answer, web.StreamResponse)
            return answer
        if id not in self.bodies:
            return web.json_response({"success": False, "error": "File not found"}, status=404)
        return web.Response(body=self.bodies[id], content_type="application/octet-stream")

    def record(self, id: int) -> dict[str, Any]:
        return {"id": id, "name": self.names.get(id), "file_size": self.sizes.get(id), "deal_id": {"value": 3}}

    def wanted(self) -> list[FileToFetch]:
        return [file_to_fetch(self.record(id)) for id in self.bodies]


@asynccontextmanager
async def talking(files: Callable[..., Any], tmp_path: Path, **options: Any) -> AsyncIterator[Http]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(server(files))
        yield await stack.enter_async_context(client(url, tmp_path, **options))


async def fetched(http: Http, files: list[FileToFetch], root: Path, **options: Any) -> DownloadReport:
    with Folder(root) as folder:
        return await download(
            http, plan_download(files, folder, COMPANY, any_size=options.get("any_size", False)), folder, COMPANY,
            concurrency=4, **options,
        )  # fmt: skip


def manifest(root: Path) -> dict[int, dict[str, Any]]:
    return {row["id"]: row for row in map(json.loads, filter(None, (root / MANIFEST).read_text().splitlines()))}


def tree(root: Path) -> dict[str, str]:
    """Every path below `root`, with what it holds."""
    return {
        str(path.relative_to(root)): str(path.readlink())
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(root.rglob("*"))
    }


# What comes to disk.


async def test_every_byte_of_a_file_comes_to_disk_with_a_line_in_the_manifest(
    box: RunningSandbox, client: Http, tmp_path: Path
) -> None:
    records = [entry["record"] for entry in box.dump("files") if entry["state"] == "live"]
    root = tmp_path / "files"
    report = await fetched(client, [file_to_fetch(record) for record in records], root)
    assert (report.exit_code, report.fetched, report.already, report.gaps) == (0, len(records), 0, [])
    rows = manifest(root)
    assert list(rows) == sorted(record["id"] for record in records)
    for record in records:
        row = rows[record["id"]]
        body = (root / row["path"]).read_bytes()
        assert (row["size"], row["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
        assert row["size"] == record["file_size"]
        assert row["name"] == record["name"]
        assert row.get("deal_id") == record["deal_id"]
        assert row["company_id"] == COMPANY
    assert {path.name for path in root.iterdir()} == {row["path"] for row in rows.values()} | {MANIFEST}
    assert sum(seen.cost for seen in box.log) == 20 * len(records) == client.budget.spent

    box.clear_log()
    again = await fetched(client, [file_to_fetch(record) for record in records], root)
    assert (again.exit_code, again.fetched, again.already) == (0, 0, len(records))
    assert list(box.log) == []


async def test_x7_x10_hostile_names_leave_everything_outside_the_folder_as_it_is(tmp_path: Path) -> None:
    files = Files({id: name.encode(errors="replace") or b"-" for id, name in enumerate(HOSTILE, 1)})
    files.names = {id: name.encode(errors="replace").decode() for id, name in enumerate(HOSTILE, 1)}
    outside = tmp_path / "outside"
    (outside / "etc").mkdir(parents=True)
    (outside / "etc" / "passwd").write_text("precious")
    before = tree(tmp_path)
    async with talking(files, tmp_path) as http:
        report = await fetched(http, files.wanted(), outside / "in" / "files")
    assert (report.fetched, report.gaps) == (len(HOSTILE), [])
    after = {
        path: content for path, content in tree(tmp_path).items() if not path.startswith(("outside/in", "control.db"))
    }
    assert after == before
    root = outside / "in" / "files"
    rows = manifest(root)
    assert [rows[id]["name"] for id in sorted(rows)] == [files.names[id] for id in sorted(files.names)]
    for path in root.iterdir():
        assert path.is_file()
        assert path.name == MANIFEST or path.name.partition(".")[0].isdigit()
        assert path.stat().st_mode & 0o177 == 0


async def test_x7_x10_symbolic_links_are_refused_and_what_they_lead_to_stays(tmp_path: Path) -> None:
    files = Files(dict.fromkeys(range(1, 5), b"new"))
    root, precious = tmp_path / "files", tmp_path / "precious"
    root.mkdir()
    precious.write_text("precious")
    (root / "1.pdf").symlink_to(precious)
    (root / ".2.pdf.part").symlink_to(precious)
    (root / "3.pdf").mkdir()
    async with talking(files, tmp_path) as http:
        report = await fetched(http, files.wanted(), root)
        assert (report.fetched, report.exit_code) == (1, 4)
        assert all("no ordinary file" in gap.detail for gap in report.gaps)
        assert precious.read_text() == "precious"
        assert (root / "1.pdf").is_symlink()

        (root / MANIFEST).unlink()
        (root / MANIFEST).symlink_to(precious)
        with Folder(root) as folder, pytest.raises(Exception, match="no ordinary file"):
            folder.manifest()
        link = tmp_path / "link"
        link.symlink_to(root)
        with pytest.raises(ConfigError, match="symbolic link"), Folder(link):
            pass
    assert precious.read_text() == "precious"


async def test_x5_a_folder_with_files_of_another_company_is_refused(tmp_path: Path) -> None:
    files = Files({1: b"one"})
    async with talking(files, tmp_path) as http:
        await fetched(http, files.wanted(), tmp_path / "files")
    with Folder(tmp_path / "files") as folder, pytest.raises(ConfigError, match="company 7"):
        plan_download(files.wanted(), folder, COMPANY + 1)


# Resuming.


async def test_what_is_whole_is_not_fetched_again_and_what_is_not_is(tmp_path: Path) -> None:
    files = Files({id: b"x" * 1000 * id for id in range(1, 6)})
    root = tmp_path / "files"
    async with talking(files, tmp_path) as http:
        await fetched(http, files.wanted(), root)
        files.requested.clear()
        (root / "1.pdf").write_bytes(b"cut")
        (root / "2.pdf").unlink()
        lines = (root / MANIFEST).read_text().splitlines(keepends=True)
        (root / MANIFEST).write_text("".join(lines[:3] + lines[4:])[:-20])  # without 4, and 5 cut in the middle
        for name in (".2.pdf.part", ".99.docx.part", ".mine.part"):
            (root / name).write_bytes(b"x" * 10)
        report = await fetched(http, files.wanted(), root)
    assert sorted(files.requested) == ["/v1/files/1/download", "/v1/files/2/download"]
    assert (report.fetched, report.already) == (2, 3)
    rows = manifest(root)
    for id, body in files.bodies.items():
        assert (root / f"{id}.pdf").read_bytes() == body
        assert rows[id]["sha256"] == hashlib.sha256(body).hexdigest()
    assert [path.name for path in root.glob(".*")] == [".mine.part"]


async def test_a_manifest_that_names_a_path_elsewhere_is_not_believed(tmp_path: Path) -> None:
    files = Files({1: b"one", 2: b"two"})
    root = tmp_path / "files"
    async with talking(files, tmp_path) as http:
        await fetched(http, files.wanted(), root)
        rows = manifest(root)
        (tmp_path / "else").write_bytes(b"one")
        rows[1]["path"], rows[2]["path"] = "../else", "1.pdf"
        (root / MANIFEST).write_text("".join(json.dumps(row) + "\n" for row in rows.values()) + "{nonsense\n\xff\n")
        report = await fetched(http, files.wanted(), root)
    assert report.already == 2
    assert {id: row["path"] for id, row in manifest(root).items()} == {1: "1.pdf", 2: "2.pdf"}


async def test_files_fetched_before_stay_in_the_manifest(tmp_path: Path) -> None:
    files = Files({1: b"one", 2: b"two"})
    async with talking(files, tmp_path) as http:
        await fetched(http, files.wanted()[:1], tmp_path / "files")
        report = await fetched(http, files.wanted()[1:], tmp_path / "files")
    assert (report.fetched, report.already) == (1, 0)
    assert list(manifest(tmp_path / "files")) == [1, 2]


@pytest.mark.parametrize("kind", ["reset_before", "reset_after", "truncate", "wrong_length", "status"])
async def test_a_download_that_was_cut_off_is_restarted(
    box: RunningSandbox, client: Http, tmp_path: Path, kind: str
) -> None:
    record = next(entry["record"] for entry in box.dump("files") if entry["state"] == "live")
    fault: dict[str, Any] = {"kind": kind, "nth": 1, "path": "download", "status": 503}
    box.faults.add(fault)
    report = await fetched(client, [file_to_fetch(record)], tmp_path / "files")
    assert (report.fetched, report.gaps) == (1, [])
    row = manifest(tmp_path / "files")[record["id"]]
    assert (tmp_path / "files" / row["path"]).stat().st_size == record["file_size"]
    assert len([seen for seen in box.log if seen.path.endswith("/download")]) == 2


async def test_an_interrupted_download_leaves_whole_files_only(tmp_path: Path) -> None:
    async def slowly(id: int, request: web.BaseRequest) -> web.StreamResponse | None:
        if id < 4:
            return None
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"x" * 500)
        await asyncio.sleep(5)
        return response

    files = Files(dict.fromkeys(range(1, 9), b"x" * 1000), slowly)
    root = tmp_path / "files"
    async with talking(files, tmp_path) as http:
        work = asyncio.create_task(fetched(http, files.wanted(), root))
        while not list(root.glob(".[4-9]*.part")) or not (root / MANIFEST).exists() or len(manifest(root)) < 3:
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert sorted(path.name for path in root.iterdir()) == ["1.pdf", "2.pdf", "3.pdf", MANIFEST]
        assert list(manifest(root)) == [1, 2, 3]
        files.instead = None
        assert (await fetched(http, files.wanted(), root)).fetched == 5


# Gaps.


async def test_s9_what_is_gone_or_forbidden_is_a_gap_and_the_others_come(tmp_path: Path) -> None:
    async def refuse(id: int, request: web.BaseRequest) -> web.StreamResponse | None:
        status = {2: 404, 3: 410, 4: 403, 5: 400}.get(id)
        return web.json_response({"success": False, "error": "no"}, status=status) if status else None

    files = Files(dict.fromkeys(range(1, 8), b"x"), refuse)
    outcomes: list[Any] = []
    async with talking(files, tmp_path) as http:
        report = await fetched(http, files.wanted(), tmp_path / "files", on_file=outcomes.append)
    assert (report.exit_code, report.fetched, report.left) == (4, 3, 0)
    kinds = {int(gap.detail.split()[1]): gap.kind for gap in report.gaps}
    assert kinds == {2: "gone", 3: "gone", 4: "forbidden", 5: "failed"}
    assert len([each for each in outcomes if isinstance(each, IncompleteStream)]) == 4
    assert len(files.requested) == 7


async def test_the_budget_stops_a_download_which_goes_on_later(tmp_path: Path) -> None:
    files = Files(dict.fromkeys(range(1, 11), b"x"))
    root = tmp_path / "files"
    async with talking(files, tmp_path, run_tokens=70) as http:
        report = await fetched(http, files.wanted(), root)
        assert (report.exit_code, report.fetched, report.left, http.budget.spent) == (3, 3, 7, 60)
    async with talking(files, tmp_path) as http:
        report = await fetched(http, files.wanted(), root)
    assert (report.exit_code, report.fetched, report.already) == (0, 7, 3)
    assert len(files.requested) == 10


async def test_a_server_that_is_down_gets_no_request_for_each_file(tmp_path: Path) -> None:
    async def down(id: int, request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=503)

    files = Files(dict.fromkeys(range(1, 101), b"x"), down)
    async with talking(files, tmp_path) as http:
        report = await fetched(http, files.wanted(), tmp_path / "files")
    assert report.exit_code == 1
    assert report.left > 80
    assert len(files.requested) < 60


async def test_a_full_disk_stops_all_and_says_so(tmp_path: Path) -> None:
    """The kernel writes no more than a megabyte into a file, which to a program is what a full disk is."""
    files = Files({1: b"x" * 3_000_000, 2: b"x", 3: b"x"})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with talking(files, tmp_path) as http:
        with Folder(tmp_path / "files") as folder:
            planned = plan_download(files.wanted(), folder, COMPANY)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
            try:
                report = await download(http, planned, folder, COMPANY, concurrency=1)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (report.exit_code, report.fetched, report.left) == (1, 0, 3)
        assert "can't be written" in str(report.stopped)
        assert not list((tmp_path / "files").glob("*.p*"))
        assert (await fetched(http, files.wanted(), tmp_path / "files")).fetched == 3


# Sizes.


async def test_a_record_that_is_out_of_date_is_requested_again(tmp_path: Path) -> None:
    files = Files({1: b"x" * 500, 2: b"x" * 500})
    stale = [FileToFetch(1, "a.pdf", 100), FileToFetch(2, "b.pdf", 900)]
    async with talking(files, tmp_path) as http:
        report = await fetched(http, stale, tmp_path / "files")
    assert (report.exit_code, report.fetched) == (0, 2)
    assert files.requested.count("/v1/files/1") == files.requested.count("/v1/files/2") == 1


@pytest.mark.parametrize("size", [400, 600])
async def test_a_file_that_never_has_the_size_of_its_record_is_a_gap_unless_any_size_is_accepted(
    tmp_path: Path, size: int
) -> None:
    files = Files({1: b"x" * 500})
    files.sizes[1] = size
    async with talking(files, tmp_path) as http:
        report = await fetched(http, files.wanted(), tmp_path / "files")
        assert report.exit_code == 4
        assert "--any-size" in report.gaps[0].detail
        assert sorted(path.name for path in (tmp_path / "files").iterdir()) == [MANIFEST]
        assert http.budget.spent == 42
        report = await fetched(http, files.wanted(), tmp_path / "files", any_size=True)
        assert (report.exit_code, report.fetched) == (0, 1)


async def test_x9_an_endless_body_is_stopped(tmp_path: Path) -> None:
    written = 0

    async def endless(id: int, request: web.BaseRequest) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(500):
            await response.write(b"x" * 2**20)
            written += 2**20
        return response

    files = Files({1: b"x"}, endless)
    files.sizes[1] = 0
    async with talking(files, tmp_path) as http:
        report = await fetched(http, files.wanted(), tmp_path / "files", most_bytes=3 * 2**20)
    assert "were the most" in report.gaps[0].detail or "are the most" in report.gaps[0].detail
    assert written < 50 * 2**20
    assert not list((tmp_path / "files").glob("*.part"))
    assert not list((tmp_path / "files").glob(".*"))


async def test_x9_a_body_that_drips_is_given_up(tmp_path: Path) -> None:
    async def drip(id: int, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100000"})
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.05)

    files = Files({1: b"x" * 100_000}, drip)
    async with talking(files, tmp_path, timeout_s=0.3) as http:
        report = await fetched(http, files.wanted(), tmp_path / "files")
    assert [gap.kind for gap in report.gaps] == ["failed"]
    assert len(files.requested) == ATTEMPTS


async def test_x9_a_packed_bomb_is_stopped(tmp_path: Path) -> None:
    bomb = gzip.compress(b"\0" * 64 * 2**20)

    async def packed(id: int, request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    files = Files({1: b"x"}, packed)
    files.sizes[1] = 0
    async with talking(files, tmp_path) as http:
        report = await fetched(http, files.wanted(), tmp_path / "files", most_bytes=3 * 2**20)
        assert "are the most" in report.gaps[0].detail
        files.sizes[1] = 64 * 2**20
        assert (await fetched(http, files.wanted(), tmp_path / "files")).bytes == 64 * 2**20


async def test_a_large_file_is_never_whole_in_memory(tmp_path: Path) -> None:
    size = 64 * 2**20

    async def large(id: int, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(size)})
        await response.prepare(request)
        piece = b"x" * 2**18
        for _ in range(size // len(piece)):
            await response.write(piece)
        return response

    files = Files({1: b""}, large)
    files.sizes[1] = size
    async with talking(files, tmp_path) as http:
        tracemalloc.start()
        try:
            report = await fetched(http, files.wanted(), tmp_path / "files")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert report.bytes == size
    assert peak < 24 * 2**20


async def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    files = Files({1: b""})
    async with talking(files, tmp_path) as http:
        assert (await fetched(http, files.wanted(), tmp_path / "files")).fetched == 1
        assert (await fetched(http, files.wanted(), tmp_path / "files")).already == 1
    assert (tmp_path / "files" / "1.pdf").read_bytes() == b""


async def test_a_refusal_that_comes_as_success_is_no_file_but_a_json_file_is_one(tmp_path: Path) -> None:
    refusal = b'{"success":false,"error":"The file is gone"}'

    async def answer(id: int, request: web.BaseRequest) -> web.StreamResponse:
        headers = {"Content-Disposition": "attachment"} if id == 2 else {}
        return web.Response(body=refusal if id < 3 else b'{"a": 1}', content_type="application/json", headers=headers)

    files = Files({1: refusal, 2: refusal, 3: b'{"a": 1}'}, answer)
    files.names = dict.fromkeys(files.bodies, "a.json")
    async with talking(files, tmp_path) as http:
        report = await fetched(http, files.wanted(), tmp_path / "files")
    assert [gap.detail.split()[1] for gap in report.gaps] == ["1"]
    assert (tmp_path / "files" / "2.json").read_bytes() == refusal
    assert (tmp_path / "files" / "3.json").read_bytes() == b'{"a": 1}'


@pytest.mark.parametrize(
    ("came", "name", "is_odd"),
    [
        ("text/html; charset=utf-8", "offer.pdf", True),
        ("application/json", "photo.png", True),
        ("application/octet-stream", "offer.pdf", False),
        ("application/pdf", "offer.pdf", False),
        ("image/jpeg", "photo.png", False),
        ("text/html", "page.html", False),
        ("text/html", "no suffix", False),
        (None, "offer.pdf", False),
    ],
)
def test_a_content_type_that_can_not_be_meant_is_noted(came: str | None, name: str, is_odd: bool) -> None:
    assert (type_mismatch(came, name) is not None) == is_odd


# Redirects.


class Capture:
    """A storage host: it serves one body, and keeps every header that comes."""

    def __init__(self, body: bytes = b"stored", status: int = 200, location: str = "") -> None:
        self.body, self.status, self.location = body, status, location
        self.seen: list[tuple[str, dict[str, str]]] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append((request.path_qs, dict(request.headers)))
        headers = {"Location": self.location} if self.location else {}
        return web.Response(body=self.body, status=self.status, headers=headers)

    def all_text(self) -> str:
        return json.dumps(self.seen).lower()


def redirecting(to: str, status: int = 302) -> Files:
    async def redirect(id: int, request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": to, "Set-Cookie": f"session={TOKEN}"})

    files = Files({1: b"stored"}, redirect)
    files.sizes[1] = 0
    return files


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_x2_a_redirect_is_followed_once_without_any_credential(tmp_path: Path, status: int) -> None:
    storage = Capture()
    async with server(storage) as elsewhere:
        files = redirecting(f"{elsewhere}/bucket/a%20b?X-Amz-Signature=abc%2Fdef&x=1", status)
        async with talking(files, tmp_path) as http:
            report = await fetched(http, files.wanted(), tmp_path / "files")
    assert (report.exit_code, report.fetched) == (0, 1)
    assert (tmp_path / "files" / "1.pdf").read_bytes() == b"stored"
    assert [path for path, _ in storage.seen] == ["/bucket/a%20b?X-Amz-Signature=abc%2Fdef&x=1"]
    assert TOKEN not in storage.all_text()
    names = {name.lower() for name in storage.seen[0][1]}
    assert names <= {"host", "accept", "accept-encoding", "user-agent"}
    assert files.headers[0]["x-api-token"] == TOKEN


_CREDENTIALS = ("authorization", "x-api-token", "cookie", "referer", TOKEN)


def _shapes(port: int) -> list[str]:
    """Ways to write where a redirect leads; most of them are somewhere that nobody should go."""
    hosts = [
        "127.0.0.1", "127.0.0.2", "localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0", "[::]", "user:pass@127.0.0.1", "user@127.0.0.1", "127.0.0.1@127.0.0.1", "xn--bcher-kva.invalid",
        "10.0.0.1",
        "192.168.0.1", "169.254.169.254", "[fe80::1]", "[fd00::1]", "100.64.0.1", "224.0.0.1", "[64:ff9b::a00:1]",
        "[2002:a00:1::]",
    ]  # fmt: skip
    shapes = [f"{scheme}://{host}:{port}/x" for scheme in ("http", "https", "HTTP") for host in hosts]
    shapes += [f"{scheme}://{host}/x" for scheme in ("http", "https") for host in hosts[8:]]
    shapes += [f"//{host}:{port}/x" for host in hosts]
    shapes += [
        f"http:/127.0.0.1:{port}/x",
        f"http:127.0.0.1:{port}/x",
        f"http:\\\\127.0.0.1:{port}\\x",
        f"\\\\127.0.0.1:{port}/x",
    ]
    shapes += [
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "data:text/plain,x",
        "javascript:alert(1)",
        "gopher://127.0.0.1/x",
    ]
    shapes += [
        "",
        " ",
        "#",
        "?",
        "http://",
        "https://",
        "://",
        "http://[",
        "http://127.0.0.1:99999/",
        "https://:443/x",
        "x" * 9000,
    ]
    shapes += [
        f"http://127.0.0.1:{port}/a\nX: y",
        f"http://127.0.0.1:{port}/\0",
        "http://bücher.invalid/",
        "https://a b/",
    ]
    return shapes


async def test_x2_no_shape_of_redirect_carries_the_token_on(tmp_path: Path) -> None:
    """Whatever a redirect looks like: the target gets no credential, and no address inside is called."""
    storage = Capture()
    async with server(storage) as elsewhere:
        shapes = [(shape, status) for shape in _shapes(int(elsewhere.rpartition(":")[2])) for status in (302, 307)]
        assert len(shapes) > 200
        random.Random(5).shuffle(shapes)

        async def redirect(id: int, request: web.BaseRequest) -> web.StreamResponse:
            to, status = shapes[id - 1]
            response = web.Response(status=status)
            assert request.transport is not None
            request.transport.write(  # past aiohttp, which would not send some of these  # type: ignore[attr-defined]
                f"HTTP/1.1 {status} Found\r\nLocation: ".encode()
                + to.replace("\n", "\r\n").encode()
                + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            request.transport.close()
            return response

        files = Files(dict.fromkeys(range(1, len(shapes) + 1), b"stored"), redirect)
        files.sizes = dict.fromkeys(files.bodies, 0)
        async with talking(files, tmp_path) as http:
            for file in files.wanted():  # one by one: a server that answers nonsense five times counts as down
                await fetched(http, [file], tmp_path / "files")
                http._retry_tokens = 0.0  # nothing here gets better by asking again
    assert storage.seen, "some of the shapes are fair ones"
    for word in _CREDENTIALS:
        assert word.lower() not in storage.all_text()
    for content in (tmp_path / "files").glob("*.pdf"):
        assert content.read_bytes() == b"stored"


async def test_x2_a_second_redirect_is_not_followed(tmp_path: Path) -> None:
    last = Capture()
    async with server(last) as there:
        storage = Capture(status=302, location=f"{there}/x")
        async with server(storage) as elsewhere:
            files = redirecting(f"{elsewhere}/x")
            async with talking(files, tmp_path) as http:
                report = await fetched(http, files.wanted(), tmp_path / "files")
    assert "redirects once more" in report.gaps[0].detail
    assert (len(files.requested), len(storage.seen), len(last.seen)) == (1, 1, 0)


@pytest.mark.parametrize(
    ("status", "kind"), [(403, "forbidden"), (404, "gone"), (410, "gone"), (206, "failed"), (418, "failed")]
)
async def test_what_the_storage_refuses_is_a_gap_that_does_not_show_the_link(
    tmp_path: Path, status: int, kind: str
) -> None:
    storage = Capture(status=status)
    async with server(storage) as elsewhere:
        files = redirecting(f"{elsewhere}/x?Signature=s3cr3t")
        async with talking(files, tmp_path) as http:
            report = await fetched(http, files.wanted(), tmp_path / "files")
    assert [gap.kind for gap in report.gaps] == [kind]
    assert "s3cr3t" not in report.gaps[0].detail
    assert len(storage.seen) == 1


async def test_a_storage_that_fails_is_requested_again_with_a_new_link(tmp_path: Path) -> None:
    storage = Capture(status=503)
    async with server(storage) as elsewhere:
        files = redirecting(f"{elsewhere}/x")
        async with talking(files, tmp_path) as http:
            work = asyncio.create_task(fetched(http, files.wanted(), tmp_path / "files"))
            while len(storage.seen) < 2:
                await asyncio.sleep(0)
            storage.status = 200
            assert (await work).fetched == 1
    assert len(files.requested) == len(storage.seen) >= 3
