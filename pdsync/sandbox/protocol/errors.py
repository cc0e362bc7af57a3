"""The answers Pipedrive gives when it says no: one exception, and the bodies that are known.

Refused ── a status and a JSON body, raised anywhere below the server and sent as it is
"""

from __future__ import annotations

from typing import Any

HINT = "Please check developers.pipedrive.com"

BLOCKED_HTML = (
    b"<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head>"
    b"<body><h1>Sorry, you have been blocked</h1><p>Ray ID: 0000000000000000</p></body></html>"
)
BAD_GATEWAY_HTML = b"<html><head><title>502 Bad Gateway</title></head><body><center>nginx</center></body></html>"


class Refused(Exception):
    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        super().__init__(status, body.get("error"))
        self.status, self.body, self.headers = status, body, headers or {}


def refused(status: int, error: str, info: str = HINT, **more: Any) -> Refused:
    """The common shape: error, error_info, and two nulls."""
    body = {"success": False, "error": error, "error_info": info, "data": None, "additional_data": None, **more}
    return Refused(status, body)


def bad_request(error: str, field_code: str | None = None) -> Refused:
    # Assumption: facts say that a validation error names `field_code`; the code and the rest are ours.
    more = {"field_code": field_code} if field_code else {}
    return refused(400, error, code="ERR_SCHEMA_VALIDATION_FAILED", **more)


def unauthorized() -> Refused:
    body = {"success": False, "error": "unauthorized access", "errorCode": 401, "error_info": HINT}
    return Refused(401, body, {"x-401-by-gw": "1"})


def forbidden(error: str = "You do not have permissions to do this.", **more: Any) -> Refused:
    return refused(403, error, **more)


def not_found(what: str) -> Refused:
    return refused(404, f"requested {what} not found", "Object was not found.")


def gone_field() -> Refused:
    return Refused(410, {"success": False, "error": "The field is not found"})


def feature_off(what: str) -> Refused:
    return refused(415, f"The {what} feature is not enabled for this company.")


def daily_budget_spent(retry_after_s: int, limit: int) -> Refused:
    headers = {
        "retry-after": str(retry_after_s),
        "x-daily-ratelimit-token-limit": str(limit),
        "x-daily-ratelimit-token-remaining": "0",
    }
    return Refused(429, {"success": False, "error": "daily request budget exceeded", "errorCode": 429}, headers)


def too_fast(limit: int, reset_s: int) -> Refused:
    # Assumption: the burst body is not established; only the header names are.
    headers = {"x-ratelimit-limit": str(limit), "x-ratelimit-remaining": "0", "x-ratelimit-reset": str(reset_s)}
    return Refused(429, {"success": False, "error": "request over limit", "errorCode": 429}, headers)
