"""Which configuration of a study is the best. In: a Study. Out: `Best`, or None while nothing is completed.

The only place where a winner is chosen, so that the report and the exported checkpoint never disagree. Test metrics are not looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from analysis.race import losers
from analysis.study import Study, mapping, plural
from analysis.summary import phrase

SPLIT = ("split", "split_seed", "split_per_seed")  # parameters that say which images are validated on


@dataclass(frozen=True)
class Best:
    """The winning configuration. `key` is its run with the best score, whose checkpoint is exported; `mean` and `std` are fractions."""

    name: str
    kind: str  # "arm" or "trial"
    config_hash: str
    key: str
    keys: tuple[str, ...]  # its completed runs, by seed
    seeds: tuple[int, ...]
    metric: str
    mean: float
    std: float  # sample standard deviation; nan for one seed
    words: str  # how it was chosen
    trial: int | None = None
    among: int = 1  # configurations of which it is the best


def _same_split(study: Study, rows: pd.DataFrame) -> pd.Series:
    """Which rows have the split of the study's baseline; all where it names none."""
    baseline = mapping(study.asked.get("baseline"))
    same = pd.Series(True, index=rows.index)
    for name in SPLIT:
        if name in baseline and f"param.{name}" in rows:
            same &= rows[f"param.{name}"].map(lambda given, asked=baseline[name]: given == asked)
    return same


def best(study: Study) -> Best | None:
    """Best mean of the study's objective over seeds, among configurations with every seed of the study completed; where none has all,
    among those with the most. Ties go to the lower standard deviation, then to what stands in a table, then to the
    earlier trial (as the search itself chooses, which keeps the model of its own best alone), then to the configuration's hash. Configurations that are judged
    on other validation images than the study's baseline (table 1 of SupCAM has a split of its own) are not candidates where others are; a
    yardstick, which is no model, never is."""
    metric, wanted = study.metric, study.seeds
    rows = study.usable
    if metric not in rows:
        return None
    rows = rows[(rows["status"] == "completed") & rows["seed"].isin(wanted) & rows[metric].notna()]
    same = _same_split(study, rows)
    rows = rows[same] if same.any() else rows
    rows = rows[~rows["config_hash"].isin({arm.config_hash for table in study.tables for arm in table.arms if arm.yardstick})]
    beaten = rows["config_hash"].isin(losers(study))
    rows = rows if beaten.all() else rows[~beaten]
    if rows.empty:
        return None
    groups = rows.groupby("config_hash", sort=True)[metric].agg(["size", "mean", "std"])
    most = int(groups["size"].max())
    sign = -1.0 if study.maximize else 1.0
    # 12 digits: the mean of equal values in another order may differ in the last bit
    full = groups[groups["size"] == most]
    named = {arm.config_hash for table in study.tables for arm in table.arms}
    asked = rows.groupby("config_hash")["trial"].min().reindex(full.index)
    each = zip(full["mean"].tolist(), full["std"].tolist(), asked.tolist(), full.index.tolist(), strict=True)
    order = [
        (
            round(sign * mean, 12),
            math.inf if math.isnan(std) else round(std, 12),
            h not in named,
            math.inf if pd.isna(trial) else int(trial),
            h,
        )
        for mean, std, trial, h in each
    ]
    config_hash = min(order)[-1]
    runs = rows[rows["config_hash"] == config_hash].sort_values("seed")
    words = f"{'highest' if study.maximize else 'lowest'} mean {phrase(metric)}"
    among = plural(len(order), "configuration")
    if most >= len(wanted):
        words += f" over {plural(len(wanted), 'seed')}, among {among} with every seed completed"
    else:
        words += f" over {plural(most, 'seed')}, among {among} with as many, since none has all {len(wanted)} seeds completed"
    trial = _first_trial(runs)
    name, kind = _name(study, config_hash, trial)
    top = runs.sort_values([metric, "seed"], ascending=[not study.maximize, True]).iloc[0]
    return Best(
        name, kind, config_hash, str(top["key"]), tuple(runs["key"]), tuple(int(seed) for seed in runs["seed"]), metric,
        float(runs[metric].mean()), float(runs[metric].std()), words, trial, len(order),
    )  # fmt: skip


def _first_trial(runs: pd.DataFrame) -> int | None:
    trials = runs["trial"].dropna()
    return None if trials.empty else int(trials.min())


def _name(study: Study, config_hash: str, trial: int | None) -> tuple[str, str]:
    """An arm of a paper's table first, then the trial, then an arm of the search's own table."""
    own = sorted(study.tables, key=lambda t: t.number == "search")
    for table in own:
        for arm in table.arms:
            if arm.config_hash == config_hash and (table.number != "search" or trial is None):
                return arm.name, "arm"
    return (f"trial {trial}", "trial") if trial is not None else (f"configuration {config_hash[:8]}", "arm")
