"""Rows of files: cells are text, empty ones are not given, and a null is one only where somebody wrote it."""

from __future__ import annotations

import csv
import io
import tempfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdsync.cli.commands.sql import _csv
from pdsync.errors import ConfigError
from pdsync.writeback.import_files import Format, read

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


def workbook(path: Path, *rows: str, sheets: int = 1) -> Path:
    """An .xlsx file whose first sheet has these rows of cells, as XML."""
    main = "xmlns='http://schemas.openxmlformats.org/spreadsheetml/2006/main'"
    rels = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "xmlns='http://schemas.openxmlformats.org/package/2006/relationships'"
    book = f"<Relationship Id='r1' Type='{rels}/officeDocument' Target='xl/workbook.xml'/>"
    names = "".join(f"<sheet name='s{n}' sheetId='{n}' r:id='r{n}'/>" for n in range(1, sheets + 1))
    links = "".join(
        f"<Relationship Id='r{n}' Type='{rels}/worksheet' Target='worksheets/sheet{n}.xml'/>"
        for n in range(1, sheets + 1)
    )
    parts = {
        "_rels/.rels": f"<Relationships {package}>{book}</Relationships>",
        "xl/workbook.xml": f"<workbook {main} xmlns:r='{rels}'><sheets>{names}</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f"<Relationships {package}>{links}</Relationships>",
    }
    for n in range(1, sheets + 1):
        content = "".join(f"<row>{row}</row>" for row in rows) if n == 1 else ""
        parts[f"xl/worksheets/sheet{n}.xml"] = f"<worksheet {main}><sheetData>{content}</sheetData></worksheet>"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return path


def word(text: str) -> str:
    return f"<c t='inlineStr'><is><t>{text}</t></is></c>"


def test_a_spreadsheet_is_read_as_the_person_sees_it(tmp_path: Path) -> None:
    head = word("id") + word("value")
    path = workbook(
        tmp_path / "rows.xlsx", head, "<c><v>12</v></c><c><v>12.5</v></c>", "<c><v>13</v></c><c/>", "<c/><c/>",
        "<c><v>14</v></c><c><v>0.30000000000000004</v></c>", "<c t='b'><v>1</v></c><c t='str'><f>A1</f><v></v></c>",
    )  # fmt: skip
    found = read(path)
    assert found.rows == [{"id": "12", "value": "12.5"}, {"id": "13"}, {"id": "14", "value": "0.3"}, {"id": "true"}]
    assert found.numbers == [2, 3, 5, 6]
    assert found.position(3) == "row 3 (row 5 of the sheet)"
    assert found.notes == []


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("<c r='B3' t='e'><v>#N/A</v></c>", "cell B3: #N/A, the result of a formula that failed"),
        ("<c r='B3' t='e'><f>1/0</f><v>#DIV/0!</v></c>", "cell B3: #DIV/0!"),
        ("<c r='B3'><f>A1+1</f></c>", "cell B3: a formula that was never calculated"),
        ("<c r='B3'><f>A1+1</f><v></v></c>", "cell B3: a formula that was never calculated"),
        (word("#REF!"), "cell B3: 'value' is #REF!"),
        ("<c><v>12345678901234567890</v></c>", "cell B3: a number of more than 15 digits"),
        ("<c/>" + word("x"), "cell C3: 'x' is in column 3, which has no name in row 2"),
    ],
)
def test_w7_a_cell_without_a_value_of_its_own_is_refused_by_its_name(tmp_path: Path, cell: str, said: str) -> None:
    path = workbook(tmp_path / "rows.xlsx", "<c/>", word("id") + word("value"), f"<c r='A3'><v>12</v></c>{cell}")
    with pytest.raises(ConfigError, match="Nothing was queued") as refused:
        read(path)
    assert said in str(refused.value)


def test_w7_other_sheets_and_rows_above_the_names_are_said(tmp_path: Path) -> None:
    rows = [word("Deals, January"), "", word("id") + word("value"), "<c><v>12</v></c><c><v>5</v></c>"]
    path = workbook(tmp_path / "rows.xlsx", *rows, sheets=2)
    with pytest.raises(ConfigError, match="If the names of the columns are in row 3: --header 3"):
        read(path)
    found = read(path, Format(header=3))
    assert found.rows == [{"id": "12", "value": "5"}]
    assert found.notes == ["rows.xlsx has 2 sheets; only the first, 's1', was read."]


TABLE = [{"id": "1", "name": "Müller €"}, {"id": "2", "name": "Łódź"}]
TEXT = "id;name\r\n1;Müller €\r\n2;Łódź\r\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode("utf-8"),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        ("sep=;\r\n" + TEXT).encode("utf-8-sig"),
        ("sep=|\n" + TEXT.replace(";", "|")).encode(),
        TEXT.replace("\r\n", "\r").encode(),
        TEXT.replace(";", "\t").encode("utf-16"),
        (TEXT.replace("\r\n", ";;\r\n") + ";;;\r\n\r\n;;;;\r\n").encode(),
    ],
    ids=["utf-8", "bom", "utf-16", "no bom", "big endian", "utf-32", "sep", "sep |", "cr", "excel unicode", "empty"],
)
def test_w7_a_csv_is_read_however_a_spreadsheet_has_saved_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    assert read(path).rows == TABLE


def test_w7_utf_16_is_known_by_its_mark_where_few_bytes_are_zero(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(("id;title\n1;" + "Łłź値й" * 40).encode("utf-16"))
    assert read(path).rows == [{"id": "1", "title": "Łłź値й" * 40}]


def test_w7_bytes_in_an_unknown_encoding_are_refused_and_read_when_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("id;name;city\n1;Müller;Köln\n".encode("windows-1252"))
    with pytest.raises(ConfigError, match="--encoding windows-1252") as refused:
        read(path)
    assert "line 2 is not UTF-8" in str(refused.value)
    assert "'Müller'" in str(refused.value)
    assert read(path, Format(encoding="windows-1252")).rows == [{"id": "1", "name": "Müller", "city": "Köln"}]
    with pytest.raises(ConfigError, match="--encoding windows-9 is unknown"):
        read(path, Format(encoding="windows-9"))


@pytest.mark.parametrize("title", ["Deals of January", "Deals of January;;", "Deals, January 2026;;", "\nReport\n"])
def test_w7_rows_above_the_names_are_refused_with_the_line_of_the_names(tmp_path: Path, title: str) -> None:
    path = tmp_path / "rows.csv"
    line = title.count("\n") + 2
    path.write_text(f"{title}\nid;title;note\n1;One;\n2;Two;x\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"--header {line}$"):
        read(path)
    found = read(path, Format(header=line))
    assert found.rows == [{"id": "1", "title": "One"}, {"id": "2", "title": "Two", "note": "x"}]
    assert found.position(2) == f"row 2 (line {line + 2})"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,value\n1,#N/A\n", "line 2: 'value' is #N/A, the result of a formula that failed"),
        ("id,value\n1,5\n2,#WERT!\n", "line 3: 'value' is #WERT!"),
        ("id,value\n1,=B2*2\n", "line 2: 'value' is the formula '=B2*2'"),
        ('id,value\n1,"a\nb"\n2,5,x\n', "line 4: 'x' is in column 3, which has no name in line 1"),
        ("id,,value\n1,x,5\n", "line 2: 'x' is in column 2, which has no name"),
        ('id,value\n1,"5\n2,6\n', "line 2: a quote that opens there is never closed"),
        ('id,value\n1,5\n2,"6"7\n', "line 3: text follows a closing quote"),
        ("id,value,id\n1,5,2\n", "named twice: 'id'"),
    ],
)
def test_w7_what_can_be_read_in_two_ways_is_refused_by_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="Nothing was queued") as refused:
        read(path)
    assert said in str(refused.value)


def test_w7_short_rows_are_said_and_long_notes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    long = "x" * 300_000
    path.write_text(f"id,,title,note\n1\n2,,Two,{long}\n\n3,,Three\n,,,\n", encoding="utf-8")
    found = read(path)
    assert found.rows == [{"id": "1"}, {"id": "2", "title": "Two", "note": long}, {"id": "3", "title": "Three"}]
    assert found.notes == [
        "2 rows with fewer cells than line 1 names columns; the missing ones count as empty: line 2, 5"
    ]


@pytest.mark.parametrize(
    "head", ['id;"Size, EUR";x', "id;Size, EUR, gross;x", "id;a,b;x"], ids=["quoted", "more commas", "as many"]
)
def test_w7_the_delimiter_is_what_all_lines_agree_on(tmp_path: Path, head: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"{head}\n1;2;3\n4;5;6\n", encoding="utf-8")
    assert [list(row.values()) for row in read(path).rows] == [["1", "2", "3"], ["4", "5", "6"]]


def test_w7_the_header_alone_holds_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,title\n,\n\n", encoding="utf-8")
    assert read(path).rows == []


# What `sql -o csv` writes.

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0")) | st.text(
    "'=+-@\t\r\n＝＋－＠NUL#/A!;, \"[]{}x1", max_size=6
)


@given(st.lists(st.tuples(st.integers(), TEXTS), min_size=1), st.booleans())
@settings(deadline=None)
def test_x10_what_export_guards_import_takes_off_and_nothing_else(rows: list[tuple[int, str]], raw: bool) -> None:
    text = _csv(["id", "@head"], [list(row) for row in rows], raw=raw)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        found = read(path, Format(raw=raw, null="\0 nothing")).rows
    assert [row["id"] for row in found] == [str(id) for id, _ in rows]
    assert [row.get("@head", "") for row in found] == [text for _, text in rows]
    written = [row[1] for row in csv.reader(io.StringIO(text, newline=""))]
    assert raw or not any(
        cell.startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")) for cell in written
    )


@pytest.mark.parametrize(
    "text",
    ["+372 5551234", "-20%", "@home", "=SUM(A1)", "'=x", "''+", "NULL", "'NULL", "#N/A", "\n=x", "＝1", "'t Hoen"],
)
def test_x10_a_text_that_needs_a_guard_comes_back_as_it_was(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.csv"
    written = _csv(["title"], [[text]], raw=False)
    assert written.splitlines()[1].lstrip('"').startswith("'")
    path.write_text(written, encoding="utf-8", newline="")
    assert read(path).rows == [{"title": text}]
    # Nothing is taken off what a person has written, unless it is such a quote before such a text.
    path.write_text("title\n'quoted'\n+372 1\n-5\n@me\n'\n''\n", encoding="utf-8")
    assert [row["title"] for row in read(path).rows] == ["'quoted'", "+372 1", "-5", "@me", "'", "''"]


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
        ("rows.csv", b"id\n1,2\n", "line 2: '2' is in column 2, which has no name in line 1"),
        ("rows.csv", b"id\n\xff\n", "can't be read as csv"),
        ("rows.json", b'{"id": 1}', "can't be read as json"),
        ("rows.ndjson", b"{]", "can't be read as ndjson"),
        ("rows.parquet", b"PAR", "can't be read as parquet"),
        ("rows.xlsx", b"PK", "can't be read as a spreadsheet"),
        ("rows.doc", b"", "does not name the format"),
    ],
)
def test_what_is_no_such_file_says_so(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        read(path)
