"""A mistyped project is refused by each public function, and nothing is created for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import pdsync
from pdsync.core.project_folder import load_settings
from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

OPENED: dict[str, Callable[..., Any]] = {
    "sync": pdsync.sync, "Queue": pdsync.Queue, "Client": pdsync.Client, "open_warehouse": pdsync.open_warehouse,
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: with a folder of other files, and nothing else."""
    (tmp_path / "my papers").mkdir()
    (tmp_path / "my papers" / "letter.txt").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_public_name_that_takes_a_project_is_in_this_table() -> None:
    assert set(pdsync.__all__) - {"__version__"} == set(OPENED)


@pytest.mark.parametrize("name", OPENED)
@pytest.mark.parametrize(
    ("project", "says"),
    [
        ("deals", "There is no folder deals. Nothing was called."),
        ("deals", "Did you mean sync(streams=['deals'])?"),
        ("missing", "pdsync --project missing init"),
        ("my papers", "is no pdsync project"),
        ("my papers", "pdsync --project 'my papers' init"),
        ("my papers/letter.txt", "is a file"),
    ],
)
def test_a_folder_that_is_no_project_is_refused(folder: Path, name: str, project: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        OPENED[name](project)
    assert says in str(refused.value)
    assert ("create=True" in str(refused.value)) == (name != "open_warehouse" and "is a file" not in says)
    assert ("streams=" in str(refused.value)) == (project == "deals")
    assert [each.name for each in folder.rglob("*")] == ["my papers", "letter.txt"]


@pytest.mark.parametrize("name", ["Queue", "Client"])
@pytest.mark.parametrize(("project", "create"), [(".", False), ("missing", True), ("my papers", True)])
def test_a_folder_that_is_meant_is_accepted(name: str, project: str, create: bool) -> None:
    assert OPENED[name](project, create=create)


@pytest.mark.parametrize("left", ["credentials.json", "credentials.lock", "pdsync.lock", "push.lock", "control.db", ""])
def test_a_folder_with_only_what_pdsync_left_there_is_accepted(folder: Path, left: str) -> None:
    (folder / "used" / "data").mkdir(parents=True)
    if left:
        (folder / "used" / "data" / left).touch()
    assert load_settings(Path("used")).project == folder / "used"


def test_a_folder_of_data_with_other_files_is_refused(folder: Path) -> None:
    (folder / "my papers" / "data").mkdir()
    (folder / "my papers" / "data" / "table.csv").touch()
    with pytest.raises(ConfigError, match="is no pdsync project"):
        load_settings(Path("my papers"))
