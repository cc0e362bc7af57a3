"""The named places at which commands are killed: right before and after each step that writes something.

A place is passed many times; `hits` chooses the first, the second, the middle and the last time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Right before or after a call of `name` in `module`."""

    module: str
    name: str
    after: bool = False

    def death(self, nth: int) -> str:
        """The call of `knobs` that kills a command there, at its nth call."""
        return f"knobs.die({self.module!r}, {self.name!r}, {nth}, after={self.after})"

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.module.removeprefix('pdsync.')}.{self.name}"


def hits(times: int) -> list[int]:
    """The numbers of the first, second, middle and last of `times` calls."""
    return sorted({1, min(2, times), (times + 1) // 2, times}) if times else []


def _around(module: str, *names: str) -> list[Place]:
    return [Place(f"pdsync.{module}", name, after) for name in names for after in (False, True)]


def _before(module: str, *names: str) -> list[Place]:
    return [Place(f"pdsync.{module}", name) for name in names]


def _after(module: str, *names: str) -> list[Place]:
    return [Place(f"pdsync.{module}", name, after=True) for name in names]


_BEGINNING = [
    *_before("runner.session", "fetch_account"),
    *_around("core.control", "Control.start_run"),
    *_after("core.control", "Control.open_walk"),
    *_after("runner.loader", "Loader.sync_custom_fields"),
]
_SEALING = [*_around("extract.raw_archive", "_write"), *_around("core.control", "Control.record_pages")]
_COMMITTING = [
    *_around("load.commit", "_apply", "note_batch"),
    *_after("load.commit", "commit", "_move_watermark"),
    *_around("core.control", "Control.end_walk"),
]
PUBLISHING = [
    *_after("runner.loader", "Loader.create_views"),
    *_around("runner.report.receipt", "save_receipt"),
    *_around("runner.loader", "Loader._close"),
    *_around("load.publish", "publish", "copy"),
    Place("os", "replace"),
    Place("os", "replace", after=True),
    *_after("load.publish", "sync_folder"),
    *_around("core.control", "Control.finish_run"),
]
SYNC = [*_BEGINNING, *_SEALING, *_COMMITTING, *_after("runner.report.mutation_log", "save_mutation_log"), *PUBLISHING]
LOAD = [*_after("runner.sync.load_files", "read_answers"), *_BEGINNING[1:], *_SEALING, *_COMMITTING, *PUBLISHING]
SWEEP = [
    *_after("reconcile.sweep", "Sweep.add", "Sweep.verify", "Sweep.differences"),
    *_before("reconcile.evidence", "probe_records"),
]
FINDINGS = _around("runner.reconcile.diagnosis", "Diagnosis.explain")
REFETCH = [
    *_after("runner.reconcile.repair", "fetch_by_key"),
    *_around("runner.sync.walk_loader", "load_single_records"),
    *_SEALING,
    *_around("load.commit", "_apply", "note_batch"),
    *_after("load.commit", "commit"),
]
TOMBSTONES = [
    *_around("runner.sync.walk_loader", "tombstone"),
    *_around("load.tombstones", "tombstone", "note_batch"),
    *_after("load.tombstones", "_note_merge"),
    *_around("core.control", "Control.end_walk"),
]
SAVING = [*_around("runner.reconcile.findings", "save_findings"), *PUBLISHING]
RECONCILE = [*_BEGINNING[:4], *SWEEP, *FINDINGS, *REFETCH, *TOMBSTONES, *SAVING]
REPLAY = [
    *_after("runner.archive.replay", "_remove_file", "_choose_source"),
    *_after("runner.loader", "Loader.sync_custom_fields"),
    *_before("extract.raw_archive", "read"),
    *_after("runner.archive.reload", "ArchiveReload._load_batch"),
    *_around("load.commit", "note_batch"),
    *_after("load.commit", "commit"),
    *_around("load.carry_over", "carry_over"),
    *_around("core.control", "Control.start_run"),
    *_around("load.publish", "put"),
    *_around("core.control", "Control.end_walk"),
    *PUBLISHING,
]
EXPORT = [
    *_around("load.export", "_write", "describe", "merge"),
    *_around("load.export_target", "_Folder.put", "_Folder.remove"),
    *_after("load.export_target", "sync_folder"),
    Place("os", "replace"),
    Place("os", "replace", after=True),
]
BACKFILL = [
    *_BEGINNING,
    *_around("core.control.windows", "Windows.plan", "Windows.begin"),
    *_after("runner.sync.backfill", "_begin"),
    *_SEALING,
    *_after("runner.sync.backfill", "BackfillRun._load"),
    *_COMMITTING,
    *PUBLISHING,
]
PUSH = [
    *_around("writeback.outbox", "Outbox.approve", "Outbox.arm", "Outbox.record_answer", "Outbox.settle"),
    *_around("runner.read_back", "read_back"),
    *_around("load.commit", "commit"),
    *_around("core.control", "Control.record_pages"),
]


def every() -> list[Place]:
    """The places of all commands."""
    return [*SYNC, *LOAD, *RECONCILE, *REPLAY, *EXPORT, *BACKFILL, *PUSH]
