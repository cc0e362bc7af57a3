"""Parts of the tests of a fleet: jobs, and accounts with a sandbox each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.fleet.accounts import Account
from pdsync.fleet.job import AccountJob

if TYPE_CHECKING:
    from pathlib import Path


def job_of(folder: Path, *command: str, name: str = "acme", **more: object) -> AccountJob:
    """A job of an account that has no token."""
    return AccountJob(Account(name, folder / name), command, "r1", **more)  # type: ignore[arg-type]
