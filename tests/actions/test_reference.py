"""docs/actions.md is generated from the entries: `python -m tests.actions.test_reference` writes it."""

# ruff: noqa: T201 - writes a file when it is run as a program

from __future__ import annotations

import re
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue
from pdsync.core.actions import Action, actions, replacement_of
from pdsync.core.wording import counted
from tests.actions.company import World, open_world
from tests.actions.test_reads import required
from tests.actions.test_writes import given

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "actions.md"
INTRO = """# Actions

The actions of a Pipedrive component by its own names, for who moves an integration over: `pdsync action KEY
input=value …`, and in Python `await client.action("KEY", input=value)`. `pdsync actions [WORDS]` lists them. Inputs are
written as the component writes them (`filterId`) or in snake_case (`filter_id`); an empty input is none. Parameters of
today's operation that the component does not know, and custom fields by their codes, are taken too.

- A read answers `{"data": <Pipedrive's answer>}`, a picklist `{"result": [{"key", "label"}]}`, a download its content
  and `contentType` (`--out FILE` streams it to a file).
- A list answers one page by `limit` (100) and `start`; `fetchAll=true` follows all pages. Lists without `limit` are
  whole. With `--json` a list is written as it comes.
- A change waits in the queue; `--now` (in Python `now=True`) sends it with the preview, the confirmation and every
  guard of a push, and answers with the record as it is then. `rawRequest` sends at once, and asks before it writes.
- `debugRequest=true` logs each request, with the secret redacted. Every action takes it.
- Deals, persons, organizations, activities, products, pipelines and stages have the keys that they had in v1, with the
  owner, the person, the organization and the next activity nested as there. What v2 shows by id only is read besides:
  users, stages and fields once an action (20, 5 and 10 tokens), persons, organizations and activities once for 100
  records (10 tokens each): all of a large list costs some 40 tokens for 100 deals, where the list alone costs 2.
  `--as-today` (in Python `as_today=True`) shows records as today's operation does, without further requests. Other
  records always come so.
- In Python `out=path` streams a download to a file, and `now=PushRequest(…)` gives a push its limits and consents.

How the inputs are honoured: 149 of 149 actions, 442 of 442 inputs.

"""
WORDS = {
    "parameter": "a parameter of today's operation, renamed and converted",
    "here": "a condition or an order that Pipedrive no longer knows, applied to the records here",
    "requests": "further requests",
    "paging": "pages: `limit`, `start`, `fetchAll`",
    "client": "pdsync's own doing: the log, the inputs of a raw request",
    "refused": "refused with the reason and what to use: nothing is dropped silently",
}
SAMPLES = {
    "term": "Acme", "startDate": "2026-01-01", "endDate": "2026-06-30", "amount": "3", "interval": "month",
    "fieldKey": "add_time", "method": "GET", "url": "/currencies", "title": "Made", "name": "Made", "outcome":
    "connected", "startTime": "2026-01-05T10:00:00Z", "endTime": "2026-01-05T10:05:00Z", "toPhoneNumber": "+4930123456",
    "color": "blue", "entityType": "deal", "file": "offer.pdf", "fileName": "offer.pdf", "itemPrice": "9.5", "quantity":
    "2", "customFieldKey": "Nickname", "value": "Max", "mergeWithId": "43",
}  # fmt: skip
ALSO = {"updateDeal": "status=won", "updateFile": "name=contract.pdf", "addDealProduct": "productId=7 itemPrice=9.5",
        "addLead": "personId=42", "addPerson": "name=Made", "addOrganization": "name=Made", "addProduct": "name=Made",
        "getDeals": "ownedByYou=true fetchAll=true", "getPersons": "firstChar=a sort='name ASC'"}  # fmt: skip


def example(action: Action) -> str:
    """A command that carries the action out."""
    flag = ["--replacement"] if action.replacement else []
    if action.removed:
        if not action.replacement:
            return ""
        action = replacement_of(action)
    needed = flag + [
        f"{name}={SAMPLES.get(name, '42')}"
        for name, each in action.inputs.items()
        if each.required and each.default is None
    ]
    return " ".join(["pdsync action", action.key, *needed, *([ALSO[action.key]] if action.key in ALSO else [])])


def section(action: Action) -> list[str]:
    """One action of the page."""
    if action.removed:
        facts = action.removed
    elif action.called is None:
        facts = "A request that no operation describes: 20 tokens for a GET, 10 for a write are set aside."
    else:
        cost = action.called.cost
        facts = (
            f"`{action.operation}`, {counted(cost, 'token')} a request."
            if cost is not None
            else f"`{action.operation}`."
        )
    lines = [f"## {action.key}", "", f"{action.title}. {facts}", ""]
    if instead := action.replacement:
        cost = catalogue.operation(instead.operation).cost
        text = f"{instead.title.lower()}, `{instead.operation}`, {counted(cost or 0, 'token')} a request"
        lines += [f"`--replacement` (in Python `replacement=True`): {text}.", ""]
    if text := example(action):
        lines += [f"    {text}", ""]
    if action.inputs:
        lines += ["| input | default | meaning | honoured |", "|---|---|---|---|"]
        for name, each in action.inputs.items():
            mark = f"**{name}**" if each.required else name
            explained = each.explained.replace("|", "\\|")
            lines.append(f"| {mark} | {each.default or ''} | {each.meaning} | {explained} |")
        lines.append("")
    return lines


def reference() -> str:
    """The page."""
    counts = Counter(each.honoured for one in actions().values() for each in one.inputs.values())
    table = ["| how | inputs | |", "|---|---|---|"]
    table += [f"| {word} | {counts[word]} | {WORDS[word]} |" for word in WORDS]  # type: ignore[index]
    lines = [*table, "", "Required inputs are bold.", ""]
    for action in actions().values():
        lines += section(action)
    return INTRO + "\n".join(lines)


def test_the_page_is_generated_from_the_entries() -> None:
    assert PAGE.read_text("utf-8") == reference()


def test_no_example_merges_a_record_with_itself() -> None:
    merges = [line.split()[3:] for line in PAGE.read_text("utf-8").splitlines() if "mergeWithId=" in line]
    assert len(merges) == 3
    for words in merges:
        ids = [word.partition("=")[2] for word in words]
        assert len(set(ids)) == 2, words


def test_the_page_has_a_heading_an_action_and_a_row_an_input() -> None:
    text = PAGE.read_text("utf-8")
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == list(actions())
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| input", "| how"))]
    assert len(rows) - len(WORDS) == 442


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with open_world(tmp_path_factory.mktemp("reference"), seed=41) as world:
        (world.project.folder / "offer.pdf").write_text("%PDF", encoding="utf-8")
        yield world


@pytest.mark.parametrize("key", [each.key for each in actions().values() if example(each)])
def test_every_example_runs(world: World, key: str) -> None:
    action = actions()[key]
    _, _, name, *words = shlex.split(example(action))
    assert name == key
    options = [word for word in words if word.startswith("--")]
    shown = dict(word.split("=", 1) for word in words if word not in options)
    # The page's ids are made up: those of this company take their place.
    if action.is_queued:
        inputs = given(world, key, "command")
        real = inputs() if callable(inputs) else inputs
    else:
        known = {"id": world.known["sold"], "dealId": world.known["sold"]}
        real = known if options else {} if key == "rawRequest" else required(world, action)
    filled = {name: real.get(name, value) for name, value in shown.items()}
    outcome = world.run("command", key, filled, *options)
    assert outcome.code == 0, outcome.error or outcome.said
    if action.is_queued:
        assert world.project.here("queue", "drop", outcome.body["queued"]["id"]).code == 0


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    print(f"{PAGE}: {len(actions())} actions")
