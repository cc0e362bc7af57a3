"""init, auth and doctor: a terminal and a browser in processes of their own, the rest inside this one."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import socket
import sqlite3
import stat
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import keyring
import pytest
from keyring.backends.fail import Keyring as FailingKeyring

from pdsync.core.control import Control
from pdsync.sandbox import Limits, OAuthSettings, Sizes, generate_company, running
from tests.support.world import clean_environment, run_here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox

RUN = [sys.executable, "-c", "from pdsync.cli.main import main; main()"]
CHECKS = [
    "python",
    "duckdb",
    "settings",
    "folder",
    "disk",
    "control",
    "warehouse",
    "archive",
    "token",
    "host",
    "account",
    "company",
    "admin",
    "clock",
    "budget",
]


@pytest.fixture(scope="module")
def box() -> Iterator[RunningSandbox]:
    company = generate_company(seed=1, sizes=Sizes(deals=3))
    with running(company, limits=Limits(burst=None), oauth=OAuthSettings(rotate=True)) as found:
        yield found


class Person:
    """Somebody at a shell, in a folder, on a machine without a keyring."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.printed = ""  # all output of all commands

    def environment(self, **more: str) -> dict[str, str]:
        ring = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
        return {**clean_environment(), **ring, "PDSYNC_BASE_URL": self.url, **more}

    def runs(self, *command: str, stdin: str = "", **more: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of `pdsync *command`, run inside this process."""
        keyring.set_keyring(FailingKeyring())  # type: ignore[no-untyped-call]
        with contextlib.chdir(self.folder):
            ran = run_here(command, self.environment(**more), stdin)
        self.printed += ran.out + ran.err
        return ran.code, ran.out, ran.err

    def doctor(self, **more: str) -> tuple[int, dict[str, dict[str, Any]]]:
        code, out, _ = self.runs("doctor", "--json", **more)
        found = [json.loads(line) for line in out.splitlines()]
        assert all(list(check) == ["name", "ok", "detail", "fix"] for check in found)
        assert all(check["ok"] or check["fix"] for check in found)
        return code, {check["name"]: check for check in found}


@pytest.fixture
def person(tmp_path: Path, box: RunningSandbox) -> Iterator[Person]:
    before = keyring.get_keyring()
    yield Person(tmp_path, box.url)
    keyring.set_keyring(before)


def failing(checks: dict[str, dict[str, Any]]) -> list[str]:
    return [name for name, check in checks.items() if not check["ok"]]


# init


def test_init_makes_a_project_and_says_what_is_next(person: Person, box: RunningSandbox) -> None:
    code, out, err = person.runs("init", "--no-input", PDSYNC_API_TOKEN=box.token)
    assert code == 0
    assert out == ""
    assert "pdsync sync" in err
    assert "Northquay" in err
    toml = (person.folder / "pdsync.toml").read_text()
    assert f'base_url = "{box.url}"' in toml
    assert box.token not in toml
    assert (person.folder / ".gitignore").read_text() == "data/\n"
    assert stat.S_IMODE((person.folder / "data").stat().st_mode) == 0o700
    assert list((person.folder / "data").iterdir()) == []
    # What it wrote is what pdsync reads.
    code, out, _ = person.runs("auth", "status", "--json", PDSYNC_BASE_URL="", PDSYNC_API_TOKEN=box.token)
    assert code == 0
    assert json.loads(out)["name"] == box.url


def test_init_changes_nothing_that_is_there(person: Person) -> None:
    (person.folder / "pdsync.toml").write_text("# mine\n[limits]\nburst = 7\n")
    (person.folder / ".gitignore").write_text("*.log")
    code, _, err = person.runs("init", "--no-input", "--domain", "acme")
    assert code == 0
    assert "is not changed" in err
    assert (person.folder / "pdsync.toml").read_text() == "# mine\n[limits]\nburst = 7\n"
    assert (person.folder / ".gitignore").read_text() == "*.log\ndata/\n"
    assert person.runs("init", "--no-input")[0] == 0
    assert (person.folder / ".gitignore").read_text() == "*.log\ndata/\n"


@pytest.mark.parametrize(
    ("domain", "written"),
    [
        ("acme", "https://acme.pipedrive.com"),
        ("Acme-2.pipedrive.com", "https://acme-2.pipedrive.com"),
        ("https://acme.pipedrive.com/deals/pipeline", "https://acme.pipedrive.com"),
        ("http://127.0.0.1:8765", "http://127.0.0.1:8765"),
    ],
)
def test_init_understands_a_domain_however_it_is_written(person: Person, domain: str, written: str) -> None:
    assert person.runs("init", "--no-input", "--domain", domain, PDSYNC_BASE_URL="")[0] == 0
    assert f'\nbase_url = "{written}"\n' in (person.folder / "pdsync.toml").read_text()
    code, checks = person.doctor(PDSYNC_BASE_URL="")
    assert code == 1
    assert checks["settings"]["ok"]
    assert written in checks["settings"]["detail"]


@pytest.mark.parametrize("domain", ["https://evil.example", "evil.example", "http://acme.pipedrive.com", "a b"])
def test_x3_init_writes_no_host_that_is_not_pipedrive(person: Person, domain: str) -> None:
    assert person.runs("init", "--no-input", "--domain", domain, PDSYNC_BASE_URL="")[0] == 2
    assert not (person.folder / "pdsync.toml").exists()


def test_init_does_not_write_through_a_link(person: Person, tmp_path_factory: pytest.TempPathFactory) -> None:
    victim = tmp_path_factory.mktemp("home") / ".profile"
    victim.write_text("# mine\n")
    (person.folder / ".gitignore").symlink_to(victim)
    assert person.runs("init", "--no-input")[0] == 0
    assert victim.read_text() == "# mine\n"


def test_x2_init_asks_at_a_terminal_and_never_shows_the_token(person: Person, box: RunningSandbox) -> None:
    spawn = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    process = subprocess.Popen(
        [sys.executable, "-c", spawn, *RUN, "init"],
        cwd=person.folder,
        env=person.environment(PDSYNC_BASE_URL=""),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    shown = ""
    try:
        for prompt, reply in (("Company domain", box.url), ("API token:", box.token)):
            while prompt not in shown:
                shown += os.read(process.stdout.fileno(), 1000).decode()
            time.sleep(0.3)  # getpass throws away what was typed before it asked
            process.stdin.write(f"{reply}\n".encode())
            process.stdin.flush()
        shown += process.communicate(timeout=30)[0].decode()
    finally:
        process.kill()
    assert process.returncode == 0, shown
    assert box.token not in shown
    assert "Freya Clarke (an admin)" in shown
    assert json.loads(person.runs("auth", "status", "--json", PDSYNC_BASE_URL="")[1])["source"] == "file"


# auth


def test_login_status_logout(person: Person, box: RunningSandbox) -> None:
    code, out, err = person.runs("auth", "login", "--token", "-", stdin=f"{box.token}\n")
    assert (code, out) == (0, "")
    assert "Warning: there is no system keyring here" in err
    assert "an admin" in err
    kept = person.folder / "data" / "credentials.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    code, out, _ = person.runs("auth", "status", "--json")
    assert code == 0
    assert json.loads(out) == {
        "name": box.url,
        "kind": "api_token",
        "source": "file",
        "user_id": 5550001,
        "user": "Freya Clarke",
        "company_id": 5550,
        "company": "Northquay Instruments",
        "company_domain": "northquay-5550",
        "admin": True,
    }
    assert str(kept) in person.runs("auth", "status")[1]
    _, out, _ = person.runs("auth", "status", "--json", PDSYNC_API_TOKEN=box.tokens["member"])
    assert (json.loads(out)["source"], json.loads(out)["admin"]) == ("environment", False)

    assert person.runs("auth", "logout")[0] == 0
    assert not kept.exists()
    code, _, err = person.runs("auth", "status")
    assert code == 2
    assert "pdsync auth login" in err
    assert "Nothing was stored" in person.runs("auth", "logout")[2]


def test_a_refused_token_is_not_stored(person: Person) -> None:
    code, _, err = person.runs("auth", "login", "--token", "-", stdin="no-such-token\n")
    assert code == 2
    assert "refuses the token" in err
    assert not (person.folder / "data" / "credentials.json").exists()


def test_an_unreachable_host_is_named_and_nothing_is_stored(person: Person, box: RunningSandbox) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{found.getsockname()[1]}"
        code, _, _ = person.runs("auth", "login", "--token", "-", stdin=f"{box.token}\n", PDSYNC_BASE_URL=url)
    assert code == 1
    assert not (person.folder / "data" / "credentials.json").exists()


@pytest.mark.parametrize("words", [("--no-input",), ()])
def test_login_prompts_only_on_a_terminal(person: Person, words: tuple[str, ...]) -> None:
    code, _, err = person.runs("auth", "login", *words)
    assert code == 2
    assert "--token -" in err


@pytest.mark.parametrize("option", ["--token", "--client-secret"])
def test_x2_a_secret_in_argv_is_refused_and_not_repeated(person: Person, option: str) -> None:
    code, out, err = person.runs("auth", "login", option, "s3cret-in-argv", "--json")
    assert code == 2
    assert "s3cret-in-argv" not in out + err
    assert not (person.folder / "data").exists()


def test_x1_a_token_of_another_company_is_not_stored(person: Person, box: RunningSandbox) -> None:
    control = Control(person.folder / "data" / "control.db")
    control.bind_company(6660, "Somebody Else", None)
    control.close()
    for command, stdin in ((("auth", "login", "--token", "-"), f"{box.token}\n"), (("init", "--no-input"), "")):
        code, _, err = person.runs(*command, stdin=stdin, **({} if stdin else {"PDSYNC_API_TOKEN": box.token}))
        assert code == 2
        assert "6660" in err
    assert not (person.folder / "data" / "credentials.json").exists()
    code, checks = person.doctor(PDSYNC_API_TOKEN=box.token)
    assert code == 1
    assert failing(checks) == ["company"]


def test_oauth_login_through_a_browser(person: Person, box: RunningSandbox) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        where = f"http://127.0.0.1:{found.getsockname()[1]}/callback"
    words = ["auth", "login", "--oauth", "--client-id", "sandbox-client", "--redirect-uri", where, "--no-browser"]
    process = subprocess.Popen(
        [*RUN, *words, "--json", "--client-secret", "-"],
        cwd=person.folder,
        env=person.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdin
        assert process.stdout
        process.stdin.write("sandbox-secret\n")
        process.stdin.flush()
        url = json.loads(process.stdout.readline())["url"]
        with urllib.request.urlopen(url) as page:
            assert b"pdsync has the authorisation" in page.read()
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert json.loads(out)["company_id"] == 5550
    kept = (person.folder / "data" / "credentials.json").read_text()
    for secret in re.findall(r'"(?:access_token|refresh_token|client_secret)":"([^"]+)"', kept):
        assert secret not in out + err
    box.oauth.expire_access_tokens()
    code, out, _ = person.runs("auth", "status", "--json")
    assert code == 0
    assert json.loads(out)["kind"] == "oauth"
    code, checks = person.doctor()
    assert code == 0, failing(checks)


def test_oauth_needs_a_client_id(person: Person) -> None:
    assert person.runs("auth", "login", "--oauth")[0] == 2
    assert person.runs("auth", "login", "--client-id", "app")[0] == 2


# doctor


def test_doctor_in_an_empty_folder_finds_only_the_token_missing(person: Person) -> None:
    code, checks = person.doctor()
    assert code == 1
    assert list(checks) == CHECKS
    assert failing(checks) == ["token", "account", "company", "admin", "clock"]
    assert list(person.folder.iterdir()) == []  # it changes nothing


def test_doctor_finds_nothing_wrong_with_a_synced_project(person: Person, box: RunningSandbox) -> None:
    person.runs("init", "--no-input")
    person.runs("auth", "login", "--token", "-", stdin=box.token)
    assert person.runs("sync", "deals", "-q", PDSYNC_DAILY_TOKENS="0")[0] == 0
    code, checks = person.doctor()
    assert (code, failing(checks)) == (0, [])
    assert list(checks) == CHECKS
    code, out, _ = person.runs("doctor")
    assert code == 0
    assert out.count("✓") == len(CHECKS)

    # One thing after the other goes wrong, and each is named by its own check.
    data = person.folder / "data"
    sealed = next((data / "raw").iterdir())
    content = sealed.read_bytes()
    sealed.write_bytes(content[:-20])
    assert failing(person.doctor()[1]) == ["archive"]
    with contextlib.closing(sqlite3.connect(data / "control.db", isolation_level=None)) as db:
        for state in ("dropped", "applied"):  # a replay needs the pages of dropped walks, too
            db.execute("UPDATE walks SET state = ?", [state])
            assert failing(person.doctor()[1]) == ["archive"]
    sealed.write_bytes(content)
    (data / "control.db").rename(data / "elsewhere")
    code, checks = person.doctor()
    assert (code, failing(checks)) == (1, ["control", "archive"])
    assert "is lost" in checks["control"]["detail"]
    (data / "elsewhere").rename(data / "control.db")
    data.chmod(0o755)
    assert failing(person.doctor()[1]) == ["folder"]
    data.chmod(0o700)
    (data / "credentials.json").chmod(0o644)
    code, checks = person.doctor()
    assert failing(checks) == ["token", "account", "company", "admin", "clock"]
    assert "chmod 600" in checks["token"]["fix"]
    (data / "credentials.json").chmod(0o600)
    warehouse = (data / "warehouse.duckdb").read_bytes()
    (data / "warehouse.duckdb").write_bytes(b"not a database" * 1000)
    assert failing(person.doctor()[1]) == ["warehouse"]
    (data / "warehouse.duckdb").write_bytes(warehouse)
    assert failing(person.doctor(PDSYNC_API_TOKEN=box.tokens["member"])[1]) == ["admin"]
    box.clock.advance(3600)
    try:
        assert failing(person.doctor()[1]) == ["clock"]
    finally:
        box.clock.advance(-3600)
    with sqlite3.connect(data / "control.db") as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("UPDATE tokens SET server_remaining = 0, spent_then = spent")
    db.close()
    assert "budget" in failing(person.doctor()[1])


def test_doctor_reports_a_damaged_control_db(person: Person, box: RunningSandbox) -> None:
    data = person.folder / "data"
    Control(data / "control.db").close()
    content = bytearray((data / "control.db").read_bytes())
    content[4096:] = b"\xaa" * (len(content) - 4096)
    (data / "control.db").write_bytes(content)
    code, checks = person.doctor(PDSYNC_API_TOKEN=box.token)
    assert code == 1
    assert "control" in failing(checks)
    assert checks["control"]["fix"].endswith("pdsync sync")


def test_doctor_takes_an_empty_control_db_for_none(person: Person, box: RunningSandbox) -> None:
    data = person.folder / "data"
    data.mkdir(mode=0o700)
    (data / "control.db").touch()
    code, checks = person.doctor(PDSYNC_API_TOKEN=box.token)
    assert (code, failing(checks)) == (0, [])


def test_o7_doctor_names_a_folder_that_can_not_be_one(person: Person, box: RunningSandbox) -> None:
    (person.folder / "notes").write_text("a file")
    path = str(person.folder / "notes" / "data" / "warehouse.duckdb")
    code, checks = person.doctor(PDSYNC_API_TOKEN=box.token, PDSYNC_WAREHOUSE=path)
    assert (code, failing(checks)) == (1, ["folder"])
    assert "warehouse.path" in checks["folder"]["fix"]


def test_doctor_ends_with_2_when_the_settings_can_not_be_read(person: Person) -> None:
    (person.folder / "pdsync.toml").write_text("[limits]\nburts = 7\n")
    code, checks = person.doctor()
    assert code == 2
    assert failing(checks) == ["settings"]
    assert "burst" in checks["settings"]["detail"] + checks["settings"]["fix"]


def test_doctor_distinguishes_an_unreachable_host_from_a_refused_token(person: Person, box: RunningSandbox) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{found.getsockname()[1]}"
        assert failing(person.doctor(PDSYNC_BASE_URL=url, PDSYNC_API_TOKEN="a-token")[1])[0] == "host"
    code, checks = person.doctor(PDSYNC_API_TOKEN="no-such-token")
    assert code == 1
    assert failing(checks)[0] == "account"
    assert "refuses the token" in checks["account"]["detail"]


def test_x2_no_output_and_no_file_but_the_vault_shows_the_token(person: Person, box: RunningSandbox) -> None:
    person.runs("init", "--no-input", "-vv", PDSYNC_API_TOKEN=box.token)
    person.runs("auth", "login", "--token", "-", "-vv", stdin=box.token)
    for fault in ({"kind": "401"}, {"kind": "status", "status": 400, "body": box.token}, {"kind": "html_403"}):
        box.faults.add(**fault, path="/v1/users/me", times=2)
        for words in (("auth", "status", "-vv"), ("doctor", "-vv", "--json")):
            person.runs(*words)
    box.faults.clear()
    forms = {box.token, quote(box.token, safe=""), base64.b64encode(box.token.encode()).decode()}
    written = {path: path.read_bytes() for path in person.folder.rglob("*") if path.is_file()}
    assert [path.name for path, content in written.items() if box.token.encode() in content] == ["credentials.json"]
    assert not [form for form in forms if form in person.printed]
