"""Exports are complete or absent, can be read by other programs, and show nothing that a mask hides."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from tests.support.world import Project, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.world import Remote


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "60", "--seed", "15") as remote:
        remote.advance(3600)
        yield remote


@pytest.fixture(scope="module")
def grown(remote: Remote, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("grown") / "project", remote)
    assert project.here("sync", "persons", "activities", "stages").code == 0
    return project


@pytest.fixture
def project(grown: Project, remote: Remote, tmp_path: Path) -> Project:
    copy = Project(tmp_path / "project", remote)
    shutil.copytree(grown.folder, copy.folder, dirs_exist_ok=True)
    return copy


def catalog(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "catalog.json").read_text())
    return found


def ask(query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(duckdb.connect()) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(query).fetchall()


def test_a_snapshot_has_every_row_and_the_catalogue_lists_complete_files(project: Project) -> None:
    out = project.data / "export"
    ran = project.here("export", "parquet", "--json")
    assert ran.code == 0, ran
    told = catalog(out)
    assert told["run"] == project.ask("SELECT run_id FROM meta.runs")[0][0]
    assert told["company"]["id"] == project.ask("SELECT company_id FROM meta.company")[0][0]
    assert {"persons", "person_emails", "activities", "stages"} <= set(told["tables"])
    for table, entry in told["tables"].items():
        path = out / entry["file"]["path"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["file"]["sha256"]
        assert project.ask(f'SELECT count(*) FROM main."{table}"') == [(entry["file"]["rows"],)]
        assert pq.read_schema(path).names == list(entry["columns"])
    mine = project.ask("SELECT id, name, emails, update_time FROM persons ORDER BY id")
    assert ask(f"SELECT id, name, emails, update_time FROM '{out}/persons/*/*.parquet' ORDER BY id") == mine
    parts = ask(f"SELECT DISTINCT snapshot FROM read_parquet('{out}/persons/*/*.parquet', hive_partitioning = true)")
    assert parts == [(told["tables"]["persons"]["snapshot"],)]

    again = project.here("export", "parquet", "stages", "--keep", "1", "--json")
    assert again.summary["removed"] == 1
    assert len(list((out / "stages").rglob("*.parquet"))) == 1
    assert catalog(out)["tables"]["persons"] == told["tables"]["persons"]
    assert not list(out.glob(".making-*"))


def test_what_runs_change_is_exported_once_and_applied_it_gives_the_table(project: Project, remote: Remote) -> None:
    out = project.folder / "lake"
    command = (
        "export",
        "parquet",
        "persons",
        "--changes",
        "--keep",
        "1",
        "--out",
        str(out),
        "--compact",
        "2",
        "--json",
    )
    for number in range(4):
        if number:
            remote.advance(1200)
            remote.change(0.2, seed=number, kinds=["persons"], only=["updated"])
            remote.advance(1200)
            assert project.here("sync", "persons").code == 0
        ran = project.here(*command)
        assert ran.code == 0, ran
        assert ran.summary["changes"]["persons"]["rows"] > 0
        nothing = project.here(*command)
        assert nothing.summary["changes"] == {}
        files = catalog(out)["changes"]["persons"]["files"]
        assert len(files) == (number % 2) + 1 if number < 2 else len(files) <= 2
        assert {str(path.relative_to(out)) for path in (out / "changes").rglob("*.parquet")} == {
            file["path"] for file in files
        }
        applied = ask(
            f"SELECT id, name, update_time FROM read_parquet('{out}/changes/persons/*/*.parquet', filename = true)"
            " QUALIFY row_number() OVER (PARTITION BY id ORDER BY _valid_from DESC) = 1 ORDER BY id"
        )
        assert applied == project.ask("SELECT id, name, update_time FROM persons ORDER BY id")
    assert project.ask("SELECT count(*) FROM history.persons") == ask(
        f"SELECT count(*) FROM '{out}/changes/persons/*/*.parquet'"
    )


def test_masked_columns_hide_values_and_can_still_be_joined(project: Project, tmp_path: Path) -> None:
    out = tmp_path / "lake"
    hidden = ("email=keep_domain", "persons.name=hash", "first_name=null", "last_name=null", "phone=null")
    masks = [word for mask in hidden for word in ("--mask", mask)]
    assert project.here("export", "parquet", *masks, "--out", str(out), "--changes").code == 0
    secrets = [
        value
        for (value,) in project.ask(
            "SELECT name FROM persons UNION SELECT value FROM person_emails UNION SELECT value FROM person_phones"
        )
        if value
    ]
    shown = {
        path: json.dumps(ask(f"SELECT to_json(t)::VARCHAR FROM '{path}' t"))
        for path in out.rglob("*.parquet")
        if "person" in str(path)
    }
    assert len(shown) >= 5
    assert [(path, value) for path, text in shown.items() for value in secrets if f'"{value}\\"' in text] == []
    ids = f"SELECT person_id, value FROM '{out}/person_emails/*/*.parquet' ORDER BY ALL"
    parents = f"SELECT id, e.value FROM '{out}/persons/*/*.parquet', unnest(emails) AS u(e) ORDER BY ALL"
    assert ask(ids) == ask(parents) != []
    domains = "SELECT DISTINCT split_part(value, '@', -1) FROM {} ORDER BY 1"
    assert ask(domains.format(f"'{out}/person_emails/*/*.parquet'")) == project.ask(domains.format("person_emails"))
    assert ask(f"SELECT count(DISTINCT name) FROM '{out}/persons/*/*.parquet'") == project.ask(
        "SELECT count(DISTINCT lower(name)) FROM persons"
    )
    assert (project.data / "export.key").stat().st_mode & 0o777 == 0o600
    # Nothing that was hidden is shown by the next one.
    refused = project.here("export", "parquet", "--out", str(out))
    assert refused.code == 2
    assert "--mask" in refused.err
    assert project.here("export", "parquet", "stages", *masks, "--out", str(out)).code == 0


def test_a_column_that_only_the_table_of_a_list_has_is_masked_in_the_list_too(project: Project, tmp_path: Path) -> None:
    out = tmp_path / "lake"
    shown = project.ask("SELECT DISTINCT label FROM person_emails WHERE label IS NOT NULL")
    assert shown
    ran = project.here(
        "export", "parquet", "persons", "--mask", "person_emails.label=hash", "--out", str(out), "--changes"
    )
    assert ran.code == 0
    labels = [
        f"SELECT label FROM '{out}/person_emails/*/*.parquet'",
        f"SELECT e.label FROM '{out}/persons/*/*.parquet', unnest(emails) AS u(e)",
        f"SELECT e.label FROM '{out}/changes/persons/*/*.parquet', unnest(emails) AS u(e)",
    ]
    for query in labels:
        assert not set(ask(query)) & set(shown)
    assert {label for (label,) in ask(labels[0])} == {label for (label,) in ask(labels[1])}


@pytest.mark.parametrize(
    "mask", ["emial=hash", "email=rot13", "email", "deals.email=hash", "person_emails.nothing=hash"]
)
def test_a_mask_that_hides_nothing_is_refused(project: Project, tmp_path: Path, mask: str) -> None:
    assert project.here("export", "parquet", "--mask", mask, "--out", str(tmp_path / "lake")).code == 2
    assert not list((tmp_path / "lake").rglob("*.parquet"))


def test_an_export_that_is_killed_leaves_the_one_before(project: Project) -> None:
    out = project.data / "export"
    assert project.here("export", "parquet").code == 0
    before = catalog(out)
    ran = project.run("export", "parquet", "--keep", "1", first="knobs.die('pdsync.load.export', 'describe', 4)")
    assert ran.code == -9
    assert catalog(out) == before
    for entry in before["tables"].values():
        assert hashlib.sha256((out / entry["file"]["path"]).read_bytes()).hexdigest() == entry["file"]["sha256"]
    assert project.here("export", "parquet", "--keep", "1").code == 0
    assert not list(out.glob(".making-*"))


def test_polars_reads_it(project: Project) -> None:
    polars = pytest.importorskip("polars")
    out = project.data / "export"
    assert project.here("export", "parquet").code == 0
    for table, entry in catalog(out)["tables"].items():
        assert polars.scan_parquet(f"{out}/{table}/**/*.parquet").collect().height == entry["file"]["rows"]


def test_no_file_holds_a_type_that_spark_refuses(project: Project) -> None:
    """Spark 4.3 read all tables of such an export; of the types that DuckDB writes it knows neither of these two."""
    out = project.data / "export"
    assert project.here("export", "parquet", "--changes", "--mask", "due_time=null").code == 0
    files = list(out.rglob("*.parquet"))
    assert {"activities", "persons"} <= {path.relative_to(out).parts[0] for path in files}
    for path in files:
        schema = pq.ParquetFile(path).schema
        kinds = {schema.column(at).logical_type.type for at in range(len(schema))}
        assert not kinds & {"TIME", "INTERVAL"}, path
    due = ask(f"SELECT id, duration FROM '{out}/activities/*/*.parquet' WHERE duration IS NOT NULL ORDER BY id")
    assert due == project.ask("SELECT id, duration::VARCHAR FROM activities WHERE duration IS NOT NULL ORDER BY id")


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[str]:
    """The address of a local S3 server with a bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        files = pyarrow.fs.S3FileSystem(
            access_key="a", secret_key="b", endpoint_override=f"127.0.0.1:{port}", scheme="http",
            allow_bucket_creation=True, region="us-east-1",
        )  # fmt: skip
        files.create_dir("lake")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_an_export_goes_to_an_object_store(project: Project, bucket: str) -> None:
    project.env |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    command = ("export", "parquet", "--out", "s3://lake/pipedrive", "--endpoint", bucket, "--keep", "1", "--changes")
    for _ in range(2):
        ran = project.run(*command, "--json")
        assert ran.code == 0, ran
    files = pyarrow.fs.S3FileSystem(
        access_key="a", secret_key="b", endpoint_override=bucket.removeprefix("http://"), scheme="http"
    )
    with files.open_input_stream("lake/pipedrive/catalog.json") as file:
        told = json.loads(file.read())
    held = files.get_file_info(pyarrow.fs.FileSelector("lake/pipedrive", recursive=True))
    found = {info.path.removeprefix("lake/pipedrive/") for info in held if info.is_file}
    named = {entry["file"]["path"] for entry in told["tables"].values()}
    named |= {file["path"] for entry in told["changes"].values() for file in entry["files"]}
    assert found == {*named, "catalog.json"}
    table = pq.read_table(f"lake/pipedrive/{told['tables']['persons']['file']['path']}", filesystem=files)
    assert project.ask("SELECT count(*) FROM persons") == [(table.num_rows,)]
    assert not list(project.data.glob(".export-*"))

    wrong = project.run("export", "parquet", "--out", "s3://no-such-bucket/x", "--endpoint", bucket)
    assert wrong.code == 1, wrong
    assert project.run("export", "parquet", "--out", "ftp://somewhere/x").code == 2


INTERRUPTED = """
import os, shutil, signal, sys
from pathlib import Path
from pdsync.load.export_target import open_store
def interrupted(reader, writer, length):
    writer.write(reader.read(int(sys.argv[4])))
    os.kill(os.getpid(), signal.SIGINT)
    writer.write(reader.read())
store = open_store("s3://lake/cut", sys.argv[1], state=Path(sys.argv[2]))
with store.scratch() as scratch:
    (scratch / "first").write_bytes(b"whole")
    store.put(scratch / "first", "data.parquet")
    shutil.copyfileobj = interrupted
    (scratch / "second").write_bytes(b"x" * 20_000_000)
    store.put(scratch / "second", sys.argv[3])
"""


@pytest.mark.parametrize("path", ["data.parquet", "new.parquet"])
@pytest.mark.parametrize("sent", [0, 3, 12_000_000])
def test_o2_an_upload_that_is_interrupted_publishes_nothing(bucket: str, tmp_path: Path, path: str, sent: int) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    command = [sys.executable, "-c", INTERRUPTED, bucket, str(tmp_path / "state"), path, str(sent)]
    done = subprocess.run(command, env={**os.environ, **keys}, capture_output=True, text=True, check=False)
    assert "KeyboardInterrupt" in done.stderr
    files = pyarrow.fs.S3FileSystem(
        access_key="a", secret_key="b", endpoint_override=bucket.removeprefix("http://"), scheme="http"
    )
    held = files.get_file_info(pyarrow.fs.FileSelector("lake/cut", recursive=True))
    assert [(info.base_name, info.size) for info in held] == [("data.parquet", 5)]


def test_x2_access_keys_in_an_address_are_not_repeated(project: Project, bucket: str) -> None:
    for place, code in (("lake/keyed", 0), ("no-such-bucket/x", 1)):
        for words in ((), ("--json",)):
            out = f"s3://me:C4N4RY-KEY@{place}"
            ran = project.run("export", "parquet", "persons", "--out", out, "--endpoint", bucket, *words)
            assert ran.code == code, ran
            assert "C4N4RY" not in ran.out + ran.err
            assert place in ran.out + ran.err
    ran = project.run("export", "parquet", "--out", "ftp://me:C4N4RY-KEY@somewhere/x?secret_key=C4N4RY-KEY")
    assert ran.code == 2
    assert "C4N4RY" not in ran.out + ran.err
