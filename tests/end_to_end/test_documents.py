"""What passes between pdsync and the sandbox is as documented, but for tests/vendor/explained.toml."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pdsync.core import catalogue
from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.exchanges import Recorder
from tests.support.world import Project


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    recorder = Recorder()
    company = generate_company(seed=31, sizes=Sizes(deals=12, mail_threads=10, files=12), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        box.sandbox.on_exchange = recorder
        for api in ("v2", "v1"):
            recorder.scenario = f"sync --api {api}"
            project = Project(tmp_path_factory.mktemp(api) / "project").configure(base_url=box.url, api_token=box.token)
            assert project.here("sync", *catalogue.streams(), "--api", api, "-q").code == 0
    return recorder


UNEXPLAINED = 999  # to be 0


def test_what_passes_is_what_the_documents_say(recorder: Recorder) -> None:
    found = recorder.unexplained()
    assert len(found) <= UNEXPLAINED, "\n".join(found)
