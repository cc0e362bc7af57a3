"""Carries out commands as forks of one process that has imported everything already, which saves a second each.

    with Forks() as forks:
        forks.run(project, "sync", first="knobs.small_pages(20)", kill_after=0.7)

Each command is a process and is really killed. The process that forked it does that, so that no other process can
be hit.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.world import ROOT, Project, Ran, clean_environment

if TYPE_CHECKING:
    from types import TracebackType

_IMPORTED = ("sync", "backfill", "archive", "export", "reconcile", "push", "queue", "doctor")


class Forks:
    """A process that forks; one command at a time."""

    def __enter__(self) -> Forks:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forks"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment(), cwd=ROOT,
        )  # fmt: skip
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def run(self, project: Project, *arguments: str, first: str = "", kill_after: float | None = None) -> Ran:
        """Run `pdsync …` to its end, or kill it `kill_after` seconds after its start."""
        assert self._process.stdin
        assert self._process.stdout
        with tempfile.TemporaryDirectory() as folder:
            request = {"arguments": arguments, "env": project.env, "cwd": str(project.folder), "first": first,
                     "kill_after": kill_after, "into": folder}  # fmt: skip
            for name in ("out", "err"):
                Path(folder, name).touch()  # it may be killed before it opens them
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            out, err = (Path(folder, name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err"))
        return Ran(code, out, err)


def _become(request: dict[str, Any]) -> None:
    """Become the requested command."""
    for number, name in ((1, "out"), (2, "err")):
        handle = os.open(Path(request["into"], name), os.O_WRONLY)
        os.dup2(handle, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = ["pdsync", *request["arguments"]]
    knobs, main = import_module("tests.support.knobs"), import_module("pdsync.cli.main").main
    exec(request["first"], {"knobs": knobs})
    main()


def _fork(request: dict[str, Any]) -> int:
    """Fork and run the command; returns its exit code, negative where a signal ended it."""
    began = time.monotonic()
    child = os.fork()
    if not child:
        code = 1
        try:
            _become(request)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if request["kill_after"] is not None and time.monotonic() - began >= request["kill_after"]:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def main() -> None:
    for module in _IMPORTED:
        import_module(f"pdsync.cli.commands.{module}")
    import_module("tests.support.knobs")
    import_module("pdsync.runner.sync.load_files")
    import_module("pyarrow.parquet")
    import_module("aiohttp")
    catalogue = import_module("pdsync.core.catalogue")
    for load in (catalogue.streams, catalogue.field_types):
        load()
    for version in catalogue.VERSIONS:
        catalogue.operations(version)
    for line in sys.stdin:
        print(_fork(json.loads(line)), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
