"""Answers what is unlike the rest: users and users/me, files with their contents, mail."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pdsync.sandbox.company.data import words
from pdsync.sandbox.company.population.activities_files_mail import file_record, with_milliseconds
from pdsync.sandbox.company.resources import RESOURCES
from pdsync.sandbox.operations.generic_records import as_number, records_at
from pdsync.sandbox.operations.writes import find, mark_deleted
from pdsync.sandbox.protocol.errors import bad_request, not_found
from pdsync.sandbox.protocol.messages import Reply, is_number, success
from pdsync.sandbox.protocol.v1_records import picture, shape
from pdsync.sandbox.protocol.validation import check

if TYPE_CHECKING:
    from pdsync.sandbox.company.table import Record, Row
    from pdsync.sandbox.protocol.messages import Call, Route

LINKS = {
    "deal_id": "deals",
    "person_id": "persons",
    "org_id": "organizations",
    "product_id": "products",
    "activity_id": "activities",
    "lead_id": "leads",
    "project_id": "projects",
}


# -- users -------------------------------------------------------------------------------------------


def get_users(call: Call, _: Route) -> Reply:
    """The whole set in one answer; deleted and inactive users are among it."""
    users = [
        {**shape(call.company, "users", row), "is_you": row.id == call.viewer.user_id}
        for row in call.company["users"].rows.values()
    ]
    return success(users)


def get_me(call: Call, _: Route) -> Reply:
    company = call.company
    row = company["users"].rows[call.viewer.user_id]
    shown = shape(company, "users", row)
    return success(
        {
            **shown,
            # An administrator whose rights were taken away administers nothing any more.
            "access": [{**each, "admin": each["admin"] and call.viewer.admin} for each in shown["access"]],
            "is_you": True,
            "company_id": company.id,
            "company_name": company.name,
            "company_domain": company.domain,
            "company_country": "EE",
            "company_industry": "Instruments",
            "language": {"language_code": "en", "country_code": "GB"},
        }
    )


# -- pictures of persons -----------------------------------------------------------------------------


def add_picture(call: Call, _: Route) -> Reply:
    """Give a person a picture. Assumption: it moves the person's update_time."""
    if call.upload is None:
        raise bad_request("file is required", "file")
    row = _with_picture(call, call.company.next_generic_id())
    return success({**(picture(call.company, row.id, row.record) or {}), "id": row.record["picture_id"]})


def get_picture(call: Call, _: Route) -> Reply:
    """The picture of a person, under the id that the person shows. Assumption: null for a person without one."""
    row = find(call, RESOURCES["persons"], call.id())
    shown = picture(call.company, row.id, row.record)
    if shown is None:
        return success(None)
    left_out = ("value", "add_time", "update_time")
    return success({"id": shown["value"], **{name: value for name, value in shown.items() if name not in left_out}})


def delete_picture(call: Call, _: Route) -> Reply:
    """Take a person's picture away."""
    if find(call, RESOURCES["persons"], call.id()).record["picture_id"] is None:
        raise not_found("picture")
    return success({"id": _with_picture(call, None).id})


def _with_picture(call: Call, id: int | None) -> Row:
    record = find(call, RESOURCES["persons"], call.id()).record
    record["picture_id"], record["update_time"] = id, call.company.clock.stamp()
    return call.company.put("persons", "update", record, request=call.request_id)


# -- files -------------------------------------------------------------------------------------------


def add_file(call: Call, route: Route) -> Reply:
    if call.upload is None:
        raise bad_request("No file was uploaded", "file")
    company = call.company
    links: dict[str, Any] = {}
    for name, kind in LINKS.items():
        text = (call.form or {}).get(name)
        if text and kind in company.tables:
            links[name] = check(f"ref:{kind}", int(text) if is_number(text) else text, name, company, kind)
        elif text:
            if text not in records_at(company, (kind,), ()):
                raise bad_request(f"{name}: there is no {text}", name)
            links[name] = as_number(text)
    content, name = call.upload.content, call.upload.file_name
    id, now = company["files"].next_id, company.clock.stamp()
    digest = hashlib.blake2b(content, digest_size=6).hexdigest()
    stem, _, ending = name.rpartition(".")
    stored = f"{stem}_{digest}.{ending}" if stem else f"{name}_{digest}"
    record = file_record(id, call.viewer.user_id, name=name, stored=stored, size=len(content), now=now, links=links)
    company.contents[id] = content
    row = company.put("files", "add", record, "live", request=call.request_id)
    return success(shape(company, "files", row), 200)


def update_file(call: Call, route: Route) -> Reply:
    row = find(call, RESOURCES["files"], call.id())
    sent = {name: value for name, value in call.json().items() if name in ("name", "description")}
    record = {**row.record, **sent, "update_time": call.company.clock.stamp()}
    return success(shape(call.company, "files", call.company.put("files", "update", record, request=call.request_id)))


def delete_file(call: Call, route: Route) -> Reply:
    row = find(call, RESOURCES["files"], call.id())
    mark_deleted(call.company, "files", row, call.company.clock.stamp(), call.request_id)
    return success({"id": row.id})


def download_file(call: Call, route: Route) -> Reply:
    row = find(call, RESOURCES["files"], call.id())
    record = row.record
    name = record["file_name"].encode("ascii", "replace").decode().replace('"', "_")
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Reply(200, contents(call, row), headers, "application/octet-stream")


def contents(call: Call, row: Row) -> bytes:
    """What was uploaded, or as many bytes as the record says, the same ones each time."""
    kept = call.company.contents.get(row.id)
    if kept is not None:
        return kept
    block = hashlib.sha256(f"{call.company.id}/{row.id}".encode()).digest()
    size: int = row.record["file_size"]
    return (block * (size // len(block) + 1))[:size]


# -- mail --------------------------------------------------------------------------------------------


def update_thread(call: Call, route: Route) -> Reply:
    row = find(call, RESOURCES["mail_threads"], call.id())
    record, sent = row.record, call.json()
    for name in ("shared_flag", "read_flag", "archived_flag"):
        if name in sent:
            record[name] = int(str(sent[name]) in ("1", "true", "True"))
    if sent.get("deal_id"):
        text = str(sent["deal_id"])
        record["deal_id"] = check("ref:deals", int(text) if is_number(text) else text, "deal_id", call.company, "deals")
    record["update_time"] = with_milliseconds(call.company.clock.stamp())
    # Assumption: what leaves the archive goes to the inbox.
    hidden = {}
    if "archived_flag" in sent:
        hidden["folder"] = "archive" if record["archived_flag"] else "inbox"
        record["folders"] = [hidden["folder"]]
    call.company.put("mail_threads", "update", record, hidden=hidden, request=call.request_id)
    return success(record)


def delete_thread(call: Call, route: Route) -> Reply:
    row = find(call, RESOURCES["mail_threads"], call.id())
    mark_deleted(call.company, "mail_threads", row, with_milliseconds(call.company.clock.stamp()), call.request_id)
    return success({"id": row.id}, statusCode=2000, statusText="Success", service="email-api")


def list_messages(call: Call, route: Route) -> Reply:
    row = find(call, RESOURCES["mail_threads"], call.id())
    record = row.record
    return success([message(record, number) for number in range(record["message_count"])])


def get_message(call: Call, route: Route) -> Reply:
    id = call.id()
    row = find(call, RESOURCES["mail_threads"], id // 10)
    number = id % 10 - 1
    if not 0 <= number < row.record["message_count"]:
        raise not_found("mailMessage")
    shown = message(row.record, number, with_body=call.query.get("include_body") == "1")
    return success(shown, statusCode=2000, statusText="Success", service="email-api")


SHARED_FLAGS = words(
    "account_id user_id subject snippet read_flag mail_tracking_status has_attachments_flag "
    "has_inline_attachments_flag has_real_attachments_flag deleted_flag synced_flag smart_bcc_flag "
    "mail_link_tracking_enabled_flag"
)


def message(thread: Record, number: int, *, with_body: bool = False) -> Record:
    """Messages are not kept: a thread knows how many it has, and they all look alike."""
    id = thread["id"] * 10 + number + 1
    # Odd ones answer: sender and receiver change places.
    sender, receiver = ("from", "to") if number % 2 == 0 else ("to", "from")
    return {
        "id": id,
        **{name: thread[name] for name in SHARED_FLAGS},
        "from": thread["parties"][sender],
        "to": thread["parties"][receiver],
        "cc": [],
        "bcc": [],
        "body_url": f"https://bodies.example/{id}",
        "mail_thread_id": thread["id"],
        "draft": None,
        "draft_flag": 0,
        "has_body_flag": 1,
        "sent_flag": number % 2,
        "sent_from_pipedrive_flag": 0,
        "message_time": thread["last_message_timestamp"],
        "add_time": thread["add_time"],
        "update_time": thread["update_time"],
        **({"body": _body(thread, sender)} if with_body else {}),
    }


def _body(thread: Record, sender: str) -> str:
    """The text of a message, signed by who sent it."""
    names = [f"{each['name']} &lt;{each['email_address']}&gt;" for each in thread["parties"][sender]]
    return f"<p>{thread['snippet']}</p><p>{'<br>'.join(names)}</p>"
