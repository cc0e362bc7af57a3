"""What a reconciliation found is saved once per run, and decides its exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from pdsync.errors import BudgetSpent, PdsyncError
from pdsync.model import IncompleteStream, Receipt
from pdsync.runner.reconcile.findings import (
    CountMismatch,
    Finding,
    ReconcileRequest,
    ReconcileResult,
    conclude_and_save,
    save_findings,
)
from tests.runner.kit import T0, open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pdsync.runner.session import OnlineSession

pytestmark = pytest.mark.asyncio(loop_scope="module")
STALE = Finding("deals", "1", "stale", "the list live shows it so")
STOPPED = BudgetSpent(spent=1, limit=1, resets_at=T0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OnlineSession]:
    async with open_session(tmp_path_factory.mktemp("project")) as opened:
        yield opened


def stored(session: OnlineSession) -> dict[tuple[str, str], bool]:
    rows = session.loader.connection.execute("SELECT stream, key, repaired FROM meta.findings").fetchall()
    return {(stream, key): repaired for stream, key, repaired in rows}


@pytest.mark.parametrize(
    ("request_", "command"),
    [
        (ReconcileRequest(), "reconcile"),
        (ReconcileRequest(("deals",), repair=True, deep=True, sample=5), "reconcile deals --repair --deep --sample=5"),
        (ReconcileRequest(max_tombstones=5, budget=9), "reconcile"),  # a limit does not make it another run
    ],
)
async def test_s1_the_command_says_which_run_is_continued(request_: ReconcileRequest, command: str) -> None:
    assert request_.command == command


@pytest.mark.parametrize(
    ("request_", "is_repaired"),
    [
        (ReconcileRequest(repair=True), True),  # it reads everything and does not find it again
        (ReconcileRequest(repair=False), False),
        (ReconcileRequest(repair=True, sample=1), False),  # a sample may have missed it
    ],
)
async def test_s7_what_an_interrupted_attempt_found_is_kept(
    session: OnlineSession, request_: ReconcileRequest, is_repaired: bool
) -> None:
    swept = {"deals": (2, 2, 1)}
    save_findings(session, ReconcileResult(session.receipt, [STALE], swept), request_)
    save_findings(session, ReconcileResult(session.receipt, [Finding("deals", "2", "missing")], swept), request_)
    assert stored(session) == {("deals", "1"): is_repaired, ("deals", "2"): False}
    [row] = session.loader.connection.execute(
        "SELECT at_source, here, differences, complete FROM meta.sweeps"
    ).fetchall()
    assert row == (2, 2, 1, request_.sample is None)
    save_findings(session, ReconcileResult(session.receipt, [STALE], {}), request_)
    assert ("deals", "1") in stored(session)
    session.loader.connection.execute("DELETE FROM meta.findings")


async def test_mismatches_of_a_stream_replace_those_of_earlier_runs(session: OnlineSession) -> None:
    result = ReconcileResult(session.receipt)
    for key in ("1", "2"):
        result.counts_off = {"deal_products": [CountMismatch("deals", key, 3, 1, 1, T0)]}
        save_findings(session, result, ReconcileRequest())
    rows = session.loader.connection.execute("SELECT key, says, listed, here FROM meta.counts_off").fetchall()
    assert rows == [("2", 3, 1, 1)]


@pytest.mark.parametrize(
    ("failed", "gaps", "held_back", "code"),
    [
        ({}, [], None, 0),
        ({}, [IncompleteStream("deals", "differs", "2")], None, 4),
        ({}, [], "too many", 3),
        ({"leads": PdsyncError("it broke")}, [], None, 1),
        ({"leads": PdsyncError("it broke"), "notes": STOPPED}, [], "too many", 3),
    ],
)
async def test_s9_the_exit_code_of_a_reconciliation(
    session: OnlineSession,
    failed: dict[str, PdsyncError],
    gaps: list[IncompleteStream],
    held_back: str | None,
    code: int,
) -> None:
    session.receipt = Receipt(session.receipt.run_id, "reconcile", T0, gaps=list(gaps))
    result = ReconcileResult(session.receipt, swept={"deals": (1, 1, 1)}, held_back=held_back)
    await conclude_and_save(session, result, ReconcileRequest(), failed)
    assert session.receipt.exit_code == code
    assert session.receipt.streams["deals"].complete is (not gaps)


@pytest.mark.parametrize(
    ("swept", "findings", "uneven"),
    [
        ((2, 2, 1), [], {}),
        ((2, 3, 2), [STALE], {}),  # a finding explains it
        ((2, 3, 2), [], {"deals": (2, 3)}),
    ],
)
async def test_s7_numbers_that_no_finding_explains_are_named(
    swept: tuple[int, int, int], findings: list[Finding], uneven: dict[str, tuple[int, int]]
) -> None:
    result = ReconcileResult(Receipt("run", "reconcile", T0), findings, {"deals": swept})
    assert result.uneven == uneven


async def test_only_what_was_not_repaired_is_left() -> None:
    done = Finding("deals", "2", "stale", repaired=True)
    assert ReconcileResult(Receipt("run", "reconcile", T0), [STALE, done]).left == [STALE]
