"""Steps whose arguments are all chosen by one number: two draws a step, and every step may come in each sequence.

Hypothesis disables some rules in each sequence, and each argument is a draw of its own: most sequences would
miss the one step that matters, and most of the time would go into drawing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")
numbers = st.integers(0, 2**24 - 1)


class Choices:
    """Chooses one option after the other by the digits of a number; a smaller number chooses earlier options."""

    def __init__(self, number: int) -> None:
        self._left = number

    def one(self, options: Sequence[T]) -> T:
        self._left, at = divmod(self._left, len(options))
        return options[at]


def names(weights: dict[str, int]) -> st.SearchStrategy[str]:
    """The names of steps, each as often as its weight."""
    return st.sampled_from([name for name, weight in weights.items() for _ in range(weight)])
