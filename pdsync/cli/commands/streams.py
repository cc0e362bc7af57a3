"""`pdsync streams`: what can be replicated, how it is read and verified, and what it costs. It makes no request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import click

from pdsync.cli import overview, tables
from pdsync.cli.app import App, Command
from pdsync.cli.overview import Group
from pdsync.core import catalogue
from pdsync.core.reading import side_by_side
from pdsync.errors import ConfigError
from pdsync.model import Topic
from pdsync.runner.reconcile import rotation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pdsync.cli.layout import Line
    from pdsync.model import Stream, Version

_VERIFIED = {
    "every_sync": "every sync", "in_turn": "in turn", "by_count": "in turn, by count",
    "by_record": "in turn, by record", "once": "read once", "never": "never",
}  # fmt: skip
_HEADERS = [
    "name", "read", "changes", "verified", "tokens_a_page", "rows_a_page", "side_by_side", "asked_once_a", "key",
    "cursor", "deletes", "version", "lists", "operations", "tables",
]  # fmt: skip


@click.command(cls=Command)
@click.argument("streams", nargs=-1)
@click.option("--topic", type=click.Choice(get_args(Topic)), help="Only the streams about this.")
@click.option("--all", "everything", is_flag=True, help="List every stream, on a terminal too.")
@click.pass_obj
def streams(app: App, streams: tuple[str, ...], topic: Topic | None, everything: bool) -> None:
    """List the streams: how they are read, how changes are found and rows are verified, and the cost of a page.

    Without STREAMS, a terminal shows the topics, each with its streams; --all, a file or a pipe lists every stream.

    Streams that hardly ever change, or can't be requested for changes, are read "in turn": once within the verify
    cycle, which then shows their changes and deletions; whenever they are named; and by --full.

    Of a long list, windows of time, pages, or the lists of several parents are requested side by side, as many as the
    rate limit allows; "no": one page after the other.

    Rows are verified by every sync; in turn within the verify cycle: whole, by the counts of other records, or by a
    request for each record if limits.dependents_share suffices. "read once": they do not change. "never": the content
    depends on parameters.

    Deletions are listed; flagged, if Pipedrive lists a deleted record at all; or not shown, so that only verification
    and reconcile find them. What the lists of a stream leave out, and no parameter asks for, is listed below.
    """
    if streams and topic:
        raise ConfigError("Name streams, or give a --topic.")
    selected = [
        each
        for each in [catalogue.stream(name) for name in streams] or list(catalogue.streams().values())
        if topic in (None, each.topic)
    ]
    if overview.is_wanted(app, everything=everything or bool(streams or topic)):
        overview.show(app, *lay_out_topics(selected, app.out.width))
        return
    rows = [_facts(stream, app.settings.api) for stream in selected]
    tables.show_listing(app, rows, _HEADERS, "")
    partial = [f"{row['name']} leaves out {row['leaves_out']}." for row in rows if row["leaves_out"]]
    if partial and not app.json:
        app.note("\n".join(["", *partial]))


def lay_out_topics(streams: Sequence[Stream], width: int) -> list[list[Line]]:
    """The overview: what a sync reads, and what only when it is named, by topic."""
    optional = [stream for stream in streams if stream.optional]
    partial = [stream.name for stream in streams if stream.leaves_out and not stream.optional]
    groups = []
    for topic in get_args(Topic):
        group = [each for each in streams if each.topic == topic]
        group.sort(key=lambda each: (each.optional, "_" in each.name, each.name))
        turning, named = sum(each.takes_turns for each in group), sum(each.optional for each in group)
        counts = [len(group) - turning - named, turning, named]
        groups.append(Group(topic, counts, [each.name for each in group]))
    turning = sum(each.takes_turns for each in streams)
    text = (
        f"{len(streams):,} streams. Every sync reads {len(streams) - turning - len(optional):,}; {turning:,} that"
        f" hardly ever change, or can't be requested for changes, are read in turn, each within the verify cycle; the"
        f" others only when they are named, as most of them cost a request for each record."
    )
    return [
        overview.lay_out_text(text, width),
        overview.lay_out_groups(["topic", "every sync", "in turn", "when named", "streams"], groups, width),
        overview.lay_out_text(f"Their lists leave out some records: {', '.join(partial)}.", width),
        overview.lay_out_commands(
            [
                ("One stream", "pdsync streams deals"),
                ("A topic", "pdsync streams --topic deals"),
                ("Every stream", "pdsync streams --all"),
                ("How fresh each is", "pdsync status --streams"),
            ],
            width,
        ),
    ]


def _facts(stream: Stream, prefer: Version) -> dict[str, Any]:
    version, sources = stream.sources(prefer)
    operations = [catalogue.operations(version)[source.operation] for source in sources]
    return {
        "name": stream.name,
        "key": stream.key,
        "cursor": stream.cursor,
        "changes": sources[0].way,
        "read": "when named" if stream.optional else "in turn" if stream.takes_turns else "always",
        "asked_once_a": sorted(stream.parents(prefer)),
        "version": version,
        "operations": sorted({operation.id for operation in operations}),
        "lists": len(sources),
        "tokens_a_page": max(operation.cost or 0 for operation in operations),
        "rows_a_page": min(operation.page_size or 0 for operation in operations) or None,
        "side_by_side": " or ".join(
            dict.fromkeys(side_by_side(stream, *each) for each in zip(sources, operations, strict=True))
        ),
        "deletes": stream.deletions,
        "verified": "in turn" if stream.takes_turns else _VERIFIED[rotation.way_of(stream, prefer)],
        "leaves_out": stream.leaves_out,
        "tables": [stream.name, *stream.children],
    }
