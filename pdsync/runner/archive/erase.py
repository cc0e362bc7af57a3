"""Forgets a person: no file of the project says anything of them any more.

The sealed answers are where everything else comes from, so they are cleaned first, and then the warehouse is rebuilt
from them: nothing of it is edited in place, and no free block of the old file stays. In this order, because a kill may
come at any instant:

1. the person's names, addresses and numbers are gathered from all that was ever sealed of them;
2. raw files that speak of them are rewritten beside the old ones;
3. what only the warehouse, the journal of the outbox and the folder of downloads hold is cleaned;
4. one transaction in control.db makes the new raw files the ones that count, cleans every text beside them, and notes
   that an erasure has begun;
5. the old raw files go, the warehouse is rebuilt and published, control.db is vacuumed.

Until 4 the same command begins again; from 4 on it finishes what is left, and needs no name for it.

What goes: the person's record, what mutations of it say, notes on them, what was asked for about them one by one (their
changes, files, mails, followers), and downloaded files that hang on them or are named after them. What stays: other
records, with `[forgotten]` in place of the person's name, addresses and numbers, and bare ids where an id stood.
"""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from pdsync.core import catalogue
from pdsync.core.control import ErasedRecord
from pdsync.core.list_response import open_envelope
from pdsync.errors import ConfigError
from pdsync.extract import raw_archive, raw_file
from pdsync.extract.download_folder import Folder
from pdsync.extract.redact import Found, Redactor, names, unique_identifiers
from pdsync.load import carry_over, warehouse
from pdsync.model import OPEN
from pdsync.runner import project
from pdsync.runner.archive.replay import Selection, locked_replay
from pdsync.runner.queue_recovery import open_outbox, recover
from pdsync.writeback.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pdsync.core.config import Settings
    from pdsync.core.control import Control, SealedPage
    from pdsync.model import Operation, Walk
    from pdsync.writeback.outbox import Outbox

# In these lists, what has this key with the person's id is the person, or is about no other person.
_OWN = {"persons": "id", "notes": "person_id"}


class Forgotten(Struct):
    """What was taken out, in counts: nothing here names the person."""

    records: dict[str, int] = {}  # by stream: records that went
    mentions: dict[str, int] = {}  # by stream: records in which something was made unreadable
    pages: int = 0
    raw_files: int = 0
    downloads: int = 0
    cells: int = 0  # texts of control.db and of meta.*
    shared: int = 0  # names that others bear too, or one word alone: left where they do not point to the person
    resumed: bool = False  # an erasure that was cut short was finished


class _Known(Struct, frozen=True):
    """What there is of the person in the archive."""

    texts: set[str]
    shared: set[str]
    records: int


async def forget_person(settings: Settings, id: int, also: Collection[str] = (), *, dry_run: bool = False) -> Forgotten:
    """Take the person `id` out of everything the project holds.

    Args:
        settings: of the project.
        id: of the person, in Pipedrive.
        also: further texts that name them: a maiden name, an old address.
        dry_run: count only.

    Raises:
        ConfigError: nothing is known of such a person, or queued mutations speak of them.
        Busy: another run holds the project.
        StorageError: a sealed page is damaged, or the disk is full. Run the same command again when that is mended.
    """
    with project.locked(settings) as control:
        if control.begun_erasures("person", id):  # it was cut after the point from which no name is needed
            done = Forgotten(resumed=True)
        else:
            done = _clean(settings, control, id, also, dry_run=dry_run)
        if not dry_run:
            await _finish(settings, control, id, done)
    return done


def _clean(settings: Settings, control: Control, id: int, also: Collection[str], *, dry_run: bool) -> Forgotten:
    """Clean everything but what is rebuilt from it; with `dry_run` only count."""
    outbox = open_outbox(settings, control)
    recover(outbox)
    own = _own_mutations(outbox, id)
    walks = {walk.id: walk for walk, _ in control.walks()}
    by_file: dict[str, list[SealedPage]] = {}
    for page in control.pages():
        by_file.setdefault(page.file, []).append(page)
    known = _gather(settings, walks, by_file, id)
    if not known.records and not also:
        raise ConfigError(
            f"No sealed answer holds a person {id}. Nothing was changed.\nIf something else names them: --also TEXT"
        )
    redactor, done = Redactor(id, known.texts | set(also)), Forgotten(shared=len(known.shared))
    _refuse_waiting(outbox, redactor, id, own)
    touched = []
    for name, pages in by_file.items():
        before = done.pages
        for page in pages:
            _, _, found = _of_page(redactor, walks[page.walk], page, raw_archive.read(settings.raw, page))
            done.pages += bool(found.removed or found.changed)
            for counts, count in ((done.records, found.removed), (done.mentions, found.changed)):
                if count:
                    stream = walks[page.walk].stream
                    counts[stream] = counts.get(stream, 0) + count
        touched += [name] if done.pages > before else []
    done.raw_files = len(touched)
    if dry_run:
        return done

    def change(page: SealedPage, body: bytes) -> tuple[bytes, int]:
        return _of_page(redactor, walks[page.walk], page, body)[:2]

    written = [raw_file.rewrite(settings.raw, name, by_file[name], (), change) for name in touched]

    def clean(text: str, column: str, mutation: str | None) -> str:
        return redactor.cell(text, column, is_own=mutation in own)

    done.downloads = _downloads(settings, redactor, id)
    done.cells = _carried(settings, clean)
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-forget"
    done.cells += Journal(settings.raw).rewrite(lambda text, mutation: clean(text, "", mutation))
    done.cells += control.erase(
        ErasedRecord(run_id, "person", id),
        [page for each in written for page in each.moved],
        [(walk, seq, run_id, "a person was forgotten") for each in written for walk, seq in each.changed],
        clean,
    )
    return done


def _own_mutations(outbox: Outbox, id: int) -> set[str]:
    """The mutations that add, change, delete or merge the person."""
    return {
        each.id
        for each in outbox.mutations(images=False)
        if (each.target or "").split("/")[:2] == ["persons", str(id)]
        or (each.kind == "persons" and str(id) in (each.remote_id, str(each.payload.get("merge_with_id"))))
    }


def _refuse_waiting(outbox: Outbox, redactor: Redactor, id: int, own: Collection[str]) -> None:
    """See that nothing is about to be sent that speaks of the person.

    Raises:
        ConfigError: something is: without its texts it could not be sent.
    """
    waiting = [
        f"#{each.seq}"
        for each in outbox.mutations(OPEN, images=False)
        if each.id in own or redactor.cell(text := msgspec.json.encode(each.payload).decode()) != text
    ]
    if waiting:
        raise ConfigError(
            f"{len(waiting)} queued mutations speak of person {id} and are not sent yet. Nothing was changed.\n"
            f"Send them (pdsync push), or drop them: pdsync queue drop {' '.join(waiting)}"
        )


def _gather(settings: Settings, walks: dict[int, Walk], by_file: dict[str, list[SealedPage]], id: int) -> _Known:
    """Everything that the person was ever called and reached by, less what other persons are too."""
    mine, others, records = set[str](), set[str](), 0
    for page in (page for pages in by_file.values() for page in pages if walks[page.walk].stream == "persons"):
        for record in open_envelope(raw_archive.read(settings.raw, page), _operation(walks[page.walk])).records:
            value = json.loads(bytes(record))
            if isinstance(value, dict) and value.get("id") == id:
                mine |= names(value)
                records += 1
            elif isinstance(value, dict):
                others |= names(value)
    own, shared = unique_identifiers(mine, others)
    return _Known(own, shared, records)


def _operation(walk: Walk) -> Operation | None:
    return catalogue.operations(walk.version).get(walk.operation)


def _of_page(redactor: Redactor, walk: Walk, page: SealedPage, body: bytes) -> tuple[bytes, int, Found]:
    """A page without the person; see `Redactor.page`."""
    if not body:  # the mark of an end
        return body, page.rows, Found()
    key = asked_as = None
    stream = catalogue.streams().get(walk.stream)
    if stream is not None:
        key = _OWN.get(stream.name)
        parents = [source.parent for source in stream.sources(walk.version)[1] if source.parent]
        for parent in parents:
            if parent.stream == "persons":
                asked_as = parent.param
                paths = [
                    stream.column(c).path(c, walk.version) for c, other in stream.labels.items() if other == "persons"
                ]
                key = next((path for path in paths if not path.startswith("@")), key)
    context = msgspec.json.decode(page.context or "{}", type=dict[str, str])
    return redactor.page(body, _operation(walk), context, key=key, asked_as=asked_as)


def _downloads(settings: Settings, redactor: Redactor, id: int) -> int:
    """Remove downloaded files that hang on the person or are named after them; how many there were."""
    root = settings.state / "files"
    if not root.is_dir():
        return 0
    with Folder(root) as folder:
        held = folder.manifest()
        theirs = [one for one in held.values() if one.person_id == id or redactor.text(one.name) != one.name]
        for one in theirs:
            folder.remove(one.path)
            del held[one.id]
        if theirs:
            folder.rewrite(held)
    return len(theirs)


def _carried(settings: Settings, clean: Callable[[str, str, str | None], str]) -> int:
    """Clean the texts that no sealed answer tells, so that a rebuilt file can take them over; how many changed."""
    project.ready_work_file(settings)
    path = project.work_path(settings)
    if not path.exists():
        return 0
    connection = warehouse.connect(path)
    try:
        return carry_over.clean(connection, clean)
    finally:
        connection.close()


async def _finish(settings: Settings, control: Control, id: int, done: Forgotten) -> None:
    """Remove the old files, and rebuild the warehouse."""
    named = {page.file for page in control.pages()}
    for path in (*settings.raw.glob("*.zst"), *settings.raw.glob(".*.zst.part")):
        if path.name not in named:
            path.unlink()
    await locked_replay(settings, control, Selection.of(()), f"forget person {id}")
    work = project.work_path(settings)
    for path in (
        *work.parent.glob(f"{work.name}.damaged-*"),
        *work.parent.glob(f"{work.name}.apart-*"),
        *work.parent.glob(f"{work.name}.tmp"),
        work.with_name(f".{settings.warehouse.name}.new"),
    ):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    control.finish_erasures("person", id, msgspec.json.encode(done).decode())
