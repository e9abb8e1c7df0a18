"""The order of a search's trials, and Optuna's words for a dimension.
Comes in: an Optuna study. Goes out: its best trials. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

FROM = "from"  # user attribute of a trial that was taken over: another study's run


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """Optuna's public suggest of the distribution's kind, with its bounds, step and scale unchanged."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    raise TypeError(f"a space holds Optuna's float, int and categorical distributions, got {type(distribution).__name__}")


def _worth(study: optuna.Study, trial: FrozenTrial) -> list[float]:
    """A trial's values, more being better."""
    signs = (1 if direction == optuna.study.StudyDirection.MAXIMIZE else -1 for direction in study.directions)
    return [sign * value for sign, value in zip(signs, trial.values or (), strict=True)]


def rank_of(study: optuna.Study) -> Callable[[FrozenTrial], tuple[float, int]]:
    return lambda trial: (-_worth(study, trial)[0], trial.number)


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The study's own completed trials, the best validation score first, the earliest of equals; of two objectives, those on the front."""
    completed = [one for one in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if FROM not in one.user_attrs]
    if len(study.directions) > 1:
        every = [_worth(study, trial) for trial in completed]
        completed = [
            trial
            for trial, mine in zip(completed, every, strict=True)
            if not any(all(a >= b for a, b in zip(other, mine, strict=True)) and other != mine for other in every)
        ]
    return sorted(completed, key=rank_of(study))


def reason_of(record: Mapping[str, Any]) -> str:
    """Why a run has no score, in words."""
    return str((record["error"] or {}).get("message", record["status"]))
