"""Makes the forms of uploads: texts and files, which are opened each time a form is sent."""

from __future__ import annotations

import mimetypes
import os
import stat
from contextlib import ExitStack, contextmanager
from pathlib import Path  # noqa: TC003 - msgspec reads it at run time
from typing import TYPE_CHECKING

from msgspec import Struct

from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import aiohttp

    from pdsync.core.request_builder import Call


class FilePart(Struct, frozen=True):
    """A file in a form: it is opened each time the form is sent."""

    name: str  # of the field
    path: Path
    file_name: str  # as it is sent
    content_type: str


class Form(Struct, frozen=True):
    """A form: texts and files. It can be sent again, unlike aiohttp's own."""

    fields: tuple[tuple[str, str], ...] = ()
    files: tuple[FilePart, ...] = ()
    multipart: bool = False  # always true where there are files

    @property
    def size(self) -> int:
        """The bytes of its files."""
        return sum(part.path.stat().st_size for part in self.files)

    @contextmanager
    def opened(self) -> Iterator[aiohttp.FormData]:
        """The form as aiohttp sends it, with its files open."""
        import aiohttp  # noqa: PLC0415 - slow to import, and most commands send no form

        # Names are sent as UTF-8, as browsers do: quoted ones would be stored with their percent signs.
        data = aiohttp.FormData(quote_fields=False, default_to_multipart=self.multipart)
        with ExitStack() as stack:
            for name, value in self.fields:
                data.add_field(name, value)
            for part in self.files:
                file = stack.enter_context(part.path.open("rb"))
                data.add_field(part.name, file, filename=part.file_name, content_type=part.content_type)
            yield data


def file_part(name: str, path: Path, file_name: str | None = None) -> FilePart:
    """The file at `path` as the field `name` of a form.

    Raises:
        ConfigError: there is no such file, or it can't be read. Nothing was sent.
    """
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} can't be read: {error}. Nothing was sent.") from error
    if not stat.S_ISREG(kind):
        raise ConfigError(f"{path} is no file. Nothing was sent.")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"{path} may not be read. Nothing was sent.")
    sent_name = (file_name or path.name).encode(errors="replace").decode()
    sent_name = "".join(char if char >= " " and char != "\x7f" else "_" for char in sent_name)
    return FilePart(name, path, sent_name, content_type_of(sent_name) or "application/octet-stream")


def form_of(call: Call) -> Form | None:
    """The form that `call` sends; None where it sends JSON, or nothing.

    Raises:
        ConfigError: a file of it can't be read.
    """
    if call.operation.content not in ("form", "multipart") or isinstance(call.body, list):
        return None
    return Form(
        tuple((call.body or {}).items()),
        tuple(file_part(name, path) for name, path in call.files.items()),
        multipart=call.operation.content == "multipart",
    )


def content_type_of(name: str) -> str | None:
    """The media type of a file, guessed by its name; None where that has no known suffix."""
    return mimetypes.guess_type(name, strict=False)[0]
