"""Counts how often each step of the model ran, and its cost: `@counted` records, `calls` and `report` tell."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")
_taken: dict[str, list[float]] = defaultdict(list)  # step → seconds of each call


def counted(step: Callable[P, R]) -> Callable[P, R]:
    """Wrap a step so that its calls and their duration are recorded."""

    @functools.wraps(step)
    def timed(*given: P.args, **values: P.kwargs) -> R:
        began = time.monotonic()
        try:
            return step(*given, **values)
        finally:
            _taken[step.__name__].append(time.monotonic() - began)

    return timed


def calls() -> dict[str, int]:
    """How often each step ran."""
    return {name: len(seconds) for name, seconds in _taken.items()}


def report() -> list[str]:
    """A line for each step, the most expensive first."""
    dearest = sorted(_taken.items(), key=lambda pair: -sum(pair[1]))
    return [f"{'step':26} {'times':>8} {'ms each':>8} {'seconds':>8}"] + [
        f"{name:26} {len(took):8,} {sum(took) / len(took) * 1000:8.0f} {sum(took):8.0f}" for name, took in dearest
    ]
