"""Reads pipelines/*.toml: named ways to run a sync. The project's own come before those that pdsync brings."""

from __future__ import annotations

import difflib
import tomllib
from datetime import datetime  # noqa: TC003 - part of the signatures
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.errors import CatalogueError
from pdsync.runner.run import Asked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Pipeline(Struct, frozen=True, forbid_unknown_fields=True):
    """A named way to run a sync."""

    description: str
    streams: tuple[str, ...] = ()  # none: all
    full: bool = False
    budget: int | None = None  # tokens
    params: dict[str, str] = {}  # of streams that can be asked for otherwise

    def asked(
        self,
        streams: tuple[str, ...],
        *,
        full: bool,
        since: datetime | None,
        budget: int | None,
        params: Mapping[str, str] | None = None,
    ) -> Asked:
        """What to do: the pipeline's own settings, where the command line says nothing else."""
        return Asked(
            streams or self.streams, full or self.full, since, budget or self.budget, {**self.params, **(params or {})}
        )


def load(name: str, project: Path) -> Pipeline:
    """The pipeline called `name`.

    Raises:
        CatalogueError: there is none, or its file can't be understood.
    """
    folders = [project / "pipelines", shipped()]
    for folder in folders:
        path = folder / f"{name}.toml"
        if path.is_file():
            where = f"pipelines/{path.name}"
            try:
                entry = tomllib.loads(path.read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise CatalogueError(f"{where}: this is not TOML: {error}.") from error
            return catalogue.read(entry, Pipeline, where)
    known = sorted({path.stem for folder in folders for path in folder.glob("*.toml")})
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known)}."
    raise CatalogueError(f"There is no pipeline {name!r}. {guess} Nothing was called.")


def shipped() -> Path:
    """The folder pipelines/ that pdsync brings: inside the package in a wheel, beside it in a checkout."""
    return catalogue.schemas().parent / "pipelines"
