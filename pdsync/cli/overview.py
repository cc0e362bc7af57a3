"""Lays long lists out as one screen: a line or two for each group, with counts and the first names of it.

A list is shown so on a terminal only, and only if nothing of it was named: `--all` and a pipe get every row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pdsync.cli import tables
from pdsync.cli.layout import Line
from pdsync.cli.text_width import cell_width, left_to_right, pad, shorten, wrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pdsync.cli.app import App

_GAP = 2
_LABEL = 20  # cells; a longer label is shortened
_NAMES = 12  # cells, at least


class Group(NamedTuple):
    """A group of a list."""

    label: str
    figures: Sequence[int]  # 0 is left blank
    names: Sequence[str]  # the first ones are shown


def is_wanted(app: App, *, everything: bool) -> bool:
    """Whether a list is shown as an overview: on a terminal, unless `everything` of it is to be shown."""
    return not app.json and not everything and tables.terminal_width(app.out) is not None


def show(app: App, *parts: list[Line]) -> None:
    """Show the parts of an overview on stdout, with an empty line between them."""
    lines: list[Line] = []
    for part in parts:
        lines += [Line(""), *part] if lines and part else part
    tables.show_lines(app, lines)


def lay_out_text(text: str, width: int, style: str = "") -> list[Line]:
    """Prose, in lines that are broken at spaces."""
    return [Line(left_to_right(line), style) for line in wrap(text, width)]


def lay_out_commands(commands: Sequence[tuple[str, str]], width: int) -> list[Line]:
    """What to type for more: what one sees, and the command."""
    label = max(len(what) for what, _ in commands)
    return [Line(shorten(f"{what:{label}}  {command}", width), "dim") for what, command in commands]


def lay_out_groups(headers: Sequence[str], groups: Sequence[Group], width: int, *, most_lines: int = 2) -> list[Line]:
    """A table of groups whose last column has as many names as fit into `most_lines` lines.

    Args:
        headers: of the label, of each figure, and of the names.
        groups: in order; their figures are right-aligned.
        width: of the terminal, in cells.
        most_lines: of a group.
    """
    label = min(max(cell_width(text) for text in (headers[0], *(each.label for each in groups))), _LABEL)
    texts = [[f"{figure:,}" if figure else "" for figure in each.figures] for each in groups]
    figures = [max(map(len, column)) for column in zip(headers[1:-1], *texts, strict=True)]
    room = max(width - label - sum(figures) - _GAP * (len(figures) + 1), _NAMES)

    def line(first: str, numbers: Sequence[str], names: str) -> str:
        cells = [pad(shorten(first, label), label)]
        cells += [number.rjust(each) for number, each in zip(numbers, figures, strict=True)]
        return left_to_right((" " * _GAP).join([*cells, names]).rstrip())

    lines = [Line(line(headers[0], headers[1:-1], shorten(headers[-1], room)), "bold")]
    for group, numbers in zip(groups, texts, strict=True):
        first, *more = _wrap_names(group.names, room, most_lines)
        lines.append(Line(line(group.label, numbers, first)))
        lines += [Line(line("", [""] * len(figures), each)) for each in more]
    return lines


def _wrap_names(names: Sequence[str], width: int, most_lines: int) -> list[str]:
    """Names in lines, none broken; those that have no room are counted at the end."""
    lines = [""]
    for index, name in enumerate(names):
        left = len(names) - index - 1
        text = shorten(name, width - 1) + ("," if left else "")
        longer = _join(lines[-1], text)
        while cell_width(longer) + _reserve(left, is_last_line=len(lines) == most_lines) > width:
            if len(lines) == most_lines:
                lines[-1] = _join(lines[-1].rstrip(","), f"… {left + 1:,} more")
                return lines
            lines.append("")
            longer = text
        lines[-1] = longer
    return lines


def _join(line: str, text: str) -> str:
    return f"{line} {text}" if line else text


def _reserve(left: int, *, is_last_line: bool) -> int:
    """Cells for the count of names that may not fit any more."""
    return cell_width(f" … {left:,} more") if left and is_last_line else 0
