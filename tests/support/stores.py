"""Copies the three stores of a project each day, and loses, empties, truncates or restores them.

    stores = Stores(project.data, folder / "copies")
    stores.keep(3)                                     # a copy of the data folder, as of day 3
    stores.suffer(Loss("lost", "kept", "older"), dice) # control.db is gone, the raw archive is that of an earlier day

`LOSSES` are all combinations. A loss of the warehouse affects its work file, the published file, or both.
"""

from __future__ import annotations

import os
import shutil
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

FATES = ("kept", "lost", "emptied", "cut", "older")
STORES = ("control", "warehouse", "raw")
HOLDERS = ("control", "warehouse.duckdb", "warehouse.work.duckdb", "raw")  # each can be lost separately
MOST_COPIES = 7
_BESIDE = ("-wal", "-shm", ".wal")  # of SQLite and DuckDB: parts of the file
_FILES = {
    "control": (("control.db",),),
    "warehouse": (("warehouse.duckdb", "warehouse.work.duckdb"), ("warehouse.duckdb",), ("warehouse.work.duckdb",)),
}


class Loss(NamedTuple):
    """What happens to each store."""

    control: str
    warehouse: str
    raw: str

    def __str__(self) -> str:
        return ", ".join(f"{store} {fate}" for store, fate in zip(STORES, self, strict=True) if fate != "kept")


LOSSES = tuple(Loss(*fates) for fates in product(FATES, repeat=3))[1:]


class Suffered(NamedTuple):
    """A loss that happened."""

    loss: Loss
    days: dict[str, int]  # store → the day of the copy that was restored
    files: tuple[str, ...]  # of the warehouse

    def __str__(self) -> str:
        text = str(self.loss)
        for store, day in self.days.items():
            text = text.replace(f"{store} older", f"{store} of day {day}")
        return f"{text} ({' and '.join(self.files)})" if self.loss.warehouse != "kept" else text

    def holds(self, file: str) -> int | None:
        """The day of the copy that one of `HOLDERS` was restored from; None: unchanged, 0: lost, emptied or cut."""
        store = file if file in STORES else "warehouse"
        if self.loss[STORES.index(store)] == "kept" or (store == "warehouse" and file not in self.files):
            return None
        return self.days.get(store, 0)


class Stores:
    """The stores in a data folder, and their copies."""

    def __init__(self, data: Path, copies: Path) -> None:
        self._data, self._copies = data, copies
        self.days: list[int] = []  # days with a copy

    def keep(self, day: int) -> None:
        """Copy the data folder as a backup at rest does."""
        shutil.copytree(self._data, self._copies / str(day))
        self.days.append(day)
        if len(self.days) > MOST_COPIES:
            shutil.rmtree(self._copies / str(self.days.pop(0)))

    def suffer(self, loss: Loss, dice: Random) -> Suffered:
        """Apply `loss`. In half of the cases all restored stores are of the same day."""
        same = dice.choice(self.days)
        alike = dice.random() < 0.5
        days = {
            store: same if alike else dice.choice(self.days)
            for store, fate in zip(STORES, loss, strict=True)
            if fate == "older"
        }
        files = dice.choice(_FILES["warehouse"])
        for name in _FILES["control"][0] if loss.control != "kept" else ():
            self._file(name, loss.control, days.get("control", 0))
        for name in files if loss.warehouse != "kept" else ():
            self._file(name, loss.warehouse, days.get("warehouse", 0))
        self._folder("raw", loss.raw, days.get("raw", 0))
        return Suffered(loss, days, files)

    def _file(self, name: str, fate: str, day: int) -> None:
        path = self._data / name
        parts = [f"{name}{end}" for end in ("", *_BESIDE)]
        for part in parts[1:]:
            (self._data / part).unlink(missing_ok=True)
        match fate:
            case "lost":
                path.unlink(missing_ok=True)
            case "emptied" | "cut" if path.exists():
                os.truncate(path, 0 if fate == "emptied" else path.stat().st_size // 2)
            case "older":
                path.unlink(missing_ok=True)
                for part in parts:
                    if (copy := self._copies / str(day) / part).exists():
                        shutil.copy2(copy, self._data / part)

    def _folder(self, name: str, fate: str, day: int) -> None:
        path = self._data / name
        if fate in ("lost", "emptied", "older") and path.exists():
            shutil.rmtree(path)
        match fate:
            case "emptied":
                path.mkdir(mode=0o700)
            case "cut":
                for file in sorted(file for file in path.rglob("*") if file.is_file())[-2:]:
                    os.truncate(file, file.stat().st_size // 2)
            case "older" if (self._copies / str(day) / name).exists():
                shutil.copytree(self._copies / str(day) / name, path)
