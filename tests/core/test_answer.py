"""What an answer means: by status, content type and words."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pdsync.core.answer import Answer, Retryable, answer_is_unknown, error_text, judge, note_headers, number_in
from pdsync.core.budget import Budget
from pdsync.core.control import Control
from pdsync.core.request import Request
from pdsync.errors import (
    ApiError,
    AuthError,
    BadAnswer,
    BudgetSpent,
    CoolingDown,
    FeatureOff,
    Forbidden,
    NotFound,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
JSON = {"content-type": "application/json; charset=utf-8"}
READ = Request(method="GET", path="/api/v2/deals", label="v2 getDeals")
WRITE = Request(method="POST", path="/api/v2/deals", label="v2 addDeal")


@pytest.fixture
def budget(tmp_path: Path) -> Iterator[Budget]:
    Control(tmp_path / "control.db").close()
    with closing(Budget(tmp_path / "control.db", "token", burst=0, daily_tokens=30_000)) as budget:
        yield budget


def answer(status: int, body: bytes = b"{}", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {**JSON, **named}, body, NOW)


@pytest.mark.parametrize(
    "body", [b'{"success": true, "data": []}', b"", b"[1]", b"\x89PNG", b'{"data": {"success": false}}']
)
@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_success_passes(budget: Budget, status: int, body: bytes) -> None:
    judge(answer(status, body), READ, budget)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (200, "false is said", ApiError),
        (400, "Bad request", ApiError),
        (401, "unauthorized access", AuthError),
        (402, "Payment required", FeatureOff),
        (403, "Scope and URL mismatch", Forbidden),
        (403, "This feature is not enabled for your company", FeatureOff),
        (404, "Deal not found", NotFound),
        (409, "Conflict", ApiError),
        (410, "Gone", NotFound),
        (410, "The Projects add-on is not part of your plan", FeatureOff),
        (415, "Unsupported", FeatureOff),
        (422, "Validation failed", ApiError),
    ],
)
def test_s9_a_refusal_is_an_error_of_its_kind_with_the_servers_words(
    budget: Budget, status: int, error: str, kind: type[Exception]
) -> None:
    body = f'{{"success": false, "error": "{error}"}}'.encode()
    with pytest.raises(kind, match=error if status != 200 else "v2 getDeals") as raised:
        judge(answer(status, body, x_correlation_id="abc"), READ, budget)
    assert type(raised.value) is kind
    if isinstance(raised.value, ApiError):
        assert (raised.value.status, raised.value.operation) == (status, "v2 getDeals")


def test_a_write_that_is_refused_for_an_add_on_is_forbidden_and_not_left_out(budget: Budget) -> None:
    with pytest.raises(Forbidden):
        judge(answer(403, b'{"error": "This feature is not enabled"}'), WRITE, budget)


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 507, 520, 524, 525, 529, 530, 599])
def test_w4_trouble_of_the_server_may_be_repeated_and_leaves_a_write_unknown(budget: Budget, status: int) -> None:
    with pytest.raises(Retryable) as raised:
        judge(answer(status, b"<html>"), READ, budget)
    assert answer_is_unknown(raised.value, "POST")
    assert not answer_is_unknown(raised.value, "GET")


def test_x3_a_redirect_is_not_followed(budget: Budget) -> None:
    with pytest.raises(BadAnswer, match="not sent on"):
        judge(answer(302, b"", location="https://elsewhere.example"), READ, budget)


@pytest.mark.parametrize(
    "link", ["https://files.example/7?X-Amz-Signature=c4n4ry", "https://files.example/c4n4ry", "//files.example/c4n4ry"]
)
def test_x2_the_link_of_a_redirect_is_not_shown_because_it_may_be_enough_to_read_the_file(
    budget: Budget, link: str
) -> None:
    with pytest.raises(BadAnswer, match=r"the server redirects to '.*/…'; the token was not sent on") as refusal:
        judge(answer(302, b"", location=link), READ, budget)
    assert "c4n4ry" not in str(refusal.value)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"<html>blocked</html>"),
        ("application/json", b"\n<!DOCTYPE html><html>blocked</html>"),
        ("application/json", b"\xef\xbb\xbf<html>blocked</html>"),
        ("text/plain", b"error code: 1020"),
        ("", b""),
    ],
)
def test_l4_a_403_that_is_no_json_is_abuse_protection(budget: Budget, kind: str, body: bytes) -> None:
    with pytest.raises(CoolingDown):
        judge(Answer(403, {"content-type": kind}, body, NOW), READ, budget)


@pytest.mark.parametrize("kind", ["text/plain", "text/html", ""])
def test_l4_a_403_in_json_is_a_refusal_whatever_its_type_says(budget: Budget, kind: str) -> None:
    with pytest.raises(Forbidden, match="Scope and URL mismatch"):
        judge(Answer(403, {"content-type": kind}, b'{"error": "Scope and URL mismatch"}', NOW), READ, budget)


@pytest.mark.parametrize(
    ("headers", "error", "kind"),
    [
        ({"x_daily_ratelimit_token_remaining": "0"}, "request over limit", BudgetSpent),
        ({}, "Daily request limit reached", BudgetSpent),
        ({"x_daily_ratelimit_token_remaining": "12"}, "request over limit", Retryable),
        ({"retry_after": "1"}, "request over limit", Retryable),
    ],
)
def test_l2_l3_a_429_is_a_burst_or_an_exhausted_day(
    budget: Budget, headers: dict[str, str], error: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind) as raised:
        judge(answer(429, f'{{"error": "{error}"}}'.encode(), **headers), WRITE, budget)
    if isinstance(raised.value, Retryable):  # it was refused before it was looked at: a write may be sent again
        assert not answer_is_unknown(raised.value, "POST")


@pytest.mark.parametrize(
    ("text", "number"),
    [(None, None), ("", None), ("12", 12), ("12.9", 12), ("-1", None), ("nan", None), ("inf", None), ("1e30", None)],
)
def test_a_header_that_counts_nothing_is_none(text: str | None, number: int | None) -> None:
    assert number_in(text) == number


@pytest.mark.parametrize("remaining", ["1e30", "nan", "many", "-5"])
def test_a_nonsensical_rest_of_the_day_is_passed_over(budget: Budget, remaining: str) -> None:
    before = budget.left()
    note_headers(answer(200, x_daily_ratelimit_token_remaining=remaining), budget)
    assert budget.left() == before


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error": "no", "code": "E1"}', "no; E1"),
        (b'{"message": "no"}', "no"),
        (b"{}", "status 400"),
        (b"", "status 400"),
        (b"<html> a\n page </html>", "<html> a page </html>"),
        (b"[1, 2]", "[1, 2]"),
        (b'{"error": "\\u001b[2Jno"}', "[2Jno"),
    ],
)
def test_x5_the_servers_words_are_one_line_without_control_characters(body: bytes, text: str) -> None:
    found = error_text(answer(400, body))
    assert found.endswith(text)
    assert found.isprintable()
