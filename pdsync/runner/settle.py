"""Brings control.db and an open work file in step: what one lacks is loaded or read again, or copied from the other.

The work file is the authority on what is loaded; control.db, the index of the raw archive, shows what was fetched. See
`runner.stores` for the archive.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from pdsync.core.server_clock import TRUST
from pdsync.core.wording import counted
from pdsync.runner.report.receipt import adopt_receipts, save_receipt

if TYPE_CHECKING:
    from pdsync.core.control import Control
    from pdsync.core.server_clock import ServerClock
    from pdsync.runner.loader import Loader


def settle(loader: Loader, control: Control, clock: ServerClock | None = None) -> list[str]:
    """Bring control.db and the work file in step. To be called in the loader's thread, once the file is open.

    Args:
        loader: of the open work file.
        control: the project's control.db.
        clock: the server's, after the first answer; None where there is none to ask.

    Returns:
        Messages for the user.
    """
    loaded, notes = loader.loaded_pages_by_walk(), []
    if lost := control.requeue_missing_walks(loaded):
        notes.append(
            f"The work file lacks {counted(lost, 'walk')}: what is missing is loaded again from the raw archive, with"
            f" its stream."
        )
    if outdated := control.drop_outdated_walks(loaded):
        begin = f"{counted(outdated, 'open walk')} {'begins' if outdated == 1 else 'begin'}"
        notes.append(f"control.db is older than the warehouse: {begin} again.")
    in_warehouse = adopt_receipts(loader.connection, control)
    for receipt in reversed(control.receipts(-1)):
        if receipt.finished_at and receipt.run_id not in in_warehouse:
            save_receipt(loader, receipt)
    return notes + (_settle_time(loader, clock) if clock else [])


def _settle_time(loader: Loader, clock: ServerClock) -> list[str]:
    """Correct the times that a wrong clock has put into the future, or continue after them; messages for the user."""
    clock.not_before(loader.newest_time())
    if clock.is_confirmed:
        now = clock.now()
        pulled = loader.pull_back(now - timedelta(seconds=1), now)
        if not pulled:
            return []
        rows = ", ".join(f"{table}: {count:,}" for table, count in pulled.items())
        return [f"In an earlier run a clock was ahead. The times of rows in the future are corrected ({rows})."]
    if clock.lag > TRUST:
        return [
            f"Pipedrive's clock is {clock.lag} behind its time in an earlier run, and this machine's clock agrees with"
            f" neither. What is read now counts as later than all that was read before. Check the clock: pdsync doctor"
        ]
    return []
