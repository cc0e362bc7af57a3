"""The journal survives torn lines and several writers, and a damaged line is found before anything is sent."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pdsync.errors import StorageError
from pdsync.writeback.journal import FOLDER, Journal
from tests.support.synced import Synced
from tests.writeback.kit import bring_to, entry, open_outbox

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.writeback.snapshot import Snapshot

WRITER = """
import sys
from pathlib import Path
from pdsync.core.control import Control
from pdsync.writeback.journal import Journal
from pdsync.writeback.outbox import Outbox
folder = Path(sys.argv[1])
outbox, journal = Outbox(Control(folder / "control.db")), Journal(folder / "raw")
snapshot = outbox.snapshot(sys.argv[2])
sys.stdin.readline()
for _ in range(40):
    journal.append([snapshot] * 3)
"""


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "raw")


@pytest.fixture
def snapshots(tmp_path: Path) -> list[Snapshot]:
    outbox = open_outbox(tmp_path, journal=False)
    return [outbox.snapshot(each.id) for each in outbox.add([entry(), entry(), entry()])]


def read(journal: Journal, known: dict[str, int] | None = None) -> list[Snapshot]:
    return [each for _, _, lines in journal.read(known or {}) for each in lines]


def only_file(journal: Journal) -> Path:
    [path] = journal.folder.glob("*.ndjson")
    return path


def test_what_was_appended_is_read_in_order(journal: Journal, snapshots: list[Snapshot]) -> None:
    journal.append(snapshots[:2])
    journal.append(snapshots[2:])
    assert read(journal) == snapshots
    assert only_file(journal).stat().st_mode & 0o777 == 0o600
    assert journal.folder.stat().st_mode & 0o777 == 0o700


def test_w11_what_was_appended_is_on_disk_when_append_returns(
    journal: Journal, snapshots: list[Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = Synced()
    monkeypatch.setattr(os, "fsync", synced.fsync)
    for each in snapshots:
        journal.append([each])
        assert synced.bytes_of(only_file(journal)) == only_file(journal).stat().st_size


def test_a_journal_that_does_not_exist_is_empty(journal: Journal) -> None:
    assert read(journal) == []
    assert journal.rewrite(lambda text, mutation: "") == 0


def test_an_answer_is_left_out_where_the_record_shows_it(tmp_path: Path, journal: Journal) -> None:
    outbox = open_outbox(tmp_path, journal=False)
    for after in ({"id": 12}, None):
        mutation = bring_to(outbox, "armed")
        with outbox.control.transaction() as db:
            db.execute("UPDATE attempts SET answer = 'the answer'")
        outbox.settle(mutation.id, "applied", after=after)
        journal.append([outbox.snapshot(mutation.id)])
    assert [each.attempts[0].answer for each in read(journal)] == [None, "the answer"]


# Reading on.


def test_only_new_lines_are_read(journal: Journal, snapshots: list[Snapshot]) -> None:
    journal.append(snapshots[:1])
    sizes = {name: size for name, size, _ in journal.read({})}
    assert list(journal.read(sizes)) == []
    journal.append(snapshots[1:])
    assert read(journal, sizes) == snapshots[1:]
    assert list(sizes) == [f"{FOLDER}/{only_file(journal).name}"]


@pytest.mark.parametrize("size", [1, 10_000_000])
def test_a_file_that_was_replaced_is_read_from_its_beginning(
    journal: Journal, snapshots: list[Snapshot], size: int
) -> None:
    journal.append(snapshots)
    assert read(journal, {f"{FOLDER}/{only_file(journal).name}": size}) == snapshots


# Torn lines.


@pytest.mark.parametrize("torn", [b"{", b'{"sha256":"ab', b"x" * 200_000])
def test_w1_a_torn_line_is_ignored_and_cut_off_by_the_next_write(
    journal: Journal, snapshots: list[Snapshot], torn: bytes
) -> None:
    journal.append(snapshots[:1])
    path = only_file(journal)
    complete = path.stat().st_size
    with path.open("ab") as file:
        file.write(torn)
    [(_, size, lines)] = journal.read({})
    assert (size, lines) == (complete, snapshots[:1])
    journal.append(snapshots[1:])
    assert read(journal) == snapshots
    assert path.read_bytes().count(b"\n") == len(path.read_bytes().splitlines()) == 3


def test_a_file_of_nothing_but_a_torn_line_is_emptied(journal: Journal, snapshots: list[Snapshot]) -> None:
    journal.append(snapshots[:1])
    only_file(journal).write_bytes(b"{torn")
    assert read(journal) == []
    journal.append(snapshots)
    assert read(journal) == snapshots


# Damage.


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda line: line.replace(b'"New"', b'"Now"'), "its checksum is wrong"),
        (lambda line: b"not json\n", "malformed"),
        (lambda line: b"{}\n", "missing required field"),
        (lambda line: b"\n", "truncated"),
    ],
)
def test_o4_a_damaged_line_is_refused_and_its_byte_is_named(
    journal: Journal, snapshots: list[Snapshot], damage: object, why: str
) -> None:
    journal.append(snapshots)
    path = only_file(journal)
    lines = path.read_bytes().splitlines(keepends=True)
    changed = damage(lines[1])  # type: ignore[operator]
    path.write_bytes(lines[0] + changed + lines[2])
    with pytest.raises(StorageError, match=rf"is damaged at byte {len(lines[0]):,}: .*{why}") as refused:
        read(journal)
    assert "Nothing was sent" in str(refused.value)
    before = path.read_bytes()
    with pytest.raises(StorageError, match="is damaged"):
        journal.rewrite(lambda text, mutation: text.replace("deals", "steals"))
    assert path.read_bytes() == before


def test_o4_a_line_of_a_valid_checksum_that_is_no_snapshot_is_refused(
    journal: Journal, snapshots: list[Snapshot]
) -> None:
    journal.append(snapshots[:1])
    journal.rewrite(lambda text, mutation: '{"mutation": 5}')
    with pytest.raises(StorageError, match="is damaged at byte 0"):
        read(journal)


def test_w3_a_folder_that_cannot_be_written_stops_the_push(tmp_path: Path, snapshots: list[Snapshot]) -> None:
    (tmp_path / "raw").write_text("a file")
    with pytest.raises(StorageError, match="Nothing is sent that is not written there first"):
        Journal(tmp_path / "raw").append(snapshots)


# Several processes.


def test_w1_several_processes_append_whole_lines(tmp_path: Path, journal: Journal, snapshots: list[Snapshot]) -> None:
    ids = [each.mutation.id for each in snapshots]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), id], stdin=subprocess.PIPE) for id in ids]
    for writer in writers:  # all of them are let go before any is waited for
        assert writer.stdin
        writer.stdin.write(b"\n")
        writer.stdin.close()
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    found = [each.mutation.id for each in read(journal)]
    assert {id: found.count(id) for id in ids} == dict.fromkeys(ids, 120)


# Rewriting.


def test_rewriting_changes_only_the_lines_it_is_about(journal: Journal, snapshots: list[Snapshot]) -> None:
    journal.append(snapshots)
    lines = only_file(journal).read_bytes().splitlines()
    about = snapshots[1].mutation.id
    changed = journal.rewrite(
        lambda text, mutation: text.replace('"New"', '"[forgotten]"') if mutation == about else text
    )
    assert changed == 1
    assert [each.mutation.payload["title"] for each in read(journal)] == ["New", "[forgotten]", "New"]
    now = only_file(journal).read_bytes().splitlines()
    assert [now[0], now[2]] == [lines[0], lines[2]]
    assert [path.name for path in journal.folder.iterdir()] == [only_file(journal).name]


def test_rewriting_nothing_leaves_the_file_alone(journal: Journal, snapshots: list[Snapshot]) -> None:
    journal.append(snapshots)
    before = only_file(journal).stat().st_ino
    assert journal.rewrite(lambda text, mutation: text) == 0
    assert only_file(journal).stat().st_ino == before
