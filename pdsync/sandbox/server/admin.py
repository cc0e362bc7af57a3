"""The admin interface of the sandbox, for tests: the full content of the company, faults, clock, limits, changes.

Requests to `/_admin` need no token, are accepted from the loopback interface only, and are neither counted, limited
nor logged.
"""

from __future__ import annotations

import ipaddress
import itertools
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from pdsync.sandbox.activity.simulate import CHANGES, KINDS, LiveChanges, simulate_changes
from pdsync.sandbox.company.company import entry_json
from pdsync.sandbox.company.field_changes import change_fields
from pdsync.sandbox.company.resources import FIELD_KINDS, RESOURCES
from pdsync.sandbox.company.table import encode
from pdsync.sandbox.operations.collections import KINDS as GENERIC_KINDS
from pdsync.sandbox.protocol.messages import Reply, success
from pdsync.sandbox.server import truth
from pdsync.sandbox.server.faults import Fault
from pdsync.sandbox.server.oauth import Settings as OAuthSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pdsync.sandbox.server.server import Sandbox

DUMP_BATCH = 500
NDJSON = "application/x-ndjson"
DUMPED = (*RESOURCES, *FIELD_KINDS, *(kind.name for kind in GENERIC_KINDS.values()))


async def serve(sandbox: Sandbox, request: web.BaseRequest) -> web.StreamResponse:
    peer = request.remote
    if peer is None or not ipaddress.ip_address(peer).is_loopback:
        return _response(_refuse(403, "/_admin is for the loopback interface"))
    name = request.rel_url.path.removeprefix("/_admin").strip("/")
    if (request.method, name) == ("GET", "dump"):
        return await _dump(sandbox, request)
    return _response(_answer(sandbox, (request.method, name), await request.read(), dict(request.rel_url.query)))


async def _dump(sandbox: Sandbox, request: web.BaseRequest) -> web.StreamResponse:
    """Stream all records as NDJSON, in batches, because a large company does not fit in memory as one answer."""
    only = request.rel_url.query.get("kind")
    if only is not None and only not in DUMPED:
        return _response(_refuse(400, f"{only!r} is not a kind; the kinds are {', '.join(DUMPED)}"))
    response = web.StreamResponse(headers={"Content-Type": NDJSON})
    await response.prepare(request)
    records = (record for kind in ([only] if only else DUMPED) for record in truth.dump(sandbox.company, kind))
    while True:
        with sandbox.company.lock:
            lines = [encode(record) for record in itertools.islice(records, DUMP_BATCH)]
        if not lines:
            break
        await response.write(b"\n".join([*lines, b""]))
    await response.write_eof()
    return response


def _answer(sandbox: Sandbox, key: tuple[str, str], sent: bytes, query: dict[str, str]) -> Reply:
    handler = HANDLERS.get(key)
    if handler is None:
        return _refuse(404, f"There is no {' /_admin/'.join(key)}; there are {', '.join(map(' '.join, HANDLERS))}")
    try:
        body = msgspec.json.decode(sent or b"{}")
        with sandbox.company.lock:
            return handler(sandbox, body, query)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, msgspec.MsgspecError) as error:
        return _refuse(400, f"{type(error).__name__}: {error}")


def log(sandbox: Sandbox, _: Any, __: dict[str, str]) -> Reply:
    return _ndjson(sandbox.log)


def clear_log(sandbox: Sandbox, _: Any, __: dict[str, str]) -> Reply:
    sandbox.log.clear()
    return success(None)


def journal(sandbox: Sandbox, _: Any, __: dict[str, str]) -> Reply:
    return _ndjson(entry_json(entry) for entry in sandbox.company.journal)


def window(sandbox: Sandbox, _: Any, __: dict[str, str]) -> Reply:
    return Reply(200, encode(sandbox.log.window()))


def summary(sandbox: Sandbox, _: Any, __: dict[str, str]) -> Reply:
    facts = {
        "counts": truth.summary(sandbox.company),
        "tokens_spent": sandbox.limiter.spent_tokens,
        "tokens_spent_all_days": sandbox.limiter.spent_all_days,
        "requests": sandbox.requests,
        "now": sandbox.company.clock.stamp(),
        "tokens": sandbox.company.tokens,
    }
    return Reply(200, encode(facts))


def add_faults(sandbox: Sandbox, body: Any, _: dict[str, str]) -> Reply:
    """A list of faults, one fault, or {"seed": 7, "faults": [...]}; the seed is for `probability`."""
    if isinstance(body, dict) and "faults" in body:
        sandbox.faults.random.seed(int(body.get("seed", 0)))
        body = body["faults"]
    sandbox.faults.add(*msgspec.convert(body if isinstance(body, list) else [body], list[Fault]))
    return get_faults(sandbox, body, _)


def get_faults(sandbox: Sandbox, _: Any, __: dict[str, str]) -> Reply:
    faults = [
        {"seen": each.seen, "struck": each.struck, **msgspec.to_builtins(each.fault)}
        for each in sandbox.faults.scripted
    ]
    return Reply(200, encode(faults))


def clear_faults(sandbox: Sandbox, _: Any, __: dict[str, str]) -> Reply:
    sandbox.faults.clear()
    return success(None)


def move_clock(sandbox: Sandbox, body: Any, _: dict[str, str]) -> Reply:
    clock = sandbox.company.clock
    ahead_s = float(body.get("ahead_s", clock.ahead_s))
    formatdate(clock.seconds() + ahead_s)  # refuses one without a date
    clock.advance(float(body.get("advance_s", 0) if "ahead_s" in body else body["advance_s"]))
    clock.ahead_s = ahead_s
    sandbox.company.purge()
    return success({"now": sandbox.company.clock.stamp()})


def set_limits(sandbox: Sandbox, body: Any, _: dict[str, str]) -> Reply:
    return success(msgspec.to_builtins(sandbox.limiter.change(body)))


def simulate(sandbox: Sandbox, body: Any, _: dict[str, str]) -> Reply:
    ids_by_kind = simulate_changes(
        sandbox.company,
        share=float(body.get("share", 0.01)),
        records=body.get("records"),
        seed=int(body.get("seed", 0)),
        kinds=body.get("kinds") or KINDS,
        advance_s=float(body.get("advance_s", 3600)),
        only=body.get("only") or CHANGES,
    )
    return Reply(200, encode(ids_by_kind))


def spend(sandbox: Sandbox, body: Any, _: dict[str, str]) -> Reply:
    sandbox.limiter.charge(int(body["tokens"]))
    return success({"tokens_spent": sandbox.limiter.spent_tokens})


def live(sandbox: Sandbox, body: Any, _: dict[str, str]) -> Reply:
    sandbox.live_changes = msgspec.convert(body, LiveChanges) if body else None
    return success(body or None)


def access(sandbox: Sandbox, body: Any, _: dict[str, str]) -> Reply:
    """Change what a token may see: {"token": "admin", "admin": false, "group": 1, "hidden_pipelines": [2]}."""
    viewer = sandbox.company.viewers[body["token"]]
    viewer.admin = bool(body.get("admin", viewer.admin))
    viewer.group = int(body.get("group", viewer.group))
    viewer.hidden_pipelines = set(body.get("hidden_pipelines", viewer.hidden_pipelines))
    return success({**msgspec.to_builtins(viewer), "hidden_pipelines": sorted(viewer.hidden_pipelines)})


def fields(sandbox: Sandbox, body: Any, _: dict[str, str]) -> Reply:
    return Reply(200, encode(change_fields(sandbox.company, **body)))


def edit(sandbox: Sandbox, body: Any, _: dict[str, str]) -> Reply:
    """Set keys of a record, also its times: {"kind", "id", "set": {…}}. For silent and backdated changes."""
    company = sandbox.company
    row = company[body["kind"]].rows[int(body["id"])]
    changed = company.put(body["kind"], "silent", {**row.record, **body["set"]})
    return success(changed.record)


def act(sandbox: Sandbox, body: Any, _: dict[str, str]) -> Reply:
    """Do what another user does in the app: {"method", "path", "body", "user_id", "is_bulk"}, the first two required.

    Takes any request of the API; the answer is the API's.
    """
    target, is_bulk = body["path"], bool(body.get("is_bulk", False))
    return sandbox.act(body["method"], target, body.get("body"), body.get("user_id"), is_bulk=is_bulk)


def oauth(sandbox: Sandbox, body: Any, _: dict[str, str]) -> Reply:
    """Change the app or the person at its consent page: {"allows": false, "scopes": "base deals:read"}."""
    settings = {**msgspec.to_builtins(sandbox.oauth.settings), **body}
    sandbox.oauth.settings = msgspec.convert(settings, OAuthSettings)
    return success(settings)


def install(sandbox: Sandbox, _: Any, __: dict[str, str]) -> Reply:
    """Install the app from the Marketplace; answers the address that the person's browser is sent to."""
    return success({"location": sandbox.oauth.install().headers["location"]})


def _ndjson(values: Iterable[Any]) -> Reply:
    return Reply(200, b"".join(encode(each) + b"\n" for each in values), {}, NDJSON)


def _response(reply: Reply) -> web.Response:
    return web.Response(status=reply.status, body=reply.body, headers={"Content-Type": reply.content_type})


def _refuse(status: int, error: str) -> Reply:
    return Reply(status, encode({"success": False, "error": error}))


HANDLERS: dict[tuple[str, str], Callable[[Sandbox, Any, dict[str, str]], Reply]] = {
    ("GET", "log"): log,
    ("DELETE", "log"): clear_log,
    ("GET", "journal"): journal,
    ("GET", "window"): window,
    ("GET", "summary"): summary,
    ("GET", "faults"): get_faults,
    ("POST", "faults"): add_faults,
    ("DELETE", "faults"): clear_faults,
    ("POST", "clock"): move_clock,
    ("POST", "limits"): set_limits,
    ("POST", "change"): simulate,
    ("POST", "spend"): spend,
    ("POST", "live"): live,
    ("POST", "access"): access,
    ("POST", "fields"): fields,
    ("POST", "edit"): edit,
    ("POST", "act"): act,
    ("POST", "oauth"): oauth,
    ("POST", "install"): install,
}
