"""Every error that pdsync raises on purpose, and the exit code that each one ends a command with.

    PdsyncError                    1  something failed; what was fetched so far is kept
    ├── ConfigError                2  a setting, an argument or a secret is missing or wrong; nothing was called
    │   ├── CatalogueError         2  an entry of schemas/ can't be understood
    │   ├── AuthError              2  the token is missing, refused, or can't be read safely
    │   └── WrongCompany           2  the token belongs to another company than this warehouse
    ├── Stopped                    3  a guard stopped the run; the same command goes on from here
    │   ├── BudgetSpent            3  the daily tokens, or the --budget of this run, are spent
    │   ├── ShareSpent             3  the part of a day's tokens is spent that dependent streams may take
    │   ├── GuardTripped           3  a push would change, delete or merge more than it may, or goes wrong too often
    │   ├── Busy                   3  another run holds this project
    │   └── Blocked                3  Pipedrive's abuse protection answered; wait before calling again
    ├── ApiError                   1  Pipedrive answered, and the answer is a refusal
    │   ├── Forbidden              1  this token may not see that
    │   ├── FeatureOff             1  the company's plan does not include that
    │   └── NotFound               1  there is no such record, or it is hidden from this token
    ├── ServerTrouble              1  no usable answer after every retry that was safe
    ├── BadAnswer                  1  an answer that is not what the API promises
    └── StorageError               1  the disk is full, read-only or damaged

Messages say what happened, what is safe, and what to do next. Facts are attributes, for programs.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - the signatures are part of the documentation


class PdsyncError(Exception):
    """The root: catch this to catch all that pdsync raises on purpose."""

    exit_code = 1


class ConfigError(PdsyncError):
    """A setting, an argument or a file of the project is wrong. Nothing was called."""

    exit_code = 2


class CatalogueError(ConfigError):
    """An entry of schemas/ or pipelines/ can't be understood."""


class AuthError(ConfigError):
    """There is no usable token."""


class WrongCompany(ConfigError):
    """The token's company is not the one that this warehouse holds."""

    def __init__(self, *, expected: int, found: int, name: str) -> None:
        self.expected, self.found, self.name = expected, found, name
        super().__init__(
            f"This token belongs to company {found} ({name}), and this warehouse holds company {expected}.\n"
            f"Nothing was read or written.\n"
            f"Use a token of company {expected}, or another folder: pdsync --project DIR sync"
        )


class Stopped(PdsyncError):
    """A guard stopped the run. State is saved, and the same command goes on from here."""

    exit_code = 3


class BudgetSpent(Stopped):
    """The daily tokens of the company, or the budget that this run was given, are spent."""

    def __init__(self, *, spent: int, limit: int, resets_at: datetime | None) -> None:
        self.spent, self.limit, self.resets_at = spent, limit, resets_at
        when = f"after {resets_at:%H:%M} UTC" if resets_at else "again"
        more = "" if resets_at else ", with a larger --budget"
        super().__init__(
            f"Stopped: {spent:,} of {limit:,} tokens are spent.\n"
            f"Every page fetched so far is kept and will not be fetched again.\n"
            f"Run the same command {when}{more} to go on."
        )


class DependentsBudgetSpent(Stopped):
    """Streams that cost a request a parent have used up their part of the day's tokens. The others go on."""

    def __init__(self, *, spent: int, limit: int) -> None:
        self.spent, self.limit = spent, limit
        super().__init__(
            f"Stopped: {spent:,} of the {limit:,} tokens are spent that streams with one request a parent may take.\n"
            f"Every page fetched so far is kept and will not be fetched again.\n"
            f"Run the same command again to go on, or raise limits.dependents_share."
        )


class GuardTripped(Stopped):
    """A push is held back before it sends anything, or is stopped because too much of it goes wrong.

    `guard` names which one; what was not sent stays in the queue.
    """

    def __init__(self, guard: str, message: str) -> None:
        self.guard = guard
        super().__init__(message)


class ProjectLocked(Stopped):
    """Another process holds the project's lock."""


class CoolingDown(Stopped):
    """Pipedrive's abuse protection answered with a page of HTML. Nothing may be sent until it cools down."""


class ApiError(PdsyncError):
    """Pipedrive refused a request.

    `status` is the HTTP status, `operation` the operation's id, `correlation_id` Pipedrive's own name for the call.
    """

    def __init__(self, message: str, *, status: int, operation: str, correlation_id: str | None = None) -> None:
        self.status, self.operation, self.correlation_id = status, operation, correlation_id
        super().__init__(message)


class Forbidden(ApiError):
    """The token's rights don't allow this operation."""


class FeatureOff(ApiError):
    """The company's plan does not include what was asked for: there is nothing of it to read."""


class NotFound(ApiError):
    """No such record, or one that is hidden from this token."""


class ServerTrouble(PdsyncError):
    """No usable answer came, and every retry that was safe is used up.

    `doubtful` where it was a write that may have been carried out.
    """

    def __init__(self, message: str, *, doubtful: bool = False) -> None:
        self.doubtful = doubtful
        super().__init__(message)


class BadAnswer(PdsyncError):
    """An answer that is not what the API promises: no JSON, a cursor that leads nowhere, far too large."""


class StorageError(PdsyncError):
    """The disk is full, read-only, or what is on it is damaged."""
