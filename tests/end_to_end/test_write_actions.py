"""Each action of a well-known Pipedrive component that changes data: queued, pushed, and found in the journal.

`docs/write-actions.md` is the table of them; `python -m tests.end_to_end.test_write_actions` writes it anew.
"""

# ruff: noqa: T201 - writes a file when it is run as a program

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pdsync
from pdsync.core import catalogue
from pdsync.errors import ConfigError
from tests.end_to_end.test_actions import READS
from tests.support.world import Project, serving
from tests.vendor import stored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.world import Remote

TABLE = Path(__file__).parents[2] / "docs" / "write-actions.md"
# Action → (what is queued, as a shell reads it; the kind and the operation that the journal must show, once). In
# braces: see PLACEHOLDERS.
ACTIONS: dict[str, tuple[str, str, str]] = {
    "addCallLog": ("addCallLog outcome=connected to_phone_number=+491 start_time=2026-01-05T10:00:00Z"
                   " end_time=2026-01-05T10:05:00Z", "call_logs", "add"),
    "addDeal": ("addDeal title=Made value=10 currency=EUR", "deals", "add"),
    "addDealFollower": ("addDealFollower id={deal} user_id={user}", "deal_followers", "add"),
    "addDealParticipant": ("addDealParticipant id={deal} person_id={person}", "deal_participants", "add"),
    "addDealProduct": ("addDealProduct id={deal} product_id={product} item_price=5 quantity=2", "deal_products", "add"),
    "addFile": ("addFile file={path} deal_id={deal}", "files", "add"),
    "addLead": ("addLead title=Made person_id={person}", "leads", "add"),
    "addLeadLabel": ("addLeadLabel name=Made color=blue", "lead_labels", "add"),
    "addOrganization": ("addOrganization name=Made", "organizations", "add"),
    "addOrganizationFollower": ("addOrganizationFollower id={org} user_id={user}", "organization_followers", "add"),
    "addPerson": ("addPerson name=Made emails=made@example.com", "persons", "add"),
    "addPersonFollower": ("addPersonFollower id={person} user_id={user}", "person_followers", "add"),
    "addPipeline": ("addPipeline name=Made", "pipelines", "add"),
    "addProduct": ("addProduct name=Made", "products", "add"),
    "addProductFollower": ("addProductFollower id={product} user_id={user}", "product_followers", "add"),
    "addStage": ("addStage name=Made pipeline_id={pipeline}", "stages", "add"),
    "deleteActivity": ("deleteActivity id={activity}", "activities", "delete"),
    "deleteCallLog": ("deleteCallLog id={call_log}", "call_logs", "delete"),
    "deleteDeal": ("deleteDeal id={deal_2}", "deals", "delete"),
    "deleteDealField": ("deleteDealField id={deal_field}", "deal_fields", "delete"),
    "deleteDealFollower": ("deleteDealFollower id={deal} follower_id={user}", "deal_followers", "delete"),
    "deleteDealParticipant": ("deleteDealParticipant id={deal} deal_participant_id={participant}",
                              "deal_participants", "delete"),
    "deleteDealProduct": ("deleteDealProduct id={sold} product_attachment_id={line}", "deal_products", "delete"),
    "deleteFile": ("deleteFile id={file}", "files", "delete"),
    "deleteLead": ("deleteLead id={lead}", "leads", "delete"),
    "deleteLeadLabel": ("deleteLeadLabel id={lead_label}", "lead_labels", "delete"),
    "deleteMailThread": ("deleteMailThread id={thread}", "mail_threads", "delete"),
    "deleteOrganization": ("deleteOrganization id={org_2}", "organizations", "delete"),
    "deleteOrganizationFollower": ("deleteOrganizationFollower id={org} follower_id={user}",
                                   "organization_followers", "delete"),
    "deletePerson": ("deletePerson id={person_2}", "persons", "delete"),
    "deletePersonField": ("deletePersonField id={person_field}", "person_fields", "delete"),
    "deletePersonFollower": ("deletePersonFollower id={person} follower_id={user}", "person_followers", "delete"),
    "deletePersonPicture": ("deletePersonPicture id={pictured}", "persons", "update"),
    "deletePipeline": ("deletePipeline id={pipeline_2}", "pipelines", "delete"),
    "deleteProduct": ("deleteProduct id={product_2}", "products", "delete"),
    "deleteProductField": ("deleteProductField id={product_field}", "product_fields", "delete"),
    "deleteProductFollower": ("deleteProductFollower id={product} follower_id={user}", "product_followers", "delete"),
    "deleteStage": ("deleteStage id={stage}", "stages", "delete"),
    "mergeDeals": ("mergeDeals id={deal_3} merge_with_id={deal_4}", "deals", "merge"),
    "mergeOrganizations": ("mergeOrganizations id={org_3} merge_with_id={org_4}", "organizations", "merge"),
    "mergePersons": ("mergePersons id={person_3} merge_with_id={person_4}", "persons", "merge"),
    "setFieldValueForPerson": ("updatePerson id={person} '{person_code}=By hand'", "persons", "update"),
    "updateDeal": ("updateDeal id={deal} title=Changed value=77", "deals", "update"),
    "updateDealProduct": ("updateDealProduct id={sold_2} product_attachment_id={line_2} item_price=9 quantity=3",
                          "deal_products", "update"),
    "updateFile": ("updateFile id={file_2} name=changed.txt description=Changed", "files", "update"),
}  # fmt: skip
# What stands in braces → what it is, and the table that has it. With a number after it, it is another one.
PLACEHOLDERS = {
    "activity": ("an activity's id", "activities"),
    "call_log": ("a call log's id", "call_logs"),
    "deal": ("a deal's id", "deals"),
    "deal_field": ("the code of a custom field of deals, which `pdsync fields` lists", "deal_fields"),
    "file": ("a file's id", "files"),
    "lead": ("a lead's id", "leads"),
    "lead_label": ("a label's id", "lead_labels"),
    "line": ("the id of a line item of the deal", "deal_products"),
    "org": ("an organization's id", "organizations"),
    "participant": ("the id of an entry in the deal's list of participants", "deal_participants"),
    "path": ("the path of a file on this machine", None),
    "person": ("a person's id", "persons"),
    "person_code": ("the code of a custom field of persons, or its label", "person_fields"),
    "person_field": ("the code of a custom field of persons", "person_fields"),
    "pictured": ("the id of a person with a picture", "persons"),
    "pipeline": ("a pipeline's id", "pipelines"),
    "product": ("a product's id", "products"),
    "product_field": ("the code of a custom field of products", "product_fields"),
    "sold": ("the id of a deal with line items", "deals"),
    "stage": ("a stage's id", "stages"),
    "thread": ("a mail thread's id", "mail_threads"),
    "user": ("a user's id", "users"),
}
REMOVED = {
    "cancelRecurringSubscription": "cancelRecurringSubscription id=1 end_date=2026-01-01",
    "deleteSubscription": "deleteSubscription id=1",
    "addChannel": "addChannel name=Chat provider_channel_id=c1",
    "deleteChannel": "deleteChannel id=a",
    "deleteConversation": "deleteConversation channel-id=a conversation-id=a",
}
_YES = ("push", "--yes", "--allow", "delete,merge", "--max-deletes", "99", "--settle-seconds", "0.1", "--json", "-q")


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "90", "--seed", "37", "--mail-threads", "40") as remote:
        yield remote


@pytest.fixture(scope="module")
def project(remote: Remote, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("write actions") / "project", remote)


@pytest.fixture(scope="module")
def known(remote: Remote, project: Project) -> dict[str, str]:
    """What the braces stand for; what a later action takes away, an earlier one does not need."""
    live = {
        kind: [entry["record"] for entry in remote.dump(kind) if entry["state"] == "live"]
        for kind in (
            "deals", "persons", "organizations", "products", "activities", "pipelines", "users", "files", "leads",
            "call_logs", "deal_products", "lead_labels", "mail_threads",
        )
    }  # fmt: skip
    path = project.folder.parent / "attached.txt"
    path.write_text("an attachment", encoding="utf-8")
    codes = {
        f"{kind}_field": next(
            entry["id"]
            for entry in remote.dump(f"{kind}_fields")
            if entry["state"] == "live" and entry["record"]["is_custom_field"]
        )
        for kind in ("deal", "person", "product")
    }
    text = [e["record"] for e in remote.dump("person_fields") if e["record"]["is_custom_field"]
                and e["record"]["field_type"] in ("varchar", "text")][-1]  # fmt: skip
    sold = live["deal_products"]
    threads = json.loads(project.here("api", "getMailThreads", "folder=inbox").out)["data"]  # the token's own
    found = {
        "path": str(path), "user": str(live["users"][-1]["id"]), "pipeline": str(live["pipelines"][0]["id"]),
        "activity": str(live["activities"][-1]["id"]), "call_log": live["call_logs"][0]["id"],
        "sold": str(sold[0]["deal_id"]), "line": str(sold[0]["id"]), "sold_2": str(sold[-1]["deal_id"]),
        "line_2": str(sold[-1]["id"]), "file": str(live["files"][0]["id"]), "file_2": str(live["files"][-1]["id"]),
        "pictured": next(str(person["id"]) for person in live["persons"] if person["picture_id"]),
        "lead": live["leads"][0]["id"], "lead_label": live["lead_labels"][-1]["id"],
        "thread": str(threads[0]["id"]), "person_code": text["field_code"], **codes,
    }  # fmt: skip
    for name, kind in (("deal", "deals"), ("person", "persons"), ("org", "organizations"), ("product", "products")):
        ids = [str(record["id"]) for record in live[kind]]
        found |= {name: ids[0], **{f"{name}_{number}": ids[-number] for number in (2, 3, 4)}}
    return found


@pytest.fixture(scope="module")
def found_later() -> dict[str, str]:
    """Ids of what earlier actions have added."""
    return {}


def _fill(words: str, known: dict[str, str]) -> list[str]:
    return [word.format(**known) for word in shlex.split(words)]


def _placeholders(words: str) -> set[str]:
    """The words in braces, without the numbers that tell two of them apart."""
    return {re.sub(r"_\d$", "", name) for name in re.findall(r"{(\w+)}", words)}


def test_every_mutating_action_is_covered() -> None:
    seed = stored("actions")
    assert {key for key, action in seed.items() if action["kind"] not in READS} == ACTIONS.keys() | REMOVED.keys()


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_takes_effect_once_and_the_journal_shows_it(
    remote: Remote, project: Project, known: dict[str, str], found_later: dict[str, str], action: str
) -> None:
    words, kind, op = ACTIONS[action]
    ran = project.here("queue", "add", *_fill(words, known | found_later), "--json")
    assert ran.code == 0, ran
    id = ran.summary["id"]
    before = len(remote.lines("journal"))
    ran = project.here(*_YES)
    assert ran.code == 0, ran
    state, reason, remote_id = project.control("SELECT state, reason, remote_id FROM mutations WHERE id = ?", id)[0]
    assert (state, reason) == ("applied", None)
    effects = [entry for entry in remote.lines("journal")[before:] if (entry["kind"], entry["op"]) == (kind, op)]
    assert len(effects) == 1, [(entry["kind"], entry["op"]) for entry in remote.lines("journal")[before:]]
    if op == "add" and "followers" not in kind:
        assert str(effects[0]["id"]).split("/")[-1] == remote_id
    later = {"addPipeline": "pipeline_2", "addStage": "stage", "addDealParticipant": "participant"}
    if action in later:
        found_later[later[action]] = remote_id


@pytest.mark.parametrize("action", REMOVED)
def test_what_pipedrive_has_ended_is_refused_in_the_same_words_by_every_way(
    remote: Remote, project: Project, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    for name, value in project.env.items():
        monkeypatch.setenv(name, value)
    words = [word.split("=", 1) for word in REMOVED[action].split(" ")[1:]]
    file = project.folder / "rows.csv"
    file.write_text("\n".join(",".join(column) for column in zip(*words, strict=True)), encoding="utf-8")
    given = ["=".join(word) for word in words]
    remote.clear_log()
    ways = (("queue", "add", action, *given), ("queue", "import", str(file), "--operation", action),
            ("api", action, *given, "--yes"), ("action", action))  # fmt: skip
    for way in ways:
        ran = project.here(*way)
        assert ran.code == 2, way
        assert str(catalogue.operation(action).ended) in ran.err
    with pytest.raises(ConfigError, match="Nothing was queued") as refused:
        pdsync.Queue(project.folder).add(action, **dict(words))
    assert str(catalogue.operation(action).ended) in str(refused.value)
    assert remote.log() == []


async def test_the_library_calls_nothing_that_pipedrive_has_ended(
    remote: Remote, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDSYNC_API_TOKEN", remote.token)
    async with pdsync.Client(project.folder, {"account.base_url": remote.url}) as client:
        for action in REMOVED:
            with pytest.raises(ConfigError, match="Nothing was called") as refused:
                await client.call(action)
            assert str(catalogue.operation(action).ended) in str(refused.value)
        with pytest.raises(ConfigError, match="products on a deal carry the billing now"):
            [each async for each in client.list("getSubscriptionPayments", id=1)]


def test_every_command_is_one_that_a_shell_reads_as_it_is_meant() -> None:
    shown = re.findall(r"^\| (\w+) \| `pdsync queue add (.+?)` \| \d+ \|$", TABLE.read_text("utf-8"), re.MULTILINE)
    assert [action for action, _ in shown] == sorted(ACTIONS)
    for action, words in shown:
        operation, *given = shlex.split(words)
        assert catalogue.operation(operation).mutates
        assert all("=" in word for word in given), action
        assert words == ACTIONS[action][0]


def test_everything_in_braces_is_explained() -> None:
    used = set().union(*(_placeholders(words) for words, _, _ in ACTIONS.values()))
    assert used == PLACEHOLDERS.keys()
    assert {stream for _, stream in PLACEHOLDERS.values() if stream} <= catalogue.streams().keys()
    listed = re.findall(r"^\| `{(\w+)}` \|", TABLE.read_text("utf-8"), re.MULTILINE)
    assert listed == sorted(used)


def table() -> str:
    """The actions and their commands, in Markdown."""
    lines = [
        "# Mutating actions and the commands for them",
        "",
        "Each is queued and pushed to the sandbox by `tests/end_to_end/test_write_actions.py`, and looked for in its",
        "journal: exactly one effect. `pdsync push` sends what was queued.",
        "",
        "What is in braces is yours: replace it, braces included. The list below the commands says what it is.",
        "",
        "| action | queued by | tokens |",
        "|---|---|---|",
    ]
    for action in sorted(ACTIONS | REMOVED):
        if action in REMOVED:
            lines.append(f"| {action} | removed by Pipedrive: refused when it is queued | |")
            continue
        words = ACTIONS[action][0]
        lines.append(f"| {action} | `pdsync queue add {words}` | {catalogue.operation(words.split(' ')[0]).cost} |")
    lines += [
        "",
        "## In braces",
        "",
        'After a sync the tables have these: `pdsync sql "SELECT id, title FROM deals"`. A number tells two apart:',
        "`{deal_2}` is another deal.",
        "",
        "| in braces | what it is | table |",
        "|---|---|---|",
    ]
    for name, (meaning, stream) in sorted(PLACEHOLDERS.items()):
        lines.append(f"| `{{{name}}}` | {meaning} | {f'`{stream}`' if stream else ''} |")
    return "\n".join([*lines, ""])


def test_the_table_in_the_docs_is_up_to_date() -> None:
    assert TABLE.read_text("utf-8") == table()


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
    print(f"{TABLE}: {len(ACTIONS | REMOVED)} actions")
