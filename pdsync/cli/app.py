"""Defines what all commands share: the global options, the settings, and where output goes.

Only the result goes to stdout; prose, progress and errors go to stderr. With --json, stdout has one
JSON object per line.
"""

from __future__ import annotations

import difflib
import os
import shlex
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
import msgspec
from click.core import ParameterSource

from pdsync.cli.plain_console import WIDTH, PlainConsole, is_plain
from pdsync.cli.text_width import wrap_prose
from pdsync.core import config
from pdsync.core.log import clean, clean_json, to_stderr
from pdsync.core.project_folder import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from pdsync.core.config import Settings


_ALIKE = 0.65  # from 0 to 1: how alike a word must be to be guessed


class App:
    """The options of one invocation, and where its output goes."""

    def __init__(self) -> None:
        self.project = Path()
        self.create = False
        self.json = False
        self.no_input = False
        self.verbosity = 0
        self.color = "auto"
        self.flags: dict[str, str | int | None] = {}
        self.notification: tuple[str, str, str] | None = None  # URL, pipeline, when: see `cli.webhook`

    @cached_property
    def settings(self) -> Settings:
        """The settings of the project, resolved on first use.

        Raises:
            ConfigError: a setting is malformed, or the folder that was named is missing, or is no project.
        """
        for name, guess in config.unknown_variables():
            self.note(f"{name} is not a setting of pdsync, and has no effect.{guess}")
        advice = (
            f"To make it a project: pdsync --project {shlex.quote(str(self.project))} init\n"
            f"Or run the same command with --create, which uses it without a pdsync.toml."
        )
        return load_settings(self.project, self.flags, create=self.create, advice=advice)

    @cached_property
    def err(self) -> Console:
        """stderr, for people; where it is no terminal, with only what `PlainConsole` has."""
        return self._console(stderr=True)

    @cached_property
    def out(self) -> Console:
        """stdout, for results that are shown as a table; where it is no terminal, with only what `PlainConsole` has."""
        return self._console(stderr=False)

    def _console(self, *, stderr: bool) -> Console:
        if self.color != "always" and is_plain(stderr=stderr):
            return cast("Console", PlainConsole(stderr=stderr))
        from rich.console import Console  # noqa: PLC0415 - not for --help

        forced = {"always": True, "never": False}.get(self.color)
        return Console(
            stderr=stderr,
            force_terminal=forced,
            no_color=forced is False or None,
            highlight=False,
            soft_wrap=True,
            width=None if (sys.stderr if stderr else sys.stdout).isatty() or forced else WIDTH,
            emoji=False,
            markup=False,
        )

    def note(self, text: str, style: str | None = None) -> None:
        """Write prose to stderr, on a terminal in lines that are broken at spaces; nothing with -q."""
        if self.verbosity >= 0:
            text = clean(text)
            if self.err.file.isatty():
                text = wrap_prose(text, self.err.width)
            self.err.print(text, style=style)

    def result(self, text: str, end: str = "\n") -> None:
        """Write the result to stdout: unchanged into a file or pipe, without control sequences on a terminal."""
        sys.stdout.write((clean(text.replace("\r\n", "\n")) if sys.stdout.isatty() else text) + end)
        sys.stdout.flush()

    def emit(self, facts: Mapping[str, Any]) -> None:
        """Write one JSON object to stdout."""
        sys.stdout.write(clean_json(msgspec.json.encode(facts, enc_hook=str).decode()) + "\n")
        sys.stdout.flush()

    def emit_list(self, facts: list[dict[str, Any]]) -> None:
        """Write one JSON array to stdout."""
        self.result(clean_json(msgspec.json.format(msgspec.json.encode(facts, enc_hook=str), indent=2).decode()))

    @property
    def project_option(self) -> str:
        """The option that names the project in a command to be typed; empty where the command finds it without."""
        if self.project.resolve() == Path(os.environ.get("PDSYNC_PROJECT", "")).resolve():
            return ""
        return f" --project {shlex.quote(str(self.project))}"

    @property
    def is_watched(self) -> bool:
        """Whether a person is watching, so that live progress makes sense."""
        return self.err.is_terminal and not self.json and self.verbosity >= 0


def _store_option(name: str) -> Any:
    def callback(context: click.Context, option: click.Parameter, value: Any) -> Any:
        app = context.ensure_object(App)
        if context.parent and context.get_parameter_source(str(option.name)) is ParameterSource.ENVIRONMENT:
            return value  # the root command has read it, and a flag given there wins
        if name == "verbose" and value:
            app.verbosity = value
        elif name == "quiet" and value:
            app.verbosity = -1
        elif name not in ("verbose", "quiet") and value not in (None, False):
            setattr(app, name, value)
        if name in ("verbose", "quiet") and value:
            to_stderr(app.verbosity, app.note)
        return value

    return callback


def _global_options() -> list[click.Option]:
    options = [
        (["--project"], {"type": click.Path(path_type=Path), "envvar": "PDSYNC_PROJECT", "metavar": "DIR"}, "project",
         "The project's folder, by default this one."),
        (["--create"], {"is_flag": True}, "create", "Use the folder of --project although it is no project yet."),
        (["--json"], {"is_flag": True}, "json", "Print JSON, one object a line."),
        (["-v", "--verbose"], {"count": True}, "verbose", "Show more; -vv shows every request."),
        (["-q", "--quiet"], {"is_flag": True}, "quiet", "Show only results and errors."),
        (["--no-input"], {"is_flag": True}, "no_input", "Never prompt."),
        (["--color"], {"type": click.Choice(["auto", "always", "never"])}, "color", "Colours and live progress."),
    ]  # fmt: skip
    return [
        click.Option(names, expose_value=False, callback=_store_option(target), help=text, **extra)  # type: ignore[arg-type]
        for names, extra, target, text in options
    ]


def _guess(near: list[str]) -> str:
    """The end of an error that names what was probably meant, or nothing; the words of click differ by release."""
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


class Command(click.Command):
    """A command that also takes the global options, so that they work before and after its name."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, then the global ones."""
        own = super().get_params(ctx)
        taken = {option for param in own for option in (*param.opts, *param.secondary_opts)}
        shared = [option for option in _global_options() if not taken & set(option.opts)]
        return [*own[:-1], *shared, *own[-1:]] if own and own[-1].name == "help" else [*own, *shared]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options; for an unknown one only those are guessed that look like it."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            near = difflib.get_close_matches(error.option_name, error.possibilities or (), cutoff=_ALIKE)
            ctx.fail(f"No such option {error.option_name!r}.{_guess(near)}")


class Group(click.Group):
    """A group of commands that take the global options."""

    command_class = Command
    group_class = type

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The global options."""
        return [*_global_options(), *super().get_params(ctx)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is named first in `args`; for an unknown one, those that look like it are guessed."""
        near = difflib.get_close_matches(args[0], self.list_commands(ctx), cutoff=_ALIKE)
        if self.get_command(ctx, args[0]) is None and near:
            ctx.fail(f"No such command {args[0]!r}.{_guess(near)}")
        return super().resolve_command(ctx, args)
