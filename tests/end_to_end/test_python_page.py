"""docs/python.md: each example runs as it stands, in the folder of a project, also where an event loop runs already."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pdsync
from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.world import Project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.sandbox import RunningSandbox

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
EXAMPLES = re.findall(r"```python\n(.+?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def box() -> Iterator[RunningSandbox]:
    company = generate_company(seed=6, sizes=Sizes(deals=12, files=1, mail_threads=1))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        yield box


@pytest.mark.proof
async def test_each_example_runs_inside_an_event_loop(
    box: RunningSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path / "project")
    project.configure(base_url=box.url, api_token=box.token)
    for name, value in project.env.items():
        if name.startswith("PDSYNC_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(project.folder)
    assert len(EXAMPLES) == 3
    names: dict[str, object] = {}
    for example in EXAMPLES:
        code = compile(example, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if inspect.isawaitable(waiting := eval(code, names)):
            await waiting
    assert names["titles"]
    deal = next(entry["record"] for entry in box.dump("deals") if entry["id"] == 1)
    assert deal["title"] != "Renamed"  # it was sent, and undone
    assert sum(entry.path == "/api/v2/deals/1" and entry.method == "PATCH" for entry in box.log) == 2


def test_help_is_the_manual() -> None:
    text = pydoc.plain(pydoc.render_doc(pdsync))
    for name in ("class Client", "class Queue", "open_warehouse(", "sync(", "pdsync.errors"):
        assert name in text
    assert set(pdsync.__all__) <= set(dir(pdsync))
