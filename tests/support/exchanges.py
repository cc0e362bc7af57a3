"""Compares what passes between pdsync and the sandbox with the vendor's documents: each request, and each answer.

    recorder = Recorder("sync")
    box.sandbox.on_exchange = recorder        # of a sandbox on a thread of this process
    ...
    recorder.unexplained()                    # what the documents do not say

Requests and answers that look the same are compared once. A difference is one line, such as
`body data/*/id: type "integer", got str 'a'`; tests/vendor/explained.toml lists those that are meant.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import jsonschema
from jsonschema import FormatChecker

from tests.vendor import FOLDER, stored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.sandbox.protocol.messages import Reply
    from pdsync.sandbox.server.server import IncomingRequest

CONTENTS = {"application/json": "json", "application/x-www-form-urlencoded": "form", "multipart/form-data": "multipart"}
# What any operation may answer, by the page on HTTP status codes; the documents of operations name few of them.
REFUSALS = {400, 401, 402, 403, 404, 405, 410, 415, 422, 429, 500, 501, 503}
REFUSAL_KEYS = {"success", "error", "error_info", "data", "additional_data", "errorCode", "code"}
_CUSTOM = re.compile(r"[0-9a-f]{40}(_\w+)?")
_CURRENCY = re.compile(r"[A-Z]{3}")
_CODE = re.compile(r"\b[0-9a-f]{40}\b")
_WORD = re.compile(r"[a-z][a-z0-9_.-]{0,30}")


class Difference(NamedTuple):
    """What the documents do not say."""

    side: str  # request or answer
    operation: str  # `v2 getDeals`, or method and path of what no document has
    line: str


@dataclass(frozen=True)
class Explanation:
    """A difference that is meant, and the document that says so.

    `operation` is a regular expression of the whole name, `difference` and `scenario` are ones of the beginning.
    """

    side: str
    operation: str
    difference: str
    document: str
    scenario: str = ""

    def covers(self, difference: Difference, scenario: str) -> bool:
        return (
            self.side == difference.side
            and re.match(self.scenario, scenario) is not None
            and re.fullmatch(self.operation, difference.operation) is not None
            and re.match(self.difference, difference.line) is not None
        )


def explanations() -> list[Explanation]:
    table = tomllib.loads((FOLDER / "explained.toml").read_text(encoding="utf-8"))
    return [Explanation(side=side, **entry) for side in ("request", "answer") for entry in table[side]]


class Recorder:
    """Keeps what differs from the documents, and which operations were requested."""

    def __init__(self, scenario: str = "") -> None:
        self.scenario = scenario
        self.differences: dict[tuple[Difference, str], str] = {}  # difference and scenario → where it was seen first
        self.operations: set[str] = set()
        self._compared: set[tuple[Any, ...]] = set()

    def __call__(self, request: IncomingRequest, reply: Reply) -> None:
        if not request.path.startswith(("/oauth", "/_admin")):
            self.compare(request, reply)

    def compare(self, request: IncomingRequest, reply: Reply) -> None:
        operation, params = find_operation(request.method, request.path)
        name = operation or f"{request.method} {request.path}"
        self.operations.add(name)
        sent = _body(request)
        if self._is_new(name, (request.query, params, sent, request.content_type)):
            self._add("request", name, request.target, request_differences(operation, request, params, sent))
        if operation:
            self.compare_answer(operation, request.target, request.query, reply)

    def compare_answer(self, operation: str, target: str, query: dict[str, str], reply: Reply) -> None:
        """Compare an answer alone, also one whose request is not pdsync's."""
        answer, extra = _answer(reply), frozenset(re.findall(r"\w+", query.get("include_fields", "")))
        if self._is_new(operation, (reply.status, answer, sorted(extra))):
            self._add("answer", operation, target, answer_differences(operation, reply.status, answer, extra))

    def _add(self, side: str, operation: str, target: str, lines: Iterator[str]) -> None:
        for line in lines:
            self.differences.setdefault((Difference(side, operation, line), self.scenario), target)

    def _is_new(self, operation: str, value: Any) -> bool:
        """Whether nothing that looks the same came in this scenario before."""
        key = (self.scenario, operation, shape(value))
        is_new = key not in self._compared
        self._compared.add(key)
        return is_new

    def unexplained(self) -> list[str]:
        """A line for each difference that no entry explains."""
        table = explanations()
        found = {
            f"{each.side} {each.operation}: {each.line}": seen
            for (each, scenario), seen in self.differences.items()
            if not any(entry.covers(each, scenario) for entry in table)
        }
        return [f"{line}    [{seen[:100]}]" for line, seen in sorted(found.items())]

    def unused(self) -> list[Explanation]:
        """The entries that explain nothing any more."""
        return [
            entry
            for entry in explanations()
            if not any(entry.covers(each, scenario) for each, scenario in self.differences)
        ]


def _body(request: IncomingRequest) -> Any:
    if request.form is not None:
        upload = {"": request.upload.file_name} if request.upload else {}
        return {**request.form, **upload}
    return json.loads(request.body) if request.body else None


def _answer(reply: Reply) -> Any:
    return json.loads(reply.body) if "json" in reply.content_type and reply.body else None


def shape(value: Any) -> Any:
    """What tells two bodies apart: keys, types, words; of a list the different shapes of its elements."""
    if isinstance(value, dict):
        return tuple(("*" if _CUSTOM.fullmatch(key) else key, shape(inner)) for key, inner in sorted(value.items()))
    if isinstance(value, list | tuple):
        return frozenset(shape(each) for each in value), bool(value)
    if isinstance(value, str):
        return value if _WORD.fullmatch(value) else re.sub(r"\d", "0", value)[:24]
    return value if isinstance(value, bool) else type(value)


# Which operation it is.


@cache
def _templates() -> list[tuple[str, tuple[str, ...], str]]:
    """Method, parts of the path, name: names go before placeholders, current operations before removed ones."""
    listed = stored("listed")
    made = [
        (facts["method"], tuple(facts["path"].strip("/").split("/")), name)
        for name, facts in stored("operations").items()
    ]
    return sorted(
        made,
        key=lambda each: ([part.startswith("{") for part in each[1]], not listed[each[2]]["in_current_spec"]),
    )


def find_operation(method: str, path: str) -> tuple[str | None, dict[str, str]]:
    """The operation of the documents that a request is, and what stands in its path."""
    parts = tuple(path.removeprefix("/api/v1").strip("/").split("/"))
    if path.startswith("/api/v1/"):
        parts = ("v1", *parts)
    for each, pattern, name in _templates():
        if each == method and len(pattern) == len(parts):
            pairs = list(zip(pattern, parts, strict=True))
            if all(want.startswith("{") or want == got for want, got in pairs):
                return name, {want[1:-1]: got for want, got in pairs if want.startswith("{")}
    return None, {}


# Requests.


def request_differences(
    operation: str | None, request: IncomingRequest, params: dict[str, str], sent: Any
) -> Iterator[str]:
    if operation is None:
        yield "no document has it"
        return
    facts, listed = stored("operations")[operation], stored("listed")[operation]
    if not listed["in_current_spec"]:
        yield f"removed, replaced by {listed['replaced_by']}"
    elif facts["deprecated"]:
        yield f"deprecated, replaced by {listed['replaced_by']}"
    for group, values in (("path", params), ("query", request.query)):
        for name, text in values.items():
            yield from (f"{group} {name}: {line}" for line in _param_differences(facts, f"{group} {name}", text))
    for fact in facts:
        name = fact.removeprefix("query ").removesuffix(" required")
        if fact == f"query {name} required" and name not in request.query:
            yield f"query {name}: required, got nothing"
    yield from _body_differences(operation, facts, request, sent)


def _param_differences(facts: dict[str, Any], name: str, text: str) -> Iterator[str]:
    kind: str | None = facts.get(name)
    if kind is None:
        yield "unknown"
        return
    is_many = facts.get(f"{name} many") or kind.startswith("array")
    parts = text.split(",") if is_many or name == "query sort" else [text]
    if name == "query sort":  # `field ASC, another DESC`
        parts = [part.strip().removesuffix(" ASC").removesuffix(" DESC") for part in parts]
    single = kind.removeprefix("array[").removesuffix("]")
    enum = {str(each).lower() for each in facts.get(f"{name} enum", ())}
    for part in parts:
        if not _is_text_of(single, part):
            yield f"{kind}, got {part!r}"
        elif enum and part.lower() not in enum:
            yield f"one of {', '.join(sorted(enum))}, got {part!r}"
    most = facts.get(f"{name} max")
    if most and (len(parts) > most if is_many else int(text) > most):
        yield f"at most {most}, got {len(parts) if is_many else text}"


def _is_text_of(kind: str, text: str) -> bool:
    patterns = {
        "integer": r"-?\d+", "number": r"-?\d+(\.\d+)?", "boolean": "true|false|0|1", "string:date": r"\d{4}-\d\d-\d\d",
        "string:uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "string:date-time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
    }  # fmt: skip
    return kind not in patterns or re.fullmatch(patterns[kind], text) is not None


def _body_differences(operation: str, facts: dict[str, Any], request: IncomingRequest, sent: Any) -> Iterator[str]:
    content = request.content_type.partition(";")[0]
    if sent is None:
        if facts.get("body_required") or any(re.fullmatch(r"body \S+ required", fact) for fact in facts):
            yield "body: required, got nothing"
        return
    if not facts.get("content"):
        yield "body: none, got one"
        return
    if CONTENTS.get(content) != facts["content"]:
        yield f"body: as {facts['content']}, got {content}"
    if facts["content"] == "json":
        schema = stored("bodies").get(operation)
        if schema is not None:
            version = operation[:2]
            yield from (f"body {line}" for line in _schema_differences(version, schema, sent))
            yield from (f"body {line}" for line in _unknown_keys([schema], sent, version, ""))
        return
    # A form: values are texts; the file has no name of its own in what the sandbox hands on.
    for name, text in sent.items():
        if name:
            yield from (f"body {name}: {line}" for line in _param_differences(facts, f"body {name}", text))
    for fact in facts:
        name = fact.removeprefix("body ").removesuffix(" required")
        is_there = name in sent or (facts.get(f"body {name}") == "string:binary" and "" in sent)
        if fact == f"body {name} required" and not is_there:
            yield f"body {name}: required, got nothing"


# Answers.


def answer_differences(operation: str, status: int, answer: Any, extra: frozenset[str] = frozenset()) -> Iterator[str]:
    """What of an answer the documents do not say; nothing of an operation that is removed: they have none of it.

    `extra` are the keys that the request asked for besides.
    """
    documented = stored("answers").get(operation)
    if documented is None:
        return
    schema = documented.get(str(status))
    if schema is None:
        if status < 400 or status not in REFUSALS:
            yield f"status {status}: one of {', '.join(sorted(documented))}"
        elif not isinstance(answer, dict) or answer.get("success") is not False or answer.keys() - REFUSAL_KEYS:
            yield f"status {status}: no refusal of the common shape, got {str(answer)[:60]}"
        return
    if schema == {}:
        return  # bytes, or no schema
    version = operation[:2]
    yield from _schema_differences(version, schema, answer)
    examples = _examples().get(operation, []) if status < 400 else []
    for line in _unknown_keys([schema, *map(as_schema, examples)], answer, version, ""):
        if line.removesuffix(": unknown").rpartition("/")[2] not in extra:
            yield line
    if examples:
        yield from (f"{path}: missing" for path in sorted(missing_keys(examples[0], answer)))


def missing_keys(example: Any, answer: Any) -> Iterator[str]:
    """The keys that an example has and `answer` lacks: around the data, and in its first record."""
    if not isinstance(answer, dict):
        return
    yield from (key for key in example.keys() - answer.keys() if example[key] is not None)
    shown = [each["data"] for each in (example, answer) if "data" in each]
    first = [each[0] if isinstance(each, list) and each else each for each in shown]
    if len(first) == 2 and all(isinstance(each, dict) for each in first):
        yield from (
            f"data/{key}"
            for key in {*map(_name, first[0])} - {*map(_name, first[1])}
            if key != "*" and not _CUSTOM.fullmatch(key)
        )


def _name(key: str) -> str:
    """`key`, or a star where keys are values: ids, currencies."""
    return "*" if key.isdigit() or _CURRENCY.fullmatch(key) else key


@cache
def _examples() -> dict[str, list[Any]]:
    """The vendor's example answers by operation."""
    found: dict[str, list[Any]] = {}
    for name, content in stored("examples").items():
        if "/" not in name:
            found.setdefault(name, []).append(content)
        elif content["operation"] and name.startswith("examples/"):
            found.setdefault(content["operation"], []).append(content["answer"])
    return found


def as_schema(example: Any) -> dict[str, Any]:
    """The keys of an example as a schema."""
    if isinstance(example, dict):
        named = {key for key in example if _name(key) == key}
        keyed = [as_schema(inner) for key, inner in example.items() if key not in named]
        whole: dict[str, Any] = {"properties": {key: as_schema(example[key]) for key in named}}
        return {**whole, "additionalProperties": {"anyOf": keyed}} if keyed else whole
    if isinstance(example, list):
        return {"items": {"anyOf": [as_schema(each) for each in example]}}
    return {}


# Both.


@cache
def _checker() -> FormatChecker:
    checker = FormatChecker(formats=())
    checker.checks("date", ValueError)(lambda value: not isinstance(value, str) or bool(date.fromisoformat(value)))
    checker.checks("uuid")(lambda value: not isinstance(value, str) or _is_text_of("string:uuid", value))
    checker.checks("date-time", ValueError)(
        lambda value: not isinstance(value, str) or bool(datetime.fromisoformat(value))
    )
    return checker


@cache
def _validator(version: str, text: str) -> jsonschema.Draft4Validator:
    schema = {**json.loads(text), "components": stored("answers")[version]}
    return jsonschema.Draft4Validator(schema, format_checker=_checker())


def _schema_differences(version: str, schema: dict[str, Any], value: Any) -> set[str]:
    """Where `value` differs from `schema`: `data/*/id: type "integer", got str 'a'`."""
    return {_describe(error) for error in _validator(version, json.dumps(schema)).iter_errors(value)}


def _describe(error: jsonschema.ValidationError) -> str:
    parts = ("*" if isinstance(part, int) or _CUSTOM.fullmatch(part) else part for part in error.absolute_path)
    path = "/".join("*" if part.isdigit() else part for part in parts)
    if error.validator == "required":
        return f"{path}: {_CODE.sub('<code>', error.message)}"
    value = error.instance
    got = "null" if value is None else type(value).__name__
    if isinstance(value, str | int | float) and error.validator != "type":
        got += f" {value!r}"[:40]
    return f"{path}: {error.validator} {json.dumps(error.validator_value)[:100]}, got {got}"


def _unknown_keys(schemas: list[Any], value: Any, version: str, path: str) -> Iterator[str]:
    """The keys of `value` that none of `schemas` has, where they have any."""
    parts = [each for schema in schemas for each in _flat(schema, version)]
    if isinstance(value, list):
        items = [part["items"] for part in parts if "items" in part]
        yield from {line for each in value for line in _unknown_keys(items, each, version, f"{path}*/")}
    if not isinstance(value, dict):
        return
    properties: dict[str, list[Any]] = {}
    for part in parts:
        for name, inner in part.get("properties", {}).items():
            properties.setdefault(_name(name), []).append(inner)
    others = [part["additionalProperties"] for part in parts if isinstance(part.get("additionalProperties"), dict)]
    is_open = any(part.get("additionalProperties") is True for part in parts)
    for key, inner in value.items():
        name = _name(key)
        if name in properties:
            yield from _unknown_keys(properties[name], inner, version, f"{path}{name}/")
        elif others:
            yield from _unknown_keys(others, inner, version, f"{path}*/")
        elif properties and not is_open and not _CUSTOM.fullmatch(name):
            yield f"{path}{name}: unknown"


def _flat(schema: Any, version: str) -> Iterator[dict[str, Any]]:
    """A schema and all that it is made of."""
    if not isinstance(schema, dict):
        return
    if "$ref" in schema:
        yield from _flat(stored("answers")[version]["schemas"][schema["$ref"].rsplit("/", 1)[-1]], version)
    yield schema
    for key in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(key, ()):
            yield from _flat(part, version)
