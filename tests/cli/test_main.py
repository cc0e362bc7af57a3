"""The root command: global options anywhere, an exit code for each outcome, and no stack trace without -v."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from pdsync.cli.main import COMMANDS, main, root
from pdsync.core.control import Control
from tests.support.world import clean_environment

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's settings, and the umask as it was."""
    for name in set(os.environ) - clean_environment().keys():
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "umask", lambda mask: mask)
    (tmp_path / "my papers").mkdir()
    (tmp_path / "my papers" / "letter.txt").write_text("Dear Anna")
    monkeypatch.chdir(tmp_path)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """What the command line would end with, in this process."""
    monkeypatch.setattr(sys, "argv", ["pdsync", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_every_command_is_there_and_explains_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in COMMANDS.keys() - {"sandbox"}:  # which has no project
        assert run(monkeypatch, command, "--help") == 0
        shown = capsys.readouterr().out
        assert shown.startswith("Usage: ")
        assert "--project" in shown
    assert root.list_commands(click.Context(root)) == list(COMMANDS)


def test_help_groups_the_commands_and_breaks_no_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(monkeypatch, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith(":") and line[0] != " "] == [
        "Options:", "Start:", "Every day:", "Answers:", "Write back:", "Keep:", "Many accounts:", "Look inside:",
    ]  # fmt: skip
    width = max(map(len, COMMANDS)) + 2
    for name, entry in COMMANDS.items():
        assert f"  {name:{width}}{entry.does}" in lines
    assert max(map(len, lines)) <= 80


def _imports(*arguments: str) -> set[str]:
    """The modules that a process has imported when the command has ended, and the packages that they are in."""
    script = (
        "import sys\nfrom pdsync.cli.main import main\ntry:\n    main()\nexcept SystemExit as ended:\n"
        "    print(ended.code, *sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    code, *modules = ran.stdout.splitlines()[-1].split()
    assert code in {"0", "2"}
    return {*modules, *(name.partition(".")[0] for name in modules)}


_DATABASE = {"duckdb", "pyarrow", "numpy", "pandas"}
_ONLINE = {"aiohttp", "asyncio", "ssl", "keyring", "pdsync.core.http", "pdsync.runner.session"}


@pytest.mark.parametrize(
    ("arguments", "never", "most"),  # modules of pdsync, of some 350
    [
        (["--help"], {*_DATABASE, *_ONLINE, "rich", "tomllib", "pdsync.core.catalogue"}, 15),
        (["status"], {*_ONLINE, "pyarrow", "pandas", "rich"}, 60),
        (["sql", "select 1"], {*_ONLINE, "pyarrow.parquet", "pandas", "rich"}, 50),
    ],
)
def test_a_command_imports_only_what_it_uses(arguments: list[str], never: set[str], most: int) -> None:
    imported = _imports(*arguments)
    assert imported & never == set()
    assert len([name for name in imported if name.startswith("pdsync.")]) <= most


def test_the_help_of_any_command_imports_no_client() -> None:
    script = (
        "import sys\nfrom importlib import import_module\nfrom pdsync.cli.main import COMMANDS\n"
        "for module in {entry.module for entry in COMMANDS.values()}:\n"
        "    import_module(f'pdsync.cli.commands.{module}')\n"
        "print(*{'aiohttp', 'keyring', 'jinja2', 'rich', 'pdsync.core.http', 'pdsync.sandbox'} & sys.modules.keys())"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"\n"


def test_the_short_help_of_a_command_begins_as_its_own() -> None:
    for name, entry in COMMANDS.items():
        command = root.get_command(click.Context(root), name)
        assert command
        assert command.short_help is None  # the table of the root command is the only one
        assert (command.help or "").split()[0] == entry.does.split()[0], name
        if isinstance(command, click.Group):
            assert (command.help or "").startswith(entry.does)


def test_global_options_work_before_and_after_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shown = []
    for arguments in (
        ["--json", "--project", str(tmp_path), "streams", "deals"],
        ["streams", "--json", "deals", "--project", str(tmp_path)],
        ["--project", str(tmp_path), "streams", "deals", "--json"],
    ):
        assert run(monkeypatch, *arguments) == 0
        shown.append(capsys.readouterr().out)
    assert len(set(shown)) == 1
    assert json.loads(shown[0])["name"] == "deals"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["streems"], "No such command 'streems'. Did you mean 'streams'?"),
        (["snyc"], "No such command 'snyc'. Did you mean 'sync'?"),
        (["xyzzy"], "No such command 'xyzzy'."),
        (["queue", "lsit"], "Did you mean 'list'?"),
        (["diff", "--form", "2026-01-01"], "Did you mean '--from'?"),
        (["sync", "--ful"], "Did you mean '--full'?"),
        (["status", "--since", "2026-01-01"], "No such option '--since'."),
        (["diff", "--since", "2026-01-01"], "There is no warehouse"),  # as `--from`
        (["streams", "deels"], "Did you mean 'deals'"),
        (["sql", "select 1"], "pdsync sync"),
        (["runs", "show"], "There is no run"),
        (["api"], "Name an operation"),
        (["api", "getDeal", "id"], "key=value"),
        (["api", "--request", "BREW", "/v1/deals"], "is not a method"),
        (["api", "--request", "GET", "/oauth/token"], "is not a path of the API"),
        (["api", "--request", "DELETE", "/v1/deals/1"], "add --yes"),
        (["api", "--request", "POST", "/v1/deals", "--yes", "--body", "{"], "is not JSON"),
        (["api", "deleteDeal", "id=1"], "add --yes"),
        (["plan", "--pipeline", "nope"], "There is no pipeline"),
        (["plan", "deels"], "Did you mean 'deals'"),
        (["fields"], "There is no warehouse"),
        (["--project", "no folder", "status"], "pdsync --project 'no folder' init"),
        (["--project", "no folder", "sync"], "There is no folder"),
        (
            ["--project", "my papers", "sync"],
            "pdsync --project 'my papers' init\nOr run the same command with --create",
        ),
        (["--project", "my papers", "status"], "The folder my papers is no pdsync project"),
        (["status", "--project", "my papers/letter.txt"], "is a file. A project is the folder that it is in"),
    ],
)
def test_o7_a_wrong_call_ends_with_2_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert run(monkeypatch, *arguments) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert "Traceback" not in told.err
    assert told.out == ""

    assert run(monkeypatch, "--json", *arguments) == 2
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["event"], last["complete"], last["exit_code"]) == ("error", False, 2)
    assert says in last["message"]


@pytest.mark.parametrize(
    ("folder", "more"),
    [
        ("my papers", ["--create"]),
        ("missing", ["--create"]),
        (".", []),  # the current folder needs no permission
        ("empty", []),
        ("settings", []),
        ("data", []),
    ],
)
def test_a_folder_is_used_if_it_is_a_project_or_empty_or_meant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, folder: str, more: list[str]
) -> None:
    for name in ("empty/.git", "settings/pipelines", "data/data/raw"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "settings/pipelines/mine.toml").write_text("")
    monkeypatch.setenv("PDSYNC_PROJECT", str(tmp_path / folder))
    assert run(monkeypatch, "status", *more) == 0
    assert "Nothing has been synced yet" in capsys.readouterr().err
    assert not (tmp_path / "missing").exists()


def test_o7_a_bug_ends_with_1_and_without_a_stack_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A receipt that no pdsync wrote is unexpected, so it counts as a bug. -v shows where."""
    (tmp_path / "data").mkdir()
    Control(tmp_path / "data" / "control.db").close()
    with sqlite3.connect(tmp_path / "data" / "control.db") as db:
        db.execute("INSERT INTO runs VALUES ('r', 'sync', '2026-01-01T00:00:00+00:00', '{\"run_id\": 5}')")
    db.close()

    assert run(monkeypatch, "runs") == 1
    told = capsys.readouterr().err
    assert told.startswith("This is a bug in pdsync")
    assert "Traceback" not in told
    assert run(monkeypatch, "-v", "runs") == 1
    assert "Traceback" in capsys.readouterr().err
    assert run(monkeypatch, "runs", "--json") == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["exit_code"] == 1


def test_x2_an_error_repeats_no_secret_of_an_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PDSYNC_BASE_URL", "https://me:C4N4RY@acme.pipedrive.com/?api_token=C4N4RY")
    for words in (["status"], ["-vv", "sql", "from deals"], ["sync", "--json"]):
        assert run(monkeypatch, *words) == 2
        told = capsys.readouterr()
        assert "account.base_url is" in told.err
        assert "C4N4RY" not in told.err + told.out
    monkeypatch.setenv("PDSYNC_BASE_URL", "https://acme.pipedrive.com")
    assert run(monkeypatch, "sql", "-o", "csv", "--as-of", "https://x/?api_token=C4N4RY", "from deals") == 2
    assert run(monkeypatch, "replay", "https://me:C4N4RY@host/?client_secret=C4N4RY&x=1") == 2
    assert "C4N4RY" not in capsys.readouterr().err


def test_a_quiet_command_says_nothing_but_its_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "-q", "status") == 0
    assert capsys.readouterr() == ("", "")
    assert run(monkeypatch, "status") == 0
    assert "pdsync sync" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("PDSYNC_BRUST", "PDSYNC_BRUST is not a setting of pdsync, and has no effect. Did you mean PDSYNC_BURST?\n"),
        ("PDSYNC_COLOUR_OF_THE_SKY", "PDSYNC_COLOUR_OF_THE_SKY is not a setting of pdsync, and has no effect.\n"),
        ("PDSYNC_API_TOKEN", ""),
        ("PDSYNC_RAW_DAYS", ""),
    ],
)
def test_an_unknown_variable_is_named_with_a_guess(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    monkeypatch.setenv(name, "5")
    assert run(monkeypatch, "runs") == 0
    assert capsys.readouterr().err == says + "Nothing has run yet: pdsync sync\n"
    assert run(monkeypatch, "runs", "-q") == 0
    assert capsys.readouterr().err == ""


def test_operations_are_found_by_their_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "operations", "merge", "deal", "--json") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["operation_id"], row["version"], row["method"]) for row in found] == [("mergeDeals", "v1", "PUT")]
    assert [list(row)[:2] for row in found] == [["operation_id", "version"]]
    assert run(monkeypatch, "operations", "no such thing") == 0
    assert "No operation matches" in capsys.readouterr().err


@pytest.mark.parametrize("order", [("--project", "{}", "doctor"), ("doctor", "--project", "{}")])
def test_a_flag_before_or_after_the_command_wins_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], order: tuple[str, ...]
) -> None:
    named, other = tmp_path / "named", tmp_path / "other"
    for folder in (named, other):
        folder.mkdir()
    monkeypatch.setenv("PDSYNC_PROJECT", str(other))
    run(monkeypatch, *(word.format(named) for word in order))
    printed = "".join(capsys.readouterr())
    assert str(named) in printed
    assert str(other) not in printed


def test_an_option_is_guessed_only_if_it_looks_alike(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "status", "--since", "2026-01-01") == 2
    assert capsys.readouterr().err.endswith("No such option '--since'.\n")


def test_a_port_that_is_in_use_names_the_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert run(monkeypatch, "sandbox", "serve", "--deals", "1", "--port", str(port)) == 2
    assert f"Port {port} is in use. Choose another: --port {port + 1}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[{"kind": "x"}]', "fault 1 of 1: 'x' is not a kind of fault"),
        ("{", "is no JSON list of faults"),
        ('[{"kind": "401", "path": "("}]', "path '(' is no regular expression"),
    ],
)
def test_o7_a_bad_file_of_faults_is_named_with_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "f.json").write_text(content)
    assert run(monkeypatch, "sandbox", "serve", "--deals", "1", "--port", "0", "--faults", "f.json") == 2
    told = capsys.readouterr().err
    assert told.startswith("Error: f.json")
    assert says in told


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_o7_a_process_that_is_started_without_streams_does_its_work(tmp_path: Path, closed: str) -> None:
    command = f"exec {sys.executable} -m pdsync init {closed}"
    environment = {**clean_environment(), "HOME": str(tmp_path), "PDSYNC_PROJECT": str(tmp_path / "project")}
    ran = subprocess.run(["sh", "-c", command], env=environment, check=False)
    assert ran.returncode == 0
    assert (tmp_path / "project" / "pdsync.toml").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize("where", [">/dev/full", "2>/dev/full", ">/dev/full 2>&1", "| true"])
def test_o7_o2_an_error_that_nobody_can_read_keeps_its_exit_code(tmp_path: Path, where: str) -> None:
    sync = f"{sys.executable} -m pdsync --json sync"
    command = f"({sync}; echo $? >code) {where}"
    environment = {**clean_environment(), "HOME": str(tmp_path)}
    with (tmp_path / "err").open("w") as err:
        subprocess.run(["sh", "-c", command], env=environment, cwd=tmp_path, check=True, stderr=err)
    assert (tmp_path / "code").read_text() == "2\n"  # there is no token
    assert "Traceback" not in (tmp_path / "err").read_text()
