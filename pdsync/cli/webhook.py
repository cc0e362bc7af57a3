"""Reports the end of a run to a webhook, if its pipeline asks for it (see `runner.report.webhook`)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from pdsync.cli.interruption import is_interrupted_query
from pdsync.core.disk import storage_error
from pdsync.errors import PdsyncError
from pdsync.runner.report import webhook

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from pdsync.cli.app import App
    from pdsync.model import Receipt


@contextlib.contextmanager
def reporting(app: App, pipeline: str, when: str) -> Iterator[None]:
    """Report the run inside the `with` if it fails or is interrupted; `when`: never, failure or always.

    A run that comes to a receipt is reported by `report_end`, which the block has to call before it ends with Exit.
    """
    url = webhook.find_address()
    app.notification = (url, pipeline, when) if url and when != "never" else None
    try:
        yield
    except click.exceptions.Exit:
        raise
    except (Exception, KeyboardInterrupt) as error:
        if app.notification:
            _post(app, webhook.describe_failure(pipeline, _project(app), *_describe(error)))
        raise


def _describe(error: BaseException) -> tuple[str, int]:
    """What an error says, and the exit code with which `main` ends for it."""
    if isinstance(error, KeyboardInterrupt | click.Abort) or is_interrupted_query(error):
        return "It was interrupted.", 130
    known = error if isinstance(error, PdsyncError) else storage_error(error)
    return (str(known), known.exit_code) if known else (f"{type(error).__name__}: {error}", 1)


def report_end(app: App, receipt: Receipt, exit_code: int) -> None:
    """Report a run that ended with `receipt`."""
    if app.notification and (exit_code or app.notification[2] == "always"):
        _post(app, webhook.describe_receipt(app.notification[1], _project(app), receipt, exit_code))


def _post(app: App, facts: Mapping[str, Any]) -> None:
    if app.notification and (reason := webhook.post(app.notification[0], facts)):
        app.note(f"The webhook of {webhook.ENV} could not be reached, so this run was not reported there ({reason}).")


def _project(app: App) -> str:
    return app.settings.project.name
