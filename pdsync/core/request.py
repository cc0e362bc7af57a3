"""A request as one value: its content, its cost, and how often it is tried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core.uploads import Form, form_of

if TYPE_CHECKING:
    from pdsync.core.request_builder import Call
    from pdsync.model import Operation

Query = Mapping[str, str] | Sequence[tuple[str, str]]
ATTEMPTS = 6


class RetryPolicy(Struct, frozen=True):
    """How long to wait for an answer, and how often to ask again.

    `core.http` decides what is repeated; only `all_errors` and `repeats_writes` extend that.
    """

    attempts: int = ATTEMPTS
    timeout_s: float | None = None  # None: the session's, and 30 s for the next byte of an answer
    backoff_s: float | None = None  # before the second attempt; None: the session's
    exponential: bool = True  # wait twice as long before each further one
    all_errors: bool = False  # repeat after a refusal too: a record may not exist yet
    repeats_writes: bool = False  # repeat a write although it may have been carried out: only where that is requested


class Request(Struct, frozen=True, kw_only=True):
    """One request, however often it is tried."""

    method: str
    path: str
    label: str  # names it in errors
    cost: int = 0  # tokens
    is_search: bool = False  # it counts in the burst limit of searches too
    query: Query | None = None
    body: object = None  # sent as JSON; bytes are sent as they are, with the Content-Type that `headers` name
    form: Form | None = None  # sent instead of `body`
    headers: Mapping[str, str] | None = None  # sent besides pdsync's own
    retry: RetryPolicy = RetryPolicy()
    before_send: Callable[[], Awaitable[None]] | None = None  # awaited before the first byte of each attempt


def request_of(
    operation: Operation, path: str | None = None, *, query: Query | None = None, body: object = None
) -> Request:
    """The request that carries out `operation`.

    Args:
        operation: from the catalogue.
        path: the operation's path with its placeholders filled; by default the path as it is.
        query: parameters after the question mark.
        body: sent as JSON.
    """
    return Request(
        method=operation.method,
        path=path or operation.path,
        label=operation.id,
        cost=operation.cost or 0,
        is_search=operation.search,
        query=query,
        body=body,
    )


def request_of_call(
    call: Call,
    *,
    headers: Mapping[str, str] | None = None,
    retry: RetryPolicy | None = None,
    before_send: Callable[[], Awaitable[None]] | None = None,
) -> Request:
    """The request for a call that the catalogue has checked: as JSON or as a form, whatever its operation takes.

    Raises:
        ConfigError: a file that it sends can't be read.
    """
    form = form_of(call)
    return Request(
        method=call.operation.method,
        path=call.path,
        label=call.operation.id,
        cost=call.operation.cost or 0,
        is_search=call.operation.search,
        query=call.query,
        body=None if form else call.body,
        form=form,
        headers=headers,
        retry=retry or RetryPolicy(),
        before_send=before_send,
    )
