"""Answers of `pdsync api`: formatted, unchanged or refused; a file is complete or does not exist."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from msgspec import Raw

from pdsync.cli.app import App
from pdsync.cli.response_output import Output
from pdsync.core.answer import Answer
from pdsync.errors import BadAnswer, ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def answer(body: bytes) -> Answer:
    return Answer(200, {}, body, NOW)


def app(*, lines: bool = False) -> App:
    made = App()
    made.json = lines
    return made


@pytest.mark.parametrize(
    ("kind", "lines", "body", "written"),
    [
        (None, False, b'{"a":1}', b'{\n  "a": 1\n}\n'),
        (None, True, b'{"a":1}', b'{"a": 1}\n'),
        ("json", True, b"[1,\n2]", b"[1, 2]\n"),
        (None, False, b"plain text", b"plain text\n"),
        (None, False, b"ends already\n", b"ends already\n"),
        ("text", False, b'{"a":1}', b'{"a":1}\n'),
        ("binary", False, b"\x00\xff", b"\x00\xff"),
        (None, False, b"", b""),
    ],
)
def test_an_answer_is_formatted_only_if_it_is_json(
    capfdbinary: pytest.CaptureFixture[bytes], kind: str | None, lines: bool, body: bytes, written: bytes
) -> None:
    Output(app(lines=lines), None, kind).answer(answer(body))
    assert capfdbinary.readouterr().out == written


def test_an_answer_that_must_be_json_and_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadAnswer):
        Output(app(), tmp_path / "answer.json", "json").answer(answer(b"<html>"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "answer.json"
    path.write_text("old")
    Output(app(lines=True), path, None).answer(answer(b'{"a": 1}'))
    assert path.read_bytes() == b'{"a": 1}'
    assert path.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_does_not_exist_is_refused_before_any_request(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Nothing was called"):
        Output(app(), tmp_path / "missing" / "answer.json", None)


async def listed(*records: bytes, fails: bool = False) -> AsyncGenerator[Raw]:
    for record in records:
        yield Raw(record)
    if fails:
        raise BadAnswer("cut short")


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("odd", [b'{"id":1,\n"title":"\\ud83d"}', b'{"id":1,\n"title":NaN}'])
async def test_s16_a_record_that_strict_parsers_refuse_is_written_as_it_came(
    tmp_path: Path, odd: bytes, lines: bool
) -> None:
    path = tmp_path / "deals.json"
    await Output(app(lines=lines), path, None).records(listed(odd, b'{"id":2}'))
    text = path.read_text()
    found = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    assert [record["id"] for record in found] == [1, 2]


@pytest.mark.parametrize("records", [(), (b'{"id":1}',), (b'{"id":1}', b'{"id":2}')])
@pytest.mark.parametrize("lines", [True, False])
async def test_a_list_is_one_array_or_one_object_per_line(
    tmp_path: Path, records: tuple[bytes, ...], lines: bool
) -> None:
    path = tmp_path / "list.json"
    await Output(app(lines=lines), path, None).records(listed(*records))
    text = path.read_text()
    found = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    assert found == [json.loads(record) for record in records]


async def test_a_list_that_fails_leaves_no_file_and_no_closed_array(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = tmp_path / "list.json"
    with pytest.raises(BadAnswer):
        await Output(app(), path, None).records(listed(b'{"id":1}', fails=True))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadAnswer):
        await Output(app(), None, None).records(listed(b'{"id":1}', fails=True))
    with pytest.raises(json.JSONDecodeError):
        json.loads(capfdbinary.readouterr().out)
