"""A night on Dask workers, those of a scheduler and those that the command starts, brings all accounts together."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from pdsync.fleet import accounts, rollup
from tests.fleet.dask import dask_cluster
from tests.support.companies import serving_companies, write_fleet
from tests.support.fleets import Night
from tests.support.world import clean_environment, run_here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.world import Remote

pytestmark = [pytest.mark.proof, pytest.mark.timeout(600)]

STREAMS = ("users", "pipelines", "stages", "deals")
Sums = dict[tuple[str, str], Decimal]


@contextlib.contextmanager
def cluster_options(kind: str, folder: Path) -> Iterator[tuple[str, str]]:
    """What makes a night run on two Dask workers."""
    if kind == "--workers":
        yield "--workers", "2"
        return
    with dask_cluster(folder, 2, 1) as cluster:
        yield "--scheduler", cluster.address


def true_sums(companies: dict[str, Remote]) -> Sums:
    """By account and currency: what the deals are worth that the company has."""
    sums: Sums = defaultdict(Decimal)
    for name, remote in companies.items():
        for entry in remote.dump("deals"):
            if entry["state"] in ("live", "archived"):
                sums[name, entry["record"]["currency"]] += Decimal(str(entry["record"]["value"]))
    return sums


def query(folder: Path, *command: str) -> list[dict[str, Any]]:
    """What a command of the fleet prints, as JSON, with nothing on stderr: no account lacks anything."""
    ran = run_here(["--project", str(folder), "--json", "fleet", *command], clean_environment())
    assert (ran.code, ran.err) == (0, "")
    return ran.events


@pytest.mark.parametrize("kind", ["--scheduler", "--workers"])
def test_the_roll_up_of_all_accounts_has_what_their_companies_have(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "fleet"
    with serving_companies(3, 1, 12) as companies, cluster_options(kind, tmp_path / "dask") as options:
        write_fleet(folder, companies, 'rollup = ["deals", "users"]', STREAMS)
        code, summary, stderr = Night(folder, *options).wait()
        assert (code, sorted(summary["accounts"])) == (0, sorted(companies)), stderr
        assert len({each["worker"] for each in summary["accounts"].values()}) == 2
        truth = true_sums(companies)
        counts = {name: len(remote.dump("users")) for name, remote in companies.items()}

    fleet = accounts.load(folder)
    for name in companies:
        catalog = rollup.read_catalog(rollup.target_of(fleet).open(), name)
        assert set(catalog.tables) == set(rollup.target_of(fleet).tables)
        for file in catalog.tables.values():
            content = duckdb.execute("SELECT count(*) FROM read_parquet(?)", [str(fleet.data / "rollup" / file.path)])
            assert content.fetchone() == (file.rows,)
    deals = "select account, currency, sum(value) as value from fleet.deals where _deleted_at is null group by all"
    sums = {(row["account"], row["currency"]): Decimal(str(row["value"])) for row in query(folder, "sql", deals)}
    assert sums == truth
    users = query(folder, "sql", "select account, count(*) as users from fleet.users group by all")
    assert {row["account"]: row["users"] for row in users} == counts
    (again,) = query(folder, "rollup")
    assert [each["written"] for each in again["accounts"].values()] == [{}, {}, {}]
