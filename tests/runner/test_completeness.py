"""A list that was read whole proves what exists; one that shows far fewer records than there are rows is a gap."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from msgspec.structs import replace

from pdsync.model import Proof, Receipt, StreamReceipt
from pdsync.runner.report.completeness import measure_completeness
from tests.runner.kit import T0, load, open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pdsync.runner.session import OnlineSession

pytestmark = pytest.mark.asyncio(loop_scope="module")
OLD = T0 - timedelta(days=30)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OnlineSession]:
    async with open_session(tmp_path_factory.mktemp("project")) as opened:
        yield opened


async def measure(
    session: OnlineSession, name: str, rows: int, shown: int, *, state: str = "applied", **facts: object
) -> Receipt:
    """The receipt of a run after which a table has so many rows, of which the run's own list showed some."""
    connection, run = session.loader.connection, f"{name}-{rows}-{shown}-{state}"
    for table in (f"main.{name}", "meta.checkpoints", "meta.sweeps"):
        if not table.startswith("main") or name in {each for (each,) in connection.execute("SHOW TABLES").fetchall()}:
            connection.execute(f"DELETE FROM {table}")
    session.receipt = Receipt("before", "sync", OLD)
    if rows > shown:
        await load(session, name, *({"id": n, "name": "x"} for n in range(rows)), at=OLD)
    session.receipt = receipt = Receipt(run, "sync", T0, streams={name: StreamReceipt(complete=True)})
    await load(session, name, *({"id": n, "name": "x"} for n in range(shown)), state=state)
    for field, value in facts.items():
        setattr(receipt, field, value)
    measure_completeness(session.loader, session.control, receipt, session.settings, T0)
    return receipt


@pytest.mark.parametrize(
    ("rows", "shown", "is_gap"),
    [
        (20, 20, False),
        (20, 10, False),  # ten may be deleted between two full reads
        (20, 9, True),
        (20, 0, True),
    ],
)
async def test_s9_a_list_that_shows_far_fewer_records_is_a_gap(
    session: OnlineSession, rows: int, shown: int, is_gap: bool
) -> None:
    receipt = await measure(session, "stages", rows, shown)
    assert [(gap.stream, gap.kind) for gap in receipt.gaps] == [("stages", "fewer")] * is_gap
    if is_gap:
        assert (
            f"the list shows {shown} of {rows} rows; the state of {rows - shown} is unknown" in receipt.gaps[0].detail
        )
        assert "pdsync reconcile stages" in receipt.gaps[0].detail
    sweeps = session.loader.connection.execute(
        "SELECT at_source, here, differences, complete FROM meta.sweeps"
    ).fetchall()
    assert sweeps == [(shown, rows, rows - shown, True)]


async def test_s9_rows_that_reconcile_has_judged_already_are_no_gap(session: OnlineSession) -> None:
    findings = [(str(n),) for n in range(5, 20)]
    session.loader.connection.executemany(
        "INSERT INTO meta.findings VALUES ('run', now(), 'stages', ?, 'absent_unknown', '', NULL, false)", findings
    )
    assert (await measure(session, "stages", 20, 5)).gaps == []
    session.loader.connection.execute("DELETE FROM meta.findings")


async def test_s9_rows_that_the_source_has_shown_after_their_findings_are_a_gap(session: OnlineSession) -> None:
    """They were missing once, and were read again: that says nothing of where they are now."""
    session.loader.connection.executemany(
        "INSERT INTO meta.findings VALUES ('run', ?, 'stages', ?, 'missing', '', NULL, true)",
        [(OLD - timedelta(days=1), str(n)) for n in range(20)],
    )
    assert [gap.kind for gap in (await measure(session, "stages", 20, 5)).gaps] == ["fewer"]
    session.loader.connection.execute("DELETE FROM meta.findings")


@pytest.mark.parametrize("options", [{"state": "dropped"}, {"streams": {"stages": StreamReceipt(complete=False)}}])
async def test_s9_a_list_that_was_not_read_to_its_end_proves_nothing(
    session: OnlineSession, options: dict[str, object]
) -> None:
    receipt = await measure(session, "stages", 20, 0, **options)  # type: ignore[arg-type]
    assert receipt.gaps == []
    assert receipt.streams["stages"].proof == Proof(20, None, None, None, 0.0, OLD)


async def test_s6_the_proof_says_how_much_was_verified_within_the_cycle(session: OnlineSession) -> None:
    receipt = await measure(session, "stages", 20, 15)
    assert receipt.streams["stages"].proof == Proof(20, 15, T0, 5, 0.75, OLD)
    session.settings = replace(session.settings, verify_cycle=60)
    receipt = await measure(session, "stages", 20, 15)
    session.settings = replace(session.settings, verify_cycle=7)
    proof = receipt.streams["stages"].proof
    assert proof
    assert proof.verified == 1.0


def save_runs(session: OnlineSession, were_admin: list[bool | None]) -> None:
    """Replace all runs by finished ones with tokens of administrators or others."""
    with session.control.transaction() as db:
        db.execute("DELETE FROM runs")
    for number, was_admin in enumerate(were_admin):
        earlier = Receipt(f"past-{number}", "sync", OLD + timedelta(days=number), is_admin=was_admin)
        session.control.start_run(earlier.run_id, "sync", earlier.started_at)
        session.control.finish_run(replace(earlier, finished_at=earlier.started_at))


@pytest.mark.parametrize(
    ("past", "now", "why"),
    [
        ([True, False], False, "The token was an administrator's on 2026-10-23 (run past-0), and no longer is"),
        ([False], False, "The token is not an administrator's"),
        ([True], True, "Records may be deleted, or hidden from the token's user"),
        ([], None, "Records may be deleted, or hidden from the token's user"),
    ],
)
async def test_s9_a_list_that_shows_fewer_records_says_what_the_token_s_rights_have_to_do_with_it(
    session: OnlineSession, past: list[bool | None], now: bool | None, why: str
) -> None:
    save_runs(session, past)
    receipt = await measure(session, "stages", 20, 5, is_admin=now)
    assert [why in gap.detail for gap in receipt.gaps if gap.kind == "fewer"] == [True]


@pytest.mark.parametrize(
    ("past", "now", "is_lost"),
    [
        ([True], False, True),
        ([True], True, False),
        ([True], None, False),  # nothing was asked this time
        ([False], False, False),
        ([], False, False),
        ([True, False], False, False),  # it was reported then
        ([True, None], False, True),
    ],
)
async def test_s9_lost_rights_are_a_gap_once(
    session: OnlineSession, past: list[bool | None], now: bool | None, is_lost: bool
) -> None:
    save_runs(session, past)
    receipt = await measure(session, "stages", 5, 5, is_admin=now)
    assert [(gap.stream, gap.kind) for gap in receipt.gaps] == [("account", "rights")] * is_lost
