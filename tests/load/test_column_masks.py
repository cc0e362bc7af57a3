"""What a mask names, and what is left of a value that it hides."""

from __future__ import annotations

import duckdb
import pytest

from pdsync.errors import ConfigError
from pdsync.load.column_masks import How, Mask, resolve, selected

TABLES = {
    "persons": ["id", "name", "emails", "_extra"],
    "person_emails": ["person_id", "position", "value", "label", "primary"],
    "deals": ["id", "title", "name"],
}


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("email=hash", Mask(None, "email", "hash")),
        ("persons.email=keep_domain", Mask("persons", "email", "keep_domain")),
    ],
)
def test_a_mask_is_read_and_written_alike(text: str, mask: Mask) -> None:
    assert Mask.of(text) == mask
    assert str(mask) == text


@pytest.mark.parametrize("text", ["email", "=hash", "email=", "email=HASH", "persons.=hash", "email=drop"])
def test_a_mask_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write it like email=hash"):
        Mask.of(text)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("name=null", {"persons": {"name": "null"}, "deals": {"name": "null"}}),
        ("deals.name=null", {"deals": {"name": "null"}}),
        ("email=hash", {"persons": {"emails": "hash"}, "person_emails": {"value": "hash"}}),
        ("person_emails.emails=hash", {"persons": {"emails": "hash"}, "person_emails": {"value": "hash"}}),
    ],
)
def test_a_mask_reaches_every_table_that_shows_the_value(text: str, masked: dict[str, dict[str, How]]) -> None:
    assert resolve([Mask.of(text)], TABLES) == {**{table: {} for table in TABLES}, **masked}


def test_a_mask_that_matches_no_column_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="Did you mean title"):
        resolve([Mask.of("titel=hash")], TABLES)
    with pytest.raises(ConfigError, match="no exported table"):
        resolve([Mask.of("leads.title=hash")], TABLES)


def masked(value: str, how: How, extra: str = "NULL") -> tuple[object, ...]:
    with duckdb.connect() as connection:
        relation = connection.sql(f"SELECT {value} AS v, {extra} AS _extra")
        columns = dict(zip(relation.columns, relation.types, strict=True))
        row = connection.execute(f"SELECT {selected(columns, {'v': how}, 'key')} FROM relation").fetchone()
        assert row is not None
        return row


def test_equal_values_have_equal_hashes_whatever_their_case_and_spaces() -> None:
    one, other = masked("'Ann@Example.com '", "hash")[0], masked("'ann@example.com'", "hash")[0]
    assert one == other
    assert len(str(one)) == 64
    assert one != masked("'bob@example.com'", "hash")[0]
    assert masked("NULL::VARCHAR", "hash")[0] is None


def test_keep_domain_hides_the_name_and_a_value_without_a_domain_whole() -> None:
    assert str(masked("'Ann@Example.com'", "keep_domain")[0]).partition("@")[1:] == ("@", "example.com")
    assert "ann" not in str(masked("'Ann'", "keep_domain")[0])


def test_null_keeps_the_type() -> None:
    assert masked("42::BIGINT", "null") == (None, None)


def test_a_list_of_values_is_masked_in_each_value_alone() -> None:
    (emails, _) = masked("[{'value': 'ann@x.com', 'label': 'work'}]", "keep_domain")
    assert isinstance(emails, list)
    assert emails[0]["label"] == "work"
    assert emails[0]["value"].endswith("@x.com")
    assert "ann" not in emails[0]["value"]


def test_where_a_column_is_masked_no_raw_value_is_left_in_extra() -> None:
    assert masked("'Ann'", "hash", """'{"v":"Ann"}'::JSON""")[1] is None


def test_intervals_and_times_of_day_become_texts() -> None:
    with duckdb.connect() as connection:
        relation = connection.sql("SELECT INTERVAL '90 minutes' AS i, TIME '01:30' AS t")
        columns = dict(zip(relation.columns, relation.types, strict=True))
        assert connection.execute(f"SELECT {selected(columns, {}, 'key')} FROM relation").fetchall() == [
            ("01:30:00", "01:30:00")
        ]
