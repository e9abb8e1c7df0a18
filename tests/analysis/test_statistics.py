"""Every statistic against another implementation (scipy, statsmodels, baycomp) or a value worked out by hand, and at its edges."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from analysis import published as pub
from analysis import statistics as st

RNG = np.random.default_rng(7)
SAMPLES = [RNG.normal(80, 3, n) for n in (2, 3, 5, 10)]


@pytest.mark.parametrize("x", SAMPLES)
def test_the_t_interval_is_that_of_scipy(x):
    assert st.t_interval(x) == pytest.approx(stats.t.interval(0.95, x.size - 1, x.mean(), stats.sem(x)))
    assert st.mean_std(x) == pytest.approx((np.mean(x), np.std(x, ddof=1)))


@pytest.mark.parametrize("ratio", [0.25, 0.5])
@pytest.mark.parametrize("x", SAMPLES)
def test_resampled_splits_widen_the_interval_as_in_baycomp(x, ratio):
    baycomp = pytest.importorskip("baycomp")
    mean, variance, free = baycomp.single.CorrelatedTTest.compute_statistics(np.zeros_like(x), x)
    frozen = stats.t(free, mean, math.sqrt(variance))
    share = 1 / x.size  # of the test part in a cross-validation of n folds, which is what baycomp assumes
    assert st.t_interval(x, share / (1 - share)) == pytest.approx(frozen.interval(0.95))
    wide, plain = st.t_interval(x, ratio), st.t_interval(x)
    assert (wide.high - wide.low) / (plain.high - plain.low) == pytest.approx(math.sqrt(1 + ratio * x.size))


@pytest.mark.parametrize("x", [s - 79 for s in SAMPLES])
def test_the_paired_t_test_is_that_of_scipy(x):
    assert st.t_p(x) == pytest.approx(stats.ttest_1samp(x, 0).pvalue)
    assert st.t_p(x, 0.3) > st.t_p(x)


@pytest.mark.parametrize("x", [s - 79 for s in SAMPLES])
def test_the_permutation_test_is_that_of_scipy(x):
    theirs = stats.permutation_test((x, np.zeros_like(x)), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf)
    assert st.permutation_p(x) == pytest.approx(theirs.pvalue)


def test_the_permutation_test_counts_every_sign_flip():
    x = np.array([0.3, -0.1, 0.7, 0.2])
    flips = [abs(np.dot(x, s)) >= abs(x.sum()) - 1e-12 for s in itertools.product((1, -1), repeat=4)]
    assert st.permutation_p(x) == np.mean(flips)


@pytest.mark.parametrize("n", [1, 3, 6, 10])
def test_the_smallest_p_is_reached_when_all_differences_have_one_sign(n):
    assert st.permutation_p(np.arange(1, n + 1)) == st.smallest_p(n) == 2 / 2**n


def test_many_pairs_are_tested_by_drawn_flips_close_to_the_exact_value():
    x = np.random.default_rng(3).normal(0.3, 1, 17)
    exact = np.mean([abs(np.dot(x, 1 - 2 * np.array(s))) >= abs(x.sum()) - 1e-12 for s in itertools.product((0, 1), repeat=17)])
    assert st.permutation_p(x) == pytest.approx(exact, abs=0.005)


def test_under_the_null_hypothesis_the_permutation_test_keeps_its_level():
    rng = np.random.default_rng(5)
    p = np.array([st.permutation_p(rng.normal(size=8)) for _ in range(1500)])
    assert np.mean(p <= 0.05) == pytest.approx(0.05 - 0.05 % (2 / 2**8), abs=0.018)


def test_holm_is_that_of_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = RNG.uniform(0, 0.2, 9)
    assert st.holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])


def test_holm_neither_changes_nor_counts_a_missing_p():
    assert st.holm([math.nan, 0.01, 0.04]) == pytest.approx([math.nan, 0.02, 0.04], nan_ok=True)
    assert st.holm([0.4, 0.9]).max() <= 1


def test_the_bootstrap_interval_is_that_of_scipy_and_ignores_the_order():
    x = SAMPLES[-1]
    theirs = stats.bootstrap((np.sort(x),), np.mean, method="BCa", n_resamples=4000, rng=np.random.default_rng(0)).confidence_interval
    assert st.bootstrap_interval(x) == pytest.approx((theirs.low, theirs.high))
    assert st.bootstrap_interval(x[::-1]) == st.bootstrap_interval(x)


def test_p_above_is_mann_whitneys_u_over_all_pairs():
    a, b = np.array([1, 2, 3, 3]), np.array([2, 2, 3])
    assert st.probability_above(a, b) == pytest.approx(stats.mannwhitneyu(a, b).statistic / 12)
    assert st.probability_above(a, b) + st.probability_above(b, a) == 1


def test_hedges_g_is_cohens_d_with_the_exact_correction():
    a, b = SAMPLES[2], SAMPLES[3]
    pooled = math.sqrt((4 * a.var(ddof=1) + 9 * b.var(ddof=1)) / 13)
    assert st.hedges_g(a, b) == pytest.approx((a.mean() - b.mean()) / pooled * (1 - 3 / (4 * 13 - 1)), rel=2e-3)  # Hedges' approximation
    assert st.hedges_g(a, b) == -st.hedges_g(b, a)


@pytest.mark.parametrize(("right", "n"), [(0, 20), (13, 20), (180, 180), (161, 180)])
def test_the_wilson_interval_is_that_of_scipy(right, n):
    theirs = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert st.wilson_interval(right / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_kendalls_tau_is_that_of_scipy_with_ties():
    published = [88, 92, 92, 93, 94]
    ours = [np.array([x, x + 2]) for x in (80, 85, 79, 90, 90)]
    assert st.kendall(published, ours).tau == pytest.approx(stats.kendalltau(published, [x.mean() for x in ours]).statistic)


def test_the_interval_of_tau_is_a_point_where_no_draw_changes_the_order_and_wide_where_arms_overlap():
    clear = st.kendall([1, 2, 3], [np.array([x, x + 0.1]) for x in (1, 2, 3)])
    assert clear == (1, 1, 1)
    blurred = st.kendall([1, 2, 3], [np.array([0.0, 9.0]) + x for x in (1, 2, 3)])
    assert blurred.low < 0 < blurred.high


def test_what_the_data_do_not_allow_is_nan_and_never_a_number():
    one, none = [3.0], []
    for interval in (
        st.t_interval(one),
        st.t_interval(none),
        st.bootstrap_interval(one),
        st.wilson_interval(math.nan, 9),
        st.wilson_interval(0.5, 0),
    ):
        assert all(map(math.isnan, interval))
    numbers = [
        st.permutation_p(none),
        st.t_p(one),
        st.hedges_g(one, one),
        st.probability_above(none, one),
        st.kendall([1, 2], [np.ones(2)] * 2).tau,
    ]
    assert all(map(math.isnan, [*numbers, st.mean_std(one)[1], *st.mean_std(none), st.kendall([1, 2, 3], [np.ones(1)] * 3).low]))


def test_equal_values_make_a_point_and_no_warning():
    same = [0.1 + 0.2] * 3
    assert st.t_interval(same) == pytest.approx((0.3, 0.3))
    assert st.bootstrap_interval(same) == pytest.approx((0.3, 0.3))
    assert (st.t_p([0, 0, 0]), st.t_p([1, 1, 1]), st.permutation_p([0, 0, 0])) == (1, 0, 1)


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


@pytest.mark.parametrize(
    ("gain", "ours", "published", "theirs", "word"),
    [
        (1.0, (0.5, 1.5), 1.2, (0.9, 1.5), "confirmed"),
        (1.0, (0.5, 1.5), 1.4, (1.2, 1.6), "same order; the published difference lies within our interval"),
        (1.0, (0.9, 1.1), 5.0, (4.0, 6.0), "same order, another size"),
        (1.0, (math.nan, math.nan), 5.0, (4.0, 6.0), "same order"),
        (-0.2, (-1, 0.6), 1.0, (0.5, 1.5), "order not seen, within our uncertainty"),
        (-2.0, (-3, -1), 1.0, (0.5, 1.5), "order reversed"),
        (1.0, (-0.5, 2.5), 1.2, (0.9, 1.5), "compatible: same order, each difference lies within the other's interval, ours includes 0"),
        (-2.0, (-3, -1), 0.0, (-1, 1), "the paper has no difference, ours excludes 0"),
        (-2.0, (-5, 1), 0.0, (-1, 1), "compatible: the paper has no difference, ours is not told from 0"),
        (math.nan, (math.nan, math.nan), 1.0, (0.5, 1.5), ""),
    ],
)
def test_a_verdict_follows_from_the_two_differences(gain, ours, published, theirs, word):
    said = pub.verdict(gain, st.Interval(*ours), published, st.Interval(*theirs))
    assert said == word or (word == "confirmed" and said.startswith("confirmed"))


def test_a_published_word_is_confirmed_by_diverged_runs_only():
    word = pub.Published(math.nan, math.nan, "did not converge")
    assert pub.verdict_of_words(word, 0, 3).startswith("confirmed")
    assert pub.verdict_of_words(word, 3, 0).startswith("not confirmed")
    assert "1 of 3" in pub.verdict_of_words(word, 2, 1)
    assert pub.verdict_of_words(word, 0, 0) == ""
