"""No label, name or value can change a statement: by property, and by looking at every statement there is."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pdsync
from pdsync import sql
from pdsync.core import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
HOSTILE = [
    'a" FROM t; DROP TABLE t; --',
    "a'; DROP TABLE t; --",
    '""',
    '"',
    "'",
    "\\",
    "\\'",
    "select",
    "a.b",
    "two\nlines -- /* ",
    "🙂 $1 ? :name {x} %s",
    "\u2019\uff07\u02bc",
    "x" * 10_000,
]


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE t AS SELECT 42 AS kept")
    yield connection
    assert connection.execute("SELECT * FROM t").fetchall() == [(42,)]
    connection.close()


def _round_trip(database: duckdb.DuckDBPyConnection, column: str, value: str) -> None:
    found = database.execute(f"SELECT {sql.literal(value)} AS {sql.quoted(column)}, 7 AS {sql.quoted('z' + column)}")
    assert [each[0] for each in found.description or []] == [column, "z" + column]
    assert found.fetchall() == [(value, 7)]


@settings(max_examples=150, deadline=None)
@given(column=NAME, value=TEXT)
def test_x6_any_text_is_only_a_name_or_only_a_value(
    database: duckdb.DuckDBPyConnection, column: str, value: str
) -> None:
    _round_trip(database, column, value)


@pytest.mark.parametrize("label", HOSTILE, ids=lambda label: repr(label[:20]))
def test_x6_what_people_try_is_only_a_name_or_only_a_value(database: duckdb.DuckDBPyConnection, label: str) -> None:
    _round_trip(database, label, label)
    table = sql.quoted("memory", "main", label)
    database.execute(
        f"CREATE TABLE {table} ({sql.quoted_list([label, label + '2'])[: len(sql.quoted(label))]} VARCHAR)"
    )
    database.execute(f"INSERT INTO {table} VALUES (?)", [label])
    assert database.execute(f"SELECT {sql.quoted_list([label], 'q.')} FROM {table} q").fetchall() == [(label,)]
    database.execute(f"DROP TABLE {table}")


def test_x6_a_nul_is_left_out_of_names_and_refused_in_values() -> None:
    assert sql.quoted("a\0b") == '"ab"'
    with pytest.raises(ValueError, match="NUL"):
        sql.literal("a\0b")


def test_the_first_row_is_taken_and_the_rest_is_read(database: duckdb.DuckDBPyConnection) -> None:
    assert sql.first(database.execute("SELECT * FROM range(3)")) == (0,)
    assert sql.first(database.execute("SELECT 1 WHERE false")) is None


# Every statement of the package. What is no constant, no call of a helper above, and not made of such, stands here with
# the reason why no outside text is in it.

ALLOWED = {
    (
        "cli/commands/sql.py",
        "query",
    ): "what the person typed: `pdsync sql` is for that, and the warehouse is open read-only",
    ("cli/commands/files.py", "where"): "each of its callers writes it out; values are bound",
    ("core/control/archive_index.py", "PAGE_COLUMNS"): "the constant column list of `walks.py`",
    ("core/control/db.py", "query"): "rows(): each of its calls is looked at like an `execute`",
    ("core/control/walks.py", "where"): "_walks(): each of its calls is looked at like an `execute`",
    ("core/control/db.py", "statement"): "a piece of STEPS",
    (
        "fleet/ask.py",
        "_columns(table, list(files.get(table, {}).values()))",
    ): "of quoted names, literal paths, and types from the catalogue and schemas/rollup",
    ("fleet/ask.py", "_with_tags(fleet.accounts.values(), view)"): "of literals, and the query of _columns()",
    ("fleet/rollup.py", "kind"): "a type of rollup_tables.ACCOUNT_COLUMNS",
    (
        "fleet/rollup.py",
        "rollup_tables.select_table(self.connection, table, self.zone, self.currency)",
    ): "of quoted names, literals, and types from the catalogue and schemas/rollup",
    ("load/commit.py", "staged"): "the relation of a Batch, which stage.py quotes",
    ("load/commit.py", "joins"): "_labels(): made of quoted names and literals",
    ("load/commit.py", "labels.values()"): "_labels(): made of quoted names",
    ("load/commit.py", "expressions[column]"): "_labels(): made of quoted names",
    ("load/comments.py", "statements"): "of views and comments: quoted names, literals, schemas/views/*.toml",
    ("load/export.py", "query"): "_write(): of quoted relations and literal paths, a few lines above it",
    ("load/history.py", "waiting[key]"): "views of our own warehouse, in a connection that holds nothing else",
    ("load/project_views.py", "text.strip().rstrip(';')"): "one query of the project's own views/*.sql",
    ("load/project_views.py", "constant(_comment(text) or f'From views/{file.name}.')"): "a string constant",
    ("load/reader_objects.py", "objects(published)"): "objects(): made of literals",
    ("load/reader_objects.py", "objects(work)"): "objects(): made of literals",
    ("load/sales_views.py", "kind"): "VIEW, TABLE or MACRO TABLE, from the query above it",
    (
        "load/sales_views.py",
        "statement",
    ): "statements(): schemas/views/*.toml and quoted names",
    ("load/unmentioned.py", "staged"): "the relation of a Batch, which stage.py quotes",
    ("load/unmentioned.py", "value"): "quoted columns and _merged_extra(), made of literals",
    ("load/warehouse.py", "kind"): "a type from the catalogue or SYSTEM_COLUMNS, never from a label",
    ("load/warehouse.py", "memory_limit"): "a setting of the caller's, not of the API's",
    ("load/warehouse.py", "meta_sql"): "schemas/warehouse/*.sql, shipped with the package",
    (
        "runner/report/observed.py",
        "view('observed_from').queries[0].sql",
    ): "schemas/views/observed_from.toml, shipped with the package",
    ("runner/report/page/figures.py", "chart.query"): "schemas/report/*.vl.json, shipped with the package",
    ("load/warehouse.py", "row_hash"): "columns.row_hash(), made of quoted columns",
    ("normalise/stage.py", "self.relation"): "quoted where it is set",
    ("normalise/stage.py", "first_seq"): "an integer",
    ("normalise/stage.py", "shape"): "a name that columns.py makes",
    ("normalise/stage.py", "kind"): "a type from the catalogue, never from a label",
    ("reconcile/sweep.py", "self.relation"): "quoted where it is made",
    ("reconcile/sweep.py", "stage.relation"): "the relation of a Stage, which stage.py quotes",
    (
        "runner/report/duplicates.py",
        "conditions",
    ): "_payload_conditions(): quoted columns and types from the catalogue; values are bound",
    (
        "runner/reconcile/by_count.py",
        "self._join_row_counts(reported)",
    ): "made of quoted names; `reported` is made so a few lines above it",
    (
        "runner/report/freshness.py",
        "_can_be_verified(settings, stream, tables)",
    ): "a condition made of quoted names, a few lines below it",
    ("runner/reconcile/by_count.py", "sweep.relation"): "the relation of a Sweep, quoted where it is made",
    ("runner/sync/removed_children.py", "sweep.relation"): "the relation of a Sweep, quoted where it is made",
    ("runner/reconcile/diagnosis.py", "swept.relation"): "the relation of a Sweep, quoted where it is made",
    ("writeback/queue_reader.py", "name"): "a field of Mutation",
    ("writeback/company_names.py", "query"): "_rows(): each of its calls is looked at like an `execute`",
    ("writeback/queue_reader.py", "where"): "_select(): each of its calls is looked at like an `execute`",
    ("writeback/queue_reader.py", "Attempt.__struct_fields__"): "names of our own",
    ("writeback/queue_reader.py", "Mutation.__struct_fields__"): "names of our own",
    ("core/budget.py", "arguments"): "_Ledger.execute(): each of its calls is looked at",
    ("core/budget.py", "statement"): "_note(): each of its calls writes it out",
    ("writeback/known_records.py", "table"): "_table(): a quoted name",
    ("writeback/adoption.py", "'?' * len(columns)"): "placeholders",
}
# Functions that return SQL, made of quoted columns, literals and types of the catalogue.
BUILDERS = {
    "runner/stores.py": ("_batches_table(",),
    "load/commit.py": ("_valid_from(",),
    "normalise/stage.py": ("self._sql.", "is_no_object("),
    "load/history.py": ("_versions(", "_differences(", "_net_edits("),
}
SENDS = {"execute", "executemany", "executescript", "sql", "query", "rows", "_walks", "_select", "_rows"}
SOURCES = [path for path in sorted(Path(pdsync.__file__).parent.rglob("*.py")) if "sandbox" not in path.parts]


class _Module:
    """One source file, and which of its expressions hold no text from outside."""

    def __init__(self, path: Path) -> None:
        self.name = path.relative_to(Path(pdsync.__file__).parent).as_posix()
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.helpers = {
            alias.asname or alias.name
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom) and node.module == "pdsync.sql"
            for alias in node.names
        }
        self.used: set[tuple[str, str]] = set()

    def outside(self) -> Iterator[str]:
        """What is sent to a database and not known to be safe."""
        scopes = [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        for scope in (self.tree, *scopes):
            for node in _own(scope):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SENDS:
                    for found in self._unsafe(node.args[0], scope, frozenset()) if node.args else ():
                        yield f"pdsync/{self.name}:{node.lineno}: {found}"

    def _unsafe(self, node: ast.expr, scope: ast.AST, seen: frozenset[str]) -> Iterator[str]:
        match node:
            case ast.Constant():
                return
            case ast.JoinedStr(values=parts):
                inner = [part.value for part in parts if isinstance(part, ast.FormattedValue)]
            case ast.IfExp(body=one, orelse=other) | ast.BinOp(left=one, op=ast.Add(), right=other):
                inner = [one, other]
            case ast.BoolOp(values=inner) | ast.List(elts=inner) | ast.Tuple(elts=inner):
                pass
            case ast.ListComp(elt=one) | ast.GeneratorExp(elt=one) | ast.Starred(value=one):
                inner = [one]
            case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="join"), args=inner):
                pass
            case ast.Call(func=ast.Name(id=helper)) if helper in self.helpers | {"len", "int"}:
                return
            case ast.Name(id=known) if known not in seen and (found := self._values(known, scope)):
                inner, seen = found, seen | {known}
            case ast.Name(id=known) if known in seen:
                return
            case _:
                text = ast.unparse(node)
                if text.startswith(BUILDERS.get(self.name, ())):
                    return
                if (self.name, text) in ALLOWED:
                    self.used.add((self.name, text))
                    return
                yield text
                return
        for each in inner:
            yield from self._unsafe(each, scope, seen)

    def _values(self, name: str, scope: ast.AST) -> list[ast.expr]:
        """Everything that the variable `name` is set to, or that is put into it, in `scope` or else in the module."""
        found: list[ast.expr] = []
        for node in _own(scope):
            match node:
                case ast.Assign(targets=targets, value=value):
                    found += [value for target in targets if isinstance(target, ast.Name) and target.id == name]
                    for target in targets:
                        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                            both = zip(target.elts, value.elts, strict=True)
                            found += [part for each, part in both if isinstance(each, ast.Name) and each.id == name]
                case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
                    found.append(value)
                case ast.AugAssign(target=ast.Name(id=target), value=value) if target == name:
                    found.append(value)
                case ast.Call(func=ast.Attribute(value=ast.Name(id=target), attr="append"), args=[value]) if (
                    target == name
                ):
                    found.append(value)
                case ast.For(target=ast.Tuple(elts=targets), iter=ast.Tuple(elts=rows)):
                    for at, part in enumerate(targets):
                        if isinstance(part, ast.Name) and part.id == name:
                            found += [row.elts[at] for row in rows if isinstance(row, ast.Tuple)]
                case _:
                    pass
        return found if found or scope is self.tree else self._values(name, self.tree)


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of `scope` that belong to no function inside it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _own(child)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_x6_no_statement_is_made_of_text_from_outside(path: Path) -> None:
    assert list(_Module(path).outside()) == []


def test_s9_no_query_has_a_count_that_is_null_over_no_rows() -> None:
    """In DuckDB 2 `count_if` is; `count(*) FILTER (…)` is 0 in all versions."""
    queries = [path for path in catalogue.schemas().rglob("*") if path.suffix in (".toml", ".sql")]
    files = [*SOURCES, *queries]
    assert [path.name for path in files if "count_if" in path.read_text(encoding="utf-8").lower()] == []


@pytest.mark.proof
def test_x6_each_exception_is_still_needed() -> None:
    used: set[tuple[str, str]] = set()
    for module in map(_Module, SOURCES):
        list(module.outside())
        used |= module.used
    assert ALLOWED.keys() - used == set()


def test_x6_the_check_sees_what_it_is_for(tmp_path: Path) -> None:
    source = """
from pdsync.sql import name as quoted
def bad(db, label):
    alias = f"{label} x"
    db.execute(f"SELECT 1 AS {alias}")
    db.sql("SELECT " + label)
    db.execute("SELECT " + ", ".join([label]))
def good(db, label):
    alias = quoted(label)
    db.execute(f"SELECT 1 AS {alias}, {quoted(label)}" + (" LIMIT 1" if label else ""), [label])
"""
    module = _Module.__new__(_Module)
    module.name, module.tree, module.helpers, module.used = "x.py", ast.parse(source), {"quoted"}, set()
    assert [found.rpartition(" ")[2] for found in module.outside()] == ["label"] * 3
