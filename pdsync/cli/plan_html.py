"""Renders a plan as one page of HTML that a manager can read: it loads nothing, and everything is escaped.

Steps are grouped by what they do: merges and deletions first, what is not sent last. If a record's text got past the
escaping, the page's content policy would still block scripts, forms and requests: it allows only the page's own style
sheet, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from pdsync.cli import plan_labels, render
from pdsync.cli.plan_labels import PlanLabels
from pdsync.core.log import clean
from pdsync.core.wording import counted
from pdsync.writeback import plan as planning

if TYPE_CHECKING:
    from pdsync.writeback.plan import Change, Plan, Step

_STYLE = """
:root { color-scheme: light dark; --text: #1c2a33; --soft: #55636d; --line: #dde5ea; --back: #fff; --old: #a12d2d;
  --new: #1b6b3a; --note: #8a5a00; --stop: #fdecec; --stop-edge: #c0392b }
@media (prefers-color-scheme: dark) { :root { --text: #e4eaee; --soft: #a3b0b9; --line: #33404a; --back: #151b20;
  --old: #ff9c93; --new: #7fd6a0; --note: #f0c36a; --stop: #401d1b;
  --stop-edge: #ff7a6e } }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem; color: var(--text);
  background: var(--back); overflow-wrap: anywhere }
h1 { line-height: 1.2; margin: 0 0 .5rem } h2 { margin: 2.5rem 0 .5rem; font-size: 1.2rem }
small { color: var(--soft); font-size: .85rem }
ul { list-style: none; margin: 0; padding: 0 }
.steps > li { border-top: 1px solid var(--line); padding: .7rem 0; display: grid; gap: .2rem 1.5rem;
  grid-template-columns: minmax(0, 2fr) minmax(0, 3fr) }
.record { font-weight: 600 } .record small { display: block; font-weight: 400 }
.label { color: var(--soft) } del { color: var(--old) } ins { color: var(--new); text-decoration: none }
.note { color: var(--note) } a { color: inherit }
.stop { background: var(--stop); padding: .6rem 1rem; border-left: 4px solid var(--stop-edge); margin: .5rem 0 }
.final { color: var(--old) }
@media (max-width: 40rem) { body { margin: 1rem auto } .steps > li { grid-template-columns: minmax(0, 1fr) } }
@media print { body { margin: 0; max-width: none } .steps > li { break-inside: avoid } }
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
_NOT_SENT = {  # fate → the title of those steps
    "conflict": "Not sent, because the record is not as expected",
    "rejected": "Not sent, because they would be refused",
    "already_so": "Not sent, because it is so already",
}
_NO_UNDO = "a merge can't be undone"  # which the group says


def render_page(plan: Plan, held_back: str | None, labels: PlanLabels | None = None) -> str:
    """The page of a plan.

    Args:
        plan: the plan.
        held_back: why a guard would stop the push now.
        labels: of the company's fields.
    """
    labels = labels or PlanLabels(None)
    stop = f'<p class="stop">This push is held back: {_lines(held_back)}</p>' if held_back else ""
    groups = [_section(plan_labels.title(steps), steps, plan.domain, labels) for steps in _grouped(plan.sending)] + [
        _section(f"{title} ({len(steps):,})", steps, plan.domain, labels)
        for fate, title in _NOT_SENT.items()
        if (steps := [step for step in plan.steps if step.fate == fate])
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><meta name="referrer" content="no-referrer">'
        f"<title>What will change</title><style>{_STYLE}</style></head><body>\n<header>"
        f"<h1>What will change in {_text(plan.company)}</h1>\n<p>{escape(_summary(plan))}</p>\n"
        f"<p><small>Planned {plan.made_at:%Y-%m-%d %H:%M} UTC, valid until {plan.expires_at:%Y-%m-%d %H:%M} UTC, plan"
        f" {escape(plan.hash[:12])}. Costs about {counted(plan.total_tokens, 'token')} of the API's daily budget."
        f"</small></p></header>\n{stop}\n<main>\n{''.join(groups) or '<p>There is nothing to send.</p>'}"
        f"</main>\n</body></html>\n"
    )


def _summary(plan: Plan) -> str:
    sending, merges = plan.sending, sum(step.verb == "merge" for step in plan.sending)
    sent = len(sending) - plan.waiting
    deletes, left = sum(step.deletes for step in sending if not step.waits), len(plan.steps) - sent
    among = [counted(count, noun) for count, noun in ((merges, "merge"), (deletes, "deletion")) if count]
    text = f"{counted(sent, 'change')} will be sent"
    text += f", among them {' and '.join(among)}" if among else ""
    return f"{text}; {left:,} will not." if left else f"{text}."


def _grouped(steps: list[Step]) -> list[list[Step]]:
    return [list(each) for _, each in groupby(sorted(steps, key=plan_labels.group), plan_labels.group)]


def _section(title: str, steps: list[Step], domain: str | None, labels: PlanLabels) -> str:
    """A group of steps."""
    warning = ""
    if steps[0].fate == "send" and steps[0].verb == "merge":
        warning = '<p class="stop">A merge can\'t be undone. What is lost is listed below.</p>\n'
    is_final = steps[0].fate == "send" and (steps[0].deletes or steps[0].verb == "merge")
    heading = f'<h2 class="final">{_text(title)}</h2>' if is_final else f"<h2>{_text(title)}</h2>"
    rows = "\n".join(_row(step, domain, labels) for step in steps)
    return f'<section>{heading}\n{warning}<ul class="steps">\n{rows}\n</ul></section>\n'


def _row(step: Step, domain: str | None, labels: PlanLabels) -> str:
    lines = [line for change in step.changes if (line := _change(step, change, labels))]
    notes = [note for note in step.warnings if note != _NO_UNDO]
    if step.fate != "send":
        notes.append(step.detail or (step.reason or step.fate).replace("_", " "))
    for note in notes:
        text = labels.text(step, note)
        lines.append(f'<li class="note">{_text(text[:1].upper() + text[1:])}</li>')
    record = f'<div class="record">{_text(step.title or "")}<small>{_record(step, domain)}</small></div>'
    return f"<li>{record}<ul>{''.join(lines)}</ul></li>"


def _change(step: Step, change: Change, labels: PlanLabels) -> str:
    """One field, before → after; empty where the group says it all."""
    if change.field == planning.RECORD:
        return ""
    before, after = render.brief_pair(change.before, change.after, (change.before_currency, change.after_currency))
    if change.field.startswith("("):  # the entries of a list that are deleted
        return f"<li><del>{_text(before)}</del></li>"
    before, after = labels.values(step, change.field, before, after)
    is_added = step.verb == "add" and change.before is None
    old = "" if is_added else f"{_value('del', before)} → "
    label = _text(labels.field(step, change.field))
    return f'<li><span class="label">{label}:</span> {old}{_value("ins", after)}</li>'


def _value(tag: str, text: str) -> str:
    return '<span class="label">empty</span>' if text == "–" else f"<{tag}>{_text(text)}</{tag}>"


def _text(text: str) -> str:
    """Text from outside: escaped, without control characters, and whatever its direction, only itself in it."""
    return f"<bdi>{escape(clean(text))}</bdi>"


def _lines(text: str) -> str:
    return "<br>".join(map(_text, text.splitlines()))


def _record(step: Step, domain: str | None) -> str:
    """Which record a step changes, linked to its page in Pipedrive if there is one, and its number in the queue."""
    into = f" → {_link(step, step.into, domain)}" if step.into else ""
    return f"{_link(step, step.target, domain)}{into} · no. {step.seq}"


def _link(step: Step, target: str | None, domain: str | None) -> str:
    found = _TARGET.fullmatch(target or "")
    if target is None or (step.verb == "add" and step.target == step.kind):
        return f"new {escape(plan_labels.record_name(step.kind))}"
    shown = escape(clean(plan_labels.target_name(target)))
    exists = step.seen and step.reason != "target_gone"
    if not (found and exists and found[1] in _PAGES and domain and _DOMAIN.fullmatch(domain)):
        return shown
    url = f"https://{domain}.pipedrive.com/{_PAGES[found[1]]}/{found[2]}"
    return f'<a href="{url}" target="_blank" rel="noopener noreferrer">{shown}</a>'
