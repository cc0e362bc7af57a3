"""One company for the tests of actions, what its records are, and an action carried out by command or in Python."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal
from unittest.mock import patch
from urllib.parse import parse_qsl

from pdsync import Client
from pdsync.core.actions import Action, actions
from pdsync.errors import PdsyncError
from pdsync.runner.actions import read
from pdsync.runner.push import PushRequest
from pdsync.sandbox import Limits, Sizes, generate_company, running
from pdsync.writeback.guards import Consent
from tests.support.exchanges import Recorder
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox

Via = Literal["command", "python"]
VIAS: tuple[Via, ...] = ("command", "python")
Record = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What an action did: its answer or its error, and the requests that the sandbox saw."""

    answer: dict[str, Any]
    error: str
    code: int
    said: str  # stderr, or the log
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)  # method, path, query

    @property
    def body(self) -> Any:
        return self.answer["data"]

    @property
    def records(self) -> list[Any]:
        """The records of a list or a search, the choices of a picklist."""
        if "result" in self.answer:
            return list(self.answer["result"])
        data = self.body["data"]
        return list(data["items"] if isinstance(data, dict) and "items" in data else data or [])

    @property
    def ids(self) -> list[Any]:
        return [each.get("id", each.get("user_id")) for each in self.records]


class Carrier:
    """Carries out actions of a project, by command or in Python."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def act(self, via: Via, key: str, inputs: dict[str, Any], *options: str) -> Outcome:
        """Carry out an action."""
        return (self._command if via == "command" else self._python)(key, inputs, options)

    def _command(self, key: str, inputs: dict[str, Any], options: tuple[str, ...]) -> Outcome:
        words = [
            f"{name}={json.dumps(value) if isinstance(value, dict | list) else value}" for name, value in inputs.items()
        ]
        ran = self.project.here("action", key, *words, *options, "--json")
        lines = ran.out.splitlines()
        answer = json.loads(lines[-1]) if ran.code == 0 and lines else {}
        return Outcome(answer, ran.err if ran.code else "", ran.code, ran.err)

    def _python(self, key: str, inputs: dict[str, Any], options: tuple[str, ...]) -> Outcome:
        kept: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: kept.append(record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger("pdsync")
        logger.addHandler(handler)
        try:
            with self.environment():
                answer = json.loads(
                    read.as_json(
                        asyncio.run(
                            self._await(key, inputs, now="--now" in options, replacement="--replacement" in options)
                        )
                    )
                )
            return Outcome(answer, "", 0, "\n".join(kept))
        except PdsyncError as error:
            return Outcome({}, str(error), error.exit_code, "\n".join(kept))
        finally:
            logger.removeHandler(handler)

    async def _await(self, key: str, inputs: dict[str, Any], *, now: bool, replacement: bool) -> dict[str, Any]:
        consent = PushRequest(consent=Consent(frozenset({"delete", "merge"}), None, 99), settle_s=0.1)
        async with Client(self.project.folder) as client:
            return await client.action(key, now=consent if now else False, replacement=replacement, **inputs)

    @contextmanager
    def environment(self) -> Iterator[None]:
        with patch.dict(os.environ, self.project.env, clear=True):
            yield


class World(Carrier):
    """A sandbox on a thread, a project, and what is live in the company."""

    def __init__(self, box: RunningSandbox, project: Project) -> None:
        super().__init__(project)
        self.box, self.recorder = box, Recorder("actions")
        self._outcomes: dict[str, Outcome] = {}

    def live(self, kind: str) -> list[Record]:
        return [entry["record"] for entry in self.box.dump(kind) if entry["state"] == "live"]

    def run(self, via: Via, key: str, inputs: dict[str, Any], *options: str) -> Outcome:
        """Carry out an action."""
        self.box.clear_log()
        outcome = self.act(via, key, inputs, *options)
        for entry in self.box.log:
            outcome.requests.append((entry.method, entry.path, dict(parse_qsl(entry.query))))
        return outcome

    def read(self, via: Via, key: str, inputs: dict[str, Any]) -> Outcome:
        """The same for a read, once for the same inputs."""
        name = f"{via} {key} {inputs}"
        if name not in self._outcomes:
            self._outcomes[name] = self.run(via, key, inputs)
        return self._outcomes[name]

    def filter(self, kind: str) -> str:
        """A saved filter of this kind: what a colleague owns."""
        saved = next(each for each in self.live("filters") if each["type"] == kind)
        conditions = saved["conditions"]
        conditions["conditions"][0]["conditions"][0]["value"] = self.known["owner"]
        self.box.act("PUT", f"/v1/filters/{saved['id']}", {"conditions": conditions})
        return str(saved["id"])

    def threads(self) -> list[Record]:
        """The mail of the token's own user."""
        me = self.read("python", "getCurrentUser", {}).body["data"]["id"]
        folders = [
            self.box.act("GET", f"/v1/mailbox/mailThreads?folder={folder}", user_id=me)["data"]
            for folder in ("inbox", "archive", "sent")
        ]
        return [each for folder in folders for each in folder or ()]

    @cached_property
    def known(self) -> dict[str, Any]:
        """Records that are linked to many others, by what inputs call them."""
        activities = [each for each in self.live("activities") if not each["is_deleted"]]
        deals = self.live("deals")
        me = self.read("python", "getCurrentUser", {}).body["data"]["id"]
        others = [each for each in deals if each["owner_id"] != me]
        live, orgs = {each["id"] for each in deals}, {each["id"] for each in self.live("organizations")}
        lines = [each for each in self.live("deal_products") if each["deal_id"] in live]
        filters = self.live("filters")
        files = [each for each in self.live("files") if not each["org_id"] or each["org_id"] in orgs]

        def busiest(key: str, among: list[Record]) -> str:
            return str(Counter(each[key] for each in among if each.get(key)).most_common(1)[0][0])

        def ask(path: str) -> Any:
            return self.box.act("GET", path, user_id=me)["data"]

        mine = self.threads()
        thread = max(mine, key=lambda each: each["message_count"])
        deal = max(deals, key=lambda each: (bool(each["person_id"] and each["org_id"]), -each["id"]))
        return {
            "activity_deal": busiest("deal_id", activities), "activity_person": busiest("person_id", activities),
            "activity_org": busiest("org_id", activities), "activity": str(activities[0]["id"]),
            "deal": str(deal["id"]), "person": str(deal["person_id"]), "org": str(deal["org_id"]),
            "sold": busiest("deal_id", lines), "product": busiest("product_id", lines),
            "file_deal": busiest("deal_id", files), "file_person": busiest("person_id", files),
            "file_org": busiest("org_id", files), "file": str(files[0]["id"]),
            "deal_of_org": busiest("org_id", deals), "deal_of_person": busiest("person_id", deals),
            "pipeline": busiest("pipeline_id", deals), "stage": busiest("stage_id", deals),
            "owner": busiest("owner_id", others), "me": str(me), "thread": str(thread["id"]),
            "message": str(ask(f"/v1/mailbox/mailThreads/{thread['id']}/mailMessages")[0]["id"]),
            "users": [str(each["id"]) for each in self.live("users")],
            "call_log": self.live("call_logs")[0]["id"], "permission_set": self.live("permission_sets")[0]["id"],
            "lead": self.live("leads")[0]["id"],
            "filter": str(filters[0]["id"]),
            **{f"{kind}_field": next(e["record"]["field_code"] for e in self.box.dump(f"{kind}_fields")
                                     if e["record"]["is_custom_field"]) for kind in ("deal", "person", "product")},
        }  # fmt: skip


def reads() -> list[Action]:
    return [each for each in actions().values() if not (each.is_queued or each.removed or each.kind == "raw")]


@contextmanager
def open_world(folder: Path, seed: int = 31) -> Iterator[World]:
    """A small company, and a project that knows it."""
    company = generate_company(seed=seed, sizes=Sizes(deals=120, mail_threads=60, files=60), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        world = World(box, Project(folder / "project").configure(base_url=box.url, api_token=box.token))
        box.sandbox.on_exchange = world.recorder
        yield world
