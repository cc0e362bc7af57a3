"""Carries out what administers a company: users, what roles may see, members of teams, webhooks.

Assumptions: a user who is added has the local part of the e-mail address as name, and the role of the caller; a role
sees every pipeline until some are hidden; a member who is added twice is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.table import Row, encode
from pdsync.sandbox.operations import generic
from pdsync.sandbox.operations.body_checks import check_types
from pdsync.sandbox.operations.documented import kind_of, operations, split
from pdsync.sandbox.operations.generic_records import records_at, store_record
from pdsync.sandbox.protocol.errors import bad_request, not_found, refused
from pdsync.sandbox.protocol.messages import success
from pdsync.sandbox.protocol.v1_records import shape

if TYPE_CHECKING:
    from pdsync.sandbox.company.table import Record
    from pdsync.sandbox.protocol.messages import Call, Reply, Route

TEAMS, WEBHOOKS, LINKS = ("legacyTeams",), ("webhooks",), ("meetings", "userProviderLinks")
ASSIGNMENTS = ("roles", "{}", "assignments")
OWNER_ONLY = 1  # the visibility unless another one is set, as in the example of the documents
MOST_WEBHOOKS = 40  # of a user


def add_user(call: Call, route: Route) -> Reply:
    """Invite a user."""
    company, sent, now = call.company, call.json(), call.company.clock.stamp()
    if not isinstance(sent.get("email"), str) or "@" not in sent["email"]:
        raise bad_request("email is required", "email")
    check_types(sent, operations()[route.kind].body)
    like = company["users"].rows[call.viewer.user_id].record
    record: Record = {
        **like, "id": company["users"].next_id, "name": sent["email"].partition("@")[0], "email": sent["email"],
        "access": [{"admin": False, **each} for each in sent.get("access") or [{"app": "sales"}]], "activated": False,
        "active_flag": bool(sent.get("active_flag", True)), "created": now, "modified": now, "last_login": None,
        "has_created_company": False, "is_deleted": False,
    }  # fmt: skip
    company.groups[record["id"]] = 0
    row = company.put("users", "add", record, hidden={"add_time": now, "update_time": now}, request=call.request_id)
    return _user(call, row)


def update_user(call: Call, route: Route) -> Reply:
    """Activate or deactivate a user."""
    row, active = call.company["users"].rows.get(call.id()), call.json().get("active_flag")
    if row is None:
        raise not_found("user")
    if not isinstance(active, bool):
        raise bad_request("active_flag is required", "active_flag")
    now = call.company.clock.stamp()
    record = {**row.record, "active_flag": active, "modified": now}
    return _user(
        call, call.company.put("users", "update", record, hidden={"update_time": now}, request=call.request_id)
    )


def _user(call: Call, row: Row) -> Reply:
    return success({**shape(call.company, "users", row), "is_you": row.id == call.viewer.user_id})


# -- roles -------------------------------------------------------------------------------------------


def get_role(call: Call, route: Route) -> Reply:
    """A role, and beside it its settings."""
    row = records_at(call.company, ("roles",), ()).get(call.params[0])
    if row is None:
        raise not_found("role")
    shown = generic.present(row.record, operations()["v1 getRole"].item)
    return success(shown, additional_data={"settings": _settings(call)})


def role_settings(call: Call, route: Route) -> Reply:
    """The visibility of the records that users of a role add."""
    return success(_settings(call))


def set_role_setting(call: Call, route: Route) -> Reply:
    sent, known = call.json(), operations()["v1 addOrUpdateRoleSetting"].body
    if sent.get("setting_key") not in known["setting_key"].split("|"):
        raise bad_request("setting_key must be one of the settings", "setting_key")
    if sent.get("value") not in (1, 3, 5, 7):
        raise bad_request("value must be 1, 3, 5 or 7", "value")
    changed = {sent["setting_key"]: sent["value"]}
    _put_document(call, "v1 getRoleSettings", {**_settings(call), **changed})
    return success({"id": call.id(), **changed})


def _settings(call: Call) -> Record:
    keys = [key for key in operations()["v1 getRoleSettings"].item if key.endswith("default_visibility")]
    return _document(call, "v1 getRoleSettings") or dict.fromkeys(keys, OWNER_ONLY)


def role_pipelines(call: Call, route: Route) -> Reply:
    """The pipelines that a role sees, or with `visible=false` those that it does not."""
    visible = call.query.get("visible", "true").lower() not in ("false", "0")
    hidden = _hidden_pipelines(call)
    ids = [id for id, row in call.company["pipelines"].rows.items() if row.state == "live"]
    return success({"pipeline_ids": [id for id in ids if (id not in hidden) == visible], "visible": visible})


def set_role_pipelines(call: Call, route: Route) -> Reply:
    sent = call.json().get("visible_pipeline_ids")
    if not isinstance(sent, dict):
        raise bad_request("visible_pipeline_ids is required", "visible_pipeline_ids")
    if not all(isinstance(sent.get(name), list | None) for name in ("add", "remove")):
        raise bad_request("visible_pipeline_ids takes lists as add and remove", "visible_pipeline_ids")
    check_types(sent, {"add": ["int"], "remove": ["int"]})
    hidden = [id for id in _hidden_pipelines(call) if id not in (sent.get("add") or ())]
    hidden += [id for id in sent.get("remove") or () if id not in hidden]
    _put_document(call, "v1 getRolePipelines", {"hidden": hidden})
    return role_pipelines(call, route)


def _hidden_pipelines(call: Call) -> list[Any]:
    found: list[Any] = (_document(call, "v1 getRolePipelines") or {}).get("hidden", [])
    return found


def delete_assignment(call: Call, route: Route) -> Reply:
    """Take a user out of a role; the answer names the role."""
    parents, user = (call.params[0],), str(call.json().get("user_id"))
    if user not in records_at(call.company, ASSIGNMENTS, parents):
        raise not_found("role assignment")
    store_record(call.company, ASSIGNMENTS, parents, "delete", user, None, call.request_id)
    return success({"id": call.id()})


def _document(call: Call, reader: str) -> Record | None:
    """What was set of the one document of a role that `reader` reads; None if nothing was."""
    if call.params[0] not in records_at(call.company, ("roles",), ()):
        raise not_found("role")
    name = kind_of(split(operations()[reader])[0]).name
    stored = call.company.collections.get((name, tuple(call.params)), {}).get("")
    return stored.record if stored else None


def _put_document(call: Call, reader: str, record: Record) -> None:
    collection, parents = split(operations()[reader])[0], tuple(call.params)
    call.company.collections.setdefault((kind_of(collection).name, parents), {})
    store_record(call.company, collection, parents, "update", "", Row(0, "live", encode(record), ()), call.request_id)


# -- teams and webhooks ------------------------------------------------------------------------------


def change_team(call: Call, route: Route) -> Reply:
    """Add users to a team or take them out; or only read who is in it."""
    row = records_at(call.company, TEAMS, ()).get(call.params[0])
    if row is None:
        raise not_found("team")
    users: list[int] = [id for id in row.record.get("users") or () if isinstance(id, int)]
    if call.method != "GET":
        sent = call.json().get("users")
        if not isinstance(sent, list):
            raise bad_request("users is required", "users")
        check_types({"users": sent}, operations()[route.kind].body)
        users = [id for id in users if id not in sent] + (sent if call.method == "POST" else [])
        changed = Row(0, row.state, encode({**row.record, "users": users}), ())
        store_record(call.company, TEAMS, (), "update", call.params[0], changed, call.request_id)
    return success(users)


def save_provider_link(call: Call, route: Route) -> Reply:
    """Link a user to a provider of video calls; nothing reads the link."""
    sent = call.json()
    for name in operations()["v1 saveUserProviderLink"].required:
        if not sent.get(name):
            raise bad_request(f"{name} is required", name)
    check_types(sent, operations()[route.kind].body)
    id = str(sent["user_provider_id"])
    store_record(call.company, LINKS, (), "add", id, Row(0, "live", encode({**sent, "id": id}), ()), call.request_id)
    return success({"message": "A new user provider link was saved"})


def delete_provider_link(call: Call, route: Route) -> Reply:
    if call.params[0] not in records_at(call.company, LINKS, ()):
        raise not_found("user provider link")
    store_record(call.company, LINKS, (), "delete", call.params[0], None, call.request_id)
    return success({"message": "The user provider link was deleted"})


def add_webhook(call: Call, route: Route) -> Reply:
    owned = [row for row in records_at(call.company, WEBHOOKS, ()).values()
             if row.record["owner_id"] == call.viewer.user_id]  # fmt: skip
    if len(owned) >= MOST_WEBHOOKS:
        raise refused(422, f"A user can have at most {MOST_WEBHOOKS} webhooks")
    return generic.answer(call, route)


ANSWERS = {
    "addUser": add_user,
    "updateUser": update_user,
    "getRole": get_role,
    "saveUserProviderLink": save_provider_link,
    "deleteUserProviderLink": delete_provider_link,
    "getRoleSettings": role_settings,
    "addOrUpdateRoleSetting": set_role_setting,
    "getRolePipelines": role_pipelines,
    "updateRolePipelines": set_role_pipelines,
    "deleteRoleAssignment": delete_assignment,
    "addWebhook": add_webhook,
    **dict.fromkeys(("getTeamUsers", "addTeamUser", "deleteTeamUser"), change_team),
}
