"""`pdsync operations`: the operations of the API. It makes no request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pdsync.cli import overview, tables
from pdsync.cli.app import App, Command
from pdsync.cli.overview import Group
from pdsync.core import catalogue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pdsync.cli.layout import Line
    from pdsync.model import Operation


@click.command(cls=Command)
@click.argument("words", nargs=-1)
@click.option("--version", type=click.Choice(["v1", "v2"]), help="Only operations of this API version.")
@click.option("--all", "everything", is_flag=True, help="List every operation, also those that Pipedrive has removed.")
@click.pass_obj
def operations(app: App, words: tuple[str, ...], version: str | None, everything: bool) -> None:
    """List the operations of the API; with WORDS, those whose id or path contains all of them.

    Without WORDS, a terminal shows how many there are, by their paths; --all, a file or a pipe lists them.
    """
    matching = [
        operation
        for api_version in catalogue.VERSIONS
        if version in (None, api_version)
        for operation in catalogue.operations(api_version).values()
        if (everything or not operation.removed or app.json)
        and all(word.lower() in f"{operation.id} {operation.path}".lower() for word in words)
    ]
    if overview.is_wanted(app, everything=everything or bool(words)):
        overview.show(app, *lay_out_paths(matching, app.out.width))
        return
    rows = [
        {
            "operation_id": operation.id,
            "version": operation.version,
            "method": operation.method,
            "path": operation.path,
            "tokens": operation.cost,
            "paging": operation.paging,
            "state": "removed" if operation.removed else "deprecated" if operation.deprecated else "",
            "replaced_by": operation.replaced_by,
        }
        for operation in matching
    ]
    headers = ["operation_id", "version", "method", "path", "tokens", "state"]
    tables.show_listing(app, rows, headers, "No operation matches. List all: pdsync operations --all")


def lay_out_paths(operations: Sequence[Operation], width: int) -> list[list[Line]]:
    """The overview: what the paths of each version are about, the largest groups first."""
    groups = []
    for version in catalogue.VERSIONS:
        counts: dict[str, int] = {}
        for each in operations:
            if each.version == version:
                about = next(part for part in each.path.split("/") if part not in ("", "api", version))
                counts[about] = counts.get(about, 0) + 1
        if counts:
            names = [f"{name} {count}" for name, count in sorted(counts.items(), key=lambda each: (-each[1], each[0]))]
            groups.append(Group(version, [sum(counts.values())], names))
    reads = sum(not each.mutates for each in operations)
    deprecated = sum(each.deprecated for each in operations)
    text = (
        f"{len(operations):,} operations: {reads:,} read, {len(operations) - reads:,} may change data;"
        f" {deprecated:,} are deprecated."
    )
    return [
        overview.lay_out_text(text, width),
        overview.lay_out_groups(
            ["version", "operations", "by the first part of the path"], groups, width, most_lines=9
        ),
        overview.lay_out_commands(
            [
                ("Those about something", "pdsync operations deals participants"),
                ("Call one", "pdsync api getDeal id=42"),
                ("Every operation", "pdsync operations --all"),
            ],
            width,
        ),
    ]
