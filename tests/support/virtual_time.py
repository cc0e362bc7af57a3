"""An event loop whose clock jumps to the next thing that is due: waiting takes no time, and always the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

Result = TypeVar("Result")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Waits in virtual seconds, from 0; for code that uses no thread, file or socket."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        selector: Any = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def jump(timeout: float | None) -> Any:
            assert timeout is not None, "nothing is due: a deadlock"
            self._now += timeout
            return select(0)

        selector.select = jump

    def time(self) -> float:
        return self._now


def run_virtually(work: Coroutine[Any, Any, Result]) -> tuple[Result, float]:
    """The result of `work`, and the virtual seconds that it took."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work), loop.time()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
