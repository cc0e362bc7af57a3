"""A value sent for a field is stored as it should be, or refused with the field's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pdsync.sandbox import Sizes, generate_company
from pdsync.sandbox.protocol.errors import Refused
from pdsync.sandbox.protocol.validation import check

if TYPE_CHECKING:
    from pdsync.sandbox import Company


@pytest.fixture(scope="module")
def company() -> Company:
    return generate_company(seed=7, sizes=Sizes(deals=5))


@pytest.mark.parametrize(
    ("spec", "value", "stored"),
    [
        ("text?", None, None),
        ("labels", None, []),
        ("custom", None, {}),
        ("percent", 0, 0),
        ("percent", 100, 100),
        ("date", "2026-11-01", "2026-11-01"),
        ("time", "2026-11-01 10:00:00", "2026-11-01T10:00:00Z"),
        ("hour", "9:05", "9:05:00"),
        ("one_of:open,won", "won", "won"),
        ("category", 7, "7"),
        ("contacts", [{"value": "a"}, {"value": "b"}], [
            {"value": "a", "primary": True, "label": "work"}, {"value": "b", "primary": False, "label": "work"}]),
        ("contacts", [{"value": "a"}, {"value": "b", "primary": True, "label": "home"}], [
            {"value": "a", "primary": False, "label": "work"}, {"value": "b", "primary": True, "label": "home"}]),
    ],
)  # fmt: skip
def test_a_valid_value_is_normalised(company: Company, spec: str, value: Any, stored: Any) -> None:
    assert check(spec, value, "code", company, "deals") == stored


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ("text", None), ("text", 1), ("number", True), ("number", float("nan")), ("integer", 1.0), ("percent", 100.1),
        ("percent", -1), ("bool", 1), ("date", "2026-02-30"), ("time", "noon"), ("hour", "10:60"),
        ("one_of:open,won", "lost"), ("currency", "eur"), ("visible_to", 2), ("visible_to", True), ("ref:users", 10**9),
        ("labels", [10**9]), ("contacts", [{}]), ("address", {"value": "x", "planet": "Mars"}), ("prices", [{}]),
        ("custom", {"unknown": 1}),
    ],
)  # fmt: skip
def test_an_invalid_value_is_refused(company: Company, spec: str, value: Any) -> None:
    with pytest.raises(Refused) as caught:
        check(spec, value, "code", company, "deals")
    assert caught.value.status == 400
