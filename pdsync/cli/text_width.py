"""Measures and shortens text in cells of a terminal: a CJK character or an emoji takes two, a joining accent none."""

from __future__ import annotations

import re

_RTL = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]")
_LTR_MARK = "\u200e"  # takes no cell, and keeps a terminal from reordering columns around Hebrew or Arabic


def cell_width(text: str) -> int:
    """How many cells of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 - not for --help

    return cell_len(text)


def shorten(text: str, width: int) -> str:
    """`text`, if need be shortened with an ellipsis to at most `width` cells."""
    if cell_width(text) <= width:
        return text
    if width <= 0:
        return ""
    kept = text[: width - 1] if text.isascii() else text[: 2 * width]
    while cell_width(kept) > width - 1:
        kept = kept[:-1]
    return kept + "…"


def wrap(text: str, width: int) -> list[str]:
    """The lines of `text`, none wider than `width` cells, broken at spaces where possible."""
    from rich.cells import chop_cells  # noqa: PLC0415 - not for --help

    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if cell_width(longer) <= width:
                line = longer
                continue
            *full, line = [*([line] if line else []), *(chop_cells(word, width) or [""])]
            lines += full
        lines.append(line)
    return lines


def pad(text: str, width: int, *, right: bool = False) -> str:
    """`text` with spaces up to `width` cells."""
    space = " " * (width - cell_width(text))
    return space + text if right else text + space


def left_to_right(line: str, *, on_terminal: bool = True) -> str:
    """A line with columns of Hebrew or Arabic, such that a terminal shows the columns from left to right."""
    if not on_terminal or not _RTL.search(line):
        return line
    return _LTR_MARK + re.sub(r" {2,}| → ", lambda gap: f"{gap[0][:-1]}{_LTR_MARK} ", line)
