"""Parts of end-to-end tests: a sandbox in another process, a project folder, and the command line.

    with serving("--deals", "300") as remote:
        project = Project(folder, remote)
        ran = project.run("sync", "--json")
        ran.code, ran.out, ran.err, ran.summary
        remote.log(), remote.dump("deals"), remote.fault(kind="status", status=503, nth=2)

Expected values come from the sandbox's `/_admin`, from files and from control.db, never from pdsync.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sqlite3
import struct
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from urllib.parse import parse_qsl
from urllib.request import ProxyHandler, Request, build_opener

import duckdb

from pdsync.cli.main import main
from pdsync.core import catalogue
from pdsync.core.http import Http
from pdsync.sql import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
STREAMS = (
    "deal_fields", "organization_fields", "person_fields", "product_fields", "activities", "deals", "files",
    "mail_threads", "organizations", "persons", "pipelines", "products", "stages", "users",
)  # fmt: skip
_open = build_opener(ProxyHandler({})).open  # never through a proxy


def clean_environment() -> dict[str, str]:
    """The environment of this process without settings of pdsync; child processes import the same code."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PDSYNC_")}
    return {**inherited, "PYTHONPATH": str(ROOT)}


# The remote side.


class Remote:
    """A sandbox in another process: its address, its token, and its admin interface."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token

    def admin(self, method: str, path: str, body: object = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        with _open(Request(f"{self.url}/_admin/{path}", data, method=method), timeout=60) as response:
            answer: bytes = response.read()
            return answer

    def get(self, path: str) -> Any:
        return json.loads(self.admin("GET", path))

    def post(self, path: str, /, **body: object) -> Any:
        return json.loads(self.admin("POST", path, body))

    def lines(self, path: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.admin("GET", path).splitlines()]

    def dump(self, kind: str) -> list[dict[str, Any]]:
        """Every record that exists or existed, with its state; of leads and notes only those that exist."""
        return self.lines(f"dump?kind={kind}")

    def truth(self) -> dict[str, dict[Any, dict[str, Any]]]:
        """The dump of every stream, by key."""
        return {stream: {entry["id"]: entry for entry in self.dump(stream)} for stream in STREAMS}

    def log(self) -> list[dict[str, Any]]:
        """Every request that arrived, also those that were refused."""
        return self.lines("log")

    def clear_log(self) -> None:
        self.admin("DELETE", "log")

    def window(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.get("window")
        return answer

    def fault(self, **fault: object) -> None:
        self.post("faults", **fault)

    def struck(self) -> int:
        """How often the scripted faults applied."""
        return sum(fault["struck"] for fault in self.get("faults"))

    def clear_faults(self) -> None:
        self.admin("DELETE", "faults")

    def change(self, share: float = 0.01, **options: object) -> dict[str, dict[str, list[int]]]:
        ids: dict[str, dict[str, list[int]]] = self.post("change", share=share, **options)
        return ids

    def advance(self, seconds: float) -> None:
        self.post("clock", advance_s=seconds)


@contextlib.contextmanager
def serving(*options: str, limits: bool = False) -> Iterator[Remote]:
    """A sandbox in another process: `pdsync sandbox serve`, on a free port, without limits by default."""
    free = () if limits else ("--burst", "0", "--daily-tokens", "0")
    command = [sys.executable, "-m", "pdsync", "sandbox", "serve", "--json", "--port", "0", *free, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=clean_environment())
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline())
        yield Remote(ready["url"], ready["token"])
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


# The local side.


@dataclass(frozen=True)
class Ran:
    """The result of a command."""

    code: int
    out: str
    err: str

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        """The last line of `--json`."""
        return self.events[-1]

    @property
    def written(self) -> dict[str, int]:
        """Rows inserted, updated and deleted, by stream."""
        return {
            name: stream["inserted"] + stream["updated"] + stream["deleted"]
            for name, stream in self.summary["streams"].items()
        }

    def __str__(self) -> str:
        return f"exit {self.code}\n{self.out[-3000:]}\n{self.err[-3000:]}"


def run_here(arguments: Sequence[str], env: dict[str, str], stdin: str = "") -> Ran:
    """Run the main() of `pdsync …` inside this process, with this environment and this text on stdin.

    It waits only 10 ms before the first retry.
    """
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8", newline=""), io.StringIO()  # some results are bytes
    mask = os.umask(0o077)
    code = 0
    with (
        patch.dict(os.environ, env, clear=True),
        patch.object(sys, "argv", ["pdsync", *arguments]),
        patch.object(sys, "stdin", io.StringIO(stdin)),
        patch.dict(Http.__init__.__kwdefaults__, {"backoff_s": 0.01}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        finally:
            os.umask(mask)
    out.seek(0)
    return Ran(code, out.read(), err.getvalue())


class Project:
    """A project folder and the environment in which its commands run."""

    def __init__(self, folder: Path, remote: Remote | None = None, **settings: str | int) -> None:
        self.folder, self.data = folder, folder / "data"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pdsync.toml").touch()  # so that tests may put other files into its folder
        home = folder.with_name(f"{folder.name}-home")
        home.mkdir(exist_ok=True)
        self.env = {
            **clean_environment(),
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home),
            "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
            "PDSYNC_PROJECT": str(folder),
            "PDSYNC_BURST": "0",
            "PDSYNC_DAILY_TOKENS": "0",
        }
        if remote:
            self.env |= {"PDSYNC_BASE_URL": remote.url, "PDSYNC_API_TOKEN": remote.token}
        self.configure(**settings)

    def configure(self, **settings: str | int | None) -> Project:
        """Set PDSYNC_… variables by their names in lower case; None unsets one."""
        for name, value in settings.items():
            variable = f"PDSYNC_{name.upper()}"
            self.env.pop(variable, None)
            if value is not None:
                self.env[variable] = str(value)
        return self

    def start(self, *arguments: str, first: str = "") -> subprocess.Popen[str]:
        """Start `pdsync …` in a process; it executes `first` before (see `knobs`)."""
        program = ["-m", "pdsync"]
        if first:
            program = ["-c", f"from tests.support import knobs\n{first}\nfrom pdsync.cli.main import main\nmain()"]
        return subprocess.Popen(
            [sys.executable, *program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
            cwd=self.folder,
        )

    def run(self, *arguments: str, first: str = "") -> Ran:
        """Run `pdsync …` in a process to its end."""
        return wait_for(self.start(*arguments, first=first))

    def here(self, *arguments: str) -> Ran:
        """Run `pdsync …` inside this process, which saves starting Python."""
        return run_here(arguments, self.env)

    @contextlib.contextmanager
    def warehouse(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The published warehouse, opened without pdsync, as any reader would."""
        with duckdb.connect(str(self.data / "warehouse.duckdb"), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection

    def ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of a query to the published warehouse."""
        with self.warehouse() as connection:
            return connection.execute(query, values).fetchall()

    def control(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of a query to control.db."""
        with contextlib.closing(sqlite3.connect(self.data / "control.db", timeout=30)) as connection:
            return connection.execute(query, values).fetchall()

    def kept(self) -> dict[str, str]:
        """The hash of each file of the project except locks, and of control.db the company, runs, walks and pages."""
        files = {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not path.name.startswith(("control.db", "pdsync.lock", "push.lock"))
        }
        if (self.data / "control.db").exists():
            for table in ("company", "runs", "walks", "pages"):
                files[f"control.db {table}"] = repr(self.control(f"SELECT * FROM {table} ORDER BY 1"))
        return files

    def cut_short(self) -> bool:
        """Whether the newest run did not end with 0, so that the next one continues it."""
        if not (self.data / "control.db").exists():
            return False
        rows = self.control("SELECT receipt FROM runs ORDER BY started_at DESC, id DESC LIMIT 1")
        return bool(rows) and (rows[0][0] is None or json.loads(rows[0][0])["exit_code"] != 0)

    def sealed(self) -> set[tuple[str, str, str]]:
        """The sealed pages of the newest run, in the form of `page_of`."""
        rows = self.control(
            "SELECT w.operation, w.source, w.since, p.context, w.id, p.seq, p.file"
            " FROM pages p JOIN walks w ON w.id = p.walk WHERE w.state <> 'dropped'"
            " AND w.run_id = (SELECT id FROM runs ORDER BY started_at DESC, id DESC LIMIT 1)"
        )
        cursors = dict[tuple[int, int], str | None]()
        for file in {row[6] for row in rows}:
            cursors |= _cursors((self.data / "raw" / file).read_bytes())
        pages = set()
        for operation, source, since, context, walk, seq, _ in rows:
            cursor = cursors[walk, seq]
            if operation in PARENTS:
                parent = json.loads(context)[PARENTS[operation][0]].split(",")[0]
                position = json.loads(cursor or "{}")
                offset = position.get("at") if str(position.get("key")) == parent else None
                pages.add((operation, parent, offset or "0"))
            else:
                position = _position(cursor, since if operation in BY_CHANGE else None)
                pages.add((operation, source if operation in SOURCES else "", position))
        return pages


def _cursors(raw: bytes) -> dict[tuple[int, int], str | None]:
    """(walk, page) → what the page was asked for, from the headers of a raw file."""
    cursors, at = {}, 0
    while at + 8 < len(raw):
        (length,) = struct.unpack_from("<I", raw, at + 4)
        at += 8 + length
        try:
            facts = json.loads(raw[at - length : at])
        except ValueError:  # the rest was not written whole
            break
        cursors[facts["walk"], facts["seq"]] = facts["asked_for"]
        at += facts["bytes"]
    return cursors


def _position(cursor: str | None, since: str | None) -> str:
    """The cursor or offset; for a first page of changes or of a window, its order and limits."""
    if (cursor or "").startswith("["):
        direction, since, until, cursor = json.loads(cursor or "")
        return cursor or _first_page(direction, since, until)
    utc = f"{datetime.fromisoformat(since).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if since else None
    return cursor or (_first_page("asc", utc, None) if utc else "0")


def _first_page(*order_and_limits: str | None) -> str:
    return " ".join(filter(None, order_and_limits))


# Operations from which a stream reads several lists: mail by folder, goals by whether they are active.
SOURCES = {
    source.operation: {each.name: each.query for each in listed if each.operation == source.operation}
    for stream in catalogue.streams().values()
    for listed in (stream.v1, stream.v2)
    for source in listed
    if not source.parent and sum(each.operation == source.operation for each in listed) > 1
}
# Operations whose changes are listed in their order.
BY_CHANGE = {
    source.operation
    for stream in catalogue.streams().values()
    for source in stream.v2
    if source.way == "updated_since" and "sort_by" in catalogue.operations("v2")[source.operation].query
}
# Lists with a request for each record of another stream: the parameter with its id, and the path.
PARENTS = {
    source.operation: (source.parent.param, catalogue.operations(version)[source.operation].path)
    for stream in catalogue.streams().values()
    for version, listed in (("v1", stream.v1), ("v2", stream.v2))
    for source in listed
    if source.parent
}


def page_of(request: dict[str, Any]) -> tuple[str, str, str]:
    """The page of a logged request: operation, which of several lists or (first) parent, and cursor or offset."""
    query, operation = dict(parse_qsl(request["query"])), request["operation"]
    lists = SOURCES.get(operation, {})
    source = max(
        (name for name, own in lists.items() if own.items() <= query.items()), key=lambda n: len(lists[n]), default=""
    )
    if operation in PARENTS:
        param, path = PARENTS[operation]
        values = dict(zip(path.split("/"), request["path"].split("/"), strict=True)) | query
        source = values.get(f"{{{param}}}", values.get(param, "")).split(",")[0]
    position = query.get("cursor") or query.get("start") or "0"
    if position == "0" and query.get("sort_by", "id") != "id":
        position = _first_page(query["sort_direction"], query.get("updated_since"), query.get("updated_until"))
    return operation, source, position


def wait_for(process: subprocess.Popen[str], timeout_s: float = 600) -> Ran:
    """The result of a started process, after it has ended."""
    out, err = process.communicate(timeout=timeout_s)
    return Ran(process.returncode, out, err)


# Comparing two warehouses.

_OF_THE_RUN = "_synced_at, _verified_at, _run_id, _valid_from, _valid_to"


def fingerprint(project: Project) -> dict[str, str]:
    """Per table, history included, one hash of its rows as sorted NDJSON, without the columns about the run.

    The start of a version is included where it is the record's update_time; for other streams it is the time of the
    read, which differs between projects. Views and child tables are compared through their sources.
    """
    hashes = {}
    with project.warehouse() as connection:
        for (table,) in connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main' ORDER BY 1"
        ).fetchall():
            columns = {row[0] for row in connection.execute(f'DESCRIBE main."{table}"').fetchall()}
            own = "_valid_from IS NOT DISTINCT FROM update_time" if "update_time" in columns else "false"
            key = quoted(catalogue.stream(table).key)
            for schema, leave_out in (
                ("main", f"{_OF_THE_RUN.removesuffix(', _valid_to')}, _row_hash"),
                ("history", _OF_THE_RUN),
            ):
                rows = connection.execute(
                    f"SELECT to_json(o) FROM (SELECT * EXCLUDE ({leave_out}, _deleted_at),"
                    f" CASE WHEN {own} THEN _valid_from END AS _began, _deleted_at IS NULL AS _alive,"
                    f" row_number() OVER (PARTITION BY {key} ORDER BY _valid_from) AS _version"
                    f' FROM {schema}."{table}") o ORDER BY 1'
                ).fetchall()
                canonical = (json.dumps(json.loads(row[0]), sort_keys=True) for row in rows)
                digest = hashlib.sha256("\n".join(canonical).encode())
                hashes[f"{schema}.{table}"] = f"{len(rows)} rows {digest.hexdigest()[:16]}"
    return hashes


def differing_versions(one: Project, other: Project, table: str) -> list[str]:
    """For the first keys whose versions differ in number between two projects: what each version changed, in both."""
    key = catalogue.stream(table).key
    columns = "* EXCLUDE (_synced_at, _run_id)"
    histories: list[dict[Any, list[dict[str, Any]]]] = []
    for project in (one, other):
        versions: dict[Any, list[dict[str, Any]]] = {}
        query = f'SELECT to_json(t) FROM (SELECT {columns} FROM history."{table}" ORDER BY "{key}", _valid_from) t'
        for (row,) in project.ask(query):
            record = json.loads(row)
            versions.setdefault(record[key], []).append(record)
        histories.append(versions)
    problems = []
    for id in histories[0].keys() | histories[1].keys():
        lists = [versions.get(id, []) for versions in histories]
        if len(lists[0]) != len(lists[1]):
            for name, records in zip(("calm", "shaken"), lists, strict=True):
                steps = [{c: v for c, v in now.items() if v != was.get(c)} for was, now in pairwise(records)]
                first = {c: records[0][c] for c in ("_valid_from", "_verified_at")} if records else {}
                problems.append(f"{table} {id} {name}: {first}, then {steps}")
    return problems[:6]


def broken_history(project: Project) -> list[str]:
    """Keys whose versions overlap, have a gap, or are not open exactly once (S12), and keys with several rows.

    At most five of each sort and table.
    """
    problems = []
    with project.warehouse() as connection:
        tables = connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'").fetchall()
        for (table,) in tables:
            key = quoted(catalogue.stream(table).key)
            rows = connection.execute(
                f"SELECT {key}, _valid_from, _valid_to,"
                f" lead(_valid_from) OVER (PARTITION BY {key} ORDER BY _valid_from) AS next"
                f' FROM history."{table}" QUALIFY _valid_to IS DISTINCT FROM next LIMIT 5'
            ).fetchall()
            problems += [f"{table} {row}" for row in rows]
            doubled = connection.execute(
                f'SELECT {key}, count(*) FROM main."{table}" GROUP BY 1 HAVING count(*) > 1 LIMIT 5'
            ).fetchall()
            problems += [f"{table} {row} doubled" for row in doubled]
    return problems
