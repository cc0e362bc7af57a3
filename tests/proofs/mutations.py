"""Proof: whatever a list answers, no row is lost, invented or changed under another id, and nothing hangs or breaks.

    python -m tests.proofs.mutations                    # 10,000 mutated answers: some minutes
    python -m tests.proofs.mutations --responses 500 --seed 7

A sandbox is the remote side; a small server in front of it spoils its lists of deals. Most answers are spoiled inside:
types swapped, keys missing or repeated, deeply nested values, huge numbers, NUL, lone surrogates, records that are no
objects. Some are spoiled as a whole: HTML, truncated JSON, no data. The answers are stored, and compared with the table
after each sync: every row must be a record that was sent with this id; a run that ends with 0 must have stored all of
them; a record that cannot be read must be in meta.quarantine, byte for byte, and the run must not end with 0.
"""

# ruff: noqa: T201 - prints a report

from __future__ import annotations

import json
import random
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from tests.support import knobs
from tests.support.proof import Proof
from tests.support.world import Project, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.world import Remote

LISTS = ("/api/v2/deals", "/api/v2/deals/archived")
ROWS = 25  # a page
WHOLE = 0.03  # the share of answers that are spoiled as a whole
DEEP = '{"a":' * 100 + "1" + "}" * 100
VALUES = [
    "null", "true", "0", "-1", "3.75", "1e400", "9" * 400, "1.00000000000000000000001", '""', '"text"', '"12"',
    '"2026-02-30T25:61:00Z"', '"0000-00-00"', "[]", "[1,\"a\",null]", "{}", '{"value":5,"id":6}', "[[[]]]", DEEP,
    '"\\u0000"', '"\\ud83d"', '"\\ud83d\\ude00 and \\udc00"', '"' + "x" * 20_000 + '"', "NaN", "-Infinity",
]  # fmt: skip
KEYS = ['"nobody knows this"', '"\\u0000"', '"\\ud800"', '"ID"', '"Title"', '"custom_fields"', '""', '"a.b/c~d\\"e"']
CHECKED: Counter[str] = Counter({"rows compared": 0, "records quarantined": 0})  # by this process
NO_RECORDS = ["null", "5", '"text"', "[]", '[{"id":1}]', "true", "{}"]


def pairs(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [(json.dumps(key), json.dumps(value)) for key, value in record.items()]


def written(items: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{key}:{value}" for key, value in items) + "}"


def spoiled_record(random: random.Random, record: dict[str, Any]) -> str:
    """The record with one to three things wrong with it."""
    items = pairs(record)
    for _ in range(random.randint(1, 3)):
        index = random.randrange(len(items))
        what = random.choice(["swap", "swap", "swap", "drop", "double", "key", "custom", "none"])
        if what == "swap":
            items[index] = (items[index][0], random.choice(VALUES))
        elif what == "drop" and len(items) > 1:
            del items[index]
        elif what == "double":
            items.append((items[index][0], random.choice(VALUES)))
        elif what == "key":
            items.insert(index, (random.choice(KEYS), random.choice(VALUES)))
        elif what == "custom":
            inner = {"a" * 40: random.choice(VALUES), "b" * 40: random.choice(VALUES)}
            text = "{" + ",".join(f'"{key}":{value}' for key, value in inner.items()) + "}"
            items = [item for item in items if item[0] != '"custom_fields"'] + [('"custom_fields"', text)]
        else:
            return random.choice(NO_RECORDS)
    return written(items)


def inside(random: random.Random, body: bytes) -> bytes:
    """A valid list with some spoiled records; one of them may be repeated."""
    answer = json.loads(body)
    records = [json.dumps(record) for record in answer["data"]]
    for index in random.sample(range(len(records)), k=min(len(records), random.randint(1, 4))):
        records[index] = spoiled_record(random, answer["data"][index])
    if random.random() < 0.1 and records:
        records.append(random.choice(records))
    text = f'{{"success":true,"data":[{",".join(records)}],"additional_data":{json.dumps(answer["additional_data"])}}}'
    return text.encode("utf-8", "surrogatepass")


def whole(random: random.Random, body: bytes) -> bytes:
    """An answer that is not a page."""
    answer = json.loads(body)
    return random.choice(
        [
            b"<html><body>Bad day</body></html>",
            body[: random.randrange(len(body))],
            b"",
            b"null",
            b"[]",
            b'{"success":true}',
            b'{"success":true,"data":null,"additional_data":{"next_cursor":"x"}}',
            b'{"success":true,"data":"none"}',
            b'{"success":true,"data":{"id":1}}',
            json.dumps({**answer, "additional_data": None}).encode(),
            json.dumps({**answer, "additional_data": {"next_cursor": 5}}).encode(),
            body + b"}",
            b"\xff\xfe" + body,
            b"[" * 5000,
        ]
    )


class Spoiler:
    """A server in front of a sandbox that spoils its lists of deals, and stores its answer for each page."""

    def __init__(self, remote: Remote, seed: int, share_whole: float) -> None:
        self.remote, self.random, self.share_whole = remote, random.Random(seed), share_whole
        self.answered: list[tuple[str, dict[str, str], bytes]] = []  # list, parameters, answer
        self.count = 0
        spoiler = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                spoiler.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        onward = urllib.request.Request(
            self.remote.url + request.path, headers={"x-api-token": request.headers.get("x-api-token", "")}
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(onward, timeout=30) as response:
            body, date = response.read(), response.headers["Date"]
        parts = urlsplit(request.path)
        if parts.path in LISTS:
            spoil: Callable[[random.Random, bytes], bytes] = (
                whole if self.random.random() < self.share_whole else inside
            )
            body = spoil(self.random, body)
            self.count += 1
            self.answered.append((parts.path, dict(parse_qsl(parts.query)), body))
        request.send_response(200)
        request.send_header("Content-Type", "application/json; charset=utf-8")
        request.send_header("Content-Length", str(len(body)))
        request.send_header("Date", date)
        request.end_headers()
        request.wfile.write(body)

    def last_walks(self) -> list[bytes]:
        """The last answer for each page of the last walk of each list."""
        pages: dict[tuple[str, ...], bytes] = {}
        for path in LISTS:
            answered = [(query, body) for each, query, body in self.answered if each == path]
            begins = [
                at for at, (query, _) in enumerate(answered) if "cursor" not in query and query["sort_by"] == "id"
            ]
            walk = answered[begins[-1] :] if begins else []
            in_windows = any("updated_until" in query for query, _ in walk)
            for query, body in walk:
                if in_windows or query["sort_by"] == "id":  # or else the list was only probed
                    limits = ("sort_by", "sort_direction", "updated_since", "updated_until", "cursor")
                    pages[path, *(query.get(name, "") for name in limits)] = body
        return list(pages.values())

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Pairs(list[tuple[str, Any]]):
    """An object as it was sent: a key may be in it twice, and parsers differ in which value they take."""


def titles_by_id(bodies: list[bytes]) -> tuple[dict[int, list[str]], list[set[int]]]:
    """The content of lists: id → the titles that were sent with it; and for each record the ids that it can match."""
    titles: dict[int, list[str]] = defaultdict(list)
    records: list[set[int]] = []
    for body in bodies:
        try:
            answer = dict(json.loads(body, object_pairs_hook=Pairs))
            found = answer["data"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if found is not None and (not isinstance(found, list) or isinstance(found, Pairs)):
            continue
        for record in found or []:
            values = record if isinstance(record, Pairs) else []
            ids = {id for key, value in values if key == "id" for id in [usable(value)] if id is not None}
            called = [to_column(value) for key, value in values if key == "title"] or [""]
            records.append(ids)
            for id in ids:
                titles[id] += called
    return titles, records


def usable(id: Any) -> int | None:
    if isinstance(id, str) and id.removeprefix("-").isdigit():
        id = int(id)
    return id if isinstance(id, int) and not isinstance(id, bool) and abs(id) < 2**63 else None


def to_column(title: Any) -> str:
    """A title as the table stores it, with U+FFFD for what strict parsers refuse."""
    text = title if isinstance(title, str) else None if title is None else json.dumps(plain(title))
    return "" if text is None else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def check(project: Project, spoiler: Spoiler, code: int, *, finished: bool) -> list[str]:
    """What is wrong with a project's table after a sync that ended with `code`. `finished`: its walks are complete."""
    every = [body for _, _, body in spoiler.answered]
    stored, _ = titles_by_id(every)
    rows = dict(project.ask("SELECT id, title FROM deals"))
    quarantined = project.ask("SELECT count(*) FROM meta.quarantine")[0][0]
    CHECKED["rows compared"] += len(rows)
    CHECKED["records quarantined"] += quarantined
    wrong = [f"{id} was never answered" for id in rows.keys() - stored.keys()]
    for id, title in rows.items():
        known = stored.get(id, [])
        if known and not any(equal_values(title, each) for each in known):
            wrong.append(f"{id} is called {str(title)[:60]!r}; it came as {[each[:60] for each in known]}")
    if finished:
        _, records = titles_by_id(spoiler.last_walks())
        missing = sum(not ids & rows.keys() for ids in records)
        if missing > quarantined:
            wrong.append(f"{missing} records are neither in the table nor among {quarantined} quarantined ones")
    if code == 0 and (quarantined or not finished):
        wrong.append("the run ended with 0")
    return wrong


def plain(value: Any) -> Any:
    """Values with their objects as dicts."""
    if isinstance(value, Pairs):
        return {key: plain(inner) for key, inner in value}
    return [plain(each) for each in value] if isinstance(value, list) else value


def equal_values(title: str | None, sent: str) -> bool:
    """Whether a column equals a value that was sent; numbers, lists and objects are compared as JSON values."""
    if title is None or title == sent:
        return title is not None or sent == ""
    try:
        return bool(json.loads(title) == json.loads(sent))
    except (ValueError, RecursionError):
        return False


def one_sync(remote: Remote, folder: Path, seed: int, share_whole: float) -> tuple[int, list[str]]:
    """Sync a fresh project through a spoiler.

    Returns:
        The number of spoiled answers, and what is wrong after the sync.
    """
    spoiler = Spoiler(remote, seed, share_whole)
    try:
        project = Project(folder, remote).configure(base_url=spoiler.url)
        with knobs.smaller_pages(ROWS):
            ran = project.here("sync", "deals", "--json")
        wrong = [f"exit {ran.code}: {ran}"] if ran.code not in (0, 1, 4) or "bug in pdsync" in ran.err else []
        if (project.data / "warehouse.duckdb").exists() and project.ask(
            "SELECT 1 FROM duckdb_tables() WHERE table_name = 'deals' AND schema_name = 'main'"
        ):
            finished = ran.summary.get("streams", {}).get("deals", {}).get("error", "none") is None
            wrong += check(project, spoiler, ran.code, finished=finished)
        return spoiler.count, [f"seed {seed}: {each}" for each in wrong]
    finally:
        spoiler.close()


def main() -> int:
    proof = Proof("tests.proofs.mutations", __doc__, title="Fuzzed answers")
    proof.parser.add_argument("--responses", type=int, default=10_000)
    proof.parser.add_argument("--seed", type=int, default=1)
    options = proof.options()
    began, count, syncs = time.monotonic(), 0, 0
    wrong: list[str] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        serving("--deals", "2000", "--persons", "50", "--seed", "3") as remote,
    ):
        while count < options.responses:
            # A stream ends when its answer is not a page three times: most syncs should continue.
            more, problems = one_sync(remote, Path(folder) / str(syncs), options.seed + syncs, WHOLE)
            count, syncs, wrong = count + more, syncs + 1, wrong + problems
    print(f"{count:,} mutated answers in {syncs} syncs, {time.monotonic() - began:.0f} s: {len(wrong)} wrong")
    print("\n".join(wrong[:20]))
    counts = {"fuzzed answers": count, "syncs": syncs, **CHECKED, "wrong": len(wrong)}
    return proof.end(passed=not wrong, seeds=[options.seed], counts=counts)


if __name__ == "__main__":
    sys.exit(main())
