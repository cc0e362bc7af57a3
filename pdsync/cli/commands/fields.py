"""`pdsync fields`: the custom fields, their columns, types and options. It makes no request."""

from __future__ import annotations

import difflib
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pdsync.cli import overview, tables
from pdsync.cli.app import App, Command
from pdsync.cli.layout import Line, Rows, one_line
from pdsync.cli.overview import Group
from pdsync.core import catalogue
from pdsync.errors import ConfigError
from pdsync.runner import unlocked

if TYPE_CHECKING:
    from collections.abc import Sequence

Field = dict[str, Any]
_NAMES = ("name", "entity", "code", "label", "type", "first_seen", "last_seen", "options")
_QUERY = """
SELECT column_name, entity, field_code, label, field_type, first_seen, last_seen,
    (SELECT list(o.label ORDER BY TRY_CAST(o.option_id AS BIGINT)) FROM meta.field_options o
        WHERE o.entity = f.entity AND o.field_code = f.field_code)
FROM meta.custom_fields f WHERE ? IS NULL OR entity = ? ORDER BY entity, column_name"""
_REMARKS = 4  # lines about fields that need attention


@click.command(cls=Command)
@click.argument("entity", required=False)
@click.argument("field", required=False)
@click.option("--all", "everything", is_flag=True, help="List the fields of every table, on a terminal too.")
@click.option("--codes", is_flag=True, help="With the fields' codes of 40 characters, by which the API names them.")
@click.pass_obj
def fields(app: App, entity: str | None, field: str | None, everything: bool, codes: bool) -> None:
    """List the custom fields: label in Pipedrive, column in the warehouse, type, options.

    With ENTITY, such as deals, the fields of its records; with FIELD too, a label, a column or a code, all about one.
    Without them, a terminal shows how many each table has; --all, a file or a pipe lists every field.
    """
    if entity:
        catalogue.stream(entity)
    with unlocked.open_warehouse(app.settings) as warehouse:
        rows = warehouse.execute(_QUERY, [entity, entity]).fetchall()
    found = [dict(zip(_NAMES, row, strict=True)) for row in rows]
    if field:
        found = _find(found, entity or "", field)
    if found and overview.is_wanted(app, everything=everything or codes or entity is not None):
        overview.show(app, *lay_out_fields(found, app.out.width))
        return
    listed = [{**row, "column": row["name"], "age": _format_age(row["last_seen"])} for row in found]
    if field and not app.json:
        names = ["entity", "column", "label", "type", "options", "code", "first_seen", "last_seen"]
        values = [[row[name] for name in names] for row in listed]
        tables.show(app, Rows([name.replace("_", " ") for name in names], values), "vertical")
        return
    on_terminal = tables.terminal_width(app.out) is not None
    headers = ["column", "label", "type", "options"]
    headers = ["entity"] * (entity is None or not on_terminal) + headers + ["code"] * (codes or not on_terminal)
    tables.show_listing(app, listed, headers, "No custom fields have been synced.")


def _find(fields: list[Field], entity: str, name: str) -> list[Field]:
    """The fields of `entity` whose label, column or code is `name`, in any case.

    Raises:
        ConfigError: there is none; the message has similar names.
    """
    keys = ("label", "name", "code")
    found = [each for each in fields if name.casefold() in ((each[key] or "").casefold() for key in keys)]
    if not found:
        names = dict.fromkeys(each[key] for each in fields for key in keys[:2] if each[key])
        near = difflib.get_close_matches(name, names, n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ConfigError(f"{entity} has no custom field {name}.{hint} List them: pdsync fields {entity}")
    return found


def lay_out_fields(fields: Sequence[Field], width: int) -> list[list[Line]]:
    """The overview: the labels by table, and fields that are easily confused."""
    by_entity: dict[str, list[Field]] = {}
    for each in fields:
        by_entity.setdefault(each["entity"], []).append(each)
    groups = [
        Group(
            entity,
            [len(group), sum(bool(each["options"]) for each in group)],
            sorted((one_line(each["label"] or "").strip() or each["name"] for each in group), key=str.casefold),
        )
        for entity, group in by_entity.items()
    ]
    remarks = _find_remarks(by_entity)
    attention = [Line("Take care", "bold")] if remarks else []
    for remark in remarks[:_REMARKS]:
        attention += overview.lay_out_text(f"✗ {remark}", width, "yellow")
    if len(remarks) > _REMARKS:
        attention.append(Line(f"… and {len(remarks) - _REMARKS:,} more", "yellow"))
    return [
        overview.lay_out_groups(["table", "fields", "with options", "labels"], groups, width),
        attention,
        overview.lay_out_commands(
            [
                ("Columns, types, options", f"pdsync fields {groups[0].label}"),
                ("All about one field", f"pdsync fields {groups[0].label} {shlex.quote(groups[0].names[0])}"),
                ("With codes for the API", f"pdsync fields {groups[0].label} --codes"),
                ("Every field", "pdsync fields --all"),
            ],
            width,
        ),
    ]


def _find_remarks(by_entity: dict[str, list[Field]]) -> list[str]:
    """What is easily confused: equal labels, fields without one, fields that Pipedrive has no more."""
    tables_of: dict[str, list[str]] = {}
    for entity, group in by_entity.items():
        by_label: dict[str, list[str]] = {}
        for each in group:
            by_label.setdefault((each["label"] or "").strip().casefold(), []).append(each["name"])
        texts = [
            f'{len(names)} fields have the label "{label}": {", ".join(names)}'
            for label, names in by_label.items()
            if label and len(names) > 1
        ]
        texts += [f"without a label: {', '.join(names)}" for label, names in by_label.items() if not label]
        last = max((each["last_seen"] for each in group if each["last_seen"]), default=None)
        gone = [each["name"] for each in group if each["last_seen"] and each["last_seen"] < last]
        texts += [f"no longer in Pipedrive: {', '.join(gone)}"] if gone else []
        for text in texts:
            tables_of.setdefault(text, []).append(entity)
    return [f"{', '.join(entities)}: {text}" for text, entities in tables_of.items()]


def _format_age(moment: datetime | None) -> str:
    return "" if moment is None else str(datetime.now(UTC) - moment.astimezone(UTC)).split(".", 1)[0]
