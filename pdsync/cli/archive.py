"""`pdsync replay`, `pdsync raw` and `pdsync forget`: what is done with the raw archive, without a request."""

from __future__ import annotations

import asyncio
import time

import click

from pdsync.cli import render
from pdsync.cli.app import App, Command
from pdsync.cli.sync import show
from pdsync.runner import replay as replaying


@click.command(cls=Command)
@click.argument("streams", nargs=-1)
@click.pass_obj
def replay(app: App, streams: tuple[str, ...]) -> None:
    """Rebuild the tables of STREAMS from the raw archive: the whole warehouse, when none is named.

    Makes no request. Tables, histories and the schema log come out as they were; after an upgrade, with the columns
    that the catalogue has now, filled for the past too. Readers see the old warehouse until the new one is finished.
    """
    began = time.monotonic()
    with render.Progress(app) as progress:
        done = asyncio.run(replaying.replay(app.settings, streams, progress))
    show(app, done, time.monotonic() - began, done.exit_code)
    if done.exit_code:
        raise click.exceptions.Exit(done.exit_code)
