"""Whether pre-trainings learned what they should. In: a Study and its summaries. Out: a row for each arm that has a contrast, and one plain
word where its numbers say that it solved something else.

A loss that falls is no sign: keys that are told by their age, or embeddings that are all alike, lower it too."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from analysis.study import Study
from analysis.summary import Summary

COSINES = ("pretext_own", "pretext_step", "pretext_queue")
SHARES = ("pretext_step_top1", "pretext_queue_top1", "val_knn_accuracy", "val_probe_accuracy")
NEARER = 0.05  # cosine: an own key that is nearer by less than this is told from no other
OF_THE_WAY = 0.5  # from a key of the queue to the own one: where another key of the same step is nearer than that, age is what tells keys
SELDOM = 0.1  # of the queries find their own key among the step's
LEAST = 0.1  # cosine: smaller differences between the step's keys and the queue's are no sign of anything


@dataclass(frozen=True)
class Pretext:
    """A stage of an arm at its last epoch, means over seeds: cosines, shares in per cent, the effective rank; nan where not recorded."""

    arm: str
    stage: str
    seeds: int
    cosines: tuple[float, ...]
    shares: tuple[float, ...]
    rank: float
    word: str

    @property
    def numbers(self) -> tuple[float, ...]:
        """As the report has them."""
        return (*self.shares[:2], *self.cosines, self.rank, *self.shares[2:])


def word(own: float, step: float, queue: float, rank: float, found: float = math.nan) -> str:
    """'' where nothing is wrong. own, step, queue: mean cosine of a query with its own key, with others of its step, with the queue's (nan:
    there is none); rank: effective, of the queries; found: share of the queries nearer to their own key than to the step's others.

    Embeddings of a low effective rank share most of what they are, and what is left may tell classes still; a run has the status `collapsed`
    where nothing is left (`trainables/parts/collapse.py`)."""
    if rank < 2:
        return "embeddings are nearly alike"
    if step - queue > max(LEAST, OF_THE_WAY * (own - queue)):
        return "keys are told by their age"
    if own - max(step, -1.0 if math.isnan(queue) else queue) < NEARER:
        return "own keys are no nearer than others"
    return "own keys are seldom found" if found < SELDOM else ""


def pretexts(study: Study, summaries: tuple[Summary, ...]) -> tuple[Pretext, ...]:
    """Each configuration of the tables once, under its first name."""
    found, seen = [], set()
    for row in (row for summary in summaries for row in summary.rows):
        if row.arm.config_hash in seen:
            continue
        seen.add(row.arm.config_hash)
        curves = study.history(row.keys)
        if "pretext_own" not in curves:
            continue
        curves = curves.reindex(columns=[*dict.fromkeys([*curves.columns, *COSINES, *SHARES, "pretext_rank"])])
        for stage, part in curves[curves["pretext_own"].notna()].groupby("stage", sort=False):
            found.append(_row(row.arm.name, str(stage), part.sort_values("epoch", kind="stable")))
    return tuple(found)


def _said(epochs: pd.DataFrame) -> str:
    """The word of the last epoch, means over seeds; else the last that there was, and until when: an age tells nothing any more once the rate,
    and with it the encoder's way, has come to its end."""
    by_epoch = epochs.groupby("epoch")[[*COSINES, "pretext_rank", SHARES[0]]].mean()
    by_epoch.iloc[:-1, -1] = math.nan  # who has not trained to the end may find few keys yet
    words = [(int(epoch), word(*row)) for epoch, row in zip(by_epoch.index, by_epoch.to_numpy().tolist(), strict=True)]
    last = next(((epoch, said) for epoch, said in reversed(words) if said), None)
    if last is None:
        return ""
    return last[1] if last[0] == words[-1][0] else f"{last[1]} until epoch {last[0]}"


def _row(arm: str, stage: str, epochs: pd.DataFrame) -> Pretext:
    last = epochs.groupby("key", sort=False).tail(1)
    own, step, queue = (float(last[name].mean()) for name in COSINES)
    rank = float(last["pretext_rank"].mean())
    shares = tuple(100 * float(last[name].mean()) for name in SHARES)
    return Pretext(arm, stage, len(last), (own, step, queue), shares, rank, _said(epochs))
