"""Takes a person out of sealed answers: their own records go, and what others say of them is made unreadable.

An answer is read into a tree that keeps everything as it was written (the digits of numbers, keys that come twice), so
that what speaks of nobody comes out as it came in; an answer that holds nothing of the person keeps its very bytes.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core.list_response import open_envelope

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from pdsync.model import Operation

FORGOTTEN = "[forgotten]"
_LEAST = 3  # characters: anything shorter would strike half of every text
_DIGITS = 7  # a phone number has at least so many
_IDS = ("id", "value", "person_id", "linked_person_id")  # the last two are always a person's
# Lists whose elements are people: who took part, who was written to.
_PEOPLE = {"attendees", "participants", "parties", "from", "to", "cc", "bcc"}
# What a mutation says of its record: columns of control.db and meta.mutations, keys of the journal.
_CONTENT = frozenset({"payload", "expected", "base_image", "after_image", "body", "answer", "found", "request"})


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


class _Object(list[tuple[str, Any]]):
    """An object: its keys and values as they came, also those that came twice."""

    def get(self, key: str) -> Any:
        """The last value of `key`, or None."""
        return next((value for name, value in reversed(self) if name == key), None)

    def put(self, key: str, value: Any) -> None:
        """Set every value of `key`."""
        self[:] = [(name, value if name == key else old) for name, old in self]


_READER = json.JSONDecoder(
    object_pairs_hook=_Object, parse_float=_Number, parse_int=_Number, parse_constant=_Number, strict=False
)


class Found(Struct):
    """What was taken out of an answer: records that went, and records in which something was made unreadable."""

    removed: int = 0
    changed: int = 0


class Redactor:
    """Knows a person by id and by the texts that name them, and takes them out of answers and texts.

    Args:
        id: of the person.
        texts: names, addresses and numbers that are theirs alone.
    """

    def __init__(self, id: int, texts: Iterable[str]) -> None:
        self.id = str(id)
        patterns = sorted({pattern for text in texts for pattern in _patterns(text)}, key=len, reverse=True)
        self._pattern = re.compile("|".join(patterns), re.IGNORECASE) if patterns else None
        self._at_all = re.compile(rf'\\u|"(?:{"|".join(_IDS)})"\s*:\s*"?{self.id}(?!\d)|"{self.id}"')

    def text(self, text: str) -> str:
        """`text` with what names the person made unreadable."""
        return self._pattern.sub(FORGOTTEN, text) if self._pattern else text

    def cell(self, text: str, column: str = "", *, is_own: bool = False) -> str:
        """A text that may be JSON, made harmless.

        Args:
            text: of a cell of control.db or `meta.*`, or a line of the outbox's journal.
            column: where it stands.
            is_own: it is of a mutation of the person's own record, so every text of its content goes, known or not.
        """
        if text[:1] not in ("{", "["):
            return FORGOTTEN if is_own and column in _CONTENT else self.text(text)
        try:
            tree = _READER.decode(text)
        except (ValueError, RecursionError):
            return self.text(text)
        cleaned = self._clean(tree, "", "")
        if is_own:
            cleaned = _without_content(cleaned, is_content=column in _CONTENT)
        return text if cleaned == tree else "".join(_written(cleaned))

    def page(
        self,
        body: bytes,
        operation: Operation | None,
        context: Mapping[str, str],
        *,
        key: str | None = None,
        asked_as: str | None = None,
    ) -> tuple[bytes, int, Found]:
        """An answer without the person.

        Args:
            body: the answer.
            operation: tells where its records stand.
            context: what was asked for.
            key: the key of records that are the person's own: `id` in a list of persons, `person_id` in what is told
                of persons one by one; None where there are none.
            asked_as: the key of `context` that names the person it was asked for.

        Returns:
            The new body, the number of its records, and what was taken out.
        """
        found = Found()
        is_theirs = asked_as is not None and context.get(asked_as) == self.id
        if not is_theirs and not self._may_hold(body):
            return body, len(open_envelope(body, operation).records), found
        try:
            tree = _READER.decode(body.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            plain = self.text(body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
            found.changed = int(plain != body)
            return plain, len(open_envelope(plain, operation).records), found
        records = _records(tree, operation)
        for holder, place in records:
            held = holder.get(place) if isinstance(holder, _Object) else holder
            if isinstance(held, list) and not isinstance(held, _Object):
                kept = [] if is_theirs else [one for one in held if not self._is_own(one, key)]
                found.removed += len(held) - len(kept)
                held[:] = kept
                for index, one in enumerate(held):
                    held[index] = self._clean(one, "", "")
                    found.changed += held[index] != one
            elif isinstance(held, _Object) and (is_theirs or self._is_own(held, key)):
                holder.put(place, None)
                found.removed += 1
        cleaned = self._clean(tree, "", "")
        found.changed += cleaned != tree and not found.changed
        if not found.removed and not found.changed:
            return body, len(open_envelope(body, operation).records), found
        made = "".join(_written(cleaned)).encode("utf-8", "surrogatepass")
        return made, len(open_envelope(made, operation).records), found

    def _may_hold(self, body: bytes) -> bool:
        """Whether `body` is worth reading into a tree, which takes many times longer than looking for texts."""
        text = body.decode("utf-8", "replace")
        return bool(self._at_all.search(text) or (self._pattern and self._pattern.search(text)))

    def _is_own(self, record: Any, key: str | None) -> bool:
        if key is None or not isinstance(record, _Object):
            return False
        value = record.get(key)
        if isinstance(value, _Object):
            value = value.get("value") or value.get("id")
        return isinstance(value, str) and value == self.id

    def _clean(self, value: Any, key: str, above: str) -> Any:
        """`value`, which stands under `key` of what stands under `above`, without the person."""
        if isinstance(value, _Number) or not isinstance(value, str | list):
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, _Object):
            if self._is_person(value, key, above):
                return _Object((name, inner) for name, inner in value if name in _IDS and inner == self.id)
            return _Object((self.text(name), self._clean(inner, name, key)) for name, inner in value)
        return [self._clean(inner, key, above) for inner in value]

    def _is_person(self, value: _Object, key: str, above: str) -> bool:
        """Whether an object inside another is this person: what v1 puts in the place of an id, or lists beside."""
        if key == self.id and above.startswith("person"):
            return True
        if not key.startswith("person") and key not in _PEOPLE:
            return False
        ids = _IDS if key.startswith("person") else _IDS[2:]  # who took part in a mail has an id of another kind
        says_more = any(type(inner) is not _Number for name, inner in value if name not in _IDS)
        return says_more and any(value.get(name) == self.id for name in ids)


def _without_content(value: Any, *, is_content: bool) -> Any:
    """`value` without a text at or below a key of `_CONTENT`."""
    if isinstance(value, _Number) or not isinstance(value, str | list):
        return value
    if isinstance(value, str):
        return FORGOTTEN if is_content else value
    if isinstance(value, _Object):
        return _Object(
            (name, _without_content(inner, is_content=is_content or name in _CONTENT)) for name, inner in value
        )
    return [_without_content(inner, is_content=is_content) for inner in value]


def names(record: Mapping[str, Any]) -> set[str]:
    """What a record of a person says that they are called, and are reached by: of either version of the API."""
    found = {record.get("name")}
    first, last = record.get("first_name"), record.get("last_name")
    if isinstance(first, str) and isinstance(last, str):
        found |= {f"{first} {last}", f"{last} {first}", f"{last}, {first}"}
    for key in ("emails", "email", "phones", "phone", "im"):
        for each in record.get(key) or []:
            found.add(each.get("value") if isinstance(each, dict) else None)
    return {text.strip() for text in found if isinstance(text, str) and len(text.strip()) >= _LEAST}


def _patterns(text: str) -> Iterator[str]:
    text = text.strip()
    if len(text) < _LEAST:
        return
    words = r"[\s\u00a0_+.-]+" if "@" not in text else r"\s+"
    whole = words.join(re.escape(word) for word in text.split())
    yield rf"(?<!\w){whole}(?!\w)"
    if "@" in text:
        yield rf"(?<!\w){re.escape(text.replace('@', '%40'))}(?!\w)"
    digits = re.sub(r"\D", "", text)
    if len(digits) >= _DIGITS and not re.search(r"[^\W\d_]", text):
        yield r"(?<!\d)\+?" + r"[\s().\u00a0/-]*".join(digits) + r"(?!\d)"


def _records(tree: Any, operation: Operation | None) -> list[tuple[Any, str]]:
    """Where the records of an answer stand: an object and the key in it, or the list itself."""
    if not isinstance(tree, _Object):
        return []
    holder, place = tree, "data"
    if operation and operation.records_in is not None:
        inner = tree.get("data")
        if not isinstance(inner, _Object):
            return []
        holder, place = inner, operation.records_in
    held = holder.get(place)
    if isinstance(held, list) and len(held) == 1 and type(held[0]) is list:  # some lists come wrapped twice
        return [(held[0], "")]
    return [(holder, place)]


def _written(value: Any) -> Iterator[str]:
    if isinstance(value, _Number):
        yield str(value)
    elif isinstance(value, str):
        yield json.dumps(value, ensure_ascii=any("\ud800" <= char <= "\udfff" for char in value))
    elif isinstance(value, _Object):
        yield "{"
        for index, (key, inner) in enumerate(value):
            yield ("," if index else "") + "".join(_written(key)) + ":"
            yield from _written(inner)
        yield "}"
    elif isinstance(value, list):
        yield "["
        for index, inner in enumerate(value):
            if index:
                yield ","
            yield from _written(inner)
        yield "]"
    else:
        yield json.dumps(value)


def unique_identifiers(mine: Collection[str], others: Collection[str]) -> tuple[set[str], set[str]]:
    """Which of the texts that name a person are theirs alone; and which other persons share, or may share.

    A name of one word may mean anybody.
    """
    theirs = {text.casefold() for text in others}
    shared = {text for text in mine if text.casefold() in theirs or text.isalpha()}
    return set(mine) - shared, shared
