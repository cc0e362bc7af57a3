"""Finds in a record's changelog the edits that our write overwrote, and the user who deleted the record.

The API has no If-Match, so an edit in that gap is overwritten and the record alone does not show it. The changelog of
deals, persons and organizations does: the value that our change replaced is not the one that we had read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.core import catalogue
from pdsync.core.list_response import records_in
from pdsync.core.request_builder import check
from pdsync.errors import ApiError
from pdsync.writeback.equality import equivalent, value_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pdsync.core.http import Http
    from pdsync.model import Operation

_V1_NAMES = {"label_ids": "label"}  # what the changelog calls fields of v2
_OWNERS = {"deals": "user_id"}
_NEWEST = 100


def find_changelog(kind: str) -> Operation | None:
    """The operation that lists the changes of a record of `kind`; None where there is none."""
    path = f"/v1/{kind}/{{id}}/changelog"
    return next((each for each in catalogue.operations("v1").values() if each.path == path), None)


async def find_deleter(http: Http, kind: str, key: str) -> int | None:
    """The id of the user who deleted a record; None where no changelog names one.

    Assumption: the deletion is listed as a change of the record's status, or of its active flag.
    """
    operation = find_changelog(kind)
    if operation is None:
        return None
    try:
        entries = records_in((await http.carry_out(check(operation, {"id": key, "limit": _NEWEST}))).body)
    except ApiError:  # a purged record has no changelog
        return None
    for each in entries:  # the newest first
        field, value = each.get("field_key"), str(each.get("new_value")).lower()
        if (field == "status" and value == "deleted") or (field == "active_flag" and value in ("0", "false")):
            user: int | None = each.get("actor_user_id")
            return user
    return None


async def find_overwritten(
    http: Http, kind: str, key: str, *, base: Mapping[str, Any], desired: Mapping[str, Any], me: int
) -> dict[str, Any]:
    """Find the values of other users that our write overwrote: field → value.

    Fields to which an object or a list was written are not compared, and only the newest changes are read.

    Args:
        http: the session.
        kind: of the record; where it has no changelog, nothing is found.
        key: of the record.
        base: the record as we had read it.
        desired: field → what we wrote.
        me: the id of the user whose token it is.

    Raises:
        PdsyncError: the changelog can't be read; nothing is known.
    """
    operation = find_changelog(kind)
    if operation is None:
        return {}
    entries = records_in((await http.carry_out(check(operation, {"id": key, "limit": _NEWEST}))).body)
    overwritten: dict[str, Any] = {}
    for field, value in desired.items():
        is_shown, before = value_in(base, field)
        if not is_shown or isinstance(value, dict | list):
            continue
        name = field.rpartition("/")[2]
        name = _OWNERS.get(kind, name) if name == "owner_id" else _V1_NAMES.get(name, name)
        own = [each for each in entries if each.get("field_key") == name and each.get("actor_user_id") == me]
        ours = next((each for each in own if equivalent(value, each.get("new_value"))), None)
        if ours and not equivalent(before, ours.get("old_value")):
            overwritten[field] = ours.get("old_value")
    return overwritten
