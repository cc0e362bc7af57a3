"""A person is taken out of an answer, and nothing else of it changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdsync.core import catalogue
from pdsync.extract.redact import FORGOTTEN, Redactor, identifiers_of, unique_identifiers

ANNA = Redactor(42, ["Anna Müller", "anna.mueller@example.com", "+49 30 1234567"])


def page(data: Any, **more: Any) -> bytes:
    return json.dumps({"success": True, "data": data, **more}).encode()


def cleaned(body: bytes, **how: Any) -> Any:
    made, rows, _ = ANNA.redact_page(body, None, how.pop("context", {}), **how)
    answer = json.loads(made)
    assert rows == len(answer["data"] or [])
    return answer


def test_the_person_goes_and_the_others_stay() -> None:
    answer = cleaned(page([{"id": 41}, {"id": 42, "name": "Anna Müller"}, {"id": 43, "org_id": 42}]), key="id")
    assert answer["data"] == [{"id": 41}, {"id": 43, "org_id": 42}]


def test_what_was_asked_about_the_person_goes_whole() -> None:
    body = page([{"field": "name"}, {"field": "phone"}])
    assert cleaned(body, context={"id": "42"}, parent_param="id")["data"] == []
    assert ANNA.redact_page(body, None, {"id": "41"}, parent_param="id")[0] == body


@pytest.mark.parametrize(
    "text",
    [
        "Deal with Anna Müller!",
        "ANNA MÜLLER",
        "anna_müller.pdf",
        "<a href='mailto:Anna.Mueller@example.com'>",
        "mailto:anna.mueller%40example.com",
        "<p>Anna M&uuml;ller</p>",
        "Anna M&#252;ller",
        "anna&nbsp;m&#xFC;ller",
        "call +49301234567",
        "(+49) 30-123 45 67",
    ],
)
def test_what_names_the_person_is_made_unreadable_however_it_is_written(text: str) -> None:
    for body in (
        page([{"id": 7, "title": text}]),
        json.dumps({"data": [{"title": text}]}, ensure_ascii=False).encode(),
    ):
        title = cleaned(body)["data"][0]["title"]
        assert FORGOTTEN in title
        assert ANNA.redact_text(title) == title


@pytest.mark.parametrize("text", ["Joanna Müllerson", "Anna Schmidt", "xanna.mueller@example.com", "30 1234567"])
def test_the_name_of_another_person_stays(text: str) -> None:
    body = page([{"id": 7, "title": text}])
    assert ANNA.redact_page(body, None, {})[0] == body


@pytest.mark.parametrize("phone", ["20 26 11 22", "20261122", "2026 11 22", "(202) 611-2212", "+2026112212"])
@pytest.mark.parametrize(
    "text",
    ["2026-11-22", "2026-11-22T12:30:00Z", "2026-11-22 12:30:00", "on 2026-11-22, 12 of us", "20261122T123000-0a1b2c"],
)
def test_threat_13_a_phone_number_with_the_digits_of_a_time_takes_nothing_out_of_times(phone: str, text: str) -> None:
    redactor = Redactor(42, [phone])
    assert redactor.redact_text(text) == text
    assert redactor.redact_text(f"call {phone}, since {text}") == f"call {FORGOTTEN}, since {text}"


def test_threat_13_a_date_that_is_named_itself_is_redacted() -> None:
    assert Redactor(42, ["1970-05-01"]).redact_text("born 1970-05-01") == f"born {FORGOTTEN}"


def test_threat_13_a_record_that_cannot_be_parsed_keeps_no_other_on_its_page() -> None:
    bad = b'{"id":43,"name":"Z\xff, Anna Schmidt"}'
    body = (
        b'{"data":[{"id":41}, '
        + bad
        + b', {"id":42,"name":"A. M.","boat":"Ada"}],"related_objects":{"person":'
        + (b'{"42":{"id":42,"name":"A. M."}}}}')
    )
    made, rows, counts = ANNA.redact_page(body, None, {}, key="id")
    assert made == b'{"data":[{"id":41},' + bad + b'],"related_objects":{"person":{"42":{"id":42}}}}'
    assert (rows, counts.removed, counts.changed) == (2, 1, 1)


def test_threat_13_a_record_that_cannot_be_parsed_goes_if_it_is_the_persons_and_is_redacted_if_not() -> None:
    body = b'{"data":[{"id":42,"name":"A. M\xff"},{"id":43,"owner":{"id":42},"note":"\xff Anna M\xc3\xbcller"}]}'
    made, rows, counts = ANNA.redact_page(body, None, {}, key="id")
    assert made == b'{"data":[{"id":43,"owner":{"id":42},"note":"\xff [forgotten]"}]}'
    assert (rows, counts.removed, counts.changed) == (1, 1, 1)


def test_v1_puts_whole_persons_in_the_place_of_ids_and_only_the_id_stays() -> None:
    someone = {"value": 42, "name": "A. M.", "email": [{"value": "private@example.org"}], "phone": None}
    answer = cleaned(
        page(
            [{"id": 7, "person_id": someone, "org_id": {"value": 42, "name": "Müller & Co"}}],
            related_objects={"person": {"42": {"id": 42, "name": "A. M."}, "43": {"id": 43, "name": "B. C."}}},
        )
    )
    assert answer["data"] == [{"id": 7, "person_id": {"value": 42}, "org_id": {"value": 42, "name": "Müller & Co"}}]
    assert answer["related_objects"] == {"person": {"42": {"id": 42}, "43": {"id": 43, "name": "B. C."}}}


def test_who_took_part_in_a_mail_has_an_id_of_another_kind() -> None:
    other = {"id": 42, "name": "B. C.", "linked_person_id": 43}
    person = {"id": 9, "name": "A. M.", "linked_person_id": 42}
    assert cleaned(page([{"id": 1, "from": [other, person]}]))["data"][0]["from"] == [
        other,
        {"linked_person_id": 42},
    ]


@pytest.mark.parametrize("name", ["from", "to", "cc", "bcc"])
@pytest.mark.parametrize(
    ("party", "is_theirs"),
    [
        ({"id": 9, "linked_person_id": 42, "email_address": "other@example.com"}, True),
        ({"id": 9, "linked_person_id": None, "email_address": "Anna.Mueller@example.com"}, True),
        ({"id": 42, "linked_person_id": 43, "email_address": "b@example.com"}, False),
    ],
)
def test_the_text_of_a_mail_goes_if_the_person_sent_or_received_it(
    name: str, party: dict[str, Any], *, is_theirs: bool
) -> None:
    message = {"id": 1, "from": [{"id": 5, "linked_person_id": 6}], "body": "<p>hello</p>", name: [party]}
    assert cleaned(page([message]), of_parties=True)["data"] == ([] if is_theirs else [message])
    assert len(cleaned(page([message]))["data"]) == 1


def test_numbers_keys_and_escapes_come_out_as_they_came_in() -> None:
    body = b'{"data":[{"a":1.10,"a":1e400,"n":12345678901234567890.10,"s":"\\ud83d","t":"Anna M\\u00fcller","z":-0}]}'
    made, rows, found = ANNA.redact_page(body, None, {})
    assert made == b'{"data":[{"a":1.10,"a":1e400,"n":12345678901234567890.10,"s":"\\ud83d","t":"[forgotten]","z":-0}]}'
    assert (rows, found.removed, found.changed) == (1, 0, 1)


def test_one_record_and_plain_values_are_found_where_the_operation_has_them() -> None:
    one = next(op for op in catalogue.operations("v1").values() if op.records == "one" and op.records_in is None)
    made, rows, _ = ANNA.redact_page(page({"id": 42, "name": "Anna Müller"}), one, {}, key="id")
    assert json.loads(made)["data"] is None
    assert rows == 0


def test_identifiers_come_from_both_versions_and_shared_ones_are_separate() -> None:
    v1 = {"name": "Anna Müller", "email": [{"value": "a@example.com"}], "phone": [{"value": ""}]}
    v2 = {"first_name": "Anna", "last_name": "Müller", "emails": [{"value": "b@example.com"}], "phones": None}
    found = identifiers_of(v1) | identifiers_of(v2)
    assert found == {"Anna Müller", "Müller Anna", "Müller, Anna", "a@example.com", "b@example.com"}
    own, shared = unique_identifiers({*found, "Cher"}, ["ANNA MÜLLER"])
    assert shared == {"Anna Müller", "Cher"}
    assert own == found - {"Anna Müller"}


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
_VALUES = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner))


@settings(max_examples=30, deadline=None)
@given(records=st.lists(st.dictionaries(st.text(max_size=5), _VALUES, max_size=4), max_size=4))
def test_the_records_of_others_keep_their_values(records: list[dict[str, Any]]) -> None:
    made, rows, _ = Redactor(987654321, ["Quasi Modo"]).redact_page(
        page([*records, {"id": 987654321}], note="Quasi Modo"), None, {}, key="id"
    )
    assert json.loads(made)["data"] == records
    assert rows == len(records)
