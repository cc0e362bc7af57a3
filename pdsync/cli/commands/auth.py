"""The commands auth login, auth status and auth logout.

A secret is never taken from argv, which every user of the machine can read: it comes from a hidden prompt, from stdin
(`--token -`) or from the environment. It is stored only after Pipedrive has confirmed who owns it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import webbrowser
from functools import partial
from typing import TYPE_CHECKING

import click
import msgspec

from pdsync.cli.account import ask_account, check_company
from pdsync.cli.app import App, Group
from pdsync.core import auth
from pdsync.core.credentials import ApiToken
from pdsync.core.log import clean, hide
from pdsync.core.oauth import OAuth
from pdsync.core.oauth_app import REDIRECT_URI, find_app
from pdsync.core.oauth_login import OAuthLogin, listening_address
from pdsync.core.secret_store import Grant, StoredToken, Vault
from pdsync.errors import AuthError

if TYPE_CHECKING:
    from pdsync.core.account import Account
    from pdsync.core.config import Settings
    from pdsync.core.oauth_app import OAuthApp
    from pdsync.core.secret_store import SecretLocation


@click.group(cls=Group, name="auth")
def auth_command() -> None:
    """Log in, show who is logged in, log out."""


def _only_dash(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value not in (None, "-"):
        hide(value)
        raise click.UsageError(
            f"{option.opts[0]} accepts only '-', which reads stdin. Every user of this machine can see the arguments\n"
            "of a command, and the shell records them: the secret was not used. Renew it in Pipedrive."
        )
    return value


@auth_command.command()
@click.option("--token", callback=_only_dash, metavar="-", help="Read the API token from stdin.")
@click.option("--oauth", "by_oauth", is_flag=True, help="Log in with an OAuth app of yours, in a browser.")
@click.option("--client-id", help="The OAuth app's client ID (or PDSYNC_CLIENT_ID).")
@click.option("--client-secret", callback=_only_dash, metavar="-", help="Read its client secret from stdin.")
@click.option("--authorize-url", metavar="URL", help="Where access is allowed; its redirect_uri, if any, is used.")
@click.option("--token-url", metavar="URL", help="Where codes and refresh tokens are traded for tokens.")
@click.option("--redirect-uri", metavar="URL", help=f"As registered with the app.  [default: {REDIRECT_URI}]")
@click.option("--scopes", help="Scopes that the app must be given, in one argument, divided by blanks.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port here to which a tunnel forwards the redirect URI.")
@click.option(
    "--paste", is_flag=True, help="Read the address that the browser is sent to, instead of listening for it."
)
@click.option("--marketplace", is_flag=True, help="Take the code of an installation from the Marketplace (no state).")
@click.option("--no-browser", is_flag=True, help="Only print the address to open.")
@click.pass_obj
def login(
    app: App,
    /,
    *,
    token: str | None,
    by_oauth: bool,
    client_secret: str | None,
    port: int | None,
    paste: bool,
    marketplace: bool,
    no_browser: bool,
    **oauth_settings: str | None,
) -> None:
    """Store an API token, or with --oauth a grant that renews itself.

    Asks for the secret without showing it, and stores it in the system's keyring, or in a file that only you can read
    if there is none. The client secret may also be in PDSYNC_CLIENT_SECRET. A further login with the same app needs
    only --oauth.
    """
    if not by_oauth:
        options = {**oauth_settings, "client_secret": client_secret, "port": port}
        options |= {"paste": paste or None, "marketplace": marketplace or None}
        if stray := next((name for name, value in options.items() if value is not None), None):
            raise click.UsageError(f"--{stray.replace('_', '-')} goes with --oauth.")
        secret: str | Grant = auth.check_token(_secret(app, token, "API token", "--token -"), "as given")
    else:
        if token:
            raise click.UsageError("--token is for an API token, --oauth for an OAuth app. Give one of them.")
        if paste and port:
            raise click.UsageError("--port listens, --paste does not. Give one of them.")
        app.flags.update({f"oauth.{name}": value for name, value in oauth_settings.items()})
        oauth_app = _find_app(app, client_secret, listens=not paste, port=port)
        oauth_login = OAuthLogin(oauth_app, app.settings.base_url, allow_missing_state=marketplace)
        browser = not (no_browser or paste or marketplace)
        show = partial(_show, app, oauth_login.url, browser=browser, paste=paste, marketplace=marketplace)
        if paste:
            show()
            code = oauth_login.read_code(_read_address(app))
        else:
            code = asyncio.run(oauth_login.wait_for_code(on_ready=show, port=port))
        secret = asyncio.run(oauth_login.exchange(code))
        if marketplace:
            _confirm_company(app, secret)
    account = log_in(app, app.settings, secret)
    app.note(describe_account(account))
    if os.environ.get(auth.ENVIRONMENT):
        app.note(f"{auth.ENVIRONMENT} is set, and wins over the stored secret.")
    if app.json:
        app.emit(summary(**account_facts(account)))


def _find_app(app: App, client_secret: str | None, *, listens: bool, port: int | None) -> OAuthApp:
    """The app to log in with: its secret from stdin, the environment, an earlier login, or a prompt."""
    stored = Vault(app.settings).find()
    found = find_app(app.settings, stored.secret if stored and isinstance(stored.secret, Grant) else None)
    if listens:
        listening_address(found.redirect_uri, port)  # refused before a person is asked for a secret
    secret = os.environ.get("PDSYNC_CLIENT_SECRET") if client_secret is None else None
    if not secret and (client_secret or not found.client_secret):
        secret = _secret(app, client_secret, "Client secret", "--client-secret -")
    if not secret:
        app.note("The client secret is that of the last login with this app.")
        return found
    return msgspec.structs.replace(found, client_secret=auth.check_client_secret(secret))


def _read_address(app: App) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline()
    if app.no_input:
        raise click.UsageError("Give the address that the browser is sent to on stdin: --paste < FILE")
    return ask_secret("The address that the browser was sent to (not shown)")


def _confirm_company(app: App, grant: Grant) -> None:
    """Let a person check whose data this is: a code without a state may come from another site's page."""
    company = clean(f"{grant.company_name or 'company'} ({grant.company_id})")
    if not may_ask(app):
        app.note(f"The installation from the Marketplace is of {company}.")
    elif not click.confirm(f"The installation is of {company}. Is that your company?", err=True):
        raise AuthError("Nothing was stored. Uninstall the app in the company that is not yours, and log in again.")


@auth_command.command(short_help="Show where the token comes from, and who owns it.")
@click.pass_obj
def status(app: App) -> None:
    """Show where the token comes from, who owns it, and whether it sees everything: one request, 2 tokens."""
    settings = app.settings
    credentials = auth.credentials(settings)
    account = asyncio.run(ask_account(settings, credentials))
    found = auth.find_secret(settings)
    location = found.location if found else "environment"
    kind = "api_token" if isinstance(credentials, ApiToken) else "oauth"
    if app.json:
        app.emit({"name": settings.base_url, "kind": kind, "source": location, **account_facts(account)})
        return
    where = {
        "environment": f"the environment ({auth.ENVIRONMENT})",
        "keyring": "the system's keyring",
        "file": f"{Vault(settings).path}, which only you can read",
    }
    app.result(clean(describe_account(account)))
    app.result(f"The {'API token' if kind == 'api_token' else 'OAuth grant'} comes from {where[location]}.")
    if found and isinstance(found.secret, Grant):
        scopes = f", with the scopes {', '.join(found.secret.granted_scopes)}" if found.secret.granted_scopes else ""
        app.result(clean(f"It was given to the app {found.secret.client_id}{scopes}."))


@auth_command.command()
@click.pass_obj
def logout(app: App) -> None:
    """Delete the stored token of this project.

    It stays valid in Pipedrive: renew an API token there, uninstall an OAuth app.
    """
    settings = app.settings
    places = auth.forget(settings)
    app.note(f"Deleted from: {' and '.join(places)}." if places else "Nothing was stored.")
    if os.environ.get(auth.ENVIRONMENT):
        app.note(f"{auth.ENVIRONMENT} is still set in this environment.")
    if app.json:
        app.emit(summary(forgotten=places))


def log_in(app: App, settings: Settings, secret: str | Grant) -> Account:
    """Ask Pipedrive who owns `secret`, and store it if it belongs to the company of this project.

    A grant has the id of its company, so it is stored before the request, and stays if that fails.

    Raises:
        WrongCompany: it belongs to another company. Nothing was stored.
        PdsyncError: as `ask_account`; an API token is not stored then.
    """
    if isinstance(secret, Grant):
        check_company(settings, secret.company_id, secret.company_name)
        location = auth.store(settings, secret)
        account = asyncio.run(ask_account(settings, OAuth(Vault(settings), secret, location)))
    else:
        account = asyncio.run(ask_account(settings, ApiToken(secret)))
        check_company(settings, account.company_id, account.company_name)
        location = auth.store(settings, StoredToken(secret, saved_at=time.time()))
    _show_location(app, Vault(settings), location)
    return account


def _show_location(app: App, vault: Vault, location: SecretLocation) -> None:
    if location == "file":
        app.note(
            f"Warning: there is no system keyring here. The token is in {vault.path}, not encrypted;\n"
            f"only you can read it (mode 0600)."
        )
    else:
        app.note("The token is in the system's keyring.")


def account_facts(account: Account) -> dict[str, object]:
    """What commands with --json say of the owner of a token."""
    return {
        "user_id": account.id,
        "user": account.name,
        "company_id": account.company_id,
        "company": account.company_name,
        "company_domain": account.company_domain,
        "admin": account.is_admin,
    }


def summary(**facts: object) -> dict[str, object]:
    """The last object of a command with --json that went well."""
    return {"event": "summary", "complete": True, "exit_code": 0, **facts}


def describe_account(account: Account) -> str:
    """One line about the owner of a token, for people."""
    rights = "an admin" if account.is_admin else "not an admin: records hidden from this user will be missing"
    return f"{account.name} ({rights}), of {account.company_name or 'company'} ({account.company_id})."


def may_ask(app: App) -> bool:
    """Whether a person can be asked."""
    return not app.no_input and sys.stdin.isatty()


def _secret(app: App, dash: str | None, what: str, option: str) -> str:
    """Read a secret from stdin (`dash`), or prompt for it without showing it."""
    if dash and not sys.stdin.isatty():
        return sys.stdin.readline()
    if not may_ask(app):
        raise click.UsageError(f"There is no terminal to ask for the {what.lower()}. Give it on stdin: {option} < FILE")
    return ask_secret(what)


def ask_secret(what: str) -> str:
    """Prompt for a secret without showing it."""
    secret: str = click.prompt(what, default="", show_default=False, hide_input=True, err=True)
    hide(secret.strip())
    return secret.strip()


def _show(app: App, url: str, *, browser: bool, paste: bool, marketplace: bool) -> None:
    if app.json:
        app.emit({"event": "open", "url": url})
    start = "Install the app from its page in Pipedrive's Marketplace, or open" if marketplace else "Open"
    end = " Paste the address that the browser is then sent to; its page need not open." if paste else ""
    click.echo(f"{start} this address in a browser and allow access.{end}\n\n  {url}\n", err=True)
    if browser:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
