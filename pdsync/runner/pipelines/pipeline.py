"""Reads pipelines/*.toml: named ways to run pdsync. The project's own take precedence over those that pdsync ships.

A pipeline may come with a cloned project, so it can be stricter than the defaults but not laxer: it names no host and
no command, and it can't raise the limit of records that may be marked as deleted.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from datetime import UTC, date, datetime, time
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.errors import CatalogueError
from pdsync.runner.sync.sync_request import SyncRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pdsync.runner.reconcile.findings import ReconcileRequest
    from pdsync.runner.sync.backfill import BackfillRequest

DEFAULT = "nightly"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_KEYS_OF_ANY_JOB = {"description", "job", "streams", "leave_out", "budget", "notify", "report"}
_KEYS_BY_JOB = {
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
    report: str = ""  # a file of the project that gets the report after each run
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

    def to_sync_request(
        self,
        streams: tuple[str, ...],
        *,
        full: bool,
        since: datetime | None,
        budget: int | None,
        params: Mapping[str, str] | None = None,
    ) -> SyncRequest:
        """The sync that the pipeline describes; options of the command line win over its settings."""
        return SyncRequest(
            streams or self._selected_names(),
            full or self.full is True,
            since,
            budget or self.budget,
            {**self.params, **(params or {})},
            refetch=self.full if isinstance(self.full, tuple) else (),
            are_named=bool(streams or self.streams),
        )

    def to_reconcile_request(self, budget: int | None) -> ReconcileRequest:
        """The reconciliation that the pipeline describes; `budget` wins over its own."""
        from pdsync.runner.reconcile.findings import ReconcileRequest  # noqa: PLC0415 - slow to import, and `pdsync status` needs none of it

        return ReconcileRequest(
            self.streams, self.repair, self.deep, self.sample, self.max_tombstones, budget or self.budget,
            leave_out=self.leave_out,
        )  # fmt: skip

    def to_backfill_request(self, budget: int | None) -> BackfillRequest:
        """The backfill that the pipeline describes; `budget` wins over its own.

        Raises:
            CatalogueError: the pipeline has no `since`.
        """
        from pdsync.runner.sync.backfill import BackfillRequest  # noqa: PLC0415 - slow to import, and `pdsync status` needs none of it

        since, until = (datetime.combine(day, time(), UTC) if day else None for day in (self.since, self.until))
        if since is None:
            raise CatalogueError("A backfill needs `since`. Nothing was called.")
        return BackfillRequest(since, until, self._selected_names(), budget or self.budget, self.per_day)

    def _selected_names(self) -> tuple[str, ...]:
        if not self.leave_out:
            return self.streams
        names = self.streams or tuple(name for name, each in catalogue.streams().items() if not each.optional)
        return tuple(name for name in names if name not in self.leave_out)


def load(name: str, project: Path) -> Pipeline:
    """The pipeline called `name`.

    Raises:
        CatalogueError: there is none, or its file can't be understood. Nothing was called.
    """
    folders = [project / "pipelines", shipped_folder()]
    for folder in folders:
        path = folder / f"{name}.toml"
        if _NAME.fullmatch(name) and path.is_file():
            return _read(path)
    existing = list_names(project)
    near = difflib.get_close_matches(name, existing, n=1)
    guess = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(existing)}."
    raise CatalogueError(
        f"There is no pipeline {name!r}. {guess} Nothing was called.\n"
        f"To make one of your own, create {folders[0] / 'NAME.toml'}."
    )


def list_names(project: Path) -> list[str]:
    """The names of all pipelines, sorted."""
    return sorted({path.stem for folder in (project / "pipelines", shipped_folder()) for path in folder.glob("*.toml")})


def shipped_folder() -> Path:
    """The folder pipelines/ that pdsync ships: inside the package in a wheel, beside it in a checkout."""
    return catalogue.schemas().parent / "pipelines"


def _read(path: Path) -> Pipeline:
    file = f"pipelines/{path.name}"
    try:
        entry = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{file}: this is not TOML: {error}.") from error
    pipeline = catalogue.read(entry, Pipeline, file)
    _check(pipeline, entry, file)
    return pipeline


def _check(pipeline: Pipeline, keys: Iterable[str], file: str) -> None:
    """Check what the types of the keys can't express.

    Raises:
        CatalogueError: a key belongs to another job, a stream does not exist, or a number is out of range.
    """
    for key in keys:
        if key not in _KEYS_OF_ANY_JOB | _KEYS_BY_JOB[pipeline.job]:
            jobs = " or ".join(job for job, keys in _KEYS_BY_JOB.items() if key in keys)
            raise CatalogueError(f"{file}: `{key}` is a key of a {jobs}, and this pipeline's job is {pipeline.job!r}.")
    for name in (*pipeline.streams, *pipeline.leave_out, *(pipeline.full if isinstance(pipeline.full, tuple) else ())):
        try:
            catalogue.stream(name)
        except CatalogueError as error:
            raise CatalogueError(f"{file}: {error}") from error
    _check_report(pipeline.report, file)
    for key in ("budget", "sample"):
        if (number := getattr(pipeline, key)) is not None and number < 1:
            raise CatalogueError(f"{file}: {key} is {number}. It is a whole number from 1 on.")
    if pipeline.max_tombstones is not None and not 0 <= pipeline.max_tombstones <= _MOST_TOMBSTONES:
        raise CatalogueError(
            f"{file}: max_tombstones is {pipeline.max_tombstones}. A file can only lower this limit, to 0 up to"
            f" {_MOST_TOMBSTONES}; to allow more, type it: pdsync reconcile --repair --max-tombstones N"
        )
    if pipeline.job == "backfill" and pipeline.since is None:
        raise CatalogueError(f"{file}: a backfill needs `since`, such as since = 2024-01-01.")
    if pipeline.per_day and pipeline.budget is None:
        raise CatalogueError(f"{file}: per_day goes with a budget.")


def _check_report(report: str, file: str) -> None:
    path = PurePath(report)
    if report and (path.is_absolute() or ".." in path.parts or path.suffix != ".html"):
        raise CatalogueError(f"{file}: report is {report!r}. It is an .html file in the project: data/report.html")
