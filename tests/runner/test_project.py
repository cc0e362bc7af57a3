"""A work file that is damaged or older gives way to the warehouse, and nothing that only it has is lost."""

from __future__ import annotations

import asyncio
import resource
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pdsync.core import config
from pdsync.errors import ConfigError, StorageError
from pdsync.runner import project, stores, unlocked
from pdsync.runner.loader import Loader
from pdsync.runner.queue_recovery import open_outbox
from pdsync.runner.report.mutation_log import save_mutation_log
from pdsync.runner.report.receipt import begin_receipt
from tests.runner.warehouse_files import load
from tests.writeback import kit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.core.control import Control


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "pdsync.toml").write_text("")
    settings = config.load(tmp_path)
    settings.warehouse.parent.mkdir(parents=True, exist_ok=True)
    return settings


@pytest.fixture
def control(settings: Settings) -> Iterator[Control]:
    with unlocked.open_control(settings) as control:
        yield control


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Warehouse files by the walks that they have, and one of them cut short."""
    folder = tmp_path_factory.mktemp("files")
    made = {
        name: load(folder / f"{name}.duckdb", *((int(walk), [int(walk)]) for walk in name))
        for name in ("1", "12", "13")
    }
    made["cut"] = folder / "cut.duckdb"
    made["cut"].write_bytes(made["12"].read_bytes()[:-262_144])
    return made


def test_x7_a_file_of_the_project_can_not_have_another_file_replaced(tmp_path: Path, files: dict[str, Path]) -> None:
    folder, other = tmp_path / "cloned", tmp_path / "thesis.odt"
    folder.mkdir()
    (folder / "pdsync.toml").write_text('[warehouse]\npath = "../thesis.odt"\n')
    other.write_bytes(b"precious")
    with pytest.raises(ConfigError, match=r"thesis\.odt as the warehouse"), project.locked(config.load(folder)):
        pass
    assert sorted(tmp_path.iterdir()) == [folder, other], "no file is beside it"
    for content in (b"", files["1"].read_bytes()):  # a new one, and a warehouse
        other.write_bytes(content)
        with project.locked(config.load(folder)):
            pass


@pytest.mark.parametrize("name", ["pdsync.toml", "notes.txt", "targets.csv", "data/control.db", "credentials.json"])
def test_x7_a_wrong_path_of_the_warehouse_has_no_file_of_the_project_replaced(tmp_path: Path, name: str) -> None:
    text = f'[warehouse]\npath = "{name}"\n'
    for each in ("pdsync.toml", "notes.txt", "targets.csv"):
        (tmp_path / each).write_text(text)
    with pytest.raises(ConfigError, match="warehouse"), project.locked(config.load(tmp_path)):
        pass
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("pdsync.toml", "notes.txt", "targets.csv"), text
    )


def test_x7_a_file_of_the_project_can_not_make_other_files_a_raw_archive(tmp_path: Path) -> None:
    folder, backups = tmp_path / "cloned", tmp_path / "backups"
    folder.mkdir()
    backups.mkdir()
    (folder / "pdsync.toml").write_text('[raw]\npath = "../backups"\n')
    (backups / f"{begin_receipt('sync').run_id}-01234567.1.zst").write_bytes(b"")
    with project.locked(config.load(folder)):
        pass
    (backups / "home.tar.zst").write_bytes(b"precious")
    with pytest.raises(ConfigError, match=r"home\.tar\.zst is none of its files"), project.locked(config.load(folder)):
        pass


def walks(path: Path) -> list[int]:
    return sorted(number for _, number in stores.loaded_walks(path))


@pytest.mark.parametrize(
    ("work", "published", "used", "aside", "note"),
    [
        (None, None, None, None, ""),
        (None, "12", [1, 2], None, ""),
        ("1", None, [1], None, ""),
        ("12", "12", [1, 2], None, ""),
        ("12", "1", [1, 2], None, ""),  # a run that was killed before it published
        ("1", "12", [1, 2], None, "was older"),
        ("12", "13", [1, 3], "apart", "it has walks that the warehouse lacks"),  # the one that was loaded last
        ("13", "12", [1, 3], None, ""),
        ("cut", "12", [1, 2], "damaged", "was damaged"),
        ("cut", None, None, "damaged", "was damaged"),
        ("12", "cut", [1, 2], None, ""),  # it is replaced when the run publishes
        ("cut", "cut", None, "damaged", "was damaged"),
    ],
)
def test_o4_s2_the_work_file_is_usable_or_absent(
    settings: Settings,
    control: Control,
    files: dict[str, Path],
    work: str | None,
    published: str | None,
    used: list[int] | None,
    aside: str | None,
    note: str,
) -> None:
    path = project.work_path(settings)
    for name, target in ((work, path), (published, settings.warehouse)):
        if name:
            shutil.copy(files[name], target)
    notes: list[str] = []
    project.ready_work_file(settings, control, notes.append)
    assert (walks(path) if path.exists() else None) == used
    assert [each.name.rsplit("-")[0] for each in path.parent.glob(f"{path.name}.*-*")] == (
        [f"{path.name}.{aside}"] if aside else []
    )
    assert len(notes) == bool(note)
    assert note in "".join(notes)


@pytest.mark.parametrize("work", [None, "1", "cut"])
def test_s12_o2_a_warehouse_that_can_not_be_copied_is_never_taken_for_a_missing_one(
    settings: Settings, control: Control, files: dict[str, Path], work: str | None
) -> None:
    """The kernel writes no more than half of it into a file, which to a program is what a full disk is."""
    path, warehouse = project.work_path(settings), settings.warehouse
    shutil.copy(files["12"], warehouse)
    if work:
        shutil.copy(files[work], path)
    before = {each: each.read_bytes() for each in (path, warehouse) if each.exists()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (warehouse.stat().st_size // 2, hard))
    try:
        with pytest.raises(StorageError, match=r"(?s)warehouse\.duckdb can't be copied.*Free some space"):
            project.ready_work_file(settings, control)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {each: each.read_bytes() for each in warehouse.parent.glob("*.duckdb*")} == before
    assert not list(warehouse.parent.glob(".*"))
    project.ready_work_file(settings, control)
    assert walks(path) == [1, 2]


@pytest.mark.parametrize("work", [None, "1"])
def test_s1_the_log_of_a_work_file_is_not_applied_to_the_copy_that_replaces_it(
    settings: Settings, control: Control, files: dict[str, Path], work: str | None
) -> None:
    path = project.work_path(settings)
    if work:
        shutil.copy(files[work], path)
    code = (
        f"import duckdb, os; c = duckdb.connect({str(path)!r});"
        " c.execute('CREATE TABLE left_by_a_kill (id BIGINT)'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    log = path.with_name(f"{path.name}.wal")
    assert log.exists()
    if not work:
        path.unlink()
    shutil.copy(files["12"], settings.warehouse)
    project.ready_work_file(settings, control)
    assert not log.exists()
    assert walks(path) == [1, 2]


@pytest.mark.parametrize("knows", ["work", "published"])
def test_w2_what_only_one_file_has_of_the_queue_is_restored_before_the_other_replaces_it(
    settings: Settings, control: Control, files: dict[str, Path], tmp_path: Path, knows: str
) -> None:
    (tmp_path / "lost").mkdir()
    source = kit.open_outbox(tmp_path / "lost", journal=False)
    mutation = kit.bring_to(source, "applied")
    paths = {"work": project.work_path(settings), "published": settings.warehouse}
    shutil.copy(files["1"], paths["work"])
    shutil.copy(files["12"], paths["published"])
    loader = Loader(paths[knows])
    loader.open(kit.COMPANY, "Acme")
    save_mutation_log(loader, source, {})
    asyncio.run(loader.close())
    notes: list[str] = []
    project.ready_work_file(settings, control, notes.append)
    assert open_outbox(settings, control).get(mutation.id).state == "applied"
    assert len(notes) == 2  # the queue was restored, and the work file replaced
    project.ready_work_file(settings, control, notes.append)
    assert len(notes) == 2
