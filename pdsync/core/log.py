"""Keeps secrets out of all output: one log handler, and redaction by value. A warning of the log is for people.

A secret is recognised by its value, not by its position: the code that reads a token calls `hide`, and from then on
`clean` replaces it in every message, and its percent- and base64-encoded forms too.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import sys
from typing import TYPE_CHECKING, TextIO
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable

_hidden: set[str] = set()
_PARAMETER = re.compile(
    r"""\b((?:api_?token|(?:access|refresh)_token|token|client_secret|secret|password|x-api-token)=)[^&\s"'\\]+""",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"://[^/?#\s@\"']*@")
_READ = 2**16  # bytes of an answer, for its excerpt
_MIN_LENGTH = 6  # shorter values would match ordinary words

log = logging.getLogger("pdsync")


def hide(secret: str | None) -> None:
    """Replace `secret` in all messages from now on; one of fewer than 6 characters is not replaced."""
    if secret and len(secret) >= _MIN_LENGTH:
        encoded = base64.b64encode(secret.encode()).decode()
        _hidden.update({secret, quote(secret, safe=""), encoded, encoded.rstrip("=")})


def clean(message: str) -> str:
    """`message` without hidden secrets, and without characters that could steer a terminal."""
    text = _redacted(message)
    if text.isprintable():
        return text
    return "".join(char if char in "\n\t" or char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def excerpt(body: bytes, most: int) -> str:
    """The first `most` characters of an answer in one line, cleaned before they are cut: half a secret is none."""
    return clean(" ".join(body[:_READ].decode("utf-8", errors="replace").split()))[:most]


def clean_error(message: str) -> str:
    """`message`, cleaned, and without the parts of addresses that look like secrets."""
    return clean(_PASSWORD.sub("://[secret]@", _PARAMETER.sub(r"\1[secret]", message)))


def clean_json(text: str) -> str:
    """JSON `text`, cleaned so that it stays JSON with the same meaning: characters get JSON escapes."""
    return "".join(
        char if char == "\n" or char.isprintable() else json.dumps(char)[1:-1] for char in _redacted(text)
    ).replace("\x7f", "\\u007f")


def _redacted(message: str) -> str:
    for secret in sorted(_hidden, key=len, reverse=True):
        message = message.replace(secret, "[secret]")
    return message


class _Clean(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return clean_error(super().format(record))


class _ToPeople(logging.StreamHandler[TextIO]):
    """Writes the log to stderr, but for warnings: those are for people, who need no time and level before them."""

    def __init__(self, on_warning: Callable[[str], None]) -> None:
        super().__init__(sys.stderr)
        self._on_warning = on_warning

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING and not record.exc_info:
            self._on_warning(clean_error(record.getMessage()))
        else:
            super().emit(record)


def to_stderr(verbosity: int, on_warning: Callable[[str], None]) -> None:
    """Send the log to stderr: progress at 1, every request at 2 and more.

    Args:
        verbosity: of the command line; from -1 on.
        on_warning: is called with each warning, at every verbosity.
    """
    handler = _ToPeople(on_warning)
    handler.setFormatter(_Clean("%(asctime)s %(levelname)s %(message)s"))
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel([logging.WARNING, logging.INFO, logging.DEBUG][min(max(verbosity, 0), 2)])
