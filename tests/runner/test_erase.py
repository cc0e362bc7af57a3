"""Forgetting a person redacts what identifies them alone, and waits for no mutation that mentions them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
import zstandard
from msgspec.structs import replace

from pdsync.core import catalogue
from pdsync.errors import ConfigError, StorageError
from pdsync.extract.download_folder import Folder, ManifestEntry
from pdsync.extract.redact import Redactor
from pdsync.load import publish
from pdsync.model import Page, Tombstone
from pdsync.runner import kept_uploads, project, unlocked
from pdsync.runner.archive.erase import _find_own_mutations, _refuse_open_mutations, forget_person
from pdsync.runner.loader import Loader
from pdsync.runner.queue_recovery import open_outbox as open_queue
from pdsync.runner.report.mutation_log import save_mutation_log
from pdsync.runner.sync.walk_loader import tombstone
from tests.runner.kit import COMPANY, T0, deal, encode, load, open_session, text
from tests.writeback.kit import bring_to, entry, open_outbox

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


async def test_threat_13_a_phone_number_with_the_digits_of_a_day_leaves_the_times_of_that_day(tmp_path: Path) -> None:
    async with open_session(tmp_path) as session:
        caller = {**person(1, "Grace Hopper", MAIL), "phones": [{"value": f"{T0:%Y%m%d}"}]}
        await load(session, "persons", caller, person(2, "Ada Lovelace", "ada@example.com"))
        await load(session, "deals", deal(1))
    await forget_person(session.settings, 1)
    with unlocked.open_warehouse(session.settings) as warehouse:
        assert warehouse.execute("SELECT id, update_time FROM deals").fetchall() == [(1, T0)]


async def test_threat_13_tombstones_in_the_archive_stop_no_erasure(settings: Settings, tmp_path: Path) -> None:
    """The person was deleted in Pipedrive first, as the manual says, and reconcile or a push sealed the evidence."""
    async with open_session(tmp_path) as session:
        for stream, key, evidence in (("persons", "1", "Grace Hopper is gone"), ("deals", "2", "GET answered 404")):
            await tombstone(session, catalogue.stream(stream), [Tombstone(key, "deleted", evidence, T0)])
    would = await forget_person(settings, 1, dry_run=True)
    assert would.mentions == {"deals": 1, "persons": 1}
    report = await forget_person(settings, 1)
    assert (report.records, report.mentions) == (would.records, would.mentions)
    assert "Grace" not in sealed(settings)
    assert "[forgotten] is gone" in sealed(settings)
    with unlocked.open_warehouse(settings) as warehouse:
        assert warehouse.execute("SELECT id FROM persons").fetchall() == [(2,)]
        assert warehouse.execute("SELECT id FROM deals WHERE _deleted_at IS NOT NULL").fetchall() == [(2,)]


async def test_threat_13_a_quarantined_record_keeps_no_person_on_its_page(settings: Settings, tmp_path: Path) -> None:
    async with open_session(tmp_path) as session:
        stream = catalogue.stream("persons")
        version, [source, *_] = stream.sources("v2")
        run, later = session.receipt.run_id, T0 + timedelta(hours=1)
        walk = session.control.open_walk(run, "persons", source.name, version, source.operation, None)
        walk = replace(walk, started_at=T0)
        good = encode([{**person(1, "Grace Hopper", MAIL), "update_time": text(later)}])
        body = good.replace(b"[", b'[{"id":3,"name":"bad \xff"},', 1)
        page = Page(walk.id, 0, body, 2, None, later)
        await session.archive.seal(walk, page)
        counts = await session.loader.add(stream, walk, [page])
        session.control.end_walk(walk.id, "applied")
    assert counts
    assert (counts.updated, counts.quarantined) == (1, 1)
    report = await forget_person(settings, 1)
    assert report.records == {"persons": 2, "notes": 1}
    with unlocked.open_warehouse(settings) as warehouse:
        assert warehouse.execute("SELECT id FROM persons").fetchall() == [(2,)]
        assert warehouse.execute("SELECT record FROM meta.quarantine").fetchall() == [(b'{"id":3,"name":"bad \xff"}',)]


async def test_threat_13_what_only_the_warehouse_has_of_the_queue_is_redacted_too(
    settings: Settings, tmp_path: Path
) -> None:
    """control.db and the journal were lost: nothing else shows whose mutation it is."""
    (tmp_path / "lost").mkdir()
    lost = open_outbox(tmp_path / "lost", journal=False)
    (mutation,) = lost.add([entry("v2 updatePerson", {"id": 1, "name": "Amazing Gracie"})])
    bring_to(lost, "applied", mutation)
    loader = Loader(project.work_path(settings))
    await loader.do(loader.open, COMPANY, "Acme")
    await loader.do(save_mutation_log, loader, lost, {})
    await loader.close()
    await forget_person(settings, 1)
    with unlocked.open_warehouse(settings) as warehouse:
        ((payload,),) = warehouse.execute("SELECT payload FROM meta.mutations").fetchall()
    assert "Gracie" not in payload
    with unlocked.open_control(settings) as control:
        assert "Gracie" not in str(control.rows("SELECT * FROM mutations"))


async def interrupt_before_rebuild(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget person 1, interrupted when the sources are clean and the warehouse is not rebuilt yet."""

    async def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pdsync.runner.archive.erase._rebuild", die)
        with pytest.raises(KeyboardInterrupt):
            await forget_person(settings, 1)


async def test_threat_13_an_interrupted_erasure_is_finished_without_the_name(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await interrupt_before_rebuild(settings, monkeypatch)
    would = await forget_person(settings, 1, dry_run=True)
    assert would.resumed
    with unlocked.open_control(settings) as control:
        assert control.begun_erasures("person", 1) == 1
    report = await forget_person(settings, 1)
    assert report.resumed
    assert "Grace" not in sealed(settings)


async def test_threat_13_what_only_the_warehouse_has_is_gone_though_the_work_file_was_lost_after_an_interruption(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = project.work_path(settings)
    with duckdb.connect(str(work)) as connection:
        row = "('run', now(), 'deals', '1', 'stale', 'it was for Grace Hopper', NULL, true)"
        connection.execute(f"INSERT INTO meta.findings VALUES {row}")
    publish.publish(work, settings.warehouse)

    await interrupt_before_rebuild(settings, monkeypatch)
    work.unlink()
    await forget_person(settings, 1)
    with unlocked.open_warehouse(settings) as connection:
        [(evidence,)] = connection.execute("SELECT evidence FROM meta.findings").fetchall()
    assert evidence == "it was for [forgotten]"


async def test_threat_13_an_interrupted_erasure_removes_what_came_since_and_what_is_named_now(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await interrupt_before_rebuild(settings, monkeypatch)
    async with open_session(tmp_path) as session:  # the nightly sync ran before the same command
        await load(session, "persons", person(1, "Grace Hopper", MAIL))
        await load(session, "deals", deal(3, title="from Grace Hopper"), deal(4, title="from Amazing Gracie"))
    report = await forget_person(settings, 1, ["Amazing Gracie"])
    assert report.resumed
    assert (report.records, report.mentions) == ({"persons": 1}, {"deals": 2})
    assert "Grac" not in sealed(settings)
    with unlocked.open_warehouse(settings) as warehouse:
        assert warehouse.execute("SELECT id FROM persons").fetchall() == [(2,)]
    with unlocked.open_control(settings) as control:
        assert control.begun_erasures("person", 1) == 0


async def test_threat_13_a_warehouse_that_could_not_be_rebuilt_is_refused_before_anything_is_redacted(
    settings: Settings,
) -> None:
    publish.publish(project.work_path(settings), settings.warehouse)
    [file] = settings.raw.glob("*.zst")
    with unlocked.open_control(settings) as control:
        walk = next(walk.id for walk, _ in control.walks() if walk.stream == "deals")
        control.replace_pages([], [(walk, 0)], [])
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=r"lacks pages .* \(deals: 2 rows written\)"):
        await forget_person(settings, 1)
    assert file.read_bytes() == before
    with unlocked.open_control(settings) as control:
        assert control.begun_erasures("person", 1) == 0


async def test_o4_a_damaged_raw_file_is_kept_and_the_erasure_refused(settings: Settings) -> None:
    """control.db was lost and has no page of that file, so that it would be removed as an unused one."""
    damaged, before = settings.raw / "20261122T120000-0a1b2c-01234567.zst", sealed(settings)
    damaged.write_bytes(b"no header, then pages")
    with pytest.raises(StorageError, match="Nothing was changed"):
        await forget_person(settings, 1)
    assert damaged.exists()
    damaged.unlink()
    assert sealed(settings) == before


def upload(settings: Settings, name: str, state: State, **params: Any) -> Path:
    """A file that is kept for an upload in `state`."""
    with unlocked.open_control(settings) as control:
        outbox = open_queue(settings, control)
        file = kept_uploads.keep(settings, b"all about her", name)
        mutation = outbox.add([entry("v1 addFile", {"file": str(file), **params})])[0]
        if state != "queued":
            bring_to(outbox, state, mutation)
    return file


async def test_threat_13_files_kept_for_uploads_go_unless_they_wait_and_are_of_others(settings: Settings) -> None:
    ended = upload(settings, "cv.pdf", "applied", person_id=1)
    of_other = upload(settings, "offer.pdf", "needs_review", deal_id=2)
    of_person = upload(settings, "letter.pdf", "needs_review", person_id=1)
    named = upload(settings, "Grace Hopper.pdf", "needs_review", deal_id=2)
    orphan = kept_uploads.keep(settings, b"left by a kill", "orphan.pdf")
    would = await forget_person(settings, 1, dry_run=True)
    assert all(path.exists() for path in (ended, of_other, of_person, named, orphan))
    report = await forget_person(settings, 1)
    assert would.uploads == report.uploads == 4
    assert [path.name for path in (settings.control.parent / "uploads").glob("*/*")] == ["offer.pdf"]


async def test_threat_13_an_upload_to_the_person_that_is_not_sent_yet_is_refused(settings: Settings) -> None:
    file = upload(settings, "cv.pdf", "queued", person_id=1)
    with pytest.raises(ConfigError, match="pdsync queue drop #1"):
        await forget_person(settings, 1)
    assert file.exists()


async def test_threat_13_a_dry_run_counts_downloads_and_leaves_them(settings: Settings) -> None:
    root = settings.state / "files"
    root.mkdir()
    (root / "1.pdf").write_bytes(b"cv")
    with Folder(root) as folder:
        folder.rewrite({1: ManifestEntry(1, "cv.pdf", "1.pdf", 2, "", COMPANY, T0, person_id=1)})
    assert (await forget_person(settings, 1, dry_run=True)).downloads == 1
    assert (root / "1.pdf").exists()
    assert (await forget_person(settings, 1)).downloads == 1
    assert not (root / "1.pdf").exists()


async def test_threat_13_what_killed_downloads_exports_and_replays_left_of_the_person_goes(
    settings: Settings, tmp_path: Path
) -> None:
    async with open_session(tmp_path) as session:
        link = {"name": "cv.pdf", "person_id": 1, "update_time": "2026-11-22 12:00:00"}
        await load(session, "files", {"id": 1, **link}, {"id": 2, **link}, {"id": 3, **link, "person_id": 2})
    root = settings.state / "files"
    root.mkdir()
    for name in ("1.pdf", ".2.pdf.part", "3.pdf"):  # killed before the line of the manifest, and before the end
        (root / name).write_bytes(b"about someone")
    spilled = settings.warehouse.with_name("warehouse.replay.duckdb.tmp")
    made = [settings.state / ".export-0123456789ab-x", settings.state / "export" / ".making-x"]
    for folder in (spilled, *made):
        folder.mkdir(parents=True)
        (folder / "persons.parquet").write_bytes(b"Grace Hopper")
    (made[0] / "noted").write_text("persons/snapshot=x/data.parquet\n")
    assert (await forget_person(settings, 1, dry_run=True)).downloads == 1
    assert (root / ".2.pdf.part").exists()
    assert (await forget_person(settings, 1)).downloads == 1
    assert [path.name for path in root.iterdir()] == ["3.pdf"]
    assert not spilled.exists()
    assert [path.name for folder in made for path in folder.iterdir()] == ["noted"]


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
