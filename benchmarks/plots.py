"""Draws small line plots as SVG that is legible on light and dark pages, and on a phone.

matplotlib draws; it is in the extra `benchmarks` and imported only by `draw`. Texts stay texts. The picture has its own
background, and a style that changes ink and background where the reader prefers dark; so it is legible whatever
surrounds it. A plot is data, and the digest of its data is in the picture: a test compares the two without drawing.
"""

from __future__ import annotations

import hashlib
import io
import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, PAPER, GRID = "#1f2328", "#ffffff", "#d1d9e0"
_DARK = {INK: "#e6edf3", PAPER: "#0d1117", GRID: "#30363d"}
COLOURS = ("#2f81f7", "#d9730d", "#2da44e", "#8b7bd8")  # at least 3 : 1 against both backgrounds
_MARKERS, _DASHES = "osD^", ("-", "--", "-.", ":")
_INCHES = (4.4, 2.9)  # at 100 pixels an inch: as wide as a phone
_KEPT = re.compile(r"<metadata>.*?</metadata>|<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->", re.DOTALL)


class Series(Struct, frozen=True):
    """One line."""

    name: str
    values: tuple[float | None, ...]  # one for each label of the x axis; None: not measured


class Plot(Struct, frozen=True):
    """A plot and the name of its file."""

    name: str
    title: str
    x: str
    labels: tuple[str, ...]
    series: tuple[Series, ...]
    least: float = 0.0  # where the y axis begins
    format: str = ",.0f"  # of the values that are written beside the points

    @property
    def digest(self) -> str:
        """Changes with the data and the texts."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]

    @property
    def text(self) -> str:
        """All values in words, for readers who don't see the picture."""
        lines = (
            f"{each.name}: "
            + ", ".join(
                f"{value:{self.format}} at {label}"
                for label, value in zip(self.labels, each.values, strict=True)
                if value is not None
            )
            for each in self.series
        )
        return f"{self.title}. " + "; ".join(lines)


def draw(plot: Plot) -> str:
    """The plot as SVG. The same data give the same bytes with the same release of matplotlib."""
    import matplotlib as mpl  # noqa: PLC0415 - not needed to make or test the page's text
    from matplotlib.figure import Figure  # noqa: PLC0415

    settings = {
        "svg.fonttype": "none", "svg.hashsalt": "pdsync", "font.family": "sans-serif", "font.size": 9.5,
        "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    }  # fmt: skip
    with mpl.rc_context(settings):
        figure = Figure(_INCHES, dpi=100, facecolor=PAPER, layout="constrained")
        axes = figure.add_subplot()
        _draw_axes(plot, axes)
        for number, each in enumerate(plot.series):
            _draw_series(plot, axes, number, each)
        if len(plot.series) > 1:
            figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return _finish(plot, file.getvalue())


def _draw_axes(plot: Plot, axes: Axes) -> None:
    most = max((value for each in plot.series for value in each.values if value is not None), default=1.0)
    axes.set_title(plot.title, loc="left", fontsize=10.5, fontweight="bold")
    axes.set_xlabel(plot.x)
    axes.set_xticks(range(len(plot.labels)), plot.labels)
    axes.set_xlim(-0.35, len(plot.labels) - 0.65)
    axes.set_ylim(plot.least, most + 0.18 * (most - plot.least))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.locator_params(axis="y", nbins=5)
    axes.set_facecolor(PAPER)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)


def _draw_series(plot: Plot, axes: Axes, number: int, series: Series) -> None:
    points = [(at, value) for at, value in enumerate(series.values) if value is not None]
    places, values = [at for at, _ in points], [value for _, value in points]
    colour, marker, dashes = COLOURS[number], _MARKERS[number], _DASHES[number]
    axes.plot(places, values, dashes, color=colour, marker=marker, markersize=5, linewidth=1.8, label=series.name)
    for at, value in points:
        others = [other for each in plot.series if (other := each.values[at]) is not None and each is not series]
        is_above = all(value >= other for other in others)
        if any(f"{other:{plot.format}}" == f"{value:{plot.format}}" for other in others) and number:
            continue  # the same label again
        axes.annotate(
            f"{value:{plot.format}}",
            (at, value),
            xytext=(0, 6 if is_above else -6),
            textcoords="offset points",
            ha="center",
            va="bottom" if is_above else "top",
            fontsize=8.5,
        )


def _finish(plot: Plot, svg: str) -> str:
    """Without what a reader does not need, with a text for those who can't see it, and with the dark colours."""
    dark = "".join(
        f'[style*="fill: {light}"]{{fill:{other}!important}}[style*="stroke: {light}"]{{stroke:{other}!important}}'
        for light, other in _DARK.items()
    )
    dark = f"text{{fill:{_DARK[INK]}!important}}{dark}"
    head = (
        f"<title>{_escaped(plot.text)}</title><desc>data {plot.digest}</desc>"
        f"<style>text{{fill:{INK}}}@media (prefers-color-scheme:dark){{{dark}}}</style>"
    )
    svg = re.sub(r"(<svg\b[^>]*>)", lambda found: found[1].replace("<svg", '<svg role="img"') + head, svg, count=1)
    lines = (line.strip() for line in _KEPT.sub("", svg).splitlines())
    return "\n".join(line for line in lines if line) + "\n"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
