"""Finds the user and the company of a token, and whether that user sees all data: the only reader of `users/me`."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads it at run time
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.errors import BadAnswer

if TYPE_CHECKING:
    from pdsync.core.http import Http

# Rights are granted by app, each with permission sets of its own. According to the vendor (v1 permissionSets) an
# admin of `sales` sees "all sales data (deals, leads)" and an admin of `global` "all cross-product data (such as
# contacts, activities, reports)": it takes both to see everything. Assumption: projects are seen in full by an admin of
# `projects`; companies without that add-on have no such entry.
_NEEDED = ("sales", "global")
_IF_LISTED = ("projects",)


class Account(Struct, frozen=True):
    """A user of a company, from `users/me`. `company_id` never changes; names and domains may."""

    id: int
    name: str
    company_id: int
    company_name: str = ""
    company_domain: str | None = None
    default_currency: str | None = None
    access: Any = None  # apps, and whether the user administers them
    served_at: datetime | None = None

    @property
    def limited_in(self) -> tuple[str, ...]:
        """The apps of which this user may not see all data; empty for an administrator."""
        listed = [each for each in self.access if isinstance(each, dict)] if isinstance(self.access, list) else []
        administered = {each.get("app") for each in listed if each.get("admin") is True}
        needed = (*_NEEDED, *(app for app in _IF_LISTED if app in {each.get("app") for each in listed}))
        return tuple(app for app in needed if app not in administered)

    @property
    def is_admin(self) -> bool:
        """Whether this user sees all data. `users/me` has no flag for it, but rights for each app."""
        return not self.limited_in


class _Answer(Struct):
    data: Account


async def fetch_account(http: Http) -> Account:
    """Request the account of the token, for 2 tokens.

    Raises:
        AuthError: the token is refused.
        BadAnswer: the answer names no user or no company; without them nothing may be written.
        PdsyncError: as `Http.call`.
    """
    answer = await http.call(catalogue.operation("getCurrentUser", "v1"))
    return msgspec.structs.replace(read_account(answer.body), served_at=answer.served_at)


def read_account(body: bytes) -> Account:
    """The account in an answer of `users/me`.

    Raises:
        BadAnswer: it names no user or no company.
    """
    try:
        return msgspec.json.decode(body, type=_Answer).data
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadAnswer(
            f"Pipedrive did not say whose token it is, and of which company ({error}). Nothing was written."
        ) from error
