"""Writes to a file or a pipe what commands show: the part of rich's Console that they use, without importing rich."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TextIO

WIDTH = 400  # cells: nothing is cut
_FORCED = ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")  # variables by which rich treats a file as a terminal


def is_plain(*, stderr: bool) -> bool:
    """Whether stdout, or stderr, is neither a terminal nor to be treated as one."""
    return not (sys.stderr if stderr else sys.stdout).isatty() and not any(map(os.environ.get, _FORCED))


class PlainConsole:
    """stdout or stderr, where it is no terminal."""

    is_terminal, width = False, WIDTH

    def __init__(self, *, stderr: bool) -> None:
        self._is_stderr = stderr

    @property
    def file(self) -> TextIO:
        """Where to write."""
        return sys.stderr if self._is_stderr else sys.stdout

    @property
    def height(self) -> int:
        """The number of lines of the terminal that the command runs in, if there is one."""
        return shutil.get_terminal_size((WIDTH, 25)).lines

    def print(self, text: object = "", style: str | None = None) -> None:
        """Write a line; a file has no styles."""
        self.file.write(f"{text}\n")
        self.file.flush()
