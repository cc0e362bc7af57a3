"""What the company's plan or the token's rights refuse is reported stream by stream, and fails nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.world import Project, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.world import Remote


@pytest.fixture(scope="module")
def server() -> Iterator[Remote]:
    with serving("--deals", "40", "--seed", "9") as remote:
        yield remote


@pytest.fixture
def remote(server: Remote) -> Iterator[Remote]:
    server.clear_faults()
    yield server
    server.clear_faults()


def test_s10_what_the_plan_does_not_include_is_no_gap(remote: Remote, tmp_path: Path) -> None:
    remote.fault(kind="status", status=415, path="/api/v2/products")
    project = Project(tmp_path / "project", remote)

    ran = project.here("sync", "deals", "products", "--json")

    assert ran.code == 0, ran
    products = ran.summary["streams"]["products"]
    assert (products["complete"], products["read"], products["error"]) == (True, 0, None)
    assert "plan" in products["note"]
    assert ran.summary["streams"]["deals"]["read"] > 0
    assert ran.summary["gaps"] == []


def test_s9_what_the_rights_refuse_is_a_gap(remote: Remote, tmp_path: Path) -> None:
    remote.fault(kind="status", status=403, path="/api/v2/products")
    project = Project(tmp_path / "project", remote)

    ran = project.here("sync", "deals", "products", "--json")

    assert ran.code == 4, ran
    assert ran.summary["streams"]["deals"]["complete"]
    assert [gap["stream"] for gap in ran.summary["gaps"]] == ["products"]
    assert ran.summary["gaps"][0]["kind"] == "forbidden"


def test_s9_a_stream_that_was_read_before_and_is_not_part_of_the_plan_now_is_a_gap(
    remote: Remote, tmp_path: Path
) -> None:
    project = Project(tmp_path / "project", remote)
    assert project.here("sync", "products", "--json").code == 0
    remote.fault(kind="status", status=415, path="/api/v2/products")

    ran = project.here("sync", "products", "--json")

    assert ran.code == 4, ran
    assert [gap["kind"] for gap in ran.summary["gaps"]] == ["forbidden"]
