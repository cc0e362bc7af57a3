"""What a difference means: stale or converted, deleted with evidence, hidden, or unknown."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.model import Page
from pdsync.reconcile import evidence
from pdsync.reconcile.sweep import Sweep
from pdsync.runner.reconcile.comparison import Comparison
from pdsync.runner.reconcile.diagnosis import Diagnosis
from pdsync.runner.reconcile.findings import ReconcileRequest
from tests.runner.kit import ADMIN, T0, deal, encode, load, open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pdsync.runner.session import OnlineSession
    from pdsync.sandbox import RunningSandbox

pytestmark = pytest.mark.asyncio(loop_scope="module")
DEALS = catalogue.stream("deals")
LATER = T0 + timedelta(minutes=5)
LEAD = "6d6f1a10-0000-11ee-8c99-0242ac120002"
UNKNOWN = 10**9  # an id that no deal of the sandbox has


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(box: RunningSandbox, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OnlineSession]:
    """A project with deals 1 to 3, one that does not exist, and leads and pipelines."""
    async with open_session(tmp_path_factory.mktemp("project"), box) as opened:
        await load(opened, "deals", *(deal(n, pipeline_id=1) for n in (1, 2, 3, UNKNOWN)))
        await load(opened, "leads", {"id": LEAD, "title": "x", "update_time": "2026-11-22T12:00:00.000Z"})
        await load(opened, "pipelines", {"id": 1, "name": "p"})
        yield opened


def sweep(session: OnlineSession, number: int, name: str, *records: dict[str, Any]) -> Sweep:
    stream = catalogue.stream(name)
    version, sources = stream.sources("v2")
    made = Sweep(session.loader.connection, session.loader.table(stream, version), number)
    made.add(sources[0].name, catalogue.operations(version)[sources[0].operation],
             [Page(-1, 0, encode(records), len(records), None, LATER)])  # fmt: skip
    return made


def diagnosis(session: OnlineSession, *shown: dict[str, Any], **options: Any) -> Diagnosis:
    """Of a reconciliation whose list of deals shows these records."""
    comparison = Comparison(session, ReconcileRequest(**options))
    comparison.sweeps["deals"] = sweep(session, 1, "deals", *shown)
    return Diagnosis(comparison)


async def test_s7_what_the_list_shows_is_classified_without_a_request(
    session: OnlineSession, box: RunningSandbox
) -> None:
    box.clear_log()
    shown = (
        deal(1, LATER),
        deal(2, title="x", pipeline_id=1),
        deal(3, is_deleted=True),
        deal(4),
        deal(UNKNOWN, pipeline_id=1),
    )
    found = await diagnosis(session, *shown, deep=True).explain(DEALS)
    kinds = {each.key: (each.kind, each.evidence) for each in found}
    assert kinds["1"] == ("stale", "the list live shows it so")
    assert kinds["2"] == ("stale", "values differ, though the time of change is equal")
    assert (kinds["3"][0], kinds["4"][0]) == ("soft_deleted", "missing")
    assert str(UNKNOWN) not in kinds
    assert box.log == []


async def test_s7_a_deleted_lead_that_became_a_deal_is_converted(session: OnlineSession) -> None:
    own = diagnosis(session, deal(1, source_lead_id=LEAD))
    assert own._find_conversions(catalogue.stream("leads"), [LEAD, "another"]) == {LEAD: "deals/1"}
    assert own._find_conversions(catalogue.stream("persons"), ["1"]) == {}


@pytest.mark.parametrize(("pipelines", "hidden"), [([1], set()), ([2], {"1"})])
async def test_s8_a_record_of_a_pipeline_that_is_no_longer_shown_is_hidden(
    session: OnlineSession, pipelines: list[int], hidden: set[str]
) -> None:
    own = diagnosis(session)
    assert own._find_hidden(DEALS, ["1"]) == set()  # pipelines were not compared
    own.sweeps["pipelines"] = sweep(session, 2, "pipelines", *({"id": n, "name": "p"} for n in pipelines))
    assert own._find_hidden(DEALS, ["1"]) == hidden


async def test_s7_a_row_that_no_run_has_read_is_known_as_such(session: OnlineSession) -> None:
    connection = session.loader.connection
    connection.execute("UPDATE deals SET _run_id = 'nobody' WHERE id = 2")
    assert diagnosis(session)._find_never_read(DEALS, ["1", "2"]) == {"2"}
    connection.execute("UPDATE deals SET _run_id = ? WHERE id = 2", [session.receipt.run_id])


@pytest.mark.parametrize(
    ("is_admin", "canary", "kind", "evidence"),
    [
        (True, "live", "purged", "answers 404, while 1 other is found"),
        (False, "live", "absent_unknown", "not an administrator's"),
        (True, "unknown", "absent_unknown", "can't be read either"),
    ],
)
async def test_s8_a_404_is_evidence_only_for_an_administrator_and_while_canaries_answer(
    session: OnlineSession, box: RunningSandbox, is_admin: bool, canary: str, kind: str, evidence: str
) -> None:
    live = next(each["record"]["id"] for each in box.dump("deals") if each["state"] == "live")
    session.account = ADMIN if is_admin else replace(ADMIN, access=[])
    shown = deal(live if canary == "live" else UNKNOWN + 1)
    found = await diagnosis(session, shown)._judge_absent(DEALS, [str(UNKNOWN)])
    session.account = ADMIN
    assert [(each.key, each.kind) for each in found] == [(str(UNKNOWN), kind)]
    assert evidence in found[0].evidence


async def test_s13_records_of_a_stream_of_which_one_still_names_it_name_no_winner(
    box: RunningSandbox, tmp_path: Path
) -> None:
    persons = catalogue.stream("persons")
    async with open_session(tmp_path / "project", box) as own:
        await load(own, "persons", *({"id": n, "name": f"p{n}"} for n in (7, 8)))
        await load(own, "deals", deal(1, person_id=7), deal(2, person_id=7))
        merged = diagnosis(own, deal(1, person_id=8), deal(2, person_id=8))
        assert merged._find_winners(persons, ["7"]) == {"7": {"8"}}
        moved_by_hand = diagnosis(own, deal(1, person_id=8), deal(2, person_id=7))
        assert moved_by_hand._find_winners(persons, ["7"]) == {"7": {"7"}}


async def test_s7_records_that_no_run_has_requested_yet_are_requested_first(
    session: OnlineSession, box: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request a run: each of two records has its turn, whatever the first one's state remains."""
    monkeypatch.setattr(evidence, "MAX_PROBES", 1)
    shown = deal(next(each["record"]["id"] for each in box.dump("deals") if each["state"] == "live"))
    keys = [str(UNKNOWN), str(UNKNOWN + 1)]
    session.account = replace(ADMIN, access=[])  # a 404 is no evidence: both stay
    requested = []
    for number in range(3):
        box.clear_log()
        found = await diagnosis(session, shown)._judge_absent(DEALS, keys)
        requested += [key for key in keys if any(entry.path.endswith(f"/{key}") for entry in box.log)]
        session.loader.connection.executemany(
            "INSERT INTO meta.findings VALUES ('run', ?, 'deals', ?, ?, ?, NULL, false)",
            [(T0 + timedelta(days=number), each.key, each.kind, each.evidence) for each in found],
        )
    session.account = ADMIN
    session.loader.connection.execute("DELETE FROM meta.findings")
    assert requested == [keys[0], keys[1], keys[0]]
