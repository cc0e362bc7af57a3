"""Rows of a spreadsheet, and the cells that it shows otherwise than the library reads them."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

from pdsync.errors import ConfigError
from pdsync.writeback import spreadsheets

if TYPE_CHECKING:
    from pathlib import Path

WORKBOOK = (
    '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    ' xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets>{}</sheets></workbook>'
)
LINKS = '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}</Relationships>'
LINK = (
    '<Relationship Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/{}" Id="{}" Target="{}"/>'
)
SHEET = (
    '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>{}</sheetData></worksheet>'
)


def workbook(path: Path, rows: str, *, target: str = "worksheets/sheet1.xml", others: int = 0) -> Path:
    """A spreadsheet whose first sheet has `rows`."""
    ids = ["rId7", *(f"rId{8 + index}" for index in range(others))]
    sheets = [f'<sheet name="s{n}" sheetId="{n}" r:id="{id}"/>' for n, id in enumerate(ids, 1)]
    targets = [target, *(f"worksheets/other{index}.xml" for index in range(others))]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_rels/.rels", LINKS.format(LINK.format("officeDocument", "rId1", "xl/workbook.xml")))
        archive.writestr("xl/workbook.xml", WORKBOOK.format("".join(sheets)))
        links = [LINK.format("worksheet", id, to) for id, to in reversed(list(zip(ids, targets, strict=True)))]
        archive.writestr("xl/_rels/workbook.xml.rels", LINKS.format("".join(links)))
        archive.writestr(target[1:] if target[0] == "/" else f"xl/{target}", SHEET.format(rows))
        for to in targets[1:]:
            archive.writestr(f"xl/{to}", SHEET.format("<row r='1'><c r='A1' t='e'><v>#REF!</v></c></row>"))
    return path


def cell(name: str, inner: str, kind: str = "") -> str:
    attributes = f"r='{name}'" + (f" t='{kind}'" if kind else "")
    return f"<row r='{name[1:]}'><c {attributes}>{inner}</c></row>"


@pytest.mark.parametrize(
    ("column", "letters"), [(0, "A"), (25, "Z"), (26, "AA"), (51, "AZ"), (52, "BA"), (701, "ZZ"), (702, "AAA")]
)
def test_columns_have_the_letters_of_a_spreadsheet(column: int, letters: str) -> None:
    assert spreadsheets.column_letters(column) == letters


@pytest.mark.parametrize("target", ["worksheets/sheet1.xml", "worksheets/odd name.xml", "/xl/worksheets/sheet1.xml"])
def test_w7_the_first_sheet_is_read_wherever_it_is_stored(tmp_path: Path, target: str) -> None:
    rows = "<row r='1'><c r='A1'><v>5</v></c><c r='C1' t='inlineStr'><is><t>x</t></is></c></row>"
    found, notes = spreadsheets.read(workbook(tmp_path / "a.xlsx", rows, target=target))
    assert (found, notes) == ([[5.0, "", "x"]], [])


def test_other_sheets_are_named_and_their_errors_ignored(tmp_path: Path) -> None:
    found, notes = spreadsheets.read(workbook(tmp_path / "a.xlsx", cell("A1", "<v>5</v>"), others=2))
    assert found == [[5.0]]
    assert notes == ["a.xlsx has 3 sheets; only the first, 's1', was read."]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (cell("B2", "<v>#N/A</v>", "e"), "cell B2: #N/A, the result of a formula that failed"),
        (cell("B2", "<f>1/0</f><v>#DIV/0!</v>", "e"), "cell B2: #DIV/0!, the result of a formula that failed"),
        (cell("B2", "", "e"), "cell B2: an error, the result of a formula that failed"),
        (cell("B2", "<f>A1+1</f>"), "cell B2: a formula that was never calculated"),
        (cell("B2", "<f>A1+1</f><v></v>"), "cell B2: a formula that was never calculated"),
        (cell("B2", "<v>1000000000000000</v>"), "cell B2: a number of more than 15 digits"),
        (cell("B2", "<v>4111111111111110</v>"), "cell B2: a number of more than 15 digits"),
        (cell("B2", "<v>-4.11111111111111E+15</v>"), "cell B2: a number of more than 15 digits"),
        (cell("B2", "<v>12345678901234567890</v>"), "cell B2: a number of more than 15 digits"),
    ],
)
def test_w7_a_cell_without_a_value_that_could_be_sent_is_refused(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(ConfigError, match="Nothing was queued") as refused:
        spreadsheets.read(workbook(tmp_path / "a.xlsx", row))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "row",
    [
        cell("A1", "<f>1+1</f><v>2</v>"),
        cell("A1", "<f>\"\"</f><v></v>", "str"),  # a formula whose result is an empty text
        cell("A1", "<v>999999999999999</v>"),
        cell("A1", "<v>-999999999999999</v>"),
        cell("A1", "<is><t>#N/A</t></is>", "inlineStr"),  # a text that only looks like an error
    ],
)  # fmt: skip
def test_a_formula_that_was_calculated_is_read(tmp_path: Path, row: str) -> None:
    found, _ = spreadsheets.read(workbook(tmp_path / "a.xlsx", row))
    assert len(found) == 1


def open_document(path: Path, number: str) -> Path:
    """An .ods spreadsheet with one cell."""
    names = ('xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"'
             ' xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"'
             ' xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"')  # fmt: skip
    cell = f'<table:table-cell office:value-type="float" office:value="{number}"><text:p/></table:table-cell>'
    table = f'<table:table table:name="s1"><table:table-row>{cell}</table:table-row></table:table>'
    body = f"<office:body><office:spreadsheet>{table}</office:spreadsheet></office:body>"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("META-INF/manifest.xml", "<manifest/>")
        archive.writestr("content.xml", f"<office:document-content {names}>{body}</office:document-content>")
    return path


def test_w7_an_open_document_has_the_same_limit(tmp_path: Path) -> None:
    assert spreadsheets.read(open_document(tmp_path / "a.ods", "999999999999999"))[0] == [[999999999999999.0]]
    with pytest.raises(ConfigError, match="cell A1: a number of more than 15 digits"):
        spreadsheets.read(open_document(tmp_path / "b.ods", "4111111111111110"))


@pytest.mark.parametrize("content", [b"", b"PK", b"no spreadsheet", b"id,title\n1,x\n"])
def test_a_file_that_is_no_spreadsheet_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.xlsx").write_bytes(content)
    with pytest.raises(ConfigError, match="can't be read as a spreadsheet"):
        spreadsheets.read(tmp_path / "a.xlsx")
