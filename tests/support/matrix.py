"""Kills every command at every named place and at random times, kills the command that resumes it too, and compares the
end with that of an undisturbed command.

    with scenes(folder, forks) as scene:
        case = scene.case("reconcile")     # a project with work for it, and the result of an undisturbed run
        trial = case.trial(folder, forks, [First, second])
        trial.wrong                        # [] is right

After each kill, control.db must be sound, the published warehouse must be the one before the command or the one
after it, and an export must have all files that its catalogue names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow.parquet as pq

from pdsync.load.fingerprint import canonical
from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support import places
from tests.support.drift import Drift
from tests.support.kills import SMALL
from tests.support.world import Project, broken_history

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox
    from tests.support.forks import Forks
    from tests.support.places import Place
    from tests.support.world import Ran

STREAMS = ("deals", "persons")
CALM = SMALL.format(rows=20)
_SYNC = ("sync", *STREAMS)
_REPAIR = ("reconcile", "--repair", "--deep", "--max-tombstones", "1000")
_EXPORT = ("export", "parquet", "--changes", "--keep", "1", "--compact", "2")
# Command → its arguments, and where it is killed.
COMMANDS: dict[str, tuple[tuple[str, ...], list[Place]]] = {
    "publish": (_SYNC, places.PUBLISHING),
    "sync": (_SYNC, places.SYNC),
    "load": (("load", "saved.ndjson", "--stream", "deals"), places.LOAD),
    "reconcile": (_REPAIR, places.RECONCILE),
    "replay": (("replay",), places.REPLAY),
    "export": (_EXPORT, places.EXPORT),
    "backfill": (("backfill", "deals", "persons", "--since", "2000-01-01"), places.BACKFILL),
}


@dataclass
class Trial:
    """A command that was killed, and the result."""

    wrong: list[str] = field(default_factory=list)
    kills: int = 0
    missed: int = 0  # kills that came too late: the command had ended


@dataclass
class Case:
    """A command, a project with work for it, and the result of an undisturbed run."""

    name: str
    project: Project
    arguments: tuple[str, ...]
    places: list[Place]
    since: datetime | None  # the command writes no time before this; None: it writes no times
    boundaries: list[dict[str, str]] = field(
        default_factory=list
    )  # the states that readers may see: before, between, at the end
    exported: dict[str, str] = field(default_factory=dict)
    calls: dict[Place, int] = field(default_factory=dict)
    spoilt: set[str] = field(default_factory=set)  # histories that the drift has broken
    takes_s: float = 0.0

    def settle(self, folder: Path, forks: Forks) -> None:
        """Run the command undisturbed, and count how often it passes each place."""
        self.boundaries, self.spoilt = [tables(self.project, self.since)], set(_broken(self.project))
        if self.name == "backfill":  # it reads the definitions first, in a separate run
            between = self.copy(folder / "between")
            forks.run(between, *self.arguments, first=f"{CALM}\nknobs.die('pdsync.runner.sync.backfill', '_begin')")
            self.spoilt |= set(_broken(between))
            self.boundaries.append(tables(between, self.since))
        calm, file = self.copy(folder / "calm"), folder / "counted"
        names = list(dict.fromkeys((place.module, place.name) for place in self.places))
        file.touch()
        began = time.monotonic()
        ran = forks.run(calm, *self.arguments, first=f"{CALM}\nknobs.count({str(file)!r}, {names!r})")
        self.takes_s = time.monotonic() - began
        assert ran.code == 0, ran
        self.boundaries.append(tables(calm, self.since))
        self.exported = exports(calm)
        self.spoilt |= set(_broken(calm))
        if wrong := self.wrong_at_the_end(calm, ran):
            raise AssertionError(wrong)
        times = Counter(file.read_text(encoding="ascii").split())
        self.calls = {place: times[str(names.index((place.module, place.name)))] for place in self.places}
        shutil.rmtree(calm.folder)

    def named(self) -> list[tuple[Place, int]]:
        """Every place with the first, second, middle and last time it is passed."""
        return [(place, nth) for place in dict.fromkeys(self.places) for nth in places.hits(self.calls[place])]

    def trial(self, folder: Path, forks: Forks, deaths: Sequence[str | float]) -> Trial:
        """Kill the command, kill what resumes it, and let it end.

        Args:
            folder: for the copy of the project.
            forks: where it runs.
            deaths: for each attempt the call of `knobs` that kills it, or seconds after its start.
        """
        project, problems = self.copy(folder), Trial()
        for death in deaths:
            ran = (
                forks.run(project, *self.arguments, first=f"{CALM}\n{death}")
                if isinstance(death, str)
                else forks.run(project, *self.arguments, first=CALM, kill_after=death)
            )
            problems.kills += ran.code == -signal.SIGKILL
            if ran.code != -signal.SIGKILL:
                problems.missed += 1
                if ran.code:
                    problems.wrong.append(f"it could not be resumed: {ran}")
            problems.wrong += self.unsound(project)
        problems.wrong += self.wrong_at_the_end(project, forks.run(project, *self.arguments, first=CALM))
        shutil.rmtree(project.folder)
        return problems

    def copy(self, folder: Path) -> Project:
        project = Project(folder / "project")
        shutil.copytree(self.project.folder, project.folder, dirs_exist_ok=True)
        home = {name: value for name, value in project.env.items() if "HOME" in name or name == "PDSYNC_PROJECT"}
        project.env = {**self.project.env, **home}
        return project

    def unsound(self, project: Project) -> list[str]:
        """What is inconsistent for a reader after a kill at any time."""
        problems = [str(row) for row in project.control("PRAGMA integrity_check") if row != ("ok",)]
        if not same_file(project.data / "warehouse.duckdb", self.project.data / "warehouse.duckdb"):
            published = tables(project, self.since)
            if published not in self.boundaries:
                differing = min((differing_entries(published, state) for state in self.boundaries), key=len)
                problems.append(f"readers see neither the state before nor the one after: {differing}")
            problems += self._broken_now(project)
        return problems + torn_exports(project)

    def wrong_at_the_end(self, project: Project, ran: Ran) -> list[str]:
        """How the result differs from that of an undisturbed run."""
        problems = [f"it ended with {ran}"] if ran.code else []
        end = tables(project, self.since)
        if end != self.boundaries[-1]:
            problems.append(f"other tables: {differing_entries(end, self.boundaries[-1])}")
        problems += [str(row) for row in project.control("PRAGMA integrity_check") if row != ("ok",)]
        problems += (
            self._broken_now(project) + torn_exports(project) + leftover_files(project) + duplicate_entries(project)
        )
        if exports(project) != self.exported:
            problems.append(f"other exports: {differing_entries(exports(project), self.exported)}")
        return problems

    def _broken_now(self, project: Project) -> list[str]:
        return [line for line in _broken(project) if line not in self.spoilt]


class Scenes:
    """A company that has drifted from its warehouse, and projects on which each command has work."""

    def __init__(self, folder: Path, box: RunningSandbox, forks: Forks, seed: int) -> None:
        self.folder, self.box, self.forks = folder, box, forks
        self.project = Project(folder / "drifted")
        self.project.configure(base_url=box.url, api_token=box.token)
        self._run(self.project, *_SYNC)
        self._run(self.project, *_EXPORT)
        box.clock.advance(3600)
        box.change(0.2, seed=seed, kinds=list(STREAMS), only=["updated", "archived"])
        box.clock.advance(3600)
        self._run(self.project, *_SYNC)
        self._run(self.project, *_EXPORT)
        box.clock.advance(3600)
        box.change(0.1, seed=seed + 1, kinds=list(STREAMS), only=["updated", "added"])
        Drift(self.project, box, 1, seed, STREAMS).make()
        ahead = (datetime.now(UTC) - box.clock.now()).total_seconds()
        assert ahead > 0  # no change may be in the future of the request's time range
        box.clock.advance(ahead)
        self._save_answers()

    def case(self, name: str) -> Case:
        """The command `name`, ready to be killed."""
        arguments, kill_places = COMMANDS[name]
        project = Project(self.folder / name / "prepared")
        shutil.copytree(self.project.folder, project.folder, dirs_exist_ok=True)
        project.configure(base_url=self.box.url, api_token=self.box.token)
        if name == "publish":  # all steps before it are done
            ran = self.forks.run(project, *arguments, first=f"{CALM}\nknobs.die('pdsync.load.publish', 'publish')")
            assert ran.code == -signal.SIGKILL, ran
        if name in ("replay", "export"):
            self._run(project, *_REPAIR)
            self._run(project, *_SYNC)
        if name == "replay":  # differences made in the work file are in no page, and a replay removes them
            self._run(project, "replay")
        since = None if name in ("replay", "export") else datetime.now(UTC) - timedelta(seconds=1)
        if name == "publish":
            began = datetime.fromisoformat(project.control("SELECT max(started_at) FROM runs")[0][0])
            since = began.replace(microsecond=0)  # the server's times are whole seconds
        case = Case(name, project, arguments, kill_places, since)
        case.settle(self.folder / name, self.forks)
        return case

    def _run(self, project: Project, *arguments: str) -> None:
        ran = self.forks.run(project, *arguments, first=CALM)
        assert ran.code == 0, ran

    def _save_answers(self) -> None:
        """Write a file of three saved answers with unknown deals, dated before the last sync."""
        file = self.project.folder / "saved.ndjson"
        moment = "2020-01-01T00:00:00Z"
        answers = [
            {"data": [{"id": 990_000 + 10 * part + n, "title": f"saved {n}", "update_time": moment,
                       "custom_fields": {}} for n in range(10)]} for part in range(3)
        ]  # fmt: skip
        file.write_text("\n".join(json.dumps(answer) for answer in answers), encoding="utf-8")
        os.utime(file, (1_600_000_000, 1_600_000_000))


@contextlib.contextmanager
def scenes(folder: Path, forks: Forks, *, deals: int = 40, seed: int = 1) -> Iterator[Scenes]:
    """A sandbox in this process, and projects for all commands."""
    sizes = Sizes(deals=deals, persons=deals, organizations=10, products=5, activities=deals, files=1)
    company = generate_company(seed=seed, sizes=sizes, now=datetime.now(UTC) - timedelta(hours=12))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        yield Scenes(folder, box, forks, seed)


# Facts about a project.


def tables(project: Project, since: datetime | None) -> dict[str, str]:
    """The canonical form of the published warehouse, with one date for all times that the command wrote."""
    copy = project.data / "seen.duckdb"
    shutil.copyfile(project.data / "warehouse.duckdb", copy)
    try:
        with duckdb.connect(str(copy)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            if since:
                for schema, table, column in connection.execute(
                    "SELECT schema_name, table_name, column_name FROM duckdb_columns() WHERE NOT internal AND"
                    " (schema_name IN ('main', 'versions')"
                    " AND column_name IN ('_valid_from', '_valid_to', '_deleted_at')"
                    " OR table_name = 'checkpoints' AND column_name IN ('watermark', 'full_at'))"
                    " AND (schema_name, table_name) IN (SELECT (schema_name, table_name) FROM duckdb_tables())"
                ).fetchall():
                    connection.execute(
                        f'UPDATE {schema}."{table}" SET "{column}" = ? WHERE "{column}" >= ?', [since, since]
                    )
            connection.execute("UPDATE meta.checkpoints SET walk = 0")
            return {name: f"{digest.rows} rows {digest.sha256}" for name, digest in canonical(connection).items()}
    finally:
        copy.unlink()


def _broken(project: Project) -> list[str]:
    """The keys with an invalid history, or with more than one row."""
    return [f"{line.split(',')[0]}: broken history" for line in broken_history(project)]


def differing_entries(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """The names under which two digests differ, with how many rows each has."""
    return [
        f"{name}: {one.get(name, 'none')[:14]} and {other.get(name, 'none')[:14]}"
        for name in sorted(one | other)
        if one.get(name) != other.get(name)
    ]


def same_file(one: Path, other: Path) -> bool:
    return sha256(one) == sha256(other)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _catalog(project: Project) -> dict[str, Any]:
    path = project.data / "export" / "catalog.json"
    content: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {"tables": {}, "changes": {}}
    return content


def _files_of(catalog: dict[str, Any]) -> list[dict[str, Any]]:
    """The files that a catalogue names."""
    files = [file for table in catalog["tables"].values() for file in (table["file"], *table["older"])]
    return files + [file for entry in catalog["changes"].values() for file in entry["files"]]


def torn_exports(project: Project) -> list[str]:
    """Files that differ from the entry in the catalogue, and files with final names that are incomplete."""
    root = project.data / "export"
    problems = []
    for file in _files_of(_catalog(project)):
        path = root / file["path"]
        if not path.exists() or sha256(path) != file["sha256"]:
            problems.append(f"{file['path']} is not what the catalogue says")
    for path in root.rglob("*.parquet"):
        if not path.relative_to(root).parts[0].startswith(".making-"):
            try:
                pq.read_metadata(path)
            except (OSError, ValueError) as error:
                problems.append(f"{path} is torn: {error}")
    return problems


def exports(project: Project) -> dict[str, str]:
    """By table, and by table of changes, the digest of the rows of an export."""
    root, catalog = project.data / "export", _catalog(project)
    digests = {}
    files_by_name = {name: [entry["file"]] for name, entry in catalog["tables"].items()}
    files_by_name |= {f"changes of {name}": entry["files"] for name, entry in catalog["changes"].items()}
    query = "SELECT to_json(t)::VARCHAR FROM read_parquet(?, hive_partitioning = false) t"
    with duckdb.connect() as connection:
        for name, files in files_by_name.items():
            lists = [connection.execute(query, [str(root / file["path"])]).fetchall() for file in files]
            rows = sorted(str(row) for each in lists for row in each)
            digests[name] = f"{len(rows)} rows {hashlib.sha256(''.join(rows).encode()).hexdigest()}"
    return digests


def leftover_files(project: Project) -> list[str]:
    """Files that should be gone after a command has ended."""
    root = project.data / "export"
    named = {root / file["path"] for file in _files_of(_catalog(project))}
    leftovers = [
        path for path in root.rglob("*") if path.is_file() and path not in named and path.name != "catalog.json"
    ]
    leftovers += [
        *project.data.glob(".warehouse*"),
        *project.data.glob("*.replay.duckdb*"),
        *project.data.glob("*.wal"),
    ]
    return [f"{path.relative_to(project.folder)} was left" for path in leftovers]


def duplicate_entries(project: Project) -> list[str]:
    """Receipts, sweeps and findings that are in the warehouse more than once."""
    keys = {"runs": "run_id", "streams": "run_id, stream", "sweeps": "run_id, stream",
            "findings": "run_id, stream, key"}  # fmt: skip
    return [
        f"meta.{table} {row}"
        for table, key in keys.items()
        for row in project.ask(f"SELECT {key}, count(*) FROM meta.{table} GROUP BY ALL HAVING count(*) > 1 LIMIT 3")
    ]
