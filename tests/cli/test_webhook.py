"""A pipeline reports its end to a webhook when it says so: always, after a failure, or never."""

from __future__ import annotations

import errno
import http.server
import json
import os
import signal
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import pytest

from pdsync.cli import webhook
from pdsync.cli.app import App
from pdsync.errors import ConfigError
from pdsync.model import Receipt
from pdsync.runner.report.webhook import ENV
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What a real server on this machine received."""
    bodies: list[dict[str, Any]] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv(ENV, f"http://127.0.0.1:{server.server_port}/hook")
        yield bodies
        server.shutdown()
        thread.join()


@pytest.fixture
def app(tmp_path: Path) -> App:
    made = App()
    made.project = tmp_path / "acme"
    made.project.mkdir()
    return made


def ended(exit_code: int) -> Receipt:
    return Receipt("run-1", "sync", NOW, exit_code=exit_code)


@pytest.mark.parametrize(
    ("when", "exit_code", "reports"),
    [
        ("always", 0, 1),
        ("always", 4, 1),
        ("failure", 0, 0),
        ("failure", 4, 1),
        ("never", 4, 0),
    ],
)
def test_a_run_is_reported_when_its_pipeline_says_so(
    app: App, posted: list[dict[str, Any]], when: str, exit_code: int, reports: int
) -> None:
    with webhook.reporting(app, "nightly", when):
        webhook.report_end(app, ended(exit_code), exit_code)
    assert len(posted) == reports
    for report in posted:
        assert (report["pipeline"], report["project"], report["exit_code"]) == ("nightly", "acme", exit_code)


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (ConfigError("There is no such stream."), 2),
        (click.Abort(), 130),
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (ZeroDivisionError("a bug"), 1),
    ],
)
@pytest.mark.parametrize(("when", "reports"), [("failure", 1), ("never", 0)])
def test_a_run_that_fails_or_is_interrupted_is_reported_and_still_raises(
    app: App, posted: list[dict[str, Any]], error: BaseException, exit_code: int, when: str, reports: int
) -> None:
    with pytest.raises(type(error)), webhook.reporting(app, "nightly", when):
        raise error
    assert [report["exit_code"] for report in posted] == [exit_code] * reports


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("job", ["sync", "reconcile"])
def test_an_interrupted_command_is_reported(
    box: RunningSandbox, posted: list[dict[str, Any]], tmp_path: Path, job: str, number: signal.Signals
) -> None:
    project = Project(tmp_path / "project").configure(base_url=box.url, api_token=box.token, notify_url=os.environ[ENV])
    assert project.here("sync", "deals", "-q").code == 0
    (project.folder / "pipelines").mkdir(exist_ok=True)
    (project.folder / "pipelines" / "mine.toml").write_text(
        f'job = "{job}"\nstreams = ["deals"]\nnotify = "failure"\ndescription = "x"\n'
    )
    posted.clear()
    module, name = {
        "sync": ("pdsync.runner.sync.walk_reader", "WalkReader.read_source"),
        "reconcile": ("pdsync.runner.reconcile.comparison", "Comparison.read"),
    }[job]
    ran = project.run("sync", "--pipeline", "mine", first=f"knobs.interrupt({module!r}, {name!r}, {int(number)})")
    assert ran.code == 130, ran
    assert [report["exit_code"] for report in posted] == [130]


def test_without_an_address_nothing_is_reported(app: App) -> None:
    with webhook.reporting(app, "nightly", "always"):
        webhook.report_end(app, ended(0), 0)
    assert app.notification is None
