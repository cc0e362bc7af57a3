"""What a new generic record is: what was sent, what it is linked to, and the documented defaults of the rest.

Assumption: where the documents give no default, a value that was not sent is null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.fabricate import LINKS
from pdsync.sandbox.operations.collections import PARENT_KEYS, V1_KEYS
from pdsync.sandbox.operations.generic_records import as_number, records_at
from pdsync.sandbox.operations.linked_values import fill_links
from pdsync.sandbox.protocol.errors import bad_request, forbidden

if TYPE_CHECKING:
    from pdsync.sandbox.company.table import Record
    from pdsync.sandbox.operations.collections import Kind
    from pdsync.sandbox.operations.generic_records import Parents
    from pdsync.sandbox.protocol.messages import Call

MINE = ("owner_id", "user_id", "creator_id", "added_by_user_id", "created_by", "updated_by", "admin_id", "pd_user_id")
STAMPS = ("add_time", "update_time", "created_at", "updated_at", "status_change_time")
ACTIVE = {"bool": True, "str": "true", "int": 1, "num": 1, "#0|1": 1}  # by the type of the flag
PINNED = "pinned_to_"
PINS = {"organization": "org_id"}  # a note is pinned to what it links to: the links that are called otherwise
NOTE_LINKS = ("deal_id", "person_id", "org_id", "lead_id", "project_id", "task_id")

DEFAULTS: dict[str, Record] = {
    "leads": {
        "label_ids": [], "source_name": "API", "origin": "API", "is_archived": False, "was_seen": False,
        "visible_to": "3",
    },
    "notes": {f"{PINNED}{name}_flag": False for name in ("lead", "deal", "organization", "person", "project", "task")},
    "note_comments": {"active_flag": True},
    "filters": {"temporary_flag": False, "is_editable": True, "visible_to": "1"},
    "webhooks": {"version": "2.0", "type": "general"},
    "channels": {"provider_type": "other", "template_support": False},
    "call_logs": {"has_recording": False},
    "activity_types": {"is_custom_flag": True},
    "projects": {
        "status": "open", "label_ids": [], "deal_ids": [], "person_ids": [], "org_ids": [], "custom_fields": {},
    },
    "tasks": {"is_done": False, "is_milestone": False, "assignee_ids": []},
    "goals": {"is_active": True, "report_ids": []},
    "legacy_teams": {"deleted_flag": 0, "users": []},
    "deal_products": {
        "tax": 0, "tax_method": "inclusive", "discount": 0, "discount_type": "percentage", "is_enabled": True,
        "comments": "", "billing_frequency": "one-time",
    },
}  # fmt: skip


def new_record(
    call: Call, collection: tuple[str, ...], kind: Kind, parents: Parents, shape: Record, id: Any, sent: Record
) -> Record:
    """The record that an add makes of the body `sent`, under `id`.

    Raises:
        Refused: a link or a right that the documents require is missing, or a link leads to no record.
    """
    check_sent(call, kind.name, sent, {})
    company, now = call.company, call.company.clock.stamp()
    own: Record = {name: now for name in STAMPS if name in shape} | {
        name: call.viewer.user_id for name in MINE if name in shape
    }
    own |= {name: company.id for name in ("company_id", "pd_company_id") if name in shape}
    own |= {name: ACTIVE[shape[name]] for name in ("active_flag", "is_active") if shape.get(name) in ACTIVE}
    links = {name: as_number(id) for name, id in zip(PARENT_KEYS.get(collection[0], ()), parents, strict=False)}
    record = {**dict.fromkeys(shape), **own, **DEFAULTS.get(kind.name, {}), **links}
    if "order_nr" in shape:
        record["order_nr"] = 1 + len(records_at(company, collection, parents))
    if kind.name == "deal_participants":
        record |= {"related_item_type": "deal", "related_item_id": int(parents[0])}
    return fill_links(company, kind.name, {**record, **stored_values(sent, shape), kind.key: id}, shape)


def stored_values(sent: Record, shape: Record) -> Record:
    """What was sent, as it is stored: v1's keys by their new names, flags as booleans, times in one format."""
    stored: Record = {}
    for name, value in sent.items():
        new = V1_KEYS.get(name)
        if new is not None and new in shape:
            stored[new] = _as_v2(new, value)
        elif name in shape or len(name) >= 40:
            stored[name] = _stored(value, shape.get(name))
    return stored


def _as_v2(name: str, value: Any) -> Any:
    if name == "is_done":
        return None if value is None else bool(value)
    return value if isinstance(value, list) else [] if value is None else [value]


def _stored(value: Any, shape: Any) -> Any:
    if shape == "bool" and value in (0, 1):
        return bool(value)
    if shape == "oldtime" and isinstance(value, str) and value:
        return f"{value.replace(' ', 'T').removesuffix('Z')}Z"
    return value


def check_sent(call: Call, kind: str, sent: Record, before: Record) -> None:
    """Refuse what the documents do not allow in the body of an add, or (with the record `before`) of a change."""
    now = {**before, **sent}
    match kind:
        case "notes":
            if all(now.get(name) is None for name in NOTE_LINKS):
                raise bad_request(f"One of {', '.join(NOTE_LINKS)} is required", "deal_id")
            for name in (name for name in sent if name.startswith(PINNED) and sent[name]):
                pinned = name.removeprefix(PINNED).removesuffix("_flag")
                link = PINS.get(pinned, f"{pinned}_id")
                if now.get(link) is None:
                    raise bad_request(f"{name} needs {link}", name)
            if sent.get("user_id") not in (None, call.viewer.user_id) and not call.viewer.admin:
                raise forbidden("Only an admin can change the author of a note.")
        case "leads":
            if now.get("person_id") is None and now.get("organization_id") is None:
                raise bad_request("A lead must be linked to a person or an organization", "person_id")
    _check_links(call, sent)


def _check_links(call: Call, sent: Record) -> None:
    """Assumption: a link to a record that is not there is refused, whatever links to it."""
    for name, value in sent.items():
        for id in (value if isinstance(value, list) else [value]) if name in LINKS else ():
            row = call.company[LINKS[name]].rows.get(id) if isinstance(id, int) else None
            if isinstance(id, int) and (row is None or row.state == "deleted"):
                raise bad_request(f"{name}: there is no record {id}", name)
