"""Removes a person from sealed answers: deletes their own records, and redacts their identifiers in all others.

An answer is parsed into a tree that keeps everything as it was written (the digits of numbers, duplicate keys), so that
all else is written back unchanged; an answer without a trace of the person keeps its bytes.
"""

from __future__ import annotations

import json
import re
from html.entities import codepoint2name
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pdsync.core.list_response import open_envelope

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from pdsync.model import Operation

FORGOTTEN = "[forgotten]"
_MIN_LENGTH = 3  # characters: anything shorter would match in most texts
_MIN_DIGITS = 7  # of a phone number
# Texts of which a phone number takes no part: 20 26 11 22 has the digits of a day, (202) 512-1800 those of an hour.
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?!\d)|\d{8}T\d{6}(?!\d)")
_NO_TIME = rf"(?!{_TIME.pattern})"
_IDS = ("id", "value", "person_id", "linked_person_id")  # the last two are always a person's
# Keys of lists whose elements are people.
_MAIL_PARTIES = ("from", "to", "cc", "bcc")
_PEOPLE = {"attendees", "participants", "parties", *_MAIL_PARTIES}
# The content of a mutation: columns of control.db and meta.mutations, keys of the journal.
_CONTENT = frozenset({"payload", "expected", "base_image", "after_image", "body", "answer", "found", "request"})


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


class _Object(list[tuple[str, Any]]):
    """An object: its keys and values as they came, duplicate keys too."""

    def get(self, key: str) -> Any:
        """The last value of `key`, or None."""
        return next((value for name, value in reversed(self) if name == key), None)

    def put(self, key: str, value: Any) -> None:
        """Set every value of `key`."""
        self[:] = [(name, value if name == key else old) for name, old in self]


_READER = json.JSONDecoder(
    object_pairs_hook=_Object, parse_float=_Number, parse_int=_Number, parse_constant=_Number, strict=False
)


class RedactionCounts(Struct):
    """The records that were removed from an answer, and those in which a text was redacted."""

    removed: int = 0
    changed: int = 0


class Redactor:
    """Removes one person from answers and texts: by their id, and by the texts that identify them.

    Args:
        id: of the person.
        texts: names, addresses and numbers of this person only.
    """

    def __init__(self, id: int, texts: Iterable[str]) -> None:
        self.id = str(id)
        patterns = sorted({pattern for text in texts for pattern in _patterns(text)}, key=len, reverse=True)
        self._pattern = re.compile("|".join(patterns), re.IGNORECASE) if patterns else None
        self._any_trace = re.compile(rf'\\u|"(?:{"|".join(_IDS)})"\s*:\s*"?{self.id}(?!\d)|"{self.id}"')

    def redact_text(self, text: str) -> str:
        """`text` without the person's identifiers."""
        return self._pattern.sub(FORGOTTEN, text) if self._pattern else text

    def redact_cell(self, text: str, column: str = "", *, is_own: bool = False) -> str:
        """A text, which may be JSON, without the person.

        Args:
            text: of a cell of control.db or `meta.*`, or a line of the outbox's journal.
            column: its column, or its key in the journal.
            is_own: it belongs to a mutation of the person's own record, so all texts in its content are redacted.
        """
        if text[:1] not in ("{", "["):
            return FORGOTTEN if is_own and column in _CONTENT else self.redact_text(text)
        try:
            tree = _READER.decode(text)
        except (ValueError, RecursionError):
            return self.redact_text(text)
        redacted = self._redact(tree, "", "")
        if is_own:
            redacted = _without_content(redacted, is_content=column in _CONTENT)
        return text if redacted == tree else "".join(_written(redacted))

    def redact_page(
        self,
        body: bytes,
        operation: Operation | None,
        context: Mapping[str, str],
        *,
        key: str | None = None,
        parent_param: str | None = None,
        of_parties: bool = False,
    ) -> tuple[bytes, int, RedactionCounts]:
        """An answer without the person.

        Args:
            body: the answer.
            operation: describes where its records are.
            context: the parameters of its request.
            key: the key that marks a record as the person's own: `id` in a list of persons, `person_id` in a list with
                one record a person; None where no record is.
            parent_param: the key of `context` with the id of the person whose list this is.
            of_parties: a record is the person's own, too, if they are among its senders or recipients.

        Returns:
            The new body, the number of its records, and what was removed.
        """
        counts = RedactionCounts()
        is_theirs = parent_param is not None and context.get(parent_param) == self.id
        if not is_theirs and not self._has_trace(body):
            return body, len(open_envelope(body, operation).records), counts
        tree = _parsed(body)
        if tree is None:
            readable, unreadable = self._set_aside(body, operation, key)
            if readable == body:
                plain = self._redact_bytes(body)
                counts.changed = int(plain != body)
                return plain, len(open_envelope(plain, operation).records), counts
            new_body, rows, counts = self.redact_page(
                readable, operation, context, key=key, parent_param=parent_param, of_parties=of_parties
            )
            for place, record in unreadable.items():
                plain = self._redact_bytes(record)
                counts.changed += place in new_body and plain != record
                new_body = new_body.replace(place, plain)
            return new_body, rows, counts
        for container, name in _records(tree, operation):
            records = container.get(name) if isinstance(container, _Object) else container
            if isinstance(records, list) and not isinstance(records, _Object):
                kept = [] if is_theirs else [each for each in records if not self._is_own(each, key, of_parties)]
                counts.removed += len(records) - len(kept)
                records[:] = kept
                for index, record in enumerate(records):
                    records[index] = self._redact(record, "", "")
                    counts.changed += records[index] != record
            elif isinstance(records, _Object) and (is_theirs or self._is_own(records, key, of_parties)):
                container.put(name, None)
                counts.removed += 1
        redacted = self._redact(tree, "", "")
        counts.changed += redacted != tree and not counts.changed
        if not counts.removed and not counts.changed:
            return body, len(open_envelope(body, operation).records), counts
        new_body = "".join(_written(redacted)).encode("utf-8", "surrogatepass")
        return new_body, len(open_envelope(new_body, operation).records), counts

    def _set_aside(self, body: bytes, operation: Operation | None, key: str | None) -> tuple[bytes, dict[bytes, bytes]]:
        """An answer with something else in the place of its records that can't be parsed, and what was there.

        Otherwise one bad byte would keep the person's record on the same page. In the place of their own is its id.
        """
        pieces, unreadable, end = list[bytes](), dict[bytes, bytes](), 0
        own = f'{{"{key}":{self.id}}}'.encode()
        for record in map(bytes, open_envelope(body, operation).records):
            begin = body.find(record, end)
            if begin < 0:  # a value in a list of values
                return body, {}
            place = record
            if _parsed(record) is None:
                found = key and re.search(rb'"%b"\s*:\s*"?(\d+)' % key.encode(), record)
                place = own if found and found[1] == self.id.encode() else b'{"set aside":%d}' % len(unreadable)
                if place != own:
                    unreadable[place] = record
            pieces += [body[end:begin], place]
            end = begin + len(record)
        return b"".join([*pieces, body[end:]]), unreadable

    def _redact_bytes(self, body: bytes) -> bytes:
        return self.redact_text(body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def _has_trace(self, body: bytes) -> bool:
        """Whether `body` must be parsed into a tree, which takes many times longer than searching its text."""
        text = body.decode("utf-8", "replace")
        return bool(self._any_trace.search(text) or (self._pattern and self._pattern.search(text)))

    def _is_own(self, record: Any, key: str | None, of_parties: bool = False) -> bool:
        if of_parties and isinstance(record, _Object) and any(map(self._is_party, _parties(record))):
            return True
        if key is None or not isinstance(record, _Object):
            return False
        value = record.get(key)
        if isinstance(value, _Object):
            value = value.get("value") or value.get("id")
        return isinstance(value, str) and value == self.id

    def _is_party(self, party: _Object) -> bool:
        """Whether a sender or recipient is the person: by a link, or by the address."""
        address = party.get("email_address")
        is_their_address = isinstance(address, str) and self.redact_text(address) != address
        return is_their_address or party.get("linked_person_id") == self.id

    def _redact(self, value: Any, key: str, parent_key: str) -> Any:
        """`value` without the person; it is the value of `key`, in the value of `parent_key`."""
        if isinstance(value, _Number) or not isinstance(value, str | list):
            return value
        if isinstance(value, str):
            return self.redact_text(value)
        if isinstance(value, _Object):
            if self._is_person(value, key, parent_key):
                return _Object((name, inner) for name, inner in value if name in _IDS and inner == self.id)
            return _Object((self.redact_text(name), self._redact(inner, name, key)) for name, inner in value)
        return [self._redact(inner, key, parent_key) for inner in value]

    def _is_person(self, value: _Object, key: str, parent_key: str) -> bool:
        """Whether an object inside another is this person: v1 shows whole records instead of ids, or beside them."""
        if key == self.id and parent_key.startswith("person"):
            return True
        if not key.startswith("person") and key not in _PEOPLE:
            return False
        ids = _IDS if key.startswith("person") else _IDS[2:]  # the `id` of a participant of a mail is none of a person
        says_more = any(type(inner) is not _Number for name, inner in value if name not in _IDS)
        return says_more and any(value.get(name) == self.id for name in ids)


def _parsed(body: bytes) -> Any:
    """The tree of a text; None where it can't be parsed."""
    try:
        return _READER.decode(body.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return None


def _parties(message: _Object) -> Iterator[_Object]:
    """The senders and recipients of a mail message."""
    for name, value in message:
        if name in _MAIL_PARTIES and type(value) is list:
            yield from (each for each in value if isinstance(each, _Object))


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


def identifiers_of(record: Mapping[str, Any]) -> set[str]:
    """The names, addresses and numbers in a record of a person, of either version of the API."""
    found = {record.get("name")}
    first, last = record.get("first_name"), record.get("last_name")
    if isinstance(first, str) and isinstance(last, str):
        found |= {f"{first} {last}", f"{last} {first}", f"{last}, {first}"}
    for key in ("emails", "email", "phones", "phone", "im"):
        for each in record.get(key) or []:
            found.add(each.get("value") if isinstance(each, dict) else None)
    return {text.strip() for text in found if isinstance(text, str) and len(text.strip()) >= _MIN_LENGTH}


def _patterns(text: str) -> Iterator[str]:
    text = text.strip()
    if len(text) < _MIN_LENGTH:
        return
    words = r"(?:[\s\u00a0_+.-]|&nbsp;)+" if "@" not in text else r"\s+"
    whole = words.join("".join(map(_character, word)) for word in text.split())
    is_number = not re.search(r"[^\W\d_]", text)
    no_time = _NO_TIME if is_number and not _TIME.match(text) else ""  # a birthday is meant
    yield rf"(?<!\w){no_time}{whole}(?!\w)"
    if "@" in text:
        yield rf"(?<!\w){re.escape(text.replace('@', '%40'))}(?!\w)"
    digits = re.sub(r"\D", "", text)
    if len(digits) >= _MIN_DIGITS and is_number:
        yield rf"(?<!\d){no_time}\+?" + r"[\s().\u00a0/-]*".join(digits) + r"(?!\d)"


def _character(char: str) -> str:
    """A pattern for a character as it is, or as HTML may write it: texts of mails and notes are HTML."""
    if char.isascii() and char not in "&<>'\"":
        return re.escape(char)
    code, name = ord(char), codepoint2name.get(ord(char))
    forms = [re.escape(char), f"&#0*{code};", f"&#x0*{code:x};", *([f"&{name};"] if name else [])]
    return f"(?:{'|'.join(forms)})"


def _records(tree: Any, operation: Operation | None) -> list[tuple[Any, str]]:
    """Where the records of an answer are: an object and the key in it, or the list itself."""
    if not isinstance(tree, _Object):
        return []
    container, name = tree, "data"
    if operation and operation.records_in is not None:
        inner = tree.get("data")
        if not isinstance(inner, _Object):
            return []
        container, name = inner, operation.records_in
    records = container.get(name)
    if isinstance(records, list) and len(records) == 1 and type(records[0]) is list:  # some lists come wrapped twice
        return [(records[0], "")]
    return [(container, name)]


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
    """Split the identifiers of a person: those of no other person, and those that others share, or may share.

    A name of one word may belong to any person.
    """
    theirs = {text.casefold() for text in others}
    shared = {text for text in mine if text.casefold() in theirs or text.isalpha()}
    return set(mine) - shared, shared
