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


def wrap(text: str, width: int, *, breaks_words: bool = True) -> list[str]:
    """The lines of `text`, broken at spaces to at most `width` cells.

    `breaks_words`: so is a word that is wider; otherwise it gets a line of its own, such as a path to be copied.
    """
    from rich.cells import chop_cells  # noqa: PLC0415 - not for --help

    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if cell_width(longer) <= width:
                line = longer
                continue
            *full, line = [*([line] if line else []), *((breaks_words and chop_cells(word, width)) or [word])]
            lines += full
        lines.append(line)
    return lines


def wrap_prose(text: str, width: int) -> str:
    """`text` with lines of at most `width` cells, each indented as its paragraph; words, such as paths, stay whole."""
    lines = []
    for paragraph in text.split("\n"):
        indent = " " * (len(paragraph) - len(paragraph.lstrip(" ")))
        fits = cell_width(paragraph) <= width
        parts = [paragraph] if fits else wrap(paragraph.lstrip(" "), width - len(indent), breaks_words=False)
        lines += parts if fits else [indent + part for part in parts]
    return "\n".join(lines)


def pad(text: str, width: int, *, right: bool = False) -> str:
    """`text` with spaces up to `width` cells."""
    space = " " * (width - cell_width(text))
    return space + text if right else text + space


def left_to_right(line: str, *, on_terminal: bool = True) -> str:
    """A line with columns of Hebrew or Arabic, such that a terminal shows the columns from left to right."""
    if not on_terminal or not _RTL.search(line):
        return line
    return _LTR_MARK + re.sub(r" {2,}| → ", lambda gap: f"{gap[0][:-1]}{_LTR_MARK} ", line)
