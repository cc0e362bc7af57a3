"""Forgetting a person redacts what identifies them alone, and waits for no mutation that mentions them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from pdsync.errors import ConfigError
from pdsync.extract.redact import Redactor
from pdsync.runner import unlocked
from pdsync.runner.archive.erase import _find_own_mutations, _refuse_open_mutations, forget_person
from tests.runner.kit import T0, deal, load, open_session, text
from tests.writeback.kit import bring_to, entry

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.model import State
    from pdsync.writeback.outbox import Outbox

MAIL = "grace.hopper@example.com"


def person(id: int, name: str, mail: str) -> dict[str, Any]:
    return {
        "id": id,
        "name": name,
        "update_time": text(T0),
        "emails": [{"value": mail, "primary": True, "label": "work"}],
    }


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    """Persons 1 and 2; a deal and a note that mention 1; a deal that does not."""
    async with open_session(tmp_path) as session:
        await load(session, "persons", person(1, "Grace Hopper", MAIL), person(2, "Ada Lovelace", "ada@example.com"))
        await load(session, "deals", deal(1, title="for Grace Hopper", person_id=1), deal(2, person_id=2))
        note = {"id": 9, "content": "call her", "person_id": 1, "update_time": "2026-11-22 12:00:00"}
        await load(session, "notes", note)
    return session.settings


def sealed(settings: Settings) -> str:
    """All bodies of the raw archive."""
    bodies = []
    for path in settings.raw.glob("*.zst"):
        with path.open("rb") as file:
            bodies.append(zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read().decode())
    return "\n".join(bodies)


async def test_threat_13_a_dry_run_counts_and_changes_nothing(settings: Settings) -> None:
    before = sealed(settings)
    report = await forget_person(settings, 1, dry_run=True)
    assert (report.records, report.mentions) == ({"persons": 1, "notes": 1}, {"deals": 1})
    assert (report.pages, report.raw_files) == (3, 1)
    assert sealed(settings) == before
    with unlocked.open_control(settings) as control:
        assert control.begun_erasures("person", 1) == 0


async def test_threat_13_the_person_is_gone_and_the_others_are_not(settings: Settings) -> None:
    await forget_person(settings, 1)
    after = sealed(settings)
    assert "Grace" not in after
    assert MAIL not in after
    assert "call her" not in after
    assert "for [forgotten]" in after
    assert "Ada Lovelace" in after
    with unlocked.open_warehouse(settings) as warehouse:
        assert warehouse.execute("SELECT id FROM persons").fetchall() == [(2,)]
        assert warehouse.execute("SELECT title FROM deals ORDER BY id").fetchall() == [
            ("for [forgotten]",),
            ("deal 2",),
        ]
        assert warehouse.execute("SELECT count(*) FROM notes").fetchall() == [(0,)]


async def test_threat_13_an_interrupted_erasure_is_finished_without_the_name(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pdsync.runner.archive.erase._rebuild", die)
        with pytest.raises(KeyboardInterrupt):
            await forget_person(settings, 1)
    report = await forget_person(settings, 1)
    assert report.resumed
    assert "Grace" not in sealed(settings)


async def test_an_unknown_person_is_an_error_unless_a_text_is_named(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="Nothing was changed"):
        await forget_person(settings, 404)
    report = await forget_person(settings, 404, ["for Grace Hopper"], dry_run=True)
    assert report.mentions == {"deals": 1}


@pytest.mark.parametrize(
    ("operation", "payload", "record", "is_own"),
    [
        ("v2 addPerson", {"name": "x"}, "1", True),
        ("v2 addPerson", {"name": "x"}, "2", False),
        ("v2 updatePerson", {"id": 1, "name": "x"}, None, True),
        ("v2 updatePerson", {"id": 2, "name": "x"}, None, False),
        ("v2 updatePerson", {"id": 11, "name": "x"}, None, False),
        ("v2 deletePerson", {"id": 1}, None, True),
        ("v1 mergePersons", {"id": 2, "merge_with_id": 1}, None, True),
        ("v2 updateDeal", {"id": 1, "title": "x"}, None, False),
    ],
)
def test_threat_13_mutations_of_the_person_are_their_own(
    outbox: Outbox, operation: str, payload: dict[str, Any], record: str | None, is_own: bool
) -> None:
    mutation = outbox.add([entry(operation, payload)])[0]
    outbox.settle(mutation.id, "applied", remote_id=record)
    assert _find_own_mutations(outbox, 1) == ({mutation.id} if is_own else set())


@pytest.mark.parametrize(
    ("payload", "state", "is_refused"),
    [
        ({"id": 12, "title": "call Grace Hopper"}, "queued", True),
        ({"id": 12, "title": "call Grace Hopper"}, "unknown", True),
        ({"id": 12, "title": "call Grace Hopper"}, "applied", False),
        ({"id": 12, "title": "call"}, "queued", False),
    ],
)
def test_threat_13_what_is_not_sent_yet_is_not_redacted(
    outbox: Outbox, payload: dict[str, Any], state: State, is_refused: bool
) -> None:
    bring_to(outbox, state, outbox.add([entry("v2 updateDeal", payload)])[0])
    redactor = Redactor(1, {"Grace Hopper"})
    if is_refused:
        with pytest.raises(ConfigError, match="pdsync queue drop #1"):
            _refuse_open_mutations(outbox, redactor, 1, set())
    else:
        _refuse_open_mutations(outbox, redactor, 1, set())
