"""Whatever a company, its server and the rights of a token do: no row is marked as deleted whose record is there."""

from __future__ import annotations

import asyncio
import itertools
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.answer import Answer
from pdsync.errors import BadAnswer, FeatureOff, Forbidden, NotFound, ServerTrouble
from pdsync.reconcile.evidence import Verdict, find_item_operation, judge, probe_absent
from pdsync.runner.sync.removed_children import MissingChild, confirm_gone
from tests.rules import running

if TYPE_CHECKING:
    from pdsync.core.http import Http
    from pdsync.core.request_builder import Call
    from pdsync.model import Operation

DEALS = catalogue.stream("deals")
ITEM = find_item_operation(DEALS, "v2")
NOW = datetime(2026, 11, 22, tzinfo=UTC)
ADMIN = [{"app": "sales", "admin": True}, {"app": "global", "admin": True}]
PIPELINES = (1, 2)
PRODUCTS = next(source.parent for source in catalogue.stream("deal_products").v2 if source.parent)
MOODS = ("well", "no record", "forbidden", "down", "empty", "no JSON", "not included")
CHANGES = ("add", "delete", "purge", "merge", "move", "convert", "restore", "unlist", "restrict", "refuse", "forge")
PICK = st.integers(0, 6)
# What changes at a request of a reconciliation: its number, what, and which deal or mood.
BREAKS = st.tuples(st.integers(2, 5), st.sampled_from(("mood", "lose", "lose", "rights", "purge")), PICK)


class Deal(Struct):
    """A deal of the company, and where it is for the token."""

    id: int
    pipeline: int
    state: str = "alive"  # or: deleted (still readable, marked), purged (no longer readable)
    is_restricted: bool = False  # only administrators see it
    refuses: bool = False  # answers 403 to everyone
    is_listed: bool = True  # lists may leave out what is there: archived, lost by the server
    pointed_at: int | None = None  # the deal that its activities belong to now, where they were moved
    became: str | None = None


class Company:
    """A company, and its server as a token sees it."""

    def __init__(self) -> None:
        self.deals: dict[int, Deal] = {}
        self.is_admin, self.mood = True, "well"
        self.hidden_pipelines: set[int] = set()
        self.breaks: list[tuple[int, str, int]] = []  # (number of the request, what changes, which)
        self.requests = 0
        self.state_when_read: dict[str, str] = {}

    def sees(self, deal: Deal) -> bool:
        return (
            (self.is_admin or not deal.is_restricted)
            and not deal.refuses
            and deal.pipeline not in self.hidden_pipelines
        )

    def list(self) -> list[Deal]:
        return [
            each for each in self.deals.values() if each.state == "alive" and each.is_listed and self.sees(each)
        ]  # fmt: skip

    def spoil(self, what: str, which: int) -> None:
        if what == "mood":
            # A wrong 404 between right answers, for that request alone, can't be told from a true one.
            self.mood = MOODS[which % len(MOODS)] if self.mood != "no record" else self.mood
        elif what == "lose":
            self.mood = "no record"
        elif what == "rights":
            self.is_admin = False
        elif self.deals:
            deal = list(self.deals.values())[which % len(self.deals)]
            deal.state = "deleted" if what == "delete" and deal.state == "alive" else "purged"

    def _count_request(self) -> None:
        for at, what, which in self.breaks:
            if at == self.requests:
                self.spoil(what, which)
        self.requests += 1

    async def carry_out(self, call: Call) -> Answer:
        """Answer a request for one deal, or raise as `Http` does."""
        self._count_request()
        key = call.path.rpartition("/")[2]
        deal = self.deals.get(int(key))
        self.state_when_read[key] = deal.state if deal else "purged"
        if self.mood == "forbidden":
            raise Forbidden("no", status=403, operation="")
        if self.mood == "not included":
            raise FeatureOff("no", status=410, operation="")
        if self.mood == "down":
            raise ServerTrouble("no")
        if self.mood == "no JSON":
            raise BadAnswer("no")
        if self.mood == "empty":
            return _answer(None)
        if deal and deal.refuses:
            raise Forbidden("no", status=403, operation="")
        if self.mood == "no record" or deal is None or deal.state == "purged" or not self.sees(deal):
            raise NotFound("no", status=404, operation="")
        return _answer({"id": deal.id, "is_deleted": deal.state == "deleted", "pipeline_id": deal.pipeline})

    async def call(self, operation: Operation, **_: object) -> Answer:
        """Answer a request for the user of the token, the only other one that is made."""
        assert operation.id == "getCurrentUser"
        self._count_request()
        return _answer({"id": 1, "name": "x", "company_id": 1, "access": ADMIN if self.is_admin else []})


def _answer(data: dict[str, Any] | None) -> Answer:
    return Answer(200, {}, json.dumps({"success": True, "data": data}).encode(), NOW)


class Evidence(running.Machine):
    """Changes a company, and reconciles a warehouse that has read it with its lists."""

    def __init__(self) -> None:
        super().__init__()
        self.company = Company()
        self.rows: dict[str, int] = {}  # the live rows of the warehouse: key → the pipeline
        self.never_read: set[str] = set()
        self.numbers = itertools.count(1)
        self.loop = asyncio.new_event_loop()
        for which in range(4):
            self.change("add", which, 0)
        self.sync()
        self.company.deals[1].is_listed, self.company.deals[1].is_restricted = False, True

    def teardown(self) -> None:
        self.loop.close()

    @rule(what=st.sampled_from(CHANGES), which=PICK, other=PICK)
    def change(self, what: str, which: int, other: int) -> None:
        deals = list(self.company.deals.values())
        number = next(self.numbers)
        if what == "add" or len(deals) < 2:
            self.company.deals[number] = Deal(number, PIPELINES[which % 2])
            return
        if what == "forge":  # a row that no answer ever showed
            self.rows[str(number)] = PIPELINES[0]
            self.never_read.add(str(number))
            return
        deal, target = deals[which % len(deals)], deals[other % len(deals)]
        if what in ("delete", "purge"):
            self.company.spoil(what, which)
        elif what == "convert":
            deal.state, deal.became = "deleted", "leads/x"
        elif what == "restore" and deal.state == "deleted":
            deal.state = "alive"
        elif what == "unlist":
            deal.is_listed = not deal.is_listed
        elif what == "restrict":
            deal.is_restricted = not deal.is_restricted
        elif what == "refuse":
            deal.refuses = not deal.refuses
        elif what in ("merge", "move") and deal is not target:  # people also move activities of what stays
            deal.pointed_at = target.id
            deal.state = "purged" if what == "merge" else deal.state

    @rule()
    def sync(self) -> None:
        self.rows |= {str(each.id): each.pipeline for each in self.company.list()}

    @precondition(lambda self: self.rows)
    @rule(
        mood=st.sampled_from((*["well"] * 12, *MOODS)),
        is_admin=st.sampled_from((*[True] * 5, False)),
        hidden=st.sampled_from((*[()] * 6, (1,), (2,))),
        breaks=st.lists(BREAKS, max_size=2),
        has_item=st.sampled_from((*[True] * 9, False)),
    )
    def reconcile(
        self, mood: str, is_admin: bool, hidden: tuple[int, ...], breaks: list[tuple[int, str, int]], has_item: bool
    ) -> None:
        company = self.company
        company.is_admin, company.hidden_pipelines = is_admin, set(hidden)
        listed = {str(each.id) for each in company.list()}
        company.mood, company.breaks, company.requests = mood, breaks, 0
        absent = sorted(self.rows.keys() - listed)
        probes, reason = self.loop.run_until_complete(
            probe_absent(
                cast("Http", company), ITEM if has_item else None, absent,
                canaries=sorted(listed)[:3], was_admin=is_admin,
            )
        )  # fmt: skip
        for key in absent:
            deal = company.deals.get(int(key))
            verdict = judge(
                DEALS, key, probes.get(key), version="v2", canaries=0 if reason else 3, reason=reason,
                parent_is_hidden=self.rows[key] in hidden, was_never_read=key in self.never_read,
                winners={str(deal.pointed_at) if deal and deal.pointed_at else None},
                converted_to=deal.became if deal else None,
            )  # fmt: skip
            self.check(key, verdict)
            if mood == "well" and not breaks and has_item:
                self.check_found(key, verdict, is_evidence=is_admin and bool(listed))
            if verdict.is_gone:
                del self.rows[key]
        company.mood, company.is_admin, company.hidden_pipelines = "well", True, set()

    def check(self, key: str, verdict: Verdict) -> None:
        """A row is only marked if the record was gone when it was requested; and the verdict says how."""
        state, deal = self.company.state_when_read.pop(key, "alive"), self.company.deals.get(int(key))
        assert state != "alive" or not verdict.is_gone, f"{verdict} of a record that is there"
        if verdict.kind == "extra":
            assert deal is None
        if verdict.kind == "converted":
            assert deal is not None
            assert deal.became == verdict.winner
        if verdict.kind == "merged":
            assert deal is not None
            assert str(deal.pointed_at) == verdict.winner != key
        if verdict.kind == "present":
            assert state == "alive"

    def check_found(self, key: str, verdict: Verdict, *, is_evidence: bool) -> None:
        """Where everything can be seen, what is gone is found to be."""
        deal = self.company.deals.get(int(key))
        if deal and not self.company.sees(deal):
            assert not verdict.is_gone
        elif deal and deal.state == "alive":
            assert verdict.kind == "present"
        elif (deal and deal.state == "deleted") or (
            is_evidence and self.rows[key] not in self.company.hidden_pipelines
        ):
            assert verdict.is_gone

    @rule(
        listed=st.sets(st.integers(0, 9)), removed=st.sets(st.integers(0, 9)), dropped=st.sets(st.integers(0, 9)),
        counted_late=st.sets(st.integers(10, 12), max_size=2),
    )  # fmt: skip
    def read_products_of_a_deal(
        self, listed: set[int], removed: set[int], dropped: set[int], counted_late: set[int]
    ) -> None:
        """The rows of one parent: either its list leaves some out, or it has changed since it was counted."""
        there = listed - removed
        shown = there - dropped
        count = len(there) + (0 if dropped else len(counted_late))
        rows = listed | removed  # loaded earlier, or from this list
        missing = sorted(rows - shown)
        gone = confirm_gone(
            PRODUCTS, [MissingChild(str(key), "1", rows=len(rows), count=count) for key in missing], NOW
        )  # fmt: skip
        assert {int(each.key) for each in gone} <= rows - there, "a row is marked whose record is there"
        if shown == there and not counted_late:
            assert {int(each.key) for each in gone} == rows - there


MACHINE = Evidence


def test_s8_a_row_is_marked_only_if_its_record_is_gone() -> None:
    running.check(Evidence, running.SLICE)


@pytest.mark.proof
@pytest.mark.timeout(600)  # seconds of a core, which may be shared
def test_s8_a_row_is_marked_only_if_its_record_is_gone_in_a_share_of_100_000_steps() -> None:
    running.check(Evidence, running.SHARE)
