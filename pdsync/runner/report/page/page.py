"""`pdsync report`: one HTML file with the health of the data and the answers of the sales views.

The file loads nothing: scripts, styles and data are in it, and its own content policy forbids everything else. Scripts
are allowed by their hash, so markup that got past the escaping would not run.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from markupsafe import Markup

from pdsync.core.wording import counted
from pdsync.runner import unlocked
from pdsync.runner.report.health import read_health
from pdsync.runner.report.page import figures, formats
from pdsync.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    import duckdb
    from jinja2 import Environment

    from pdsync.core.config import Settings
    from pdsync.runner.report.page.figures import Clock, Figure
    from pdsync.runner.report.page.formats import Row

_FOLDER = Path(__file__).parent
_SCRIPTS = ("vendor/vega.min.js", "vendor/vega-interpreter.js", "draw.js")
_NAMED = 3  # streams with a gap in the first line
_SECTIONS = {"health": "Health of the data", "sales": "Sales"}


class Verdict(msgspec.Struct, frozen=True):
    """The first line of the report."""

    text: str
    good: bool


class Content(msgspec.Struct, frozen=True):
    """What a page shows."""

    title: str  # the company
    clock: Clock
    figures: list[Figure]
    verdict: Verdict
    money: list[Row]  # by currency
    has_log: bool = True  # the deals' changes are read from their log
    sections: Sequence[str] = tuple(_SECTIONS)
    definitions: str = 'pdsync sql "from sales.catalogue"'  # the command that lists them
    source: str = "the warehouse"


def render_report(
    settings: Settings, *, since: date | None = None, with_health: bool = True, with_sales: bool = True
) -> bytes:
    """The report of the published warehouse; the same warehouse and control.db give the same bytes.

    Args:
        settings: of the project.
        since: first day of the months and weeks that it shows; None: a year before the newest reading.
        with_health: whether it has the section about the data.
        with_sales: whether it has the section about sales.

    Raises:
        ConfigError: there is no warehouse yet.
        StorageError: the warehouse can't be opened.
    """
    sections = [name for name, wanted in (("health", with_health), ("sales", with_sales)) if wanted]
    with unlocked.open_warehouse(settings) as warehouse:
        warehouse.execute("BEGIN TRANSACTION READ ONLY")
        clock = figures.read_clock(warehouse, since)
        env = formats.environment(clock.zone)
        content = Content(
            title=_company(settings),
            clock=clock,
            figures=figures.read_figures(warehouse, settings, clock, sections, env),
            verdict=_judge(warehouse, settings, clock),
            money=figures.read_money(warehouse, clock.today) if with_sales else [],
            has_log=figures.has_view(warehouse, "main.deal_changelog"),
            sections=sections,
        )
    return render(content, env)


def render(content: Content, env: Environment) -> bytes:
    """The page that shows `content`."""
    script = "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    page = env.from_string((_FOLDER / "page.html").read_text(encoding="utf-8")).render(
        title=content.title,
        clock=content.clock,
        verdict=content.verdict,
        has_log=content.has_log,
        money=content.money,
        definitions=content.definitions,
        source=content.source,
        sections=[
            (name, _SECTIONS[name], [each for each in content.figures if each.chart.section == name])
            for name in content.sections
        ],
        format=formats.formatters(content.clock.zone),
        policy=_policy(script),
        style=Markup((_FOLDER / "style.css").read_text(encoding="utf-8")),  # noqa: S704 - ours
        script=Markup(script),  # noqa: S704 - ours, and Vega's
        data=_as_data_block(figures.to_chart_rows(content.figures)),
        version=__version__,
    )
    return page.encode()


def _policy(script: str) -> str:
    """The content policy: nothing is loaded, and no script runs but this one."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def _as_data_block(content: dict[str, Any]) -> Markup:
    """JSON that can stand in a script element: nothing in it ends that element."""
    text = msgspec.json.encode(content).decode()
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))  # noqa: S704


def _company(settings: Settings) -> str:
    if not settings.control.exists():
        return "Pipedrive"
    with unlocked.open_control(settings) as control:
        company = control.company()
    return company[1] if company else "Pipedrive"


def _judge(warehouse: duckdb.DuckDBPyConnection, settings: Settings, clock: Clock) -> Verdict:
    """Until when the data is complete, how many streams are, and what the last run left open, as in `pdsync status`."""
    health = read_health(warehouse, settings)
    if health.read_at is None or health.complete_until is None:
        return Verdict("No stream has been read completely yet: pdsync sync", good=False)
    local = health.complete_until.astimezone(formats.timezone(clock.zone))
    text = f"Data complete to {local:%H:%M} on {formats.format_day(local)}"
    text += f", {health.complete_streams} of {health.streams} streams complete, {_describe_gaps(health.gaps)}"
    return Verdict(text, good=not health.gaps)


def _describe_gaps(streams: list[str]) -> str:
    """The number of gaps, given the stream of each, and the first streams by name."""
    if not streams:
        return "no gap"
    names = list(dict.fromkeys(streams))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{counted(len(streams), 'gap')} in {', '.join(names[:_NAMED])}{more}"
