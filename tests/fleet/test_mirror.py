"""An account's folder and the store: nothing is lost with a disk, and nothing is fetched or sent twice."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core.control import Control
from pdsync.errors import ConfigError, LeaseLost, LeaseTaken
from pdsync.extract import raw_archive
from pdsync.extract.raw_archive import Archive
from pdsync.fleet import contents, lease, pointer
from pdsync.fleet.mirror import Mirror, mirrored
from pdsync.fleet.store import open_store
from tests.extract.conftest import NOW
from tests.extract.kit import begin
from tests.extract.kit import page_of as page_of_walk
from tests.support import knobs
from tests.support.world import Project, clean_environment, page_of, serving

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.fleet.store import Store
    from tests.support.world import Remote

STREAMS = ("deals", "persons", "users", "stages", "pipelines")
NIGHT = ("sync", *STREAMS, "--json")


@pytest.fixture(autouse=True)
def exact_times(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder gives times exactly, so that no test waits a second for a lease to expire."""
    if "s3" not in request.node.name:
        monkeypatch.setattr(lease, "_RESOLUTION_S", 0.05)


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "60", "--seed", "6") as remote:
        remote.advance(3600)
        yield remote


@pytest.fixture(scope="module")
def synced(remote: Remote, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("mirror") / "project", remote)
    with knobs.smaller_pages(20):
        ran = project.here(*NIGHT)
    assert ran.code == 0, ran
    return project


@pytest.fixture
def project(synced: Project, remote: Remote, tmp_path: Path) -> Project:
    """A copy of a project after its first night."""
    shutil.copytree(synced.folder, tmp_path / "disk" / "acme")
    remote.clear_log()
    return Project(tmp_path / "disk" / "acme", remote)


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def open_mirror(
    store: Store, folder: Path, owner: str = "worker", **options: Any
) -> contextlib.AbstractContextManager[Mirror]:
    return mirrored(store, "acme", folder, owner=owner, **options)


def publish(store: Store, folder: Path) -> pointer.Pointer:
    """A run that does nothing."""
    with open_mirror(store, folder) as opened:
        pass
    return opened.pointer


def state(folder: Path) -> dict[str, str]:
    """The hash of each file that belongs in the store; of control.db, of its content."""
    hashes = {path: contents.digest(folder / path) for path in contents.find(folder) if path != contents.CONTROL}
    copy = folder / "copy.db"
    if contents.copy_control(folder, copy):
        hashes[contents.CONTROL] = contents.digest(copy)
        contents.remove_database(copy)
    return hashes


def in_store(store: Store) -> dict[str, str]:
    """The same of what the pointer names, read and checked."""
    current = pointer.read(store, "acme")
    assert current is not None
    hashes = {}
    for path, file in current[0].files.items():
        data = b"".join(b"".join(store.download(f"acme/{part.key}")) for part in file.parts)
        assert len(data) == file.bytes == sum(part.bytes for part in file.parts)
        hashes[path] = hashlib.sha256(data).hexdigest()
        assert hashes[path] == file.sha256
    return hashes


def pages(remote: Remote) -> Counter[tuple[str, str, str]]:
    """How often each page was requested since the log was cleared."""
    return Counter(page_of(entry) for entry in remote.log() if entry["method"] == "GET" and entry["status"] == 200)


def test_a_folder_comes_back_whole_on_another_machine(project: Project, store: Store, tmp_path: Path) -> None:
    before = state(project.folder)
    published = publish(store, project.folder)
    assert in_store(store) == before
    assert published.generation == 1
    with open_mirror(store, tmp_path / "other") as opened:
        assert state(tmp_path / "other") == before
    assert opened.pointer.generation == 1, "nothing has changed"


def test_nothing_is_transferred_where_nothing_has_changed(
    project: Project, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, project.folder)
    before = {entry.key: entry.modified for entry in store.list("acme")}

    def refuse(*_: object) -> None:
        raise AssertionError("nothing has changed")

    monkeypatch.setattr(store, "upload", refuse)
    monkeypatch.setattr(store, "download", refuse)
    monkeypatch.setattr(contents, "digest", refuse)  # nor is a file read
    with open_mirror(store, project.folder) as opened:
        monkeypatch.undo()
    assert opened.pointer.generation == 1
    after = {entry.key: entry.modified for entry in store.list("acme")}
    changed = {key for key in before | after if before.get(key) != after.get(key)}
    assert changed <= {"acme/lease.json", "acme/current.json"}


def test_only_what_has_changed_is_uploaded(project: Project, folder_store: Store) -> None:
    first = publish(folder_store, project.folder)
    (project.data / "raw" / "new.zst").write_bytes(b"more")
    second = publish(folder_store, project.folder)
    assert second.files == first.files | {"data/raw/new.zst": second.files["data/raw/new.zst"]}
    assert second.generation == 2


def test_x2_no_secret_of_the_folder_is_in_the_store(project: Project, folder_store: Store, tmp_path: Path) -> None:
    for name in ("credentials.json", "export.key", "pdsync.lock", "control.db.apart-1", "warehouse.work.duckdb"):
        (project.data / name).write_text("C4N4RY")
    (project.folder / ".env").write_text("C4N4RY")
    (project.data / "raw" / ".part.zst").write_text("C4N4RY")
    (project.folder / "views").mkdir()
    (project.folder / "views" / "own.sql").write_text("SELECT 1")
    (project.folder / "views" / "linked.sql").symlink_to(project.data / "credentials.json")
    with open_mirror(folder_store, project.folder) as opened:
        (project.folder / "pdsync.toml").write_text('[account]\napi_token = "C4N4RY"\n')
    assert "views/own.sql" in opened.pointer.files
    with pytest.raises(ConfigError, match=r"pdsync\.toml"):
        publish(folder_store, project.folder)
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file() and b"C4N4RY" in path.read_bytes()]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "store").rglob("*"))


# Cut anywhere.

CUTS = [
    ("pdsync.fleet.contents", "copy_control", 1, True),
    ("pdsync.fleet.store", "_Folder.upload", 1, False),
    ("pdsync.fleet.store", "_Folder.upload", 2, True),
    ("pdsync.fleet.pointer", "swap", 2, False),
    ("pdsync.fleet.pointer", "swap", 2, True),
    ("pdsync.fleet.store", "_Folder.remove", 1, True),
]


def in_child(work: Any) -> int:
    """Run `work` in a fork; its exit code, negative where it was killed."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(("module", "name", "nth", "after"), CUTS)
def test_s1_wherever_a_publication_is_cut_the_store_has_one_whole_state(
    project: Project, folder_store: Store, tmp_path: Path, module: str, name: str, nth: int, after: bool
) -> None:
    publish(folder_store, project.folder)
    before = in_store(folder_store)
    (project.data / "raw" / "new.zst").write_bytes(b"more")
    (project.data / "warehouse.duckdb").write_bytes((project.data / "warehouse.duckdb").read_bytes() + b"more")
    night = state(project.folder)

    def work() -> None:
        knobs.die(module, name, nth, after=after)
        with open_mirror(folder_store, project.folder):
            pass

    assert in_child(work) == -signal.SIGKILL
    folder_store.remove(["acme/lease.json"])  # as if it had expired
    assert in_store(folder_store) in (before, night)
    with open_mirror(folder_store, tmp_path / "other"):
        assert state(tmp_path / "other") in (before, night)
    publish(folder_store, project.folder)
    assert in_store(folder_store) == night
    current = pointer.read(folder_store, "acme")
    assert current is not None
    named = {f"acme/{part.key}" for file in current[0].files.values() for part in file.parts}
    left = {entry.key for entry in folder_store.list("acme")} - named
    assert {key.rpartition("/")[2] for key in left} <= {"lease.json", "current.json", "warehouse.duckdb"}


@pytest.mark.parametrize(
    ("module", "name", "nth"),
    [
        ("pdsync.fleet.contents", "write_whole", 1),
        ("pdsync.fleet.contents", "write_whole", 2),
        ("pdsync.fleet.contents", "remove_database", 1),
        ("pdsync.fleet.mirror", "write_record", 1),
    ],
)
def test_s1_wherever_a_restoration_is_cut_the_next_one_completes_it(
    project: Project, folder_store: Store, tmp_path: Path, module: str, name: str, nth: int
) -> None:
    publish(folder_store, project.folder)
    night = in_store(folder_store)

    def work() -> None:
        knobs.die(module, name, nth, after=True)
        with open_mirror(folder_store, tmp_path / "other"):
            pass

    assert in_child(work) == -signal.SIGKILL
    folder_store.remove(["acme/lease.json"])  # as if it had expired
    with open_mirror(folder_store, tmp_path / "other"):
        assert state(tmp_path / "other") == night
    assert not list(contents.leftovers(tmp_path / "other"))
    assert in_store(folder_store) == night


# Two workers.


def test_of_two_workers_one_runs_the_account(project: Project, folder_store: Store, tmp_path: Path) -> None:
    with open_mirror(folder_store, project.folder, ttl_s=6):
        with pytest.raises(LeaseTaken), open_mirror(folder_store, tmp_path / "other"):
            pass
        assert not (tmp_path / "other" / "data").exists()


def test_a_worker_that_was_overtaken_publishes_nothing(project: Project, store: Store, tmp_path: Path) -> None:
    """Even one that does not notice that its lease has expired."""
    slow = Mirror(store, "acme", project.folder, lease.acquire(store, "acme", owner="slow", ttl_s=0.1))
    with open_mirror(store, tmp_path / "other"):
        (tmp_path / "other" / "targets.csv").write_text("period\n")
        for attempt in (slow.checkpoint, slow.copy_journal, slow.publish):
            slow._lease.is_lost = False
            if attempt != slow.copy_journal:
                with pytest.raises(LeaseLost):
                    attempt()
    assert in_store(store) == {"targets.csv": hashlib.sha256(b"period\n").hexdigest()}
    left = {entry.key for entry in store.list("acme")}
    assert len(left) == 3, "what the slow one uploaded was removed"


OWNER = """
import sys, time
from pathlib import Path
from pdsync.errors import LeaseLost
from pdsync.fleet import lease, store
from pdsync.fleet.mirror import mirrored
try:
    with mirrored(store.open_store(sys.argv[1]), "acme", Path(sys.argv[2]), owner="frozen", ttl_s=3) as mirror:
        mirror.on_lost(lambda: print("lost", flush=True))
        (Path(sys.argv[2]) / "targets.csv").write_text("frozen")
        print("working", flush=True)
        sys.stdin.readline()
except LeaseLost:
    print("not published", flush=True)
"""


def test_a_worker_that_was_stopped_beyond_its_lease_ends_its_command_and_publishes_nothing(
    project: Project, folder_store: Store, tmp_path: Path
) -> None:
    frozen = subprocess.Popen(
        [sys.executable, "-c", OWNER, folder_store.where, str(project.folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment(),
    )  # fmt: skip
    assert frozen.stdout is not None
    try:
        assert frozen.stdout.readline() == "working\n"
        os.kill(frozen.pid, signal.SIGSTOP)
        with open_mirror(folder_store, tmp_path / "other"):
            (tmp_path / "other" / "targets.csv").write_text("second")
            os.kill(frozen.pid, signal.SIGCONT)
            assert frozen.stdout.readline() == "lost\n"
            out, _ = frozen.communicate("\n", timeout=30)
            assert out == "not published\n"
        assert in_store(folder_store)["targets.csv"] == hashlib.sha256(b"second").hexdigest()
    finally:
        frozen.kill()
        frozen.wait(20)


# While a command runs.


async def test_a_checkpoint_has_every_page_that_its_control_db_names(folder_store: Store, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    control = Control(here / "data" / "control.db")
    control.start_run("run", "sync", NOW)
    walk = begin(control)
    bodies = [os.urandom(200_000) for _ in range(6)]
    with open_mirror(folder_store, here) as opened:
        async with Archive(here / "data" / "raw", control, "run", 42) as archive:
            for seq, body in enumerate(bodies):
                await archive.seal(walk, page_of_walk(walk, seq, body))
                opened.checkpoint()
                (path,) = [path for path in opened.pointer.files if path.endswith(".zst")]
                parts = opened.pointer.files[path].parts
                assert all(part.bytes >= 256 * 1024 for part in parts[:-1])
                stored = {entry.key for entry in folder_store.list("acme")}
                assert {f"acme/{part.key}" for part in parts} <= stored
        assert len(parts) < len(bodies), "small parts are brought together"
        shutil.copytree(tmp_path / "store", tmp_path / "copy")
    control.close()
    copy = open_store(str(tmp_path / "copy"))
    copy.remove(["acme/lease.json"])
    with open_mirror(copy, there):
        restored = Control(there / "data" / "control.db")
        pages = restored.sealed_pages(walk.id)
        assert [raw_archive.read(there / "data" / "raw", page) for page in pages] == bodies
        restored.close()


def test_checkpoints_are_made_by_themselves(folder_store: Store, project: Project) -> None:
    with open_mirror(folder_store, project.folder, checkpoint_s=0.05) as opened:
        for _ in range(400):
            if contents.CONTROL in opened.pointer.files:
                break
            time.sleep(0.02)
        published = set(opened.pointer.files)
    assert contents.CONTROL in published
    assert pointer.WAREHOUSE not in published, "which only a command that has ended leaves whole"
