"""`pdsync fleet`: many accounts at once. Its commands are imported when they are called, like those of the root."""

from __future__ import annotations

from importlib import import_module

import click

from pdsync.cli.app import Group

# Each command's module in pdsync.cli.commands, in the order of --help.
_MODULES = {
    "check": "fleet_check",
    "plan": "fleet_plan",
    "sync": "fleet_run",
    "status": "fleet_status",
    "reconcile": "fleet_run",
    "export": "fleet_run",
    "run": "fleet_run",
    "sql": "fleet_answers",
    "report": "fleet_answers",
    "rollup": "fleet_answers",
    "remove": "fleet_answers",
}


class _Fleet(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        module = import_module(f"pdsync.cli.commands.{_MODULES[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command", None) or getattr(module, cmd_name)
        return command


@click.command(cls=_Fleet)
def fleet() -> None:
    """Run, watch and query all accounts of a fleet.toml.

    Each account is a project of its own, with its folder, limits and history; what the other commands promise for a
    project holds for each of them. An account that fails stops no other: it is tried again, reported, and goes on where
    it stopped with the next run.

    \b
    [defaults]                                    # fleet.toml
    base_url = "https://{name}.pipedrive.com"
    token = "file:secrets/{name}"                 # or "keyring", or "env:NAME"
    [accounts.acme]
    [accounts.beta]
    """
