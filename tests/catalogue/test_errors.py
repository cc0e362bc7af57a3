"""An invalid entry is refused with the file, the table, the key and a guess."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.errors import CatalogueError

if TYPE_CHECKING:
    from pathlib import Path

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
    with pytest.raises(CatalogueError, match="holds no entries, so this copy of pdsync is incomplete"):
        catalogue.operations("v2")


class Inner(Struct, forbid_unknown_fields=True):
    way: str


class Outer(Struct, forbid_unknown_fields=True):
    inner: list[Inner]


def test_the_guess_knows_the_keys_of_the_structs_inside() -> None:
    with pytest.raises(CatalogueError, match=r"^schemas/x.toml: .* `wya` - at `\$.inner\[0\]`. Did you mean 'way'\?"):
        catalogue.read({"inner": [{"wya": "full"}]}, Outer, "schemas/x.toml")
