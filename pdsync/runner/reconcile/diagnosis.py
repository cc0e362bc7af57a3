"""Classifies the differences of a stream, in particular records that no list shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.core import catalogue
from pdsync.load import warehouse
from pdsync.reconcile import evidence
from pdsync.reconcile.evidence import CANARIES, MAX_PROBES
from pdsync.reconcile.sweep import CONVERTED_FROM, MERGEABLE, find_moved_before
from pdsync.runner.reconcile.findings import Finding
from pdsync.sql import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pdsync.model import Stream
    from pdsync.reconcile.evidence import Verdict
    from pdsync.reconcile.sweep import Difference
    from pdsync.runner.reconcile.comparison import Comparison


_NOT_PROBED = f"only {MAX_PROBES} per run are read one by one"


def _finding(stream: Stream, verdict: Verdict) -> Finding:
    return Finding(stream.name, verdict.key, verdict.kind, verdict.evidence, verdict.winner)


class Diagnosis:
    """Classifies the differences of one reconciliation. All its streams are swept."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison, self.session, self.request = comparison, comparison.session, comparison.request
        self.loader, self.sweeps = comparison.loader, comparison.sweeps

    async def explain(self, stream: Stream) -> list[Finding]:
        """Every difference of a stream, with its classification.

        Raises:
            PdsyncError: an absent record can't be probed: the token is refused, the budget spent.
        """
        sweep, sample = self.sweeps[stream.name], self.comparison.samples.get(stream.name)
        differences: list[Difference]
        verdicts: list[Verdict] = []
        if stream.name in self.comparison.counted:
            differences, verdicts = await self.comparison.counted[stream.name].find_differences(sweep)
        else:
            differences = await self.loader.do(
                lambda: sweep.differences(deep=self.request.deep or sample is not None, only=sample)
            )
        findings = [_finding(stream, verdict) for verdict in verdicts]
        absent = [each.key for each in differences if each.kind == "absent"]
        deleted = [each.key for each in differences if each.kind == "soft_deleted"]
        converted = await self.loader.do(self._find_conversions, stream, deleted) if deleted else {}
        for each in differences:
            if each.kind == "differs":
                text = "values differ, though the time of change is equal"
                findings.append(Finding(stream.name, each.key, "stale", text, source=each.source))
            elif each.key in converted:
                target = converted[each.key]
                findings.append(Finding(stream.name, each.key, "converted", f"it became {target}", target))
            elif each.kind != "absent":
                text = f"the list {each.source} shows it so"
                findings.append(Finding(stream.name, each.key, each.kind, text, source=each.source))
        verdicts = await self._judge_absent(stream, absent) if absent else []
        return findings + [_finding(stream, verdict) for verdict in verdicts]

    async def _judge_absent(self, stream: Stream, absent: Sequence[str]) -> list[Verdict]:
        """The verdicts on records that no list shows."""
        sweep = self.sweeps[stream.name]
        item = evidence.find_item_operation(stream, self.session.settings.api)
        winners: dict[str, set[str | None]] = {}
        if stream.name in MERGEABLE:
            winners = await self.loader.do(self._find_winners, stream, absent)
        converted = await self.loader.do(self._find_conversions, stream, absent)
        hidden = await self.loader.do(self._find_hidden, stream, absent)
        never_read = await self.loader.do(self._find_never_read, stream, absent)
        canaries = await self.loader.do(sweep.choose_canaries, CANARIES)
        in_turn = await self.loader.do(self._order_by_last_probe, stream, absent)
        probes, reason = await evidence.probe_absent(
            self.session.http, item, in_turn, canaries=canaries, was_admin=self.session.account.is_admin
        )
        return [
            evidence.judge(
                stream, key, probes.get(key), version=item.version if item else "v2",
                canaries=0 if reason else len(canaries),
                reason=reason if key in probes or not item else _NOT_PROBED, parent_is_hidden=key in hidden,
                was_never_read=key in never_read, winners=winners.get(key, set()), converted_to=converted.get(key),
            )
            for key in absent
        ]  # fmt: skip

    def _order_by_last_probe(self, stream: Stream, keys: Sequence[str]) -> list[str]:
        """`keys`, those first that no run has requested, then those whose request is the longest ago.

        Otherwise many records that stay hidden would keep the others from ever being requested.
        """
        rows = self.loader.connection.execute(
            "SELECT k.key FROM (SELECT unnest($1::VARCHAR[]) AS key) k LEFT JOIN (SELECT key, max(seen_at) AS seen_at"
            " FROM meta.findings WHERE stream = $2 AND evidence <> $3 GROUP BY 1) f ON f.key = k.key"
            " ORDER BY f.seen_at NULLS FIRST, k.key",
            [list(keys), stream.name, _NOT_PROBED],
        ).fetchall()
        return [str(row[0]) for row in rows]

    def _find_winners(self, target: Stream, keys: Sequence[str]) -> dict[str, set[str | None]]:
        """By each of `keys`: the records to which those that pointed to it point now, as the sweeps or the tables show.

        A merge moves all records of a stream, so a stream of which one still points to the key names no winner.
        """
        tables = warehouse.tables(self.loader.connection)
        winners: dict[str, set[str | None]] = {}
        for other in catalogue.streams().values():
            moved: dict[str, set[str | None]] = {}
            if other.name in tables:
                moved = find_moved_before(self.loader.connection, other, target, keys)
            if sweep := self.sweeps.get(other.name):
                for key, now in sweep.find_moved(target.name, keys).items():
                    moved.setdefault(key, set()).update(now)
            for key, now in moved.items():
                winners.setdefault(key, set()).update({key} if key in now else now)
        return winners

    def _find_conversions(self, stream: Stream, keys: Sequence[str]) -> dict[str, str]:
        """Leads and deals that were converted: key → the record that it became, as stream/key."""
        other, column = CONVERTED_FROM.get(stream.name, ("", ""))
        if other not in warehouse.tables(self.loader.connection):
            return {}
        made = quoted(catalogue.stream(other).key)
        rows = self.loader.connection.execute(
            f"SELECT {quoted(column)}::VARCHAR, {made}::VARCHAR FROM {quoted('main', other)}"
            f" WHERE {quoted(column)}::VARCHAR IN (SELECT unnest(?::VARCHAR[]))",
            [list(keys)],
        ).fetchall()
        found = {str(key): str(id) for key, id in rows}
        if other in self.sweeps:  # the sync may not have read it yet
            found |= self.sweeps[other].find_conversions(column, keys)
        return {key: f"{other}/{id}" for key, id in found.items()}

    def _find_hidden(self, stream: Stream, keys: Sequence[str]) -> set[str]:
        """The keys of records whose pipeline the source no longer shows."""
        swept = self.sweeps.get("pipelines")
        if "pipeline_id" not in stream.columns or swept is None:
            return set()
        rows = self.loader.connection.execute(
            f"SELECT {quoted(stream.key)}::VARCHAR FROM {quoted('main', stream.name)}"
            f" WHERE {quoted(stream.key)}::VARCHAR IN (SELECT unnest(?::VARCHAR[])) AND pipeline_id IS NOT NULL"
            f" AND pipeline_id::VARCHAR NOT IN (SELECT key FROM {swept.relation} WHERE NOT is_gone)",
            [list(keys)],
        ).fetchall()
        return {str(row[0]) for row in rows}

    def _find_never_read(self, stream: Stream, keys: Sequence[str]) -> set[str]:
        """The keys of rows that no run of this project has read."""
        rows = self.loader.connection.execute(
            f"SELECT {quoted(stream.key)}::VARCHAR FROM {quoted('main', stream.name)}"
            f" WHERE {quoted(stream.key)}::VARCHAR IN (SELECT unnest(?::VARCHAR[]))"
            " AND NOT EXISTS (SELECT 1 FROM meta._applied_batches b WHERE b.run_id = _run_id)",
            [list(keys)],
        ).fetchall()
        return {str(row[0]) for row in rows}
