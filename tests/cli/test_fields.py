"""`pdsync fields`: by table, all about one by its label, column or code; codes on a terminal only when asked for."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from pdsync.cli.main import main
from pdsync.load.warehouse import connect
from pdsync.runner.loader import Loader
from tests.cli.test_tables import on_screen, plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TIER, OTHER = f"{0xA1:040x}", f"{0xB2:040x}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with four custom fields: two are called Tier, one has no label."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "data").mkdir()
    (folder / "pdsync.toml").touch()
    path = folder / "data" / "warehouse.duckdb"
    loader = Loader(path)
    loader.open(1, "Acme")
    asyncio.run(loader.close())
    with connect(path) as connection:
        connection.executemany(
            "INSERT INTO meta.custom_fields (entity, field_code, label, column_name, field_type, first_seen, last_seen)"
            " VALUES (?, ?, ?, ?, ?, now(), now())",
            [
                ["deals", TIER, "Tier", "cf_tier", "enum"],
                ["deals", OTHER, "Tier", "cf_tier_b2", "enum"],
                ["persons", TIER, "Nickname", "cf_nickname", "varchar"],
            ],
        )
        connection.execute(
            "INSERT INTO meta.custom_fields (entity, field_code, column_name, field_type)"
            " VALUES ('persons', ?, 'cf_unnamed', 'text')",
            [OTHER],
        )
        connection.executemany(
            "INSERT INTO meta.field_options (entity, field_code, option_id, label) VALUES ('deals', ?, ?, ?)",
            [[TIER, "7", "Gold"], [TIER, "11", "Silver"]],
        )
    return folder


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PAGER", "cat")

    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["pdsync", "fields", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return run


@pytest.mark.parametrize(
    ("arguments", "first", "rows", "has_code"),
    [
        ((), "table    fields  with options  labels", None, False),
        (("--all",), "entity   column       label     type     options", 4, False),
        (("deals",), "column      label  type  options", 2, False),
        (("deals", "--codes"), "column      label  type  options       code", 2, True),
        (("deals", "tier"), "── 1 ────────────────────", None, True),
    ],
)
def test_a_terminal_shows_codes_by_flag_or_with_all_about_a_field(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], first: str,
    rows: int | None, has_code: bool,
) -> None:  # fmt: skip
    with on_screen(monkeypatch) as read:
        assert run(*arguments) == 0
        lines = plain(read()).splitlines()
    assert lines[0].rstrip() == first
    assert rows is None or len(lines) == rows + 1
    assert (TIER in "".join(lines)) is has_code


def test_a_pipe_gets_every_field_with_its_code(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["entity", "column", "label", "type", "options", "code"]
    assert [row.split()[-1] for row in rows] == [TIER, OTHER, TIER, OTHER]


@pytest.mark.parametrize(
    ("field", "columns"),
    [("TIER", ["cf_tier", "cf_tier_b2"]), ("cf_tier", ["cf_tier"]), (OTHER, ["cf_tier_b2"]), ("Tire", None)],
)
def test_a_field_is_found_by_label_column_and_code(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], field: str, columns: list[str] | None
) -> None:
    code = run("deals", field, "--json")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    if columns is None:
        assert (code, rows[0]["message"]) == (
            2, "deals has no custom field Tire. Did you mean 'Tier'? List them: pdsync fields deals"
        )  # fmt: skip
    else:
        assert [row["name"] for row in rows] == columns
        assert code == 0
