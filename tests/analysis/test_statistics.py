"""Every statistic against another implementation (scipy, statsmodels, baycomp) or a value worked out by hand, and at its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis import published as pub
from analysis import statistics as st
from analysis.crossed import Estimate, of_seeds

RNG = np.random.default_rng(7)
SAMPLES = [RNG.normal(80, 3, n) for n in (2, 3, 5, 10)]


@pytest.mark.parametrize("x", SAMPLES)
def test_the_t_interval_is_that_of_scipy(x):
    assert of_seeds(x).interval() == pytest.approx(stats.t.interval(0.95, x.size - 1, x.mean(), stats.sem(x)))
    assert st.mean_std(x) == pytest.approx((np.mean(x), np.std(x, ddof=1)))


@pytest.mark.parametrize("ratio", [0.25, 0.5])
@pytest.mark.parametrize("x", SAMPLES)
def test_resampled_splits_widen_the_interval_as_in_baycomp(x, ratio):
    baycomp = pytest.importorskip("baycomp")
    mean, variance, free = baycomp.single.CorrelatedTTest.compute_statistics(np.zeros_like(x), x)
    frozen = stats.t(free, mean, math.sqrt(variance))
    share = 1 / x.size  # of the test part in a cross-validation of n folds, which is what baycomp assumes
    assert of_seeds(x, share / (1 - share)).interval() == pytest.approx(frozen.interval(0.95))
    wide, plain = of_seeds(x, ratio).interval(), of_seeds(x).interval()
    assert (wide.high - wide.low) / (plain.high - plain.low) == pytest.approx(math.sqrt(1 + ratio * x.size))


def test_kendalls_tau_is_that_of_scipy_with_ties():
    published = [88, 92, 92, 93, 94]
    ours = [np.array([x, x + 2]) for x in (80, 85, 79, 90, 90)]
    assert st.kendall(published, ours).tau == pytest.approx(stats.kendalltau(published, [x.mean() for x in ours]).statistic)


def test_the_published_gain_has_welchs_interval():
    a, b = RNG.normal(93, 0.3, 10), RNG.normal(92, 0.6, 10)
    cells = [pub.Published(x.mean(), x.std(ddof=1), "") for x in (a, b)]
    theirs = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert pub.published_gain(*cells, 10) == (pytest.approx(a.mean() - b.mean()), pytest.approx((theirs.low, theirs.high)))
    assert math.isnan(pub.published_gain(*cells, None)[1].low)


def test_an_unpaired_interval_grows_with_the_overlap_of_redrawn_splits():
    a, b = RNG.normal(93, 0.3, 10), RNG.normal(92, 0.3, 10)
    plain, redrawn = st.welch_interval(a, b), st.welch_interval(a, b, 0.5, 0.5)
    assert (redrawn.high - redrawn.low) / (plain.high - plain.low) == pytest.approx((1 + 10 * 0.5) ** 0.5)


def test_a_published_word_is_confirmed_by_diverged_runs_only():
    word = pub.Published(math.nan, math.nan, "did not converge")
    assert pub.verdict_of_words(word, 0, 3).startswith("confirmed")
    assert pub.verdict_of_words(word, 3, 0).startswith("not confirmed")
    assert "1 of 3" in pub.verdict_of_words(word, 2, 1)
    assert pub.verdict_of_words(word, 0, 0) == ""


def test_the_p_of_kendalls_tau_counts_every_order_and_is_that_of_scipy_without_ties():
    published, ours = [88, 90, 92, 93, 94, 95], [np.array([x, x + 2]) for x in (80, 85, 79, 90, 91, 84)]
    theirs = stats.kendalltau(published, [x.mean() for x in ours], method="exact")
    assert st.kendall(published, ours) == (pytest.approx(theirs.statistic), pytest.approx(theirs.pvalue))


def test_means_that_differ_by_rounding_alone_are_ties():
    ours = [np.array([x]) for x in (0.1 + 0.2, 0.3, 0.5, 0.6, 0.7)]
    assert st.kendall([1, 2, 3, 4, 5], ours).tau < 1


def test_what_the_data_do_not_allow_is_nan_and_never_a_number():
    one, none = [3.0], []
    assert all(math.isnan(end) for x in (one, none) for end in of_seeds(x).interval())
    assert all(map(math.isnan, [st.mean_std(one)[1], *st.mean_std(none)]))
    assert all(map(math.isnan, st.kendall([1, 2, 3, 4], [np.array([x]) for x in (1.0, 2, 3, 4)])))


NONE = (math.nan, math.nan)


@pytest.mark.parametrize(
    ("gain", "error", "ours", "published", "theirs", "word"),
    [
        (1.0, 0.1, (0.5, 1.5), 1.2, (0.9, 1.5), "order kept; size compatible"),
        (1.0, 0.1, (0.5, 1.5), 5.0, (4.0, 6.0), "order kept; another size"),
        (1.0, math.nan, NONE, 5.0, (4.0, 6.0), "undecided: no interval of ours"),
        (1.0, math.nan, NONE, 0.0, (-1, 1), "undecided: no interval of ours"),
        (-0.2, 0.3, (-1, 0.6), 0.4, (0.2, 0.6), "order undecided, ours includes 0; size undecided"),
        (-0.2, 0.1, (-1, 0.6), 4.0, (3.0, 5.0), "order undecided, ours includes 0; another size"),
        (-2.0, 0.2, (-3, -1), 1.0, (0.5, 1.5), "order reversed; another size"),
        (-2.0, 0.2, (-3, -1), 0.0, (-1, 1), "the paper has no difference, ours excludes 0"),
        (-2.0, 1.0, (-5, 1), 0.0, (-1, 1), "the paper has no difference, ours includes 0"),
    ],
)
def test_a_verdict_follows_from_the_two_differences_and_their_errors(gain, error, ours, published, theirs, word):
    estimate = Estimate(gain, error, 8.0, 3)
    assert pub.verdict(estimate, st.Interval(*ours), published, st.Interval(*theirs)).startswith(word)


def test_where_a_difference_is_missing_there_is_no_verdict():
    assert pub.verdict(None, st.NONE, 1.0, st.NONE) == ""
    assert pub.verdict(Estimate(1.0, 0.1, 2.0, 3), st.Interval(0.5, 1.5), math.nan, st.NONE) == ""


def test_of_a_truth_of_no_difference_one_order_in_twenty_is_kept_or_reversed():
    rng, said = np.random.default_rng(2), []
    for _ in range(600):
        estimate = of_seeds(rng.normal(0, 1, 5))
        said.append(pub.verdict(estimate, estimate.interval(), 1.0, st.Interval(0.5, 1.5)).partition(";")[0])
    assert np.mean([word in ("order kept", "order reversed") for word in said]) < 0.08
