"""The papers' numbers, and how ours stand to them. In: published.csv (per cent) and a row's numbers. Out: `Published` cells, verdicts in words."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scipy import stats

from analysis.crossed import Estimate
from analysis.numbers import interval as between
from analysis.numbers import number
from analysis.statistics import LEVEL, NONE, Interval

# How often a paper repeated each row; without it the published standard deviation gives no interval of the published mean.
REPEATS = {"supcam": 10}

# Of published sets of which a study's images may bear the name and not be: their types, as `data prepare` names them.
TYPES = {
    "CoNSeP": ("miscellaneous", "inflammatory", "epithelial", "spindle"),
    "NuCLS": ("tumor", "stromal", "sTILs", "apoptotic", "other"),
}


@dataclass(frozen=True)
class Published:
    """A cell of the paper, per cent; `word` where it gives a word instead of a number. compared: whether it is held against ours, see
    `of_other_images`."""

    mean: float
    std: float
    word: str
    compared: bool = True


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


@cache
def foreign_rows() -> Mapping[tuple[str, str, str], str]:
    """Rows of others' methods, (procedure, table, arm) -> what the row is called where nothing of it is run here."""
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
        return {(r["paper"], r["table"], r["arm"]): r["foreign"] for r in csv.DictReader(file) if r["foreign"]}


@cache
def published_notes() -> Mapping[tuple[str, str], tuple[str, ...]]:
    """(procedure, table) -> what must be known of the paper's numbers there."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    with (Path(__file__).parent / "published_notes.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            place = (row["paper"], row["table"])
            found[place] = (*found.get(place, ()), row["note"])
    return found


def find_published(procedure: str, number: str, dataset: str | None, arm: str | None, metric: str) -> Published | None:
    """The paper's value of a cell of table `number`; None where it has none. Without a data set the paper must have used one only."""
    wanted = (procedure, number, arm, metric.removeprefix("test_").removeprefix("val_"))
    found = [v for (p, t, a, d, m), v in published_values().items() if (p, t, a, m) == wanted and dataset in (None, d)]
    return found[0] if len(found) == 1 else None


def of_other_images(dataset: str | None, drawn: bool, classes: Sequence[str]) -> str:
    """Why a study's images cannot be those that published numbers are of, as the beginning of a sentence; '' where they may be. drawn:
    whether this program draws them. classes: theirs."""
    if drawn:
        return "The images are drawn by this program: published numbers are of other images"
    types = TYPES.get(dataset or "", ())
    if types and classes and set(classes) != set(types):
        return f"Published numbers are of other images ({dataset}: {', '.join(types)}; here: {', '.join(classes)})"
    return ""


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


def verdict(ours: Estimate | None, interval: Interval, theirs: float, their_interval: Interval) -> str:
    """What became of the paper's difference between an arm and the baseline arm, in words; '' where one of the two is missing.

    interval: of ours, with the table's others. An order is kept or reversed only where it excludes 0; a size is another only where the
    difference of the differences, with both errors, is; and compatible only where the order is told, since an interval that has both 0 and
    the paper's value in it knows nothing of the size. Without an interval nothing is told."""
    if ours is None or math.isnan(ours.value) or math.isnan(theirs):
        return ""
    if math.isnan(interval.low):
        return "undecided: no interval of ours"
    sure = interval.low > 0 or interval.high < 0
    if theirs == 0:
        return "the paper has no difference, ours excludes 0" if sure else "the paper has no difference, ours includes 0"
    order = "order undecided, ours includes 0"
    if sure:
        order = "order kept" if ours.value * theirs > 0 else "order reversed"
    apart, ends = _apart(ours, theirs, their_interval)
    size = f"ours - published {number(apart, True)} ({between(ends, True)})"
    told = "another size" if ends.low > 0 or ends.high < 0 else "size compatible" if sure else "size undecided"
    return f"{order}; {told}: {size}"


def _apart(ours: Estimate, theirs: float, their_interval: Interval) -> tuple[float, Interval]:
    """Our difference less the paper's, with the 95 % interval by both errors (Cochran and Cox); the paper's counts as exact where it
    gives no error."""
    apart, known = ours.value - theirs, not math.isnan(their_interval.low)
    half = (their_interval.high - their_interval.low) / 2 if known else 0.0
    error = half / float(stats.norm.ppf((1 + LEVEL) / 2))  # a little wide: theirs has about 18 degrees of freedom
    total, tail = ours.error**2 + error**2, (1 - LEVEL) / 2
    wide = (ours.error**2 * ours.quantile(tail) + error**2 * float(stats.t.isf(tail, 18))) / math.sqrt(total)
    return apart, Interval(apart - wide, apart + wide)


def verdict_of_words(published: Published, completed: int, diverged: int) -> str:
    """The same for a row for which the paper gives a word (`did not converge`); '' while no run has ended."""
    if completed and diverged:
        return f"published: {published.word}; here {diverged} of {completed + diverged} runs diverged"
    if diverged:
        return "confirmed: diverged here as well" if "converge" in published.word else f"published: {published.word}; diverged here"
    return f"not confirmed: published {published.word!r}, here every run ended with a number" if completed else ""
