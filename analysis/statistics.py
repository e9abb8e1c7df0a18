"""Statistics of few repeated runs. In: plain arrays, one value per seed. Out: plain numbers, nan where the data do not allow one.

Pure functions; no training code, no study and no formatting near them. `level` is the coverage of an interval, 0.95 throughout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

LEVEL = 0.95
_EXACT = 16  # up to 2^16 sign flips are counted one by one
_DRAWS = 100_000  # sign flips drawn above that
_RESAMPLES = 4_000  # of a bootstrap; its end points then move by less than a tenth of the interval's width


class Interval(NamedTuple):
    """Lower and upper end; both nan where there is none."""

    low: float
    high: float


NONE = Interval(math.nan, math.nan)


def mean_std(values: ArrayLike) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); nan for what n does not allow."""
    x = np.asarray(values, dtype=np.float64)
    return (float(x.mean()) if x.size else math.nan), (float(x.std(ddof=1)) if x.size > 1 else math.nan)


def t_interval(values: ArrayLike, test_over_train: float = 0.0, level: float = LEVEL) -> Interval:
    """Student's interval of the mean; none below two values.

    test_over_train above 0 is for splits drawn anew per seed, whose training parts overlap: variance x (1/n + n_test/n_train)
    instead of 1/n (Nadeau and Bengio 2003, eq. 9)."""
    x = np.asarray(values, dtype=np.float64)
    if x.size < 2:
        return NONE
    half = float(stats.t.ppf((1 + level) / 2, x.size - 1) * x.std(ddof=1) * math.sqrt(1 / x.size + test_over_train))
    return Interval(float(x.mean()) - half, float(x.mean()) + half)


def welch_interval(a: ArrayLike, b: ArrayLike, a_ratio: float = 0.0, b_ratio: float = 0.0) -> Interval:
    """Welch's interval of the mean of a minus the mean of b, for runs that cannot be paired; none below two values each.

    a_ratio, b_ratio: n_test/n_train of each side as in `t_interval`, where its splits are drawn anew per seed."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.size < 2 or y.size < 2:
        return NONE
    one, two = float(x.var(ddof=1)) * (1 / x.size + a_ratio), float(y.var(ddof=1)) * (1 / y.size + b_ratio)
    middle = float(x.mean() - y.mean())
    if one + two == 0:
        return Interval(middle, middle)
    free = (one + two) ** 2 / (one**2 / (x.size - 1) + two**2 / (y.size - 1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, free)) * math.sqrt(one + two)
    return Interval(middle - half, middle + half)


def t_p(differences: ArrayLike, test_over_train: float = 0.0) -> float:
    """Two-sided p of Student's paired test that the mean difference is 0, with the same correction; nan below two values."""
    d = np.asarray(differences, dtype=np.float64)
    if d.size < 2:
        return math.nan
    spread = d.std(ddof=1) * math.sqrt(1 / d.size + test_over_train)
    if spread == 0:
        return 1.0 if d.mean() == 0 else 0.0
    return float(2 * stats.t.sf(abs(d.mean()) / spread, d.size - 1))


def bootstrap_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of the mean (Efron 1987); none below two values, a point if all are equal.

    Few values make it too narrow: with n = 3 it covers about 70 % instead of 95 %, with n = 10 about 90 %. It stands beside the t interval, not in its place."""
    x = np.sort(np.asarray(values, dtype=np.float64))
    if x.size < 2:
        return NONE
    if np.ptp(x) <= 1e-12 * max(1.0, abs(float(x[0]))):
        return Interval(float(x.mean()), float(x.mean()))
    drawn = stats.bootstrap(
        (x,), np.mean, confidence_level=level, n_resamples=_RESAMPLES, method="BCa", rng=np.random.default_rng(0), vectorized=True
    ).confidence_interval
    return Interval(float(drawn.low), float(drawn.high))


def permutation_p(differences: ArrayLike) -> float:
    """Two-sided p of the paired permutation test: the share of all 2^n sign flips whose |mean| is at least the one seen.

    Exact up to 16 pairs, above that from 100,000 drawn flips (with the +1 of Phipson and Smyth 2010). nan without a pair."""
    d = np.asarray(differences, dtype=np.float64)
    if d.size == 0:
        return math.nan
    seen = abs(d.sum()) * (1 - 1e-12)  # the flip that is the data itself must count in spite of rounding
    if d.size <= _EXACT:
        signs = 1 - 2 * ((np.arange(2**d.size)[:, None] >> np.arange(d.size)) & 1)
        return float(np.mean(np.abs(signs @ d) >= seen))
    signs = 1 - 2 * np.random.default_rng(0).integers(0, 2, size=(_DRAWS, d.size), dtype=np.int8)
    return float((np.sum(np.abs(signs @ d) >= seen) + 1) / (_DRAWS + 1))


def smallest_p(pairs: int) -> float:
    """The smallest p that `permutation_p` can give with that many pairs: 2 / 2^n."""
    return 2.0 ** (1 - pairs) if pairs else math.nan


def holm(p: ArrayLike) -> np.ndarray:
    """p adjusted for the number of comparisons (Holm 1979); nan stays nan and is not counted."""
    given = np.asarray(p, dtype=np.float64)
    out = np.full(given.shape, math.nan)
    known = np.flatnonzero(~np.isnan(given))
    order = known[np.argsort(given[known], kind="stable")]
    out[order] = np.minimum(1.0, np.maximum.accumulate(given[order] * (order.size - np.arange(order.size))))
    return out


def probability_above(a: ArrayLike, b: ArrayLike) -> float:
    """P(A > B): share of all pairs (a run of A, a run of B) in which A is higher; a tie counts half. nan if one is empty."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if not x.size or not y.size:
        return math.nan
    return float(np.mean((x[:, None] > y) + 0.5 * (x[:, None] == y)))


def hedges_g(a: ArrayLike, b: ArrayLike) -> float:
    """Effect size: difference of means over the pooled standard deviation, with Hedges' (1981) exact correction for few values.

    nan below two values each or where neither spreads."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.size < 2 or y.size < 2:
        return math.nan
    free = x.size + y.size - 2
    pooled = math.sqrt(((x.size - 1) * x.var(ddof=1) + (y.size - 1) * y.var(ddof=1)) / free)
    correction = math.exp(math.lgamma(free / 2) - math.lgamma((free - 1) / 2)) / math.sqrt(free / 2)
    return float((x.mean() - y.mean()) / pooled * correction) if pooled > 1e-12 else math.nan


def wilson_interval(share: float, n: int, level: float = LEVEL) -> Interval:
    """What a test set of n independent images leaves open about a share measured on it (Wilson 1927); share may be a mean over runs."""
    if n <= 0 or not 0 <= share <= 1:
        return NONE
    z = float(stats.norm.ppf((1 + level) / 2))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


class Tau(NamedTuple):
    """Kendall's tau-b and its percentile bootstrap interval."""

    tau: float
    low: float
    high: float


def kendall(published: ArrayLike, ours: list[np.ndarray], resamples: int = 1_000, level: float = LEVEL) -> Tau:
    """How far our order of arms agrees with the published one: tau-b between the published means and the means of our runs.

    published: (A,), ours: A arrays of one value per run, none empty. The interval redraws every arm's runs; nan below three arms or
    where every arm has one run."""
    given = np.asarray(published, dtype=np.float64)
    if given.size < 3:
        return Tau(math.nan, math.nan, math.nan)
    tau = _tau(given, np.array([[x.mean() for x in ours]]))[0]
    if all(x.size < 2 for x in ours):
        return Tau(float(tau), math.nan, math.nan)
    rng = np.random.default_rng(0)
    means = np.stack([x[rng.integers(0, x.size, size=(resamples, x.size))].mean(axis=1) for x in map(np.sort, ours)], axis=1)
    low, high = np.nanquantile(_tau(given, means), [(1 - level) / 2, (1 + level) / 2])
    return Tau(float(tau), float(low), float(high))


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
