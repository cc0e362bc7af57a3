"""Finds what is wrong with a fleet before anything runs: tokens that can't be read, one company in two accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.errors import PdsyncError
from pdsync.fleet.accounts import resolve_token, settings_of
from pdsync.runner import unlocked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pdsync.fleet.accounts import Account, Fleet


class Problem(Struct, frozen=True):
    """What is wrong, and what to do. `name`: of the account; of the fleet if it is empty."""

    name: str
    detail: str
    fix: str
    blocks: bool = True  # the account can't run, or none of the fleet can


def find_blocked(problems: Iterable[Problem], accounts: Iterable[Account]) -> set[str]:
    """The names of those of `accounts` that can't run."""
    names = {problem.name for problem in problems if problem.blocks}
    return {account.name for account in accounts if account.name in names or "" in names}


def find_problems(fleet: Fleet, accounts: Sequence[Account]) -> list[Problem]:
    """What is wrong with `accounts`, and what there is of accounts that fleet.toml has no more.

    The fleet's store is listed, if there is one; no request is made to Pipedrive.
    """
    problems: list[Problem] = []
    companies: dict[int, str] = {}
    for account in accounts:
        try:
            resolve_token(account)
            company = _company(account)
        except PdsyncError as error:
            detail, _, fix = str(error).partition("\n")
            problems.append(Problem(account.name, detail, fix or f"Mend [accounts.{account.name}] in {fleet.file}."))
            continue
        if company is None:
            continue
        if (other := companies.setdefault(company, account.name)) != account.name:
            detail = f"It is the same company as {other} ({company}): both spend the tokens of one day."
            problems.append(Problem(account.name, detail, "Remove one of them from fleet.toml."))
    return [*problems, *_leftovers(fleet), *_left_together(fleet)]


def _company(account: Account) -> int | None:
    settings = settings_of(account)
    if not settings.control.exists():
        return None
    with unlocked.open_control(settings) as control:
        company = control.company()
    return company[0] if company else None


def _leftovers(fleet: Fleet) -> list[Problem]:
    """Folders of accounts that fleet.toml has no more."""
    if not fleet.folder.is_dir():
        return []
    used = {account.folder.resolve() for account in fleet.accounts.values()}
    return [
        Problem(
            "",
            f"{path} is the folder of no account: no command of the fleet reads or writes it.",
            f"Add [accounts.{path.name}] to {fleet.file}, or remove the folder.",
            blocks=False,
        )
        for path in sorted(fleet.folder.iterdir())
        if path.is_dir() and not path.name.startswith(".") and path.resolve() not in used
    ]


def _left_together(fleet: Fleet) -> list[Problem]:
    """Accounts of which the roll-up or the store has something, and that fleet.toml has no more."""
    from pdsync.fleet import removal  # noqa: PLC0415 - takes a tenth of a second

    try:
        names = removal.find_left(fleet)
    except PdsyncError as error:
        detail, _, fix = str(error).partition("\n")
        return [Problem("", detail, fix or f"Mend [fleet] in {fleet.file}.")]
    return [
        Problem(
            "",
            f"The roll-up or the store has data of {name}, which is no account in fleet.toml.",
            f"Add [accounts.{name}] to {fleet.file}, or remove it: pdsync fleet remove {name}",
            blocks=False,
        )
        for name in names
    ]
