"""schemas/report and the vendored Vega: what the page draws with is of the sources that are committed."""

from __future__ import annotations

import hashlib
import json
import re

import pytest

from pdsync.core.views import views
from pdsync.runner.report.page.charts import Chart, charts, compiled
from tests.charts.__main__ import PACKAGES, SPECS, VENDOR

DRAWN = [(folder, chart) for folder in ("", "fleet") for chart in charts(folder) if chart.spec]


@pytest.mark.parametrize(("folder", "chart"), DRAWN, ids=[chart.name for _, chart in DRAWN])
def test_the_compiled_spec_is_of_the_present_source(folder: str, chart: Chart) -> None:
    source = (SPECS / "config.json").read_bytes() + (SPECS / folder / f"{chart.name}.vl.json").read_bytes()
    content = json.loads((SPECS / folder / "compiled.json").read_bytes())
    assert content["vega_lite"] == PACKAGES["vega-lite"]
    assert content["charts"][chart.name]["source"] == hashlib.sha256(source).hexdigest(), "python -m tests.charts"
    assert "rows" in {each["name"] for each in compiled(chart.name)["data"]}
    assert "url" not in json.dumps(compiled(chart.name)["data"])


def test_each_figure_draws_a_view_that_exists() -> None:
    tables = {"meta.checkpoints", "meta.streams", "meta.runs", "meta.schema_changes", "control.db"}
    assert [chart.view for chart in charts() if chart.view not in tables | views().keys()] == []
    assert {chart.section for chart in charts()} == {"health", "sales"}


def test_the_vendored_files_are_those_of_the_list() -> None:
    rows = re.findall(
        r"^\| `(\S+)` \| (\S+) (\S+), .* \| `(\w+)` \|$", (VENDOR / "README.md").read_text(), re.MULTILINE
    )
    assert [(name, version) for _, name, version, _ in rows] == [(n, PACKAGES[n]) for n in ("vega", "vega-interpreter")]
    for file, name, _, digest in rows:
        assert hashlib.sha256((VENDOR / file).read_bytes()).hexdigest() == digest
        assert "Redistribution" in (VENDOR / f"{name}.LICENSE").read_text()
