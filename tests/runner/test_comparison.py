"""Which streams are compared, in which order, and what is said of the others; what a sweep or a sample counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from pdsync.core import catalogue
from pdsync.runner.reconcile.comparison import Comparison
from pdsync.runner.reconcile.findings import ReconcileRequest, ReconcileResult
from tests.runner.kit import deal, load, open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pdsync.errors import PdsyncError
    from pdsync.runner.session import OnlineSession

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OnlineSession]:
    """A project that has read deals, their products, flows of deals, and a stream whose lists take a time."""
    async with open_session(tmp_path_factory.mktemp("project")) as opened:
        await load(opened, "deals", deal(1), deal(2), deal(3, is_deleted=True))
        for name in ("deal_products", "deal_changelog", "users", "mail_threads"):
            await load(opened, name)
        yield opened


def select(session: OnlineSession, **options: Any) -> tuple[list[str], ReconcileResult, dict[str, PdsyncError]]:
    result = ReconcileResult(session.receipt)
    failed: dict[str, PdsyncError] = {}
    chosen = Comparison(session, ReconcileRequest(**options)).select(result, failed)
    return [stream.name for stream in chosen], result, failed


async def test_s7_all_that_were_read_are_compared_and_children_last(session: OnlineSession) -> None:
    names, result, failed = select(session)
    assert names[-1] == "deal_products"
    assert {"deals", "users"} <= set(names)
    assert result.by_count == ["deal_products"]
    assert "it costs a request per record" in result.left_out["deal_changelog"]
    assert failed == {}


async def test_a_stream_that_is_named_and_can_t_be_compared_has_failed(session: OnlineSession) -> None:
    names, result, failed = select(session, streams=("deals", "persons"))
    assert names == ["deals"]
    assert result.left_out["persons"] == "it was never read: pdsync sync persons"
    assert set(failed) == {"persons"}


async def test_s9_a_stream_whose_first_reading_was_stopped_is_a_gap(session: OnlineSession) -> None:
    await load(session, "products", {"id": 1, "name": "a"}, state="open", following="next")
    names, result, failed = select(session)
    assert "products" not in names
    assert [(gap.stream, gap.kind) for gap in result.receipt.gaps] == [("products", "incomplete")]
    assert "never read to its end: pdsync sync products" in result.receipt.gaps[0].detail
    assert failed == {}
    session.receipt.gaps.clear()


async def test_a_stream_that_is_left_out_is_not_mentioned(session: OnlineSession) -> None:
    names, result, _ = select(session, leave_out=("deals", "deal_changelog"))
    assert not {"deals", "deal_changelog"} & {*names, *result.left_out}


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("deal_changelog", {}, "it costs a request per record"),
        ("deal_changelog", {"streams": ("deal_changelog",)}, None),  # the user wants to pay for it
        ("deal_products", {"sample": 5}, "omit --sample"),
        ("deals", {"sample": 5}, None),
    ],
)
async def test_the_reason_why_a_stream_is_not_compared(
    session: OnlineSession, name: str, options: dict[str, Any], reason: str | None
) -> None:
    comparison = Comparison(session, ReconcileRequest(**options))
    found = comparison._reason_not_comparable(catalogue.stream(name), {name})
    assert (reason in found) if found and reason else found is reason


@pytest.mark.parametrize(
    "name", [name for name, each in catalogue.streams().items() for s in each.sources("v2")[1] if s.params]
)
async def test_a_list_whose_content_depends_on_a_time_is_not_compared(session: OnlineSession, name: str) -> None:
    comparison = Comparison(session, ReconcileRequest(streams=(name,)))
    assert "depends on the time" in (comparison._reason_not_comparable(catalogue.stream(name), {name}) or "")


async def test_a_sample_is_of_live_rows(session: OnlineSession) -> None:
    comparison = Comparison(session, ReconcileRequest(sample=5))
    assert set(comparison._select_sample(catalogue.stream("deals"), 5)) == {"1", "2"}
    assert len(comparison._select_sample(catalogue.stream("deals"), 1)) == 1
    assert comparison.count_rows(catalogue.stream("deals")) == 2
