"""What waits to be uploaded is kept until its change has ended, whatever other processes do."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from pdsync.core import actions
from pdsync.errors import ConfigError
from pdsync.runner import kept_uploads
from pdsync.runner import push as pushing
from pdsync.runner.actions.change import queue
from pdsync.runner.actions.prepare import Prepared
from tests.runner.kit import deal, load, open_session
from tests.writeback.kit import entry

if TYPE_CHECKING:
    from pdsync.core.config import Settings
    from pdsync.runner.actions.caller import Caller

OTHER = """
import sys
from pathlib import Path
from pdsync.core.config import load
from pdsync.runner import kept_uploads
from tests.runner.test_kept_uploads import add
print("starts", flush=True)
add(load(Path(sys.argv[1])), "other.txt")
"""


def add(settings: Settings, name: str, **params: object) -> None:
    """Queue an upload of bytes, as an action does."""
    made = Prepared(actions.action("addFile"), cast("Caller", None))  # it asks nothing
    made.params, made.wants = params or {"deal_id": 1}, {"file": b"x", "file_name": name}
    queue(settings, made)


def kept(settings: Settings) -> set[str]:
    return {path.name for path in (settings.control.parent / "uploads").glob("*/*")}


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    async with open_session(tmp_path) as session:
        await load(session, "deals", deal(1))
    return session.settings


async def test_a_file_that_is_not_queued_yet_is_not_removed_by_another_process(settings: Settings) -> None:
    with pushing.opened(settings) as (outbox, _), kept_uploads.locked(settings):
        file = kept_uploads.keep(settings, b"x", "first.txt")
        process = subprocess.Popen([sys.executable, "-c", OTHER, str(settings.project)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"starts\n"
        with suppress(subprocess.TimeoutExpired):  # it waits for the lock
            process.wait(3)
        outbox.add([entry("v1 addFile", {"file": str(file), "deal_id": 1})])
    assert process.wait() == 0
    assert kept(settings) == {"first.txt", "other.txt"}


async def test_threat_13_of_a_change_that_is_refused_no_file_is_kept(settings: Settings) -> None:
    with pytest.raises(ConfigError):
        add(settings, "first.txt", deal_id="no number")
    assert kept(settings) == set()


async def test_a_project_that_was_moved_keeps_its_files(settings: Settings) -> None:
    add(settings, "first.txt")
    with pushing.opened(settings) as (outbox, _), kept_uploads.locked(settings):
        waiting = outbox.mutations(kept_uploads.WAITING)
        for mutation in waiting:
            mutation.payload["file"] = str(Path("/elsewhere", *Path(str(mutation.payload["file"])).parts[-2:]))
        assert kept_uploads.remove_ended(settings, waiting) == 0
    assert kept(settings) == {"first.txt"}
