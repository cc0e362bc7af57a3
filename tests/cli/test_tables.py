"""Rows fill the terminal, or go to a pager if they are taller; a file or pipe gets them in full, without codes."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pdsync.cli.app import App
from pdsync.cli.layout import Hints, Line, Rows
from pdsync.cli.tables import Form, show, show_aside, to_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SHORT = Rows(["id", "title"], [[7, "Deal"]])
TALL = Rows(["id"], [[number] for number in range(60)])
WIDE = Rows([f"column_{n:02}" for n in range(40)], [[1] * 40 for _ in range(60)], hints=Hints(columns="-o vertical"))


def plain(text: str) -> str:
    """`text` without the codes of our own styles."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@contextmanager
def on_screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """A terminal of 80 × 24 as stdin, stdout and stderr of this process; gives what reads from it what was written."""
    main, side = pty.openpty()
    files = [os.fdopen(os.dup(side), mode, encoding="utf-8") for mode in ("r", "w", "w")]
    os.close(side)
    with monkeypatch.context() as patch:
        for name, file in zip(("stdin", "stdout", "stderr"), files, strict=True):
            patch.setattr(sys, name, file)
        for name, value in {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}.items():
            patch.setenv(name, value)
        yield lambda: _read(main)
    for file in files:
        file.close()
    os.close(main)


def _read(main: int) -> str:
    """What this process has written to its terminal, which hands it over in pieces."""
    sys.stdout.write("<end>")
    sys.stdout.flush()
    seen = b""
    while not seen.endswith(b"<end>"):
        seen += os.read(main, 1 << 16)
    return seen.decode().removesuffix("<end>").replace("\r\n", "\n")


@pytest.fixture
def paged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a pager, which is called less, writes its arguments and what it is given."""
    into, program = tmp_path / "paged", tmp_path / "less"
    program.write_text(f'#!/bin/sh\necho "$LESS $*" > {into}; cat >> {into}\n')
    program.chmod(0o700)
    monkeypatch.setenv("PAGER", f"{program} -i")
    monkeypatch.delenv("LESS", raising=False)
    return into


def test_what_is_taller_than_the_screen_goes_to_the_pager(paged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with on_screen(monkeypatch) as read:
        show(App(), TALL)
        assert read() == ""
    first, *rest = plain(paged.read_text("utf-8")).splitlines()
    assert first == "FX -i -RS"
    assert [line.strip() for line in rest] == ["id", *map(str, range(60))]


def test_a_pager_that_scrolls_to_the_right_gets_every_column(paged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with on_screen(monkeypatch):
        show(App(), WIDE)
    assert plain(paged.read_text("utf-8")).splitlines()[1].split() == list(WIDE.names)
    other = paged.with_name("other")
    paged.with_name("less").rename(other)
    monkeypatch.setenv("PAGER", str(other))
    with on_screen(monkeypatch):
        show(App(), WIDE)
    lines = plain(paged.read_text("utf-8")).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "-o vertical"


@pytest.mark.parametrize("why", ["it fits", "no input", "dumb", "cat", "no such program", "stdin", "something follows"])
def test_without_need_or_leave_there_is_no_pager(paged: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    app = App()
    app.no_input = why == "no input"
    environment = {"dumb": ("TERM", "dumb"), "cat": ("PAGER", "cat"), "no such program": ("PAGER", "/no/such/program")}
    with on_screen(monkeypatch) as read:
        if why in environment:
            monkeypatch.setenv(*environment[why])
        if why == "stdin":
            monkeypatch.setattr(sys, "stdin", io.StringIO())
        show(app, SHORT if why == "it fits" else TALL, may_page=why != "something follows")
        assert len(read().splitlines()) == (2 if why == "it fits" else 61)
    assert not paged.exists()


@pytest.mark.parametrize(("form", "first"), [("table", "id  title"), ("vertical", "── 1 "), ("glimpse", "1 row, 2")])
def test_each_form_is_shown(capsys: pytest.CaptureFixture[str], form: Form, first: str) -> None:
    show(App(), SHORT, form, ["BIGINT", "VARCHAR"])
    assert capsys.readouterr().out.startswith(first)


def test_a_pipe_gets_every_row_and_column_and_no_code(capsys: pytest.CaptureFixture[str]) -> None:
    hints = Hints(columns="-o vertical", empty="--all", rows="more")
    show(App(), Rows(["id", "note", "none"], [[1, "x" * 200, None]] * 1200, hints=hints))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["id  note" + " " * 198 + "none", *[" 1  " + "x" * 200] * 1200]
    show(App(), Rows([f"column_{n:02}" for n in range(96)], [["x" * 50] * 96] * 9, hints=hints))
    assert {len(line) for line in capsys.readouterr().out.splitlines()[1:]} == {96 * 52 - 2}
    show_aside(App(), SHORT)
    seen = capsys.readouterr()
    assert (seen.out, seen.err) == ("", "id  title\n 7  Deal\n")


def test_x10_a_table_obeys_no_markup_and_no_escape_code(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["[bold]x[/bold]", ":smile:"], ["\x1b]52;c;x\x07", "\u202e\r\n\x9b"]]
    with on_screen(monkeypatch) as read:
        show(App(), Rows(["[red]h\x1b[0m", "b"], rows))
        seen = read()
    assert not set("\x1b\x07\x9b\u202e\r") & set(plain(seen))
    assert "[bold]x[/bold]   :smile:" in seen
    assert len(seen.splitlines()) == 3


def test_lines_become_a_text_for_a_live_display() -> None:
    text = to_text([Line("  stream", "bold"), Line("✓ [deals]")])
    assert text.plain == "  stream\n✓ [deals]"
    assert [(span.start, span.end, span.style) for span in text.spans] == [(0, 8, "bold")]
