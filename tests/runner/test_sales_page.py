"""docs/sales.md: each question is answered by the line of SQL beside it, and each view is described as it is.

python -m tests.runner.test_sales_page    # writes the part about the views
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pdsync.core import catalogue
from pdsync.core.views import views
from pdsync.runner.loader import Loader
from tests.runner.kit import COMPANY
from tests.runner.test_sales_views import make

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

PAGE = Path(__file__).parents[2] / "docs" / "sales.md"
HEADING = "\n## Views\n"
QUESTIONS = dict(
    re.findall(r"^\| (.+?) \| `((?:from|select) .+?)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
)


def page() -> str:
    """The page as it should be: what is above the heading, and each view."""
    lines = [PAGE.read_text(encoding="utf-8").partition(HEADING)[0], HEADING.strip()]
    for view in views().values():
        if view.question:
            lines += ["", f"### {view.call}", "", f"{view.question} {view.comment}"]
            lines += ["", f"In Insights: {view.insights}"] if view.insights else []
            lines += ["", "| column | |", "|---|---|"] if view.columns else []
            lines += [f"| `{column}` | {text} |" for column, text in view.columns.items()]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    loader = Loader(tmp_path_factory.mktemp("page") / "work.duckdb")
    loader.open(COMPANY, "Acme")
    make(loader)
    for stream in catalogue.streams().values():
        loader.table(stream, "v2")
    loader.create_views()
    yield loader.connection
    asyncio.run(loader.close())


def test_the_page_is_what_the_views_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.runner.test_sales_page"
    assert len(QUESTIONS) >= 19


def test_each_view_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(sales\.\w+)", PAGE.read_text(encoding="utf-8")))
    assert named - views().keys() == {"sales.timezone"}  # a setting


@pytest.mark.parametrize("question", QUESTIONS)
def test_each_question_is_answered_by_one_line_on_one_view(company: duckdb.DuckDBPyConnection, question: str) -> None:
    query = QUESTIONS[question]
    assert len(re.findall(r"\bsales\.\w+", query)) == 1
    names = [row[0] for row in company.execute(f"DESCRIBE {query}").fetchall()]
    assert len(names) > 1
    assert isinstance(company.execute(query).fetchall(), list)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
