"""Reads pipelines/*.toml: named ways to run pdsync. The project's own come before those that pdsync brings.

A pipeline may come with a cloned project, so it can be stricter than the defaults but not laxer: it names no host and
no command, and what it may mark as gone has the same bound as without it.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.errors import CatalogueError
from pdsync.runner.reconcile import findings
from pdsync.runner.sync import backfill
from pdsync.runner.sync.sync_request import SyncRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

DEFAULT = "nightly"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_EVERY_JOB = {"description", "job", "streams", "leave_out", "budget", "notify"}
_OF_JOB = {
    "sync": {"full", "params", "verify", "fail_on_gap"},
    "reconcile": {"repair", "deep", "sample", "max_tombstones", "fail_on_gap"},
    "backfill": {"since", "until", "per_day"},
}
_MOST_TOMBSTONES = 100


class Pipeline(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A named way to run pdsync. docs/pipelines.md explains each key."""

    description: str
    job: Literal["sync", "reconcile", "backfill"] = "sync"
    streams: tuple[str, ...] = ()  # none: all
    leave_out: tuple[str, ...] = ()
    budget: int | None = None  # tokens
    notify: Literal["never", "failure", "always"] = "failure"
    full: bool | tuple[str, ...] = False  # all streams, or these, are read whole
    params: dict[str, str] = {}  # of streams whose lists take other parameters
    verify: bool = False  # reconcile a share of the streams after the sync
    fail_on_gap: bool = False
    repair: bool = False
    deep: bool = False
    sample: int | None = None
    max_tombstones: int | None = None
    since: date | None = None
    until: date | None = None
    per_day: bool = False

    def asked(
        self,
        streams: tuple[str, ...],
        *,
        full: bool,
        since: datetime | None,
        budget: int | None,
        params: Mapping[str, str] | None = None,
    ) -> SyncRequest:
        """What to sync: the pipeline's own settings, where the command line says nothing else."""
        return SyncRequest(
            streams or self._chosen(),
            full or self.full is True,
            since,
            budget or self.budget,
            {**self.params, **(params or {})},
            refetch=self.full if isinstance(self.full, tuple) else (),
        )

    def asked_reconcile(self, budget: int | None) -> findings.ReconcileRequest:
        """What to hold against the source."""
        return findings.ReconcileRequest(
            self.streams, self.repair, self.deep, self.sample, self.max_tombstones, budget or self.budget,
            leave_out=self.leave_out,
        )  # fmt: skip

    def asked_backfill(self, budget: int | None) -> backfill.BackfillRequest:
        """What to read again."""
        since, until = (datetime.combine(day, time(), UTC) if day else None for day in (self.since, self.until))
        if since is None:
            raise CatalogueError("A backfill needs `since`. Nothing was called.")
        return backfill.BackfillRequest(since, until, self._chosen(), budget or self.budget, self.per_day)

    def _chosen(self) -> tuple[str, ...]:
        if not self.leave_out:
            return self.streams
        chosen = self.streams or tuple(name for name, each in catalogue.streams().items() if not each.optional)
        return tuple(name for name in chosen if name not in self.leave_out)


def load(name: str, project: Path) -> Pipeline:
    """The pipeline called `name`.

    Raises:
        CatalogueError: there is none, or its file can't be understood. Nothing was called.
    """
    folders = [project / "pipelines", shipped()]
    for folder in folders:
        path = folder / f"{name}.toml"
        if _NAME.fullmatch(name) and path.is_file():
            return _read(path)
    known = names(project)
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known)}."
    raise CatalogueError(
        f"There is no pipeline {name!r}. {guess} Nothing was called.\n"
        f"One of your own is a file {folders[0] / 'NAME.toml'}."
    )


def names(project: Path) -> list[str]:
    """The pipelines that there are."""
    return sorted({path.stem for folder in (project / "pipelines", shipped()) for path in folder.glob("*.toml")})


def shipped() -> Path:
    """The folder pipelines/ that pdsync brings: inside the package in a wheel, beside it in a checkout."""
    return catalogue.schemas().parent / "pipelines"


def _read(path: Path) -> Pipeline:
    where = f"pipelines/{path.name}"
    try:
        entry = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{where}: this is not TOML: {error}.") from error
    found = catalogue.read(entry, Pipeline, where)
    _check(found, entry, where)
    return found


def _check(found: Pipeline, keys: Iterable[str], where: str) -> None:
    for key in keys:
        if key not in _EVERY_JOB | _OF_JOB[found.job]:
            homes = " or ".join(job for job, keys in _OF_JOB.items() if key in keys)
            raise CatalogueError(f"{where}: `{key}` is of a {homes}, and this pipeline's job is {found.job!r}.")
    for name in (*found.streams, *found.leave_out, *(found.full if isinstance(found.full, tuple) else ())):
        try:
            catalogue.stream(name)
        except CatalogueError as error:
            raise CatalogueError(f"{where}: {error}") from error
    for key in ("budget", "sample"):
        if (number := getattr(found, key)) is not None and number < 1:
            raise CatalogueError(f"{where}: {key} is {number}. It is a whole number from 1 on.")
    if found.max_tombstones is not None and not 0 <= found.max_tombstones <= _MOST_TOMBSTONES:
        raise CatalogueError(
            f"{where}: max_tombstones is {found.max_tombstones}. A file can lower the guard only, to 0 up to"
            f" {_MOST_TOMBSTONES}; more is for whoever types it: pdsync reconcile --repair --max-tombstones N"
        )
    if found.job == "backfill" and found.since is None:
        raise CatalogueError(f"{where}: a backfill needs `since`, such as since = 2024-01-01.")
    if found.per_day and found.budget is None:
        raise CatalogueError(f"{where}: per_day goes with a budget.")
