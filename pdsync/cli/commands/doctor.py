"""`pdsync doctor`: checks everything that a sync needs, and says how to fix each problem. Changes nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import ssl
import stat
import sys
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click
import duckdb
from msgspec import Struct, to_builtins

from pdsync.cli.account import ask_account
from pdsync.cli.app import App, Command
from pdsync.core import auth
from pdsync.core.disk import advice_for
from pdsync.core.log import clean
from pdsync.core.proxy import OWN_CA, certificate_message, proxy_for
from pdsync.core.secret_store import Grant, Vault
from pdsync.core.token_ledger import tokens_left
from pdsync.core.wording import counted
from pdsync.errors import ConfigError, PdsyncError
from pdsync.load import warehouse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.core.account import Account
    from pdsync.core.config import Settings
    from pdsync.core.secret_store import StoredSecret

FREE_BYTES = 1 << 30
SKEW_S = 120
_DUCKDB = (1, 5, 5)
_OWN_FOLDER = "Set warehouse.path to a file inside a folder."


class Check(Struct, frozen=True):
    """The result of one check. `fix` is None if there is nothing to do."""

    name: str
    ok: bool
    detail: str
    fix: str | None = None


@click.command(cls=Command)
@click.pass_obj
def doctor(app: App) -> None:
    """Check everything that a sync needs, and say how to fix each problem.

    Makes one request (2 tokens) and changes nothing. Exit code 0 if all checks pass, 1 if one fails, 2 if the settings
    can't be read.
    """
    code = 0
    for check in examine(app):
        if app.json:
            app.emit(to_builtins(check))
        else:
            app.result(clean(f"{'✓' if check.ok else '✗'} {check.name}: {check.detail}"))
            if check.fix:
                app.result(clean("    " + check.fix.replace("\n", "\n    ")))
        if not check.ok:
            code = 2 if check.name == "settings" else max(code, 1)
    if code:
        raise click.exceptions.Exit(code)


def examine(app: App) -> Iterator[Check]:
    """Every check; later ones rely on earlier ones."""
    yield _python()
    yield _duckdb()
    try:
        settings = app.settings
    except ConfigError as error:
        message, _, fix = str(error).partition("\n")
        yield Check("settings", False, message, fix or "Fix that setting, and run pdsync doctor again.")
        return
    file = settings.project / "pdsync.toml"
    origin = settings.origins["account.base_url"]
    yield Check("settings", True, f"{file if file.exists() else 'no pdsync.toml'}; {settings.base_url} ({origin})")
    yield _folder(settings)
    yield _disk(settings)
    control = _control(settings)
    yield control
    yield _warehouse(settings)
    yield _archive(settings, control)
    yield from _account(settings)


def _python() -> Check:
    return Check("python", True, ".".join(map(str, sys.version_info[:3])))  # pdsync can't be installed on an older one


def _duckdb() -> Check:
    found = duckdb.__version__
    numbers = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    if numbers < _DUCKDB:
        least = ".".join(map(str, _DUCKDB))
        return Check("duckdb", False, found, f'Install {least} or newer: pip install "duckdb>={least}"')
    return Check("duckdb", True, found)


def _folder(settings: Settings) -> Check:
    folder = settings.state
    try:
        facts = folder.stat()
    except FileNotFoundError:
        parent = _existing_parent(folder)
        if not os.access(parent, os.W_OK | os.X_OK):
            return Check(
                "folder", False, f"{folder} can't be created", f"Allow yourself to write there: chmod u+rwx {parent}"
            )
        return Check("folder", True, f"{folder} will be created by the first sync")
    except OSError as error:
        return Check("folder", False, f"{folder} can't be used: {error.strerror}", _OWN_FOLDER)
    wrong: tuple[str, str] | None = None
    if not stat.S_ISDIR(facts.st_mode):
        wrong = "is not a folder", _OWN_FOLDER
    elif facts.st_uid != os.geteuid():
        wrong = "belongs to another user", "Use a folder of your own: --project DIR"
    elif not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        wrong = "can't be written", f"chmod 700 {folder}"
    elif facts.st_mode & 0o077:
        wrong = f"is open to others (mode {stat.S_IMODE(facts.st_mode):04o})", f"chmod 700 {folder}"
    if wrong:
        return Check("folder", False, f"{folder} {wrong[0]}", wrong[1])
    return Check("folder", True, f"{folder}, readable by you only")


def _disk(settings: Settings) -> Check:
    free = shutil.disk_usage(_existing_parent(settings.state)).free
    # A finished run is published as a copy, while readers may still have the old file open.
    size = settings.warehouse.stat().st_size if settings.warehouse.exists() else 0
    needed = max(FREE_BYTES, 3 * size)
    detail = f"{free / 2**30:,.1f} GiB free"
    if free < needed:
        return Check("disk", False, detail, f"Free some space: a sync needs {needed / 2**30:,.1f} GiB.")
    return Check("disk", True, detail)


def _control(settings: Settings) -> Check:
    path = settings.control
    if not _has_state(path):
        if files := len(list(settings.raw.glob("*.zst"))):
            return Check(
                "control",
                False,
                f"{path} is lost: {settings.raw} has {counted(files, 'file')} of sealed pages",
                "The next run restores it from the raw archive and the warehouse: pdsync sync",
            )
        return Check("control", True, "no control.db yet: nothing has run")
    try:
        with closing(_read_only(path)) as db:
            report = [str(row[0]) for row in db.execute("PRAGMA integrity_check(5)").fetchall()]
            runs = db.execute("SELECT count(*) FROM runs").fetchone()[0] if report == ["ok"] else 0
    except sqlite3.OperationalError as error:  # not damaged: locked, or not readable
        full = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
        fix = advice_for(error) if full else f"chmod 600 {path}; chmod 700 {path.parent}"
        return Check("control", False, f"{path} can't be read: {error}", fix)
    except sqlite3.DatabaseError as error:
        report = [str(error)]
    if report != ["ok"]:
        return Check(
            "control",
            False,
            f"{path} is damaged: {report[0]}",
            f"Restore it from a backup of any day, or move it away (mv {path} {path}.damaged). The next run"
            f" restores it from the raw archive and the warehouse: pdsync sync",
        )
    return Check("control", True, f"control.db is intact; {counted(runs, 'run')}")


def _warehouse(settings: Settings) -> Check:
    path = settings.warehouse
    if not path.exists():
        return Check("warehouse", True, "none yet: pdsync sync creates it")
    try:
        warehouse.check_whole(path, read_only=True)
        with closing(warehouse.connect(path, read_only=True)) as db:
            found = db.execute(
                "SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'main' AND NOT internal"
            ).fetchone()
    except (PdsyncError, duckdb.Error) as error:
        fix = f"Move it away (mv {path} {path}.damaged), and rebuild it without a request: pdsync replay"
        return Check("warehouse", False, str(error).splitlines()[0], fix)
    return Check(
        "warehouse", True, f"{path.name}: {counted(found[0] if found else 0, 'table')}, {path.stat().st_size:,} bytes"
    )


def _archive(settings: Settings, control: Check) -> Check:
    if not control.ok:
        return Check("archive", False, "not checked: control.db is lost or damaged", control.fix)
    if not _has_state(settings.control):
        return Check("archive", True, "no sealed pages yet")
    with closing(_read_only(settings.control)) as db:
        sealed = db.execute("SELECT file, max(at + bytes) FROM pages GROUP BY file").fetchall()
    torn = [name for name, end in sealed if _size(settings.raw / name) < end]
    if torn:
        some = ", ".join(torn[:3]) + (", …" if len(torn) > 3 else "")
        fix = "Restore them from a backup, or read everything again: pdsync sync --full"
        return Check("archive", False, f"{len(torn)} of {len(sealed)} files are missing or truncated: {some}", fix)
    return Check(
        "archive",
        True,
        f"{counted(len(sealed), 'file')} of sealed pages" if sealed else "no sealed pages yet",
    )


def _account(settings: Settings) -> Iterator[Check]:
    """Checks of token and host; then those that need a request: account, company, rights, clock."""
    found: StoredSecret | None = None
    try:
        found = auth.find_secret(settings)
    except ConfigError as error:
        message, _, fix = str(error).partition("\n")
        yield Check("token", False, message, fix)
    else:
        yield _token(settings, found)
    host = asyncio.run(_host(settings))
    yield host
    account_checks = ("account", "company", "admin", "clock")
    who: Account | None = None
    if found is None or not host.ok:
        reason = "not checked: there is no usable token" if found is None else "not checked: the host can't be reached"
        yield from (Check(name, False, reason, "See above.") for name in account_checks)
    else:
        try:
            who = _ask(settings)
        except (PdsyncError, sqlite3.Error) as error:
            message, _, fix = str(error).partition("\n")
            yield Check("account", False, message, fix or "Fix that, and run pdsync doctor again.")
            yield from (
                Check(name, False, "not checked: there was no answer", "See above.") for name in account_checks[1:]
            )
    if who:
        yield Check("account", True, f"the token belongs to {who.name}, of {who.company_name} ({who.company_id})")
        yield _company(settings, who)
        yield _admin(who)
        yield _clock(who)
    yield _budget(settings)


def _token(settings: Settings, found: StoredSecret | None) -> Check:
    if found is None:
        return Check("token", False, f"none for {settings.base_url}", "pdsync auth login, or set PDSYNC_API_TOKEN")
    path = Vault(settings).path
    where = {"environment": auth.ENVIRONMENT, "keyring": "the system's keyring", "file": f"{path}, mode 0600"}
    if isinstance(found.secret, Grant):
        until = datetime.fromtimestamp(found.secret.expires_at, UTC)
        # No client can prevent that; the remedy is to log in again.
        detail = f"an OAuth grant, renewed before {until:%H:%M} UTC; a kill during the renewal would lose it"
        return Check("token", True, f"{where[found.location]}: {detail}")
    return Check("token", True, f"an API token, from {where[found.location]}")


async def _host(settings: Settings) -> Check:
    parts = urlsplit(settings.base_url)
    host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    context = ssl.create_default_context() if parts.scheme == "https" else None
    fix, route = "Check the network, the firewall and account.base_url.", ""
    try:
        if proxy := proxy_for(settings.base_url):  # the request for the account tests its tunnel
            host, port, context = proxy.host, proxy.port, None
            fix, route = "Check HTTPS_PROXY, or exempt the host: NO_PROXY", f", through the proxy {proxy.url}"
        async with asyncio.timeout(10):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
            writer.close()
    except ConfigError as error:
        message, _, fix = str(error).partition("\n")
        return Check("host", False, message, fix)
    except ssl.SSLCertVerificationError as error:
        return Check("host", False, certificate_message(settings.base_url, error), OWN_CA)
    except (OSError, TimeoutError) as error:
        detail = f"{settings.base_url}{route} can't be reached: {error or 'no answer within 10 s'}"
        return Check("host", False, detail, fix)
    own = os.environ.get("SSL_CERT_FILE") if parts.scheme == "https" else None
    trusts = f"; certificates are checked against {own} (SSL_CERT_FILE)" if own else ""
    return Check("host", True, f"{settings.base_url} answers{route}{trusts}")


def _ask(settings: Settings) -> Account:
    return asyncio.run(ask_account(settings, auth.credentials(settings)))


def _company(settings: Settings, who: Account) -> Check:
    try:
        company = _project_company(settings)
    except sqlite3.Error:
        return Check("company", False, "not checked: control.db can't be read", "See above.")
    if company is None:
        return Check("company", True, "the project has none yet")
    if company[0] != who.company_id:
        return Check(
            "company",
            False,
            f"the token is for company {who.company_id}, and this project belongs to {company[1]} ({company[0]})",
            f"Use a token of company {company[0]}, or another folder: pdsync --project DIR sync",
        )
    return Check("company", True, f"the project belongs to {company[1]} ({company[0]})")


def _admin(who: Account) -> Check:
    if not who.is_admin:
        return Check(
            "admin",
            False,
            f"{who.name} is not an admin of {' and '.join(who.limited_in)}: records hidden from this user"
            f" will be missing, as if they were deleted",
            "Use the token of an admin for a full copy: pdsync auth login",
        )
    return Check("admin", True, f"{who.name} is an admin, and sees everything")


def _clock(who: Account) -> Check:
    if who.served_at is None:
        return Check("clock", True, "the server's answer had no date")
    skew = (datetime.now(UTC) - who.served_at).total_seconds()
    if abs(skew) > SKEW_S:
        direction = "ahead of" if skew > 0 else "behind"
        fix = "Synchronize it over the network: timedatectl set-ntp true (macOS: sudo sntp -sS time.apple.com)"
        return Check("clock", False, f"this machine's clock is {abs(skew):,.0f} s {direction} the server's", fix)
    return Check("clock", True, f"within {max(abs(skew), 1):.0f} s of the server's")


def _budget(settings: Settings) -> Check:
    if not settings.daily_tokens:
        return Check("budget", True, "no daily limit is set")
    left: int | None = settings.daily_tokens
    limit = settings.daily_tokens
    if _has_state(settings.control):
        try:
            with closing(_read_only(settings.control)) as db:
                left, limit = tokens_left(db, settings.daily_tokens)
        except sqlite3.Error:
            return Check("budget", False, "not checked: control.db can't be read", "See above.")
    detail = f"about {left or 0:,} of {limit:,} tokens are left today"
    return Check("budget", bool(left), detail, None if left else "Wait for midnight UTC, or ask an admin for a top-up.")


def _project_company(settings: Settings) -> tuple[int, str] | None:
    if not _has_state(settings.control):
        return None
    with closing(_read_only(settings.control)) as db:
        found = db.execute("SELECT id, name FROM company").fetchone()
    return (int(found[0]), str(found[1])) if found else None


def _has_state(control: Path) -> bool:
    """Whether there is a control.db; an empty one, of a run that was killed as it began, is none."""
    return control.exists() and control.stat().st_size > 0


def _read_only(path: Path) -> sqlite3.Connection:
    # On a read-only disk SQLite can't create its files next to the database, and there is no other writer.
    immutable = "&immutable=1" if os.statvfs(path).f_flag & os.ST_RDONLY else ""
    return sqlite3.connect(f"{path.as_uri()}?mode=ro{immutable}", uri=True, timeout=10)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _existing_parent(path: Path) -> Path:
    """The nearest existing folder above `path`."""
    return path if path.exists() else next(parent for parent in path.parents if parent.exists())
