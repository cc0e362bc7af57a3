"""Reconciles the warehouse with the source: sweeps every list, classifies the differences, and repairs them on request.

All streams are swept first, because other streams often show what happened to a record: those that pointed to a merged
one point to the winner now. Then absent records are judged (`reconcile.evidence`), and repaired: missing and stale ones
are fetched again by their keys, deleted ones get a tombstone. Both are sealed in the raw archive like everything else,
so a replay gives the same tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.errors import DependentsBudgetSpent, PdsyncError, Stopped
from pdsync.model import StreamReceipt
from pdsync.runner.reconcile.comparison import Comparison
from pdsync.runner.reconcile.diagnosis import Diagnosis
from pdsync.runner.reconcile.findings import ReconcileResult, conclude_and_save
from pdsync.runner.reconcile.repair import Repair
from pdsync.runner.session import Event, begin_run, log_notes, open_session

if TYPE_CHECKING:
    from pdsync.core.config import Settings
    from pdsync.runner.reconcile.findings import ReconcileRequest
    from pdsync.runner.session import OnEvent, OnlineSession


async def reconcile(settings: Settings, request: ReconcileRequest, on_event: OnEvent = log_notes) -> ReconcileResult:
    """Compare the warehouse with the source, and repair it on request.

    If a list can't be read, none of its records is taken for deleted.

    Args:
        settings: of the project.
        request: which streams, how deep, and whether to repair.
        on_event: is called with each event, in the event loop's thread.

    Returns:
        The findings; the receipt's exit code is 0 only if no stream failed, no tombstones were held back, and no record
        differs after its repair. Differences alone do not change it.

    Raises:
        ConfigError, AuthError, WrongCompany, ProjectLocked, CoolingDown: as `sync.sync`.
        PdsyncError: it could not begin, or no more requests were possible while records were probed or repaired. The
            findings and repairs until then are in the work file, and nothing is published. The same goes for an
            interruption, which is raised.
    """
    async with open_session(
        settings,
        lambda control, account: begin_run(control, request.command, account),
        on_event,
        run_tokens=request.budget,
    ) as session:
        result = ReconcileResult(session.receipt, is_sample=request.sample is not None)
        failed: dict[str, PdsyncError] = {}
        try:
            await _compare_and_repair(session, request, result, failed)
        finally:
            await conclude_and_save(session, result, request, failed)
    return result


async def _compare_and_repair(
    session: OnlineSession, request: ReconcileRequest, result: ReconcileResult, failed: dict[str, PdsyncError]
) -> None:
    """Fill in `result`, and `failed` with the streams that could not be compared."""
    comparison = Comparison(session, request)
    streams = await session.loader.do(comparison.select, result, failed)
    for stream in streams:
        session.on_event(Event("selected", stream.name))
    for number, stream in enumerate(streams):
        session.progress[stream.name] = StreamReceipt()
        session.on_event(Event("started", stream.name, session.progress[stream.name]))
        try:
            result.swept[stream.name] = await comparison.read(stream, number)
            rows = await session.loader.do(comparison.count_rows, stream)
            result.not_compared[stream.name] = rows - result.swept[stream.name][1]
        except PdsyncError as error:
            failed[stream.name] = error
            if isinstance(error, Stopped) and not isinstance(error, DependentsBudgetSpent):
                break
        session.on_event(
            Event("finished", stream.name, session.progress[stream.name], str(failed.get(stream.name, "")))
        )
    # Deals before leads: a deal names the lead that it was converted from.
    diagnosis, explained = Diagnosis(comparison), set[str]()
    try:
        for stream in sorted(streams, key=lambda each: each.name == "leads"):
            if stream.name in result.swept:
                result.findings += await diagnosis.explain(stream)
                explained.add(stream.name)
    finally:  # if it stops here, the others were read, but not compared
        result.swept = {name: counts for name, counts in result.swept.items() if name in explained}
    if request.repair:
        await Repair(comparison).repair_all(streams, result)
    for name in result.swept.keys() & comparison.counted.keys():
        counted = comparison.counted[name]
        result.counts_off[name] = await session.loader.do(counted.find_mismatches, comparison.sweeps[name])
