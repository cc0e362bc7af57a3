"""Parses raw requests, which no operation describes, and refuses those that could expose the token."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.request import Request, RetryPolicy
from pdsync.core.uploads import FilePart, Form, file_part
from pdsync.errors import ConfigError
from pdsync.model import Method, Operation

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Headers that pdsync sets itself: authentication, routing and transfer.
_OURS = re.compile(
    r"authorization|x-api-token|cookie2?|host|forwarded|x-forwarded-.*|x-http-method.*|x-method-override|proxy-.*"
    r"|connection|keep-alive|content-length|content-encoding|transfer-encoding|te|trailer|upgrade|expect|accept-encoding",
    re.IGNORECASE,
)
_SECRETS = {"api_token", "access_token", "token"}


class RawRequest(Struct, frozen=True):
    """A raw request, ready to be sent."""

    method: Method
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: Any = None  # values for JSON, or bytes; None for none
    form: Form | None = None

    def request(self, retry: RetryPolicy) -> Request:
        """The request to send."""
        return Request(
            method=self.method,
            path=self.path,
            label=self.label,
            cost=self.cost,
            is_search=self.searches,
            query=self.query,
            body=self.body,
            form=self.form,
            headers=self.headers,
            retry=retry,
        )

    @staticmethod
    def of(
        method: str,
        path: str,
        *,
        query: list[tuple[str, str]],
        headers: dict[str, str],
        body: str | None,
        form: tuple[str, ...],
        files: tuple[str, ...],
        names: tuple[str, ...],
        multipart: bool,
    ) -> RawRequest:
        """Parse and check the parts of a raw request.

        Args:
            method: in upper or lower case.
            path: from the host on; may have a query.
            query: further parameters.
            headers: changed, and kept: the Content-Type says whether `body` is JSON, and is removed where it is.
            body: the text itself, `@` with the path of a file, or `-` for stdin.
            form: texts, as `key=value`.
            files: as `key=path` or `key=@path`.
            names: of files in the form, as `key=name`.
            multipart: send a form as multipart without files too.

        Raises:
            ConfigError: the request is malformed, its path is outside the API, or it would expose the token. Nothing
                was sent.
        """
        method = method.upper()
        if method not in get_args(Method):
            raise ConfigError(f"{method!r} is not a method: GET, POST, PUT, PATCH or DELETE.")
        _check_text([path, *form, *(text for each in query for text in each)])
        _check_path(path)
        _check_query([*query, *_query_of(path)])
        if body is not None and (form or files or multipart):
            raise ConfigError("--body can't be combined with --form or --file. Nothing was sent.")
        if method == "GET" and (body is not None or form or files):
            raise ConfigError("A GET request has no body: use --query. Nothing was sent.")
        kind = next((headers.pop(name) for name in list(headers) if name.lower() == "content-type"), None)
        if kind and (form or files):
            raise ConfigError("--header Content-Type: a form sets its own. Nothing was sent.")
        content = _content(body, kind)
        if kind and isinstance(content, bytes):
            headers["Content-Type"] = kind
        return RawRequest(
            method,  # type: ignore[arg-type]
            path,
            query,
            headers,
            content,
            _form(form, files, names, multipart=multipart),
        )

    @property
    def cost(self) -> int:
        """In tokens; an estimate, the price of the most expensive common operations."""
        return 20 if self.method == "GET" else 10

    @property
    def label(self) -> str:
        """The request's name in messages."""
        return f"{self.method} {urlsplit(self.path).path}"

    @property
    def operation(self) -> Operation:
        """The request as an operation whose answer is a file."""
        return Operation(
            self.label, "v1", self.method, self.path, "", cost=self.cost, search=self.searches, binary=True
        )

    @property
    def searches(self) -> bool:
        """Whether the request is a search, which has its own burst limit."""
        path = unquote(urlsplit(self.path).path).rstrip("/").removeprefix("/api")
        operations = (each for version in catalogue.VERSIONS for each in catalogue.operations(version).values())
        return any(each.search and each.path.removeprefix("/api") == path for each in operations)

    @property
    def form_files(self) -> tuple[FilePart, ...]:
        """The files to send."""
        return self.form.files if self.form else ()


def pair(text: str, what: str) -> tuple[str, str]:
    """Split `key=value`; `what` names it in the error."""
    key, sign, rest = text.partition("=")
    if not sign or not key:
        raise ConfigError(f"{text!r} is not {what}. Write it like key=value.")
    return key, rest


def headers(given: tuple[str, ...]) -> dict[str, str]:
    """Parse the --header options.

    Raises:
        ConfigError: a header is malformed, or set by pdsync itself. The message omits its value, which may be secret.
    """
    found = {}
    for text in given:
        name, sign, value = text.partition("=") if "=" in text.partition(":")[0] else text.partition(":")
        name, value = name.strip(" "), value.strip(" ")
        if not sign or not _TOKEN.fullmatch(name) or not (value.isascii() and value.isprintable()):
            raise ConfigError(f"--header is written like Accept-Language=en ({name[:40]!r} is not). Nothing was sent.")
        if _OURS.fullmatch(name):
            raise ConfigError(f"--header {name}: pdsync sets this header itself. Nothing was sent.")
        found[name] = value
    return found


def values(operation: Operation, given: list[tuple[str, str]], body: str | None) -> dict[str, object]:
    """The parameters of an operation: the `key=value` pairs and the fields of the body.

    Args:
        operation: that takes them.
        given: the pairs.
        body: JSON, `@` with the path of a file, or `-` for stdin; a list becomes the parameter `body`.

    Raises:
        ConfigError: the body can't be read, or a field is given twice. Nothing was sent.
    """
    found: dict[str, object] = {}
    for key, value in given:
        param = operation.body.get(key)
        is_file = param is not None and param.type == "string:binary"
        found[key] = value.removeprefix("@") if is_file and not Path(value).exists() else value
    if body is None:
        return found
    content = _json(_read(body))
    if isinstance(content, list):
        return {**found, "body": content}
    if not isinstance(content, dict):
        raise ConfigError("--body must be a JSON object, or a list of them. Nothing was sent.")
    if twice := content.keys() & found.keys():
        raise ConfigError(f"{', '.join(sorted(twice))} is given twice: in --body and as key=value. Nothing was sent.")
    return {**content, **found}


def _check_text(texts: list[str]) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"{text[:40]!r} is not UTF-8. Nothing was sent.") from error


def _check_path(path: str) -> None:
    plain = unquote(unquote(path)).partition("?")[0]
    odd = any(ord(char) <= 32 or char in "\\#\x7f" for char in path) or any(
        segment in (".", "..") for segment in re.split(r"[/\\]", plain)
    )
    if odd or not path.startswith(("/v1/", "/api/v1/", "/api/v2/")):
        raise ConfigError(
            f"{path!r} is not a path of the API. It must begin with /v1/ or /api/v2/; pdsync adds the host."
        )


def _query_of(path: str) -> list[tuple[str, str]]:
    return [(unquote(each.partition("=")[0]), "") for each in path.partition("?")[2].split("&") if each]


def _check_query(query: list[tuple[str, str]]) -> None:
    for key, _ in query:
        if key.strip().lower() in _SECRETS:
            raise ConfigError(f"{key} must not be in a URL, which logs record. pdsync sends it in a header.")


def _content(body: str | None, kind: str | None) -> Any:
    if body is None:
        return None
    text = _read(body)
    return _json(text) if kind is None or "json" in kind else text.encode()


def _read(body: str) -> str:
    try:
        if body.startswith("@"):
            return Path(body[1:]).read_text(encoding="utf-8")
        text = sys.stdin.read() if body == "-" else body
        text.encode()  # what was not UTF-8 can't be sent
    except (OSError, ValueError) as error:
        where = repr(body) if body.startswith(("@", "-")) else "is no text that can be sent"
        raise ConfigError(f"--body {where}: {error}. Nothing was sent.") from error
    return text


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(f"--body is not JSON: {error}. Nothing was sent.") from error


def _form(form: tuple[str, ...], files: tuple[str, ...], names: tuple[str, ...], *, multipart: bool) -> Form | None:
    if not (form or files or names or multipart):
        return None
    called = dict(pair(each, "--file-name") for each in names)
    parts = []
    for text in files:
        key, value = pair(text, "--file")
        parts.append(file_part(key, Path(value.removeprefix("@")), called.pop(key, None)))
    if called:
        raise ConfigError(f"--file-name {', '.join(called)}: there is no --file of that name. Nothing was sent.")
    return Form(tuple(pair(each, "--form") for each in form), tuple(parts), multipart=multipart or bool(parts))
