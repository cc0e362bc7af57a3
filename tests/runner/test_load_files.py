"""A file is loaded into the table of the stream whose records it holds, and into no other."""

from __future__ import annotations

import json
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.runner.sync.load_files import check_records
from pdsync.sandbox import Limits, Sizes, generate_company, running

if TYPE_CHECKING:
    from pdsync.model import Version

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
# What the definitions of two streams' fields look like is the same.
DEFINITIONS = {name for name, stream in catalogue.streams().items() if stream.key == "field_code"}
FILE = Path("saved.json")
LISTS: list[tuple[str, Version, int]] = [
    (name, version, number)
    for name, stream in catalogue.streams().items()
    for version in catalogue.VERSIONS
    for number, source in enumerate(stream.v1 if version == "v1" else stream.v2)
    if not source.parent and not source.params
]


@pytest.fixture(scope="module")
def answers() -> dict[tuple[str, Version, int], bytes]:
    """What each list answers when it is asked for no more than it must be."""
    company = generate_company(seed=21, sizes=Sizes(deals=60, mail_threads=20, files=20), now=NOW)
    found = {}
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        for name, version, number in LISTS:
            stream = catalogue.stream(name)
            source = (stream.v1 if version == "v1" else stream.v2)[number]
            path = catalogue.operations(version)[source.operation].path
            own = "&".join(f"{key}={value}" for key, value in source.query.items() if key != "include_fields")
            request = urllib.request.Request(f"{box.url}{path}?{own}", headers={"x-api-token": box.token})
            with urllib.request.urlopen(request, timeout=10) as answer:
                body = json.load(answer)
            if isinstance(body["data"], list) and body["data"]:
                found[name, version, number] = json.dumps({"data": body["data"]}).encode()
    return found


def taken_for(body: bytes, version: Version, *, chosen: bool) -> set[str]:
    """The streams into whose tables an answer would be loaded."""
    taken = set()
    for name, stream in catalogue.streams().items():
        try:
            check_records(FILE, [body], stream, version, is_given=chosen)
        except ConfigError:
            continue
        taken.add(name)
    return taken


@pytest.mark.parametrize("chosen", [True, False], ids=["--api", "told by the keys"])
def test_s9_every_answer_is_loaded_as_what_it_is_and_as_nothing_else(
    answers: dict[tuple[str, Version, int], bytes], chosen: bool
) -> None:
    assert len(answers) > 50
    for (name, version, _), body in answers.items():
        taken = taken_for(body, version, chosen=chosen)
        assert name in taken, (name, version)
        assert taken <= (DEFINITIONS if name in DEFINITIONS else {name}), (name, version)


@pytest.mark.parametrize("stream", ["deals", "persons", "organizations", "leads", "activities"])
def test_a_record_with_a_few_keys_and_one_of_the_user_s_own_is_loaded(stream: str) -> None:
    title = catalogue.stream(stream).title
    body = json.dumps([{"id": 1, title: "x"}, {"id": 2, title: "y", "update_time": None, "our_note": 1}])
    check_records(FILE, [b'{"data":' + body.encode() + b"}"], catalogue.stream(stream), "v2", is_given=False)
