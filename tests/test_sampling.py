"""Samplers, early stopping and grids, as a study is asked for them."""

import itertools
import math

import numpy as np
import optuna
import pytest
from driving import END, Bench
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from search import sampling
from search.plan import make_plan
from search.sampling import Strategy, grid_points, make_pruner, make_sampler, steps_of
from search_spaces._declare import Dimension
from trainables.parts.errors import RequestError

SPACE = {
    "form": Dimension("form", CategoricalDistribution(("plain", "bent"))),
    "bend": Dimension("bend", FloatDistribution(0.1, 0.9), {"form": ("bent",)}),
    "rate": Dimension("rate", FloatDistribution(0.001, 0.1, log=True)),
}


def faults(toy, **strategy):
    trials = strategy.pop("trials", None)
    with pytest.raises(RequestError) as caught:
        make_plan(toy, preset="quick", data_hash="d", code="c", trials=trials, strategy=Strategy(**strategy))
    return caught.value.faults


# -- samplers ---------------------------------------------------------------------------------------------------------------------------


def proposals(make, told=12, at_once=4, dimensions=3):
    """Points in the unit cube that are asked for at once, after some were told their distance to a place in it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    space = {f"x{number}": FloatDistribution(0.0, 1.0) for number in range(dimensions)}

    def ask(number):
        study.sampler = make(number)
        return study.ask(space)

    for number in range(told):
        trial = ask(number)
        study.tell(trial, -sum((value - 0.3) ** 2 for value in trial.params.values()))
    return np.array([list(ask(told + number).params.values()) for number in range(at_once)])


def nearest(points):
    return min(float(np.abs(a - b).max()) for a, b in itertools.combinations(points, 2))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_what_is_asked_at_once_is_not_one_point(sampler):
    points = proposals(lambda number: make_sampler(Strategy(sampler), number, seed=0, slots=4))
    assert nearest(points) > 0.01, points


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_without_word_of_what_is_running_the_same_samplers_do_propose_one_point():
    """So that the test above can fail: a model that does not see what runs elsewhere has one opinion of what is best."""

    class Blind(optuna.samplers.GPSampler):
        def _sample_relative_impl(self, study, completed, running, space):
            return super()._sample_relative_impl(study, completed, [], space)

    assert nearest(proposals(lambda number: Blind(seed=number, n_startup_trials=5, warn_independent_sampling=False))) < 0.01
    assert nearest(proposals(lambda number: optuna.samplers.RandomSampler(seed=0))) == 0


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_proposal_is_a_function_of_the_seed_and_the_number(toy, tmp_path, sampler):
    points = []
    for name in ("a", "b"):
        bench = Bench(
            toy, tmp_path / name, trials=4, tables=["none"], repeats=1, strategy=Strategy(sampler, grid=3 if sampler == "grid" else None)
        )
        for _ in range(4):
            _, c = bench.open()  # a new driver for each
            active = c.next()
            points.append(active.trial.params)
            c.row(active.run.key, {"end": "failed", "kind": "request", "message": "broken"} | END)
        bench.close()
    assert points[:4] == points[4:] and len({str(point) for point in points}) == 4


# -- grids ------------------------------------------------------------------------------------------------------------------------------


def test_a_grid_of_a_conditional_space_has_no_point_twice_and_no_value_that_does_not_apply():
    points = grid_points(SPACE, {"form": "plain", "bend": 0.2, "rate": 0.02}, 3)
    assert len(points) == 3 + 9
    assert all(("bend" in point) == (point["form"] == "bent") for point in points)
    assert len({str(point) for point in points}) == 12
    assert sorted({point["rate"] for point in points}) == pytest.approx([0.001, 0.01, 0.1])
    assert sorted({point["bend"] for point in points if "bend" in point}) == pytest.approx([0.1, 0.5, 0.9])


@pytest.mark.parametrize(
    ("distribution", "points", "values"),
    [
        (CategoricalDistribution((32, 64)), None, (32, 64)),
        (IntDistribution(1, 4), None, (1, 2, 3, 4)),
        (IntDistribution(0, 10, step=5), None, (0, 5, 10)),
        (IntDistribution(256, 4096, log=True), 3, (256, 1024, 4096)),
        (IntDistribution(1, 3), 10, (1, 2, 3)),
        (FloatDistribution(0.0, 1.0, step=0.5), None, (0.0, 0.5, 1.0)),
        (FloatDistribution(0.0, 1.0), 3, (0.0, 0.5, 1.0)),
        (FloatDistribution(0.0, 1.0), None, None),
        (IntDistribution(256, 4096, log=True), None, None),
    ],
)
def test_the_values_of_a_dimension_in_a_grid(distribution, points, values):
    found = steps_of(distribution, points)
    assert found == (values if values is None else pytest.approx(values))
    assert values is None or all(distribution._contains(distribution.to_internal_repr(value)) for value in found)


def test_a_grid_over_continuous_dimensions_is_refused_by_their_names(toy):
    assert faults(toy, sampler="grid") == [
        "--sampler grid needs dimensions with a few values, and these are continuous: bend, rate; give --grid N for N points of each, or another --sampler"
    ]


def test_a_grid_asks_the_published_point_first_then_each_point_once_and_ends(toy, tmp_path):
    bench = Bench(toy, tmp_path, tables=["none"], repeats=1, strategy=Strategy("grid", grid=2))
    plan = bench.plan()
    assert plan.trials == 1 + 2 + 4, "the published point is none of the grid"
    _, c = bench.open()
    points = []
    while (active := c.next()) is not None and active.trial is not None:
        points.append(active.trial.params)
        c.row(active.run.key, {"end": "failed", "kind": "request", "message": "broken"} | END)
        if len(points) % 3 == 0:
            _, c = bench.open()
    bench.close()
    assert points[0] == {"form": "plain", "rate": 0.02}
    assert sorted(map(str, points[1:])) == sorted(map(str, grid_points(SPACE, {"form": "plain", "bend": 0.2}, 2)))


def test_more_trials_than_a_grid_has_points_are_the_grid(toy):
    def trials(asked):
        return make_plan(toy, preset="quick", data_hash="d", code="c", trials=asked, strategy=Strategy("grid", grid=2)).trials

    assert (trials(None), trials(3), trials(500)) == (7, 3, 7)


def test_a_grid_too_large_to_be_meant_is_refused(monkeypatch, toy):
    monkeypatch.setattr(sampling, "LARGEST", 50)
    assert faults(toy, sampler="grid", grid=10)[0].startswith("the grid has more than 50 points; give --trials")
    assert make_plan(toy, preset="quick", data_hash="d", code="c", trials=5, strategy=Strategy("grid", grid=10)).trials == 5


def test_words_that_are_no_choice_are_refused_all_at_once(toy):
    assert faults(toy, sampler="bayes", scheduler="pbt", grid=1, grace=0, finalists=0) == [
        "--sampler must be one of tpe, gp, random, grid, got 'bayes'",
        "--scheduler must be one of asha, hyperband, none, got 'pbt'",
        "--grid is the number of points of --sampler grid, and the sampler is bayes; leave it out",
        "--grid must be at least 2 points, got 1",
        "--grace must be at least 1, got 0",
        "--finalists must be at least 1, got 0",
    ]


# -- early stopping ---------------------------------------------------------------------------------------------------------------------


def stopped_at(strategy, curves, judged=None):
    """The step at which each trial is stopped, None where it ends; one after the other."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", pruner=make_pruner(strategy, judged), study_name="s")
    found = []
    for curve in curves:
        trial, stop = study.ask(), None
        for step, score in enumerate(curve, 1):
            trial.report(score, step)
            if trial.should_prune():
                stop = step
                break
        study.tell(trial, None if stop else curve[-1], state=TrialState.PRUNED if stop else TrialState.COMPLETE)
        found.append(stop)
    return found


FALLING = [[0.9 - 0.1 * number] * 6 for number in range(6)]  # each trial is worse than all before it


def test_nothing_is_stopped_before_a_few_trials_have_ended_and_then_not_before_its_grace():
    assert stopped_at(Strategy(), FALLING) == [None, None, 2, 2, 2, 2]
    assert stopped_at(Strategy(grace=3), FALLING) == [None, None, 3, 3, 3, 3]


def test_without_patience_the_second_trial_would_be_stopped_at_once():
    assert stopped_at(Strategy(grace=1, startup=1), FALLING) == [None, 1, 1, 1, 1, 1]


def test_who_is_behind_by_less_than_the_validation_part_can_tell_goes_on():
    curves = [[0.80] * 3, [0.74] * 3, [0.70] * 3]  # of 100 images at 0.80, a standard error is 0.04
    assert stopped_at(Strategy(grace=1, startup=1), curves, judged=100) == [None, None, 1]
    assert stopped_at(Strategy(grace=1, startup=1), curves, judged=10_000) == [None, 1, 1]
    assert stopped_at(Strategy(grace=1, startup=1), curves, judged=10) == [None, None, None]


def test_one_image_of_twelve_is_no_difference_even_from_all_right():
    assert stopped_at(Strategy(grace=1, startup=1), [[1.0], [11 / 12], [0.2]], judged=12) == [None, None, 1]


def test_where_less_is_better_the_doubt_is_of_the_least():
    study = optuna.create_study(direction="minimize", pruner=make_pruner(Strategy(grace=1, startup=1), 100, maximize=False))
    found = []
    for score in (0.20, 0.26, 0.30):
        trial = study.ask()
        trial.report(score, 1)
        found.append(trial.should_prune())
        study.tell(trial, None if found[-1] else score, state=TrialState.PRUNED if found[-1] else TrialState.COMPLETE)
    assert found == [False, False, True]


def test_a_score_that_is_no_number_is_stopped_and_stops_nobody():
    assert stopped_at(Strategy(grace=1, startup=1), [[0.5], [math.nan, 0.5], [0.6]]) == [None, 1, None]


def test_the_best_so_far_is_never_stopped():
    assert stopped_at(Strategy(grace=1, startup=1), FALLING[::-1]) == [None] * 6


def test_none_stops_nothing_and_hyperband_is_more_lenient_than_asha_but_stops_too():
    many = FALLING * 5
    counts = {
        scheduler: sum(stop is not None for stop in stopped_at(Strategy(scheduler=scheduler, grace=1), many))
        for scheduler in sampling.SCHEDULERS
    }
    assert counts["none"] == 0 < counts["hyperband"] < counts["asha"]
