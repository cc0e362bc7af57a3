"""Splits the cases of a test that is slow for each: a few run always, the others with the proofs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable


def some_always(cases: Iterable[Any], always: int) -> list[Any]:
    """The parameters of a test: the first `always` of `cases` as they are, the others marked as proofs."""
    return [
        case
        if number < always
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.proof)
        for number, case in enumerate(cases)
    ]
