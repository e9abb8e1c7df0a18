"""What a study says of its winner: the test score with its interval, the gain over the baseline configuration, and what was changed. In: a Study.
Out: `Headline`. The validation score that chose the winner is told as what it is: the best of several."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.choice import Best
from analysis.claims import failure_rate, rests_on
from analysis.crossed import SAME, Crossed, Estimate, clip_gain
from analysis.numbers import interval, number, show
from analysis.search import trial_table
from analysis.statistics import NONE, Interval, mean_std
from analysis.study import BROKEN, Study, finite, mapping, runs_of
from analysis.summary import test_over_train, title


@dataclass(frozen=True)
class Headline:
    """The winner's test score, and its gain over the study's baseline configuration by seed, per cent; of the validation where none was tested."""

    metric: str
    mean: float
    std: float
    seeds: int  # that the mean is over: those of the winner that have the metric
    interval: Interval
    rests: str  # on what the interval rests
    over: str
    gain: float
    gain_interval: Interval
    kind: str  # what `gain_interval` is: of this gain alone, or together with the others of its table
    pairs: int
    broke: str  # how many runs of either diverged or collapsed, in words; '' where none did. The gain has no interval then
    chosen: str  # the validation score that chose it, in words

    @property
    def beside(self) -> str:
        """`1.20 points above Scratch`, `0.94 points below Scratch, undecided`; '' where there is nothing to compare with."""
        if not self.over:
            return ""
        open_ = ", undecided" if self.gain_interval.low <= 0 <= self.gain_interval.high else ""
        return f"{number(abs(self.gain))} points {'above' if self.gain >= 0 else 'below'} {self.over}{open_}"


def headline(study: Study) -> Headline | None:
    """Against the study's own baseline configuration (the published one) where a table compares the winner with it; else against the arm that
    the table of the winner names as its baseline, if there is one."""
    winner = study.winner
    if winner is None:
        return None
    tested = "test_" + study.metric.removeprefix("val_")
    metric = tested if runs_of(study, winner.config_hash, tested) else study.metric
    mine, crossed = runs_of(study, winner.config_hash, metric), Crossed(study)
    level, ends = crossed.level(metric, mine, test_over_train(study, winner.config_hash, metric))
    values = np.array([value for _, value in mine.values()])
    words = _chosen(study, winner, float(values.mean())) if metric == tested else "Not tested yet: a validation score flatters"
    over, against, gained, comparisons = _gain(study, winner, metric, mine, crossed)
    broke = _broke(study, {winner.name: winner.config_hash} | ({over: against} if over else {}))
    matrix = study.confusion(winner.keys[:1], "test") if metric == tested else None
    images = "" if matrix is None or level.unit == "images" else f"{',' if level.cases > 1 else ';'} {matrix.sum():,.0f} images"
    return Headline(
        metric, *mean_std(values), len(mine), ends, rests_on(level) + images, over, gained.value if gained else math.nan,
        clip_gain(metric, gained.interval(comparisons)) if gained and not broke else NONE, f"{'simultaneous ' if comparisons > 1 else ''}95 % interval",
        gained.seeds if gained else 0, broke, words,
    )  # fmt: skip


def _broke(study: Study, arms: Mapping[str, str]) -> str:
    """Of configurations, by name, how many runs diverged or collapsed, as the claims of a table say it; '' where none did."""
    words = []
    for name, config_hash in arms.items():
        runs = study.usable[(study.usable["config_hash"] == config_hash) & study.usable["seed"].isin(study.seeds)]
        if rate := failure_rate({status: int((runs["status"] == status).sum()) for status in (*BROKEN, "completed")}):
            words.append(f"{name}: {rate}")
    return "; ".join(words)


def _gain(
    study: Study, winner: Best, metric: str, mine: Mapping[int, tuple[str, float]], crossed: Crossed
) -> tuple[str, str, Estimate | None, int]:
    """What the winner is compared with, its configuration, the difference, and with how many others its interval holds together. First what
    some table compares it with, by that table's cell; else the difference is worked out here, and holds together with those of the winner's table:
    the winner is the best of the same arms."""
    arms = [(summary, arm) for summary in study.summaries for arm in summary.table.arms if arm.config_hash != winner.config_hash]
    named = [(s, a) for s, a in arms if not a.overrides and s.table.number != "search"] + [(s, a) for s, a in arms if a.name == s.baseline]
    known = [
        (arm, row.cells[metric])
        for _, arm in named
        for summary, other in arms
        if other.config_hash == arm.config_hash and other.name == summary.baseline
        for row in summary.rows
        if row.arm.config_hash == winner.config_hash and metric in row.cells and row.cells[metric].pairs
    ]
    if known:
        arm, cell = known[0]
        return arm.name, arm.config_hash, cell.difference_to, max(1, cell.comparisons)
    for _, arm in named:
        theirs = runs_of(study, arm.config_hash, metric)
        if mine.keys() & theirs.keys():
            ratio = max(test_over_train(study, one, metric) for one in (winner.config_hash, arm.config_hash))
            return (
                arm.name,
                arm.config_hash,
                crossed.mean(metric, mine, theirs, ratio),
                _comparisons(study, winner, metric, arm.config_hash),
            )
    return "", "", None, 1


def _comparisons(study: Study, winner: Best, metric: str, other: str) -> int:
    """With how many a difference of the winner to a configuration holds together that it is no table's cell for: those of its table, of which it is
    one where the winner is the baseline arm and the other a row, else one more."""
    count = 0
    for summary in study.summaries:
        hashes = {row.arm.name: row.arm.config_hash for row in summary.rows}
        if winner.config_hash in hashes.values():
            own = hashes.get(summary.baseline or "") == winner.config_hash and other in hashes.values()
            count = max([count, *(r.cells[metric].comparisons + (not own) for r in summary.rows if metric in r.cells)])
    return max(1, count)


def _chosen(study: Study, winner: Best, test: float) -> str:
    """The validation score in words, and by how much it is above the test score: chosen as the best of several it flatters. test: per cent."""
    words = f"{title(study.metric)} {number(100 * winner.mean)} %"
    if winner.among < 2:
        return words
    above = 100 * winner.mean - test
    return f"{words}, by which it was chosen: the best of {winner.among}" + (
        f", {number(above)} points above the test score" if above > 0 else ", and not above the test score"
    )


def above(study: Study, found: Headline) -> str:
    """What stands above the winner by the same metric and was not up for choice, as a yardstick that is no model, in words; '' where nothing does."""
    known = {
        row.arm.name: f"{row.arm.name} ({number(cell.mean)} %)"
        for summary in study.summaries
        for row in summary.rows
        if row.arm.yardstick and (cell := row.cells.get(found.metric)) and cell.mean > found.mean
    }
    return f"Not up for choice, and above it: {', '.join(known.values())}." if known else ""


def other_card(study: Study, found: Headline | None) -> str:
    """That the model card in best/ has another score or interval than the page, in words; '' where it has not. Both come of one function, so one of
    them is of another time."""
    winner, path = study.winner, study.folder / "best" / "metrics.json"
    if found is None or winner is None or not path.is_file():
        return ""
    try:
        told = mapping(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return (
            "best/metrics.json cannot be read: the model card beside it may be of another time; `karyotune export STUDY` writes both anew."
        )
    level = mapping(mapping(told.get("over_seeds")).get(found.metric))
    mean, *ends = (100 * finite(level.get(name)) for name in ("mean", "low", "high"))
    if math.isnan(mean) or (abs(mean - found.mean) < SAME and np.allclose(ends, found.interval, atol=SAME, equal_nan=True)):
        return ""
    theirs = f"{number(mean)} %" + (f" ({interval(Interval(ends[0], ends[1]))})" if not math.isnan(ends[0]) else "")
    return (
        f"The model card in best/ has {theirs} of {title(found.metric)} where this page has {number(found.mean)} % "
        f"({interval(found.interval) or 'no interval'}): it was written before runs were added, or by another version of the program. "
        "`karyotune export STUDY` writes it anew."
    )


def changed(study: Study) -> tuple[tuple[str, str, str], ...]:
    """The winner's parameters that differ from the study's baseline: (name, value, baseline's value); those that its trial was asked for always."""
    winner, baseline = study.winner, study.asked.get("baseline")
    if winner is None or not isinstance(baseline, Mapping):
        return ()
    row = study.records[study.records["key"] == winner.key].iloc[0]
    tried = trial_table(study)
    tried = tried[tried["config_hash"] == winner.config_hash]
    searched = {name.removeprefix("param.") for name in map(str, tried) if tried[name].notna().any()}
    out = []
    for name in sorted(c.removeprefix("param.") for c in study.records.columns if c.startswith("param.")):
        mine, theirs = row[f"param.{name}"], baseline.get(name)
        if show(mine) != show(theirs) or name in searched:
            out.append((name, show(mine), show(theirs)))
    return tuple(out)
