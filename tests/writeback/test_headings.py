"""The parameter that the heading of a column means."""

from __future__ import annotations

import pytest

from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.writeback.resolver import NameResolver
from tests.writeback.company import NOW, SIZE
from tests.writeback.kit import open_warehouse


@pytest.mark.parametrize(
    ("heading", "parameter"),
    [
        ("title", "title"), ("Title", "title"), ("Deal - Title", "title"), ("Titel", "title"),
        ("Deal - Titel", "title"),
        ("Deal - Deal size", "Deal size"), ("Deal size", "Deal size"), ("cf_deal_size", "cf_deal_size"), (SIZE, SIZE),
        ("Person - Title", "Person - Title"), ("Nonsense", "Nonsense"), ("_as", "_as"),
    ],
)  # fmt: skip
def test_the_heading_of_an_export_is_resolved(names: NameResolver, heading: str, parameter: str) -> None:
    assert names.resolve_heading(catalogue.operation("updateDeal"), heading) == parameter


def test_a_heading_that_means_two_fields_is_refused() -> None:
    with open_warehouse() as other:
        other.execute(
            "INSERT INTO meta.custom_fields (entity, field_code, label, column_name, field_type, last_seen)"
            " VALUES ('deals', ?, 'Title', 'cf_title', 'varchar', ?)",
            [SIZE, NOW],
        )
        with pytest.raises(ConfigError, match="means title, or the custom field 'Title'"):
            NameResolver(other).resolve_heading(catalogue.operation("updateDeal"), "Deal - Title")
