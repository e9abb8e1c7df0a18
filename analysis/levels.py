"""What a configuration is worth, for whoever is told of one model. In: a Study and a run's key, or what a run said of images. Out: `Level`.

Over seeds and patients where a configuration has two seeds or more, over patients alone where it has one. The model card and `evaluate` take
their intervals from here, so that they cannot differ from the report's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.artefacts import Predictions
from analysis.claims import rests_on
from analysis.crossed import Crossed, Estimate, Judged, of_cases, share_interval, share_values, split_metric
from analysis.statistics import NONE, Interval
from analysis.study import Study, runs_of
from analysis.summary import test_over_train


@dataclass(frozen=True)
class Level:
    """A metric, per cent; `interval` has no ends (nan) where one cannot be had."""

    estimate: Estimate
    interval: Interval

    @property
    def words(self) -> str:
        """`95 % interval 40.51 to 53.42; by patient, one training: 16 patients`, or what is known without one."""
        ends = (
            f"95 % interval {self.interval.low:.2f} to {self.interval.high:.2f}"
            if self.interval.low == self.interval.low
            else "no interval"
        )
        return f"{ends}; {rests_on(self.estimate)}"


@dataclass(frozen=True)
class ClassShare:
    """How much of a class is recognised, per cent; nan without an image. cases: patients (or what stands for them) that have the class."""

    name: str
    images: int
    cases: int
    share: float
    interval: Interval


def levels(study: Study, config_hash: str) -> dict[str, Level]:
    """Of each metric of a part that a configuration's completed runs have, by its name in records."""
    crossed, found = Crossed(study), {}
    for metric in map(str, study.usable.columns):
        if runs := runs_of(study, config_hash, metric) if split_metric(metric)[0] else {}:
            found[metric] = Level(*crossed.level(metric, runs, test_over_train(study, config_hash, metric)))
    return found


def by_class(said: Judged | str | None, classes: Sequence[str]) -> tuple[ClassShare, ...]:
    """How much of each class one run recognised; () where it is not known of each image, or clusters were formed."""
    if not isinstance(said, Judged) or not isinstance(said.given, Predictions):
        return ()
    rows = []
    for index, name in enumerate(classes):
        own = said.given.label == index
        images, count = int(own.sum()), len(np.unique(said.case[own]))
        hit = said.given.predicted[own] == index
        found = share_values(hit, said.case[own])
        share = 100 * float(hit.mean()) if images else float("nan")
        interval = share_interval(of_cases(100 * found[1], said.unit), images) if found else NONE
        rows.append(ClassShare(name, images, count, share, interval))
    return tuple(rows)
