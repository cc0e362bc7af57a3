"""Decides what only an administrator may do.

Assumption: that is every write whose only scope is `admin`, whether by an OAuth token or an API token, and what the
documents say it of; webhooks are their users' own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.sandbox.company.data import scopes
from pdsync.sandbox.protocol.errors import forbidden

if TYPE_CHECKING:
    from pdsync.sandbox.protocol.messages import Call, Route

ALSO_ADMINS = frozenset(("v1 addChannel", "v1 deleteChannel"))  # "Only admins can register channels"
OF_EVERYONE = frozenset(("webhooks",))


def check_rights(call: Call, route: Route) -> None:
    """Raise a 403 for a write that the caller, who is no administrator, may not make."""
    if call.method == "GET" or call.viewer.admin or route.pattern[0] in OF_EVERYONE:
        return
    operations = [f"{version} {route.operation}" for version in (route.version, "v2")]  # v1's removed ones as v2's
    needed = next((scopes()[name] for name in operations if name in scopes()), [])
    if needed == ["admin"] or operations[0] in ALSO_ADMINS:
        raise forbidden()
