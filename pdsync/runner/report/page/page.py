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
from pdsync.runner.report import freshness
from pdsync.runner.report.page import figures, formats
from pdsync.sql import first
from pdsync.version import __version__

if TYPE_CHECKING:
    from datetime import date

    import duckdb

    from pdsync.core.config import Settings
    from pdsync.runner.report.page.figures import Clock

_FOLDER = Path(__file__).parent
_SCRIPTS = ("vendor/vega.min.js", "vendor/vega-interpreter.js", "draw.js")
_NAMED = 3  # streams with a gap in the first line
_SECTIONS = {"health": "Health of the data", "sales": "Sales"}


class Verdict(msgspec.Struct, frozen=True):
    """The first line of the report."""

    text: str
    good: bool


def render_report(
    settings: Settings, *, since: date | None = None, with_health: bool = True, with_sales: bool = True
) -> bytes:
    """The report of the published warehouse; the same warehouse gives the same bytes.

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
        shown = figures.read_figures(warehouse, settings, clock, sections, env)
        verdict = _judge(warehouse, settings, clock)
        has_log = figures.has_view(warehouse, "main.deal_changelog")
        money = figures.read_money(warehouse, clock.today) if with_sales else []
    script = "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    page = env.from_string((_FOLDER / "page.html").read_text(encoding="utf-8")).render(
        company=_company(settings),
        clock=clock,
        verdict=verdict,
        has_log=has_log,
        money=money,
        sections=[(name, _SECTIONS[name], [each for each in shown if each.chart.section == name]) for name in sections],
        format=formats.formatters(clock.zone),
        policy=_policy(script),
        style=Markup((_FOLDER / "style.css").read_text(encoding="utf-8")),  # noqa: S704 - ours
        script=Markup(script),  # noqa: S704 - ours, and Vega's
        data=_as_data_block(figures.to_chart_rows(shown)),
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
    last: dict[str, bool] = {}
    for stream, complete in warehouse.execute(
        "SELECT stream, s.complete FROM meta.streams s JOIN meta.runs r USING (run_id)"
        " WHERE r.finished_at IS NOT NULL ORDER BY r.started_at, r.run_id"
    ).fetchall():
        last[stream] = bool(complete)
    last = {stream: complete for stream, complete in last.items() if not figures.is_optional(stream)} or last
    ends = [until for stream, until, _ in freshness.read_checkpoints(warehouse, settings) if last.get(stream)]
    if clock.moment is None or not ends:
        return Verdict("No stream has been read completely yet: pdsync sync", good=False)
    gaps = first(
        warehouse.execute(
            "SELECT gaps FROM meta.runs WHERE finished_at IS NOT NULL ORDER BY started_at DESC, run_id DESC LIMIT 1"
        )
    )
    left = [str(gap).split(":", 1)[0] for gap in gaps[0] or ()] if gaps else []
    left += [stream for stream, complete in last.items() if not complete and stream not in left]
    complete = sum(stream not in left for stream in last)
    local = min(ends).astimezone(formats.timezone(clock.zone))
    text = f"Data complete to {local:%H:%M} on {formats.format_day(local)}"
    text += f", {complete} of {len(last)} streams complete, {_describe_gaps(left)}"
    return Verdict(text, good=not left)


def _describe_gaps(streams: list[str]) -> str:
    """The number of gaps, given the stream of each, and the first streams by name."""
    if not streams:
        return "no gap"
    names = list(dict.fromkeys(streams))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{counted(len(streams), 'gap')} in {', '.join(names[:_NAMED])}{more}"
