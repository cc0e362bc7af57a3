"""A file or a pipe gets the text that rich would write, without importing it."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

import pytest
from rich.console import Console

from pdsync.cli.app import App
from pdsync.cli.plain_console import PlainConsole


class Screen(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("color", "variable", "stream", "kind"),
    [
        ("auto", None, io.StringIO, PlainConsole),
        ("never", None, io.StringIO, PlainConsole),
        ("always", None, io.StringIO, Console),
        ("auto", "FORCE_COLOR", io.StringIO, Console),
        ("auto", None, Screen, Console),
        ("never", None, Screen, Console),
    ],
)
def test_only_a_terminal_has_styles(
    color: str, variable: str | None, stream: type[io.StringIO], kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    app = App()
    app.color = color
    with redirect_stderr(stream()), redirect_stdout(stream()):
        assert (type(app.err), type(app.out)) == (kind, kind)


@pytest.mark.parametrize("text", ["plain", "two\nlines", "[bold]no markup[/]", ":smile: 導入 é", "x" * 900, ""])
def test_a_file_gets_what_rich_would_write(text: str) -> None:
    plain, rich = io.StringIO(), io.StringIO()
    with redirect_stderr(plain):
        PlainConsole(stderr=True).print(text, style="yellow")
    Console(file=rich, highlight=False, soft_wrap=True, width=400, emoji=False, markup=False).print(
        text, style="yellow"
    )
    assert plain.getvalue() == rich.getvalue()
