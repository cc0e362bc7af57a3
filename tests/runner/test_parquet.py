"""An export keeps a number of snapshots, goes on where the last one ended, and shows nothing that one has masked."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow.parquet as pq
import pytest

from pdsync.core import config
from pdsync.errors import CatalogueError, ConfigError, StorageError
from pdsync.load import publish, warehouse
from pdsync.load.column_masks import Mask
from pdsync.model import StreamReceipt
from pdsync.runner import project
from pdsync.runner.report.parquet import CATALOG, ExportRequest, export_parquet
from pdsync.runner.report.receipt import save_receipt
from tests.runner.kit import T0, deal, load, open_session

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.core.config import Settings


async def run(folder: Path, number: int, *, again: bool = False) -> Settings:
    """A run that loads deal `number` and is published; `again`: the same run, continued, loads another one."""
    async with open_session(folder, run=f"run-{number}") as session:
        at = T0 + timedelta(hours=number, minutes=30 * again)
        await load(session, "deals", deal(number + 100 * again, at), since=T0 if number else None, at=at)
        session.receipt.finished_at = session.receipt.started_at
        session.receipt.streams["deals"] = StreamReceipt(complete=True)
        session.loader.connection.execute(warehouse.history_view("deals"))
        await session.loader.do(save_receipt, session.loader, session.receipt)
    publish.publish(project.work_path(session.settings), session.settings.warehouse)
    return session.settings


def request(folder: Path, **options: Any) -> ExportRequest:
    return ExportRequest(str(folder / "out"), ("deals",), **options)


def catalog(folder: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((folder / "out" / CATALOG).read_text())
    return stored


def query(folder: Path, column: str, path: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(f"SELECT {column} FROM '{folder / 'out' / path}'").fetchall()


def ids(folder: Path, *paths: str) -> list[int]:
    return sorted(id for path in paths for (id,) in query(folder, "id", path))


@pytest.mark.parametrize(("keep", "snapshots"), [(0, 3), (1, 1), (2, 2)])
async def test_the_newest_snapshots_are_kept_and_the_others_removed(tmp_path: Path, keep: int, snapshots: int) -> None:
    settings = await run(tmp_path, 0)
    for _ in range(3):
        report = export_parquet(settings, request(tmp_path, keep=keep))
    table = catalog(tmp_path)["tables"]["deals"]
    named = [table["file"]["path"], *(file["path"] for file in table["older"])]
    assert len(named) == snapshots
    assert table["snapshot"] == report.snapshot
    assert {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.parquet")} == set(named)


async def test_changes_go_on_after_the_last_run_that_was_exported(tmp_path: Path) -> None:
    for number in range(3):
        settings = await run(tmp_path, number)
        report = export_parquet(settings, request(tmp_path, changes=True))
        assert report.run == f"run-{number}"
        assert ids(tmp_path, report.changed["deals"].path) == [number]
    assert export_parquet(settings, request(tmp_path, changes=True)).changed == {}
    changes = catalog(tmp_path)["changes"]["deals"]
    assert changes["until"] == "run-2"
    assert ids(tmp_path, *(file["path"] for file in changes["files"])) == [0, 1, 2]


async def test_s1_a_run_that_was_continued_after_an_export_is_exported_again(tmp_path: Path) -> None:
    settings = await run(tmp_path, 1)
    export_parquet(settings, request(tmp_path, changes=True))
    settings = await run(tmp_path, 1, again=True)
    report = export_parquet(settings, request(tmp_path, changes=True))
    assert ids(tmp_path, report.changed["deals"].path) == [1, 101]


async def test_s1_the_changes_of_a_continued_run_replace_no_earlier_file(tmp_path: Path) -> None:
    await run(tmp_path, 0)
    first = export_parquet(await run(tmp_path, 1), request(tmp_path, changes=True)).changed["deals"]
    second = export_parquet(await run(tmp_path, 1, again=True), request(tmp_path, changes=True)).changed["deals"]
    assert [ids(tmp_path, file.path) for file in (first, second)] == [[0, 1], [1, 101]]
    assert ids(tmp_path, "changes/deals/*/*.parquet") == [0, 1, 1, 101]
    merged = export_parquet(await run(tmp_path, 2), request(tmp_path, changes=True, most_files=2))
    assert merged.removed == 3
    [file] = catalog(tmp_path)["changes"]["deals"]["files"]
    assert ids(tmp_path, file["path"]) == [0, 1, 1, 2, 101]


async def test_s1_a_run_between_is_exported_though_the_last_one_was_continued_after_it(tmp_path: Path) -> None:
    settings = await run(tmp_path, 1)
    export_parquet(settings, request(tmp_path, changes=True))
    await run(tmp_path, 2)
    settings = await run(tmp_path, 1, again=True)
    report = export_parquet(settings, request(tmp_path, changes=True))
    assert ids(tmp_path, report.changed["deals"].path) == [1, 2, 101]


async def test_s1_the_changes_of_a_run_that_was_killed_are_exported(tmp_path: Path) -> None:
    export_parquet(await run(tmp_path, 0), request(tmp_path, changes=True))
    async with open_session(tmp_path, run="run-1") as session:  # and no receipt
        at = T0 + timedelta(hours=1)
        await load(session, "deals", deal(1, at), since=T0, at=at)
    report = export_parquet(await run(tmp_path, 2), request(tmp_path, changes=True))
    assert ids(tmp_path, report.changed["deals"].path) == [1, 2]


async def test_too_many_files_of_changes_become_one(tmp_path: Path) -> None:
    for number in range(3):
        settings = await run(tmp_path, number)
        export_parquet(settings, request(tmp_path, changes=True, most_files=2))
    files = catalog(tmp_path)["changes"]["deals"]["files"]
    assert [ids(tmp_path, file["path"]) for file in files] == [[0, 1, 2]]
    assert len(list((tmp_path / "out" / "changes").rglob("*.parquet"))) == 1


async def test_o4_a_file_that_was_changed_is_not_merged(tmp_path: Path) -> None:
    settings = await run(tmp_path, 0)
    export_parquet(settings, request(tmp_path, changes=True))
    path = tmp_path / "out" / catalog(tmp_path)["changes"]["deals"]["files"][0]["path"]
    path.write_bytes(b"other")
    before, settings = catalog(tmp_path), await run(tmp_path, 1)
    with pytest.raises(StorageError, match="was changed after it was written"):
        export_parquet(settings, request(tmp_path, changes=True, most_files=1))
    assert catalog(tmp_path) == before


async def test_x2_what_was_masked_once_is_not_shown_later(tmp_path: Path) -> None:
    settings, masked = await run(tmp_path, 0), (Mask.of("title=null"),)
    export_parquet(settings, request(tmp_path, masks=masked))
    with pytest.raises(ConfigError, match="--mask title=null"):
        export_parquet(settings, request(tmp_path))
    report = export_parquet(settings, request(tmp_path, masks=masked))
    assert query(tmp_path, "title", report.written["deals"].path) == [(None,)]


@pytest.mark.parametrize("content", ["", "\n", "00ff", "ä"])
async def test_x2_a_damaged_secret_for_hashes_is_refused(tmp_path: Path, content: str) -> None:
    settings, masked = await run(tmp_path, 0), (Mask.of("title=hash"),)
    (settings.state / "export.key").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"(?s)export\.key has . characters of the secret.*remove it"):
        export_parquet(settings, request(tmp_path, masks=masked))
    assert not list((tmp_path / "out").rglob("*.parquet"))
    (settings.state / "export.key").unlink()
    export_parquet(settings, request(tmp_path, masks=masked))
    assert len((settings.state / "export.key").read_text()) == 64


async def test_x2_an_export_that_is_killed_while_it_writes_its_secret_leaves_none(tmp_path: Path) -> None:
    settings, masked = await run(tmp_path, 0), (Mask.of("title=hash"),)
    code = (
        "import os, secrets, sys; from pathlib import Path; from pdsync.runner.report import parquet;"
        "real = secrets.token_hex;"
        "secrets.token_hex = lambda count: os.kill(os.getpid(), 9) if count == 32 else real(count);"
        "parquet._load_or_create_key(Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(settings.state / "export.key")], check=False)
    assert done.returncode == -9
    assert not (settings.state / "export.key").exists()
    report = export_parquet(settings, request(tmp_path, masks=masked))
    key = (settings.state / "export.key").read_text()
    assert len(key) == 64
    hashed = hashlib.sha256(f"{key}deal 0".encode()).hexdigest()
    assert query(tmp_path, "title", report.written["deals"].path) == [(hashed,)]


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "is not the catalogue"), ('{"format": 1}', "is not the catalogue"), (8, "contains company 8")],
)
async def test_x1_the_folder_of_another_company_or_program_is_refused(
    tmp_path: Path, content: str | int, says: str
) -> None:
    settings = await run(tmp_path, 0)
    export_parquet(settings, request(tmp_path))
    path = tmp_path / "out" / CATALOG
    if isinstance(content, int):
        content = json.dumps({**catalog(tmp_path), "company": {"id": content, "name": "Other"}})
    path.write_text(content)
    with pytest.raises(ConfigError, match=says):
        export_parquet(settings, request(tmp_path))
    assert path.read_text() == content


@pytest.mark.parametrize("path", ["../precious.parquet", "../_precious.parquet", "/tmp/x.parquet", "deals/file.txt"])
async def test_x7_a_catalogue_that_names_a_file_of_no_export_is_refused(tmp_path: Path, path: str) -> None:
    settings = await run(tmp_path, 0)
    export_parquet(settings, request(tmp_path))
    content = catalog(tmp_path)
    content["tables"]["deals"]["file"]["path"] = path
    (tmp_path / "out" / CATALOG).write_text(json.dumps(content))
    names = ("precious.parquet", "_precious.parquet")
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    with pytest.raises(ConfigError, match="which is no file of an export"):
        export_parquet(settings, request(tmp_path, keep=1))
    assert [(tmp_path / name).read_bytes() for name in names] == [name.encode() for name in names]


async def test_x7_a_view_in_the_warehouse_reads_no_file_of_the_machine(tmp_path: Path) -> None:
    settings = await run(tmp_path, 0)
    (tmp_path / "private").write_text("secret")
    with duckdb.connect(str(settings.warehouse)) as connection:
        connection.execute("CREATE TABLE others AS FROM main.deals")
        connection.execute("DROP TABLE main.deals")
        secret = f"(SELECT content FROM read_text('{tmp_path / 'private'}'))"
        connection.execute(f"CREATE VIEW main.deals AS SELECT * REPLACE ({secret} AS title) FROM others")
    with pytest.raises(StorageError, match="file system operations are disabled"):
        export_parquet(settings, request(tmp_path))
    assert not list((tmp_path / "out").rglob("*.parquet"))


async def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError):
        export_parquet(config.load(tmp_path), ExportRequest(str(tmp_path / "out"), ("deels",)))
    with pytest.raises(ConfigError, match="There is no warehouse"):
        export_parquet(config.load(tmp_path), request(tmp_path))


def rows_by_reader(folder: Path) -> dict[str, int]:
    """How many rows each reader finds below `folder`; pandas and polars only where they are installed."""
    with duckdb.connect() as connection:
        rows = {"duckdb": len(connection.execute(f"FROM read_parquet('{folder}/**/*.parquet')").fetchall())}
    rows["pyarrow"] = pq.read_table(folder).num_rows
    # polars 2.1 takes the names of folders for times, and fails on days before the 10th: docs/export.md.
    for name, options in (("pandas", {}), ("polars", {"try_parse_hive_dates": False})):
        with contextlib.suppress(ImportError):
            rows[name] = len(importlib.import_module(name).read_parquet(folder, **options))
    return rows


async def test_every_reader_finds_the_rows_of_a_folder_by_its_name(tmp_path: Path) -> None:
    settings = await run(tmp_path, 0)
    settings = await run(tmp_path, 1)
    export_parquet(settings, request(tmp_path, changes=True))
    for path in (tmp_path / "out").rglob("*"):
        assert not path.name.startswith(("_", "."))
    for folder in ("deals", "changes/deals"):
        assert set(rows_by_reader(tmp_path / "out" / folder).values()) == {2}


async def test_files_of_the_old_layout_are_renamed_by_the_next_export(tmp_path: Path) -> None:
    settings = await run(tmp_path, 0)
    export_parquet(settings, request(tmp_path, changes=True))
    out = tmp_path / "out"
    old = (out / CATALOG).read_text().replace("/snapshot=", "/_snapshot=").replace('"changes/', '"_changes/')
    (out / CATALOG).write_text(old.replace("/until=", "/_until="))
    for folder in out.glob("deals/snapshot=*"):
        folder.rename(folder.with_name(f"_{folder.name}"))
    for folder in out.glob("changes/deals/until=*"):
        folder.rename(folder.with_name(f"_{folder.name}"))
    (out / "changes").rename(out / "_changes")

    settings = await run(tmp_path, 1)
    export_parquet(settings, request(tmp_path, changes=True))

    table, changes = catalog(tmp_path)["tables"]["deals"], catalog(tmp_path)["changes"]["deals"]
    files = [table["file"], *table["older"], *changes["files"]]
    assert {str(path.relative_to(out)) for path in out.rglob("*.parquet")} == {file["path"] for file in files}
    assert ids(tmp_path, "deals/*/*.parquet") == [0, 0, 1]
    assert ids(tmp_path, "changes/deals/*/*.parquet") == [0, 1]
