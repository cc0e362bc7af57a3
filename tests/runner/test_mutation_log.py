"""meta.mutations has a row for each mutation of the outbox, with all of its evidence, and keeps what it knows else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.runner.report.mutation_log import save_mutation_log
from tests.writeback.kit import COMPANY, bring_to, entry

if TYPE_CHECKING:
    from pdsync.model import State
    from pdsync.runner.loader import Loader
    from pdsync.writeback.outbox import Outbox


def rows(loader: Loader) -> list[dict[str, Any]]:
    cursor = loader.connection.execute("SELECT * FROM meta.mutations ORDER BY seq")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_w1_a_mutation_is_written_with_its_evidence(loader: Loader, outbox: Outbox) -> None:
    mutation = bring_to(outbox, "unknown", outbox.add([entry(key="k", expected={"title": "Old"})])[0])
    outbox.record_probe(mutation.id, "read deals/12", {"title": "Old"}, "unclear")
    outbox.settle(mutation.id, "needs_review", "several", "why", after={"id": 12}, bound="deals/12")
    outbox.resolve(mutation.id, "applied", "12", "looked")
    save_mutation_log(loader, outbox, {mutation.id: "run-1"})
    [row] = rows(loader)
    assert (row["seq"], row["id"], row["operation"], row["verb"]) == (1, mutation.id, "v2 updateDeal", "update")
    assert (row["entity"], row["target_id"], row["remote_id"]) == ("deals", "12", "12")
    assert (row["state"], row["outcome"], row["reason"], row["detail"]) == (
        "needs_review", "needs_review", "several", "why",
    )  # fmt: skip
    assert (row["dedupe_key"], row["bound"], row["company_id"], row["batch"]) == (
        "k",
        "deals/12",
        COMPANY,
        mutation.batch,
    )
    assert (row["attempts"], row["reflected_by"]) == (1, "run-1")
    assert json.loads(row["payload"]) == {"id": 12, "title": "New"}
    assert json.loads(row["base_image"]) == {"title": "Old"}
    evidence = json.loads(row["evidence"])
    assert [each["method"] for each in evidence["attempts"]] == ["PATCH"]
    assert [each["verdict"] for each in evidence["probes"]] == ["unclear"]
    assert json.loads(row["resolution"])["note"] == "looked"


@pytest.mark.parametrize(
    ("state", "outcome"), [("queued", None), ("approved", None), ("armed", None), ("unknown", None),
                           ("applied", "applied"), ("cancelled", "cancelled")],
)  # fmt: skip
def test_only_what_has_ended_has_an_outcome(loader: Loader, outbox: Outbox, state: State, outcome: str | None) -> None:
    bring_to(outbox, state)
    save_mutation_log(loader, outbox, {})
    assert (rows(loader)[0]["state"], rows(loader)[0]["outcome"]) == (state, outcome)


def test_the_record_that_an_addition_made_is_its_remote_id(loader: Loader, outbox: Outbox) -> None:
    mutation = outbox.add([entry("v2 addDeal", {"title": "x"})])[0]
    outbox.settle(mutation.id, "applied", remote_id="99")
    child = outbox.add([entry("v2 deleteDealProduct", {"id": 12, "product_attachment_id": 3})])[0]
    save_mutation_log(loader, outbox, {})
    assert [(row["target_id"], row["remote_id"]) for row in rows(loader)] == [(None, "99"), ("3", "3")]
    assert rows(loader)[1]["id"] == child.id


def test_w13_the_run_that_showed_a_mutation_first_is_kept(loader: Loader, outbox: Outbox) -> None:
    first, second = bring_to(outbox, "applied"), bring_to(outbox, "applied")
    save_mutation_log(loader, outbox, {first.id: "run-1"})
    save_mutation_log(loader, outbox, {first.id: "run-2", second.id: "run-2"})
    assert [row["reflected_by"] for row in rows(loader)] == ["run-1", "run-2"]


def test_a_row_is_replaced_and_one_of_an_unknown_mutation_is_kept(loader: Loader, outbox: Outbox) -> None:
    mutation = outbox.add([entry()])[0]
    save_mutation_log(loader, outbox, {})
    loader.connection.execute("INSERT INTO meta.mutations (id, seq, state) VALUES ('foreign', 9, 'beamed')")
    bring_to(outbox, "applied", mutation)
    save_mutation_log(loader, outbox, {})
    assert [(row["id"], row["state"]) for row in rows(loader)] == [(mutation.id, "applied"), ("foreign", "beamed")]


def test_a_mutation_of_an_operation_that_is_unknown_here_is_written_all_the_same(
    loader: Loader, outbox: Outbox
) -> None:
    bring_to(outbox, "applied")
    with outbox.control.transaction() as db:
        db.execute("UPDATE mutations SET operation = 'v3 beamDeal'")
    save_mutation_log(loader, outbox, {})
    assert [(row["operation"], row["verb"], row["target_id"]) for row in rows(loader)] == [
        ("v3 beamDeal", "update", "12")
    ]


def test_an_empty_outbox_writes_nothing(loader: Loader, outbox: Outbox) -> None:
    save_mutation_log(loader, outbox, {})
    assert rows(loader) == []
