"""Tells a webhook how a run ended, as its pipeline asks for (see `runner.report.webhook`)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from pdsync.errors import PdsyncError
from pdsync.runner.report import webhook

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from pdsync.cli.app import App
    from pdsync.model import Receipt


@contextlib.contextmanager
def about(app: App, pipeline: str, when: str) -> Iterator[None]:
    """What runs inside follows `pipeline`; its end is told `when` (never, failure, always)."""
    url = webhook.address()
    app.tells = (url, pipeline, when) if url and when != "never" else None
    try:
        yield
    except PdsyncError as error:
        if app.tells:
            _post(app, webhook.failure(pipeline, _project(app), str(error), error.exit_code))
        raise
    except click.Abort:
        if app.tells:
            _post(app, webhook.failure(pipeline, _project(app), "It was interrupted.", 130))
        raise


def heard(app: App, done: Receipt, exit_code: int) -> None:
    """A run has ended with `done`."""
    if app.tells and (exit_code or app.tells[2] == "always"):
        _post(app, webhook.receipt(app.tells[1], _project(app), done, exit_code))


def _post(app: App, facts: Mapping[str, Any]) -> None:
    if app.tells and (why := webhook.post(app.tells[0], facts)):
        app.note(f"Nobody was told of this: {webhook.ENV} could not be reached ({why}).")


def _project(app: App) -> str:
    return app.settings.project.name
