"""Decides what an OAuth app is: its id and secret, addresses and scopes, checked before anything is opened or sent.

Each value comes from an option, the environment or pdsync.toml (`core.config` finds the first of them), else from the
grant that an earlier login of the same app left, else from the API's documents. The secret never comes from
pdsync.toml, and a stored secret is only reused for the token URL it was stored with.

The authorize URL may carry a `redirect_uri` in its query, as some integration platforms write it; it is the redirect
URI then. What pdsync adds itself (client_id, state, …) is refused there.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.config import is_loopback
from pdsync.core.log import clean
from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from pdsync.core.config import Settings
    from pdsync.core.secret_store import Grant

REDIRECT_URI = "http://127.0.0.1:8723/callback"
_OWN_PARAMETERS = {"client_id", "response_type", "state", "scope"}
_HUB = "in Pipedrive's Developer Hub"


class OAuthApp(Struct, frozen=True, kw_only=True):
    """An app as the Developer Hub knows it, and where a login with it goes."""

    client_id: str
    client_secret: str = ""
    authorize_url: str
    token_url: str
    redirect_uri: str = REDIRECT_URI
    scopes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"OAuthApp({self.client_id})"


def find_app(settings: Settings, stored: Grant | None = None) -> OAuthApp:
    """The app to log in with. Its secret is empty unless `stored` has it for the same app and token URL.

    Args:
        stored: the grant of an earlier login, whose app is used again where nothing else is given.

    Raises:
        ConfigError: no client id, or a value that can't work or must not be used. Nothing was called.
    """
    given, origins = settings.oauth, settings.origins
    client_id = _check_client_id(given.client_id or (stored.client_id if stored else ""))
    if stored and stored.client_id != client_id:
        stored = None

    def pick(name: str, default: str) -> str:
        if origins[f"oauth.{name}"] != "default":
            return str(getattr(given, name)) or default
        return (str(getattr(stored, name)) if stored else "") or default

    def trusted(name: str) -> bool:
        return origins[f"oauth.{name}"] != "pdsync.toml"

    token_url = pick("token_url", default_url(settings.base_url, "get-tokens"))
    _check_url(token_url, "token URL", trusted=trusted("token_url"))
    if urlsplit(token_url).query:
        raise ConfigError("The token URL has a query (?…). The secret travels in a header: leave the query out.")
    authorize_url, override = _split_authorize_url(
        pick("authorize_url", default_url(settings.base_url, "authorize")), trusted=trusted("authorize_url")
    )
    if override and given.redirect_uri not in ("", override):
        raise ConfigError(
            f"The authorize URL names the redirect URI {_shown(override)}, the redirect URI itself is"
            f" {_shown(given.redirect_uri)}.\nGive one of them. Nothing was called."
        )
    redirect_uri = override or pick("redirect_uri", REDIRECT_URI)
    check_redirect_uri(redirect_uri)
    scopes = given.scopes if origins["oauth.scopes"] != "default" else " ".join(stored.scopes if stored else ())
    stored_token_url = (stored.token_url if stored else "") or default_url(settings.base_url, "get-tokens")
    return OAuthApp(
        client_id=client_id,
        client_secret=stored.client_secret if stored and token_url == stored_token_url else "",
        authorize_url=authorize_url,
        token_url=token_url,
        redirect_uri=redirect_uri,
        scopes=check_scopes(scopes),
    )


def default_url(base_url: str, operation: str) -> str:
    """Where the OAuth operation `operation` is: at its documented host, or on this machine with a local server."""
    entry = catalogue.operation(operation, "v1")
    local = is_loopback(urlsplit(base_url).hostname or "")
    return f"{base_url if local else f'https://{entry.host}'}{entry.path}"


def check_redirect_uri(uri: str) -> SplitResult:
    """The parts of a redirect URI to which a browser may bring a code.

    Raises:
        ConfigError: it is no address, or the code would travel readable over a network.
    """
    parts = _split(uri)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or parts.fragment:
        raise ConfigError(
            f"The redirect URI is {_shown(uri)}. It is written like {REDIRECT_URI}, as registered with the app {_HUB}."
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigError(
            f"The redirect URI is {_shown(uri)}. The code would travel readable to {clean(host)}: http:// is for this"
            f" machine.\nRegister {REDIRECT_URI} or an https:// address with the app {_HUB}. Nothing was called."
        )
    return parts


def check_scopes(text: str) -> tuple[str, ...]:
    """The scopes in `text`, divided by blanks or commas, each once.

    Raises:
        ConfigError: no operation of the API has a scope of that name; says which come near.
    """
    scopes = tuple(dict.fromkeys(re.findall(r"[^\s,]+", text)))
    if not scopes:
        return ()
    existing = {
        scope
        for version in catalogue.VERSIONS
        for each in catalogue.operations(version).values()
        for scope in each.scopes
    }
    for scope in scopes:
        if scope not in existing:
            near = difflib.get_close_matches(scope, sorted(existing), n=2, cutoff=0.5)
            guess = (
                f" Did you mean {' or '.join(map(repr, near))}?"
                if near
                else f" There are {', '.join(sorted(existing))}."
            )
            raise ConfigError(f"There is no scope {clean(scope)[:80]!r}.{guess} Nothing was called.")
    return scopes


def missing_scopes(wanted: tuple[str, ...], granted: tuple[str, ...]) -> list[str]:
    """Those of `wanted` that `granted` does not cover; `deals:full` covers `deals:read`."""
    return [scope for scope in wanted if not {scope, scope.replace(":read", ":full")} & set(granted)]


def _check_client_id(client_id: str) -> str:
    if not client_id:
        raise ConfigError(
            f"--oauth needs --client-id (or PDSYNC_CLIENT_ID), the id of your app {_HUB}. Nothing was called."
        )
    if not re.fullmatch(r"[!-9;-~]{1,200}", client_id):  # visible ASCII, without the colon that ends it in Basic
        raise ConfigError("The client ID has blanks, colons or characters that no id has. Nothing was called.")
    return client_id


def _split_authorize_url(url: str, *, trusted: bool) -> tuple[str, str]:
    """The authorize URL without the redirect URI in its query, and that redirect URI (empty: none)."""
    parts = _check_url(url, "authorize URL", trusted=trusted)
    query = parse_qsl(parts.query, keep_blank_values=True)
    names = [name for name, _ in query]
    if own := _OWN_PARAMETERS.intersection(names):
        raise ConfigError(f"The authorize URL sets {', '.join(sorted(own))}. pdsync adds that itself: leave it out.")
    if names.count("redirect_uri") > 1:
        raise ConfigError("The authorize URL names more than one redirect_uri. Nothing was called.")
    rest = urlencode([(name, value) for name, value in query if name != "redirect_uri"])
    return parts._replace(query=rest).geturl(), dict(query).get("redirect_uri", "")


def _check_url(url: str, what: str, *, trusted: bool) -> SplitResult:
    parts = _split(url)
    host = parts.hostname or ""
    if not re.fullmatch(r"[\w.:-]+", host) or "@" in parts.netloc or parts.fragment or not parts.path.strip("/"):
        raise ConfigError(
            f"The {what} is {_shown(url)}. It is written like https://oauth.pipedrive.com/oauth/…; nothing was called."
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ConfigError(
            f"The {what} is {_shown(url)}. Secrets would travel readable: use https:// (http:// is for this machine)."
        )
    if not (trusted or is_loopback(host) or host == "pipedrive.com" or host.endswith(".pipedrive.com")):
        option = what.lower().replace(" ", "-")
        raise ConfigError(
            f"pdsync.toml names {host} for the {what}, which is not Pipedrive.\n"
            f"If you mean it, say so yourself: --{option} {_shown(url)}"
        )
    return parts


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # looking at the port checks it
    except ValueError:
        return urlsplit("")
    return parts if url.isprintable() and " " not in url and "\\" not in url else urlsplit("")


def _shown(url: str) -> str:
    """An address as a message may repeat it: without its query and what stands before an @, which could be secret."""
    return clean(re.sub(r"//[^/?#]*@", "//…@", re.sub(r"[?#].*", "", url, flags=re.DOTALL)))[:200]
