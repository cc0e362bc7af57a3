"""What a warehouse file was made from, which of two files is older, and what the raw archive lacks of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.core.control import Control
from pdsync.load.commit import Counts
from pdsync.runner.stores import LoadedWalk, attached, count_rows_not_in_archive, is_older, loaded_walks
from tests.runner.warehouse_files import load

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_says_which_walks_it_was_made_from(tmp_path: Path) -> None:
    file = load(tmp_path / "a.duckdb", (1, [1, 2]), (2, [2]))
    assert loaded_walks(file) == {
        ("run-1", 1): LoadedWalk("deals", Counts(read=2, inserted=2)),
        ("run-2", 2): LoadedWalk("deals", Counts(read=1, unchanged=1)),
    }


def test_s2_rows_of_walks_without_a_page_are_what_the_archive_lacks(tmp_path: Path) -> None:
    file = load(tmp_path / "a.duckdb", (1, [1, 2]), (2, [2]), (3, [3]))
    control = Control(tmp_path / "control.db")
    try:
        assert count_rows_not_in_archive(file, control) == {"deals": 3}  # a walk that wrote nothing is no loss
    finally:
        control.close()


@pytest.mark.parametrize(
    ("work", "published", "result"),
    [
        ([1, 2], [1, 2], (False, True)),
        ([1, 2], [1], (False, True)),
        ([1], [1, 2], (True, False)),  # it lacks a batch and has none of its own
        ([1, 3], [1, 2], (False, True)),  # each has its own: the one that was loaded last is used
    ],
)
def test_s2_the_file_that_lacks_batches_is_the_older_one(
    tmp_path: Path, work: list[int], published: list[int], result: tuple[bool, bool]
) -> None:
    theirs = load(tmp_path / "published.duckdb", *((number, [number]) for number in published))
    mine = load(tmp_path / "work.duckdb", *((number, [number]) for number in work))
    with attached(mine, theirs) as (connection, names):
        assert names == ("work", "published")
        assert is_older(connection) == result


def test_a_file_that_is_missing_or_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.duckdb"
    damaged.write_bytes(b"no database")
    published = load(tmp_path / "published.duckdb", (1, [1]))
    for work in (damaged, tmp_path / "missing.duckdb"):
        with attached(work, published) as (_, names):
            assert names == ("published",)
