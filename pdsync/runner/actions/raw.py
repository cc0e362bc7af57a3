"""`rawRequest`: a request that no operation describes, from the component's fifteen inputs."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from pdsync.core import raw_request
from pdsync.core.actions import is_true
from pdsync.core.request import RetryPolicy
from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pdsync.core.actions import Action

    Values = Mapping[str, Any]

_HOSTS = {"api.pipedrive.com"}


def path_of(url: str, base_url: str) -> str:
    """The path of the API that `url` means: `/files` is `/v1/files`, and the API's own host may stand before it.

    Raises:
        ConfigError: it leads to another host. Nothing was sent.
    """
    parts = urlsplit(url)
    if parts.scheme or parts.netloc:
        if parts.hostname not in _HOSTS | {urlsplit(base_url).hostname}:
            raise ConfigError(f"url leads to {parts.hostname!r}; pdsync calls Pipedrive's API only. Nothing was sent.")
        url = url.split(parts.netloc, 1)[1]
    path = "/" + url.lstrip("/")
    return path if path.startswith(("/v1/", "/api/")) else f"/v1{path}"


@contextmanager
def raw_of(action: Action, values: Values, base_url: str) -> Iterator[raw_request.RawRequest]:
    """The request that the inputs describe; contents that were given as values are files while it is open.

    Raises:
        ConfigError: it is malformed, leads away from the API, or would show the token. Nothing was sent.
    """
    with tempfile.TemporaryDirectory(prefix="pdsync-") as folder:
        files = []
        names = pairs(action, "fileDataFileNames", values.get("fileDataFileNames"))
        for number, (key, content) in enumerate(pairs(action, "fileData", values.get("fileData"))):
            path = Path(folder) / str(number)
            if isinstance(content, str) and content.startswith("@"):
                path = Path(content[1:])
            elif isinstance(content, Path):
                path = content
            else:
                path.write_bytes(content if isinstance(content, bytes) else str(content).encode())
                names = names if key in dict(names) else [*names, (key, key)]
            files.append(f"{key}=@{path}")
        form = pairs(action, "formData", values.get("formData"))
        headers = pairs(action, "headers", values.get("headers"))
        request = raw_request.RawRequest.of(
            str(values["method"]),
            path_of(str(values["url"]), base_url),
            query=[(key, str(value)) for key, value in pairs(action, "queryParams", values.get("queryParams"))],
            headers=raw_request.headers(tuple(f"{key}={value}" for key, value in headers)),
            body=_body(values.get("data"), Path(folder) / "body"),
            form=tuple(f"{key}={value}" for key, value in form),
            files=tuple(files),
            names=tuple(f"{key}={value}" for key, value in names),
            multipart=bool(form or files),
        )
        yield request


def policy_of(action: Action, values: Values) -> RetryPolicy:
    """How long to wait, and how often to try again: a write too, where every error is to be repeated."""
    all_errors = is_true(action, "retryAllErrors", values["retryAllErrors"])
    timeout = values.get("timeout")
    return RetryPolicy(
        attempts=_number(action, "maxRetries", values["maxRetries"], most=20) + 1,
        timeout_s=None if timeout is None else _number(action, "timeout", timeout, most=3_600_000) / 1000,
        backoff_s=_number(action, "retryDelayMS", values["retryDelayMS"], most=3_600_000) / 1000,
        exponential=is_true(action, "useExponentialBackoff", values["useExponentialBackoff"]),
        all_errors=all_errors,
        repeats_writes=all_errors,
    )


def response_type(action: Action, values: Values) -> str:
    """`json`, `text` or `binary`."""
    name = str(values["responseType"]).lower()
    known = {"json": "json", "text": "text", "binary": "binary", "arraybuffer": "binary", "blob": "binary"}
    if name not in known:
        raise ConfigError(f"{action.key}: responseType is {name!r}, and may be json, text or binary.")
    return known[name]


def pairs(action: Action, name: str, value: Any) -> list[tuple[str, Any]]:
    """Keys and values: of an object, of `key=value` texts, or of the component's own list of {key, value}.

    Raises:
        ConfigError: it is something else. Nothing was sent.
    """
    if value is None:
        return []
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise ConfigError(f"{action.key}: {name} is no JSON: {error}. Nothing was sent.") from error
    if isinstance(value, dict):
        return list(value.items())
    read: list[tuple[str, Any]] = []
    for each in value if isinstance(value, list | tuple) else [value]:
        if isinstance(each, dict) and {"key", "value"} <= each.keys():
            read.append((str(each["key"]), each["value"]))
        elif isinstance(each, tuple) and len(each) == 2:
            read.append((str(each[0]), each[1]))
        elif isinstance(each, str) and each.partition("=")[1]:
            read.append(raw_request.pair(each, "a pair"))
        else:
            raise ConfigError(f"{action.key}: {name} is written like key=value, or as a JSON object. Nothing was sent.")
    return read


def _body(data: Any, path: Path) -> str | None:
    """The body as `RawRequest.of` takes it. A text is the body itself, also where it looks like a file's name."""
    if data is None or (isinstance(data, str) and data[:1] not in ("@", "-")):
        return data
    path.write_bytes(data.encode() if isinstance(data, str) else msgspec.json.encode(data))
    return f"@{path}"


def _number(action: Action, name: str, value: Any, *, most: int) -> int:
    text = str(value).strip()
    if not text.isdigit() or int(text) > most:
        raise ConfigError(f"{action.key}: {name} is {value!r}, and should be a whole number up to {most:,}.")
    return int(text)
