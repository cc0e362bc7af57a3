"""`pdsync sandbox serve`: a local Pipedrive for experiments and tests."""

from __future__ import annotations

import errno
from pathlib import Path

import click

from pdsync.cli.app import App, Command
from pdsync.errors import ConfigError

KINDS = ("deals", "persons", "organizations", "products", "activities", "files", "mail_threads", "users")


@click.group()
def sandbox() -> None:
    """Serve the local Pipedrive: its rules, costs and limits. It has a made-up company, and faults on demand."""


def _sizes(command: click.Command) -> click.Command:
    for kind in reversed(KINDS):
        option = click.Option(
            [f"--{kind.replace('_', '-')}"], type=click.IntRange(min=0), help=f"How many {kind.replace('_', ' ')}."
        )
        command.params.insert(0, option)
    return command


@click.command(cls=Command, name="serve")
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same company.")
@click.option("--company-id", default=5550, show_default=True, help="The id of the company.")
@click.option(
    "--burst", default=20, show_default=True, type=click.IntRange(min=0), help="Requests in 2 s; 0: no limit."
)
@click.option("--daily-tokens", default=30_000, show_default=True, type=click.IntRange(min=0), help="0: no limit.")
@click.option(
    "--purged", default=0.0, type=click.FloatRange(0, 0.95), help="Share of all records that are gone: ids are sparse."
)
@click.option("--archived", type=click.FloatRange(0, 1), help="Share of the deals that are archived.  [default: 0.04]")
@click.option("--gzip", is_flag=True, help="Compress answers, as Pipedrive does.")
@click.option("--faults", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A JSON file of faults.")
@click.pass_obj
def serve(
    app: App,
    /,
    port: int,
    seed: int,
    company_id: int,
    burst: int,
    daily_tokens: int,
    purged: float,
    archived: float | None,
    gzip: bool,
    faults: Path | None,
    **sizes: int | None,
) -> None:
    """Serve a made-up company on this machine until interrupted.

    Prints the two settings that point pdsync at it. /_admin shows its records and requests: /_admin/dump, /_admin/log.
    """
    from pdsync.sandbox import (  # noqa: PLC0415 - only this command needs it
        BadFaults,
        Limits,
        Sizes,
        generate_company,
        serve_forever,
    )

    def ready(url: str, token: str) -> None:
        if app.json:
            app.emit({"event": "ready", "url": url, "token": token})
        else:
            app.result(f"export PDSYNC_BASE_URL={url} PDSYNC_API_TOKEN={token}")
            app.note(
                f"A made-up company is served at {url}. Paste the line above into another terminal; Ctrl-C stops it."
            )

    counts = {kind: count for kind, count in sizes.items() if count is not None}
    company_sizes = Sizes(**counts, purged=purged, archived=archived)
    try:
        serve_forever(
            generate_company(seed, company_sizes, company_id=company_id),
            port=port,
            limits=Limits(burst=burst or None, daily_tokens=daily_tokens or None),
            gzip=gzip,
            faults_file=faults,
            on_ready=ready,
        )
    except BadFaults as error:
        raise ConfigError(f"{error}. Correct the file of --faults; nothing is served.") from error
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        why = "is in use" if error.errno == errno.EADDRINUSE else "is reserved for administrators"
        raise ConfigError(
            f"Port {port} {why}. Choose another: --port {port + 1}, or --port 0 for any that is free."
        ) from error


sandbox.add_command(_sizes(serve))
