"""The share done, what is left and the time that takes: one sentence, for every job."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

import pytest

from pdsync.cli.app import App
from pdsync.cli.share_done import ShareLine, describe_share


@pytest.mark.parametrize(
    ("done", "left", "elapsed_s", "remaining", "sentence"),
    [
        (0, 10, 60, "10 files", "0 % done, 10 files left"),
        (1, 999, 1, "999 files", "0 % done, 999 files left"),
        (25, 75, 10, "75 files and 1,500 tokens", "25 % done, 75 files and 1,500 tokens left, about 30 s"),
        (999, 1, 10, "1 file", "99 % done, 1 file left, about a second"),
        (1, 99, 60, "99 files", "1 % done, 99 files left, about 99 min"),
        (1, 999, 60, "", "0 % done, about 16.6 h left"),
        (10, 0, 60, "0 files", "100 % done, 0 files left"),
    ],
)
def test_the_sentence(done: int, left: int, elapsed_s: float, remaining: str, sentence: str) -> None:
    assert describe_share(done, left, elapsed_s, remaining) == sentence


def test_a_pipe_gets_no_line() -> None:
    now = [0.0]
    with redirect_stderr(io.StringIO()) as screen, ShareLine(App(), lambda: now[0]) as line:
        now[0] = 10.0
        assert line.update(1, 4, "3 files") == "25 % done, 3 files left, about 30 s"
    assert screen.getvalue() == ""
