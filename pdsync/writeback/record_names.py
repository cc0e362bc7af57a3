"""Resolves the name of a record to its id, and knows which stream's records the ids of a parameter belong to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pdsync.errors import ConfigError
from pdsync.writeback.messages import NOTHING, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pdsync.model import Stream
    from pdsync.writeback.company_names import CompanyNames

WHOLE = re.compile(r"-?\d+")
_UUID = re.compile(r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
# Parameters whose ids belong to a stream, where the stream of the operation does not say so.
_PARAMETERS = {
    "user_id": "users",
    "owner_id": "users",
    "assignee_id": "users",
    "creator_user_id": "users",
    "deal_id": "deals",
    "person_id": "persons",
    "org_id": "organizations",
    "organization_id": "organizations",
    "product_id": "products",
    "pipeline_id": "pipelines",
    "stage_id": "stages",
    "project_id": "projects",
    "rel_owner_org_id": "organizations",
    "rel_linked_org_id": "organizations",
}
# Types of custom fields whose values are ids of a stream's records.
STREAM_OF_TYPE = {
    "user": "users",
    "people": "persons",
    "org": "organizations",
    "deal": "deals",
    "stage": "stages",
    "project": "projects",
    "activity": "activities",
}


def referenced_stream(name: str, stream: Stream | None = None) -> str | None:
    """The stream whose records the ids of the parameter `name` belong to; None where they are no ids of records."""
    own = stream.labels.get(name) if stream else None
    return own or _PARAMETERS.get(name)


def resolve_id(
    names: CompanyNames,
    table: str,
    value: object,
    parameter: str,
    given: Mapping[str, object],
    *,
    takes_inactive: bool = False,
) -> Any:
    """The id that `value` is, or the id of the one record with that name.

    Args:
        names: of the company.
        table: the stream whose record it is.
        value: an id, a name, or for users an e-mail address.
        parameter: the name of the parameter, for messages.
        given: the other parameters: `pipeline_id`, or `pipeline`, decides between stages of one name.
        takes_inactive: the name of a deleted user counts too: something is taken away, and not assigned.

    Raises:
        ConfigError: no record has the name, or several have it.
    """
    if not isinstance(value, str) or WHOLE.fullmatch(value) or _UUID.fullmatch(value) or value == "null":
        return value
    if not names.has_table(table):
        raise ConfigError(f"{parameter} is {value!r}; names are known after a sync (pdsync sync {table}). {NOTHING}")
    found = names.ids_named(table, value)
    pipeline = given.get("pipeline_id", given.get("pipeline")) if table == "stages" and len(found) > 1 else None
    if pipeline not in (None, "null"):
        id = int(resolve_id(names, "pipelines", pipeline, "pipeline_id", {}))
        found = names.ids_named(table, value, pipeline=id)
        if not found:
            raise ConfigError(f"{parameter}: none of the stages of pipeline {pipeline} is called {value!r}. {NOTHING}")
    former = names.ids_named(table, value, deleted=True) if table == "users" and not found else []
    if takes_inactive and former:
        found = former
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(
            f"{id}, inactive" if table == "users" and names.is_inactive(id) else str(id) for id in found[:6]
        )
        raise ConfigError(f"{parameter}: several {table} are called {value!r} ({ids}). {NOTHING} Give the id.")
    if former:
        ids = " or ".join(map(str, former[:6]))
        raise ConfigError(
            f"{parameter}: the user {value!r} ({ids}) is inactive: deleted in Pipedrive. {NOTHING}\n"
            f"Name an active user, or give the id if Pipedrive should decide: {parameter}={former[0]}"
        )
    guess = did_you_mean(value, names.titles(table))
    raise ConfigError(f"{parameter}: none of the {table} is called {value!r}.{guess} {NOTHING}")
