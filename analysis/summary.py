"""From runs to the rows of a table. In: a Study and analysis/published.csv. Out: `Summary` per table, numbers in per cent.

Everything that csv, Markdown, LaTeX, figures and report say about an arm is taken from here, so that they cannot differ."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import statistics as st
from analysis.statistics import NONE, Interval
from analysis.study import STATUSES, Arm, Study, Table, plural

TITLES = {"f1": "F1", "auc": "AUC", "ami": "AMI", "ari": "ARI", "knn_accuracy": "kNN accuracy"}


@dataclass(frozen=True)
class Published:
    """A cell of the paper, per cent; `word` where it gives a word instead of a number."""

    mean: float
    std: float
    word: str


@dataclass(frozen=True)
class Cell:
    """One metric of one arm, per cent. `values` are (seed, value) of every completed run that has the metric."""

    metric: str
    values: tuple[tuple[int, float], ...]
    mean: float
    std: float
    interval: Interval  # Student's t over seeds
    published: Published | None
    pairs: int = 0  # seeds completed in this arm and in the baseline arm
    gain: float = math.nan  # mean difference to the baseline arm over those seeds
    gain_interval: Interval = NONE

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def array(self) -> np.ndarray:
        return np.array([v for _, v in self.values])

    @property
    def difference(self) -> float:
        """Ours minus published, percentage points; nan where one is missing."""
        return self.mean - self.published.mean if self.published else math.nan


@dataclass(frozen=True)
class Row:
    """An arm: its cells by metric, its runs by status, and in words why it has fewer than it should."""

    arm: Arm
    cells: Mapping[str, Cell]
    counts: Mapping[str, int]  # by status, all four
    waiting: int  # seeds without any run yet
    reasons: tuple[str, ...]
    keys: tuple[str, ...]
    is_baseline: bool

    @property
    def state(self) -> str:
        """What stands in place of a number: `weights unreachable`, `diverged`, `not run yet`; '' if there is a number."""
        if any(c.n for c in self.cells.values()):
            return ""
        words = [r for r in self.reasons if not r.startswith("waiting")]
        return "; ".join(words) if words else ("no value recorded" if self.counts["completed"] else "not run yet")


@dataclass(frozen=True)
class Summary:
    """A table with its rows in the order of the study, and notes in words."""

    table: Table
    rows: tuple[Row, ...]
    baseline: str | None
    notes: tuple[str, ...]


def title(metric: str) -> str:
    """`test_f1` -> `F1`, `val_accuracy` -> `Validation accuracy`."""
    part, _, name = metric.partition("_")
    if part not in ("val", "test") or not name:
        part, name = "", metric
    word = TITLES.get(name, name.replace("_", " "))
    word = f"Validation {word}" if part == "val" else word
    return word[:1].upper() + word[1:]


@cache
def published_values() -> Mapping[tuple[str, str, str, str, str], Published]:
    """published.csv by (procedure, table, arm, dataset, metric without its part)."""
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
        return {(r["paper"], r["table"], r["arm"], r["dataset"], r["metric"]): _published(r) for r in csv.DictReader(file)}


def _published(row: Mapping[str, str]) -> Published:
    try:
        return Published(float(row["mean"]), float(row["std"]) if row["std"] else math.nan, "")
    except ValueError:
        return Published(math.nan, math.nan, row["mean"])


def find_published(procedure: str, table: Table, arm: Arm, metric: str) -> Published | None:
    """The paper's value of a cell. Without a data set named by the table the paper must have used one only."""
    if arm.published is None:
        return None
    wanted = (procedure, table.number, arm.published, metric.removeprefix("test_").removeprefix("val_"))
    found = [v for (p, t, a, d, m), v in published_values().items() if (p, t, a, m) == wanted and table.dataset in (None, d)]
    return found[0] if len(found) == 1 else None


def summarize(study: Study) -> tuple[Summary, ...]:
    """The tables of a study, in its order."""
    return tuple(_summary(study, table) for table in study.tables)


def _summary(study: Study, table: Table) -> Summary:
    rows = [_row(study, table, arm) for arm in table.arms]
    baseline = next((r for r in rows if r.is_baseline), None)
    if baseline is not None:
        rows = [_against(row, baseline) for row in rows]
    notes = []
    if baseline is None and table.baseline_arm is None and len(rows) > 1:
        notes.append("The table names no baseline arm: nothing is compared with one.")
    return Summary(table, tuple(rows), baseline.arm.name if baseline else None, tuple(notes))


def _row(study: Study, table: Table, arm: Arm) -> Row:
    runs = study.of_arm(arm)
    done = runs[runs["status"] == "completed"]
    cells = {m: _cell(done, m, find_published(study.procedure, table, arm, m)) for m in table.metrics}
    counts = Counter(runs["status"])
    waiting = len(set(study.seeds) - set(runs["seed"]))
    return Row(
        arm, cells, {s: counts[s] for s in STATUSES}, waiting, _reasons(runs, waiting), tuple(runs["key"]), arm.name == table.baseline_arm
    )


def _cell(done: pd.DataFrame, metric: str, published: Published | None) -> Cell:
    given = done[done[metric].notna()] if metric in done else done.iloc[:0].assign(**{metric: math.nan})
    values = tuple((int(s), 100 * float(v)) for s, v in zip(given["seed"], given[metric], strict=True))
    array = np.array([v for _, v in values])
    return Cell(metric, values, *st.mean_std(array), clip(metric, st.t_interval(array)), published)


def clip(metric: str, given: Interval) -> Interval:
    """A share lies between 0 and 100 %, so does its mean; indices adjusted for chance may fall below 0."""
    low = -100.0 if metric.endswith(("_ami", "_ari")) else 0.0
    return Interval(max(low, given.low), min(100.0, given.high)) if not math.isnan(given.low) else given


def _reasons(runs: pd.DataFrame, waiting: int) -> tuple[str, ...]:
    words = Counter(runs.loc[runs["status"] != "completed", "reason"])
    reasons = [f"{word} ({plural(count, 'run')})" for word, count in sorted(words.items())]
    return (*reasons, f"waiting ({plural(waiting, 'run')})") if waiting else tuple(reasons)


def _against(row: Row, baseline: Row) -> Row:
    """The row with its differences to the baseline arm, paired by seed. The baseline itself has none."""
    if row.arm.name == baseline.arm.name:
        return row
    cells = {}
    for metric, cell in row.cells.items():
        theirs = dict(baseline.cells[metric].values)
        differences = np.array([v - theirs[s] for s, v in cell.values if s in theirs])
        gain, _ = st.mean_std(differences)
        cells[metric] = replace(cell, pairs=differences.size, gain=gain, gain_interval=st.t_interval(differences))
    return replace(row, cells=cells)
