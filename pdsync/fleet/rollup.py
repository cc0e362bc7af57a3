"""Brings chosen streams and some sales views of all accounts together, as Parquet: one table each, by `account`.

    rollup/deals/account=acme/part.parquet       the rows of acme's deals; `account` is the partition
    rollup/sales_funnel/account=acme/part.parquet    what sales.funnel answers there
    rollup/accounts/account=acme/part.parquet    one row: company, time zone, currency, how complete the data is
    rollup/catalog/acme.json                     the account's files with their hashes; written last

It is below the fleet's store, or in data/fleet beside fleet.toml. Each file appears whole or not at all, and one whose
content is the same is not written again. The files of an account have nothing of another, so removing them removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import duckdb
import msgspec
from msgspec import Struct

from pdsync.core import disk
from pdsync.errors import ConfigError, PdsyncError, StorageError
from pdsync.fleet import rollup_tables
from pdsync.fleet.accounts import settings_of
from pdsync.fleet.rollup_tables import ACCOUNT_COLUMNS, ACCOUNTS
from pdsync.fleet.store import Store, open_store
from pdsync.load import export, warehouse
from pdsync.load.export import File  # noqa: TC001 - msgspec reads the annotations at run time
from pdsync.sql import literal, quoted
from pdsync.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pdsync.core.config import Settings
    from pdsync.fleet.accounts import Account, Fleet

CATALOG = "catalog"
FOLDER = "rollup"
_FORMAT = 1
_MEMORY_LIMIT = "400MB"


class RollUpTarget(Struct, frozen=True):
    """Where a roll-up is, and the streams in it. It has no secret, so it can be sent to a worker."""

    out: str
    streams: tuple[str, ...] = ()
    endpoint: str = ""
    region: str = ""

    def open(self) -> Store:
        """The store of its files.

        Raises:
            ConfigError: `out` is no valid address.
        """
        return open_store(self.out, self.endpoint, self.region)

    @property
    def tables(self) -> tuple[str, ...]:
        """All tables of the roll-up: the chosen streams, and always the views of `sales_tables`, and the accounts."""
        return (*dict.fromkeys(self.streams), *rollup_tables.sales_tables(), ACCOUNTS)


class AccountCatalog(Struct):
    """catalog/<account>.json: the files of an account, by table."""

    format: int
    account: str
    made_of: str = ""  # the published warehouse, as its file was then, and the version of pdsync
    tables: dict[str, File] = {}


class RolledUp(Struct, frozen=True):
    """What a roll-up did for an account: the files that it wrote, and how many were the same as before."""

    account: str
    written: dict[str, File] = {}
    unchanged: int = 0
    removed: int = 0
    error: str = ""  # why it failed, maybe after some files were written; empty: it did not


def target_of(fleet: Fleet) -> RollUpTarget:
    """The roll-up of a fleet: below its store, or in its data folder."""
    if fleet.store:
        return RollUpTarget(f"{fleet.store}/{FOLDER}", fleet.rollup, fleet.endpoint, fleet.region)
    return RollUpTarget(str(fleet.data / FOLDER), fleet.rollup)


def path_of(table: str, account: str) -> str:
    """The path of an account's file of a table, below the roll-up."""
    return f"{table}/account={account}/part.parquet"


def roll_up(
    fleet: Fleet,
    accounts: Iterable[Account],
    on_account: Callable[[RolledUp], None] = lambda done: None,
    *,
    full: bool = False,
) -> dict[str, RolledUp]:
    """Roll up the published warehouses of `accounts`; one that fails is reported, and stops no other.

    Args:
        fleet: that has them.
        accounts: those whose tables changed.
        on_account: is called with each result.
        full: write all files, whether they are the same or not.

    Returns:
        The result of each account, by its name. One that failed has an `error`, also where the address of the roll-up
        is not valid.
    """
    target = target_of(fleet)
    return roll_up_each(accounts, lambda account: roll_up_account(target, account, full=full), on_account)


def roll_up_each(
    accounts: Iterable[Account],
    roll_up_one: Callable[[Account], RolledUp],
    on_account: Callable[[RolledUp], None] = lambda done: None,
) -> dict[str, RolledUp]:
    """Call `roll_up_one` for each account; `on_account` gets each result, also that of one which raises PdsyncError."""
    results: dict[str, RolledUp] = {}
    for account in accounts:
        try:
            results[account.name] = roll_up_one(account)
        except PdsyncError as error:
            results[account.name] = RolledUp(account.name, error=str(error))
        on_account(results[account.name])
    return results


def roll_up_account(target: RollUpTarget, account: Account, *, full: bool = False) -> RolledUp:
    """Roll up the published warehouse of an account, in this process, on the machine that has its folder.

    An account without a warehouse has nothing to roll up yet: nothing is written. The same holds where the warehouse
    is the one that was rolled up last.

    Args:
        target: the roll-up.
        account: whose folder is on this machine.
        full: write all files, whether they are the same or not.

    Raises:
        ConfigError: the place of the roll-up is no valid address, or a setting of the account is malformed.
        StorageError: the warehouse or control.db can't be read, or the roll-up can't be written. Files that were
            written stay.
    """
    settings = settings_of(account)
    if not settings.warehouse.exists():
        return RolledUp(account.name)
    store = target.open()
    try:
        with _scratch(settings.state) as scratch:
            before, made_of = read_catalog(store, account.name), _made_of(settings.warehouse)
            if not full and before.made_of == made_of and _is_whole(store, target, before):
                return RolledUp(account.name, unchanged=len(before.tables))
            connection = warehouse.connect(settings.warehouse, read_only=True)
            try:
                connection.execute(f"SET memory_limit = '{_MEMORY_LIMIT}'")
                connection.execute(f"SET temp_directory = {literal(str(scratch / 'spill'))}")
                # The warehouse may come from a store: a view in it must not read other files of this machine.
                connection.execute(f"SET allowed_directories = [{literal(str(scratch))}]")
                connection.execute("SET enable_external_access = false")
                return _AccountRollUp(target, account, settings, connection, store, scratch).run(
                    before, made_of, full=full
                )
            finally:
                connection.close()
    except (duckdb.Error, OSError) as error:
        raise StorageError(
            f"The roll-up of {account.name} to {store.where} stopped: {disk.first_line(error)}.\n"
            f"{disk.advice_for(error) or ''}".rstrip()
        ) from error


class _AccountRollUp:
    """The roll-up of one account."""

    def __init__(
        self,
        target: RollUpTarget,
        account: Account,
        settings: Settings,
        connection: duckdb.DuckDBPyConnection,
        store: Store,
        scratch: Path,
    ) -> None:
        self.target, self.account, self.settings = target, account.name, settings
        self.connection, self.store, self.scratch = connection, store, scratch
        self.zone, self.currency = rollup_tables.read_zone_and_currency(connection, account.timezone)

    def run(self, before: AccountCatalog, made_of: str, *, full: bool) -> RolledUp:
        """Write the files that changed, the catalogue last; then remove those of tables not chosen any more."""
        tables, written = {}, {}
        for table in self.target.tables:
            file = self._make(table)
            tables[table] = file
            if full or before.tables.get(table) != file or not _is_stored(self.store, file):
                self.store.upload(file.path, self.scratch / f"{table}.parquet", 0, file.bytes)
                written[table] = file
        dropped = [file.path for table, file in before.tables.items() if table not in tables]
        made = self.scratch / "catalog.json"
        content = AccountCatalog(_FORMAT, self.account, made_of, tables)
        size = made.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1))
        self.store.upload(catalog_path(self.account), made, 0, size)
        self.store.remove(dropped)
        return RolledUp(self.account, written, len(tables) - len(written), len(dropped))

    def _make(self, table: str) -> File:
        """Write the rows of a table to a file in the scratch folder."""
        made = self.scratch / f"{table}.parquet"
        if table == ACCOUNTS:
            row = rollup_tables.read_account(self.connection, self.settings, self.zone, self.currency)
            columns = ", ".join(f"{quoted(column)} {kind}" for column, kind in ACCOUNT_COLUMNS.items())
            self.connection.execute(f"CREATE TEMP TABLE account_row ({columns})")
            self.connection.execute(f"INSERT INTO temp.account_row VALUES ({', '.join('?' for _ in row)})", row)
            query = "FROM temp.account_row"
        else:
            query = rollup_tables.select_table(self.connection, table, self.zone, self.currency)
        self.connection.execute(f"COPY ({query}) TO {literal(str(made))} (FORMAT parquet, COMPRESSION zstd)")
        return export.describe(made, path_of(table, self.account))


def _made_of(path: Path) -> str:
    """What identifies the published warehouse: every run replaces the file."""
    facts = path.stat()
    return f"{facts.st_size} bytes of {facts.st_mtime_ns}, pdsync {__version__}"


def _is_whole(store: Store, target: RollUpTarget, catalog: AccountCatalog) -> bool:
    """Whether all tables of the roll-up are there, and no other."""
    return catalog.tables.keys() == set(target.tables) and all(
        _is_stored(store, file) for file in catalog.tables.values()
    )


def _is_stored(store: Store, file: File) -> bool:
    """Whether a file that was written before is still there."""
    folder = file.path.rpartition("/")[0]
    return any((each.key, each.bytes) == (file.path, file.bytes) for each in store.list(folder))


# The catalogues.


def catalog_path(account: str) -> str:
    """The path of an account's catalogue, below the roll-up."""
    return f"{CATALOG}/{account}.json"


def read_catalog(store: Store, account: str) -> AccountCatalog:
    """The catalogue of an account; an empty one if there is none, or it can't be read: then all is written again.

    Files are removed by it, so one that names a file of another account counts as one that can't be read.
    """
    stored = store.read(catalog_path(account))
    if stored is not None:
        try:
            catalog = msgspec.json.decode(stored.data, type=AccountCatalog)
        except (msgspec.DecodeError, UnicodeDecodeError):
            catalog = AccountCatalog(0, account)
        is_own = all(
            "/" not in table and file.path == path_of(table, account) for table, file in catalog.tables.items()
        )
        if catalog.format == _FORMAT and catalog.account == account and is_own:
            return catalog
    return AccountCatalog(_FORMAT, account)


def find_accounts(fleet: Fleet) -> list[str]:
    """The accounts of which the roll-up has a file, by name; also without a catalogue, as after a first one cut off."""
    names = set()
    for entry in target_of(fleet).open().list(""):
        folder, _, rest = entry.key.partition("/")
        if folder == CATALOG and rest.endswith(".json"):
            names.add(rest.removesuffix(".json"))
        elif rest.startswith("account="):
            names.add(rest.removeprefix("account=").partition("/")[0])
    return sorted(names)


def find_changed(fleet: Fleet) -> list[Account]:
    """The accounts whose folder here has a warehouse that the roll-up does not show yet; none if there is a store.

    With a store the newest state of an account may be on another machine, and the folder here older.
    """
    if fleet.store:
        return []
    store = target_of(fleet).open()
    changed = []
    for account in fleet.accounts.values():
        try:
            path = settings_of(account).warehouse
        except ConfigError:  # `pdsync fleet check` says why; the others are answered for
            continue
        if path.exists() and read_catalog(store, account.name).made_of != _made_of(path):
            changed.append(account)
    return changed


def files_of(fleet: Fleet, name: str) -> list[str]:
    """The paths of all files of an account, its catalogue last; also what a removal that was cut off has left."""
    store, folder = target_of(fleet).open(), f"account={name}"
    paths = [entry.key for entry in store.list("") if entry.key.split("/")[1:2] == [folder]]
    return [*paths, *([catalog_path(name)] if store.read(catalog_path(name)) else [])]


def remove_files(fleet: Fleet, name: str) -> None:
    """Remove all files of an account from the roll-up, its catalogue last: while it is there, there may be more.

    Raises:
        StorageError: a file can't be removed; the same command goes on.
    """
    store, paths = target_of(fleet).open(), files_of(fleet, name)
    store.remove(path for path in paths if path != catalog_path(name))
    store.remove([catalog_path(name)])


@contextmanager
def _scratch(state: Path) -> Iterator[Path]:
    """A folder for files that are being written, with a lock: one account is rolled up by one process at a time."""
    folder = state / ".rollup"
    folder.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with TemporaryDirectory(dir=folder) as scratch:
            for leftover in set(folder.iterdir()) - {folder / "lock", Path(scratch)}:  # of one that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            yield Path(scratch)
    finally:
        os.close(handle)
