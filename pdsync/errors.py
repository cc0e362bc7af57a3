"""Every error that pdsync raises on purpose, and the exit code that each one ends a command with.

    PdsyncError                    1  something failed; the pages fetched so far are safe
    ├── ConfigError                2  a setting, an argument or a secret is missing or wrong
    │   ├── CatalogueError         2  an entry of schemas/ can't be understood
    │   ├── AuthError              2  the token is missing, refused, or can't be read safely
    │   └── WrongCompany           2  the token belongs to another company than this warehouse
    ├── Stopped                    3  a guard stopped the run; the same command resumes it
    │   ├── BudgetSpent            3  the daily tokens, or the --budget of this run, are spent
    │   ├── DependentsBudgetSpent  3  dependent streams have used up their part of the day's tokens
    │   ├── GuardTripped           3  a push would change, delete or merge more than its limits, or fails too often
    │   ├── ProjectLocked          3  another run has locked this project
    │   ├── NotCopied              3  what is to be sent could not be copied to the store of a fleet
    │   ├── LeaseTaken             3  another worker runs this account
    │   ├── LeaseLost              3  another worker may have taken over this account
    │   └── CoolingDown            3  Pipedrive's abuse protection answered; wait before calling again
    ├── ApiError                   1  Pipedrive refused the request
    │   ├── Forbidden              1  this token may not see that
    │   ├── FeatureOff             1  the company's plan does not include that
    │   └── NotFound               1  there is no such record, or it is hidden from this token
    ├── ServerTrouble              1  no usable answer after every retry that was safe
    ├── BadAnswer                  1  an answer that breaks the API's promises
    └── StorageError               1  the disk is full, read-only or damaged
        └── FileLocked             1  another program has locked a file

A message has the problem, what is safe, and the next step. Its facts are attributes, for programs.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - the signatures are part of the documentation


class PdsyncError(Exception):
    """The base class: catch it to catch every error that pdsync raises on purpose."""

    exit_code = 1


class ConfigError(PdsyncError):
    """A setting, an argument or a file of the project is wrong.

    It is usually found before anything is called. That a token is refused, or is another company's, only a call shows.
    """

    exit_code = 2


class CatalogueError(ConfigError):
    """An entry of schemas/ or pipelines/ can't be understood."""


class AuthError(ConfigError):
    """There is no usable token."""


class WrongCompany(ConfigError):
    """The token's company is not the one whose data is in this warehouse."""

    def __init__(self, *, expected: int, found: int, name: str) -> None:
        self.expected, self.found, self.name = expected, found, name
        super().__init__(
            f"This token belongs to company {found} ({name}), and this warehouse is of company {expected}.\n"
            f"Nothing was read or written.\n"
            f"Use a token of company {expected}, or another folder: pdsync --project DIR sync"
        )


class Stopped(PdsyncError):
    """A guard stopped the run. Its state is saved, and the same command resumes it."""

    exit_code = 3


class BudgetSpent(Stopped):
    """The daily tokens of the company, or the budget of this run, are spent."""

    def __init__(self, *, spent: int, limit: int, resets_at: datetime | None) -> None:
        self.spent, self.limit, self.resets_at = spent, limit, resets_at
        when = f"after {resets_at:%H:%M} UTC" if resets_at else "again"
        more = "" if resets_at else ", with a larger --budget"
        tokens = f"{spent:,} of {limit:,} tokens" if limit else "the day's tokens"
        until = f"; there are new ones at {resets_at:%H:%M} UTC" if resets_at else ""
        super().__init__(
            f"Stopped: {tokens} are spent{until}.\n"
            f"Every page fetched so far is kept and will not be fetched again.\n"
            f"Run the same command {when}{more} to continue."
        )


class DependentsBudgetSpent(Stopped):
    """Streams with a request a parent have used up their part of the day's tokens. The others continue."""

    def __init__(self, *, spent: int, limit: int) -> None:
        self.spent, self.limit = spent, limit
        super().__init__(
            f"Stopped: {spent:,} of the {limit:,} tokens are spent that streams with one request a parent may take.\n"
            f"Every page fetched so far is kept and will not be fetched again.\n"
            f"Run the same command again to continue, or raise limits.dependents_share."
        )


class GuardTripped(Stopped):
    """A push is refused before it sends anything, or is stopped because too many of its writes fail.

    `guard` is the guard's name; mutations that were not sent stay in the queue.
    """

    def __init__(self, guard: str, message: str) -> None:
        self.guard = guard
        super().__init__(message)


class ProjectLocked(Stopped):
    """Another process has locked the project."""


class NotCopied(Stopped):
    """What is to be sent could not be copied to the store of a fleet, so it is not sent."""


class LeaseTaken(Stopped):
    """Another worker has the lease of this account."""


class LeaseLost(Stopped):
    """The lease of this account has expired, and another worker may have taken over. Nothing more was published."""


class CoolingDown(Stopped):
    """Pipedrive's abuse protection answered with a page of HTML. Nothing may be sent until it cools down."""


class ApiError(PdsyncError):
    """Pipedrive refused a request.

    `status` is the HTTP status, `operation` the operation's id, `correlation_id` Pipedrive's own id of the call.
    """

    def __init__(self, message: str, *, status: int, operation: str, correlation_id: str | None = None) -> None:
        self.status, self.operation, self.correlation_id = status, operation, correlation_id
        super().__init__(message)


class Forbidden(ApiError):
    """The token's rights don't allow this operation."""


class FeatureOff(ApiError):
    """The company's plan does not include this operation: there is nothing to read."""


class NotFound(ApiError):
    """No such record, or one that is hidden from this token."""


class ServerTrouble(PdsyncError):
    """No usable answer came, and every retry that was safe is used up.

    `doubtful`: it was a write that Pipedrive may have carried out.
    """

    def __init__(self, message: str, *, doubtful: bool = False) -> None:
        self.doubtful = doubtful
        super().__init__(message)


class BadAnswer(PdsyncError):
    """An answer that breaks the API's promises: no JSON, a cursor that leads nowhere, far too large."""


class StorageError(PdsyncError):
    """The disk is full or read-only, or a file on it is damaged."""


class FileLocked(StorageError):
    """Another program has locked a file: it is not damaged, and stays as it is."""
