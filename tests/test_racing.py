"""The race on fresh seeds, as a function of scores."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from search.racing import BROKEN, race


def scores(table):
    return lambda name, seed: table[name].get(seed)


def run(table, seeds, **more):
    """Give each missing run its score until the race is decided; the runs in order, and the end."""
    known = {name: {} for name in table}
    ran = []
    for _ in range(200):
        state = race(list(table), more.get("kept"), seeds, scores(known), sign=more.get("sign", 1), stop=more.get("stop", True))
        if state.winner is not None:
            return ran, state
        assert state.missing, "a race that is not decided asks for something"
        for name, seed in state.missing:
            assert seed not in known[name], "no run is asked for twice"
            known[name][seed] = table[name][seed]
            ran.append((name, seed))
    raise AssertionError("the race never ends")


def test_seeds_come_one_after_the_other_and_the_best_mean_wins():
    ran, state = run({"lucky": {1: 0.7, 2: 0.8}, "good": {1: 0.9, 2: 0.7}}, [1, 2])
    assert ran == [("lucky", 1), ("good", 1), ("lucky", 2), ("good", 2)]
    assert state.winner == "good" and not state.out


def test_of_equal_means_the_search_s_own_order_decides():
    assert run({"a": {1: 0.2, 2: 0.4}, "b": {1: 0.4, 2: 0.2}}, [1, 2])[1].winner == "a"


def test_without_fresh_seeds_the_search_s_best_is_the_winner():
    assert race(["first", "second"], None, [], lambda name, seed: None).winner == "first"


def test_who_is_worse_by_the_paired_t_test_runs_no_further_seed():
    best = dict(enumerate([0.90, 0.80, 0.70, 0.90, 0.80, 0.85]))
    worse = {seed: value - 0.05 - 0.001 * seed for seed, value in best.items()}
    ran, state = run({"best": best, "worse": worse}, list(best))
    after, why = state.out["worse"]
    assert after == 3 and "paired t test over 3 seeds" in why
    p = ttest_rel([best[s] for s in range(3)], [worse[s] for s in range(3)], alternative="greater").pvalue
    assert p < 0.05 / 4 and f"p = {p:.3f}" in why, "it is asked at four seeds"
    assert [seed for name, seed in ran if name == "worse"] == [0, 1, 2]
    assert [seed for name, seed in ran if name == "best"] == list(best), "the winner has every seed"


def test_who_is_worse_by_less_than_the_noise_stays():
    best = dict(enumerate([0.90, 0.80, 0.70, 0.60, 0.80]))
    noisy = dict(enumerate([0.70, 0.90, 0.60, 0.80, 0.78]))
    assert not run({"best": best, "noisy": noisy}, list(best))[1].out


@pytest.mark.parametrize("gap", [0.0, 0.005, 0.01])
def test_stopping_the_worse_hardly_changes_who_wins(gap):
    chance, changed, races = np.random.default_rng(0), 0, 200
    for _ in range(races):
        table = {name: dict(enumerate(0.8 + better + 0.01 * chance.standard_normal(9))) for name, better in (("a", gap), ("b", 0.0))}
        changed += run(table, list(range(9)))[1].winner != max(table, key=lambda name: sum(table[name].values()))
    assert changed <= 0.03 * races


def test_who_cannot_be_mended_by_the_seeds_that_are_left_is_out_after_two():
    table = {"best": {1: 0.90, 2: 0.80, 3: 0.9}, "hopeless": {1: 0.5, 2: 0.5, 3: 0.5}}
    _, state = run(table, [1, 2, 3])
    assert state.out["hopeless"][0] == 2 and "more than 1 further seed could mend" in state.out["hopeless"][1]
    table = {"best": {1: 0.90, 2: 0.60, 3: 0.60}, "late": {1: 0.70, 2: 0.65, 3: 0.90}}
    assert run(table, [1, 2, 3])[1].winner == "late"


def test_one_seed_alone_stops_nobody():
    table = {"best": {1: 0.9, 2: 0.1}, "bad": {1: 0.1, 2: 0.9}}
    assert not run(table, [1, 2])[1].out


def test_the_baseline_runs_to_the_end_and_can_still_lose():
    table = {"best": dict.fromkeys(range(6), 0.9), "baseline": dict.fromkeys(range(6), 0.1)}
    ran, state = run(table, list(range(6)), kept="baseline")
    assert len(ran) == 12 and state.winner == "best"


def test_who_breaks_is_out_and_nobody_left_ends_the_race():
    _, state = run({"a": {1: BROKEN, 2: 0.9}, "b": {1: 0.4, 2: 0.4}}, [1, 2])
    assert state.winner == "b" and state.out["a"] == (0, "a run of it ended without a score")
    state = race(["a", "b"], None, [1], lambda name, seed: BROKEN)
    assert state.winner == "a" and not state.missing, "the search's word stands"


def test_where_less_is_better_the_least_wins():
    assert run({"a": {1: 0.5}, "b": {1: 0.2}}, [1], sign=-1)[1].winner == "b"


@given(
    st.lists(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), min_size=6, max_size=6), min_size=1, max_size=4),
    st.integers(0, 6),
    st.booleans(),
)
def test_a_race_ends_with_a_winner_that_ran_every_seed_whatever_the_scores(values, count, stop):
    table = {str(number): dict(enumerate(row)) for number, row in enumerate(values)}
    known = {name: {} for name in table}
    for _ in range(100):
        state = race(list(table), "0", list(range(count)), scores(known), stop=stop)
        if not state.missing:
            break
        name, seed = state.missing[0]  # in any order: one at a time
        known[name][seed] = table[name][seed]
    assert not state.missing
    if len(state.out) == len(table):
        assert state.winner == "0"
    elif count:
        assert len(known[state.winner]) == count and not any(math.isnan(value) for value in known[state.winner].values())
        assert all(
            math.fsum(known[state.winner].values()) >= math.fsum(row.values()) - 1e-9
            for name, row in known.items()
            if name not in state.out
        )


@pytest.mark.parametrize("count", [3, 10])
def test_of_equal_candidates_few_are_called_worse(count):
    """Noise alone: the rule looks several times, so it errs in more than 5 %."""
    import random

    chance = random.Random(0)
    wrong = 0
    for _ in range(200):
        table = {name: {seed: chance.gauss(0.8, 0.02) for seed in range(count)} for name in "ab"}
        _, state = run(table, list(range(count)))
        wrong += bool(state.out)
    assert wrong / 200 < 0.35
