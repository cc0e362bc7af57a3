"""Creates the project's own views, one for each file `views/NAME.sql`, in schema `my`.

A file has one query; the view is named after the file, and comments before the query become its comment. Views may use
each other. A file that fails is reported, and stops nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb

from pdsync.core.disk import first_line
from pdsync.load.comments import constant
from pdsync.sql import quoted

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = "my"


def recreate(connection: duckdb.DuckDBPyConnection, folder: Path) -> list[str]:
    """Replace the views of schema `my` by those of the files in `folder`.

    Args:
        connection: to the work file.
        folder: `views` of the project; it need not exist.

    Returns:
        A message for each file that made no view.
    """
    files = sorted(folder.glob("*.sql"))
    existing = connection.execute(
        "SELECT view_name FROM duckdb_views() WHERE database_name = current_database() AND schema_name = ?", [SCHEMA]
    ).fetchall()
    for (name,) in existing:
        connection.execute(f"DROP VIEW {quoted(SCHEMA, name)}")
    if not files:
        return []
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(SCHEMA)}")
    waiting, faults = dict.fromkeys(files, ""), dict[str, str]()
    while waiting:
        for file in waiting:
            waiting[file] = _create(connection, file)
        left = {file: fault for file, fault in waiting.items() if fault}
        if len(left) == len(waiting):  # none of them only waits for another
            faults = {file.name: fault for file, fault in left.items()}
            break
        waiting = left
    return [f"views/{name} makes no view: {fault}" for name, fault in faults.items()]


def _create(connection: duckdb.DuckDBPyConnection, file: Path) -> str:
    """Create the view of a file; why not, or an empty text."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        statements = duckdb.extract_statements(text)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            return f"it needs exactly one query, SELECT or FROM; the view is called {SCHEMA}.{file.stem} after the file"
        name = quoted(SCHEMA, file.stem)
        connection.execute(f"CREATE VIEW {name} AS\n{text.strip().rstrip(';')}\n")
        connection.execute(f"COMMENT ON VIEW {name} IS {constant(_comment(text) or f'From views/{file.name}.')}")
    except (OSError, UnicodeDecodeError) as error:
        return f"it can't be read ({error})"
    except duckdb.Error as error:
        return first_line(error)
    return ""


def _comment(text: str) -> str:
    """The comment lines that a file begins with."""
    lines = []
    for line in text.strip().splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.lstrip("- "))
    return " ".join(lines)
