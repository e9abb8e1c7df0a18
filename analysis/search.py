"""What a search found out. In: a Study. Out: its trials as a table, its parameters, how much each matters, and whether the winner was luck."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis import race
from analysis.numbers import number, short
from analysis.statistics import mean_std
from analysis.study import Study, finite, mapping, plural
from analysis.summary import title

_HALVES = 200  # random halves of the trials
_SHUFFLES = 400  # of their scores
FEWEST = 10  # completed trials below which an importance would be noise
_MOST = 2_000  # trials of which an importance is computed; more change it by less than its interval


@dataclass(frozen=True)
class Parameter:
    """A searched parameter: a range, or choices. `when` names what other parameters must be for it to count."""

    name: str
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    choices: tuple[str, ...] = ()
    when: tuple[Mapping[str, tuple[str, ...]], ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class Importance:
    """Share of the variance of the score's rank that one parameter explains alone (adjusted correlation ratio), 0 to 1.

    `low` and `high`: 95 % range over random halves of the trials; `chance`: what the largest share of all parameters stays below with 95 % of
    random scores, since the largest of many is looked at."""

    name: str
    share: float
    low: float
    high: float
    chance: float


def trial_table(study: Study) -> pd.DataFrame:
    """One row per trial, in order: trial, key, seed, status, score (per cent; of a pruned one its last intermediate score), and the value
    of every searched parameter under its own name, None where its condition does not hold."""
    rows = study.usable[study.usable["trial"].notna()].sort_values(["trial", "seed"], kind="stable").drop_duplicates("trial")
    nothing = pd.Series(math.nan, index=rows.index)
    score = rows.get(study.metric, nothing).where(rows["status"] == "completed", rows.get(study.intermediate, nothing))
    score = score.where(rows["status"].isin(["completed", "pruned"]))
    columns = {k: rows[k] for k in ("key", "seed", "status", "config_hash")}
    out = pd.DataFrame({"trial": rows["trial"].astype("int64"), **columns, "score": 100 * score})
    for parameter in parameters(study):
        holds = pd.Series(not parameter.when, index=rows.index)
        for condition in parameter.when:
            each = pd.Series(True, index=rows.index)
            for name, values in condition.items():
                each &= rows[f"param.{name}"].map(str).isin(values) if f"param.{name}" in rows else True
            holds |= each
        out[f"param.{parameter.name}"] = rows[f"param.{parameter.name}"].where(holds, None)
    return out.reset_index(drop=True)


def parameters(study: Study) -> tuple[Parameter, ...]:
    """The searched parameters in the order of study.json. Two dimensions of one field (`margin.self`, `margin.class`) are one parameter."""
    found: dict[str, Parameter] = {}
    for key, given in mapping(study.asked.get("space")).items():
        entry = mapping(given)
        spec = {**entry, **mapping(entry.get("attributes"))}
        name = str(spec.get("field") or key)
        name = name if f"param.{name}" in study.records else key.partition(".")[0]
        if f"param.{name}" not in study.records:
            continue
        conditions = {str(k): tuple(map(str, v)) for k, v in mapping(spec.get("when")).items() if isinstance(v, list)}
        before = found.get(name)
        when = ((conditions,) if conditions else ()) if before is None else (*before.when, conditions) if conditions and before.when else ()
        choices = spec.get("choices")
        if isinstance(choices, list):
            found[name] = Parameter(
                name, choices=tuple(dict.fromkeys([*(before.choices if before else ()), *map(str, choices)])), when=when
            )
        elif _plain(spec.get("low")) and _plain(spec.get("high")):
            low, high = float(spec["low"]), float(spec["high"])
            if before is not None and not before.choices:
                low, high = min(low, before.low), max(high, before.high)
            found[name] = Parameter(name, low, high, spec.get("log") is True and low > 0, when=when)
    return tuple(found.values())


def _plain(value: Any) -> bool:
    return not math.isnan(finite(value))


def importances(study: Study, trials: pd.DataFrame) -> tuple[Importance, ...]:
    """Every searched parameter that took more than one value, the most important first; () below `FEWEST` completed trials.

    Each alone: a parameter that only matters together with another is not seen. Pruned trials have no final score and do not count."""
    trials = trials[(trials["status"] == "completed") & trials["score"].notna()]
    if len(trials) < FEWEST:
        return ()
    if len(trials) > _MOST:
        trials = trials.iloc[np.sort(np.random.default_rng(0).choice(len(trials), _MOST, replace=False))]
    ranks = trials["score"].rank().to_numpy(dtype=np.float64)
    named = {p.name: _groups(trials[f"param.{p.name}"], p) for p in parameters(study)}
    named = {name: groups for name, groups in named.items() if len(np.unique(groups)) > 1}
    chance = by_chance(list(named.values()), ranks)
    found = [Importance(name, *explained(groups, ranks), chance) for name, groups in named.items()]
    return tuple(sorted(found, key=lambda i: (-i.share, i.name)))


def explained(groups: np.ndarray, score: np.ndarray) -> tuple[float, float, float]:
    """Adjusted share of the score's variance between groups, and its 95 % range over random halves.

    groups, score: (N,). The adjustment (epsilon squared, Kelley 1935) makes the share 0 on average where the groups mean nothing."""
    n = len(score)
    one_hot = (groups[:, None] == np.unique(groups)).astype(np.float64)
    halves = (np.random.default_rng(0).random((_HALVES, n)).argsort(axis=1) < max(n // 2, 2)).astype(np.float64)
    share = _epsilon(np.ones((1, n)), score[None], one_hot)[0]
    low, high = np.quantile(_epsilon(halves, score[None], one_hot), [0.025, 0.975])
    return float(share), float(low), float(high)


def by_chance(groupings: Sequence[np.ndarray], score: np.ndarray) -> float:
    """What the largest share of any of the groupings stays below for 95 % of random orders of the scores; nan without one."""
    rng = np.random.default_rng(0)
    shuffled = np.stack([rng.permutation(score) for _ in range(_SHUFFLES)])
    shares = [_epsilon(np.ones((1, len(score))), shuffled, (g[:, None] == np.unique(g)).astype(np.float64)) for g in groupings]
    return float(np.quantile(np.max(shares, axis=0), 0.95)) if shares else math.nan


def _epsilon(chosen: np.ndarray, score: np.ndarray, one_hot: np.ndarray) -> np.ndarray:
    weighted = chosen * score
    counts, sums, n = chosen @ one_hot, weighted @ one_hot, chosen.sum(axis=1)
    total = (weighted * score).sum(axis=1) - weighted.sum(axis=1) ** 2 / n
    between = np.divide(sums**2, counts, out=np.zeros_like(sums), where=counts > 0).sum(axis=1) - weighted.sum(axis=1) ** 2 / n
    free = np.maximum(n - (counts > 0).sum(axis=1), 1)
    within = np.divide((total - between) / free, total / (n - 1), out=np.ones_like(total), where=total > 1e-12)
    result: np.ndarray = np.clip(1 - within, 0.0, 1.0)
    return result


def _groups(values: pd.Series, parameter: Parameter) -> np.ndarray:
    """Numbers in up to 6 groups of about equal size, choices each for itself; `not set` is a group of its own."""
    missing = values.isna().to_numpy()
    groups = np.full(len(values), -1)
    if parameter.choices:
        codes, _ = pd.factorize(values.map(str), sort=True)
        groups = np.where(missing, -1, codes)
    else:
        there = pd.to_numeric(values[~missing], errors="coerce").fillna(0.0)
        bins = int(np.clip(len(there) // 4, 3, 6))
        if len(there):
            groups[~missing] = np.minimum((there.rank(method="average", pct=True) * bins).to_numpy().astype(int), bins - 1)
    return groups


def overtuning(study: Study, trials: pd.DataFrame) -> tuple[str, ...]:
    """In words: what became of the search's winner on fresh seeds and on the test part. A search picks the luckiest score as well as the
    best configuration, so some of it is lost."""
    done = trials[(trials["status"] == "completed") & trials["score"].notna()]
    if done.empty:
        return ()
    top = done.sort_values(["score", "trial"], ascending=[not study.maximize, True]).iloc[0]
    name = title(study.metric)
    words = [
        f"The best trial of the search is {int(top['trial'])}: {name} {top['score']:.2f} % with seed {int(top['seed'])}, of {plural(len(done), 'completed trial')}."
    ]
    runs = study.usable
    runs = runs[(runs["config_hash"] == top["config_hash"]) & (runs["status"] == "completed")]
    fresh = runs[runs["key"] != top["key"]]
    if study.metric in fresh and fresh[study.metric].notna().any():
        values = 100 * fresh[study.metric].dropna().to_numpy()
        mean, std = mean_std(values)
        change = (mean - float(top["score"])) * (1 if study.maximize else -1)
        spread = "" if math.isnan(std) else f" ± {std:.2f}"
        if len(values) < 2:
            lost = "one seed does not tell whether the search's score was luck"
        else:
            reach = float(stats.t.ppf(0.975, len(values) - 1)) * std * math.sqrt(1 + 1 / len(values))  # of one more seed
            lost = "so the search's score was partly luck" if change < -reach else "no more than seeds differ"
        words.append(
            f"On {plural(len(values), 'fresh seed')} the same configuration has {mean:.2f} %{spread}: {number(change, True)} points, {lost}."
        )
    else:
        words.append("It has no run on a fresh seed yet, so how much of its score is luck is not known.")
    tested = "test_" + study.metric.removeprefix("val_")
    if tested in runs and runs[tested].notna().any():
        values = 100 * runs[tested].dropna().to_numpy()
        words.append(f"On the test part it has {values.mean():.2f} % over {plural(len(values), 'seed')}.")
    return (*words, *race.words(study))


def view(study: Study, trials: pd.DataFrame) -> dict[str, Any] | None:
    """The steps by which the best score rose, and what matters: the trials themselves are runs."""
    done = trials[(trials["status"] == "completed") & trials["score"].notna()]
    if trials.empty:
        return None
    so_far = done["score"].cummax() if study.maximize else done["score"].cummin()
    new = so_far.ne(so_far.shift())
    return {
        "trials": len(trials),
        "enough": len(done) >= FEWEST,
        "steps": [[int(t), short(v)] for t, v in zip(done["trial"][new], so_far[new], strict=True)],
        "last": int(trials["trial"].max()),
        "importance": [
            {"name": i.name, "share": [short(100 * v) for v in (i.share, i.low, i.high)], "chance": short(100 * i.chance)}
            for i in importances(study, trials)
        ],
    }
