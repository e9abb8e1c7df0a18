"""Words and values as a study's files have them: anything may be missing or of another type. In: any JSON value. Out: one of the type asked for."""

from __future__ import annotations

import math
import re
from typing import Any

STATUSES = ("completed", "pruned", "diverged", "collapsed", "failed")
BROKEN = ("diverged", "collapsed")  # a configuration's own endings without a score


def plural(count: int, word: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}{'es' if word.endswith(('s', 'x')) else 's'}"


def without_folders(text: str) -> str:
    """The text with absolute paths cut to their last part: a report is sent to others, whose machine has other folders."""
    return re.sub(r"(?<![\w.~:/])(?:/|[A-Za-z]:\\)[^\s'\",;:]*[/\\]([^\s'\",;:/\\]+)", r"…/\1", text)


def finite(value: Any) -> float:
    """A finite float, else nan."""
    if type(value) is float:
        return value if math.isfinite(value) else math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def whole(value: Any) -> int | None:
    """A whole number that a column of 64 bits can hold, else None."""
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
