"""`pdsync api`: every operation of the catalogue is sent as declared, raw requests with all their options."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest
from aiohttp import web

import pdsync
from pdsync.core import catalogue
from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.cli.test_files import listening
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.model import Operation, Param
    from pdsync.sandbox import RunningSandbox

TOKEN = "c4n4ry-0123456789abcdef"
OPERATIONS = [op for version in catalogue.VERSIONS for op in catalogue.operations(version).values()]


class Echo:
    """Answers everything with success, and keeps what came."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.answers: list[web.Response] = []  # instead, one after the other

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append(
            {
                "method": request.method,
                "path": request.raw_path.partition("?")[0],
                "query": parse_qsl(request.query_string, keep_blank_values=True),
                "headers": {name.lower(): value for name, value in request.headers.items()},
                "type": request.content_type if request.can_read_body else None,
                "body": await request.read(),
            }
        )
        if self.answers:
            return self.answers.pop(0)
        return web.json_response({"success": True, "data": {"id": 1}})

    @property
    def last(self) -> dict[str, Any]:
        return self.seen[-1]


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def project(echo: Echo, tmp_path: Path) -> Iterator[Project]:
    with listening(echo) as url:
        yield Project(tmp_path / "project").configure(base_url=url, api_token=TOKEN)


def parts_of(request: dict[str, Any]) -> dict[str, tuple[str | None, str, bytes]]:
    """A multipart body: file name, media type and content by field."""
    boundary = request["headers"]["content-type"].partition("boundary=")[2].encode()
    found = {}
    for part in request["body"].split(b"--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        text = head.decode()
        name, file = (re.search(rf'[ ;]{key}="([^"]*)"', text) for key in ("name", "filename"))
        kind = re.search(r"Content-Type: ([^;\r\n]+)", text)
        assert name
        found[name[1]] = (file and file[1], kind[1] if kind else "text/plain", content.removesuffix(b"\r\n"))
    return found


# Operations.

_SAMPLES = {
    "integer": ("7", 7),
    "number": ("1.5", 1.5),
    "boolean": ("true", True),
    "string": ("text/ä b&=+%", "text/ä b&=+%"),
    "string:date": ("2026-03-31", "2026-03-31"),
    "string:date-time": ("2026-03-31T10:00:00Z", "2026-03-31T10:00:00Z"),
    "string:uuid": ("adf21080-0e10-11eb-879b-05d71fb426ec", "adf21080-0e10-11eb-879b-05d71fb426ec"),
    "string:url": ("https://example.com/?a=b", "https://example.com/?a=b"),
    "object": ('{"a":1}', {"a": 1}),
    "array[integer]": ("1,2", [1, 2]),
    "array[number]": ("1,2.5", [1, 2.5]),
    "array[string]": ("a,b", ["a", "b"]),
    "array[object]": ('[{"a":1}]', [{"a": 1}]),
}
_KEY = "0123456789abcdef0123456789abcdef01234567"


def sample(name: str, param: Param) -> tuple[str, Any]:
    """A value that fits: as it is typed, and as it is meant."""
    if param.enum:
        one = param.enum[0]
        text = str(one).lower() if isinstance(one, bool) else str(one)
        return (text, [one]) if param.type.startswith("array") else (text, one)
    if name == "custom_fields" and param.type == "object":
        return f'{{"{_KEY}":1}}', {_KEY: 1}
    if param.max is not None and param.type == "integer":
        return "1", 1
    return _SAMPLES[param.type]


def in_a_form(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.proof
def test_every_operation_is_sent_as_the_catalogue_declares_it(echo: Echo, project: Project, tmp_path: Path) -> None:
    """With every parameter that each one knows: where it goes, how it is written, in which kind of body."""
    file = tmp_path / "päper.pdf"
    file.write_bytes(b"%PDF " + bytes(range(256)))
    called = 0
    for operation in OPERATIONS:
        if operation.host:
            continue
        echo.seen.clear()
        groups = (operation.path_params, operation.query, operation.body)
        values = {name: sample(name, param) for group in groups[:2] for name, param in group.items()}
        body = {
            name: (f"@{file}", None) if param.type == "string:binary" else sample(name, param)
            for name, param in operation.body.items()
        }
        arguments = [f"{name}={text}" for name, (text, _) in values.items()]
        if operation.body_list:
            arguments.append(f"body={json.dumps([{name: value for name, (_, value) in body.items()}])}")
        else:
            arguments += [f"{name}={text}" for name, (text, _) in body.items()]
        extra = ["--force"] if operation.removed else []
        ran = project.here("api", f"{operation.version}:{operation.id}", *arguments, "--yes", "-q", *extra)
        assert ran.code == 0, (operation.name, ran)
        assert len(echo.seen) == 1, operation.name
        _check(operation, echo.last, values, body, file)
        called += 1
    assert called == len(OPERATIONS) - 3
    assert called > 430


def _check(
    operation: Operation, came: dict[str, Any], values: dict[str, Any], body: dict[str, Any], file: Path
) -> None:
    name = operation.name
    assert came["method"] == operation.method, name
    pattern = re.sub(r"\\{.+?\\}", "[^/]+", re.escape(operation.path))
    assert re.fullmatch(pattern, came["path"]), name
    assert dict(came["query"]) == {key: in_a_form(values[key][1]) for key in operation.query}, name
    assert came["headers"]["x-api-token"] == TOKEN
    meant = {key: value for key, (_, value) in body.items()}
    if not operation.body:
        assert came["body"] == b"", name
        assert operation.content is None or operation.removed, name  # of those, nobody knows the fields any more
    elif operation.content == "json":
        assert came["type"] == "application/json", name
        assert json.loads(came["body"]) == ([meant] if operation.body_list else meant), name
    elif operation.content == "form":
        assert came["type"] == "application/x-www-form-urlencoded", name
        assert dict(parse_qsl(came["body"].decode())) == {key: in_a_form(value) for key, value in meant.items()}, name
    elif operation.content == "multipart":
        assert came["type"] == "multipart/form-data", name
        for key, (file_name, kind, content) in parts_of(came).items():
            if operation.body[key].type == "string:binary":
                assert (file_name, kind) == (file.name, "application/pdf"), name
                assert content == file.read_bytes(), name
            else:
                assert content.decode() == in_a_form(meant[key]), name
        assert parts_of(came).keys() == body.keys(), name


def test_steps_of_oauth_are_not_sent(echo: Echo, project: Project) -> None:
    for operation in OPERATIONS:
        if operation.host:
            ran = project.here("api", operation.id, "client_id=1", "redirect_uri=https://x.example", "--yes")
            assert ran.code == 2
            assert "pdsync auth login" in ran.err
    assert echo.seen == []


@pytest.mark.parametrize("operation", [op for op in OPERATIONS if op.removed], ids=lambda op: op.name)
def test_a_removed_operation_is_refused_with_its_replacement(operation: Operation, tmp_path: Path) -> None:
    ran = Project(tmp_path / "p").here("api", f"{operation.version} {operation.id}", "--yes")
    assert ran.code == 2
    assert (operation.ended or f"no longer documented by Pipedrive. Use {operation.replaced_by} instead.") in ran.err
    assert "--force" in ran.err


def test_a_removed_operation_may_be_forced_and_a_deprecated_one_says_so(echo: Echo, project: Project) -> None:
    ran = project.here("api", "v1:getDeals", "--force")
    assert ran.code == 0
    assert "Use v2 getDeals" in ran.err
    assert echo.last["path"] == "/v1/deals"
    ran = project.here("api", "getPipelineDeals", "id=1")
    assert ran.code == 0
    assert "is deprecated. Use v2 getDeals" in ran.err


def test_a_body_may_be_given_whole(echo: Echo, project: Project, tmp_path: Path) -> None:
    file = tmp_path / "deal.json"
    file.write_text('{"title": "Boat", "value": 12}')
    assert project.here("api", "addDeal", "owner_id=3", "--body", f"@{file}", "--yes").code == 0
    assert json.loads(echo.last["body"]) == {"title": "Boat", "value": 12, "owner_id": 3}
    ran = project.here("api", "addDeal", "title=Car", "--body", f"@{file}", "--yes")
    assert ran.code == 2
    assert "title is given twice: in --body and as key=value" in ran.err
    assert project.here("api", "addDeal", "--body", '{"titel": "Boat"}', "--yes").code == 2
    options = project.here("api", "addDealFieldOptions", f"field_code={_KEY}", "--body", '[{"label": "a"}]', "--yes")
    assert options.code == 0
    assert json.loads(echo.last["body"]) == [{"label": "a"}]


def test_w_what_may_change_data_is_not_sent_unasked(echo: Echo, project: Project, tmp_path: Path) -> None:
    file = tmp_path / "a.pdf"
    file.write_text("x")
    for arguments in (
        ["deleteDeal", "id=1"],
        ["addFile", f"file=@{file}", "deal_id=1"],
        ["updateFile", "id=1", "name=x"],
        ["addFileAndLinkIt", "file_type=gdoc", "title=x", "item_type=deal", "item_id=1", "remote_location=googledrive"],
        ["linkFileToItem", "item_type=deal", "item_id=1", "remote_id=x", "remote_location=googledrive"],
        ["--request", "POST", "/v1/files"],
        ["--request", "PATCH", "/api/v2/deals/1", "--body", "{}"],
    ):
        ran = project.here("api", *arguments)
        assert ran.code == 2, arguments
        assert "may change data. Nothing was sent; add --yes" in ran.err
    assert echo.seen == []


# Lists.


@pytest.fixture(scope="module")
def box() -> Iterator[RunningSandbox]:
    company = generate_company(seed=9, sizes=Sizes(deals=150, files=230), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        yield box


@pytest.fixture
def filled(box: RunningSandbox, tmp_path: Path) -> Project:
    box.faults.clear()
    box.clear_log()
    return Project(tmp_path / "filled").configure(base_url=box.url, api_token=box.token)


def test_all_follows_cursors_and_offsets_and_shows_each_record_once(box: RunningSandbox, filled: Project) -> None:
    for operation, kind in (("getDeals", "deals"), ("getFiles", "files"), ("getActivities", "activities")):
        ran = filled.here("api", operation, "--all", *(["limit=13"] if kind == "deals" else []))
        assert ran.code == 0, ran
        ids = [record["id"] for record in json.loads(ran.out)]
        assert len(ids) == len(set(ids))
        assert set(ids) == {entry["id"] for entry in box.dump(kind) if entry["state"] == "live"}
        lines = filled.here("api", operation, "--all", "--json")
        assert {json.loads(line)["id"] for line in lines.out.splitlines()} == set(ids)
    assert filled.here("api", "getPipelineDealsX", "--all").code == 2
    refused = filled.here("api", "getDeal", "id=1", "--all")
    assert refused.code == 2
    assert "has no pages" in refused.err


def test_all_follows_lists_with_nested_records(echo: Echo, project: Project) -> None:
    """Searches put them under `data.items`; a key beside the list does not mislead."""

    def page(numbers: range, cursor: str | None) -> web.Response:
        items = [{"result_score": 1, "item": {"id": number}} for number in numbers]
        return web.json_response(
            {"success": True, "data": {"items": items}, "additional_data": {"next_cursor": cursor}}
        )

    echo.answers = [page(range(3), "a"), page(range(3, 5), None)]
    ran = project.here("api", "searchDeals", "term=xy", "--all")
    assert [record["item"]["id"] for record in json.loads(ran.out)] == [0, 1, 2, 3, 4]
    assert [dict(seen["query"]).get("cursor") for seen in echo.seen] == [None, "a"]


def test_s9_a_list_that_breaks_off_is_no_whole_array(box: RunningSandbox, filled: Project, tmp_path: Path) -> None:
    box.faults.add(kind="permission_403", nth=3, path="/deals")
    ran = filled.here("api", "getDeals", "limit=10", "--all")
    assert ran.code == 1
    with pytest.raises(json.JSONDecodeError):
        json.loads(ran.out)
    box.faults.clear()
    box.faults.add(kind="permission_403", nth=3, path="/deals")
    out = tmp_path / "deals.json"
    out.write_text("before")
    assert filled.here("api", "getDeals", "limit=10", "--all", "--out", str(out)).code == 1
    assert out.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["deals.json"]
    box.faults.clear()
    assert filled.here("api", "getDeals", "--all", "--out", str(out)).code == 0
    assert len(json.loads(out.read_text())) > 100


# Files.


def test_a_complete_file_is_written_to_out_or_stdout(box: RunningSandbox, filled: Project, tmp_path: Path) -> None:
    id, size = next((e["id"], e["record"]["file_size"]) for e in box.dump("files") if e["state"] == "live")
    box.faults.add(kind="truncate", nth=1, path="download")
    out = tmp_path / "file.bin"
    assert filled.here("api", "downloadFile", f"id={id}", "--out", str(out)).code == 0
    assert out.stat().st_size == size
    assert out.stat().st_mode & 0o077 == 0
    box.faults.clear()
    box.faults.add(kind="truncate", nth=1, path="download")
    piped = _bytes_of(filled, "api", "downloadFile", f"id={id}")
    assert piped == out.read_bytes()
    box.faults.clear()
    raw = tmp_path / "raw.bin"
    arguments = ("--request", "GET", f"/v1/files/{id}/download", "--response-type", "binary", "--out", str(raw))
    assert filled.here("api", *arguments).code == 0
    assert raw.read_bytes() == out.read_bytes()


def _bytes_of(project: Project, *arguments: str) -> bytes:
    """stdout of a command in a process of its own, as bytes."""
    command = [sys.executable, "-m", "pdsync", *arguments]
    return subprocess.run(
        command, env=project.env, cwd=project.folder, capture_output=True, check=True, timeout=60
    ).stdout


def test_x2_a_redirected_download_takes_no_token_along(echo: Echo, project: Project, tmp_path: Path) -> None:
    storage = Echo()
    with listening(storage) as elsewhere:
        echo.answers = [web.Response(status=302, headers={"Location": f"{elsewhere}/x"})]
        storage.answers = [web.Response(body=b"stored")]
        assert project.here("api", "downloadFile", "id=1", "--out", str(tmp_path / "x")).code == 0
        assert (tmp_path / "x").read_bytes() == b"stored"
        assert TOKEN not in json.dumps(storage.last["headers"])
        echo.answers = [web.Response(status=302, headers={"Location": f"{elsewhere}/x"})]
        ran = project.here("api", "--request", "GET", "/v1/deals")
        assert ran.code == 1
        assert "redirects" in ran.err
        assert len(storage.seen) == 1


def a_deal(box: RunningSandbox) -> int:
    return next(id for id, row in box.company["deals"].rows.items() if row.state == "live")


def test_files_are_uploaded_by_operation_and_by_raw_request(
    box: RunningSandbox, filled: Project, tmp_path: Path
) -> None:
    paper = tmp_path / "Ängebot 1.pdf"
    paper.write_bytes(bytes(range(256)) * 9)
    deal = f"deal_id={a_deal(box)}"
    ran = filled.here("api", "addFile", f"file=@{paper}", deal, "--yes")
    record = json.loads(ran.out)["data"]
    assert (record["name"], record["file_size"]) == (paper.name, paper.stat().st_size)
    assert box.company.contents[record["id"]] == paper.read_bytes()
    arguments = ("--request", "POST", "/v1/files", "--file", f"file=@{paper}", "--file-name", "file=other.pdf")
    ran = filled.here("api", *arguments, "--form", deal, "--yes")
    record = json.loads(ran.out)["data"]
    assert (record["name"], box.company.contents[record["id"]]) == ("other.pdf", paper.read_bytes())
    renamed = filled.here("api", "updateFile", f"id={record['id']}", "name=new.pdf", "--yes")
    assert json.loads(renamed.out)["data"]["name"] == "new.pdf"


async def test_the_library_sends_and_fetches_files(
    box: RunningSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDSYNC_API_TOKEN", box.token)
    box.faults.clear()
    paper = tmp_path / "paper.pdf"
    paper.write_bytes(b"paper")
    async with pdsync.Client(tmp_path, {"account.base_url": box.url, "limits.burst": 0}, create=True) as client:
        added = await client.call("addFile", file=paper, deal_id=a_deal(box))
        renamed = await client.call("updateFile", id=added["data"]["id"], name="new.pdf")
        assert renamed["data"]["name"] == "new.pdf"
        assert await client.call("downloadFile", id=added["data"]["id"]) == b"paper"


# Raw requests.


def test_a_raw_request_sends_all_its_options(echo: Echo, project: Project, tmp_path: Path) -> None:
    ran = project.here(
        "api", "--request", "post", "/api/v2/deals?a=1", "b=2", "--query", "c=3 4&5", "--query", "c=6",
        "--header", "Accept-Language=de", "--header", "X-Trace: 7", "--body", '{"title": "ä"}', "--yes",
    )  # fmt: skip
    assert ran.code == 0, ran
    came = echo.last
    assert (came["method"], came["path"]) == ("POST", "/api/v2/deals")
    assert came["query"] == [("a", "1"), ("b", "2"), ("c", "3 4&5"), ("c", "6")]
    assert (came["headers"]["accept-language"], came["headers"]["x-trace"]) == ("de", "7")
    assert json.loads(came["body"]) == {"title": "ä"}

    ran = project.here("api", "--request", "PUT", "/v1/files/1", "--form", "name=a b&c", "--form", "x=", "--yes")
    assert echo.last["type"] == "application/x-www-form-urlencoded"
    assert parse_qsl(echo.last["body"].decode(), keep_blank_values=True) == [("name", "a b&c"), ("x", "")]

    project.here("api", "--request", "POST", "/v1/x", "--form", "a=1", "--multipart", "--yes")
    assert parts_of(echo.last) == {"a": (None, "text/plain", b"1")}

    csv = tmp_path / "a.csv"
    csv.write_text("1;2")
    arguments = ("--header", "Content-Type=text/csv", "--body", f"@{csv}", "--yes")
    project.here("api", "--request", "POST", "/v1/x", *arguments)
    assert (echo.last["headers"]["content-type"], echo.last["body"]) == ("text/csv", b"1;2")


@pytest.mark.parametrize(
    "header",
    [
        "Authorization=Bearer x", "authorization: x", "X-API-Token=x", "x-api-token:x", "Cookie=a=b",
        "Host=evil.example",
        "Proxy-Authorization=x", "Content-Length=3", "Transfer-Encoding=chunked", "Connection=close",
        "X-Forwarded-Host=x",
        "X-HTTP-Method-Override=DELETE", "no-sign", "=x", "Bad Name=x", "X-A=b\nX-API-Token: c", "X-A=\r", "X-A=ä", "",
    ],
)  # fmt: skip
def test_x2_headers_that_authenticate_or_mislead_are_refused(echo: Echo, project: Project, header: str) -> None:
    ran = project.here("api", "--request", "GET", "/v1/deals", "--header", header)
    assert ran.code == 2
    assert "Nothing was sent" in ran.err
    assert echo.seen == []


@pytest.mark.parametrize(
    "path",
    [
        "deals", "//evil.example/v1/x", "https://evil.example/v1/x", "/v1/../oauth/token", "/v1/%2e%2e/x",
        "/v1/%252e%252e/x",
        "/v1/./x", "/v1\\x", "/v1/a b", "/v1/x#y", "/v1/x\r\nX: y", "/v2/deals", "/oauth/token", "@evil.example/v1/",
        "/v1/..\\x",
        "/v1/deals?api_token=x", "/v1/deals?a=1&API_TOKEN=x", "/v1/deals?%61pi_token=x", "/v1/deals?access_token=x",
    ],
)  # fmt: skip
def test_x2_paths_that_lead_away_or_carry_a_token_are_refused(echo: Echo, project: Project, path: str) -> None:
    assert project.here("api", "--request", "GET", path).code == 2
    assert echo.seen == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--request", "GET", "/v1/x", "--body", "{}"], "has no body"),
        (["--request", "GET", "/v1/x", "--form", "a=1"], "has no body"),
        (["--request", "POST", "/v1/x", "--body", "{}", "--form", "a=1"], "can't be combined"),
        (["--request", "POST", "/v1/x", "--form", "a"], "key=value"),
        (["--request", "POST", "/v1/x", "--file", "a=@/no/such/file"], "can't be read"),
        (["--request", "POST", "/v1/x", "--file", "a=@/tmp"], "is no file"),
        (["--request", "POST", "/v1/x", "--file-name", "a=b"], "no --file of that name"),
        (["--request", "POST", "/v1/x", "--form", "a=1", "--header", "Content-Type=x/y"], "sets its own"),
        (["--request", "GET", "/v1/x", "--query", "api_token=x"], "must not be in a URL"),
        (["--request", "GET", "/v1/x", "--all"], "--all"),
        (["getDeals", "--query", "a=b"], "raw requests"),
        (["getDeals", "--out", "/no/such/folder/x"], "can't be written"),
        (["addFile", "file=@/no/such/file", "deal_id=1"], "can't be read"),
    ],
)
def test_o7_what_makes_no_sense_ends_with_2(echo: Echo, project: Project, arguments: list[str], says: str) -> None:
    ran = project.here("api", *arguments, "--yes")
    assert ran.code == 2, ran
    assert says in ran.err
    assert echo.seen == []


def status(code: int) -> web.Response:
    return web.json_response({"success": False, "error": "no"}, status=code)


def test_retries_are_as_many_as_asked_for(echo: Echo, project: Project) -> None:
    echo.answers = [status(503) for _ in range(3)]
    assert project.here("api", "getDeals", "--retries", "3", "--backoff", "0.01").code == 0
    assert len(echo.seen) == 4
    echo.seen.clear()
    echo.answers = [status(503) for _ in range(3)]
    ran = project.here("api", "--request", "GET", "/v1/x", "--retries", "2", "--backoff", "0.01", "--constant")
    assert ran.code == 1
    assert "attempt 3 of 3" in ran.err
    assert len(echo.seen) == 3
    echo.seen.clear()
    echo.answers = [status(404), status(404)]
    assert project.here("api", "--request", "GET", "/v1/x", "--retries", "5", "--backoff", "0.01").code == 1
    assert len(echo.seen) == 1
    echo.answers = [status(404), status(404)]
    assert project.here("api", "--request", "GET", "/v1/x", "--retry-all", "--backoff", "0.01").code == 0
    assert len(echo.seen) == 4


def test_every_page_of_a_list_is_requested_with_the_options(echo: Echo, project: Project) -> None:
    command = ("api", "getDeals", "--all", "--backoff", "0.01")

    def page(number: int, following: str | None) -> web.Response:
        told = {"next_cursor": following}
        return web.json_response({"success": True, "data": [{"id": number}], "additional_data": told})

    echo.answers = [page(1, "b"), status(503), page(2, None)]
    ran = project.here(*command, "--retries", "1", "--header", "X-Why=audit")
    assert (ran.code, [each["id"] for each in json.loads(ran.out)]) == (0, [1, 2]), ran
    assert [each["headers"].get("x-why") for each in echo.seen] == ["audit"] * 3

    echo.seen.clear()
    echo.answers = [page(1, "b"), status(503)]
    ran = project.here(*command, "--retries", "0")
    assert ran.code == 1
    assert "attempt 1 of 1" in ran.err
    assert len(echo.seen) == 2

    echo.seen.clear()
    echo.answers = [status(404), web.json_response({"success": True, "data": []})]
    assert project.here(*command, "--retry-all").code == 0
    assert len(echo.seen) == 2

    echo.seen.clear()
    ran = project.here(*command, "--retries", "0")  # an answer that is no list is not asked for again either
    assert ran.code == 1
    assert len(echo.seen) == 1


def test_constant_waits_are_as_long_as_asked_for(echo: Echo, project: Project) -> None:
    echo.answers = [status(503) for _ in range(6)]
    ran = project.here("api", "getDeals", "--all", "-v", "--retries", "5", "--backoff", "0.1", "--constant")
    assert ran.err.count("again in") == ran.err.count("again in 0.1 s") == 5
    echo.seen.clear()
    echo.answers = [status(503) for _ in range(3)]
    ran = project.here("api", "getDeals", "-v", "--retries", "2", "--backoff", "0.3", "--constant")
    assert ran.err.count("again in") == ran.err.count("again in 0.3 s") == 2


def test_w4_no_option_repeats_a_write_with_an_unknown_outcome(echo: Echo, project: Project) -> None:
    for arguments in (["deleteDeal", "id=1"], ["--request", "POST", "/v1/x", "--body", "{}"]):
        echo.seen.clear()
        echo.answers = [status(502)]
        ran = project.here("api", *arguments, "--retries", "9", "--retry-all", "--backoff", "0.01", "--yes")
        assert ran.code == 1
        assert "not known" in ran.err
        assert len(echo.seen) == 1
        echo.answers.clear()


def test_a_timeout_is_as_long_as_asked_for(box: RunningSandbox, filled: Project) -> None:
    box.faults.add(kind="latency", ms=3000)
    for also in ((), ("--all",)):
        ran = filled.here("api", "getDeals", "--timeout", "0.3", "--retries", "0", *also)
        assert ran.code == 1
        assert "no answer within 0.3 s" in ran.err


def test_an_answer_has_the_requested_form(echo: Echo, project: Project) -> None:
    assert project.here("api", "getDeals").out == '{\n  "success": true,\n  "data": {\n    "id": 1\n  }\n}\n'
    assert project.here("api", "getDeals", "--json").out == '{"success": true, "data": {"id": 1}}\n'
    assert project.here("api", "getDeals", "--response-type", "text").out == '{"success": true, "data": {"id": 1}}\n'
    for kind, code in (("json", 1), ("text", 0), (None, 0)):
        echo.answers = [web.Response(text="plain words")]
        ran = project.here("api", "--request", "GET", "/v1/x", *(["--response-type", kind] if kind else []))
        assert ran.code == code
        assert "plain words" in (ran.err if code else ran.out)
    echo.answers = [web.Response(status=204)]
    assert project.here("api", "--request", "DELETE", "/v1/x", "--yes").out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["addDeal", "title=x", "--response-type", "binary", "--yes"],
        ["--request", "POST", "/v1/x", "--response-type", "binary", "--yes"],
        ["getDeals", "--response-type", "binary"],
        ["--request", "GET", "/v1/x", "--response-type", "binary"],
        ["downloadFile", "id=1"],
    ],
)
def test_w_bytes_for_a_terminal_are_refused_before_anything_is_sent(
    echo: Echo, project: Project, arguments: list[str]
) -> None:
    terminal, stdout = pty.openpty()
    command = [sys.executable, "-m", "pdsync", "api", *arguments]
    ran = subprocess.run(
        command, env=project.env, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
    os.close(stdout)
    os.close(terminal)
    assert ran.returncode == 2, ran
    assert "add --out FILE" in ran.stderr
    assert "Nothing was called" in ran.stderr
    assert echo.seen == []


def test_w_a_write_whose_answer_can_not_be_stored_is_not_sent(echo: Echo, project: Project, tmp_path: Path) -> None:
    for arguments in (["addDeal", "title=x"], ["--request", "POST", "/v1/x"]):
        ran = project.here("api", *arguments, "--yes", "--out", str(tmp_path / ("n" * 250)))
        assert ran.code == 2, ran
        assert "can't be written" in ran.err
        assert echo.seen == []


def test_x2_v_shows_what_is_sent_and_no_token(echo: Echo, project: Project) -> None:
    arguments = (
        "--request",
        "POST",
        "/v1/x",
        "--query",
        "q=1",
        "--header",
        "X-Trace=7",
        "--body",
        f'{{"t": "{TOKEN}"}}',
    )
    ran = project.here("api", *arguments, "--yes", "-vv")
    assert ran.code == 0
    for part in ("> POST http://127.0.0.1", "/v1/x", "?q=1", "X-Trace: 7", '{"t":"[secret]"}', "< 200"):
        assert part in ran.err
    assert TOKEN not in ran.err + ran.out
    echo.answers = [status(500) for _ in range(6)]
    ran = project.here("api", "--request", "GET", "/v1/x", "-vv")
    assert TOKEN not in ran.err


def test_x5_nothing_is_changed_in_another_company(box: RunningSandbox, filled: Project) -> None:
    assert filled.here("sync", "users", "-q").code == 0
    other = generate_company(seed=9, sizes=Sizes(deals=5), now=datetime.now(UTC), company_id=77)
    with running(other, limits=Limits(burst=None, daily_tokens=None)) as wrong:
        filled.configure(base_url=wrong.url, api_token=wrong.token)
        ran = filled.here("api", "deleteDeal", "id=1", "--yes")
        assert ran.code == 2
        assert "belongs to company 77" in ran.err
        assert filled.here("api", "--request", "DELETE", "/api/v2/deals/1", "--yes").code == 2
        assert not wrong.journal
