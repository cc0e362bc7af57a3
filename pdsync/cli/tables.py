"""Shows rows to people, the same way for every command: fitted to the terminal, in a pager if they are taller than it.

A file or pipe gets every row and column in full.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Literal

from pdsync.cli import layout
from pdsync.cli.layout import Hints, Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.text import Text

    from pdsync.cli.app import App
    from pdsync.cli.layout import Line

Form = Literal["table", "vertical", "glimpse"]
JSON = Hints(columns="--json shows all.", rows="--json shows all.")  # of the commands that list something


def show(app: App, rows: Rows, form: Form = "table", types: Sequence[str] = (), *, may_page: bool = True) -> None:
    """Show the result of a command; on an interactive terminal in a pager if it is taller than the screen.

    Args:
        app: where to.
        rows: what.
        form: a table, one record below the other, or a glimpse: a line for each column.
        types: of the columns, for a glimpse.
        may_page: other output follows at once if not.
    """
    console = app.out
    width = terminal_width(console)
    if form == "glimpse":
        lines = layout.lay_out_glimpse(rows, types, width)
    elif form == "vertical":
        lines = layout.lay_out_records(rows, width)
    else:
        lines = layout.lay_out(rows, width)
    if may_page and width is not None and len(lines) >= console.height and (pager := _pager(app)):
        scrolls = pager[0].endswith("less")
        if form == "table" and scrolls:
            lines = layout.lay_out(rows, width, scrolls=True)
        if _page(console, lines, [*pager, "-RS"] if scrolls else pager):
            return
    _print(console, lines)


def show_listing(app: App, rows: list[dict[str, Any]], headers: list[str], empty: str) -> None:
    """Show rows as JSON objects, one per line, or as a table of the columns `headers`; `empty` if there are none."""
    if app.json:
        for row in rows:
            app.emit(row)
    elif rows:
        names = [header.replace("_", " ") for header in headers]
        show(app, Rows(names, [[row[header] for header in headers] for row in rows], counts=True, hints=JSON))
    else:
        app.note(empty)


def show_lines(app: App, lines: list[Line]) -> None:
    """Show lines that are laid out for the terminal on stdout."""
    _print(app.out, lines)


def show_aside(app: App, rows: Rows) -> None:
    """Show rows that are not the result of a command on stderr, without a pager."""
    _print(app.err, layout.lay_out(rows, terminal_width(app.err)))


def terminal_width(console: Console) -> int | None:
    """The width of the terminal that a console writes to, in cells; None: it is a file or a pipe."""
    return console.width if console.file.isatty() else None


def to_text(lines: list[Line]) -> Text:
    """Lines as a rich text, for a live display."""
    from rich.text import Text  # noqa: PLC0415 - not for --help

    return Text("\n", no_wrap=True, overflow="crop").join(Text(line.text, line.style) for line in lines)


def _print(console: Console, lines: list[Line]) -> None:
    console.file.write(_rendered(console, lines))
    console.file.flush()


def _rendered(console: Console, lines: list[Line]) -> str:
    """Lines as text, in colour where the console has it."""
    if not console.is_terminal:
        return "".join(f"{line.text}\n" for line in lines)
    with console.capture() as captured:
        for line in lines:
            console.print(line.text, style=line.style or None, crop=False, no_wrap=True, overflow="ignore")
    return captured.get()


def _pager(app: App) -> list[str] | None:
    """The command of the pager; None where none is wanted, or none can be used."""
    if app.no_input or os.environ.get("TERM") in (None, "dumb") or not sys.stdin.isatty():
        return None
    try:
        command = shlex.split(os.environ.get("PAGER", "less"))
    except ValueError:
        return None
    program = shutil.which(command[0]) if command else None
    return [program, *command[1:]] if program and not program.endswith("/cat") else None


def _page(console: Console, lines: list[Line], command: list[str]) -> bool:
    """Show lines in a pager until it is left; returns whether it could be started."""
    environment = {"LESS": "FX", "LESSCHARSET": "utf-8", **os.environ}
    try:
        pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)  # noqa: S603 - what the user has set
    except OSError:
        return False
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pager handles Ctrl-C
    try:
        pager.communicate(_rendered(console, lines).encode("utf-8", "replace"))
    finally:
        signal.signal(signal.SIGINT, before)
    return True
