"""From runs to the rows of a table. In: a Study and analysis/published.csv. Out: `Summary` per table, numbers in per cent.

Everything that csv, Markdown, LaTeX, figures and report say about an arm is taken from here, so that they cannot differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis import statistics as st
from analysis.mixture import mixture
from analysis.published import REPEATS, Published, find_published, published_gain, verdict, verdict_of_words
from analysis.statistics import NONE, Interval, Tau
from analysis.study import STATUSES, Arm, Study, Table, plural

TITLES = {"f1": "F1", "auc": "AUC", "ami": "AMI", "ari": "ARI", "knn_accuracy": "kNN accuracy"}
# metrics of an external set are named external_<slug>_<metric>, and a slug may hold `_`: the longest known name at the end is the metric
_KNOWN = (
    "knn_accuracy",
    "accuracy",
    "precision",
    "sensitivity",
    "specificity",
    "f1",
    "recall",
    "auc",
    "ami",
    "ari",
    "purity",
    "silhouette",
)
KMEANS_STD = "_kmeans_std"


@dataclass(frozen=True)
class Cell:
    """One metric of one arm, per cent. `values` are (seed, value) of every completed run that has the metric."""

    metric: str
    values: tuple[tuple[int, float], ...]
    mean: float
    std: float
    interval: Interval  # Student's t over seeds
    bootstrap: Interval  # bias-corrected and accelerated, over seeds
    test_set: Interval  # what the size of the test set leaves open (Wilson); none for a metric that is no share of images
    published: Published | None
    pairs: int = 0  # seeds completed in this arm and in the baseline arm
    gain: float = math.nan  # mean difference to the baseline arm over those seeds
    gain_interval: Interval = NONE
    p: float = math.nan  # exact paired permutation test against the baseline arm
    p_holm: float = math.nan  # the same, adjusted for all arms of the table
    above: float = math.nan  # P(a run of this arm > a run of the baseline arm)
    effect: float = math.nan  # Hedges' g against the baseline arm
    verdict: str = ""  # what became of the published difference to the baseline arm
    bold: bool = False  # not significantly worse than the best of the table

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
    """A table with its rows in the order of the study, how far the published order of the ranking metric holds, and notes in words."""

    table: Table
    rows: tuple[Row, ...]
    baseline: str | None
    tau: Tau
    ranked: int  # arms that have both a published and a measured mean
    notes: tuple[str, ...]
    ratio: float = 0.0  # n_test / n_train where every seed draws its own split, for Nadeau and Bengio's variance; else 0


def title(metric: str) -> str:
    """`test_f1` -> `F1`, `val_accuracy` -> `Validation accuracy`, `external_qband_f1` -> `External qband: F1`."""
    if external := of_external(metric):
        slug, name = external
        word = TITLES.get(name, name.replace("_", " "))
        return f"External {slug.replace('_', ' ')}: {word}"
    part, _, name = metric.partition("_")
    if part not in ("val", "test") or not name:
        part, name = "", metric
    word = TITLES.get(name, name.replace("_", " "))
    word = f"Validation {word}" if part == "val" else word
    return word[:1].upper() + word[1:]


def of_external(metric: str) -> tuple[str, str] | None:
    """(slug, metric without its part) of a metric of an external set; None for another."""
    if not metric.startswith("external_"):
        return None
    rest = metric.removeprefix("external_")
    name = next((k for k in _KNOWN if rest.endswith(f"_{k}")), rest.rpartition("_")[2])
    slug = rest.removesuffix(f"_{name}")
    return (slug, name) if slug and slug != rest else None


def summarize(study: Study) -> tuple[Summary, ...]:
    """The tables of a study, in its order."""
    return tuple(_summary(study, table) for table in study.tables)


def _summary(study: Study, table: Table) -> Summary:
    ratio = test_over_train(study, [a.config_hash for a in table.arms], table.metric)
    rows = [_row(study, table, arm, ratio) for arm in table.arms]
    baseline = next((r for r in rows if r.is_baseline), None)
    if baseline is not None:
        rows = [_against(row, baseline, ratio, REPEATS.get(study.procedure)) for row in rows]
    for metric in table.metrics:
        rows = _with_holm(rows, metric)
        rows = _with_bold(rows, metric, ratio)
    both = [r for r in rows if (c := r.cells[table.metric]).n and c.published and not c.published.word]
    cells = [r.cells[table.metric] for r in both]
    tau = st.kendall([c.published.mean for c in cells if c.published], [c.array for c in cells])
    return Summary(
        table,
        tuple(rows),
        baseline.arm.name if baseline else None,
        tau,
        len(both),
        (*_notes(table, rows, baseline, tau, len(both), ratio), *_of_kmeans(study, table, rows), *_of_code(study, table)),
        ratio,
    )


def test_over_train(study: Study, hashes: Sequence[str], metric: str) -> float:
    """n_test / n_train where a run of these configurations drew its split anew per seed, else 0. For a validation metric n_val / n_train."""
    redrawn = study.usable.get("param.split_per_seed")
    parts = study.parts
    if redrawn is None or not parts.get("train"):
        return 0.0
    mine = study.usable["config_hash"].isin(hashes)
    judged = parts.get("val" if metric.startswith("val_") else "test", 0)
    return judged / parts["train"] if (redrawn[mine] == True).any() else 0.0  # noqa: E712  (a column of objects)


def _notes(table: Table, rows: list[Row], baseline: Row | None, tau: Tau, ranked: int, ratio: float) -> tuple[str, ...]:
    notes = []
    if baseline is None and len(rows) > 1:
        notes.append("The table names no baseline arm: nothing is compared with one.")
    pairs = [r.cells[table.metric].pairs for r in rows if r.cells[table.metric].pairs]
    if pairs:
        least, count = st.smallest_p(max(pairs)), len(pairs)
        if least * count >= 0.05:
            need = next(n for n in range(1, 99) if st.smallest_p(n) * count < 0.05)
            notes.append(
                f"{plural(max(pairs), 'seed')} {'is' if max(pairs) == 1 else 'are'} too few for any p below 0.05: the exact paired test of one arm cannot give less than {least:.3g}, and "
                f"{'Holm makes it ' + format(min(1.0, least * count), '.3g') + ' for ' + plural(count, 'comparison') if count > 1 else 'there is one comparison'}. "
                f"{need} seeds would allow it. Read the intervals instead."
            )
    notes += _of_bold(rows, table.metric, ratio)
    if ratio:
        notes.append(
            f"Every seed draws its own split, so training parts overlap: intervals and Student's tests use Nadeau and Bengio's variance "
            f"(1/n + {ratio:.3g}). The exact permutation test knows no such correction and is too bold here."
        )
    if not math.isnan(tau.tau):
        ends = "" if math.isnan(tau.low) else f" (95 % interval {tau.low:+.2f} to {tau.high:+.2f})"
        sure = not math.isnan(tau.low)
        word = "holds" if tau.tau == 1 else "mostly holds" if tau.tau > 0.5 else "holds in part" if tau.tau > 0 else "does not hold"
        doubt = "" if not sure or tau.low > 0 else ", and with these seeds it could be chance"
        notes.append(f"The published order of {ranked} arms {word} here{doubt}: Kendall's tau {tau.tau:+.2f}{ends}.")
    elif any(r.cells[table.metric].published for r in rows):
        notes.append("Fewer than three arms have both a published and a measured number: no rank correlation with the published order.")
    return tuple(notes)


def _of_code(study: Study, table: Table) -> tuple[str, ...]:
    """That runs of the table were trained by other code or versions than others of it."""
    runs = [rows[rows["status"] == "completed"] for rows in map(study.of_arm, table.arms)]
    return mixture(pair for rows in runs for pair in zip(rows["codes"], rows["versions"], strict=True))


def _of_kmeans(study: Study, table: Table, rows: list[Row]) -> tuple[str, ...]:
    """The spread over K-means seeds of one trained encoder, which is no spread over training seeds."""
    notes = []
    for metric in table.metrics:
        name = metric + KMEANS_STD
        if name not in study.usable:
            continue
        by_arm = []
        for row in rows:
            runs = study.of_arm(row.arm)
            values = runs.loc[runs["status"] == "completed", name].dropna() * 100
            if len(values):
                by_arm.append(f"{row.arm.name} {values.mean():.2f}")
        if by_arm:
            notes.append(
                f"{title(metric)}: standard deviation over K-means seeds of one trained encoder, mean over runs, points: "
                f"{', '.join(by_arm)}. The ± in the table is over training seeds."
            )
    return tuple(notes)


def _row(study: Study, table: Table, arm: Arm, ratio: float) -> Row:
    runs = study.of_arm(arm)
    done = runs[runs["status"] == "completed"]
    images = study.parts.get("test", 0) if not ratio else 0
    outside = study.external_images
    cells = {}
    for metric in table.metrics:
        external = of_external(metric)
        dataset, name = (table.external_dataset, external[1]) if external else (table.dataset, metric)
        theirs = (
            find_published(study.procedure, table.published_number or table.number, dataset, arm.published, name)
            if dataset or not external
            else None
        )
        cells[metric] = _cell(done, metric, theirs, ratio, outside.get(external[0], 0) if external else images)
    counts = Counter(runs["status"])
    waiting = len(set(study.seeds) - set(runs["seed"]))
    return Row(
        arm, cells, {s: counts[s] for s in STATUSES}, waiting, _reasons(runs, waiting), tuple(runs["key"]), arm.name == table.baseline_arm
    )


def _cell(done: pd.DataFrame, metric: str, published: Published | None, ratio: float, images: int) -> Cell:
    given = done[done[metric].notna()] if metric in done else done.iloc[:0].assign(**{metric: math.nan})
    values = tuple((int(s), 100 * float(v)) for s, v in zip(given["seed"], given[metric], strict=True))
    array = np.array([v for _, v in values])
    mean, std = st.mean_std(array)
    # Only accuracy is a share of all images; the macro metrics are means over classes, for which no such simple interval holds.
    test_set = st.wilson_interval(mean / 100, images) if is_share(metric) and array.size else NONE
    wilson = Interval(100 * test_set.low, 100 * test_set.high)
    return Cell(metric, values, mean, std, clip(metric, st.t_interval(array, ratio)), st.bootstrap_interval(array), wilson, published)


def is_share(metric: str) -> bool:
    """Whether a test metric is a share of all images of its part."""
    external = of_external(metric)
    return metric == "test_accuracy" or (external is not None and external[1] == "accuracy")


def clip(metric: str, given: Interval) -> Interval:
    """A share lies between 0 and 100 %, so does its mean; indices adjusted for chance may fall below 0."""
    low = -100.0 if metric.endswith(("_ami", "_ari")) else 0.0
    return Interval(max(low, given.low), min(100.0, given.high)) if not math.isnan(given.low) else given


def _reasons(runs: pd.DataFrame, waiting: int) -> tuple[str, ...]:
    words = Counter(runs.loc[runs["status"] != "completed", "reason"])
    reasons = [f"{word} ({plural(count, 'run')})" for word, count in sorted(words.items())]
    return (*reasons, f"waiting ({plural(waiting, 'run')})") if waiting else tuple(reasons)


def _against(row: Row, baseline: Row, ratio: float, repeats: int | None) -> Row:
    """The row with its differences to the baseline arm, paired by seed. The baseline itself has none."""
    if row.arm.name == baseline.arm.name:
        return row
    cells = {}
    for metric, cell in row.cells.items():
        other = baseline.cells[metric]
        differences = _differences(cell, other)
        gain, _ = st.mean_std(differences)
        ends = st.t_interval(differences, ratio)
        word = ""
        if cell.published and cell.published.word:
            word = verdict_of_words(cell.published, row.counts["completed"], row.counts["diverged"])
        elif cell.published and other.published:
            word = verdict(gain, ends, *published_gain(cell.published, other.published, repeats))
        cells[metric] = replace(
            cell,
            pairs=differences.size,
            gain=gain,
            gain_interval=ends,
            p=st.permutation_p(differences),
            above=st.probability_above(cell.array, other.array),
            effect=st.hedges_g(cell.array, other.array),
            verdict=word,
        )
    return replace(row, cells=cells)


def _differences(cell: Cell, other: Cell) -> np.ndarray:
    theirs = dict(other.values)
    return np.array([v - theirs[s] for s, v in cell.values if s in theirs])


def _with_holm(rows: list[Row], metric: str) -> list[Row]:
    adjusted = st.holm([r.cells[metric].p for r in rows])
    return [_with(row, metric, p_holm=float(p)) for row, p in zip(rows, adjusted, strict=True)]


def _with_bold(rows: list[Row], metric: str, ratio: float) -> list[Row]:
    """Marks the best mean and every arm that is not significantly worse than it; where no arm can be tested against it, none."""
    top, pairs = _pairs_with_top(rows, metric)
    exact = _exact_for_bold(pairs, ratio)
    testable = _testable(pairs, exact)
    if top is None or not any(testable):
        return rows
    p = [(st.permutation_p(d) if exact else st.t_p(d, ratio)) if able else math.nan for d, able in zip(pairs, testable, strict=True)]
    worse = [q < 0.05 for q in st.holm(p)]  # nan is not below
    return [_with(r, metric, bold=bool(r.cells[metric].n and not w)) for r, w in zip(rows, worse, strict=True)]


def _of_bold(rows: list[Row], metric: str, ratio: float) -> list[str]:
    """What bold means in this table, and which arms could not be tested."""
    top, pairs = _pairs_with_top(rows, metric)
    if top is None:
        return []
    exact = _exact_for_bold(pairs, ratio)
    testable = _testable(pairs, exact)
    if not any(testable):
        return ["Nothing is bold: no arm has two seeds in common with the best, so none is testable against it."]
    rule = (
        "exact paired permutation test"
        if exact
        else "corrected Student's paired test (Nadeau and Bengio; it takes differences to be normal)"
        if ratio
        else "Student's paired test (too few seeds for the exact one; it takes differences to be normal)"
    )
    words = [f"Bold: not significantly worse than the best of the table by the {rule}, Holm over the table at 0.05."]
    left = [r.arm.name for r, able in zip(rows, testable, strict=True) if r is not top and r.cells[metric].n and not able]
    if left:
        words.append(f"Bold, but not testable (too few seeds in common with the best): {', '.join(left)}.")
    return words


def _pairs_with_top(rows: list[Row], metric: str) -> tuple[Row | None, list[np.ndarray]]:
    """The arm with the best mean (None where fewer than two have one), and each row's differences to it; none for itself."""
    able = [r for r in rows if r.cells[metric].n]
    top = max(able, key=lambda r: r.cells[metric].mean) if len(able) > 1 else None
    none = np.array([])
    return top, [none if top is None or r is top else _differences(r.cells[metric], top.cells[metric]) for r in rows]


def _exact_for_bold(pairs: list[np.ndarray], ratio: float) -> bool:
    """Whether arms have the seeds for the exact test to call one worse, after Holm over those; never where splits are redrawn, for it knows no
    correction."""
    sizes = [d.size for d, able in zip(pairs, _testable(pairs, True), strict=True) if able]
    return bool(sizes) and not ratio and st.smallest_p(max(sizes)) * len(sizes) < 0.05


def _testable(pairs: list[np.ndarray], exact: bool) -> list[bool]:
    """Which arms the test could call worse at all."""
    return [d.size > 0 and st.smallest_p(d.size) < 0.05 if exact else d.size > 1 for d in pairs]


def _with(row: Row, metric: str, **changes: Any) -> Row:
    return replace(row, cells={**row.cells, metric: replace(row.cells[metric], **changes)})
