"""Forgets a person: removes their data from every file of the project.

Everything else is derived from the sealed answers, so these are redacted first, and then the warehouse is rebuilt from
them: it is not edited in place, so no free block of the old file keeps a copy. In this order, because a kill may come
at any instant:

1. the person's names, addresses and numbers are collected from all sealed versions of their record;
2. raw files that mention them are rewritten under new names;
3. data that only the warehouse, the journal of the outbox and the folder of downloads contain is redacted;
4. one transaction in control.db switches to the new raw files, redacts its own texts, and records that an erasure has
   begun;
5. the old raw files are deleted, the warehouse is rebuilt and published, control.db is vacuumed.

A kill before step 4: the same command starts over. After it: the same command finishes the rest, without needing the
person's names, and removes what was read of them since then.

Removed: the person's record, the payloads of mutations of it, their notes, the texts of mails that they sent or
received, the lists that were requested for them (changes, files, mails, followers), downloaded files that are attached
to them or named after them, and all files kept for uploads that have ended. Kept: other records, with `[forgotten]` in
place of the person's name, addresses and numbers; ids.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.control import ErasedRecord
from pdsync.core.list_response import open_envelope
from pdsync.core.log import log
from pdsync.core.wording import counted
from pdsync.errors import ConfigError, StorageError
from pdsync.extract import raw_archive, raw_file
from pdsync.extract.attachments import file_to_fetch
from pdsync.extract.download_folder import Folder
from pdsync.extract.redact import RedactionCounts, Redactor, identifiers_of, unique_identifiers
from pdsync.load import carry_over, reader_objects, warehouse
from pdsync.model import FINDINGS, OPEN
from pdsync.runner import kept_uploads, project, stores
from pdsync.runner.archive.replay import Selection, check_archive, locked_replay
from pdsync.runner.queue_recovery import open_outbox, recover
from pdsync.writeback.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from pdsync.core.config import Settings
    from pdsync.core.control import Control, SealedPage
    from pdsync.model import Mutation, Operation, Walk
    from pdsync.runner.session import Event
    from pdsync.writeback.outbox import Outbox

# Stream → the key with a person's id, whose record is removed whole.
_PERSON_KEYS = {"persons": "id", "notes": "person_id"}
# Streams whose records are removed whole if the person is among their senders or recipients.
_OF_PARTIES = frozenset({"mail_message_bodies"})


class ErasureReport(Struct):
    """What an erasure removed, in counts: nothing in it names the person."""

    records: dict[str, int] = {}  # by stream: records that were removed
    mentions: dict[str, int] = {}  # by stream: records that were redacted
    pages: int = 0
    raw_files: int = 0
    downloads: int = 0
    uploads: int = 0  # files that were kept for uploads
    cells: int | None = 0  # texts of control.db and of meta.*; None: a dry run does not count them
    shared: int = 0  # names that other persons have too, or single words: kept where no id shows that they are meant
    resumed: bool = False  # it finished an interrupted erasure


class _Identifiers(Struct, frozen=True):
    """The texts in the archive that identify the person."""

    unique: set[str]
    shared: set[str]  # that other persons have too
    records: int  # sealed versions of the person's record


async def forget_person(
    settings: Settings,
    id: int,
    also: Collection[str] = (),
    on_note: Callable[[str], None] = log.warning,
    *,
    dry_run: bool = False,
) -> ErasureReport:
    """Remove the person `id` from everything the project stores.

    Args:
        settings: of the project.
        id: of the person, in Pipedrive.
        also: further texts that identify them: a maiden name, an old address.
        on_note: is called with messages for the user.
        dry_run: count only, and change nothing. Of an interrupted erasure nothing is counted.

    Raises:
        ConfigError: there is no such person in the archive, or queued mutations mention them, or the archive lacks
            pages that the warehouse was built from, which could not be rebuilt.
        ProjectLocked: another run has the lock.
        StorageError: a sealed page or a raw file is damaged, or the disk is full. Fix that, then run the same command
            again.
    """
    with project.locked(settings, on_note) as control:
        is_begun = control.begun_erasures("person", id) > 0  # it was interrupted after step 4
        if is_begun and dry_run:
            return ErasureReport(resumed=True)
        report = _clean_sources(settings, control, id, also, on_note, dry_run=dry_run, is_begun=is_begun)
        if not dry_run:
            await _rebuild(settings, control, id, report, on_note)
    return report


def _clean_sources(
    settings: Settings,
    control: Control,
    id: int,
    also: Collection[str],
    on_note: Callable[[str], None],
    *,
    dry_run: bool,
    is_begun: bool,
) -> ErasureReport:
    """Redact everything that the warehouse is rebuilt from; with `dry_run` only count.

    Args:
        settings: of the project.
        control: its control.db.
        id: of the person.
        also: further texts that identify them.
        on_note: is called with messages for the user.
        dry_run: only count.
        is_begun: an earlier run has redacted these files, and did not finish: their names may be gone.
    """
    _refuse_damaged_file(settings, control)
    outbox = _recover_outbox(settings, control)
    own_mutations = _find_own_mutations(outbox, id)
    walks = {walk.id: walk for walk, _ in control.walks()}
    by_file: dict[str, list[SealedPage]] = {}
    for page in control.pages():
        by_file.setdefault(page.file, []).append(page)
    identifiers = _gather_identifiers(settings, walks, by_file, id)
    if not identifiers.records and not also and not is_begun:
        raise ConfigError(
            f"No sealed answer contains a person {id}. Nothing was changed.\n"
            f"To remove a text that identifies them: --also TEXT"
        )
    redactor = Redactor(id, identifiers.unique | set(also))
    report = ErasureReport(shared=len(identifiers.shared), resumed=is_begun)
    _refuse_open_mutations(outbox, redactor, id, own_mutations)
    changed_files = _count_traces(settings, walks, by_file, redactor, report)
    attached = _find_attached(settings, walks, by_file, redactor, id)
    if dry_run:
        report.downloads, report.cells = _remove_downloads(settings, redactor, id, attached, dry_run=True), None
        report.uploads = _remove_uploads(settings, outbox, redactor, id, own_mutations, dry_run=True)
        return report

    project.ready_work_file(settings, control)
    check_archive(settings, control, [project.work_path(settings), settings.warehouse], Selection.by_names(()))

    def redact(page: SealedPage, body: bytes) -> tuple[bytes, int]:
        return _redact_page(redactor, walks[page.walk], page, body)[:2]

    written = [raw_file.rewrite(settings.raw, name, by_file[name], (), redact) for name in changed_files]

    def clean(text: str, column: str, mutation: str | None) -> str:
        return redactor.redact_cell(text, column, is_own=mutation in own_mutations)

    report.downloads = _remove_downloads(settings, redactor, id, attached)
    report.uploads = _remove_uploads(settings, outbox, redactor, id, own_mutations)
    cells = _clean_work_file(settings, control, clean, on_note)
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-forget"
    cells += Journal(settings.raw).rewrite(lambda text, mutation: clean(text, "", mutation))
    report.cells = cells + control.erase(
        ErasedRecord(run_id, "person", id),
        [page for each in written for page in each.moved],
        [(walk, seq, run_id, "a person was forgotten") for each in written for walk, seq in each.changed],
        clean,
    )
    return report


def _count_traces(
    settings: Settings,
    walks: dict[int, Walk],
    by_file: dict[str, list[SealedPage]],
    redactor: Redactor,
    report: ErasureReport,
) -> list[str]:
    """Count in `report` what the archive has of the person; the names of the raw files that have any of it."""
    changed_files = []
    for name, pages in by_file.items():
        pages_before = report.pages
        for page in pages:
            _, _, found = _redact_page(redactor, walks[page.walk], page, raw_archive.read(settings.raw, page))
            report.pages += bool(found.removed or found.changed)
            for counts, count in ((report.records, found.removed), (report.mentions, found.changed)):
                if count:
                    stream = walks[page.walk].stream
                    counts[stream] = counts.get(stream, 0) + count
        changed_files += [name] if report.pages > pages_before else []
    report.raw_files = len(changed_files)
    return changed_files


def _refuse_damaged_file(settings: Settings, control: Control) -> None:
    """Refuse while a raw file is damaged: what can't be read may be of the person.

    Raises:
        StorageError: there is such a file.
    """
    if damaged := stores.index_archive(settings, control):
        raise StorageError(
            f"{str(damaged[0].fault).splitlines()[0]}\nWhat is there may be of the person too. Nothing was changed. Put"
            f" that file back from a backup, or move it out of the folder, and run the same command again."
        )


def _find_own_mutations(outbox: Outbox, id: int) -> set[str]:
    """The ids of the mutations that add, change, delete or merge the person."""
    return {
        each.id
        for each in outbox.mutations(images=False)
        if (each.target or "").split("/")[:2] == ["persons", str(id)]
        or (each.kind == "persons" and str(id) in (each.remote_id, str(each.payload.get("merge_with_id"))))
    }


def _refuse_open_mutations(outbox: Outbox, redactor: Redactor, id: int, own: Collection[str]) -> None:
    """Refuse while mutations that mention the person are not sent yet: redacted, they could not be sent.

    Raises:
        ConfigError: there are such mutations.
    """
    waiting = [f"#{each.seq}" for each in outbox.mutations(OPEN, images=False) if _is_about(each, redactor, id, own)]
    if waiting:
        raise ConfigError(
            f"Not sent yet, and about person {id}: {counted(len(waiting), 'queued change')}. Nothing was changed.\n"
            f"Send them (pdsync push), or drop them: pdsync queue drop {' '.join(waiting)}"
        )


def _is_about(mutation: Mutation, redactor: Redactor, id: int, own: Collection[str]) -> bool:
    """Whether a mutation is of the person, mentions them, or attaches a file to them."""
    text = msgspec.json.encode(mutation.payload).decode()
    is_attached = mutation.kind == "files" and str(mutation.payload.get("person_id")) == str(id)
    return mutation.id in own or is_attached or redactor.redact_cell(text) != text


def _gather_identifiers(
    settings: Settings, walks: dict[int, Walk], by_file: dict[str, list[SealedPage]], id: int
) -> _Identifiers:
    """The names, addresses and numbers of all sealed versions of the person, apart from those that others share."""
    own, others, records = set[str](), set[str](), 0
    for value in _read_records(settings, walks, by_file, "persons"):
        if value.get("id") == id:
            own |= identifiers_of(value)
            records += 1
        else:
            others |= identifiers_of(value)
    unique, shared = unique_identifiers(own, others)
    return _Identifiers(unique, shared, records)


def _read_records(
    settings: Settings, walks: dict[int, Walk], by_file: dict[str, list[SealedPage]], stream: str
) -> Iterator[dict[str, Any]]:
    """All sealed versions of the records of a stream, apart from those that are in quarantine as no JSON."""
    for page in (page for pages in by_file.values() for page in pages):
        walk = walks[page.walk]
        if walk.stream == stream and walk.source != FINDINGS and (body := raw_archive.read(settings.raw, page)):
            for record in open_envelope(body, _operation(walk)).records:
                with contextlib.suppress(ValueError, RecursionError):
                    value = json.loads(bytes(record).decode("utf-8", "replace"))
                    if isinstance(value, dict):
                        yield value


def _operation(walk: Walk) -> Operation | None:
    return catalogue.operations(walk.version).get(walk.operation)


def _redact_page(redactor: Redactor, walk: Walk, page: SealedPage, body: bytes) -> tuple[bytes, int, RedactionCounts]:
    """The page without the person, its number of rows, and what was found; see `Redactor.redact_page`."""
    if not body:  # marks the end of a walk
        return body, page.rows, RedactionCounts()
    if walk.source == FINDINGS:  # no answer, but tombstones with their evidence
        evidence = redactor.redact_cell(body.decode()).encode()
        return evidence, page.rows, RedactionCounts(changed=int(evidence != body))
    key = parent_param = None
    stream = catalogue.streams().get(walk.stream)
    if stream is not None:
        key = _PERSON_KEYS.get(stream.name)
        parents = [source.parent for source in stream.sources(walk.version)[1] if source.parent]
        for parent in parents:
            if parent.stream == "persons":
                parent_param = parent.param
                paths = [
                    stream.column(c).path(c, walk.version) for c, other in stream.labels.items() if other == "persons"
                ]
                key = next((path for path in paths if not path.startswith("@")), key)
    context = msgspec.json.decode(page.context or "{}", type=dict[str, str])
    return redactor.redact_page(
        body,
        _operation(walk),
        context,
        key=key,
        parent_param=parent_param,
        of_parties=walk.stream in _OF_PARTIES,
    )


def _remove_uploads(
    settings: Settings, outbox: Outbox, redactor: Redactor, id: int, own: Collection[str], *, dry_run: bool = False
) -> int:
    """Remove the files of uploads that have ended, or need a review and are about the person; how many."""
    with kept_uploads.locked(settings):
        waiting = [
            each
            for each in outbox.mutations(kept_uploads.WAITING, images=False)
            if not _is_about(each, redactor, id, own)
        ]
        return kept_uploads.remove_ended(settings, waiting, dry_run=dry_run)


def _find_attached(
    settings: Settings, walks: dict[int, Walk], by_file: dict[str, list[SealedPage]], redactor: Redactor, id: int
) -> set[int]:
    """The ids of files that were attached to the person, or named after them, in any sealed version."""
    found = set[int]()
    for value in _read_records(settings, walks, by_file, "files"):
        if isinstance(value.get("id"), int):
            file = file_to_fetch(value)
            if file.about.get("person_id") == id or redactor.redact_text(file.name) != file.name:
                found.add(file.id)
    return found


def _remove_downloads(
    settings: Settings, redactor: Redactor, id: int, attached: Collection[int], *, dry_run: bool = False
) -> int:
    """Remove downloaded files that are attached to the person or named after them; how many.

    The partial files of killed downloads go too, of whomever they are.

    Args:
        settings: of the project.
        redactor: of the person.
        id: of the person.
        attached: the ids of such files, for those without an entry in the manifest.
        dry_run: only count.
    """
    root = settings.state / "files"
    if not root.is_dir():
        return 0
    with Folder(root) as folder:
        manifest = folder.manifest()
        removed = [
            each
            for each in manifest.values()
            if each.person_id == id or each.id in attached or redactor.redact_text(each.name) != each.name
        ]
        names = [each.path for each in removed]
        names += [name for file, found in folder.without_entry(manifest).items() if file in attached for name in found]
        if not dry_run:
            folder.remove_partial_files()
            for name in names:
                folder.remove(name)
        for each in () if dry_run else removed:
            del manifest[each.id]
        if removed and not dry_run:
            folder.rewrite(manifest)
    return len(names)


def _clean_work_file(
    settings: Settings,
    control: Control,
    clean: Callable[[str, str, str | None], str],
    on_note: Callable[[str], None],
) -> int:
    """Redact the texts that a rebuild copies from the work file, as no sealed answer has them; how many changed.

    It is published: where a kill comes after step 4 and the work file is lost, the rebuild copies from the warehouse.
    """
    project.ready_work_file(settings, control)
    path = project.work_path(settings)
    if not path.exists():
        return 0
    connection = warehouse.connect(path)
    try:
        changed = carry_over.clean(connection, clean)
    finally:
        connection.close()
    if settings.warehouse.exists():
        project.publish(settings, on_note)
    return changed


def _recover_outbox(settings: Settings, control: Control) -> Outbox:
    """The queue, with what only another store has of it: no copy may keep what is removed from the others."""
    outbox = open_outbox(settings, control)
    for note in recover(outbox, files=[settings.warehouse, project.work_path(settings)]):
        log.warning(note)
    return outbox


async def _rebuild(
    settings: Settings, control: Control, id: int, report: ErasureReport, on_note: Callable[[str], None]
) -> None:
    """Delete the old raw files, rebuild the warehouse, and delete copies of the old one."""

    def on_event(event: Event) -> None:
        if event.kind == "note":
            on_note(event.text)

    used_files = {page.file for page in control.pages()}
    for path in (*settings.raw.glob("*.zst"), *settings.raw.glob(".*.zst.part")):
        if path.name not in used_files:
            path.unlink()
    await locked_replay(settings, control, Selection.by_names(()), f"forget person {id}", on_event)
    work = project.work_path(settings)
    for path in (
        *work.parent.glob(f"{work.name}.damaged-*"),
        *work.parent.glob(f"{work.name}.apart-*"),
        *work.parent.glob(f"{work.name}.tmp"),
        *settings.state.glob(".export-*/*.parquet"),  # of exports that were killed: no catalogue names these
        *settings.state.glob("export/.making-*/*.parquet"),
        work.with_name(f".{settings.warehouse.name}.new"),
    ):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if kept := reader_objects.find_kept(settings.warehouse):
        names = ", ".join(path.name for path in kept)
        on_note(f"{names} may still contain this person: copy your own tables from there, then delete the file.")
    control.finish_erasures("person", id, msgspec.json.encode(report).decode())
