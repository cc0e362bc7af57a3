"""Each mutating operation of the catalogue is verified by a read, or says that nothing can verify it.

`docs/read-back.md` is the table of the reads; `python -m tests.end_to_end.test_effects` writes it anew.
"""

# ruff: noqa: T201 - writes a file when it is run as a program

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.core import catalogue
from pdsync.core.request_builder import check
from pdsync.writeback.effects import choose_read_back, find_effect
from pdsync.writeback.shapes import shape
from tests.support.world import Project, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.model import Operation
    from tests.support.world import Ran, Remote

TABLE = Path(__file__).parents[2] / "docs" / "read-back.md"
WRITES = [
    each for version in catalogue.VERSIONS for each in catalogue.operations(version).values()
    if each.mutates and not each.removed and not each.host
]  # fmt: skip
UNVERIFIABLE = {"v1 saveUserProviderLink", "v1 deleteUserProviderLink"}
PROVIDER_LINK = "user_provider_id=0b5e5b0e-0000-4000-8000-{} user_id={{user}} company_id=1 marketplace_client_id=x"
PUSH = ("push", "--yes", "--json", "-q", "--settle-seconds", "0.05", "--allow", "delete,merge", "--max-deletes", "999")

# What nothing but an effect shows, in the order in which it can be done: operation → its parameters. In braces: ids.
# A name before a slash tells two uses of one operation apart.
ADDED = {
    **{f"add{kind}FieldOptions": f'id={{{kind}}} body=[{{{{"label":"One more"}}}},{{{{"label":"And one"}}}}]'
       for kind in ("Deal", "Organization", "Person", "Product", "Project")},
    "postInstallment": "id={deal} description=First amount=50 billing_date=2026-12-01",
    "addManyDealProducts": 'id={deal} data=[{{"product_id":{product},"item_price":3,"quantity":1}},'
                           '{{"product_id":{product},"item_price":4,"quantity":2}}]',
    "v1 duplicateDeal": "id={deal}",
    "duplicateProduct": "id={product}",
    "uploadProductImage": "id={product} data={path}",
    "v1 addPersonPicture": "id={person} file={path}",
    "v1 addCallLogAudioFile": "id={call_log} file={path}",
    "v1 addFileAndLinkIt": "file_type=gdoc title=Far item_type=deal item_id={deal} remote_location=googledrive",
    "v1 linkFileToItem": "item_type=deal item_id={deal} remote_id=abc remote_location=googledrive",
    "v1 addGoal": 'title=Sell assignee={{"id":{user},"type":"person"}} type={{"name":"deals_won","params":'
                  '{{"pipeline_id":[1]}}}} expected_outcome={{"target":5,"tracking_metric":"quantity"}}'
                  ' duration={{"start":"2026-01-01","end":"2026-12-31"}} interval=monthly',
    "v1 addTeamUser": "id={team} users=[{user},{user_2}]",
    "v1 addOrUpdateRoleSetting": "id={role} setting_key=deal_default_visibility value=3",
    "v1 updateRolePipelines": 'id={role} visible_pipeline_ids={{"add":[1,2],"remove":[3]}}',
    "v1 addRoleAssignment": "id={role} user_id={user_2}",
    "archiveProject": "id={project}",
    "v1 archiveProject": "id={project_2}",
    "v1 putProjectPlanActivity": "id={project} activityId=4 phase_id=1 group_id=2",
    "v1 putProjectPlanTask": "id={project} taskId=4 phase_id=2 group_id=1",
    "convertDealToLead": "id={deal_2}",
    "convertLeadToDeal": "id={lead}",
    "v1 saveUserProviderLink": PROVIDER_LINK.format("000000000000"),
}  # fmt: skip
CHANGED = {
    **{f"update{kind}FieldOptions": f'id={{{kind}}} body=[{{{{"id":{{{kind}_option}},"label":"Renamed"}}}}]'
       for kind in ("Deal", "Organization", "Person", "Product", "Project")},
    "updateInstallment": "id={deal} installment_id={postInstallment} amount=60",
    "updateProductImage": "id={product} data={path}",
    "v1 updateGoal": "id={v1 addGoal} title=Renamed",
}  # fmt: skip
DELETED = {
    **{f"delete{kind}FieldOptions": f'id={{{kind}}} body=[{{{{"id":{{{kind}_option}}}}}}]'
       for kind in ("Deal", "Organization", "Person", "Product", "Project")},
    **{f"v1 delete{kind}Fields": f"ids={{{kind}_number}}" for kind in ("Deal", "Organization", "Person", "Product")},
    "v1 deleteFilters": "ids={filter},{filter_2}",
    "deleteInstallment": "id={deal} installment_id={postInstallment}",
    "deleteManyDealProducts": "id={deal}",
    "deleteProductImage": "id={product}",
    "v1 deletePersonPicture": "id={person}",
    "v1 deleteTeamUser": "id={team} users=[{user}]",
    "v1 deleteRoleAssignment": "id={role} user_id={user_2}",
    "v1 deleteGoal": "id={v1 addGoal}",
}  # fmt: skip


# The catalogue.


@pytest.mark.parametrize("operation", WRITES, ids=lambda operation: operation.name)
def test_w7_each_operation_has_a_read_that_shows_its_effect_or_none_in_the_whole_api(operation: Operation) -> None:
    found, effect = choose_read_back(operation), find_effect(operation)
    assert (found == "none") == (operation.name in UNVERIFIABLE)
    if effect is None:
        return
    reader = catalogue.operation(effect.read or "")
    assert not reader.mutates
    assert not reader.removed
    declared = {**operation.path_params, **operation.query, **operation.body}
    named = [*effect.params.values(), *[each for each in (effect.names, effect.equals) if each]]
    assert all(name.startswith("@") or name in declared or (name == "body" and operation.body_list) for name in named)
    sample = {
        "integer": 1, "array[integer]": "1", "string:uuid": "00000000-0000-4000-8000-000000000000", "string": "x",
    }  # fmt: skip
    readable = {**reader.path_params, **reader.query}
    for query in effect.queries:  # nothing is missing that the read needs
        check(reader, {name: sample[readable[name].type] for name in effect.params} | query)


def table() -> str:
    """The operations and the reads that verify them, in Markdown."""
    lines = [
        "# What verifies each mutating operation",
        "",
        "After the answer, a push reads what the operation should have done; `applied` means that it showed. Where the",
        'API has nothing to read, the outcome is `applied` with the reason `unverified`: "sent, not verifiable".',
        "Additions and updates are read again only where the answer itself does not show every field.",
        "",
        "| operation | read |",
        "|---|---|",
    ]
    named = sorted(WRITES, key=lambda each: (each.id, each.version))
    return "\n".join([*lines, *(f"| {each.name} | {_read_by(each)} |" for each in named), ""])


def _read_by(operation: Operation) -> str:
    shaped, effect = shape(operation), find_effect(operation)
    if effect:
        return f"{effect.read}: {effect.at or 'its records'}"
    if shaped.item:
        return f"{shaped.item.name}: the record"
    return f"{shaped.listing.name}: the record in the list" if shaped.listing else "none: sent, not verifiable"


def test_w7_the_table_in_the_docs_is_up_to_date() -> None:
    assert TABLE.read_text("utf-8") == table()


# Against the sandbox.


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with serving("--deals", "200", "--seed", "41", "--mail-threads", "10") as remote:
        yield remote


@pytest.fixture
def project(remote: Remote, tmp_path: Path) -> Iterator[Project]:
    yield Project(tmp_path / "project", remote)
    remote.clear_faults()


def live(remote: Remote, kind: str) -> list[dict[str, Any]]:
    return [entry["record"] for entry in remote.dump(kind) if entry["state"] in ("live", "archived")]


def read(project: Project, *words: str) -> Any:
    ran = project.here("api", *words)
    assert ran.code == 0, ran
    return json.loads(ran.out)["data"]


def queue(project: Project, name: str, words: str, known: dict[str, Any]) -> str:
    parts: list[str] = []
    for word in words.split(" "):
        parts = [*parts, word] if "=" in word or not parts else [*parts[:-1], f"{parts[-1]} {word}"]
    given = [part.format(**known) for part in parts]
    body = [part.removeprefix("body=") for part in given if part.startswith("body=")]
    rest = [part for part in given if not part.startswith("body=")]
    ran = project.here("queue", "add", name, *rest, *(["--body", *body] if body else []), "--json")
    assert ran.code == 0, ran
    return str(ran.summary["id"])


def outcome(project: Project, id: str) -> tuple[Any, ...]:
    return project.control("SELECT state, reason, detail, remote_id FROM mutations WHERE id = ?", id)[0]


@pytest.fixture
def known(remote: Remote, project: Project) -> dict[str, Any]:
    """What the braces stand for."""
    path = project.folder.parent / "picture.png"
    path.write_bytes(b"no real picture")
    found: dict[str, Any] = {"path": str(path)}
    for kind in ("Deal", "Organization", "Person", "Product"):
        fields = [each for each in live(remote, f"{kind.lower()}_fields") if each["is_custom_field"]]
        choice = next(each for each in fields if each["field_type"] in ("enum", "set"))
        found |= {kind: choice["field_code"], f"{kind}_option": choice["options"][0]["id"]}
        other = next(each["field_code"] for each in fields if each is not choice)
        numbers = {each["key"]: each["id"] for each in read(project, f"v1 get{kind}Fields")}
        found[f"{kind}_number"] = numbers[other]
    found["Project"] = read(project, "getProjectFields")[0]["field_code"]
    deals = [each for each in live(remote, "deals") if not each["is_archived"]]
    found |= {"deal": deals[0]["id"], "deal_2": deals[1]["id"], "product": live(remote, "products")[0]["id"]}
    found |= {"person": live(remote, "persons")[0]["id"]}
    users = live(remote, "users")
    found |= {"user": users[0]["id"], "user_2": users[-1]["id"], "role": read(project, "getRoles")[0]["id"]}
    found |= {"team": read(project, "v1 getTeams")[0]["id"], "call_log": read(project, "getUserCallLogs")[0]["id"]}
    filters = read(project, "getFilters")
    found |= {"filter": filters[0]["id"], "filter_2": filters[1]["id"]}
    return found


def test_w7_every_outcome_is_verified_or_says_that_nothing_can_verify_it(
    remote: Remote, project: Project, known: dict[str, Any]
) -> None:
    projects, leads = read(project, "getProjects"), read(project, "getLeads")
    known |= {"project": projects[0]["id"], "project_2": projects[1]["id"], "lead": leads[0]["id"]}
    unread = {each.name for each in WRITES if choose_read_back(each) in ("effect", "none")}
    tried: set[str] = set()
    wrong: dict[str, tuple[Any, ...]] = {}
    for batch in (ADDED, CHANGED, DELETED):
        if batch is CHANGED:
            options = read(project, "getProjectField", f"field_code={known['Project']}")["options"]
            known["Project_option"] = options[-1]["id"]
        queued = {name: queue(project, name, words, known) for name, words in batch.items()}
        remote.clear_log()
        ran = project.here(*PUSH)
        assert ran.code in (0, 5), (ran, wrong)
        assert_estimated(remote, ran)
        for name, id in queued.items():
            tried.add(catalogue.operation(name).name)
            state, reason, detail, remote_id = outcome(project, id)
            known[name] = remote_id
            expected = "unverified" if catalogue.operation(name).name in UNVERIFIABLE else None
            if (state, reason) != ("applied", expected):
                wrong[name] = (state, reason, detail)
            if expected:
                assert "sent, not verifiable" in detail
    assert wrong == {}
    assert unread - tried - {"v1 deleteUserProviderLink"} == set()
    assert live_products(project, known["deal"]) == []


def assert_estimated(remote: Remote, ran: Ran) -> None:
    """The receipt says what the server has charged; how many records a read takes together depends on the answers."""
    charged = sum(entry["cost"] for entry in remote.log())
    assert ran.summary["tokens"] == charged
    assert charged <= ran.summary["estimated_tokens"] <= charged * 1.1


def test_a_push_costs_what_its_plan_estimates(remote: Remote, project: Project, known: dict[str, Any]) -> None:
    deals = [each["id"] for each in live(remote, "deals") if not each["is_archived"]][-12:]
    persons = [each["id"] for each in live(remote, "persons")][-4:]
    activities = [each["id"] for each in live(remote, "activities")][-5:]
    updates = [("updateDeal", f"id={id} title=Estimated") for id in deals]
    chain = [("updateDeal", f"id={deals[0]} probability={n}") for n in (11, 12, 12)]  # the last one changes nothing
    additions = [("addPerson", f"name=Estimated {n}") for n in range(3)]
    children = [("addNote", f"deal_id={deals[0]} content=x"), ("addDealFollower", f"id={deals[1]} user_id={{user}}"),
                ("addDealProduct", f"id={deals[2]} product_id={{product}} item_price=1 quantity=1")]  # fmt: skip
    deletions = [("deleteActivity", f"id={id}") for id in activities]
    merges = [("v1 mergePersons", f"id={persons[0]} merge_with_id={persons[1]}"),
              ("updatePerson", f"id={persons[2]} name=Estimated")]  # fmt: skip
    for kinds in ([*updates, *chain, *additions, *children, *deletions], merges):
        for name, words in kinds:
            queue(project, name, words, known)
        remote.clear_log()
        ran = project.here(*PUSH)
        assert ran.code == 0, ran
        assert ran.summary["mutations"]["applied"] == len(kinds)
        assert_estimated(remote, ran)


def live_products(project: Project, deal: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read(project, "getDealProducts", f"id={deal}")
    return found


def with_products(remote: Remote, project: Project, count: int) -> int:
    """A deal of its own with so many products in it."""
    product = live(remote, "products")[-1]["id"]
    made = remote.post("act", method="POST", path="/api/v2/deals", body={"title": "With products"})["data"]["id"]
    remote.post("act", method="DELETE", path=f"/api/v2/deals/{made}/products")  # those that are made up
    for number in range(count):
        line = {"product_id": product, "item_price": number, "quantity": 1}
        remote.post("act", method="POST", path=f"/api/v2/deals/{made}/products", body=line)
    return int(made)


def effects(remote: Remote, before: int) -> int:
    return len(remote.lines("journal")) - before


def test_w7_a_change_that_is_accepted_and_does_not_show_is_no_success(
    remote: Remote, project: Project, known: dict[str, Any]
) -> None:
    """The reads lie: they show none of what was written."""
    deal = with_products(remote, project, 0)
    activity = live(remote, "activities")[0]["id"]
    words = {
        "updatePersonFieldOptions": 'id={Person} body=[{{"id":{Person_option},"label":"Shown nowhere"}}]',
        "addManyDealProducts": f'id={deal} data=[{{{{"product_id":{{product}},"item_price":77,"quantity":1}}}}]',
        "deleteActivity": f"id={activity}",
    }
    for path, find, replace in (
        ("personFields", "Shown nowhere", "Before"),
        (f"deals/{deal}/products", '"item_price":77', '"item_price":78'),
        (f"activities/{activity}", '"is_deleted":true', '"is_deleted":false'),
    ):
        remote.fault(kind="mutate", method="GET", path=path, find=find, replace=replace)
    ended = []
    for name, given in words.items():
        queued = queue(project, name, given, known)
        project.here(*PUSH)
        ended.append(outcome(project, queued)[:2])
    assert ended == [("rejected", "ignored_fields"), ("needs_review", "not_shown"), ("needs_review", "not_shown")]


def test_w7_an_unverified_outcome_is_marked_wherever_it_is_shown(remote: Remote, project: Project) -> None:
    assert project.here("sync", "-q", "users").code == 0
    words = PROVIDER_LINK.format("000000000009")
    queued = queue(project, "v1 saveUserProviderLink", words, {"user": live(remote, "users")[0]["id"]})
    ran = project.here(*[word for word in PUSH if word not in ("--json", "-q")])
    assert ran.code == 0, ran
    assert ran.err.count("sent, not verifiable") == 2  # of the mutation, and in the sum
    assert "sent, not verifiable" in project.here("queue", "show", queued).out
    assert "sent, not verifiable" in project.here("queue", "list", "--all", "--json").out
    ((reason, detail),) = project.ask("SELECT reason, detail FROM meta.mutations WHERE id = ?", queued)
    assert reason == "unverified"
    assert detail.startswith("sent, not verifiable")


@pytest.mark.parametrize("fault", ["reset_after", "reset_before"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("deleteManyDealProducts", "id={sold}"),
        ("updateProductFieldOptions", 'id={Product} body=[{{"id":{Product_option},"label":"Lost {fault}"}}]'),
        ("v1 addTeamUser", "id={team} users=[{next_user}]"),
    ],
)
def test_w2_w4_a_lost_answer_is_probed_where_the_effect_is_a_state(
    remote: Remote, project: Project, known: dict[str, Any], name: str, words: str, fault: str
) -> None:
    known |= {"sold": with_products(remote, project, 1), "fault": fault}
    members = read(project, "v1 getTeamUsers", f"id={known['team']}")
    known["next_user"] = next(each["id"] for each in live(remote, "users") if each["id"] not in members)
    queued = queue(project, name, words, known)
    before = len(remote.lines("journal"))
    remote.fault(kind=fault, method=catalogue.operation(name).method, nth=1)
    ran = project.here(*PUSH)
    assert ran.code == 0, ran
    assert outcome(project, queued)[0] == "applied"
    assert effects(remote, before) == 1
    assert project.control("SELECT count(*) > 0 FROM probes WHERE mutation = ?", queued) == [(True,)]


def test_a_change_without_effect_is_not_sent(remote: Remote, project: Project, known: dict[str, Any]) -> None:
    deal, member = with_products(remote, project, 0), read(project, "v1 getTeamUsers", f"id={known['team']}")
    user = member[0] if member else known["user"]
    words = {
        "v1 addTeamUser": f"id={{team}} users=[{user}]",
        "deleteManyDealProducts": f"id={deal}",
        "deletePersonFieldOptions": 'id={Person} body=[{{"id":987654321}}]',
    }
    if not member:
        queue(project, "v1 addTeamUser", words["v1 addTeamUser"], known)
        project.here(*PUSH)
    queued = [queue(project, name, given, known) for name, given in words.items()]
    before = len(remote.lines("journal"))
    project.here(*PUSH)
    ended = [outcome(project, id)[:2] for id in queued]
    assert ended == [("applied", "already_so"), ("applied", "already_so"), ("rejected", "not_found")]
    assert effects(remote, before) == 0


# Guards count what a bulk operation touches.

COUNTED = [
    ("deleteManyDealProducts", "id={sold}", 5, 5),
    ("deleteManyDealProducts", "id={sold} ids={line},{line_2}", 2, 2),
    ("addManyDealProducts", 'id={sold} data=[{{"product_id":{product},"item_price":1,"quantity":1}},'
                            '{{"product_id":{product},"item_price":2,"quantity":1}}]', 2, 0),
    ("v1 deleteFilters", "ids={filter},{filter_2}", 2, 2),
    ("v1 addTeamUser", "id={team} users=[{user},{user_2}]", 2, 0),
    ("addPersonFieldOptions", 'id={Person} body=[{{"label":"1"}},{{"label":"2"}},{{"label":"3"}}]', 3, 0),
    ("v1 deleteDealFields", "ids={Deal_number}", 1, 1),
]  # fmt: skip


def test_w8_the_guards_count_what_a_bulk_operation_touches(
    remote: Remote, project: Project, known: dict[str, Any]
) -> None:
    known["sold"] = with_products(remote, project, 5)
    known["line"], known["line_2"] = [each["id"] for each in live_products(project, known["sold"])][:2]
    remote.clear_log()
    for name, words, touched, deleted in COUNTED:
        queue(project, name, words, known)
        dry = project.here("push", "--dry-run", "--json")
        (step,) = [event for event in dry.events if event["event"] == "step"]
        assert (name, step["records"], dry.summary["deletes"]) == (name, touched, deleted)
        limit = ["--max-deletes", str(deleted - 1)] if deleted else ["--max-changes", str(touched - 1)]
        ran = project.here("push", "--yes", "--allow", "delete", *limit)
        assert ran.code == 3, ran
        assert project.here("queue", "drop", "--all").code == 0
    assert [entry for entry in remote.log() if entry["method"] != "GET"] == []


def test_w8_more_than_the_plan_showed_is_not_deleted(
    remote: Remote, project: Project, known: dict[str, Any], tmp_path: Path
) -> None:
    deal = with_products(remote, project, 2)
    queued = queue(project, "deleteManyDealProducts", f"id={deal}", known)
    plan = tmp_path / "plan.json"
    assert project.here("push", "--dry-run", "--out", str(plan)).code == 0
    line = {"product_id": known["product"], "item_price": 9, "quantity": 1}
    remote.post("act", method="POST", path=f"/api/v2/deals/{deal}/products", body=line)
    ran = project.here(*PUSH, str(plan))
    assert ran.code == 5, ran
    assert outcome(project, queued)[:2] == ("conflict", "changed")
    assert len(live_products(project, deal)) == 3


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
    print(f"{TABLE}: {len(WRITES)} operations")
