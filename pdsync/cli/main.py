"""The root command. Commands are imported when they are called; errors become exit codes here, in one place."""

from __future__ import annotations

import io
import os
import sys
import traceback
from importlib import import_module
from typing import NamedTuple, TextIO

import click

from pdsync.cli.app import App, Group
from pdsync.cli.interruption import is_interrupted_query, sigterm_as_ctrl_c
from pdsync.core.disk import check_memory, storage_error
from pdsync.core.log import clean_error, to_stderr
from pdsync.errors import PdsyncError
from pdsync.version import __version__


class _Entry(NamedTuple):
    """A command as the root command lists it, without importing it."""

    module: str  # in pdsync.cli.commands
    does: str  # one line of at most 64 characters, which a terminal of 80 columns shows unbroken


# The groups and commands of --help, in its order.
_GROUPS = {
    "Start": {
        "demo": _Entry("demo", "Sync a made-up company into DuckDB, without an account."),
        "init": _Entry("setup", "Make this folder a project: settings, data folder, first token."),
        "auth": _Entry("auth", "Log in, show who is logged in, log out."),
        "doctor": _Entry("setup", "Check everything that a sync needs; a fix for each problem."),
    },
    "Every day": {
        "status": _Entry("status", "Show whether the data is right and fresh, and what to do next."),
        "sync": _Entry("sync", "Bring all streams, or those named, up to date."),
        "plan": _Entry("plan", "Show what a sync would cost: requests, tokens, minutes."),
        "schedule": _Entry("schedule", "Run a pipeline every hour, day or week."),
        "runs": _Entry("runs", "List the last runs, and show their receipts."),
        "reconcile": _Entry("reconcile", "Compare every record with Pipedrive, and repair differences."),
        "backfill": _Entry("backfill", "Read again what changed between two times."),
    },
    "Answers": {
        "sql": _Entry("sql", "Answer a query from the warehouse, read-only."),
        "shell": _Entry("sql", "Open a prompt for read-only SQL."),
        "report": _Entry("report", "Write one HTML page: health of the data, and sales."),
        "history": _Entry("history", "Show every change of a record."),
        "diff": _Entry("history", "Show what changed between two times."),
        "export": _Entry("export", "Write the tables as Parquet files for other programs."),
    },
    "Write back": {
        "queue": _Entry("queue", "Queue changes, list them, drop them; nothing is sent."),
        "push": _Entry("push", "Show the queued changes before → after, then send them."),
        "undo": _Entry("undo", "Queue the changes that reverse a push."),
        "action": _Entry("action", "Carry out one of the component's 149 actions."),
        "actions": _Entry("action", "List these actions, or those that match some words."),
        "api": _Entry("api", "Call any operation of the API, and print its answer."),
    },
    "Keep": {
        "raw": _Entry("archive", "Verify the archive of answers, and remove old ones."),
        "replay": _Entry("archive", "Rebuild tables from the archive, without a request."),
        "load": _Entry("sync", "Load saved list answers into a table, without a request."),
        "files": _Entry("files", "Download attachments, and upload files."),
        "forget": _Entry("archive", "Remove a person's data from tables, history and archive."),
    },
    "Many accounts": {
        "fleet": _Entry("fleet", "Run, watch and query all accounts of a fleet.toml."),
    },
    "Look inside": {
        "describe": _Entry("describe", "List the tables, or the columns of one: what each is, unit."),
        "streams": _Entry("streams", "List the streams: key, cursor, cost, how rows are verified."),
        "fields": _Entry("fields", "List the custom fields: label, column, type, options."),
        "operations": _Entry("operations", "List the operations of the API."),
        "sandbox": _Entry("sandbox", "Serve the local Pipedrive: its rules, costs and limits."),
    },
}
COMMANDS = {name: entry for group in _GROUPS.values() for name, entry in group.items()}


class _Root(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"pdsync.cli.commands.{COMMANDS[cmd_name].module}")
        command: click.Command = getattr(module, f"{cmd_name}_command", None) or getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what people want."""
        width = max(map(len, COMMANDS))
        for group, entries in _GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(name.ljust(width), entry.does) for name, entry in entries.items()])


@click.command(cls=_Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pdsync")
@click.pass_context
def root(context: click.Context) -> None:
    """A Pipedrive company in a database you control: complete, incremental, with history.

    \b
    Try it without an account:   pdsync demo
    With your own company:       pdsync init, pdsync sync, pdsync sql "from deals"
    """
    context.ensure_object(App)


def _open_closed_streams() -> None:
    """Give the process the streams that it was started without, as by `pdsync sync >&-`: they read and keep nothing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - open until the end


def main() -> None:
    """Run the command line; ends the process with the exit code of the contract."""
    os.umask(0o077)  # files of pdsync hold company data: readable by their owner only
    _open_closed_streams()
    app = App()
    to_stderr(app.verbosity, app.note)
    try:
        check_memory()
        with sigterm_as_ctrl_c():
            code = root.main(standalone_mode=False, obj=app)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.Abort as error:
        # Ctrl-C; for a question answered with "no" click sets no cause.
        code = _end_interrupted(app, error.__cause__) if error.__cause__ else 130
    except click.ClickException as error:
        error.show(shown := io.StringIO())
        _say(clean_error(shown.getvalue()), nl=False)
        _emit_error(app, error, 2, error.format_message())
        code = 2
    except PdsyncError as error:
        _say(f"{_red('Error:', app)} {clean_error(str(error))}")
        _emit_error(app, error, error.exit_code)
        code = error.exit_code
    except (KeyboardInterrupt, EOFError) as error:
        code = _end_interrupted(app, error)
    except BrokenPipeError:  # `pdsync … | head`: the reader closed the pipe
        _drop(sys.stdout)
        code = 0
    except Exception as error:
        if is_interrupted_query(error):
            sys.exit(_end_interrupted(app, error))
        if problem := storage_error(error):  # a problem of the machine: disk, permission, memory
            _say(f"{_red('Error:', app)} {clean_error(str(problem))}")
            _emit_error(app, problem, problem.exit_code)
            sys.exit(problem.exit_code)
        _say(clean_error(f"This is a bug in pdsync, not a mistake of yours: {type(error).__name__}: {error}"))
        detail = "".join(traceback.format_exception(error))
        _say(clean_error(detail) if app.verbosity > 0 else "Run the command again with -v for details.")
        _emit_error(app, error, 1)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _end_interrupted(app: App, error: BaseException) -> int:
    """Tell a person and a program that the command was interrupted; returns its exit code."""
    _say("Interrupted. All fetched data is kept; run the same command again to continue.")
    _emit_error(app, error, 130, "interrupted")
    return 130


def _emit_error(app: App, error: BaseException, code: int, message: str = "") -> None:
    if app.json:
        text, kind = clean_error(message or str(error)), type(error).__name__
        try:
            app.emit({"event": "error", "complete": False, "exit_code": code, "message": text, "error": kind})
        except OSError:  # the pipe is closed or the disk is full: the exit code is left
            _drop(sys.stdout)


def _say(text: str, *, nl: bool = True) -> None:
    """Write an error for people, if stderr takes it."""
    try:
        click.echo(text, err=True, nl=nl)
    except OSError:
        _drop(sys.stderr)


def _drop(stream: TextIO) -> None:
    """Have what `stream` could not write, and all that follows, written nowhere: it would fail again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _red(word: str, app: App) -> str:
    return click.style(word, fg="red", bold=True) if app.err.is_terminal else word
