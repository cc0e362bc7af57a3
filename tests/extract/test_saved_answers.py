"""Saved answers come out as bodies of list answers, whatever their form; what is neither is refused."""

from __future__ import annotations

import gzip
import re
import shlex
from typing import TYPE_CHECKING

import pytest
import zstandard

from pdsync.core.list_response import open_envelope
from pdsync.errors import ConfigError
from pdsync.extract.saved_answers import RECORDS_A_PAGE, read_answers

if TYPE_CHECKING:
    from pathlib import Path


def counts(path: Path, content: bytes) -> list[int]:
    """The number of records in each answer of a file with `content`."""
    path.write_bytes(content)
    return [len(open_envelope(body).records) for body in read_answers(path)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"success":true,"data":[{"id":1},{"id":2}]}', [2]),
        (b'[{"id":1},{"id":2}]', [2]),
        (b'{"id":1}', [1]),
        (b'{"id":1}\n{"id":2}\n', [2]),
        (b'{"id":1}{"id":2} {"id":3}', [3]),
        (b'[{"id":1}]\n[{"id":2}]\n', [1, 1]),
        (b'\xef\xbb\xbf[{"id":1}]', [1]),
        (b'{"id":1,"name":"\\ud800"}', [1]),
        (b'{"data":{"success":true,"data":[{"id":1},{"id":2}]}}', [2]),
        (b'{"data":{"data":[{"id":1}],"additional_data":{"next_cursor":"x"}}}', [1]),
        (b'{"data":{"data":{"success":true,"data":[{"id":1}]}}}', [1]),
        (b'{"data":{"success":true,"data":null}}', [0]),
        (b'{"data":{"data":[{"id":1}]}}\n{"data":[{"id":2}]}\n{"id":3}\n', [1, 1, 1]),
        (b'{"data":{"data":[{"id":1,"name":"\\ud800"}]}}', [1]),
        (b"[]", [0]),
        (b"", []),
    ],
)
def test_every_form_of_saved_records_is_read(tmp_path: Path, content: bytes, expected: list[int]) -> None:
    assert counts(tmp_path / "saved", content) == expected
    assert counts(tmp_path / "saved.gz", gzip.compress(content)) == expected
    assert counts(tmp_path / "saved.zst", zstandard.compress(content)) == expected


def test_single_records_are_put_on_pages(tmp_path: Path) -> None:
    lines = b"".join(b'{"id":%d}\n' % id for id in range(RECORDS_A_PAGE + 1))
    assert counts(tmp_path / "saved", lines) == [RECORDS_A_PAGE, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"success":false,"error":"no"}', "success is false"),
        (b"42", "value 1 is neither"),
        (b'{"id":1}\n"text"\n', "value 2 is neither"),
        (b'{"id":1}\n{"id":\n', "line 2"),
        (b'{"data":{"success":false,"error":"no"}}', "success is false"),
        (b'{"data":{"type":"Buffer","data":[72,101]},"contentType":"text/plain"}', "contents of a file"),
        (b"\x1f\x8bno gzip", "can't be read"),
        (b"\x28\xb5\x2f\xfdno zstd", "can't be read"),
    ],
)
def test_what_is_no_saved_answer_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        counts(tmp_path / "saved", content)


@pytest.mark.parametrize(
    ("content", "records"),
    [
        (b'{"result":[{"id":1},{"id":2}]}', ".result"),
        (b'{"body":{"results":[{"id":1}],"total":1}}', ".body.results"),
        (b'{"success":true,"data":{"goals":[{"id":"a"}]}}', ".data.goals"),
        (b'{"data":{"success":true,"data":{"items":[{"item":{"id":1}}]}}}', ".data.data.items"),
        (b'{"success":true,"data":{"id":1,"title":"a deal"}}', "[.data]"),
        (b'{"data":{"success":true,"data":{"id":1}}}', "[.data.data]"),
    ],
)
def test_another_envelope_is_refused_with_the_command_that_opens_it(
    tmp_path: Path, content: bytes, records: str
) -> None:
    saved = tmp_path / "it's saved.json"
    with pytest.raises(ConfigError) as refused:
        counts(saved, content)
    assert f"jq '{records}' {shlex.quote(str(saved))} > records.json" in str(refused.value)
    with pytest.raises(ConfigError, match=re.escape(f"gzip -dc {tmp_path}/saved.gz | jq '{records}' > records.json")):
        counts(tmp_path / "saved.gz", gzip.compress(content))


def test_a_record_with_lists_of_its_own_is_a_record(tmp_path: Path) -> None:
    assert counts(tmp_path / "saved", b'{"id":1,"emails":[{"value":"a@example.com"}]}') == [1]
    assert counts(tmp_path / "saved", b'{"name":"API","access":[1,2]}') == [1]
