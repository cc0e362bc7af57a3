"""Opens the folder of a project: a mistyped name is refused, before a folder is created for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.core import config
from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.core.config import Settings


def load_settings(
    project: Path, flags: dict[str, str | int | None] | None = None, *, create: bool = False, advice: str = ""
) -> Settings:
    """The settings of the project in the folder `project`. Nothing is created.

    The current folder, an empty one and one with data or settings of pdsync are accepted as they are.

    Args:
        project: the folder.
        flags: as in `config.load`.
        create: accept a folder that is missing, or that has other files.
        advice: how to accept such a folder; ends the message.

    Raises:
        ConfigError: the folder is missing, or is no project; or a setting is malformed. Nothing was called.
    """
    folder = config.expand(project)
    if not (create or folder.exists()):
        raise ConfigError(f"There is no folder {project}. Nothing was called.\n{advice}")
    if folder.is_file():
        raise ConfigError(f"{project} is a file. A project is the folder that it is in. Nothing was called.")
    settings = config.load(project, flags)
    is_current = folder.exists() and folder.samefile(".")
    if not (create or is_current or config.may_be_project(settings)):
        raise ConfigError(
            f"The folder {project} is no pdsync project: it has other files, but no pdsync.toml and no data of"
            f" pdsync. Nothing was called.\n{advice}"
        )
    return settings
