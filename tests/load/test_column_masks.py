"""What a mask names, and what is left of a value that it hides."""

from __future__ import annotations

import duckdb
import pytest

from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.load.column_masks import How, Mask, resolve, selected
from pdsync.load.warehouse import distinct

TABLES = {
    "persons": ["id", "name", "emails", "_extra"],
    "person_emails": ["person_id", "position", "value", "label", "primary"],
    "deals": ["id", "title", "name", "label_ids"],
    "deal_labels": ["deal_id", "position", "label_id"],
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
        ("person_emails.label=null", {"persons": {"emails.label": "null"}, "person_emails": {"label": "null"}}),
        ("label=null", {"persons": {"emails.label": "null"}, "person_emails": {"label": "null"}}),
        ("person_emails.value=hash", {"persons": {"emails.value": "hash"}, "person_emails": {"value": "hash"}}),
        ("deal_labels.label_id=hash", {"deals": {"label_ids": "hash"}, "deal_labels": {"label_id": "hash"}}),
        ("label_id=hash", {"deals": {"label_ids": "hash"}, "deal_labels": {"label_id": "hash"}}),
    ],
)
def test_a_mask_reaches_every_table_that_shows_the_value(text: str, masked: dict[str, dict[str, How]]) -> None:
    assert resolve([Mask.of(text)], TABLES) == {**{table: {} for table in TABLES}, **masked}


def test_a_mask_that_matches_no_column_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="Did you mean title"):
        resolve([Mask.of("titel=hash")], TABLES)
    with pytest.raises(ConfigError, match="no exported table"):
        resolve([Mask.of("leads.title=hash")], TABLES)
    with pytest.raises(ConfigError, match=r"no exported table has such a column\. Did you mean label\?"):
        resolve([Mask.of("person_emails.labl=hash")], TABLES)
    with pytest.raises(ConfigError, match="no exported table"):
        resolve([Mask.of("person_emails.nonsense=hash")], TABLES)


def test_of_every_list_each_column_of_its_view_is_masked_in_the_list_too() -> None:
    for stream in catalogue.streams().values():
        for child, entry in stream.children.items():
            items = list(stream.column(entry.of).items)
            shown = [entry.value] if entry.value else distinct(items, (entry.parent, "position"))
            tables = {stream.name: [stream.key, entry.of], child: [entry.parent, "position", *shown]}
            for at, column in enumerate(shown):
                found = resolve([Mask.of(f"{child}.{column}=hash")], tables)
                place = entry.of if entry.value else f"{entry.of}.{items[at]}"
                assert (found[child][column], found[stream.name][place]) == ("hash", "hash")
                whole = f"{column}s" == entry.of  # `price` is also the list `prices`
                assert whole or [len(each) for each in found.values()] == [1, 1], (child, column)


def masked(value: str, how: How, extra: str = "NULL", column: str = "v") -> tuple[object, ...]:
    with duckdb.connect() as connection:
        relation = connection.sql(f"SELECT {value} AS v, {extra} AS _extra")
        columns = dict(zip(relation.columns, relation.types, strict=True))
        row = connection.execute(f"SELECT {selected(columns, {column: how}, 'key')} FROM relation").fetchone()
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


@pytest.mark.parametrize("how", ["hash", "null", "keep_domain"])
def test_a_field_of_a_list_is_masked_and_its_neighbours_stay(how: How) -> None:
    elements = "[{'email': 'ann@x.com', 'name': 'Ann', 'id': 7}]"
    emails, extra = masked(elements, how, """'{"v":"Ann"}'::JSON""", column="v.email")
    assert isinstance(emails, list)
    assert "ann" not in str(emails[0]["email"])
    assert (emails[0]["name"], emails[0]["id"]) == ("Ann", 7)
    assert extra is None


@pytest.mark.parametrize("value", ["'ann@x.com'", "['ann@x.com']", """'[{"email": "ann@x.com"}]'::JSON"""])
@pytest.mark.parametrize("how", ["hash", "null"])
def test_a_value_without_the_masked_field_is_masked_whole(value: str, how: How) -> None:
    assert "ann" not in str(masked(value, how, column="v.email")[0])


def test_where_a_column_is_masked_no_raw_value_is_left_in_extra() -> None:
    assert masked("'Ann'", "hash", """'{"v":"Ann"}'::JSON""")[1] is None


def test_intervals_and_times_of_day_become_texts() -> None:
    with duckdb.connect() as connection:
        relation = connection.sql("SELECT INTERVAL '90 minutes' AS i, TIME '01:30' AS t")
        columns = dict(zip(relation.columns, relation.types, strict=True))
        assert connection.execute(f"SELECT {selected(columns, {}, 'key')} FROM relation").fetchall() == [
            ("01:30:00", "01:30:00")
        ]
