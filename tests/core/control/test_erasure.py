"""A record that is erased leaves no text and no byte in control.db, and an erasure that was cut is taken up again."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import msgspec
import pytest

from pdsync.core.control.erasure import ErasedRecord
from pdsync.errors import StorageError

from .kit import NOW, open_walk, page

if TYPE_CHECKING:
    from pdsync.core.control import Control

ANNA = ErasedRecord("run-9", "person", 42)
SECRET = "Anna Müller"


def clean(text: str, column: str, mutation: str | None) -> str:
    return text.replace(SECRET, "[forgotten]")


def bytes_of(control: Control) -> bytes:
    return b"".join(path.read_bytes() for path in control.path.parent.glob("control.db*"))


def test_every_text_of_every_table_is_cleaned(control: Control) -> None:
    control.start_run("run", f"forget {SECRET}", NOW)
    control.bind_company(7, f"{SECRET} & Co", None)
    with control.transaction() as db:
        db.execute("CREATE TABLE of_tomorrow (anything TEXT, more BLOB, number INTEGER)")
        db.execute(
            "INSERT INTO of_tomorrow VALUES (?, ?, 5)", (SECRET, f"\udcff{SECRET}".encode(errors="surrogateescape"))
        )
        db.execute("INSERT INTO of_tomorrow VALUES ('other', NULL, NULL)")
    assert control.erase(ANNA, [], [], clean) == 4
    assert control.receipts(1)[0].command == "forget [forgotten]"
    assert control.company() == (7, "[forgotten] & Co")
    assert control.rows("SELECT anything, more, number FROM of_tomorrow") == [
        ("[forgotten]", b"\xff[forgotten]", 5),
        ("other", None, None),
    ]
    assert control.erase(ANNA, [], [], clean) == 0


def test_threat_13_a_name_that_is_a_word_of_the_index_leaves_the_archive_readable(control: Control) -> None:
    walk = open_walk(control)
    control.record_pages([page(walk, 0, f"{SECRET} next")])
    [before], opened = control.pages(), control.walk(walk.id)

    def clean_more(text: str, column: str, mutation: str | None) -> str:
        digest = before.sha256.decode("utf-8", "surrogateescape")
        for word in (SECRET, walk.stream, before.file, digest):
            text = text.replace(word, "[forgotten]")
        return text

    control.erase(ANNA, [], [], clean_more)
    assert control.pages() == [msgspec.structs.replace(before, next="[forgotten] next")]
    assert control.walk(walk.id) == opened


def test_a_text_comes_with_its_column_and_its_mutation(control: Control) -> None:
    seen = set()

    def look(text: str, column: str, mutation: str | None) -> str:
        seen.add((text, column, mutation))
        return text

    with control.transaction() as db:
        db.execute(
            "INSERT INTO mutations (id, batch, operation, verb, kind, payload, queued_at, queued_by, state)"
            " VALUES ('m1', 'b', 'addDeal', 'add', 'deals', '{}', 't', 'me', 'queued')"
        )
    control.start_run("run", "sync", NOW)
    control.erase(ANNA, [], [], look)
    assert {("{}", "payload", "m1"), ("me", "queued_by", "m1"), ("sync", "command", None)} <= seen


def test_o2_pages_and_texts_change_together_or_not_at_all(control: Control) -> None:
    walk = open_walk(control)
    control.record_pages([page(walk, 0, None)])
    control.start_run("run", SECRET, NOW)
    [before] = control.pages()
    moved = msgspec.structs.replace(before, file="run.1.zst", sha256=b"new")

    def fail(text: str, column: str, mutation: str | None) -> str:
        raise ValueError(text)

    with pytest.raises(ValueError, match="Anna"):
        control.erase(ANNA, [moved], [(walk.id, 0, "run-9", "forget")], fail)
    assert (control.pages(), control.resealed(), control.begun_erasures("person", 42)) == ([before], set(), 0)
    control.erase(ANNA, [moved], [(walk.id, 0, "run-9", "forget")], clean)
    assert (control.pages(), control.resealed(), control.begun_erasures("person", 42)) == ([moved], {(walk.id, 0)}, 1)


def test_an_erasure_is_begun_until_it_is_finished(control: Control) -> None:
    for _ in range(2):  # the first one was cut off
        control.erase(ANNA, [], [], clean)
    assert (control.begun_erasures("person", 42), control.begun_erasures("person", 43)) == (2, 0)
    control.finish_erasures("person", 42, '{"files": 1}')
    assert control.begun_erasures("person", 42) == 0
    assert (
        control.rows("SELECT run_id, kind, record, removed FROM erasures")
        == [("run-9", "person", 42, '{"files": 1}')] * 2
    )


def test_x2_no_byte_of_the_earlier_content_is_left_in_the_file(control: Control) -> None:
    with control.transaction() as db:
        db.execute("CREATE TABLE notes (text TEXT)")
        db.executemany("INSERT INTO notes VALUES (?)", [(f"{SECRET} {number} " + "x" * 900,) for number in range(50)])
    assert SECRET.encode() in bytes_of(control)
    control.erase(ANNA, [], [], clean)
    control.finish_erasures("person", 42, "{}")
    assert SECRET.encode() not in bytes_of(control)


def test_an_erasure_is_not_finished_while_another_process_reads_the_file(control: Control) -> None:
    control.erase(ANNA, [], [], clean)
    control.rows("PRAGMA busy_timeout = 1")  # half a minute is for readers that end
    reader = sqlite3.connect(control.path)
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM runs").fetchall()
        control.start_run("run", "sync", NOW)
        with pytest.raises(StorageError):
            control.finish_erasures("person", 42, "{}")
    finally:
        reader.close()
    assert control.begun_erasures("person", 42) == 1
    control.finish_erasures("person", 42, "{}")
    assert control.begun_erasures("person", 42) == 0
