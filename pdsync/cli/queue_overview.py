"""The queue as rows, and on one screen: what waits and what needs a review, by operation and state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdsync.cli import layout, overview, render
from pdsync.cli.conflicts import describe_conflict
from pdsync.cli.layout import Hints, Line, Rows
from pdsync.core import catalogue
from pdsync.core.wording import counted
from pdsync.writeback.amounts import find_currency, is_amount_field
from pdsync.writeback.equality import fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pdsync.model import Mutation
    from pdsync.writeback.resolver import NameResolver

SHORT = 20  # mutations, which are listed one by one
_GROUPS = 16


def lay_out_queue(mutations: Sequence[Mutation], width: int) -> list[list[Line]]:
    """The overview of a queue: first what needs a review, merges and deletions, then the largest groups.

    Args:
        mutations: in the queue's order, at least one.
        width: of the terminal, in cells.
    """
    groups: dict[tuple[str, str], list[Mutation]] = {}
    for each in mutations:
        groups.setdefault((each.operation, each.state), []).append(each)
    ordered = sorted(groups.items(), key=lambda each: (_rank(each[1][0]), -len(each[1])))
    rows = [
        [
            operation,
            state.replace("_", " "),
            len(group),
            f"#{group[0].seq}" if len(group) == 1 else f"#{group[0].seq}…#{group[-1].seq}",
            ", ".join(dict.fromkeys(each.target or each.kind for each in group)),
        ]
        for (operation, state), group in ordered[:_GROUPS]
    ]
    table = layout.lay_out(Rows(["operation", "state", "changes", "numbers", "records"], rows, counts=True), width)
    if len(ordered) > _GROUPS:
        table.append(Line(f"… {len(ordered) - _GROUPS:,} more groups", "dim"))
    first = ordered[0][1][0]
    return [
        overview.lay_out_text(f"{counted(len(mutations), 'change')}, in {counted(len(ordered), 'group')}.", width),
        table,
        overview.lay_out_commands(
            [
                ("What they would do", "pdsync push --dry-run"),
                ("One change", f"pdsync queue show {first.seq}"),
                ("Those of an operation", f"pdsync queue list --operation {first.operation.split(' ')[-1]}"),
                ("Those in a state", f"pdsync queue list --state {first.state}"),
                ("All, also those that ended", "pdsync queue list --all"),
            ],
            width,
        ),
    ]


def _rank(mutation: Mutation) -> int:
    return 0 if mutation.state == "needs_review" else 1 if mutation.verb in ("merge", "delete") else 2


def list_mutations(found: Sequence[Mutation], names: NameResolver) -> Rows:
    """A row for each mutation: what it does, its state, and why it is in that state.

    Adds them to `names.pending`: where one refers to the record that another one adds, it is shown as "that of #5".
    """
    names.pending |= {each.id: f"that of #{each.seq}" for each in found}
    lines = [
        [
            f"#{each.seq}",
            each.operation,
            each.target or each.kind,
            summarize(names, each),
            each.state,
            [*([why] if (why := each.detail or each.reason) else []), *describe_conflict(names, each)],
        ]
        for each in found
    ]
    headers = ["", "operation", "record", "what", "state", "why"]
    return Rows(headers, lines, notes=True, hints=Hints(rows="--json shows all."))


def summarize(names: NameResolver, mutation: Mutation) -> str:
    """What a mutation sets, in one line."""
    operation = catalogue.operation(mutation.operation)
    body = {name: value for name, value in mutation.payload.items() if name not in operation.path_params}
    parts = []
    for field, value in fields(body):
        currency = find_currency(operation, field, value, body)
        if currency is None and is_amount_field(operation, field):
            currency = names.currency(mutation)
        (text,) = render.exact_texts([names.display_value(operation, field, value)], [currency])
        text = text or "null"
        parts.append(f"{names.label(operation, field)}={text[:40]}")
    return ", ".join(parts)[:160]
