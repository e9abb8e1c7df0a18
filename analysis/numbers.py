"""How a number is written, wherever it is written: two decimals, a sign where asked for, nothing for what was not measured. In: floats. Out: text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from analysis.statistics import Interval


def number(value: float, signed: bool = False) -> str:
    """Two decimals; '' for nan; no minus before a zero."""
    if math.isnan(value):
        return ""
    value = round(value, 2) + 0.0
    return f"{value:+.2f}" if signed else f"{value:.2f}"


def interval(given: Interval, signed: bool = False) -> str:
    """`93.11 to 94.01`; '' for none. `to`, because a dash before a negative number misleads."""
    return f"{number(given.low, signed)} to {number(given.high, signed)}" if not math.isnan(given.low) else ""


def show(value: Any) -> str:
    """A parameter's value in few characters."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    return str(value)


def short(value: float) -> float | int | None:
    """Five digits, for the page's block; None for what is no number."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.5g}")
    return int(rounded) if rounded == int(rounded) and abs(rounded) < 1e15 else rounded
