"""Converts money: the made-up rates of a company whose currency is the euro.

Assumption: rates never change, and a currency without one counts one to one.
"""

from __future__ import annotations

BASE = "EUR"
PER_EURO = {"EUR": 1.0, "USD": 1.08, "GBP": 0.85, "CHF": 0.96, "SEK": 11.4, "PLN": 4.3, "JPY": 160.0}


def convert(value: float, currency: str, target: str = BASE) -> float:
    """What `value` in `currency` is in `target`, unrounded."""
    return value / PER_EURO.get(currency, 1.0) * PER_EURO.get(target, 1.0)
