"""Entries follow the rules, or are refused with the file, the table, the key and a guess; each is found by its name."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.errors import CatalogueError

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.model import Stream, Version

GOOD = 'method = "GET"\npath = "/api/v2/deals/{id}"\ncost = 1\n'
FILE = "schemas/operations/v2/deals.toml"


@pytest.fixture
def deals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only file of an otherwise empty catalogue."""
    file = tmp_path / "operations" / "v2" / "deals.toml"
    file.parent.mkdir(parents=True)
    monkeypatch.setattr(catalogue, "schemas", lambda: tmp_path)
    monkeypatch.setattr(catalogue, "operations", catalogue.operations.__wrapped__)  # bypasses the cache
    return file


def test_what_an_entry_leaves_out_follows_the_rules(deals: Path) -> None:
    deals.write_text(f'tag = "Deals"\n[getDeal]\n{GOOD}removed = true\nbody.title = "string"\n')
    operation = catalogue.operations("v2")["getDeal"]
    assert (operation.id, operation.version, operation.tag) == ("getDeal", "v2", "Deals")
    assert (operation.path_params["id"].type, operation.path_params["id"].required) == ("integer", True)
    assert (operation.content, operation.deprecated) == ("json", True)


@pytest.mark.parametrize("version", catalogue.VERSIONS)
def test_the_headings_alone_name_every_operation(version: Version) -> None:
    assert catalogue.operation_ids(version) == catalogue.operations(version).keys()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('pagign = "cursor"', "[getDeal]: Object contains unknown field `pagign`. Did you mean 'paging'?"),
        ('paging = "cursr"', "[getDeal]: Invalid enum value 'cursr' - at `$.paging`. Did you mean 'cursor'?"),
        ('scopes = "deals:read"', "[getDeal]: Expected `array`, got `str` - at `$.scopes`."),
        ('version = "v1"', "[getDeal]: leave out 'version'"),
        (
            'query.ids = "strng"',
            "[getDeal] query.ids: Invalid enum value 'strng' - at `$.type`. Did you mean 'string'?",
        ),
        (
            'query.ids = {type = "string", maxx = 100}',
            "[getDeal] query.ids: Object contains unknown field `maxx`. Did you mean 'max'?",
        ),
        ("query.ids = {max = 100}", "[getDeal] query.ids: Object missing required field `type`."),
        ("query.ids = 3", "[getDeal] query.ids: Expected `object`, got `int`."),
        ('query = "ids"', "[getDeal] query: expected a table, got `'ids'`."),
    ],
)
def test_a_bad_entry_is_named_with_a_guess(deals: Path, lines: str, says: str) -> None:
    deals.write_text(f'tag = "Deals"\n[getDeal]\n{GOOD}{lines}\n')
    with pytest.raises(CatalogueError) as caught:
        catalogue.operations("v2")
    assert str(caught.value).startswith(f"{FILE} {says}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('tag = "Deals"\n[getDeal\n', "this is not TOML: Expected ']' at the end of a table declaration (at line 2"),
        ('tag = "Deals"\n[getDeal]\nmethod = "GET"\n', "[getDeal]: Object missing required field `path`."),
        ("[getDeal]\n" + GOOD, 'a line like tag = "Deals" is missing at the top.'),
        ('tag = "Deals"\ngetDeal = "GET"\n', "[getDeal]: expected a table, got `'GET'`."),
    ],
)
def test_a_bad_file_is_named(deals: Path, text: str, says: str) -> None:
    deals.write_text(text)
    with pytest.raises(CatalogueError) as caught:
        catalogue.operations("v2")
    assert str(caught.value).startswith(FILE)
    assert says in str(caught.value)


def test_a_name_that_is_taken_is_refused(deals: Path) -> None:
    for name in ("deals", "other"):
        deals.with_stem(name).write_text(f'tag = "Deals"\n[getDeal]\n{GOOD}')
    with pytest.raises(CatalogueError, match=r"other.toml \[getDeal\]: v2 has an operation of that name already"):
        catalogue.operations("v2")


def test_a_copy_without_entries_says_so(deals: Path) -> None:
    with pytest.raises(CatalogueError, match="has no entries, so this copy of pdsync is incomplete"):
        catalogue.operations("v2")


STREAM = (
    'name = "things"\ntopic = "deals"\ntitle = "name"\n[[v2]]\noperation = "getDeals"\n'
    '[columns]\nid = "BIGINT"\nname = "VARCHAR"\n'
)
LISTS = f'tag = "Deals"\n[getDeals]\nmethod = "GET"\npath = "/api/v2/deals"\ncost = 1\n[getDeal]\n{GOOD}'


def streams(deals: Path, text: str) -> dict[str, Stream]:
    """The streams of a catalogue with one file, and one operation for it."""
    deals.write_text(LISTS)
    (deals.parents[1] / "v1").mkdir()
    (deals.parents[1] / "v1" / "none.toml").write_text('tag = "None"\n')
    (deals.parents[2] / "streams").mkdir()
    (deals.parents[2] / "streams" / "things.toml").write_text(text)
    return catalogue.streams.__wrapped__()


def test_a_stream_has_the_operations_and_columns_that_it_names(deals: Path) -> None:
    assert list(streams(deals, STREAM)) == ["things"]


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('"getDeals"', '"getDealz"', "v2 has no operation 'getDealz'. Did you mean 'getDeal'?"),
        ('[[v2]]\noperation = "getDeals"\n', "", "no list operation: add [[v2]] or [[v1]]."),
        ("[[v2]]", 'cursor = "nmae"\n[[v2]]', "there is no column 'nmae' in [columns]. Did you mean 'name'?"),
        ("[[v2]]", 'deleted = "!alive"\n[[v2]]', "there is no column 'alive' in [columns]."),
        ("[[v2]]", 'key = "uuid"\n[[v2]]', "there is no column 'uuid' in [columns]."),
        ("[columns]", '[children.parts]\nof = "parts"\nparent = "id"\n[columns]', "there is no column 'parts'"),
        ("[columns]", 'parent = {stream = "none"}\n[columns]', "there is no stream 'none' to be the parent."),
        ("[columns]", 'parent = {stream = "things", having = "size"}\n[columns]', "things has no column 'size'."),
        ("[columns]", 'parent = {stream = "things", counts = true}\n[columns]', "`counts` takes a count (`having`)"),
        ("[[v2]]", 'fields = "thing_fields"\n[[v2]]', "there is no stream 'thing_fields'."),
        ("[[v2]]", 'changelog = "thigns"\n[[v2]]', "there is no stream 'thigns'. Did you mean 'things'?"),
        ("[columns]", '[labels]\nid = "thing"\n[columns]', "there is no stream 'thing'. Did you mean 'things'?"),
        (
            "[columns]",
            'origin = {source = "live", flag = "name"}\n[columns]',
            "there is no list 'live' to be the origin.",
        ),
        (
            "[columns]",
            'name = "a"\norigin = {source = "a", flag = "x"}\n[columns]',
            "there is no column 'x' in [columns].",
        ),
        ("[columns]", "no_such_key = 1\n[columns]", "unknown field `no_such_key`"),
        ("[columns]", 'negated = ["v1"]\n[columns]', "unknown field `negated` - at `$.v2[0]`."),  # a key of columns
    ],
)
def test_a_stream_that_names_what_is_not_there_is_refused(deals: Path, before: str, after: str, says: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        streams(deals, STREAM.replace(before, after))
    assert str(caught.value).startswith("schemas/streams/things.toml: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("deal", "There is no stream 'deal'. Did you mean 'deals'"),
        ("§", "There is no stream '§'.\nNothing was called. `pdsync streams` lists all of them."),
    ],
)
def test_an_unknown_stream_is_refused_with_the_names_that_come_near(name: str, says: str) -> None:
    assert catalogue.stream("deals").name == "deals"
    with pytest.raises(CatalogueError) as caught:
        catalogue.stream(name)
    assert says in str(caught.value)


def test_streams_that_define_the_fields_of_others_come_first() -> None:
    """Their records tell which columns the others have."""
    order = list(catalogue.streams())
    definitions = {stream.fields for stream in catalogue.streams().values() if stream.fields}
    assert set(order[: len(definitions)]) == definitions
    assert order[len(definitions) :] == sorted(order[len(definitions) :])


def test_files_come_in_the_order_of_their_names_and_may_begin_with_a_byte_order_mark(deals: Path) -> None:
    for name in ("b", "a"):
        (deals.parent / f"{name}.toml").write_text(f"\ufeffname = '{name}'\n", encoding="utf-8")
    assert list(catalogue.files("operations/v2")) == [
        (f"schemas/operations/v2/{name}.toml", {"name": name}) for name in ("a", "b")
    ]


def test_sql_files_are_found_by_their_names(deals: Path) -> None:
    folder = deals.parents[2] / "views"
    folder.mkdir()
    (folder / "won.sql").write_text("SELECT 'ü'", encoding="utf-8")
    (folder / "readme.txt").write_text("")
    assert catalogue.sql("views") == {"won": "SELECT 'ü'"}


class Inner(Struct, forbid_unknown_fields=True):
    way: str


class Outer(Struct, forbid_unknown_fields=True):
    inner: list[Inner]


def test_the_guess_knows_the_keys_of_the_structs_inside() -> None:
    with pytest.raises(CatalogueError, match=r"^schemas/x.toml: .* `wya` - at `\$.inner\[0\]`. Did you mean 'way'\?"):
        catalogue.read({"inner": [{"wya": "full"}]}, Outer, "schemas/x.toml")


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [
        ("getDeals", None, "v2 getDeals"),  # in both: the newer one
        ("getLeads", None, "v1 getLeads"),  # in v1 only
        ("getDeals", "v1", "v1 getDeals"),
        ("v1:getDeals", None, "v1 getDeals"),
        ("v1 getDeals", None, "v1 getDeals"),
        ("v1:getDeals", "v2", "v1 getDeals"),  # the version in the name wins
    ],
)
def test_an_operation_is_found_by_its_name(name: str, version: Version | None, found: str) -> None:
    assert catalogue.operation(name, version).name == found


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("getDealz", "There is no operation 'getDealz' in v2 or v1. Did you mean 'getDeal' or 'getDeals'"),
        ("GETDEALS", "Did you mean 'getDeals'"),
        ("v2:addNote", "There is no operation 'addNote' in v2. Did you mean 'v1 addNote'?"),
        ("v1:convertLeadToDeal", "Did you mean 'v2 convertLeadToDeal'?"),
        ("§", "There is no operation '§' in v2 or v1.\nNothing was called."),
    ],
)
def test_an_unknown_operation_is_refused_with_the_names_that_come_near(name: str, says: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        catalogue.operation(name)
    assert says in str(caught.value)
    assert "`pdsync operations` lists all of them" in str(caught.value)


def test_files_are_read_on_first_use() -> None:
    code = (
        "from pdsync.core import catalogue as c; before = c.operations.cache_info().currsize;"
        "c.operation('getDeals'); print(before, c.operations.cache_info().currsize)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "1"]  # v2 alone
