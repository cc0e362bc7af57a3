"""Changes field definitions as an administrator does in the app, between two runs of a sync or during one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pdsync.sandbox.company.company import Company

OPERATIONS = ("add", "delete", "rename", "retype", "add_option", "rename_option", "remove_option")


def change_fields(  # noqa: C901 - a table
    company: Company,
    kind: str,
    op: str,
    code: str = "",
    *,
    name: str = "",
    type: str = "varchar",
    options: list[str] | None = None,
    option_id: int = 0,
) -> dict[str, Any]:
    """Change the custom fields of `kind` ("deals", …). Records keep their values, except those of a deleted field.

    No record's update_time changes, so a sync that reads by time does not notice. Hold the company's lock. The journal
    has only the records that lose the value of a deleted field.

    Args:
        op: one of OPERATIONS.
        code: of the field to change; not for add.
        name, options: name of the field or label of the option; labels of a new field's options.

    Returns:
        The field in the form of v2.

    Raises:
        ValueError: `op` is unknown.
        KeyError: no custom field has this code.
    """
    fields, now = company.fields[kind], company.clock.stamp()
    company.version += 1
    company.memo.clear()
    if op == "add":
        return fields.add(name, type, options, at=now).v2(kind)
    field = fields.custom[code]
    field.update_time = now
    match op:
        case "delete":
            fields.retire(code)
            for row in list(company[kind].rows.values()):
                record = row.record
                if code in record["custom_fields"]:
                    del record["custom_fields"][code]
                    company.put(kind, "field_deleted", record)
        case "rename":
            field.name = name
        case "retype":
            field.type = type
        case "add_option":
            added = fields.make_options([name], now)
            field.options = [*(field.options or []), *added]
        case "rename_option":
            for option in field.options or ():
                if option["id"] == option_id:
                    option |= {"label": name, "update_time": now}
        case "remove_option":
            removed = [option for option in field.options or () if option["id"] == option_id]
            field.options = [option for option in field.options or () if option["id"] != option_id]
            field.options_deleted = [*(field.options_deleted or []), *removed]
        case _:
            raise ValueError(f"{op!r} is not one of {', '.join(OPERATIONS)}")
    return field.v2(kind)
