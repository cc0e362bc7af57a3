"""Renders a plan as one page of HTML that a manager can read: it loads nothing, and everything is escaped.

If a record's text got past the escaping, the page's content policy would still block scripts, forms and requests: it
allows only the page's own style sheet, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from typing import TYPE_CHECKING

from pdsync.cli import render

if TYPE_CHECKING:
    from pdsync.writeback.plan import Plan, Step

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c2a33 }
table { border-collapse: collapse; width: 100% }
th { text-align: left; font-weight: 600; border-bottom: 2px solid #9ab }
td { padding: .35rem .8rem .35rem 0; vertical-align: top; border-bottom: 1px solid #dde5ea } .no { color: #8a5a00 }
del { color: #a12d2d; text-decoration: none } ins { color: #1b6b3a; text-decoration: none } small { color: #667 }
a { color: inherit; text-decoration-color: #9ab }
.stop { background: #fff3d6; padding: .6rem 1rem; border-left: 4px solid #d89b00 }
"""
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}';"
    " base-uri 'none'; form-action 'none'"
)


_PAGES = {  # of records, in Pipedrive: the kind in a target → the path before the id
    "deals": "deal",
    "persons": "person",
    "organizations": "organization",
    "products": "product",
    "leads": "leads/inbox",
    "projects": "projects",
}
_TARGET = re.compile(r"([a-z]+)/([0-9a-f-]+)(?:/.*)?")
_DOMAIN = re.compile(r"[a-z0-9-]+")


def render_page(plan: Plan, held_back: str | None) -> str:
    """The page of a plan; `held_back` is why a guard would stop the push now."""
    deletes = sum(step.deletes for step in plan.sending)
    merges = sum(step.verb == "merge" for step in plan.sending)
    facts = [
        f"{len(plan.sending):,} changes will be sent",
        f"{len(plan.steps) - len(plan.sending):,} will not",
        f"{deletes:,} deletions",
        f"{merges:,} merges",
        f"about {plan.tokens:,} tokens",
    ]
    stop = f'<p class="stop">A guard holds this push back: {escape(held_back)}</p>' if held_back else ""
    rows = "\n".join(_row(step, plan.domain) for step in plan.steps)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><meta name="referrer" content="no-referrer">'
        f"<title>What will change</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>What will change in {escape(plan.company)}</h1>\n<p>{escape(' · '.join(facts))}<br>"
        f"<small>Planned {plan.made_at:%Y-%m-%d %H:%M} UTC, valid until {plan.expires_at:%Y-%m-%d %H:%M} UTC, plan"
        f" {escape(plan.hash[:12])}</small></p>\n{stop}\n"
        f"<table><thead><tr><th></th><th>Record</th><th>What</th><th>Before → after</th></tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody></table>\n</body></html>\n"
    )


def _row(step: Step, domain: str | None) -> str:
    shown = [(change.field, *render.brief_pair(change.before, change.after)) for change in step.changes]
    changes = "<br>".join(
        f"{escape(field)}: <del>{escape(before)}</del> → <ins>{escape(after)}</ins>" for field, before, after in shown
    )
    notes = "".join(f'<br><span class="no">{escape(note)}</span>' for note in step.warnings)
    if step.fate != "send":
        notes += f'<br><span class="no">not sent: {escape(step.detail or step.reason or step.fate)}</span>'
    record = f"{escape(step.title or '')}<br><small>{_link(step, domain)}</small>"
    return f"<tr><td>#{step.seq}</td><td>{record}</td><td>{escape(step.operation)}</td><td>{changes}{notes}</td></tr>"


def _link(step: Step, domain: str | None) -> str:
    """The record of a step, linked to its page in Pipedrive if there is one."""
    shown = escape(step.target or step.kind)
    target = _TARGET.fullmatch(step.target or "")
    exists = step.seen and step.reason != "target_gone"
    if not (target and exists and target[1] in _PAGES and domain and _DOMAIN.fullmatch(domain)):
        return shown
    url = f"https://{domain}.pipedrive.com/{_PAGES[target[1]]}/{target[2]}"
    return f'<a href="{url}" target="_blank" rel="noopener noreferrer">{shown}</a>'
