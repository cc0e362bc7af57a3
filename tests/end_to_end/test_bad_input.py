"""Mistakes of people and machines give a message with the next step, the right exit code, and no partial write."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import zstandard

from tests.support.truth import differences
from tests.support.world import STREAMS, Project, Remote, fingerprint, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LISTS = ("products", "stages")


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "120", "--seed", "2") as remote:
        yield remote


@pytest.fixture
def ready(remote: Remote, project: Project) -> Iterator[Project]:
    remote.clear_log()
    yield project.configure(base_url=remote.url, api_token=remote.token)
    remote.clear_faults()


def test_o7_without_a_token_nothing_is_called(remote: Remote, ready: Project) -> None:
    ran = ready.configure(api_token=None).run("sync", "--json")
    assert ran.code == 2, ran
    assert "pdsync auth login" in ran.err
    assert "PDSYNC_API_TOKEN" in ran.err
    assert ran.summary["event"] == "error"
    assert ran.summary["exit_code"] == 2
    assert remote.log() == []
    assert not (ready.data / "warehouse.duckdb").exists()
    assert not (ready.data / "raw").exists()


def test_o7_a_wrong_token_is_reported_and_nothing_is_written(remote: Remote, ready: Project) -> None:
    ran = ready.configure(api_token="0123456789abcdef0123456789abcdef").run("sync", "--json")
    assert ran.code == 2, ran
    assert "pdsync auth login" in ran.err
    assert "0123456789abcdef" not in ran.out + ran.err
    assert len(remote.log()) == 1
    assert not list(ready.data.glob("warehouse*"))


def test_o7_without_a_network_the_unreachable_host_is_named(ready: Project) -> None:
    ran = ready.configure(base_url="http://127.0.0.1:9").run("sync", "--json", first="knobs.hurry()")
    assert ran.code == 1, ran
    assert "127.0.0.1:9" in ran.err
    assert "run the same command again" in ran.err
    assert "Traceback" not in ran.err
    assert not list(ready.data.glob("warehouse*"))


@pytest.mark.proof
def test_a_company_without_records_ends_in_empty_tables(project: Project) -> None:
    with serving("--deals", "0") as remote:
        project.configure(base_url=remote.url, api_token=remote.token)
        ran = project.here("sync", "--json")
        assert ran.code == 0, ran
        assert ran.summary["streams"]["deals"]["read"] == 0
        with project.warehouse() as warehouse:
            for stream in STREAMS:
                assert differences(warehouse, stream, remote.dump(stream)) == []
        assert project.ask("SELECT count(*) FROM labeled.deals") == [(0,)]
        assert set(project.here("sync", "--json").written.values()) == {0}


def test_o2_a_full_disk_is_named_and_the_same_command_continues(ready: Project) -> None:
    assert ready.run("sync", "stages").code == 0
    before = fingerprint(ready)
    for size in (8 * 2**10, 200 * 2**10, 3 * 2**20):  # the archive, the work file, the warehouse can't grow
        ran = ready.run("sync", *LISTS, "--json", first=f"knobs.largest_file({size})")
        assert ran.code in (1, 3), ran
        assert "space" in ran.err + ran.out
        assert "bug in pdsync" not in ran.err
        assert fingerprint(ready) == before
    assert ready.run("sync", *LISTS).code == 0
    assert {"main.products", "main.stages"} <= fingerprint(ready).keys()


def test_s12_o2_a_full_disk_never_replaces_a_good_warehouse_by_an_empty_one(ready: Project) -> None:
    assert ready.run("sync", "stages").code == 0
    before = fingerprint(ready)
    for path in (ready.data / "warehouse.work.duckdb", *(ready.data / "raw").glob("*.zst")):
        path.unlink()
    size = (ready.data / "warehouse.duckdb").stat().st_size
    ran = ready.run("sync", "pipelines", first=f"knobs.largest_file({size - 1})")
    assert ran.code == 1, ran
    assert "warehouse.duckdb can't be copied" in ran.err
    assert "Free some space" in ran.err
    assert fingerprint(ready) == before
    assert ready.run("sync", "pipelines").code == 0
    assert fingerprint(ready).items() >= before.items()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False, capture_output=True)
    if made.returncode:
        pytest.skip("a small disk needs the right to mount one")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_o2_a_small_disk_that_fills_up_loses_nothing(remote: Remote, small_disk: Path) -> None:
    project = Project(small_disk / "project", remote)
    ran = project.run("sync", *LISTS, "--json")
    assert ran.code in (1, 3), ran
    assert "space" in ran.err + ran.out
    assert "bug in pdsync" not in ran.err
    subprocess.run(["mount", "-o", "remount,size=80m", small_disk], check=True)
    again = project.run("sync", *LISTS, "--json")
    assert again.code == 0, again
    with project.warehouse() as warehouse:
        assert differences(warehouse, "products", remote.dump("products")) == []


def test_o3_a_folder_that_can_not_be_written_is_named(remote: Remote, ready: Project) -> None:
    ready.data.write_text("a file stands where the folder belongs")
    ran = ready.run("sync", "--json")
    assert ran.code in (1, 2), ran
    assert str(ready.data) in ran.err
    assert "bug in pdsync" not in ran.err
    assert remote.log() == []
    assert ready.data.read_text() == "a file stands where the folder belongs"


def test_o3_a_read_only_disk_changes_nothing(remote: Remote, small_disk: Path) -> None:
    project = Project(small_disk / "project", remote)
    subprocess.run(["mount", "-o", "remount,size=80m", small_disk], check=True)
    assert project.run("sync", "stages").code == 0
    before = project.kept()
    remote.clear_log()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    ran = project.run("sync", "--json")
    assert ran.code in (1, 2), ran
    assert "bug in pdsync" not in ran.err
    assert remote.log() == []
    checked = project.run("doctor", "--json")
    assert checked.code == 1, checked
    assert {each["name"] for each in checked.events if not each["ok"]} <= {"folder", "disk"}
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert project.kept() == before
    assert project.run("sync", "stages").code == 0


def test_o1_a_second_run_leaves_without_touching_anything(remote: Remote, ready: Project) -> None:
    assert ready.run("sync", "stages").code == 0
    before = ready.kept()
    remote.clear_log()
    with contextlib.closing((ready.data / "pdsync.lock").open("r+")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = ready.run("sync", "--json")
    assert ran.code == 3, ran
    assert "Another run holds this project" in ran.err
    assert remote.log() == []
    assert ready.kept() == before


def test_o1_a_warehouse_that_another_program_has_open_is_named(ready: Project) -> None:
    """A reader of the published file blocks nothing; a program that has the work file open does."""
    assert ready.run("sync", "stages").code == 0
    with ready.warehouse() as reader:
        assert ready.run("sync", "stages").code == 0
        assert reader.execute("SELECT count(*) FROM main.stages").fetchone() != (0,)
    work = ready.data / "warehouse.work.duckdb"
    code = f"import duckdb, sys; c = duckdb.connect({str(work)!r}); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        ran = ready.run("sync", "stages")
        holder.communicate("")
    assert ran.code == 1, ran
    assert "locked by another program" in ran.err
    assert ready.run("sync", "stages").code == 0


def test_o7_an_unknown_stream_is_refused_with_a_guess(remote: Remote, ready: Project) -> None:
    ran = ready.run("sync", "dealz", "--json")
    assert ran.code == 2, ran
    assert "'deals'" in ran.err
    assert remote.log() == []
    assert not ready.data.exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[limits\nburst = 3", "not valid TOML"),
        ("[limits]\nburts = 3", "limits.burst"),
        ('[limits]\nburst = "many"', "limits.burst"),
        ('[account]\napi_token = "secret-secret"', "pdsync auth login"),
        ('[account]\nbase_url = "https://evil.example"', "not Pipedrive"),
    ],
)
def test_o7_a_broken_pdsync_toml_is_reported_with_its_position(
    remote: Remote, ready: Project, content: str, told: str
) -> None:
    (ready.folder / "pdsync.toml").write_text(content)
    ran = ready.configure(burst=None, base_url=None).here("sync", "--json")
    assert ran.code == 2, ran
    assert told in ran.err
    assert "pdsync.toml" in ran.err
    assert "secret-secret" not in ran.out + ran.err
    assert remote.log() == []
    assert not ready.data.exists()


def test_x1_a_token_of_another_company_changes_no_byte(remote: Remote, ready: Project) -> None:
    assert ready.run("sync", "stages").code == 0
    before = ready.kept()
    with serving("--deals", "5", "--company-id", "6001") as other:
        ready.configure(base_url=other.url, api_token=other.token)
        commands: tuple[tuple[str, ...], ...] = (("sync", "--json"), ("sync", "--full", "deals", "--json"))
        for command in commands:
            ran = ready.run(*command)
            assert ran.code == 2, ran
            assert "6001" in ran.err
            assert "5550" in ran.err
        assert {request["operation"] for request in other.log()} == {"getCurrentUser"}
        assert ready.kept() == before
        # A lost control.db is no way in: the warehouse knows its company too.
        for path in ready.data.glob("control.db*"):
            path.unlink()
        assert ready.run("sync").code == 2
    ready.configure(base_url=remote.url, api_token=remote.token)
    assert ready.run("sync", "stages").code == 0


@pytest.mark.proof
def test_x2_the_token_is_nowhere_but_in_the_header(remote: Remote, ready: Project) -> None:
    said = []
    commands: list[tuple[str, ...]] = [("sync", "--full", "deals", "-vv", "--json"), ("api", "getDeals", "-vv")]
    for kind in ("headers", "401", "redirect"):
        remote.fault(kind=kind, path="deals", to=remote.url)
        for command in commands:
            ran = ready.run(*command, first="knobs.hurry()")
            said.append(ran.out + ran.err)
        remote.clear_faults()
    commands = [("status",), ("runs", "--json"), ("doctor", "-vv"), ("auth", "status", "-vv")]
    for command in commands:
        ran = ready.run(*command)
        said.append(ran.out + ran.err)
    assert remote.log()[0]["token"] == "admin"  # it was sent
    secret = remote.token.removeprefix("sandbox-")
    for text in said:
        assert secret not in text
        assert secret[: len(secret) // 2] not in text
    contents = 0
    for path in ready.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert secret.encode() not in content, path
            if path.suffix == ".zst":
                with zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True) as plain:
                    bodies = plain.read()
                assert b'"success":true' in bodies.replace(b" ", b"")
                assert secret.encode() not in bodies
                contents += 1
    assert contents > 0
    with ready.warehouse() as warehouse:
        tables = warehouse.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE schema_name IN ('main', 'meta', 'versions')"
        ).fetchall()
        for schema, table in tables:
            rows = warehouse.execute(
                f'SELECT count(*) FROM {schema}."{table}" t WHERE contains(t::VARCHAR, ?)', [secret]
            ).fetchall()
            assert rows == [(0,)], table
