"""Each guard at its limit less one, at its limit, and one beyond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pdsync.errors import GuardTripped
from pdsync.writeback.guards import MOST_MERGES, Consent, check, compute_max_changes, compute_max_deletes
from pdsync.writeback.plan import LIFE, Plan, Step

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.model import Verb
    from pdsync.writeback.precondition import Policy

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
ALL = frozenset(("delete", "merge", "overwrite"))
OPERATIONS: dict[Verb, str] = {"update": "v2 updateDeal", "delete": "v2 deleteDeal", "merge": "v1 mergeDeals"}


def plan(verb: Verb, count: int, policy: Policy = "field", cost: int = 5) -> Plan:
    steps = tuple(
        Step(str(n), n, OPERATIONS[verb], verb, "deals", f"deals/{n}", None, {"id": n}, None, (), 1, cost, "send")
        for n in range(count)
    )
    return Plan(1, "Company", NOW, NOW + LIFE, policy, steps, 0).sealed()


def trips(
    found: Plan,
    tmp_path: Path,
    consent: Consent | None = None,
    rows: int | None = None,
    left: int | None = None,
    now: datetime = NOW,
) -> str | None:
    freeze = tmp_path / "pdsync.freeze"
    try:
        check(found, consent or Consent(ALL), lambda kind: rows, tokens_left=left, now=now, freeze=freeze)
    except GuardTripped as error:
        return error.guard
    return None


@pytest.mark.parametrize(("rows", "limit"), [(None, 500), (100, 500), (10_000, 500), (20_000, 1000)])
def test_w8_changes(tmp_path: Path, rows: int | None, limit: int) -> None:
    assert compute_max_changes(rows) == limit
    found = [trips(plan("update", limit + more), tmp_path, rows=rows) for more in (-1, 0, 1)]
    assert found == [None, None, "changes"]


@pytest.mark.parametrize(("rows", "limit"), [(None, 50), (0, 1), (99, 1), (300, 3), (5_000, 50), (900_000, 50)])
def test_w8_deletes(tmp_path: Path, rows: int | None, limit: int) -> None:
    assert compute_max_deletes(rows) == limit
    found = [trips(plan("delete", limit + more), tmp_path, rows=rows) for more in (-1, 0, 1)]
    assert found == [None, None, "deletes"]


def test_w8_merges(tmp_path: Path) -> None:
    found = [trips(plan("merge", MOST_MERGES + more), tmp_path) for more in (-1, 0, 1)]
    assert found == [None, None, "merge"]


def test_w8_numbers_that_were_allowed(tmp_path: Path) -> None:
    changes, deletes = Consent(ALL, max_changes=7), Consent(ALL, max_deletes=7)
    assert [trips(plan("update", n), tmp_path, changes) for n in (6, 7, 8)] == [None, None, "changes"]
    assert [trips(plan("delete", n), tmp_path, deletes) for n in (6, 7, 8)] == [None, None, "deletes"]
    assert trips(plan("update", 5000), tmp_path, Consent(ALL, max_changes=5000)) is None


def test_w8_tokens(tmp_path: Path) -> None:
    assert [trips(plan("update", 10), tmp_path, left=left) for left in (51, 50, 49)] == [None, None, "budget"]


def test_w8_age(tmp_path: Path) -> None:
    second = timedelta(seconds=1)
    ages = [LIFE - second, LIFE, LIFE + second]
    assert [trips(plan("update", 1), tmp_path, now=NOW + age) for age in ages] == [None, None, "age"]


@pytest.mark.parametrize(("verb", "word"), [("delete", "delete"), ("merge", "merge")])
def test_w8_deletes_and_merges_need_a_word_of_their_own(tmp_path: Path, verb: Verb, word: str) -> None:
    assert trips(plan(verb, 1), tmp_path, Consent(ALL - {word})) == word
    assert trips(plan(verb, 1), tmp_path, Consent(frozenset({word}))) is None


def test_w8_overwriting_needs_a_word_of_its_own(tmp_path: Path) -> None:
    assert trips(plan("update", 1, "ours"), tmp_path, Consent(ALL - {"overwrite"})) == "overwrite"
    assert trips(plan("update", 1, "ours"), tmp_path, Consent(frozenset({"overwrite"}))) is None


def test_w8_a_file_freezes_every_push(tmp_path: Path) -> None:
    (tmp_path / "pdsync.freeze").touch()
    assert trips(plan("update", 1), tmp_path) == "freeze"
    assert trips(plan("update", 0), tmp_path) == "freeze"


def test_w9_a_plan_dated_in_the_future_is_not_carried_out(tmp_path: Path) -> None:
    ahead = [timedelta(hours=25), timedelta(minutes=6), timedelta(minutes=4), timedelta(0)]
    assert [trips(plan("update", 1), tmp_path, now=NOW - each) for each in ahead] == ["age", "age", None, None]


def message(found: Plan, tmp_path: Path, consent: Consent, rows: int | None = None, left: int | None = None) -> str:
    freeze = tmp_path / "pdsync.freeze"
    with pytest.raises(GuardTripped) as error:
        check(found, consent, lambda kind: rows, tokens_left=left, now=NOW, freeze=freeze, command="pdsync push p.json")
    return str(error.value)


def mixed(deletes: int, merges: int, policy: Policy = "field") -> Plan:
    steps = plan("delete", deletes).steps + plan("merge", merges).steps
    return Plan(1, "Company", NOW, NOW + LIFE, policy, steps, 0).sealed()


@pytest.mark.parametrize(
    ("found", "consent", "options"),
    [
        (mixed(9, 2), Consent(), "--allow delete,merge --max-deletes 9"),
        (mixed(9, 2), Consent(frozenset({"delete"})), "--allow delete,merge --max-deletes 9"),
        (mixed(9, 2), Consent(max_deletes=3), "--allow delete,merge --max-deletes 9"),
        (mixed(9, 2), Consent(ALL), "--allow delete,merge,overwrite --max-deletes 9"),
        (mixed(1, 2), Consent(max_deletes=5), "--allow delete,merge --max-deletes 5"),
        (mixed(1, 1, "ours"), Consent(max_changes=1), "--allow delete,merge,overwrite --max-changes 2"),
    ],
)
def test_w8_one_message_names_all_guards_and_one_command_that_lets_the_push_pass(
    tmp_path: Path, found: Plan, consent: Consent, options: str
) -> None:
    text = message(found, tmp_path, consent, rows=300)
    assert text.count("Nothing was sent") == 1
    assert text.splitlines()[-1] == f"If you mean it: pdsync push p.json {options}"
    words = dict(zip(options.split()[::2], options.split()[1::2], strict=True))
    limits = [int(words[name]) if name in words else None for name in ("--max-changes", "--max-deletes")]
    assert trips(found, tmp_path, Consent(frozenset(words["--allow"].split(",")), *limits), rows=300) is None


def test_w8_what_no_option_lets_pass_is_named_too(tmp_path: Path) -> None:
    text = message(mixed(1, MOST_MERGES + 1), tmp_path, Consent(), left=1)
    for part in ("--limit N", "the day has turned", "--allow delete,merge", "1 record.", f"limit is {MOST_MERGES}"):
        assert part in text
