"""How a search asks and when it gives up: the choices behind `--sampler`, `--scheduler` and `--grid`.
Comes in: a Strategy and a trial's number. Goes out: an Optuna sampler or pruner, or the faults of a request.
Exists so that what is chosen is data that stands in study.json, and so that a sampler is a function of (seed, number) and of the trials
before: a proposal then depends on the history alone, whichever process asks."""

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from search_spaces._declare import Dimension
from trainables.parts.randomness import derive_seed

SAMPLERS = ("tpe", "gp", "random", "grid")
SCHEDULERS = ("asha", "hyperband", "none")
SECOND = ("parameters",)
FINITE = 50  # values: a numeric dimension with more is no dimension of a grid unless --grid says how many points
LARGEST = 100_000  # points of a grid
REDUCTION = 3  # a rung keeps one in three
DOUBT = 2.0  # standard errors


@dataclass(frozen=True)
class Strategy:
    """What a search is asked to do beside its number of trials. The defaults are argued in benchmarks/README.md, "How many epochs a search
    needs"."""

    sampler: str = "tpe"
    scheduler: str = "asha"
    grid: int | None = None  # points of each numeric dimension with more values than that
    grace: int = 2  # validations before the first run may be stopped
    startup: int = 2  # trials that end by themselves before any is stopped
    finalists: int = 3  # configurations that are run on fresh seeds
    second: str | None = None  # what is made small beside the score: parameters
    source: str | None = None  # the study that this one starts from
    space: Mapping[str, str] = field(default_factory=dict)  # dimensions that are narrower than declared (`--space`)
    fixed: Mapping[str, Any] = field(default_factory=dict)  # dimensions that are not searched (`--fix`), at which value

    def json(self) -> dict[str, Any]:
        return asdict(self)


def faults(strategy: Strategy, space: Mapping[str, Dimension], values: Mapping[str, Any], trials: int | None) -> list[str]:
    """All that is wrong with a request, one line each. values: of the baseline; trials: as asked, None where all points of a grid are."""
    found = []
    for word, given, known in (("--sampler", strategy.sampler, SAMPLERS), ("--scheduler", strategy.scheduler, SCHEDULERS)):
        if given not in known:
            found.append(f"{word} must be one of {', '.join(known)}, got {given!r}")
    if strategy.second not in (None, *SECOND):
        found.append(f"the second word of --objective must be one of {', '.join(SECOND)}, got {strategy.second!r}")
    if strategy.second and strategy.scheduler != "none":
        found.append(f"--scheduler {strategy.scheduler} stops runs by one score, and two objectives are asked for; give --scheduler none")
    if strategy.grid is not None and strategy.sampler != "grid":
        found.append(f"--grid is the number of points of --sampler grid, and the sampler is {strategy.sampler}; leave it out")
    if strategy.grid is not None and strategy.grid < 2:
        found.append(f"--grid must be at least 2 points, got {strategy.grid}")
    for word, count, low in (("--grace", strategy.grace, 1), ("--finalists", strategy.finalists, 1)):
        if count < low:
            found.append(f"{word} must be at least {low}, got {count}")
    if strategy.sampler == "grid" and strategy.source is not None:
        found.append("--from gives a sampler something to learn from, and --sampler grid learns nothing; leave one of them out")
    if strategy.sampler != "grid" or found:
        return found
    endless = [name for name, dimension in space.items() if steps_of(dimension.distribution, strategy.grid) is None]
    if endless:
        found.append(
            f"--sampler grid needs dimensions with a few values, and these are continuous: {', '.join(endless)}; "
            "give --grid N for N points of each, or another --sampler"
        )
    elif trials is None and len(grid_points(space, values, strategy.grid, LARGEST + 1)) > LARGEST:
        found.append(f"the grid has more than {LARGEST:,} points; give --trials for how many of them, in a random order, or a lower --grid")
    return found


# -- samplers ---------------------------------------------------------------------------------------------------------------------------


def make_sampler(strategy: Strategy, number: int, *, seed: int, slots: int) -> optuna.samplers.BaseSampler:
    """That of the trial with this number. slots: runs at once.

    tpe: multivariate with groups (it models the branches of a conditional space apart); constant liar: what runs elsewhere counts as bad.
    gp: Optuna's, over the dimensions that every trial has; those that only some have are drawn at random, as Optuna falls back to. What
    runs elsewhere enters its acquisition function. random: looks at no other trial; two numbers give two draws. A grid's points are
    enqueued (Optuna's GridSampler knows no conditions: it would take the product of all dimensions) and need no sampler."""
    one = derive_seed("sampler", seed, number) % 2**32
    first = max(5, slots)  # trials before a model is asked
    if strategy.sampler in ("random", "grid"):
        return optuna.samplers.RandomSampler(seed=one)
    if strategy.sampler == "gp":
        return optuna.samplers.GPSampler(seed=one, n_startup_trials=first, warn_independent_sampling=False)
    return optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, n_startup_trials=first, seed=one)


def steps_of(distribution: BaseDistribution, points: int | None) -> tuple[Any, ...] | None:
    """The values of a dimension in a grid: all, or `points` evenly from end to end on its own scale, rounded to its step. None where it has
    more than FINITE values and no number of points is given."""
    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is not None:
        count = math.floor((high - low) / step + 1e-9) + 1
        if count <= (points or FINITE):
            return tuple(low + index * step for index in range(count))
    if points is None:
        return (low,) if low == high else None
    even = np.geomspace(low, high, points) if distribution.log else np.linspace(low, high, points)
    if step is None:
        return tuple(dict.fromkeys(float(min(high, max(low, value))) for value in even))
    kind = int if isinstance(distribution, IntDistribution) else float
    return tuple(dict.fromkeys(kind(min(high, low + round((value - low) / step) * step)) for value in even))


def grid_points(space: Mapping[str, Dimension], values: Mapping[str, Any], points: int | None, most: int = LARGEST) -> list[dict[str, Any]]:
    """The points of a conditional space, at most `most`: a dimension has a value only where its conditions hold."""
    names = list(space)

    def walk(index: int, point: dict[str, Any], known: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        if index == len(names):
            yield point
            return
        dimension = space[names[index]]
        if not all(known[name] in allowed for name, allowed in dimension.when.items()):
            yield from walk(index + 1, point, known)
            return
        for value in steps_of(dimension.distribution, points) or ():
            yield from walk(index + 1, point | {names[index]: value}, {**known, dimension.field: value})

    return list(itertools.islice(walk(0, {}, values), most))


def grid_order(
    space: Mapping[str, Dimension], values: Mapping[str, Any], strategy: Strategy, seed: int, without: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The points of a grid in the random order of a seed, so that a part of it is no corner of it; `without` those that are asked anyway.
    Of a grid of more than LARGEST points, those that come first in the space's order."""
    found = [point for point in grid_points(space, values, strategy.grid) if point not in without]
    random.Random(seed).shuffle(found)
    return found


# -- early stopping ---------------------------------------------------------------------------------------------------------------------


def make_pruner(strategy: Strategy, judged: int | None = None, maximize: bool = True) -> optuna.pruners.BasePruner:
    """Successive halving without waiting (ASHA): at `grace` validations, and at each tripling, the best third of those that came so far
    goes on. hyperband: several of them, with longer and longer grace. A run that they would stop goes on all the same

    - before `startup` trials have ended by themselves: Optuna's halving would stop the second trial of a study for being behind the first;
    - where it is not behind the best score at its step by more than DOUBT standard errors of a share of `judged` images (the validation
      part; None: any difference counts): a search that has found a good region proposes points of it, and a third of equals is chance."""
    if strategy.scheduler == "none":
        return optuna.pruners.NopPruner()
    halving = optuna.pruners.HyperbandPruner if strategy.scheduler == "hyperband" else optuna.pruners.SuccessiveHalvingPruner
    return _Cautious(halving(min_resource=strategy.grace, reduction_factor=REDUCTION), strategy.startup, judged, 1 if maximize else -1)


class _Cautious(optuna.pruners.BasePruner):
    """Another pruner's word, where there is no doubt of it."""

    def __init__(self, inner: optuna.pruners.BasePruner, startup: int, judged: int | None, sign: int) -> None:
        self.inner, self.startup, self.judged, self.sign = inner, startup, judged, sign

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        stop = self.inner.prune(study, trial)  # always asked: it notes the rungs that the trial has reached
        if not stop:
            return False
        trials = study.get_trials(deepcopy=False)
        ended = sum(one.state == TrialState.COMPLETE and bool(one.intermediate_values) for one in trials)
        if ended < self.startup:
            return False
        step = trial.last_step
        if step is None:
            return False
        seen = {one.number: self.sign * one.intermediate_values[step] for one in trials if step in one.intermediate_values}
        mine = seen.pop(trial.number)
        best = max((score for score in seen.values() if not math.isnan(score)), default=-math.inf)
        return not best - mine <= DOUBT * _standard_error(self.sign * best, self.judged)  # and so for a score that is no number


def _standard_error(share: float, count: int | None) -> float:
    """Of a share of `count` images, as if two more had been right and two wrong (Agresti and Coull 1998): all right is no certainty. For a
    score that is no share (AMI) it is a rule of thumb."""
    if not count:
        return 0.0
    share = (min(max(share, 0.0), 1.0) * count + 2) / (count + 4)
    return math.sqrt(share * (1 - share) / (count + 4))
