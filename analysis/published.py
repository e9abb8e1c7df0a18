"""The papers' numbers, and how ours stand to them. In: published.csv (per cent) and a row's numbers. Out: `Published` cells, verdicts in words."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scipy import stats

from analysis.statistics import LEVEL, NONE, Interval

# How often a paper repeated each row; without it the published standard deviation gives no interval of the published mean.
REPEATS = {"supcam": 10}


@dataclass(frozen=True)
class Published:
    """A cell of the paper, per cent; `word` where it gives a word instead of a number."""

    mean: float
    std: float
    word: str


@cache
def published_values() -> Mapping[tuple[str, str, str, str, str], Published]:
    """published.csv by (procedure, table, arm, dataset, metric without its part)."""
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
        return {(r["paper"], r["table"], r["arm"], r["dataset"], r["metric"]): _cell(r) for r in csv.DictReader(file)}


def _cell(row: Mapping[str, str]) -> Published:
    try:
        return Published(float(row["mean"]), float(row["std"]) if row["std"] else math.nan, "")
    except ValueError:
        return Published(math.nan, math.nan, row["mean"])


def find_published(procedure: str, number: str, dataset: str | None, arm: str | None, metric: str) -> Published | None:
    """The paper's value of a cell of table `number`; None where it has none. Without a data set the paper must have used one only."""
    wanted = (procedure, number, arm, metric.removeprefix("test_").removeprefix("val_"))
    found = [v for (p, t, a, d, m), v in published_values().items() if (p, t, a, m) == wanted and dataset in (None, d)]
    return found[0] if len(found) == 1 else None


def published_gain(arm: Published, baseline: Published, repeats: int | None) -> tuple[float, Interval]:
    """The paper's difference of two rows with Welch's 95 % interval, from their standard deviations over `repeats` runs each.

    The paper does not say which runs share a seed, so nothing can be paired. No interval without repeats or deviations."""
    gain = arm.mean - baseline.mean
    if repeats is None or repeats < 2 or math.isnan(arm.std) or math.isnan(baseline.std):
        return gain, NONE
    a, b = arm.std**2 / repeats, baseline.std**2 / repeats
    if a + b == 0:
        return gain, Interval(gain, gain)
    free = (a + b) ** 2 / ((a * a + b * b) / (repeats - 1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, free)) * math.sqrt(a + b)
    return gain, Interval(gain - half, gain + half)


def verdict(gain: float, interval: Interval, theirs: float, their_interval: Interval) -> str:
    """What became of the paper's difference between an arm and the baseline arm, in words; '' where one of the two is missing."""
    if math.isnan(gain) or math.isnan(theirs):
        return ""
    sure = interval.low > 0 or interval.high < 0  # neither without an interval
    if theirs == 0:
        return (
            "the paper has no difference, ours excludes 0" if sure else "compatible: the paper has no difference, ours is not told from 0"
        )
    ours_holds = interval.low <= theirs <= interval.high
    theirs_holds = their_interval.low <= gain <= their_interval.high
    if gain * theirs > 0:
        if ours_holds and theirs_holds:
            return (
                "confirmed: same order, and each difference lies within the other's interval"
                if sure
                else "compatible: same order, each difference lies within the other's interval, ours includes 0"
            )
        if ours_holds:
            return "same order; the published difference lies within our interval"
        return "same order" if math.isnan(interval.low) else "same order, another size"
    return "order reversed" if sure else "order not seen, within our uncertainty"


def verdict_of_words(published: Published, completed: int, diverged: int) -> str:
    """The same for a row for which the paper gives a word (`did not converge`); '' while no run has ended."""
    if completed and diverged:
        return f"published: {published.word}; here {diverged} of {completed + diverged} runs diverged"
    if diverged:
        return "confirmed: diverged here as well" if "converge" in published.word else f"published: {published.word}; diverged here"
    return f"not confirmed: published {published.word!r}, here every run ended with a number" if completed else ""
