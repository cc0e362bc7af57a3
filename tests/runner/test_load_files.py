"""A file is loaded into the table of the stream whose records it holds, and into no other."""

from __future__ import annotations

import json
import os
import urllib.request
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue, config
from pdsync.errors import ConfigError
from pdsync.load import warehouse
from pdsync.runner.sync.load_files import check_records, load
from pdsync.sandbox import Limits, Sizes, generate_company, running

if TYPE_CHECKING:
    from pdsync.model import Version

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
# Leads have the fields of deals; the sandbox's other fields have no names that show whose they are.
DEFINITIONS = {name for name, stream in catalogue.streams().items() if stream.key == "field_code"}
ANY_DEFINITIONS = {"lead_fields", "note_fields", "activity_fields", "project_fields"}
ALIKE = {"deal_fields", "lead_fields"}
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
        assert taken <= (DEFINITIONS if name in ANY_DEFINITIONS else ALIKE if name in ALIKE else {name}), (
            name,
            version,
        )


@pytest.mark.parametrize("stream", ["deals", "persons", "organizations", "leads", "activities"])
def test_a_record_with_a_few_keys_and_one_of_the_user_s_own_is_loaded(stream: str) -> None:
    title = catalogue.stream(stream).title
    body = json.dumps([{"id": 1, title: "x"}, {"id": 2, title: "y", "update_time": None, "our_note": 1}])
    check_records(FILE, [b'{"data":' + body.encode() + b"}"], catalogue.stream(stream), "v2", is_given=False)


@pytest.mark.parametrize("how", ["its own time", "--as-of"])
async def test_s6_o5_a_file_dated_tomorrow_is_as_old_as_now(tmp_path: Path, how: str) -> None:
    file, tomorrow = tmp_path / "deals.json", datetime.now(UTC) + timedelta(days=1)
    file.write_text('[{"id": 1, "title": "x", "update_time": "2026-01-01T00:00:00Z"}]')
    os.utime(file, (tomorrow.timestamp(), tomorrow.timestamp()))
    settings = config.load(tmp_path / "project")
    as_of = tomorrow if how == "--as-of" else None
    await load(settings, catalogue.stream("deals"), [file], version="v2", as_of=as_of, company=7)
    with closing(warehouse.connect(settings.warehouse, read_only=True)) as connection:
        ((verified_at,),) = connection.execute("SELECT _verified_at FROM deals").fetchall()
    assert verified_at <= datetime.now(UTC)
