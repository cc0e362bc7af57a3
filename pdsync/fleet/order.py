"""Decides in which order accounts run: what is due first, and of that what takes longest.

With the longest first, the last worker to end has little left to do. What takes how long is known from earlier runs of
the fleet; an account that was never complete has most to read, so it comes before those that were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pdsync.fleet.accounts import Account
    from pdsync.fleet.job import AccountResult
    from pdsync.fleet.run_log import FleetRun


def last_results(runs: Iterable[FleetRun], command: str) -> dict[str, list[AccountResult]]:
    """By account: the results of `command` in `runs`, which are in order, oldest first."""
    results: dict[str, list[AccountResult]] = {}
    for run in runs:
        if run.command[:1] == (command,):
            for name, result in run.results.items():
                results.setdefault(name, []).append(result)
    return results


def in_order(accounts: Sequence[Account], results: dict[str, list[AccountResult]]) -> list[Account]:
    """`accounts`, those first that never were complete, then the others; in each group what takes longest first.

    An account whose last run was stopped comes last: mostly its budget was spent, so it has little to spend.
    """

    def key(account: Account) -> tuple[int, float]:
        earlier = results.get(account.name, [])
        complete = [result for result in earlier if result.complete]
        if earlier and earlier[-1].outcome == "stopped":
            return 2, -earlier[-1].seconds
        return int(bool(complete)), -max((result.seconds for result in (complete or earlier)[-3:]), default=0.0)

    return sorted(accounts, key=key)
