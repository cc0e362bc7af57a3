"""Forms: which files they take, under which names, and that they can be sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from pdsync.core import catalogue
from pdsync.core.request_builder import Call
from pdsync.core.uploads import FilePart, content_type_of, file_part, form_of
from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "told", "content_type"),
    [
        ("offer.pdf", "offer.pdf", "application/pdf"),
        ("OFFER.PDF", "OFFER.PDF", "application/pdf"),
        ("no suffix", "no suffix", "application/octet-stream"),
        ("ü 💾.png", "ü 💾.png", "image/png"),
        ("a\r\nX-Evil: 1.txt", "a__X-Evil: 1.txt", "text/plain"),
        ("\x7f\0.txt", "__.txt", "text/plain"),
        ("\ud800.txt", "?.txt", "text/plain"),
    ],
)
def test_x10_a_file_is_sent_under_a_name_that_breaks_no_header(
    tmp_path: Path, name: str, told: str, content_type: str
) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    part = file_part("file", tmp_path / "file", name)
    assert (part.name, part.file_name, part.content_type) == ("file", told, content_type)


def test_a_file_that_can_not_be_read_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none", "can't be read"), (tmp_path, "is no file"), (tmp_path / "\0", "can't")):
        with pytest.raises(ConfigError, match=rf"(?s){message}.*Nothing was sent"):
            file_part("file", path)


def test_a_form_carries_texts_and_files_and_can_be_sent_twice(tmp_path: Path) -> None:
    upload = tmp_path / "offer.pdf"
    upload.write_bytes(b"abc")
    operation = catalogue.operation("addFile", "v1")
    form = form_of(Call(operation, "/v1/files", {}, {"deal_id": "7"}, {"file": upload}))
    assert form is not None
    assert form.fields == (("deal_id", "7"),)
    assert form.files == (FilePart("file", upload, "offer.pdf", "application/pdf"),)
    assert (form.multipart, form.size) == (True, 3)
    for _ in range(2):
        with form.opened() as data:
            assert data.is_multipart


def test_json_is_no_form() -> None:
    operation = catalogue.operation("addDeal", "v2")
    assert form_of(Call(operation, "/api/v2/deals", {}, {"title": "x"}, {})) is None
    plain = msgspec.structs.replace(operation, content="form")
    form = form_of(Call(plain, "/api/v2/deals", {}, {"title": "x"}, {}))
    assert form is not None
    assert (form.multipart, form.files) == (False, ())


def test_a_content_type_is_guessed_by_the_suffix_alone() -> None:
    assert [content_type_of(name) for name in ("a.json", "json", "a.unheard-of")] == ["application/json", None, None]
