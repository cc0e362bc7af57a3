"""Parameters for every mutating operation, with nested items: each is added, changed and deleted through the queue.

    outcomes = push_everything(project, records(box, project))

`known` maps a word in braces to an id: of a record that is there (`deal`), or that an operation has added
(`v2 addDeal`). Each record that is added is changed and deleted by the operations of the same resource.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from pdsync.core import catalogue

if TYPE_CHECKING:
    from pdsync.model import Operation
    from pdsync.sandbox import RunningSandbox
    from tests.support.world import Project

PUSH = ("push", "--yes", "--json", "-q", "--settle-seconds", "0.05", "--allow", "delete,merge", "--max-deletes", "999")
ADDRESS = {
    "value": "Hauptstr. 5, 10827 Berlin", "country": "Germany", "locality": "Berlin", "route": "Hauptstr.",
    "street_number": "5", "postal_code": "10827", "admin_area_level_1": "Berlin",
}  # fmt: skip
# What a parameter is given wherever it occurs; a word in braces stands for an id. What is missing is left out.
VALUES: dict[str, Any] = {
    "attendees": [{"email": "a@guest.example", "name": "Guest", "status": "accepted", "is_organizer": False}],
    "busy": True, "deal_id": "{deal}", "done": 1, "due_date": "2026-12-01", "due_time": "10:00", "duration": "01:30",
    "location": ADDRESS, "note": "noted", "org_id": "{org}", "owner_id": "{user}",
    "participants": [{"person_id": "{person}", "primary": True}], "public_description": "public",
    "subject": "Subject", "description": "described", "field_name": "Field {n}", "field_type": "enum",
    "name": "Name {n}", "title": "Title {n}", "amount": 50, "billing_date": "2026-12-01",
    "options": [{"label": "One"}, {"label": "Two"}], "ui_visibility": {"add_visible_flag": True},
    "important_fields": {"enabled": True, "stage_ids": [1]}, "required_fields": {"enabled": False},
    "comments": "comment", "discount": 5, "discount_type": "percentage", "is_enabled": True, "item_price": 12.5,
    "quantity": 2, "tax": 19, "tax_method": "exclusive", "billing_frequency": "monthly",
    "billing_frequency_cycles": 3, "billing_start_date": "2026-12-01", "product_id": "{product}",
    "currency": "EUR", "expected_close_date": "2026-12-31", "person_id": "{person}", "pipeline_id": 1,
    "probability": 40, "value": 99.5, "visible_to": 3, "user_id": "{user}", "type": "percentage",
    "address": ADDRESS, "postal_address": ADDRESS, "website": "https://a.example", "linkedin": "https://l.example",
    "annual_revenue": 1000, "employee_count": 10, "industry": 1,
    "emails": [{"value": "a{n}@mail.example", "primary": True, "label": "work"}],
    "phones": [{"value": "+49 30 1", "primary": True, "label": "work"}],
    "im": [{"value": "me", "primary": True, "label": "skype"}], "birthday": "1980-01-02", "job_title": "Boss",
    "notes": "notes", "marketing_status": "no_consent", "add_time": "2024-01-05T10:00:00Z",
    "is_deal_probability_enabled": True, "code": "C-{n}", "is_linkable": True, "unit": "pcs",
    "prices": [{"currency": "EUR", "price": 9, "cost": 3, "direct_cost": 1}], "order_nr": 1,
    "start_date": "2026-11-01", "end_date": "2026-12-31", "status": "open", "deal_ids": ["{deal}"],
    "person_ids": ["{person}"], "org_ids": ["{org}"], "days_to_rotten": 10, "deal_probability": 30,
    "is_deal_rot_enabled": True, "assignee_ids": ["{user}"], "milestone": 0, "color": "blue", "icon_key": "call",
    "outcome": "connected", "start_time": "2026-01-05T10:00:00Z", "end_time": "2026-01-05T10:05:00Z",
    "from_phone_number": "+491", "to_phone_number": "+492", "add_visible_flag": True,
    "content": "<p>content</p>", "label_ids": [],
    "was_seen": True, "organization_id": "{org}", "manager_id": "{user}", "users": ["{user}"], "active_flag": 1,
    "archived_flag": 1, "read_flag": 1, "shared_flag": 1, "rel_owner_org_id": "{org}", "rel_linked_org_id": "{org_2}",
    "group_id": 1, "setting_key": "deal_default_visibility", "file": "{path}", "data": "{path}",
    "board_id": "{board}", "phase_id": "{phase}", "project_id": "{project}",
}  # fmt: skip
GOAL = {
    "assignee": {"id": "{user}", "type": "person"},
    "type": {"name": "deals_won", "params": {"pipeline_id": [1]}},
    "expected_outcome": {"target": 5, "tracking_metric": "quantity"},
    "duration": {"start": "2026-01-01", "end": "2026-12-31"},
    "interval": "monthly",
}
FILTER = {
    "type": "deals",
    "conditions": {
        "glue": "and",
        "conditions": [
            {"glue": "and", "conditions": [
                {"object": "deal", "field_id": "{Deal_number}", "operator": "=", "value": "1", "extra_value": None}
            ]},
            {"glue": "or", "conditions": []},
        ],
    },
}  # fmt: skip
# What an operation is given besides, or in place of it; None leaves a parameter out.
OWN: dict[str, dict[str, Any]] = {
    "v2 addActivity": {"done": True, "type": "call", "person_id": None},
    "v2 updateActivity": {"done": True, "type": "call", "person_id": None},
    **{f"v2 {verb}Deal": {"status": "lost", "lost_reason": "why"} for verb in ("add", "update")},
    "v2 addProject": {"custom_fields": None},
    "v2 addManyDealProducts": {"data": [{"product_id": "{product}", "item_price": 3, "quantity": 1, "tax": 7,
                                         "discount": 1, "discount_type": "amount", "comments": "c"}]},
    "v1 addCallLog": {"duration": "300"},
    "v1 mergeDeals": {"id": "{v1 duplicateDeal}", "merge_with_id": "{deal_2}"},
    "v1 mergePersons": {"id": "{person_3}", "merge_with_id": "{person_2}"},
    "v1 mergeOrganizations": {"id": "{org_3}", "merge_with_id": "{org_4}"},
    "v1 addDealParticipant": {"person_id": "{person_2}"},
    "v1 addFileAndLinkIt": {"file_type": "gdoc", "item_type": "deal", "item_id": "{deal}",
                            "remote_location": "googledrive"},
    "v1 linkFileToItem": {"item_type": "deal", "item_id": "{deal}", "remote_id": "abc",
                          "remote_location": "googledrive"},
    "v1 addFilter": FILTER, "v1 updateFilter": {**FILTER, "type": None}, "v1 addGoal": GOAL, "v1 updateGoal": GOAL,
    "v1 addLead": {"value": {"amount": 5, "currency": "EUR"}, "visible_to": "3"},
    "v1 updateLead": {"value": {"amount": 6, "currency": "EUR"}, "visible_to": "3"},
    "v1 addTeam": {"active_flag": None}, "v1 addTask": {"done": 0},
    "v1 saveUserProviderLink": {"user_provider_id": "0b5e5b0e-0000-4000-8000-000000000000", "company_id": 1,
                                "marketplace_client_id": "x"},
    "v1 addNote": {"pinned_to_deal_flag": 1, "org_id": None, "person_id": None, "project_id": None, "add_time": None},
    "v1 addOrganizationRelationship": {"type": "parent", "org_id": None},
    "v1 updateOrganizationRelationship": {"type": "related", "org_id": None},
    "v1 updateRolePipelines": {"visible_pipeline_ids": {"add": [1], "remove": [2]}},
    "v1 addOrUpdateRoleSetting": {"value": 3},
    "v1 deleteUserProviderLink": {"id": "0b5e5b0e-0000-4000-8000-000000000000"},
    "v1 addUser": {"email": "new{n}@user.example", "active_flag": True,
                   "access": [{"app": "sales", "admin": False}]},
    "v1 updateUser": {"id": "{user_2}", "active_flag": False},
    # An update that changes nothing would not be sent.
    "v2 updateInstallment": {"amount": 60}, "v2 updateDealProduct": {"quantity": 3},
    "v2 updateAdditionalDiscount": {"amount": 60}, "v1 updateCommentForNote": {"content": "<p>changed</p>"},
    "v1 archiveProject": {"id": "{project_2}"}, "v1 addRoleAssignment": {"user_id": "{user_3}"},
    "v1 addWebhook": {"subscription_url": "https://hook.example", "event_action": "*", "event_object": "deal",
                      "version": "2.0", "http_auth_user": "u", "http_auth_password": "p"},
    "v1 deleteDealFields": {"ids": "{Deal_number}"}, "v1 deletePersonFields": {"ids": "{Person_number}"},
    "v1 deleteOrganizationFields": {"ids": "{Organization_number}"},
    "v1 deleteProductFields": {"ids": "{Product_number}"}, "v1 deleteFilters": {"ids": "{filter}"},
    **{f"v2 {verb}{kind}FieldOptions": {"field_code": f"{{{kind}}}", "body": body}
       for kind in ("Deal", "Organization", "Person", "Product", "Project")
       for verb, body in (("add", [{"label": "One more"}, {"label": "And one"}]),
                          ("update", [{"id": f"{{{kind}_option}}", "label": "Renamed"}]),
                          ("delete", [{"id": f"{{{kind}_option}}"}]))},
    **{f"v1 {verb}{kind}Field": {"field_type": None if verb == "update" else "enum"}
       for kind in ("Deal", "Organization", "Person", "Product") for verb in ("add", "update")},
}  # fmt: skip
# Ids in a path: of a record that is there, by the part of the path before, or that another operation adds.
PARENTS = {
    "deals": "deal", "persons": "person", "organizations": "org", "products": "product", "roles": "role",
    "legacyTeams": "team", "callLogs": "call_log", "projects": "project", "mailThreads": "thread", "leads": "lead",
    "notes": "note",
}  # fmt: skip
IDS = {
    "activityId": 4, "taskId": 4,
    "installment_id": "{v2 postInstallment}", "product_attachment_id": "{v2 addDealProduct}",
    "discount_id": "{v2 postAdditionalDiscount}", "product_variation_id": "{v2 addProductVariation}",
    "commentId": "{v1 addNoteComment}", "deal_participant_id": "{v1 addDealParticipant}",
}  # fmt: skip


def parameters(operation: Operation, known: dict[str, Any]) -> dict[str, Any]:
    """What an operation is given."""
    given = {name: VALUES[name] for name in operation.body if name in VALUES}
    given |= {name: _id(operation, name) for name in operation.path_params}
    if operation.id.endswith("Follower") and operation.version == "v1":  # the other one is v2's
        given |= {name: "{user_2}" for name in ("user_id", "follower_id") if name in given}
    given |= OWN.get(operation.name, {})
    return {name: _filled(value, known) for name, value in given.items() if value is not None}


def _id(operation: Operation, name: str) -> Any:
    verb, _, kind = re.sub(r"([A-Z])", r" \1", operation.id, count=1).partition(" ")
    adds = f"{operation.version} add{kind}"
    if name in IDS:
        return IDS[name]
    if name == "follower_id":
        return "{user}"
    if verb in ("update", "delete") and adds in ADDS:
        return f"{{{adds}}}"
    return f"{{{PARENTS.get(operation.path.split('/{')[0].rpartition('/')[2], '')}}}"  # else OWN has it


def _filled(value: Any, known: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, known) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(each, known) for each in value]
    if not isinstance(value, str):
        return value
    if re.fullmatch(r"{[^{}]+}", value):
        return known.get(value[1:-1])
    return re.sub(r"{([^{}]+)}", lambda found: str(known[found[1]]), value)


def mutating() -> list[Operation]:
    """Every mutating operation of the company's host that is not removed."""
    return [
        each for version in catalogue.VERSIONS for each in catalogue.operations(version).values()
        if each.mutates and not each.removed and not each.host
    ]  # fmt: skip


UPDATES = 2  # their batch
ADDS = {each.name for each in mutating() if each.id.startswith("add") and "{id}" not in each.path}


def batch(operation: Operation) -> int:
    """The round in which an operation has its turn: what it is about has to be there, and to last until the others."""
    verb = re.match("[a-z]+", operation.id)
    assert verb is not None
    needs_one = "{v" in str(parameters(operation, _Words()))
    if verb[0] in ("add", "post", "duplicate", "save", "upload", "link"):
        return 1 if needs_one else 0
    if verb[0] in ("delete", "merge", "convert"):
        return 3 if operation.path.count("{") > 1 else 4
    return UPDATES


class _Words(dict[str, Any]):
    """Every word for itself."""

    def get(self, word: str, default: Any = None) -> str:
        return f"{{{word}}}"

    __getitem__ = get


def records(box: RunningSandbox, project: Project) -> dict[str, Any]:
    """What the words in braces stand for."""

    def live(kind: str) -> list[dict[str, Any]]:
        return [each["record"] for each in box.dump(kind) if each["state"] == "live"]

    def ask(*words: str) -> Any:
        return json.loads(project.here("api", *words).out)["data"]

    path = project.folder / "picture.png"
    path.write_bytes(b"no real picture")
    found: dict[str, Any] = {"path": str(path)}
    for word, kind in (("deal", "deals"), ("person", "persons"), ("org", "organizations"), ("product", "products"),
                       ("user", "users"), ("role", "roles"), ("team", "legacy_teams"), ("call_log", "call_logs"),
                       ("project", "projects"), ("lead", "leads"), ("board", "project_boards"),
                       ("phase", "project_phases"), ("filter", "filters"), ("note", "notes")):  # fmt: skip
        ids = [each["id"] for each in live(kind)]
        found |= {word: ids[0], **{f"{word}_{number}": id for number, id in enumerate(ids[1:4], 2)}}
    for kind in ("Deal", "Organization", "Person", "Product"):
        fields = [each for each in live(f"{kind.lower()}_fields") if each["is_custom_field"]]
        choice = next(each for each in fields if each["field_type"] in ("enum", "set"))
        other = next(each["field_code"] for each in fields if each is not choice)
        numbers = {each["key"]: each["id"] for each in ask(f"v1 get{kind}Fields")}
        found |= {kind: choice["field_code"], f"{kind}_option": choice["options"][0]["id"]}
        found |= {f"{kind}_number": str(numbers[other])}
    field = next(each for each in live("project_fields") if each["options"])
    found |= {"Project": field["field_code"], "Project_option": field["options"][0]["id"]}
    found["filter"] = str(found["filter"])
    return {**found, "thread": ask("getMailThreads", "folder=inbox")[0]["id"]}


def push_everything(project: Project, known: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Queue and push every mutating operation, one by one, and take updates back.

    Adds to `known` the id of what each operation has written, by the operation's name.

    Returns:
        By operation (state, reason, detail), with stderr as a fourth where it was not pushed; ("refused", stderr) where
        it was not queued.
    """
    outcomes: dict[str, tuple[Any, ...]] = {}
    for number, operation in enumerate(sorted(mutating(), key=batch)):
        given = parameters(operation, {**known, "n": number})
        body = json.dumps(given.pop("body", given))
        words = [f"{name}={value}" for name, value in given.items()] if operation.body_list else []
        ran = project.here("queue", "add", operation.name, *words, "--body", body, "--json")
        if ran.code:
            outcomes[operation.name] = ("refused", ran.err)
            continue
        id = ran.summary["id"]
        ran = project.here(*PUSH)
        *outcome, remote_id = project.control(
            "SELECT state, reason, detail, remote_id FROM mutations WHERE id = ?", id
        )[0]
        outcomes[operation.name] = tuple(outcome) if outcome[0] != "queued" else (*outcome, ran.err)
        if batch(operation) == UPDATES and project.here("undo", "last").code == 0:
            project.here(*PUSH)
        known[operation.name] = int(remote_id) if str(remote_id).isdigit() else remote_id
        project.here("queue", "drop", "--all")
    return outcomes
