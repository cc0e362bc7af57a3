"""`pdsync schedule`: runs a pipeline regularly, by the scheduler of the machine or of a platform."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, get_args

import click

from pdsync.cli.app import App, Command
from pdsync.errors import ConfigError
from pdsync.runner.pipelines import pipeline
from pdsync.runner.pipelines import schedule as scheduling

if TYPE_CHECKING:
    from pdsync.runner.pipelines.schedule import Interval


class _TimeOfDay(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    name = "HH:MM"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        found = re.fullmatch(r"(\d{1,2}):(\d{2})", str(value))
        if not found or int(found[1]) > 23 or int(found[2]) > 59:
            self.fail(f"{value!r} is not a time of day. Write it like 02:15.", param, ctx)
        return int(found[1]), int(found[2])


@click.command(cls=Command)
@click.argument("name", metavar="[PIPELINE]", required=False)
@click.option(
    "--as", "kind", type=click.Choice(scheduling.list_kinds()), help="[default: the scheduler of this machine]"
)
@click.option("--at", type=_TimeOfDay(), default="02:15", show_default=True, help="Local time; UTC for GitHub.")
@click.option("--every", type=click.Choice(get_args(scheduling.Interval)), help="[default: hour for hourly, else day]")
@click.option("--install", is_flag=True, help="Install it; systemd, cron and launchd only.")
@click.pass_obj
def schedule(
    app: App, name: str | None, kind: str | None, at: tuple[int, int], every: Interval | None, install: bool
) -> None:
    """Run PIPELINE (by default nightly) on a schedule: print the configuration that does, or --install it.

    \b
    pdsync schedule --as systemd --at 03:30
    pdsync schedule hourly --as cron --install
    pdsync schedule reconcile --every week --as github > .github/workflows/pdsync-reconcile.yml

    Nothing is installed without --install. No secret is written: the token comes from `pdsync auth login`, or from
    PDSYNC_API_TOKEN in the environment of the scheduler.
    """
    name = name or pipeline.DEFAULT
    selected = pipeline.load(name, app.project)
    kind = kind or scheduling.default_kind()
    every = every or ("hour" if name == "hourly" else "day")
    project = app.settings.project
    if not str(project).isprintable():
        raise ConfigError(
            f"A scheduler can't be given the folder {str(project)!r}: its name has unprintable characters."
        )
    job = scheduling.Job(name, project, every, *at, exit_3_is_success=selected.job == "backfill")
    if install and kind not in scheduling.INSTALLABLE_KINDS:
        raise ConfigError(f"{kind} can't be installed on this machine: print it, and install it there.")
    if install:
        for line in scheduling.install(kind, job):
            app.note(line)
        return
    _show(app, kind, job)


def _show(app: App, kind: str, job: scheduling.Job) -> None:
    rendered = scheduling.render_files(kind, job)
    if app.json:
        for path, text in rendered.items():
            app.emit({"name": str(path), "kind": kind, "content": text})
        return
    for path, text in rendered.items():
        if len(rendered) > 1:
            app.result(f"# {path}")
        app.result(text)
    if len(rendered) == 1:
        app.note(f"Save it as {next(iter(rendered))}." if kind != "cron" else "Add it with: crontab -e")
    if kind in scheduling.INSTALLABLE_KINDS:
        app.note("Install it with the same command and --install.")
