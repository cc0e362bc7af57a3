"""A work file that is damaged or older gives way to the warehouse, and nothing that only it has is lost."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest

from pdsync.core import config
from pdsync.runner import project, stores, unlocked
from pdsync.runner.loader import Loader
from pdsync.runner.queue_recovery import open_outbox
from pdsync.runner.report.mutation_log import save_mutation_log
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
