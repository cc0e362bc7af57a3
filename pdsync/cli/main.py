"""The root command. Commands are imported when they are called; errors become exit codes here, in one place."""

from __future__ import annotations

import io
import os
import sys
import traceback
from importlib import import_module

import click

from pdsync.cli.app import App, Group
from pdsync.core.disk import check_memory, storage_error
from pdsync.core.log import clean_error, to_stderr
from pdsync.errors import PdsyncError
from pdsync.version import __version__

# Command → module, in the order of --help.
COMMANDS = {
    "demo": "demo",
    "init": "setup",
    "auth": "auth",
    "doctor": "setup",
    "plan": "sync",
    "sync": "sync",
    "backfill": "backfill",
    "schedule": "schedule",
    "load": "sync",
    "replay": "archive",
    "raw": "archive",
    "forget": "archive",
    "export": "export",
    "status": "inspect",
    "runs": "inspect",
    "reconcile": "reconcile",
    "sql": "sql",
    "shell": "sql",
    "history": "history",
    "diff": "history",
    "fields": "inspect",
    "streams": "inspect",
    "operations": "inspect",
    "queue": "queue",
    "push": "push",
    "undo": "push",
    "api": "api",
    "action": "action",
    "actions": "action",
    "files": "files",
    "sandbox": "sandbox",
}


class _Root(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"pdsync.cli.commands.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command", None) or getattr(module, cmd_name)
        return command


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


def main() -> None:
    """Run the command line; ends the process with the exit code of the contract."""
    os.umask(0o077)  # files of pdsync hold company data: readable by their owner only
    to_stderr(0)
    app = App()
    try:
        check_memory()
        code = root.main(standalone_mode=False, obj=app)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.Abort as error:
        if error.__cause__:  # Ctrl-C; for a question answered with "no" click sets no cause
            click.echo("Interrupted. All fetched data is kept; run the same command again to continue.", err=True)
            _emit_error(app, "interrupted", 130)
        code = 130
    except click.ClickException as error:
        error.show(shown := io.StringIO())
        click.echo(clean_error(shown.getvalue()), err=True, nl=False)
        _emit_error(app, error.format_message(), 2)
        code = 2
    except PdsyncError as error:
        click.echo(f"{_red('Error:', app)} {clean_error(str(error))}", err=True)
        _emit_error(app, str(error), error.exit_code)
        code = error.exit_code
    except (KeyboardInterrupt, EOFError):
        click.echo("Interrupted. All fetched data is kept; run the same command again to continue.", err=True)
        _emit_error(app, "interrupted", 130)
        code = 130
    except BrokenPipeError:  # `pdsync … | head`: the reader closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if problem := storage_error(error):  # a problem of the machine: disk, permission, memory
            click.echo(f"{_red('Error:', app)} {clean_error(str(problem))}", err=True)
            _emit_error(app, str(problem), problem.exit_code)
            sys.exit(problem.exit_code)
        click.echo(
            clean_error(f"This is a bug in pdsync, not a mistake of yours: {type(error).__name__}: {error}"), err=True
        )
        detail = "".join(traceback.format_exception(error))
        click.echo(clean_error(detail) if app.verbosity > 0 else "Run the command again with -v for details.", err=True)
        _emit_error(app, str(error), 1)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _emit_error(app: App, message: str, code: int) -> None:
    if app.json:
        app.emit({"event": "error", "complete": False, "exit_code": code, "message": clean_error(message)})


def _red(word: str, app: App) -> str:
    return click.style(word, fg="red", bold=True) if app.err.is_terminal else word
