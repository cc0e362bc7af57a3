"""No output shows a secret, and none can steer a terminal."""

from __future__ import annotations

import base64
import logging
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdsync.core import log

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "s3cr3t+with/odd=chars&more"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """What these tests hide does not stay hidden for others."""
    before = set(log._hidden)
    yield
    log._hidden.clear()
    log._hidden.update(before)


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(SECRET.encode()).decode().rstrip("="),
        SECRET * 3,
    ],
    ids=["raw", "percent", "base64", "unpadded", "thrice"],
)
def test_x2_a_secret_is_hidden_however_it_is_written(shown: str) -> None:
    assert shown in log.clean(f"before {shown} after")
    log.hide(SECRET)
    cleaned = log.clean(f"before {shown} after")
    assert cleaned.replace("[secret]", "") == "before  after"


@given(secret=st.text(st.characters(codec="utf-8"), min_size=6), before=st.text(), after=st.text())
def test_x2_no_hidden_text_gets_through(secret: str, before: str, after: str) -> None:
    log._hidden.clear()
    log.hide(secret)
    assert secret in "[secret]" or secret not in log.clean(before + secret + after).replace("[secret]", "\0")


def test_x2_of_two_secrets_the_longer_goes_first() -> None:
    log.hide("abcdef")
    log.hide("abcdef-and-more")
    assert log.clean("x abcdef-and-more y abcdef z") == "x [secret] y [secret] z"


@pytest.mark.parametrize("short", ["", None, "a", "deals"])
def test_short_words_stay_readable(short: str | None) -> None:
    log.hide(short)
    assert log.clean("a few deals") == "a few deals"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        ("a\rb", "a\\x0db"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb", "a\\x202eb"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("Zürich, 東京, 🙂", "Zürich, 東京, 🙂"),
    ],
)
def test_x10_control_characters_are_shown_and_not_obeyed(message: str, shown: str) -> None:
    assert log.clean(message) == shown


@given(st.text())
def test_x10_whatever_comes_only_printable_characters_go(message: str) -> None:
    assert all(char in "\n\t" or char.isprintable() for char in log.clean(message))


@pytest.mark.parametrize("verbosity", [-1, 0, 1, 2, 9])
def test_x2_the_log_hides_secrets_at_every_level_and_in_tracebacks(
    capsys: pytest.CaptureFixture[str], verbosity: int
) -> None:
    log.hide(SECRET)
    before = log.log.handlers[:], log.log.propagate, log.log.level
    try:
        log.to_stderr(verbosity, print)
        try:
            raise ValueError(f"no token like {SECRET}")
        except ValueError:
            log.log.exception("failed with %s", SECRET)
        log.log.info("asked with %s", {"x-api-token": SECRET})
        log.log.debug("sent %s", quote(SECRET, safe=""))
    finally:
        log.log.handlers[:], log.log.propagate = before[0], before[1]
        log.log.setLevel(before[2])
    err = capsys.readouterr().err
    assert "failed with [secret]" in err
    assert "ValueError: no token like [secret]" in err
    assert ("asked with" in err, "sent" in err) == (verbosity >= 1, verbosity >= 2)
    assert SECRET not in err
    assert quote(SECRET, safe="") not in err


def test_a_warning_is_for_people_and_shows_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    log.hide(SECRET)
    told, before = list[str](), (log.log.handlers[:], log.log.propagate, log.log.level)
    try:
        log.to_stderr(-1, told.append)
        log.log.warning("control.db was lost, %s", SECRET)
        log.log.warning("https://acme.example/?api_token=abc")
        log.log.error("a failure")
    finally:
        log.log.handlers[:], log.log.propagate = before[0], before[1]
        log.log.setLevel(before[2])
    assert told == ["control.db was lost, [secret]", "https://acme.example/?api_token=[secret]"]
    assert capsys.readouterr().err.endswith(" ERROR a failure\n")


def test_there_is_one_handler_however_often_it_is_set_up() -> None:
    before = log.log.handlers[:], log.log.propagate, log.log.level
    try:
        log.to_stderr(0, print)
        log.to_stderr(2, print)
        assert len(log.log.handlers) == 1
        handler = log.log.handlers[0]
        assert isinstance(handler, logging.StreamHandler)
        assert handler.stream is sys.stderr
    finally:
        log.log.handlers[:], log.log.propagate = before[0], before[1]
        log.log.setLevel(before[2])
