"""Reads the entries of schemas/ into the structs of `model`, and refuses invalid ones.

What Pipedrive can do is data, not code: one table an operation, one file a tag, one folder an API version. An entry
says only what differs from these rules:

- `id` is the table's name, `version` the folder's, `tag` is set once at the top of the file. So is `ended`, where all
  operations of the file have ended: it says since when, and what to use.
- A {placeholder} of `path` that `path_params` doesn't list is an integer. All of them are required.
- A parameter that is a bare string is one of that type: `query.cursor = "string"`.
- `content` is "json" where there is a body.
- `records` is "one" where a GET's path ends with a placeholder: it is about that record.
- What has `ended` is `removed` too, and what is `removed` is `deprecated`.

Reading all of it takes some 150 ms, nearly all of it tomllib's, so each part is read on first use.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import msgspec

from pdsync.core.custom_fields import FieldType
from pdsync.errors import CatalogueError
from pdsync.model import Effect, Operation, Param, Stream, Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

T = TypeVar("T", bound=msgspec.Struct)

VERSIONS: tuple[Version, ...] = ("v2", "v1")  # the preferred one first
_HEADING = re.compile(r"^\[([\w-]+)\]", re.MULTILINE)  # of an operation's table


@cache
def operations(version: Version) -> dict[str, Operation]:
    """All operations of `version` by their ids, in the order of the files. The dict is shared: do not change it.

    Raises:
        CatalogueError: an entry is invalid; the message has the file, the table, the key and a suggestion.
    """
    found: dict[str, Operation] = {}
    for where, table in files(f"operations/{version}"):
        tag = table.pop("tag", None)
        ended = table.pop("ended", None)
        if not isinstance(tag, str):
            raise CatalogueError(f'{where}: a line like tag = "Deals" is missing at the top.')
        for id, entry in table.items():
            if id in found:
                raise CatalogueError(f"{where} [{id}]: {version} has an operation of that name already.")
            found[id] = _operation(entry, id, version, tag, ended, f"{where} [{id}]")
    return found


@cache
def operation_ids(version: Version) -> frozenset[str]:
    """The ids of all operations of `version`, by the headings of their tables: twenty times as fast as reading them."""
    texts = (path.read_text(encoding="utf-8-sig") for path in _paths(f"operations/{version}"))
    return frozenset(id for text in texts for id in _HEADING.findall(text))


def operation(name: str, version: Version | None = None) -> Operation:
    """The operation called `name`: `getDeals`, or with its version `v1:getDeals` or `v1 getDeals`.

    Args:
        version: where to look where the name has no version; None looks in v2, then in v1.

    Raises:
        CatalogueError: there is none; the message has similar names.
    """
    match = re.fullmatch(r"(v1|v2)[: ]\s*(\S+)", name)
    wanted, id = match.groups() if match else (version, name)
    searched: tuple[Version, ...] = tuple(each for each in VERSIONS if wanted in (None, each))
    for each in searched:
        if id in operations(each):
            return operations(each)[id]
    elsewhere = [f"{each} {id}" for each in VERSIONS if id in operations(each)]
    near = elsewhere or _near(id, (other for each in searched for other in operations(each)), n=3)
    raise CatalogueError(
        f"There is no operation {id!r} in {' or '.join(searched)}.{_did_you_mean(near)}\n"
        f"Nothing was called. `pdsync operations` lists all of them."
    )


def why_removed(operation: Operation) -> str | None:
    """Why `operation` is refused, and what to use instead: sentences for people; None while it can be relied on.

    The one place that decides it: for the queue, a plan, a call, and the actions of the same operation.
    """
    if operation.ended:
        return f"{operation.name}: {operation.ended}"
    if operation.removed:
        instead = f"Use {operation.replaced_by} instead." if operation.replaced_by else "Nothing replaces it."
        return f"{operation.name} is no longer documented by Pipedrive. {instead}"
    return None


@cache
def streams() -> dict[str, Stream]:
    """All streams by their names; those that define the fields of others come first. The dict is shared.

    Raises:
        CatalogueError: an entry is invalid, or names an operation, column or stream that does not exist.
    """
    found = {}
    for where, entry in files("streams"):
        stream = read(entry, Stream, where)
        _check_stream(stream, where)
        found[stream.name] = stream
    for stream in found.values():
        _check_other_streams(stream, found)
    definitions = {stream.fields for stream in found.values()}
    return dict(sorted(found.items(), key=lambda item: (item[0] not in definitions, item[0])))


def _check_stream(stream: Stream, where: str) -> None:
    """Check that the operations, the key and the columns that an entry names exist. `where`: the file, for messages.

    Raises:
        CatalogueError: one of them does not.
    """
    for version, sources in (("v1", stream.v1), ("v2", stream.v2)):
        for source in sources:
            if source.operation not in operation_ids(version):
                near = _did_you_mean(_near(source.operation, operation_ids(version)))
                raise CatalogueError(f"{where}: {version} has no operation {source.operation!r}.{near}")
    if not (stream.v1 or stream.v2):
        raise CatalogueError(f"{where}: no list operation: add [[v2]] or [[v1]].")
    named = [stream.key, stream.cursor, (stream.deleted or "").lstrip("!"), *stream.labels]
    named += [child.of for child in stream.children.values()]
    named += [part for name in stream.columns for part in stream.column(name).join]
    elements = {f"{name}.{item}" for name in stream.columns for item in stream.column(name).items}
    for column in (*named, *(commented for commented in stream.comments if commented not in elements)):
        if column and column not in stream.columns:
            near = _did_you_mean(_near(column, stream.columns))
            raise CatalogueError(f"{where}: there is no column {column!r} in [columns].{near}")


def _check_other_streams(stream: Stream, streams: Mapping[str, Stream]) -> None:
    """Check the other streams and lists that an entry names.

    Raises:
        CatalogueError: one of them does not exist.
    """
    where = f"schemas/streams/{stream.name}.toml"
    for other in (*stream.labels.values(), stream.fields, stream.changelog):
        if other and other not in streams:
            raise CatalogueError(f"{where}: there is no stream {other!r}.{_did_you_mean(_near(other, streams))}")
    for source in (*stream.v1, *stream.v2):
        lists = {each.name for each in (stream.v1 if source in stream.v1 else stream.v2)}
        if source.origin and source.origin.source not in lists:
            raise CatalogueError(f"{where}: there is no list {source.origin.source!r} to be the origin.")
        if source.origin and source.origin.flag not in stream.columns:
            raise CatalogueError(f"{where}: there is no column {source.origin.flag!r} in [columns].")
        if (parent := source.parent) is None:
            continue
        if parent.stream not in streams:
            raise CatalogueError(f"{where}: there is no stream {parent.stream!r} to be the parent.")
        if parent.having and parent.having not in streams[parent.stream].columns:
            raise CatalogueError(f"{where}: {parent.stream} has no column {parent.having!r}.")
        if parent.counts and not (parent.having and stream.parent_column(parent, "v2")):
            raise CatalogueError(f"{where}: `counts` takes a count (`having`), and a column with the parent's key.")


def stream(name: str) -> Stream:
    """The stream called `name`.

    Raises:
        CatalogueError: there is none; the message has similar names.
    """
    if name in streams():
        return streams()[name]
    near = _did_you_mean(_near(name, streams(), n=3))
    raise CatalogueError(f"There is no stream {name!r}.{near}\nNothing was called. `pdsync streams` lists all of them.")


@cache
def field_types() -> dict[str, FieldType]:
    """The columns of each type of custom field."""
    where = "schemas/custom_fields.toml"
    entries = tomllib.loads((schemas() / "custom_fields.toml").read_text(encoding="utf-8-sig"))
    return {name: read(entry, FieldType, f"{where} [{name}]") for name, entry in entries.items()}


@cache
def effects() -> dict[str, Effect]:
    """Name of an operation (`v1 addPersonPicture`) → how its effect is read where its path does not show it.

    Raises:
        CatalogueError: an entry is invalid, or names an operation that does not exist.
    """
    where = "schemas/effects.toml"
    entries = tomllib.loads((schemas() / "effects.toml").read_text(encoding="utf-8"))
    found = {}
    for version, table in entries.items():
        for id, entry in table.items():
            name = operation(f"{version} {id}").name
            found[name] = read(entry, Effect, f"{where} [{version}.{id}]")
            if found[name].read:
                operation(found[name].read or "")
    return found


def sql(folder: str) -> dict[str, str]:
    """The SQL files of `folder` (below schemas/) by their names without the ending."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted((schemas() / folder).glob("*.sql"))}


def read(entry: object, kind: type[T], where: str) -> T:
    """Make `entry`, as TOML gave it, a `kind`.

    Args:
        where: the file and the table in it, for messages.

    Raises:
        CatalogueError: an unknown key, a missing one, or a value of the wrong type.
    """
    try:
        return msgspec.convert(entry, kind)
    except msgspec.ValidationError as error:
        stray = re.search(r"unknown field `(.+?)`|enum value '(.+?)'", str(error))
        word = stray[1] or stray[2] if stray else ""
        near = _near(word, (each for each in _vocabulary(kind) if each != word))
        raise CatalogueError(f"{where}: {error}.{_did_you_mean(near)}") from error


def files(folder: str, name: str = "*") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each TOML file of `folder` (below schemas/) in alphabetical order, as its name for messages and its content.

    Args:
        folder: of the files.
        name: of the only one to read, without its ending.

    Raises:
        CatalogueError: the folder is empty, or a file is not TOML.
    """
    for path in _paths(folder, name):
        where = f"schemas/{folder}/{path.name}"
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise CatalogueError(f"{where}: this is not TOML: {error}.") from error
        yield where, content


def _paths(folder: str, name: str = "*") -> list[Path]:
    paths = sorted((schemas() / folder).glob(f"{name}.toml"))
    if not paths:
        raise CatalogueError(
            f"schemas/{folder}/ has no entries, so this copy of pdsync is incomplete.\n"
            f"Nothing was called. Install pdsync again."
        )
    return paths


def schemas() -> Path:
    """The folder schemas/: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    # In this order: site-packages may contain another project's "schemas" beside our package.
    packed = package / "_data" / "schemas"
    return packed if packed.is_dir() else package.parent / "schemas"


def _operation(entry: object, id: str, version: Version, tag: str, ended: str | None, where: str) -> Operation:
    if not isinstance(entry, dict):
        raise CatalogueError(f"{where}: expected a table, got `{entry!r}`.")
    from_address: dict[str, object] = {"id": id, "version": version, "tag": tag, **({"ended": ended} if ended else {})}
    for key in from_address.keys() & entry.keys():
        raise CatalogueError(
            f"{where}: leave out {key!r}; the table's name, the folder and the top of the file say it."
        )
    groups = {group: _params(entry.get(group, {}), f"{where} {group}") for group in ("path_params", "query", "body")}
    placeholders = dict.fromkeys(re.findall(r"{(.+?)}", str(entry.get("path"))), Param("integer"))
    groups["path_params"] = {
        name: msgspec.structs.replace(param, required=True)
        for name, param in (placeholders | groups["path_params"]).items()
    }
    has_ended = bool(ended or entry.get("ended"))
    implied = {
        "content": "json" if groups["body"] else None,
        "removed": has_ended,
        "deprecated": entry.get("removed", has_ended),
        "records": "one" if entry.get("method") == "GET" and str(entry.get("path")).endswith("}") else "list",
    }
    return read(implied | entry | groups | from_address, Operation, where)


def _params(group: object, where: str) -> dict[str, Param]:
    if not isinstance(group, dict):
        raise CatalogueError(f"{where}: expected a table, got `{group!r}`.")
    return {
        # One at a time, because msgspec's error names the wrong key, and not the parameter that has it.
        name: read({"type": entry} if isinstance(entry, str) else entry, Param, f"{where}.{name}")
        for name, entry in group.items()
    }


def _vocabulary(kind: object) -> Iterator[str]:
    """All words that an entry of this kind may have: its keys, those of the structs in it, and enum values."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            yield field.encode_name
            yield from _vocabulary(field.type)
    elif get_origin(kind) is Literal:
        yield from (word for word in get_args(kind) if isinstance(word, str))
    else:
        for part in get_args(kind):
            yield from _vocabulary(part)


def _near(word: str, words: Iterable[str], n: int = 1) -> list[str]:
    """Up to `n` of `words` that are similar to `word`, the most similar first; case is ignored."""
    spelt = {each.lower(): each for each in words}
    return [spelt[each] for each in difflib.get_close_matches(word.lower(), spelt, n=n)]


def _did_you_mean(near: list[str]) -> str:
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
