"""A roll-up of what a store has: the rows of each account's published warehouse, while no worker has the account."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pdsync.errors import ConfigError
from pdsync.fleet import lease, removal, rollup, stored_rollup
from pdsync.fleet.mirror import mirrored
from pdsync.fleet.rollup import RolledUp

if TYPE_CHECKING:
    from pathlib import Path

    from pdsync.fleet.accounts import Fleet
    from pdsync.fleet.store import Store
    from tests.fleet.companies import Companies


@pytest.fixture
def fleet(companies: Companies, store: Store, store_url: str, tmp_path: Path) -> Fleet:
    """The companies' fleet, with acme in a store, and nothing on this machine."""
    disk = tmp_path / "disk"
    shutil.copytree(companies.fleet.accounts["acme"].folder, disk)
    with mirrored(store, "acme", disk, owner="a worker"):
        pass
    shutil.rmtree(disk)
    accounts = {name: replace(each, folder=tmp_path / name) for name, each in companies.fleet.accounts.items()}
    return replace(companies.fleet, store=store_url, file=tmp_path / "here" / "fleet.toml", accounts=accounts)


@pytest.mark.proof
def test_what_the_store_has_is_rolled_up_without_the_raw_archive(
    companies: Companies, fleet: Fleet, store: Store
) -> None:
    raw = [entry.key for entry in store.list("acme") if "/data/raw/" in entry.key]
    assert raw
    store.remove(raw)  # whatever reads them fails
    chosen = fleet.select(["acme", "never"])
    results = stored_rollup.roll_up(fleet, chosen)
    assert results["never"] == RolledUp("never")
    assert results["acme"].error == ""
    target, local = rollup.target_of(fleet), rollup.target_of(companies.fleet)
    stored = rollup.read_catalog(target.open(), "acme")
    assert stored.tables == rollup.read_catalog(local.open(), "acme").tables
    assert list(results["acme"].written) == list(stored.tables)
    assert list(fleet.data.iterdir()) == []
    again = stored_rollup.roll_up(fleet, chosen)["acme"]
    assert (again.error, again.written, again.unchanged) == ("", {}, len(stored.tables))
    full = stored_rollup.roll_up(fleet, chosen, full=True)["acme"]
    assert list(full.written) == list(stored.tables)


def test_an_account_that_a_worker_runs_is_left_to_it(fleet: Fleet, store: Store) -> None:
    with lease.acquire(store, "acme", owner="a worker", ttl_s=3):
        results = stored_rollup.roll_up(fleet, fleet.select(["acme"]), on_note=lambda text: None)
    assert "Account acme is being run by a worker." in results["acme"].error
    assert rollup.find_accounts(fleet) == []


def test_a_damaged_warehouse_is_reported_and_stops_no_other(fleet: Fleet, store: Store, tmp_path: Path) -> None:
    (key,) = [entry.key for entry in store.list("acme") if entry.key.endswith("warehouse.duckdb")]
    broken = tmp_path / "broken"
    broken.write_bytes(b"no database")
    store.upload(key, broken, 0, 11)
    results = stored_rollup.roll_up(fleet, fleet.select(["acme", "never"]))
    assert "is damaged, and the pointer of account acme names it" in results["acme"].error
    assert list(results) == ["acme", "never"]
    assert list(fleet.data.iterdir()) == []


def test_x7_settings_in_the_store_lead_to_no_warehouse_of_another_account(
    companies: Companies, fleet: Fleet, store: Store, tmp_path: Path
) -> None:
    other = companies.fleet.accounts["bolt"].folder / "data" / "warehouse.duckdb"
    disk = tmp_path / "disk"
    with mirrored(store, "acme", disk, owner="a worker"):
        (disk / "pdsync.toml").write_text(f"[warehouse]\npath = '{other}'\n")
    result = stored_rollup.roll_up(fleet, fleet.select(["acme"]))["acme"]
    assert "sets warehouse.path, and the fleet has a store" in result.error
    assert result.written == {}


@pytest.mark.parametrize("name", ["rollup", "fleet", ".", "acme/00000001-a-0"])
def test_what_no_account_can_be_called_is_not_removed(fleet: Fleet, store: Store, name: str) -> None:
    assert not stored_rollup.roll_up(fleet, fleet.select(["acme"]))["acme"].error
    before = [entry.key for entry in store.list("")]
    assert any(key.startswith("rollup/") for key in before)
    with pytest.raises(ConfigError, match="is no name of an account"):
        removal.find(fleet, name)
    with pytest.raises(ConfigError, match="is no name of an account"):
        removal.remove(fleet, name)
    assert [entry.key for entry in store.list("")] == before
