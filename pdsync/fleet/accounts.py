"""Reads fleet.toml: which accounts there are, where each has its folder, and where its token is found.

An account is a folder that is a project like any other, plus the settings that fleet.toml has for it. The file has no
secret, only a reference to one, and the reference is what travels to a worker: `environment` resolves it in the process
that starts the account's command. Like pdsync.toml the file may come from elsewhere, so it can send a token to
Pipedrive and to this machine only.

    [fleet]
    folder = "accounts"

    [defaults]
    base_url = "https://{name}.pipedrive.com"
    token = "file:secrets/{name}"

    [accounts.acme]
    tags = ["emea"]
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from msgspec import Struct

from pdsync.core import catalogue, config
from pdsync.core.auth import ENVIRONMENT, check_token
from pdsync.core.secret_store import read_private
from pdsync.errors import AuthError, CatalogueError, ConfigError
from pdsync.fleet.pointer import RESERVED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pdsync.core.config import Settings

FILE = "fleet.toml"
KEYRING = "keyring"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOOKS_SECRET = re.compile(r"[0-9a-fA-F]{32,}")
_SECRETS = {"api_token", "secret", "password", "client_secret", "refresh_token", "access_token", "key"}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_HOW = 'token = "keyring", "env:NAME" or "file:PATH"'

# Variables that name one account. A command that runs many must not pass its own on to them.
_OF_ONE_ACCOUNT = (
    "PDSYNC_PROJECT", "PDSYNC_BASE_URL", ENVIRONMENT, "PDSYNC_CLIENT_ID", "PDSYNC_CLIENT_SECRET",
    "PDSYNC_WAREHOUSE", "PDSYNC_RAW",
)  # fmt: skip


class Account(Struct, frozen=True):
    """One account of a fleet, resolved. It has no secret, so it can be logged and sent."""

    name: str
    folder: Path  # absolute: the account's project
    base_url: str = ""  # empty: pdsync.toml of the folder, or api.pipedrive.com
    token: str = KEYRING  # a reference: keyring (what the folder's own login stored), env:NAME, file:/PATH
    pipeline: str = ""  # empty: nightly
    tags: tuple[str, ...] = ()
    burst: int | None = None  # None: pdsync.toml of the folder, or the default
    daily_tokens: int | None = None
    concurrency: int | None = None
    timezone: str = ""


class Fleet(Struct, frozen=True):
    """The accounts of a fleet.toml, in its order, and how they run."""

    file: Path
    folder: Path  # of the account folders; absolute
    accounts: dict[str, Account]
    processes: int = 0  # accounts under way at once; 0: by the number of cores
    store: str = ""  # URL of an object store or folder that has what every account stores; empty: no store
    endpoint: str = ""  # of a store that is not the vendor's own
    region: str = ""
    rollup: tuple[str, ...] = ()  # tables that are brought together from all accounts
    timeout_s: float = 6 * 3600.0  # an account that runs longer is ended, and goes on in the next run

    @property
    def data(self) -> Path:
        """The folder of what belongs to no single account: receipts of fleet runs, the roll-up."""
        return self.file.parent / "data" / "fleet"

    def select(self, names: Iterable[str] = (), tags: Iterable[str] = ()) -> list[Account]:
        """The accounts called `names` (none: all) that have one of `tags` (none: any), in the file's order.

        Raises:
            ConfigError: there is no such account, no account has such a tag, or none of the accounts has one of them:
                a run of no account would be complete.
        """
        names, tags = set(names), set(tags)
        for name in sorted(names - self.accounts.keys()):
            raise ConfigError(f"{self.file} has no account {name!r}.{_guess(name, self.accounts)} Nothing was called.")
        existing = {tag for account in self.accounts.values() for tag in account.tags}
        for tag in sorted(tags - existing):
            raise ConfigError(
                f"{self.file}: no account has the tag {tag!r}.{_guess(tag, existing)} Nothing was called."
            )
        selected = [
            account
            for account in self.accounts.values()
            if (not names or account.name in names) and (not tags or tags & set(account.tags))
        ]
        if not selected:
            listed, tagged = " or ".join(sorted(names)), " or ".join(sorted(tags))
            raise ConfigError(
                f"{self.file}: no account is called {listed} and has the tag {tagged}. Nothing was called."
            )
        return selected


class _FleetTable(Struct, frozen=True, forbid_unknown_fields=True):
    folder: str = "accounts"
    processes: int = 0
    store: str = ""
    endpoint: str = ""
    region: str = ""
    rollup: tuple[str, ...] = ()
    timeout: str | int = "6h"


class _Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """What [defaults] and [accounts.NAME] can say."""

    base_url: str = ""
    token: str = KEYRING
    pipeline: str = ""
    tags: tuple[str, ...] = ()
    burst: int | None = None
    daily_tokens: int | None = None
    concurrency: int | None = None
    timezone: str = ""
    folder: str = ""


def load(project: Path, file: Path | None = None) -> Fleet:
    """Read the fleet of the folder `project`: its fleet.toml, or `file`.

    Raises:
        ConfigError: there is no such file, or it can't be understood: names the file, the account, the key, and what
            to do. Nothing was called, and no secret was read.
    """
    path = config.expand(file or project / FILE).absolute()
    tables = _read(path)
    for table in tables.keys() - {"fleet", "defaults", "accounts"}:
        names = ("fleet", "defaults", "accounts")
        raise ConfigError(f"{path}: unknown table [{table}].{_guess(table, names)} The tables are [fleet], [defaults]"
                          f" and one [accounts.NAME] for each account.")  # fmt: skip
    settings = _convert(tables.get("fleet", {}), _FleetTable, f"{path}, [fleet]")
    defaults = _entry_table(tables.get("defaults", {}), f"{path}, [defaults]")
    if "folder" in defaults:
        raise ConfigError(f"{path}, [defaults]: `folder` is of one account; the folder of all is set in [fleet].")
    _convert(defaults, _Entry, f"{path}, [defaults]")
    entries = tables.get("accounts", {})
    if not isinstance(entries, dict) or not entries:
        raise ConfigError(f"{path} has no account. Add one: [accounts.NAME] with base_url and {_HOW}.")
    root = path.parent / config.expand(Path(settings.folder))
    accounts = {name: _account(path, root, name, entry, defaults) for name, entry in entries.items()}
    _check_folders(path, accounts)
    if settings.processes < 0:
        raise ConfigError(f"{path}, [fleet]: processes is {settings.processes}. It is a whole number from 1 on.")
    for table in settings.rollup:
        try:
            catalogue.stream(table)
        except CatalogueError as error:
            raise ConfigError(f"{path}, [fleet]: rollup: {error}") from error
    return Fleet(
        file=path,
        folder=root,
        accounts=accounts,
        processes=settings.processes,
        store=_store(settings.store.rstrip("/"), path.parent),
        endpoint=_endpoint(settings, path),
        region=settings.region,
        rollup=settings.rollup,
        timeout_s=_seconds(settings.timeout, path),
    )


def is_name(name: str) -> bool:
    """Whether an account can be called so."""
    return _NAME.fullmatch(name) is not None and name.lower() not in RESERVED


def resolve_token(account: Account) -> str | None:
    """The token that the account's reference leads to, hidden from all output; None: the folder's own login.

    Raises:
        AuthError: the variable or the file is missing or empty, or others may read the file.
    """
    kind, _, rest = account.token.partition(":")
    if account.token == KEYRING:
        return None
    if kind == "env":
        text = os.environ.get(rest, "")
        if not text.strip():
            raise AuthError(f"Account {account.name}: the variable {rest}, which has its token, is not set here.")
    else:
        content = read_private(Path(rest))
        if content is None:
            raise AuthError(f"Account {account.name}: {rest}, which has its token, does not exist on this machine.")
        text = content.decode("utf-8", "replace")
    return check_token(text, f"{account.name}, {account.token}")


def environment(account: Account, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command of this account: `base` (this process's), its settings, and its token.

    Raises:
        AuthError: as `resolve_token`.
    """
    result = _variables(account, os.environ if base is None else base)
    if token := resolve_token(account):
        result[ENVIRONMENT] = token
    return result


def settings_of(account: Account) -> Settings:
    """The settings of the account's project, as its commands have them; no secret is read.

    Raises:
        ConfigError: one is malformed, in pdsync.toml of its folder or in fleet.toml.
    """
    return config.load(account.folder, variables=_variables(account, os.environ))


def _variables(account: Account, inherited: Mapping[str, str]) -> dict[str, str]:
    result = {name: value for name, value in inherited.items() if name not in _OF_ONE_ACCOUNT}
    settings: dict[str, str | int | None] = {
        "BASE_URL": account.base_url or None,
        "BURST": account.burst,
        "DAILY_TOKENS": account.daily_tokens,
        "CONCURRENCY": account.concurrency,
        "TIMEZONE": account.timezone or None,
    }
    return result | {f"PDSYNC_{name}": str(value) for name, value in settings.items() if value is not None}


# Reading.


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(
            f"There is no {path}. Nothing was called.\n"
            f"It has a table for each account: [accounts.NAME] with base_url and {_HOW}."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}. An account or a key may be there twice.") from error


def _entry_table(entry: object, where: str) -> dict[str, Any]:
    """A table as it is; one with a key that looks like a secret is refused."""
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} is not a table. It is written as [accounts.NAME] with its keys below.")
    for key in entry.keys() & _SECRETS:
        raise ConfigError(f"{where}: `{key}` looks like a secret, and this file may be shared. Refer to it: {_HOW}.")
    return entry


def _convert(entry: object, kind: type[Any], where: str) -> Any:
    try:
        return catalogue.read(entry, kind, where)
    except CatalogueError as error:
        keys = ", ".join(kind.__struct_fields__)
        raise ConfigError(f"{error}\nThe keys are: {keys}.") from error


def _account(path: Path, root: Path, name: str, entry: object, defaults: dict[str, Any]) -> Account:
    where = f"{path}, [accounts.{name}]"
    if not is_name(name):
        raise ConfigError(
            f"{path}: the name {name!r} is of no account. It has up to 64 letters, digits, - and _,"
            f" begins with a letter or digit, and is not {' or '.join(sorted(RESERVED))}."
        )
    own = _entry_table(entry, where)
    values: _Entry = _convert({**defaults, **own}, _Entry, where)
    for key in ("burst", "daily_tokens", "concurrency"):
        number = getattr(values, key)
        if number is not None and number < (key == "concurrency"):
            raise ConfigError(f"{where}: {key} is {number}. It is a whole number from {int(key == 'concurrency')} on.")
    return Account(
        name=name,
        folder=(path.parent / config.expand(Path(values.folder)) if values.folder else root / name).absolute(),
        base_url=_base_url(_fill(values.base_url, name), where),
        token=_reference(_fill(values.token, name), path.parent, where),
        pipeline=values.pipeline,
        tags=values.tags,
        burst=values.burst,
        daily_tokens=values.daily_tokens,
        concurrency=values.concurrency,
        timezone=values.timezone,
    )


def _fill(text: str, name: str) -> str:
    """`text` with the account's name for {name}, and as it would be in a variable for {NAME}."""
    return text.replace("{name}", name).replace("{NAME}", name.upper().replace("-", "_"))


def _base_url(url: str, where: str) -> str:
    """The address of the account. One outside of Pipedrive and this machine is read from a variable: env:NAME."""
    kind, _, variable = url.partition(":")
    if not url:
        return url
    try:
        if kind != "env":
            return config.check_base_url(url, trusted=False, file=FILE)
        if not (value := os.environ.get(variable, "")):
            raise ConfigError(f"the variable {variable}, which has base_url, is not set.")
        return config.check_base_url(value, trusted=True)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _reference(token: str, folder: Path, where: str) -> str:
    """`token`, a reference, with the absolute path of a file."""
    kind, _, rest = token.partition(":")
    if token == KEYRING:
        return token
    if kind == "env" and _VARIABLE.fullmatch(rest) and not _LOOKS_SECRET.search(rest):
        return token
    if kind == "file" and rest and not _LOOKS_SECRET.fullmatch(rest):
        return f"file:{(folder / config.expand(Path(rest))).absolute()}"
    raise ConfigError(
        f"{where}: `token` is not a reference; its value is not shown. A secret may not be in this file.\n"
        f"Refer to it: {_HOW}. If a token was there, renew it in Pipedrive."
    )


def _check_folders(path: Path, accounts: Mapping[str, Account]) -> None:
    """Refuse two accounts in one folder, or one in another's, also where only the case of letters differs."""
    owners: dict[str, str] = {}
    for account in accounts.values():
        address = os.path.realpath(account.folder).casefold()
        if address in owners:
            raise ConfigError(
                f"{path}: the accounts {owners[address]} and {account.name} have the same folder, {account.folder}.\n"
                f"Give one of them another name, or a `folder` of its own."
            )
        owners[address] = account.name
    for address, name in owners.items():
        for parent in Path(address).parents:
            if (owner := owners.get(str(parent))) is not None:
                raise ConfigError(
                    f"{path}: the folder of account {name} is in that of account {owner}.\n"
                    f"Give one of them a `folder` outside of the other."
                )


def _store(url: str, folder: Path) -> str:
    """The URL of the store; that of a folder is its absolute path."""
    return url if not url or "://" in url else str((folder / config.expand(Path(url))).absolute())


def _endpoint(settings: _FleetTable, path: Path) -> str:
    """The endpoint of the store. Only requests of S3 are signed; others carry a credential, which a file may not send.

    Raises:
        ConfigError: it would send one to another machine.
    """
    is_signed = settings.store.startswith(("s3://", "s3a://"))
    if (
        "://" in settings.store
        and settings.endpoint
        and not is_signed
        and not config.is_loopback(urlsplit(settings.endpoint).hostname or "")
    ):
        name = "GOOGLE_BASE_URL" if settings.store.startswith("gs://") else "AZURE_STORAGE_ENDPOINT"
        raise ConfigError(
            f"{path}, [fleet]: `endpoint` of this store would get the credentials of this machine, and this file may"
            f" come from elsewhere.\nIf that is intended, set it outside of the file: {name}"
        )
    return settings.endpoint


def _seconds(timeout: str | int, path: Path) -> float:
    found = re.fullmatch(r"(\d+)\s*([smhd]?)", str(timeout))
    seconds = int(found[1]) * _UNITS[found[2] or "s"] if found else 0
    if seconds < 1:
        raise ConfigError(f'{path}, [fleet]: timeout is {timeout!r}. It is a time like "90s", "30m" or "6h".')
    return float(seconds)


def _guess(word: str, names: Iterable[str]) -> str:
    names = sorted(names)
    near = difflib.get_close_matches(word, names, n=1)
    if near:
        return f" Did you mean {near[0]!r}?"
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f" There are: {', '.join(names[:10])}{more}." if names else ""
