"""Finds what an id on the command line refers to: an id, the beginning of one, `last`, or -2 for the second last."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from pdsync.cli.app import Command
from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMED = 3  # ids in a message
_FROM_LAST = "last:"  # what stands for a negative number, which click would take for an option


class IdCommand(Command):
    """A command whose arguments are ids, among them negative numbers."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; `-2` becomes `last:2`, as click would take it for an option.

        The value of an option stays as it is: `--note -2`. After `--` there are no options.
        """
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        taking = {name for option in options if not option.is_flag and not option.count for name in option.opts}
        end = args.index("--") if "--" in args else len(args)
        values = {number + 1 for number, each in enumerate(args[:end]) if each in taking} - {end}
        return super().parse_args(ctx, [
            f"{_FROM_LAST}{each[1:]}" if re.fullmatch(r"-[1-9]\d*", each) and number not in values else each
            for number, each in enumerate(args)
        ])  # fmt: skip


def from_last(text: str) -> int | None:
    """How far from the newest: 1 for `last` and -1, 2 for -2; None for any other text."""
    if text == "last":
        return 1
    return int(text.removeprefix(_FROM_LAST)) if text.startswith(_FROM_LAST) else None


def find(kind: str, ids: Sequence[str], text: str, hint: str) -> str:
    """The one of `ids` that `text` refers to.

    Args:
        kind: of what, for messages: "run".
        ids: the newest first.
        text: as typed.
        hint: for messages, where they are listed.

    Raises:
        ConfigError: there is none, or there are several that begin so.
    """
    number = from_last(text)
    if number is not None:
        matching = list(ids[number - 1 : number])
        text = f"-{number}" if number > 1 else "yet"
    else:
        matching = [id for id in ids if id == text] or [id for id in ids if text and id.startswith(text)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        some = ", ".join(matching[:_NAMED]) + (", …" if len(matching) > _NAMED else "")
        raise ConfigError(f"{len(matching):,} {kind} ids begin with {text}: {some}. Type more of it.")
    newest = f" The last ones: {', '.join(ids[:_NAMED])}." if ids else ""
    raise ConfigError(f"There is no {kind} {text}.{newest} {hint}")
