"""Rows of files: cells are text, empty ones are not given, and a null is one only where somebody wrote it."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pdsync.errors import ConfigError
from pdsync.writeback.rows import read

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [{"id": "007", "name": 'Ünal, "O\'Neil"\nLtd'}, {"id": "8", "name": None}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_keeps_every_cell_as_it_is(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "rows.csv"
    quoted = '"Ünal, ""O\'Neil""\nLtd"'
    text = f"id{delimiter}name{delimiter}note\n007{delimiter}{quoted}{delimiter}\n\n8{delimiter}NULL{delimiter}\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = read(path)
    assert found.rows == ROWS
    assert found.null_clears


def test_a_spreadsheet_is_read_as_the_person_sees_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.xlsx"
    cells = ["<c t='inlineStr'><is><t>id</t></is></c><c t='inlineStr'><is><t>value</t></is></c>",
             "<c><v>12</v></c><c><v>12.5</v></c>", "<c><v>13</v></c><c/>"]  # fmt: skip
    sheet = "".join(f"<row>{row}</row>" for row in cells)
    main = "xmlns='http://schemas.openxmlformats.org/spreadsheetml/2006/main'"
    rels = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "xmlns='http://schemas.openxmlformats.org/package/2006/relationships'"
    book = f"<Relationship Id='r1' Type='{rels}/officeDocument' Target='xl/workbook.xml'/>"
    first = f"<Relationship Id='r1' Type='{rels}/worksheet' Target='worksheets/sheet1.xml'/>"
    parts = {
        "_rels/.rels": f"<Relationships {package}>{book}</Relationships>",
        "xl/workbook.xml": f"<workbook {main} xmlns:r='{rels}'><sheets><sheet name='a' sheetId='1' r:id='r1'/></sheets>"
        "</workbook>",
        "xl/_rels/workbook.xml.rels": f"<Relationships {package}>{first}</Relationships>",
        "xl/worksheets/sheet1.xml": f"<worksheet {main}><sheetData>{sheet}</sheetData></worksheet>",
    }
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
    assert read(path).rows == [{"id": "12", "value": "12.5"}, {"id": "13"}]


def test_parquet_and_json_keep_their_types(tmp_path: Path) -> None:
    parquet, ndjson, json = tmp_path / "rows.parquet", tmp_path / "rows.jsonl", tmp_path / "rows.json"
    pq.write_table(pa.table({"id": [1, 2], "title": ["a", None]}), parquet)
    ndjson.write_text('{"id": 1, "title": "a"}\n{"id": 2, "title": null}\n', encoding="utf-8")
    json.write_text('[{"id": 1, "title": "a"}, {"id": 2, "title": null}]', encoding="utf-8")
    for path, clears in ((parquet, False), (ndjson, True), (json, True)):
        found = read(path)
        assert found.rows == [{"id": 1, "title": "a"}, {"id": 2, "title": None}]
        assert found.null_clears is clears


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv", b"", "is empty"),
        ("rows.csv", b"id,id\n1,2\n", "named twice"),
        ("rows.csv", b"id,\n1,2\n", "has no name"),
        ("rows.csv", b"id\n1,2\n", "row 1: 2 cells"),
        ("rows.csv", b"id\n\xff\n", "can't be read as csv"),
        ("rows.json", b'{"id": 1}', "can't be read as json"),
        ("rows.ndjson", b"{]", "can't be read as ndjson"),
        ("rows.parquet", b"PAR", "can't be read as parquet"),
        ("rows.xlsx", b"PK", "can't be read as a spreadsheet"),
        ("rows.doc", b"", "says nothing of the format"),
    ],
)
def test_what_is_no_such_file_says_so(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        read(path)
