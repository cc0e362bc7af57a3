"""The columns of the sales views in a roll-up, with their types: `python -m tests.fleet.sales_types` writes them.

They are those that DuckDB gives the views of a company that has every table, and no row.
"""

from __future__ import annotations

import duckdb

from pdsync.core import catalogue
from pdsync.core.views import views
from pdsync.load import sales_views, warehouse

FILE = catalogue.schemas() / "rollup" / "sales.toml"
LEFT_OUT = {  # view → why it is in no roll-up
    "sales.deal_changes": "a row for each change of a deal",
    "sales.deal_states": "a row for each state of a deal",
    "sales.duplicates": "a row for each pair of persons",
    "sales.pipeline_daily": "a row for each day",
    "sales.pushes": "a row for each deal",
    "sales.stage_visits": "a row for each visit of a deal",
    "sales.stale": "a row for each deal",
    "sales.vendor_check": "a comparison with Pipedrive's own numbers, for one who looks into them",
    "sales.vendor_check_rates": "as vendor_check",
}


def sales_types() -> dict[str, dict[str, str]]:
    """Name of a view in schema sales → its columns with their types."""
    with duckdb.connect() as database:
        database.execute(catalogue.sql("warehouse")["meta"])
        for name, stream in catalogue.streams().items():
            columns = {column: stream.column(column).sql_type for column in stream.columns}
            warehouse.ensure_table(database, name, columns)
            database.execute(warehouse.history_view(name))
            for child, entry in stream.children.items():
                items = list(stream.column(entry.of).items)
                for statement in warehouse.child_views(
                    child, name, stream.key, entry.parent, entry.of, items, entry.value
                ):
                    database.execute(statement)
        made = sales_views.statements(views().values(), catalogue.streams().keys(), sales_views.Timezones("UTC"))
        sales_views.create(database, [each for each in made if not each.startswith("COMMENT")])
        shown = [each for each in views().values() if each.question and not each.parameters]
        relations = {each.base_name: database.sql(f"FROM {each.name} LIMIT 0") for each in shown
                     if each.name not in LEFT_OUT}  # fmt: skip
        return {
            name: dict(zip(relation.columns, map(str, relation.types), strict=True))
            for name, relation in relations.items()
        }


if __name__ == "__main__":
    tables = [
        f"\n[{name}]\n" + "".join(f'{column} = "{kind}"\n' for column, kind in columns.items())
        for name, columns in sales_types().items()
    ]
    head = "# The sales views in a roll-up, with their types: `python -m tests.fleet.sales_types` writes it.\n"
    FILE.write_text(head + "".join(tables), encoding="utf-8")
