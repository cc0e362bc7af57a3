"""The commands that set a project up: init, and doctor beside it."""

from __future__ import annotations

import asyncio
import json
import os
import re
from typing import TYPE_CHECKING

import click

from pdsync.cli.account import ask_account, check_company
from pdsync.cli.app import App, Command
from pdsync.cli.commands.auth import account_facts, ask_secret, describe_account, log_in, may_ask, summary
from pdsync.cli.commands.doctor import doctor
from pdsync.core import auth, config
from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from pdsync.core.account import Account
    from pdsync.core.config import Settings

__all__ = ["doctor", "init"]

_TOML = """\
# The settings of this pdsync project. All of them have defaults; a flag or a PDSYNC_* variable wins over this file.
# Never put a token here: `pdsync auth login` stores it where only you can read it.

[account]
{base_url}
# api = "v2"                 # "v1": use API v1 wherever it still answers

[limits]
# burst = 20                 # requests in any two seconds: Lite 20, Growth 40, Premium 100, Ultimate 120
# daily_tokens = 30000       # until Pipedrive's own headers say otherwise
# concurrency = 8            # the most requests in flight; without it, as many as the rate limit needs

[warehouse]
# path = "data/warehouse.duckdb"
"""


@click.command(cls=Command)
@click.option("--domain", help="The company's domain: acme, of acme.pipedrive.com.")
@click.pass_obj
def init(app: App, domain: str | None) -> None:
    """Make this folder a project: pdsync.toml, a data folder that only you can read, and a first check.

    Asks for the company's domain and an API token; with --no-input, the token comes from PDSYNC_API_TOKEN. Existing
    files are not changed, so it is safe to repeat.
    """
    settings = config.load(app.project, app.flags)
    file = settings.project / "pdsync.toml"
    if file.exists():
        app.note(f"{file} already exists and is not changed.")
        if domain:
            app.note("To use another company, change account.base_url in it.")
    else:
        base_url = _base_url(app, settings, domain)
        settings.project.mkdir(parents=True, exist_ok=True)
        try:
            with file.open("x", encoding="utf-8") as written:
                written.write(_TOML.format(base_url=base_url))
        except OSError:
            file.unlink(missing_ok=True)  # an incomplete file would be read as complete
            raise
        app.note(f"Wrote {file}.")
        settings = config.load(app.project, app.flags)
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    _keep_out_of_git(app, settings)

    found = auth.find_secret(settings)
    account: Account | None = None
    if found:
        account = asyncio.run(ask_account(settings, auth.credentials(settings)))
        check_company(settings, account.company_id, account.company_name)
    elif may_ask(app):
        app.note(f"\nYour API token: {_token_page(settings)}. Leave it empty to log in later.")
        token = ask_secret("API token")
        if token:
            account = log_in(app, settings, auth.check_token(token, "as typed"))
    if account:
        app.note(describe_account(account))
    else:
        app.note("No token yet. Store one: pdsync auth login (or set PDSYNC_API_TOKEN)")
    app.note("\nNext:  pdsync doctor   checks everything\n       pdsync sync     reads the company")
    if app.json:
        app.emit(
            summary(
                project=str(settings.project), base_url=settings.base_url, **(account_facts(account) if account else {})
            )
        )


def _base_url(app: App, settings: Settings, domain: str | None) -> str:
    """The line of pdsync.toml with the address of the company."""
    if domain is None and settings.origins["account.base_url"] == "default" and may_ask(app):
        prompt = "Company domain (acme, of acme.pipedrive.com; empty if you don't know it)"
        domain = click.prompt(prompt, default="", show_default=False, err=True).strip()
    if domain:
        name = domain.removeprefix("https://").split("/")[0].removesuffix(".pipedrive.com")
        if re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?", name):
            domain = f"https://{name.lower()}.pipedrive.com"
        return f"base_url = {json.dumps(config.check_base_url(domain, trusted=False))}"
    try:
        config.check_base_url(settings.base_url, trusted=False)
    except ConfigError:  # the file may not name such a host; the environment still does
        return '# base_url = "https://yourcompany.pipedrive.com"'
    line = f"base_url = {json.dumps(settings.base_url)}"
    return f"# {line}" if settings.origins["account.base_url"] == "default" else line


def _keep_out_of_git(app: App, settings: Settings) -> None:
    if not settings.state.is_relative_to(settings.project) or settings.state == settings.project:
        return
    name = settings.state.relative_to(settings.project).as_posix()
    ignore = settings.project / ".gitignore"
    try:
        handle = os.open(ignore, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        app.note(f"{ignore} can't be changed ({error.strerror}); add the line {name}/ to it.")
        return
    with os.fdopen(handle, "r+", encoding="utf-8", errors="surrogateescape") as file:
        content = file.read()
        if {line.strip().strip("/") for line in content.splitlines()} & {name, f"{name}/*", f"{name}/**"}:
            return
        file.write(("" if not content or content.endswith("\n") else "\n") + f"{name}/\n")
    app.note(f"Added {name}/ to {ignore}: that folder will contain the company's data.")


def _token_page(settings: Settings) -> str:
    host = settings.base_url if settings.origins["account.base_url"] != "default" else "https://app.pipedrive.com"
    return f"{host}/settings/api"
