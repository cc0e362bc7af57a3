"""Resolves each setting from flag, environment, pdsync.toml or default, in this order, and keeps its origin.

A project is a folder. It needs no pdsync.toml, and secrets are refused in one. The file of a cloned project is not
trusted with the token: a host that isn't Pipedrive's or this machine needs the flag or the environment.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import urlsplit

from msgspec import Struct

from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

Source = Literal["flag", "environment", "pdsync.toml", "default"]
_SECRETS = {"api_token", "token", "client_secret", "refresh_token", "password"}


_TOKEN = re.compile(r"[0-9a-fA-F]{32,}")  # Pipedrive's tokens have 40 hex digits
_HOST = re.compile(r"[\w.:\[\]-]+")  # with its port, if there is one
_SECRET = re.compile(rf"{_TOKEN.pattern}|token|secret|passw|://[^/]*@", re.IGNORECASE)


class OAuthSettings(Struct, frozen=True):
    """The settings of a login with an OAuth app, without its secret. An empty text is not set: see `core.oauth_app`."""

    client_id: str = ""
    authorize_url: str = ""
    token_url: str = ""
    redirect_uri: str = ""
    scopes: str = ""  # divided by blanks


class Settings(Struct, frozen=True):
    """Every setting of a project, resolved. Paths are absolute; a `burst` or `daily_tokens` of 0 means no limit."""

    project: Path
    base_url: str
    api: Literal["v1", "v2"]
    warehouse: Path
    raw: Path
    burst: int
    daily_tokens: int
    concurrency: int
    overlap_s: int
    dependents_share: int  # percent of a day's tokens that streams with one request a parent may take in a run
    raw_days: int  # how long raw pages stay that no replay needs
    verify_cycle: int  # days within which every row is compared with the source again; 0: never automatically
    oauth: OAuthSettings
    timezone: str  # in which sales views cut days and months; empty: that of the token's user
    origins: dict[str, Source]

    @property
    def state(self) -> Path:
        """The folder of control.db, the work file and the lock."""
        return self.warehouse.parent

    @property
    def control(self) -> Path:
        """The SQLite file with the state that must survive anything."""
        return self.state / "control.db"

    @property
    def cycle_days(self) -> int:
        """The days after which a row counts as unverified; 7 where rows are never verified automatically."""
        return self.verify_cycle or 7

    @property
    def dependents_tokens(self) -> int | None:
        """The tokens that streams with a request a parent may take in a run; None: no limit."""
        return self.daily_tokens * self.dependents_share // 100 if self.daily_tokens else None


class _Setting(Struct, frozen=True):
    env: str
    default: str | int
    least: int = 0
    most: int | None = None  # times and days beyond it could not be calculated with


# The files of `Settings.state`, besides the warehouse.
STATE_FILES = (
    "control.db", "control.db-wal", "control.db-shm", "credentials.json", "credentials.lock", "pdsync.lock",
    "push.lock",
)  # fmt: skip
_DECADE_S = 10 * 366 * 86_400
_CENTURY_DAYS = 36_500
SETTINGS: dict[str, _Setting] = {
    "account.base_url": _Setting("PDSYNC_BASE_URL", "https://api.pipedrive.com"),
    "account.api": _Setting("PDSYNC_API", "v2"),
    "warehouse.path": _Setting("PDSYNC_WAREHOUSE", "data/warehouse.duckdb"),
    "raw.path": _Setting("PDSYNC_RAW", "data/raw"),
    "limits.burst": _Setting("PDSYNC_BURST", 20),
    "limits.daily_tokens": _Setting("PDSYNC_DAILY_TOKENS", 30_000),
    "limits.concurrency": _Setting("PDSYNC_CONCURRENCY", 8, least=1),
    "limits.dependents_share": _Setting("PDSYNC_DEPENDENTS_SHARE", 25),
    "sync.overlap_s": _Setting("PDSYNC_OVERLAP_S", 600, most=_DECADE_S),
    "sync.verify_cycle": _Setting("PDSYNC_VERIFY_CYCLE", 7, most=_CENTURY_DAYS),
    "retention.raw_days": _Setting("PDSYNC_RAW_DAYS", 30, most=_CENTURY_DAYS),
    "sales.timezone": _Setting("PDSYNC_TIMEZONE", ""),
    "oauth.client_id": _Setting("PDSYNC_CLIENT_ID", ""),
    "oauth.authorize_url": _Setting("PDSYNC_AUTHORIZE_URL", ""),
    "oauth.token_url": _Setting("PDSYNC_TOKEN_URL", ""),
    "oauth.redirect_uri": _Setting("PDSYNC_REDIRECT_URI", ""),
    "oauth.scopes": _Setting("PDSYNC_SCOPES", ""),
}
_OTHER_VARIABLES = (  # no settings; the last one is set by a fleet for its commands
    "PDSYNC_PROJECT", "PDSYNC_API_TOKEN", "PDSYNC_CLIENT_SECRET", "PDSYNC_NOTIFY_URL", "PDSYNC_JOURNAL_COPY",
)  # fmt: skip


def load(
    project: Path, flags: dict[str, str | int | None] | None = None, variables: Mapping[str, str] | None = None
) -> Settings:
    """Resolve the settings of the project in the folder `project`.

    Args:
        project: the folder; it need not exist yet, and nothing is created here.
        flags: settings given on the command line, by their dotted names; None means "not given".
        variables: the environment; None: this process's.

    Raises:
        ConfigError: a value is malformed, a key unknown, or a secret is in pdsync.toml. Nothing was called.
    """
    project = expand(project).absolute()
    variables = os.environ if variables is None else variables
    in_file = read_file(project / "pdsync.toml")
    values: dict[str, str | int] = {}
    origins: dict[str, Source] = {}
    for key, setting in SETTINGS.items():
        candidates: list[tuple[Source, Any]] = [
            ("flag", (flags or {}).get(key)),
            ("environment", variables.get(setting.env) or None),
            ("pdsync.toml", in_file.get(key)),
            ("default", setting.default),
        ]
        origin, value = next((origin, value) for origin, value in candidates if value is not None)
        values[key] = _typed(key, value, setting, origin)
        origins[key] = origin
    base_url = check_base_url(str(values["account.base_url"]), trusted=origins["account.base_url"] != "pdsync.toml")
    if values["account.api"] not in get_args(Literal["v1", "v2"]):
        raise ConfigError(f"account.api is {_shown(values['account.api'])} ({origins['account.api']}). It is v1 or v2.")
    return Settings(
        project=project,
        base_url=base_url,
        api="v1" if values["account.api"] == "v1" else "v2",
        warehouse=_path(project, "warehouse.path", values["warehouse.path"]),
        raw=_path(project, "raw.path", values["raw.path"]),
        burst=int(values["limits.burst"]),
        daily_tokens=int(values["limits.daily_tokens"]),
        concurrency=int(values["limits.concurrency"]),
        overlap_s=int(values["sync.overlap_s"]),
        dependents_share=int(values["limits.dependents_share"]),
        raw_days=int(values["retention.raw_days"]),
        verify_cycle=int(values["sync.verify_cycle"]),
        oauth=OAuthSettings(**{name: str(values[f"oauth.{name}"]) for name in OAuthSettings.__struct_fields__}),
        timezone=_timezone(str(values["sales.timezone"]), origins["sales.timezone"]),
        origins=origins,
    )


def may_be_project(settings: Settings) -> bool:
    """Whether the folder has what makes it a project, or nothing but hidden files, so that it may become one.

    A file of `STATE_FILES` is enough: a logout leaves the lock of the secrets, a login to a keyring nothing else.
    """
    folder = settings.project
    data = (settings.warehouse, settings.raw, *(settings.state / name for name in STATE_FILES))
    own = any(any(folder.glob(pattern)) for pattern in ("pdsync.*", "pipelines/*.toml", "views/*.sql"))
    if own or any(path.exists() for path in data):
        return True
    try:
        others = [path for path in folder.iterdir() if not (path.name.startswith(".") or path.name == "lost+found")]
        return not others or (others == [settings.state] and not any(settings.state.iterdir()))
    except OSError:  # it can't be listed: what needs it says why
        return True


def unknown_variables() -> list[tuple[str, str]]:
    """The PDSYNC_… variables of the environment that mean nothing: each with a guess, or an empty text."""
    names = {*(setting.env for setting in SETTINGS.values()), *_OTHER_VARIABLES}
    unknown = sorted(name for name in os.environ if name.startswith("PDSYNC_") and name not in names)
    near = {name: difflib.get_close_matches(name, names, n=1, cutoff=0.8) for name in unknown}
    return [(name, f" Did you mean {near[name][0]}?" if near[name] else "") for name in unknown]


def check_base_url(url: str, *, trusted: bool, file: str = "pdsync.toml") -> str:
    """Return `url` without its path, or raise the reason why no token may be sent there, without possible secrets.

    Only https reaches the network; http is for this machine. A file of the project (`trusted` is False; `file` is its
    name) can name Pipedrive's own hosts and loopback addresses only.
    """
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        host, _ = parts.hostname or "", parts.port  # reading the port validates it
    except ValueError:
        parts, host = urlsplit(""), ""
    local, shown = is_loopback(host), without_secrets(url)
    if not _is_host(host) or _TOKEN.search(host) or "@" in parts.netloc or "?" in url or "#" in url:
        raise ConfigError(
            f"account.base_url is {shown!r}. It is written like https://yourcompany.pipedrive.com, without a token:"
            f" pdsync auth login, or PDSYNC_API_TOKEN."
        )
    if parts.path.rstrip("/") not in ("", "/v1", "/api/v1", "/api/v2"):
        raise ConfigError(f"account.base_url is {shown!r}. It ends after the host; pdsync adds the path.")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise ConfigError(
            f"account.base_url is {shown!r}. The token would travel readable: use https:// (http:// is for this"
            f" machine)."
        )
    if not (trusted or local or host == "pipedrive.com" or host.endswith(".pipedrive.com")):
        how = f"PDSYNC_BASE_URL={shown}" if file == "pdsync.toml" else f'base_url = "env:NAME", and NAME={shown}'
        raise ConfigError(
            f"{file} sends the token to {host}, which is not Pipedrive.\n"
            f"If that is intended, set it outside of the project: {how}"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _is_host(host: str) -> bool:
    """Whether `host` is an address or a name that can be looked up."""
    try:
        host.isascii() or host.encode("idna")
    except UnicodeError:
        return False
    return bool(_HOST.fullmatch(host)) and all(0 < len(label) < 64 for label in host.removesuffix(".").split("."))


def without_secrets(url: str) -> str:
    """The scheme and the host of an address. All else may contain a token: what is before an @, path, query."""
    found = re.match(r"(?:([a-zA-Z][a-zA-Z0-9+.-]*):/*)?([^/?#]*)(.*)", url, re.DOTALL)
    scheme, authority, rest = (each or "" for each in found.groups()) if found else ("", "", "")
    user, at, host = authority.rpartition("@")
    host = "…" if _TOKEN.search(host) or not _HOST.fullmatch(host) else host
    return f"{f'{scheme}://' if scheme else ''}{'…' if user else ''}{at}{host}{'/…' if rest.strip('/') else rest}"


def expand(path: Path) -> Path:
    """`path` with the home folder instead of a leading ~.

    Raises:
        ConfigError: this user has no home folder.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{path} begins in a home folder, and this user has none. Set HOME, or write it out."
        ) from error


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_file(path: Path) -> dict[str, Any]:
    """The settings in the pdsync.toml at `path`, by their dotted names; none where there is no file.

    Raises:
        ConfigError: it can't be understood, or has an unknown key or a secret.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")  # some editors write a byte order mark
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}") from error
    import tomllib  # noqa: PLC0415 - not for --help

    try:
        tables = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.\nMend that line, or start again: pdsync init") from error
    flat: dict[str, Any] = {}
    for table, entries in tables.items():
        if not isinstance(entries, dict):
            raise ConfigError(f"{path}: {table!r} is outside a [table].{_near(table, SETTINGS)}")
        for key, value in entries.items():
            dotted = f"{table}.{key}"
            if key in _SECRETS:
                raise ConfigError(
                    f"{path}: {dotted} is a secret, and this file may be shared.\n"
                    f"Remove the line, then: pdsync auth login (or set PDSYNC_API_TOKEN)"
                )
            if dotted not in SETTINGS:
                raise ConfigError(f"{path}: unknown setting {dotted!r}.{_near(dotted, SETTINGS)}")
            flat[dotted] = value
    return flat


def _near(word: str, names: dict[str, Any]) -> str:
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else f" The settings are: {', '.join(names)}."


def _typed(key: str, value: object, setting: _Setting, origin: Source) -> str | int:
    where = setting.env if origin == "environment" else origin
    if isinstance(setting.default, int):
        try:
            number = int(str(value).replace("_", ""))
        except ValueError:
            number = -1
        most = number if setting.most is None else setting.most
        if isinstance(value, bool) or not setting.least <= number <= most:
            end = "on" if setting.most is None else f"to {setting.most:,}"
            raise ConfigError(f"{key} is {_shown(value)} ({where}). It is a whole number from {setting.least} {end}.")
        return number
    if not isinstance(value, str):
        raise ConfigError(f"{key} is {_shown(value)} ({where}). It is a text: put it in quotes.")
    return value


def _timezone(name: str, origin: Source) -> str:
    """A time zone by its name; empty stays empty."""
    import zoneinfo  # noqa: PLC0415 - not for --help

    if name and name not in zoneinfo.available_timezones():
        near = difflib.get_close_matches(name, zoneinfo.available_timezones(), n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"sales.timezone is {_shown(name)} ({origin}). It is a name like 'Europe/Berlin'.{guess}")
    return name


def _shown(value: object) -> str:
    """A value for an error message; not shown where it looks like a secret."""
    return "[not shown]" if _SECRET.search(str(value)) else repr(value)


def _path(project: Path, key: str, value: str | int) -> Path:
    if "\0" in str(value):
        raise ConfigError(f"{key} is {_shown(value)}. No path has a NUL character.")
    return (project / expand(Path(str(value)))).absolute()
