"""The options that the commands of `pdsync fleet` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from pdsync.fleet import accounts

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.cli.app import App
    from pdsync.fleet.accounts import Account, Fleet


class Selection(Struct, frozen=True):
    """Which accounts of which file."""

    names: tuple[str, ...]
    tags: tuple[str, ...]
    file: Path | None

    def load(self, app: App) -> tuple[Fleet, list[Account]]:
        """The fleet, and the accounts that are selected.

        Raises:
            ConfigError: fleet.toml can't be understood, or an account or a tag does not exist.
        """
        fleet = accounts.load(app.project, self.file)
        return fleet, fleet.select(self.names, self.tags)

    @property
    def words(self) -> tuple[str, ...]:
        """The selection as it is stored with a run."""
        return (*sorted(self.names), *(f"tag:{tag}" for tag in sorted(self.tags)))


class Place(Struct, frozen=True):
    """Where accounts run, and how many at once."""

    processes: int | None  # accounts at once, wherever they run
    workers: int | None  # of a Dask cluster that is started for the run
    scheduler: str | None  # of a Dask cluster that exists
    restart: bool


def selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the arguments ACCOUNT and the options --tag and --file, as a `Selection`."""

    def with_selection(accounts: tuple[str, ...], tags: tuple[str, ...], file: Path | None, **more: Any) -> None:
        command(selection=Selection(accounts, tags, file), **more)

    return _with_options(
        command,
        with_selection,
        click.argument("accounts", metavar="[ACCOUNT]...", nargs=-1),
        click.option("--tag", "tags", multiple=True, metavar="T", help="Only accounts with this tag. May be repeated."),
        file_option(),
    )


def placing(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options --processes, --workers, --scheduler and --restart, as a `Place`."""

    def with_place(
        processes: int | None, workers: int | None, scheduler: str | None, restart: bool, **more: Any
    ) -> None:
        if workers and scheduler:
            raise click.UsageError("--workers starts a cluster, --scheduler uses one that exists. Give one of them.")
        command(place=Place(processes, workers, scheduler, restart), **more)

    return _with_options(
        command,
        with_place,
        click.option("--processes", type=click.IntRange(min=1), metavar="N",
                     help="Accounts at once.  [default: two for each core]"),
        click.option("--workers", type=click.IntRange(min=1), metavar="N",
                     help="Run on N Dask workers that are started on this machine, and end with the command."),
        click.option("--scheduler", metavar="ADDRESS",
                     help="Run on the workers of this Dask scheduler, such as tcp://host:8786."),
        click.option("--restart", is_flag=True, help="Don't continue an interrupted run: run every account."),
    )  # fmt: skip


def file_option() -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option --file."""
    path = click.Path(dir_okay=False, path_type=Path)
    return click.option("--file", type=path, metavar="FILE", help="The file.  [default: fleet.toml of the project]")


def _with_options(command: Callable[..., None], inner: Callable[..., None], *options: Any) -> Callable[..., None]:
    inner.__doc__, inner.__name__ = command.__doc__, command.__name__
    inner.__click_params__ = list(getattr(command, "__click_params__", ()))  # type: ignore[attr-defined]
    for option in reversed(options):
        inner = option(inner)
    return inner
