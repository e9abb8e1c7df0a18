"""Statistics of few repeated runs. In: plain arrays, one value per seed. Out: plain numbers, nan where the data do not allow one.

Pure functions; no training code, no study and no formatting near them. `level` is the coverage of an interval, 0.95 throughout."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

LEVEL = 0.95
FEWEST_RANKED = 5  # arms of which an order can be told from chance


class Interval(NamedTuple):
    """Lower and upper end; both nan where there is none."""

    low: float
    high: float


NONE = Interval(math.nan, math.nan)


def mean_std(values: ArrayLike) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); nan for what n does not allow."""
    x = np.asarray(values, dtype=np.float64)
    return (float(x.mean()) if x.size else math.nan), (float(x.std(ddof=1)) if x.size > 1 else math.nan)


def welch_interval(a: ArrayLike, b: ArrayLike, a_ratio: float = 0.0, b_ratio: float = 0.0, comparisons: int = 1) -> Interval:
    """Welch's interval of the mean of a minus the mean of b, for runs that cannot be paired; none below two values each. With `comparisons`
    above 1 as many of them hold together (Bonferroni).

    a_ratio, b_ratio: n_test/n_train of each side where its splits are drawn anew per seed (Nadeau and Bengio 2003, eq. 9)."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.size < 2 or y.size < 2:
        return NONE
    one, two = float(x.var(ddof=1)) * (1 / x.size + a_ratio), float(y.var(ddof=1)) * (1 / y.size + b_ratio)
    middle = float(x.mean() - y.mean())
    if one + two == 0:
        return Interval(middle, middle)
    free = (one + two) ** 2 / (one**2 / (x.size - 1) + two**2 / (y.size - 1))
    half = float(stats.t.isf((1 - LEVEL) / (2 * comparisons), free)) * math.sqrt(one + two)
    return Interval(middle - half, middle + half)


class Tau(NamedTuple):
    """Kendall's tau-b and the exact two-sided p that the two orders have nothing in common."""

    tau: float
    p: float


def kendall(published: ArrayLike, ours: list[np.ndarray]) -> Tau:
    """How far our order of arms agrees with the published one: tau-b between the published means and the means of our runs.

    published: (A,), ours: A arrays of one value per run, none empty. Means that differ by rounding alone are ties. nan below FEWEST_RANKED
    arms: of four, one order in 24 agrees by chance, and of three one in six. p counts all orders up to eight arms, above that it is scipy's."""
    given = np.round(np.asarray(published, dtype=np.float64), 9)
    means = np.round(np.array([x.mean() for x in ours], dtype=np.float64), 9)
    if given.size < FEWEST_RANKED:
        return Tau(math.nan, math.nan)
    tau = float(_tau(given, means[None])[0])
    if math.isnan(tau) or given.size > 8:
        return Tau(tau, float(stats.kendalltau(given, means).pvalue))
    every = np.array(list(itertools.permutations(means)))
    return Tau(tau, float(np.mean(np.abs(_tau(given, every)) >= abs(tau) - 1e-12)))


def _tau(given: np.ndarray, means: np.ndarray) -> np.ndarray:
    """tau-b of each row of means (R, A) with given (A,)."""
    i, j = np.triu_indices(given.size, 1)
    a, b = np.sign(given[i] - given[j]), np.sign(means[:, i] - means[:, j])
    below = np.sqrt((a != 0).sum() * (b != 0).sum(axis=1))
    tau: np.ndarray = np.divide((a * b).sum(axis=1), below, out=np.full(len(means), math.nan), where=below > 0)
    return tau


@dataclass(frozen=True)
class Reliability:
    """Predictions in bins of confidence. Each array has one entry per bin; confidence and accuracy are nan in an empty one."""

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    ece: float
    mean_confidence: float
    mean_accuracy: float


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = 10) -> Reliability:
    """Expected calibration error over `bins` bins of equal width, (0, 0.1], (0.1, 0.2], ...: the mean of |accuracy - confidence| over
    bins, weighted by their counts (Guo et al. 2017, eq. 3). confidence: (n,) of the predicted class; right: (n,) bool. Fractions; nan for n = 0."""
    c, r = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if not c.size:
        empty = np.full(bins, math.nan)
        return Reliability(np.zeros(bins, dtype=np.int64), empty, empty, math.nan, math.nan, math.nan)
    edges = np.arange(1, bins) / bins  # 3 / 10, not 3 * 0.1: a confidence of exactly 0.3 belongs to the bin that ends there
    place = np.searchsorted(edges, c, side="left")
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        middle = np.bincount(place, weights=c, minlength=bins) / count
        hit = np.bincount(place, weights=r, minlength=bins) / count
    ece = float(np.nansum(count * np.abs(hit - middle)) / c.size)
    return Reliability(count, middle, hit, ece, float(c.mean()), float(r.mean()))
