"""Merges against a plain company: none is claimed that did not happen, and an exact one only by proof.

Two assumptions, as in `merge_preview` and `evidence`: a person who tidies up by hand before deleting a record does not
move every linked record to one other, and copies at most one of several values.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
from hypothesis.stateful import initialize, rule
from msgspec import Struct
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.core.answer import Answer
from pdsync.core.request import request_of_call
from pdsync.errors import NotFound
from pdsync.model import Mutation
from pdsync.reconcile.evidence import ProbeResult, judge
from pdsync.runner.reconcile.findings import Finding
from pdsync.runner.reconcile.repair import make_tombstone
from pdsync.runner.report.applied_changes import _removed_record
from pdsync.writeback.prepared import prepare
from pdsync.writeback.probe import probe_write
from tests.rules import running
from tests.rules.choices import Choices, names, numbers
from tests.writeback.kit import entry

if TYPE_CHECKING:
    from pdsync.core.http import Http
    from pdsync.core.request_builder import Call
    from pdsync.model import Tombstone

AT = datetime(2026, 1, 5, tzinfo=UTC)
PERSONS = catalogue.stream("persons")
LISTS = {"getActivities": "activities", "getDeals": "deals"}
VALUES = ("job_title", "notes")
MOST = 8  # persons that are there at once


class Person(Struct):
    """A person of the company; `state` is there, deleted (shown as such) or absent."""

    id: int
    values: dict[str, str | None]
    state: str = "there"
    version: int = 0
    merged_into: int | None = None


class Child(Struct):
    """An activity or a deal, with the persons that it belonged to: id, and whether a hand moved it there."""

    id: int
    kind: str
    path: list[tuple[int, bool]]

    @property
    def person(self) -> int:
        return self.path[-1][0]

    def was_moved_by_hand(self, start: int, end: int | None = None) -> bool:
        """Whether a hand moved it on its way from one person, to another if that is given."""
        for at, (person, _) in enumerate(self.path):
            by_hand = False
            for later, is_by_hand in self.path[at + 1 :]:
                by_hand = by_hand or is_by_hand
                if person == start and by_hand and end in (None, later):
                    return True
        return False


class OwnMerge(Struct):
    """A merge that we have sent, whose outcome is not known."""

    mutation: Mutation
    base: dict[str, Any]


class Company:
    """Persons and what belongs to them, and a server that shows both as pdsync's client."""

    def __init__(self) -> None:
        self.persons: dict[int, Person] = {}
        self.children: dict[int, Child] = {}
        self.newest = 0
        for is_filled, has_child in ((False, True), (True, True), (True, False), (False, False), (False, True)):
            self.add_person(is_filled)
            if has_child:
                self.add_child(self.newest, "activities")

    def add_person(self, is_filled: bool) -> None:
        self.newest += 1
        own = {name: f"{name} {self.newest}" if is_filled else None for name in VALUES}
        self.persons[self.newest] = Person(self.newest, own)

    def add_child(self, person: int, kind: str) -> None:
        id = len(self.children) + 1
        self.children[id] = Child(id, kind, [(person, False)])

    def there(self) -> list[int]:
        return [each.id for each in self.persons.values() if each.state == "there"]

    def children_of(self, person: int) -> list[Child]:
        return [each for each in self.children.values() if each.person == person]

    def merge(self, loser: int, winner: int) -> None:
        lost, kept = self.persons[loser], self.persons[winner]
        lost.state, lost.merged_into = "absent", winner
        kept.values = {name: kept.values[name] or lost.values[name] for name in VALUES}
        kept.version += 1
        for each in self.children_of(loser):
            each.path.append((winner, False))

    def chain(self, loser: int) -> list[int]:
        """The records into which one was merged, over others."""
        into = self.persons[loser].merged_into
        return [] if into is None else [into, *self.chain(into)]

    # As the client of pdsync.

    async def carry_out(self, call: Call) -> Answer:
        request = request_of_call(call)
        name = request.path.rpartition("/")[2]
        if name in LISTS.values():
            person = int(dict(request.query or {})["person_id"])
            return _answer(
                [{"id": each.id, "person_id": person} for each in self.children_of(person) if each.kind == name]
            )
        person_at = self.persons.get(int(name))
        if person_at is None or person_at.state == "absent":
            raise NotFound("no such person", status=404, operation="getPerson")
        return _answer(self.record(int(name)))

    def record(self, id: int) -> dict[str, Any]:
        person = self.persons[id]
        return {
            "id": id, **person.values, "is_deleted": person.state == "deleted",
            "update_time": (AT + timedelta(seconds=person.version)).isoformat(),
        }  # fmt: skip


@cache
def loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _answer(data: Any) -> Answer:
    return Answer(200, {}, msgspec.json.encode({"success": True, "data": data}), AT)


STEPS = {
    "colleague_adds": 2, "colleague_merges": 2, "colleague_deletes": 2, "record_is_purged": 1, "colleague_moves": 2,
    "colleague_copies": 1, "colleague_edits": 1, "own_merge": 4, "probe": 4, "sync": 2, "reconcile": 4,
}  # fmt: skip


class Merges(running.Machine):
    """A company in which we and others merge, and what meta.merges claims of it."""

    @initialize()
    def found(self) -> None:
        self.company = Company()
        self.pending: list[OwnMerge] = []
        self.claims: dict[int, tuple[int, str]] = {}  # meta.merges: loser → winner, confidence
        self.tombstones: set[int] = set()
        self.pointers: dict[int, int] = {}  # child → person, as the tables have it
        self.earlier: list[tuple[int, int, int]] = []  # child, the person that it pointed to, until when
        self.verified: dict[int, int] = {}  # person → when a list showed it
        self.clock = self.seq = 0
        self.sync(Choices(0))

    @rule(name=names(STEPS), number=numbers)
    def take(self, name: str, number: int) -> None:
        self.clock += 1
        getattr(self, name)(Choices(number))

    # Colleagues.

    def colleague_adds(self, choices: Choices) -> None:
        if choices.one((False, True)) and len(self.company.there()) < MOST:
            self.company.add_person(choices.one((False, True)))
        elif there := self.company.there():
            self.company.add_child(choices.one(there), choices.one(sorted(LISTS.values())))

    def colleague_merges(self, choices: Choices) -> None:
        there = self.company.there()
        if len(there) > 2:
            loser = choices.one(there)
            self.company.merge(loser, choices.one([id for id in there if id != loser]))

    def colleague_deletes(self, choices: Choices) -> None:
        """Delete a person, but not after all that belonged to it was moved by hand."""
        there = self.company.there()
        if len(there) < 3:
            return
        id = choices.one(there)
        moved = [each for each in self.company.children.values() if each.was_moved_by_hand(id)]
        sent = {
            child
            for own in self.pending
            if own.mutation.payload["id"] == id
            for ids in own.base["moves"].values()
            for child in ids
        }
        left = self.company.children_of(id)
        if not {each.kind for each in moved} <= {each.kind for each in left}:
            return
        if moved and sent and not sent & {str(each.id) for each in left}:
            return
        self.company.persons[id].state = choices.one(("deleted", "absent"))

    def record_is_purged(self, choices: Choices) -> None:
        if deleted := [each for each in self.company.persons.values() if each.state == "deleted"]:
            choices.one(deleted).state = "absent"

    def colleague_moves(self, choices: Choices) -> None:
        """Move one linked record by hand from a person to another."""
        there = self.company.there()
        movable = [each for each in self.company.children.values() if each.person in there]
        if not movable:
            return
        child, person = choices.one(movable), choices.one(there)
        for own in self.pending:
            moves = {int(id) for ids in own.base["moves"].values() for id in ids}
            elsewhere = [id for id in moves - {child.id} if self.company.children[id].person != person]
            if child.id in moves and person == own.mutation.payload["merge_with_id"] and not elsewhere:
                return  # it would be the last one
        child.path.append((person, True))

    def colleague_copies(self, choices: Choices) -> None:
        """Copy one of several values to a person that has none."""
        people = [self.company.persons[id] for id in self.company.there()]
        sources = [each for each in people if all(each.values.values())]
        empty = [each for each in people if not any(each.values.values())]
        if sources and empty:
            name = choices.one(VALUES)
            into = choices.one(empty)
            into.values[name] = choices.one(sources).values[name]
            into.version += 1

    def colleague_edits(self, choices: Choices) -> None:
        self.company.persons[choices.one(self.company.there())].version += 1

    # Our own merges.

    def own_merge(self, choices: Choices) -> None:
        there = self.company.there()
        if len(there) < 3:
            return
        loser = choices.one(there)
        winner = choices.one([id for id in there if id != loser])
        fate = choices.one(("answered", "lost before", "lost after"))
        moves = {
            listing: [str(each.id) for each in self.company.children_of(loser) if each.kind == kind]
            for listing, kind in LISTS.items()
        }
        base = {"loser": self.company.record(loser), "winner": self.company.record(winner), "moves": moves}
        own = OwnMerge(self._mutation(loser, winner), base)
        if fate != "lost before":
            self.company.merge(loser, winner)
        if fate == "answered":
            self._claim(self._applied(own, None))
        else:
            self.pending.append(own)

    def probe(self, choices: Choices) -> None:
        """Find out what became of a merge whose answer was lost."""
        if not self.pending:
            return
        own = self.pending.pop(self.pending.index(choices.one(self.pending)))
        prepared = prepare(own.mutation)
        outcome = loop().run_until_complete(
            probe_write(cast("Http", self.company), prepared, base=own.base, seen=None, me=1, bound=set())
        )
        loser, winner = (int(own.mutation.payload[name]) for name in ("id", "merge_with_id"))
        if outcome.verdict == "absent":
            assert self.company.persons[loser].state == "there", "a merge that was carried out is to be sent again"
        elif outcome.verdict == "happened":
            self._claim(self._applied(own, "seen"))
        else:
            assert outcome.verdict == "undecidable"
        had_both = all(own.base["loser"][name] and not own.base["winner"][name] for name in VALUES)
        if had_both and self.company.persons[loser].merged_into == winner and self._is_untouched(own, winner):
            assert outcome.verdict == "happened", f"{own} was proved: {outcome}"

    def _is_untouched(self, own: OwnMerge, winner: int) -> bool:
        person = self.company.persons[winner]
        moved = {int(id) for ids in own.base["moves"].values() for id in ids}
        has_values = all(person.values[name] == own.base["loser"][name] for name in VALUES)
        return (
            has_values and person.state == "there" and all(self.company.children[id].person == winner for id in moved)
        )

    def _mutation(self, loser: int, winner: int) -> Mutation:
        self.seq += 1
        one = entry("v1 mergePersons", {"id": loser, "merge_with_id": winner})
        return Mutation(
            self.seq, f"m{self.seq}", "b1", None, one.operation, one.verb, one.kind, one.target, one.payload, None, AT,
            "someone", "unknown",
        )  # fmt: skip

    def _applied(self, own: OwnMerge, reason: str | None) -> Tombstone:
        removed = _removed_record(replace(own.mutation, state="applied", reason=reason, settled_at=AT))
        assert removed is not None
        return removed[1]

    # The warehouse.

    def sync(self, choices: Choices) -> None:
        """The tables have what the lists show: who is there, and who is named."""
        self.verified |= dict.fromkeys(self.company.there(), self.clock)
        self._sync_children()

    def _sync_children(self) -> None:
        for each in self.company.children.values():
            if (before := self.pointers.get(each.id)) not in (None, each.person):
                self.earlier.append((each.id, before, self.clock))
            self.pointers[each.id] = each.person

    def reconcile(self, choices: Choices) -> None:
        """Judge each person of the tables that no list shows."""
        is_evidence = choices.one((True, True, True, False))
        winners = self._winners()
        for id in self.verified.keys() - self.tombstones - set(self.company.there()):
            is_shown = self.company.persons[id].state == "deleted"
            verdict = judge(
                PERSONS, str(id), ProbeResult(200, self.company.record(id)) if is_shown else ProbeResult(404),
                version="v2", canaries=3 if is_evidence else 0, reason="", parent_is_hidden=False,
                was_never_read=False, winners=winners[id], converted_to=None,
            )  # fmt: skip
            one = winners[id]
            if verdict.is_gone:
                self.tombstones.add(id)
                self._claim(make_tombstone(Finding("persons", str(id), verdict.kind, "", verdict.winner), AT))
            if is_evidence and not is_shown and len(one) == 1 and one != {str(id)}:
                assert verdict.kind == "merged", f"all that named {id} names {one}: {verdict}"

    def _winners(self) -> dict[int, set[str | None]]:
        """To whom those belong now that belonged to each person; a list that still names the person says nothing."""
        moved: dict[tuple[int, str], set[str | None]] = defaultdict(set)
        for child, person in self.pointers.items():
            moved[person, self.company.children[child].kind].add(str(self.company.children[child].person))
        for child, person, until in self.earlier:
            if until > self.verified.get(person, 0) and self.pointers[child] != person:
                moved[person, self.company.children[child].kind].add(str(self.pointers[child]))
        for each in self.company.children.values():
            moved[each.person, each.kind].add(str(each.person))
        winners: dict[int, set[str | None]] = defaultdict(set)
        for (person, _), now in moved.items():
            winners[person] |= {str(person)} if str(person) in now else now
        return winners

    def _claim(self, gone: Tombstone) -> None:
        """As `load.tombstones` notes it."""
        loser = int(gone.key)
        if gone.winner is None:
            return
        winner = int(gone.winner)
        self.claims[loser] = (winner, gone.confidence)
        chain = self.company.chain(loser)
        assert chain, f"{loser} was never merged: {gone}"
        is_moved_on = any(each.was_moved_by_hand(loser, winner) for each in self.company.children.values())
        assert winner in chain or (gone.confidence == "inferred" and is_moved_on), f"{loser} → {chain}: {gone}"
        assert loser not in self._claimed_chain(loser), f"S13: a circle over {loser}"

    def _claimed_chain(self, loser: int) -> list[int]:
        chain: list[int] = []
        while loser in self.claims and len(chain) <= len(self.claims):
            loser = self.claims[loser][0]
            chain.append(loser)
        return chain


MACHINE = Merges


def test_s13_no_merge_is_claimed_that_did_not_happen() -> None:
    running.check(Merges, running.SLICE)


@pytest.mark.proof
def test_s13_no_merge_is_claimed_that_did_not_happen_in_a_share_of_100_000_steps() -> None:
    running.check(Merges, running.SHARE)
