"""Reads the queue in control.db: mutations, their attempts, probes and resolutions. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pdsync.errors import ConfigError
from pdsync.model import OPEN, Mutation
from pdsync.writeback.snapshot import Attempt, Progress, Snapshot, from_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pdsync.core.control import Control
    from pdsync.model import State

_COLUMNS = ", ".join(Mutation.__struct_fields__)
IMAGES = ("base_image", "after_image")  # whole records: most of the size of a mutation
_WITHOUT_IMAGES = ", ".join("NULL" if name in IMAGES else name for name in Mutation.__struct_fields__)
JSON_COLUMNS = ("payload", "expected", *IMAGES)
RESOLUTION_COLUMNS = ("n", "at", "by", "verdict", "remote_id", "note")
_MIN_PREFIX = 6  # characters of an id that may stand for the whole of it


class QueueReader:
    """The mutations of one project, to read.

    Args:
        control: the open control.db.
    """

    def __init__(self, control: Control) -> None:
        self.control = control

    # Mutations.

    def get(self, id: str | int) -> Mutation:
        """The mutation with this id, this number (with or without `#`), or an id that begins so.

        Raises:
            ConfigError: there is none, or there are several.
        """
        text = str(id).lstrip("#")
        found = self._select("seq = ?", int(text)) if text.isdecimal() else self._select("id = ?", text)
        if not found and len(text) >= _MIN_PREFIX:
            found = self._select("substr(id, 1, ?) = ?", len(text), text)
        if len(found) != 1:
            raise ConfigError(f"There is no mutation {id}. `pdsync queue list --all` shows them.")
        return found[0]

    def mutations(
        self,
        states: Iterable[State] | None = None,
        *,
        operation: str | None = None,
        batch: str | None = None,
        images: bool = True,
    ) -> list[Mutation]:
        """Mutations in the order in which they were queued.

        Args:
            states: only those in one of these; None for all.
            operation: only those of this operation, like "v2 updateDeal".
            batch: only those that were queued together as this batch.
            images: with the record before and after each; much less is read without.
        """
        listed = msgspec.json.encode(list(states)).decode() if states is not None else None
        return self._select(
            "(?1 IS NULL OR state IN (SELECT value FROM json_each(?1))) AND (?2 IS NULL OR operation = ?2)"
            " AND (?3 IS NULL OR batch = ?3)",
            listed,
            operation,
            batch,
            images=images,
        )

    def newest(self) -> int:
        """The number of the mutation that was queued last; 0 where there is none."""
        return int(str(self.control.rows("SELECT coalesce(max(seq), 0) FROM mutations")[0][0]))

    def mutations_of_push(self, push_id: str, *, images: bool = True) -> list[Mutation]:
        """The mutations of a push; `images` adds the record before and after each."""
        return self._select("push_id = ?", push_id, images=images)

    def batches_of(self, size: int) -> list[list[Mutation]]:
        """The batches of `size` mutations that were queued together, in order, without images."""
        mutations = self._select(
            "batch IN (SELECT batch FROM mutations GROUP BY batch HAVING count(*) = ?)", size, images=False
        )
        batches: dict[str, list[Mutation]] = {}
        for each in mutations:
            batches.setdefault(each.batch, []).append(each)
        return list(batches.values())

    def counts(self) -> dict[str, int]:
        """State → number of mutations."""
        rows = self.control.rows("SELECT state, count(*) FROM mutations GROUP BY state")
        return {str(state): int(str(count)) for state, count in rows}

    def reviews(self) -> int:
        """The number of mutations that need a review and have no resolution yet."""
        rows = self.control.rows(
            "SELECT count(*) FROM mutations m WHERE state = 'needs_review'"
            " AND NOT EXISTS (SELECT 1 FROM resolutions WHERE mutation = m.id)"
        )
        return int(str(rows[0][0]))

    def unresolved(self) -> dict[str, int]:
        """By state, conflict or rejected: how many mutations have no retry, and no later change that was applied.

        A later change is one of the same record by the same operation.
        """
        rows = self.control.rows(
            "SELECT state, count(*) FROM mutations m WHERE state IN ('conflict', 'rejected')"
            " AND NOT EXISTS (SELECT 1 FROM mutations WHERE supersedes = m.id AND state <> 'cancelled')"
            " AND NOT EXISTS (SELECT 1 FROM mutations WHERE target = m.target AND operation = m.operation"
            " AND seq > m.seq AND state = 'applied') GROUP BY state"
        )
        return {str(state): int(str(count)) for state, count in rows}

    def progress(self) -> dict[str, Progress]:
        """By mutation, how far it has come: see `Snapshot.progress`."""
        rows = self.control.rows(
            "SELECT id, state, (SELECT count(*) FROM attempts WHERE mutation = id),"
            " (SELECT count(*) FROM resolutions WHERE mutation = id) FROM mutations"
        )
        return {
            str(id): (int(str(attempts)), state not in OPEN, int(str(resolutions)))
            for id, state, attempts, resolutions in rows
        }

    def _select(self, where: str, *values: object, images: bool = True) -> list[Mutation]:
        columns = _COLUMNS if images else _WITHOUT_IMAGES
        rows = self.control.rows(f"SELECT {columns} FROM mutations WHERE {where} ORDER BY seq", *values)
        mutations = []
        for row in rows:
            facts = dict(zip(Mutation.__struct_fields__, row, strict=True))
            mutations.append(msgspec.convert(facts | {name: from_json(facts[name]) for name in JSON_COLUMNS}, Mutation))
        return mutations

    # What happened to one mutation.

    def attempts(self, id: str) -> list[Attempt]:
        """Every attempt to send a mutation, in order."""
        columns = Attempt.__struct_fields__
        rows = self.control.rows(
            f"SELECT {', '.join(Attempt.__struct_fields__)} FROM attempts WHERE mutation = ? ORDER BY n", id
        )
        facts = [dict(zip(columns, row, strict=True)) for row in rows]
        return [
            msgspec.convert(each | {name: from_json(each[name]) for name in ("body", "seen", "headers")}, Attempt)
            for each in facts
        ]

    def probes(self, id: str) -> list[dict[str, Any]]:
        """Every probe whether a mutation with an unknown outcome was carried out, in order."""
        rows = self.control.rows("SELECT n, at, request, found, verdict FROM probes WHERE mutation = ? ORDER BY n", id)
        return [
            {"n": n, "at": at, "request": request, "found": from_json(found), "verdict": verdict}
            for n, at, request, found, verdict in rows
        ]

    def resolution(self, id: str) -> dict[str, Any] | None:
        """The last resolution of a mutation by a person; None where there is none."""
        rows = self.control.rows(
            "SELECT verdict, remote_id, note, by, at FROM resolutions WHERE mutation = ? ORDER BY n DESC LIMIT 1", id
        )
        return dict(zip(("verdict", "remote_id", "note", "by", "at"), rows[0], strict=True)) if rows else None

    def retry_of(self, id: str) -> Mutation | None:
        """The second try of a mutation; None where there is none, or where it was dropped."""
        found = self._select("supersedes = ? AND state <> 'cancelled'", id, images=False)
        return found[-1] if found else None

    def stand_in(self, id: str) -> tuple[Mutation, str | None]:
        """The mutation that counts where another refers to the one with this id, and the id of the record it added.

        That is the mutation itself, or its last retry. The record may also be the one that a person has found.

        Raises:
            ConfigError: there is none with this id.
        """
        mutation = self.get(id)
        if mutation.state == "applied":
            return mutation, mutation.remote_id
        resolution = self.resolution(id) if mutation.state == "needs_review" else None
        if (
            resolution
            and resolution["verdict"] == "applied"
            and (found := resolution["remote_id"] or mutation.remote_id)
        ):
            return mutation, found
        retry = self.retry_of(id)
        return self.stand_in(retry.id) if retry else (mutation, None)

    def key_and_binding(self, id: str) -> tuple[str | None, str | None]:
        """The deduplication key of a mutation, and the record that it is bound to ("deals/12")."""
        key, bound = self.control.rows("SELECT dedupe_key, bound FROM mutations WHERE id = ?", id)[0]
        return None if key is None else str(key), None if bound is None else str(bound)

    def snapshot(self, id: str) -> Snapshot:
        """The full record of a mutation."""
        key, bound = self.key_and_binding(id)
        resolutions = self.control.rows(
            "SELECT n, at, by, verdict, remote_id, note FROM resolutions WHERE mutation = ? ORDER BY n", id
        )
        return Snapshot(
            self._select("id = ?", id)[0],
            key,
            bound,
            tuple(self.attempts(id)),
            tuple(self.probes(id)),
            tuple(dict(zip(RESOLUTION_COLUMNS, row, strict=True)) for row in resolutions),
        )

    # What the mutations show about records.

    def is_bound(self, bound: str, *, to_other_than: str) -> bool:
        """Whether a record ("deals/12") is bound to another mutation, which added it."""
        return bool(self.control.rows("SELECT 1 FROM mutations WHERE bound = ? AND id <> ?", bound, to_other_than))

    def bound_ids(self, kind: str) -> set[str]:
        """The ids of records of `kind` that mutations are known to have added."""
        rows = self.control.rows(
            "SELECT remote_id FROM mutations WHERE kind = ?1 AND bound IS NOT NULL UNION SELECT r.remote_id"
            " FROM resolutions r JOIN mutations m ON m.id = r.mutation WHERE m.kind = ?1 AND r.remote_id IS NOT NULL",
            kind,
        )
        return {str(row[0]) for row in rows}

    def is_removed_by_other(self, deletion: Mutation) -> bool:
        """Whether another mutation has removed the record that `deletion` is to delete: only one of them claims it."""
        return deletion.verb == "delete" and bool(
            self.control.rows(
                "SELECT 1 FROM mutations WHERE target = ? AND id <> ? AND verb IN ('delete', 'merge')"
                " AND state = 'applied' AND reason IS NOT 'already_so'",
                deletion.target,
                deletion.id,
            )
        )

    def has_seen(self, kind: str, target: str) -> bool:
        """Whether a mutation shows that the record of `kind` at `target` existed: it added or changed the record."""
        holder, _, key = target.rpartition("/")
        return bool(
            self.control.rows(
                "SELECT 1 FROM mutations WHERE (target = ?1 AND state = 'applied' AND (verb = 'update'"
                " OR (verb IN ('delete', 'merge') AND reason IS NOT 'already_so'))) OR (verb = 'add' AND kind = ?2"
                " AND remote_id = ?3 AND (target IS NULL OR target = ?4)) LIMIT 1",
                target,
                kind,
                key,
                holder,
            )
        )

    def merged_into(self, target: str) -> str | None:
        """The id of the record that a mutation merged the one at `target` into."""
        rows = self.control.rows(
            "SELECT remote_id FROM mutations WHERE target = ? AND verb = 'merge' AND state = 'applied'"
            " AND remote_id IS NOT NULL ORDER BY seq DESC LIMIT 1",
            target,
        )
        return str(rows[0][0]) if rows else None

    def has_removed_records(self) -> bool:
        """Whether any mutation has deleted or merged a record."""
        return bool(
            self.control.rows(
                "SELECT 1 FROM mutations WHERE state = 'applied' AND verb IN ('delete', 'merge')"
                " AND reason IS NOT 'already_so' LIMIT 1"
            )
        )
