"""From runs to the rows of a table. In: a Study and analysis/published.csv. Out: `Summary` per table, numbers in per cent.

Everything that csv, Markdown, LaTeX, figures and report say about an arm is taken from here, so that they cannot differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis import statistics as st
from analysis.claims import by_fit, claims, commands, how_known
from analysis.crossed import LOST, Crossed, Estimate, clip_gain, split_metric
from analysis.mixture import mixture, origins
from analysis.numbers import number
from analysis.published import (
    REPEATS,
    Published,
    find_published,
    foreign_rows,
    of_other_images,
    published_gain,
    published_notes,
    verdict,
    verdict_of_words,
)
from analysis.statistics import NONE, Interval, Tau
from analysis.study import BROKEN, STATUSES, Arm, Study, Table, by_seed, finite, mapping, plural

TITLES = {"f1": "F1", "auc": "AUC", "ami": "AMI", "ari": "ARI", "knn_accuracy": "kNN accuracy"} | {
    "ami_within": "AMI within tiles",
    "ami_given_tile": "AMI given the tile",
    "probe_accuracy": "probe's accuracy (uses labels)",
}
KMEANS_STD = "_kmeans_std"
REPORTED = "reported only"  # of a row of the paper that no arm of the table has


@dataclass(frozen=True)
class Cell:
    """One metric of one arm, per cent. `values` are (seed, value) of every completed run that has the metric."""

    metric: str
    values: tuple[tuple[int, float], ...]
    runs: Mapping[int, tuple[str, float]]  # by seed: key and value
    mean: float
    std: float
    level: Estimate  # of the mean, over seeds and patients where predictions are there, else over seeds; of one run over patients
    interval: Interval
    published: Published | None
    difference_to: Estimate | None = None  # of the mean difference to the baseline arm, over the seeds that both have completed
    comparisons: int = 0  # with the baseline arm in this table and metric; their intervals hold together
    paper_gain: tuple[float, Interval] | None = (
        None  # the paper's difference to its baseline arm; None where it has none, or it is not compared
    )
    verdict: str = ""  # what became of it
    bold: bool = False  # the best mean of the table
    ranks: bool = False  # whether the table's claims rest on this metric
    some_broke: bool = False  # of the arm's seeds or the baseline's: nothing is shown of what went well

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def array(self) -> np.ndarray:
        return np.array([v for _, v in self.values])

    @property
    def pairs(self) -> int:
        """Seeds completed in this arm and in the baseline arm."""
        return self.difference_to.seeds if self.difference_to else 0

    @property
    def gain(self) -> float:
        """Mean difference to the baseline arm over those seeds."""
        return self.difference_to.value if self.difference_to else math.nan

    @property
    def gain_interval(self) -> Interval:
        """Of the gain; those of all arms of the table hold together."""
        return clip_gain(self.metric, self.difference_to.interval(max(1, self.comparisons))) if self.difference_to else NONE

    @property
    def tested(self) -> Estimate | None:
        """The difference where it is tested, which is decided here for every output: one test a claim, so by the metric that ranks the table
        alone; none where seeds of either arm diverged or collapsed, or without a standard error."""
        given = self.difference_to
        return given if given is not None and self.ranks and not self.some_broke and given.error > 0 else None

    @property
    def p(self) -> float:
        """That the true gain is 0, adjusted for all arms of the table; below 0.05 where the interval excludes 0, and only there. nan where
        that is not tested."""
        return self.tested.p(max(1, self.comparisons)) if self.tested else math.nan

    @property
    def wrong(self) -> float:
        """Probability that the true gain has the other sign; nan where it is not tested."""
        return self.tested.wrong if self.tested else math.nan

    @property
    def shown(self) -> str:
        """`better` or `worse` than the baseline arm where that is shown, else ''."""
        return ("better" if self.gain > 0 else "worse") if self.p < 1 - st.LEVEL else ""

    @property
    def difference(self) -> float:
        """Ours minus published, percentage points; nan where one is missing or they are not compared."""
        return self.mean - self.published.mean if self.published and self.published.compared else math.nan


@dataclass(frozen=True)
class Row:
    """An arm: its cells by metric, its runs by status, and in words why it has fewer than it should."""

    arm: Arm
    cells: Mapping[str, Cell]
    counts: Mapping[str, int]  # by status, all of them
    waiting: int  # seeds without any run yet
    reasons: tuple[str, ...]
    keys: tuple[str, ...]
    is_baseline: bool
    ratio: float = 0.0  # n_test / n_train of its own split where every seed draws it anew, for Nadeau and Bengio's variance; else 0
    split: str = ""  # in words, of its own runs
    images: int = 0  # that its runs were judged on by the metric that ranks the table; 0 where that is not known

    @property
    def broken(self) -> tuple[int, int]:
        """Runs that diverged or collapsed, of how many that came to an end: a configuration of which some do is first a failure rate."""
        count = sum(self.counts[status] for status in BROKEN)
        return count, count + self.counts["completed"]

    @property
    def broke(self) -> str:
        """What became of those, in words."""
        return " or ".join(status for status in BROKEN if self.counts[status])

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
    claims: tuple[str, ...] = ()  # for each arm what may be said of it against the baseline arm
    commands: tuple[tuple[str, str], ...] = ()  # that would decide what is undecided, with what they cost

    @property
    def judged(self) -> bool:
        """Whether anything is said of what became of the paper's differences."""
        return any(row.cells[self.table.metric].verdict for row in self.rows)

    @property
    def against_paper(self) -> bool:
        """Whether any of its rows is held against the paper's."""
        return any(cell.published and cell.published.compared for row in self.rows for cell in row.cells.values())


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
    return word if word.startswith("kNN") else word[:1].upper() + word[1:]


def phrase(metric: str) -> str:
    """A metric within a sentence: `test_accuracy` -> `test accuracy`, `val_f1` -> `validation F1`."""
    words = f"test {title(metric)}" if metric.startswith("test_") else title(metric)
    return " ".join(word if (len(word) > 1 and word.upper() == word) or word == "kNN" else word.lower() for word in words.split())


def of_external(metric: str) -> tuple[str, str] | None:
    """(slug, metric without its part) of a metric of an external set; None for another."""
    part, name = split_metric(metric)
    slug = part.removeprefix("external_")
    return (slug, name) if slug and slug != part else None


def summarize(study: Study) -> tuple[Summary, ...]:
    """The tables of a study, in its order."""
    crossed = Crossed(study)
    return tuple(_summary(study, table, crossed) for table in study.tables)


def _summary(study: Study, table: Table, crossed: Crossed) -> Summary:
    rows = [_row(study, table, arm, crossed) for arm in table.arms]
    baseline = next((r for r in rows if r.arm.name == table.baseline_arm), None)
    if baseline is not None:
        rows = [_against(row, baseline, crossed, REPEATS.get(study.procedure)) for row in rows]
    for metric in table.metrics:
        rows = _with_comparisons(rows, metric, metric == table.metric)
        rows = _with_bold(rows, metric)
    if baseline is not None:
        rows = [_with_verdict(row, table.metric) for row in rows]
    both = [r for r in rows if (c := r.cells[table.metric]).n and c.published and c.published.compared and not c.published.word]
    cells = [r.cells[table.metric] for r in both]
    tau = st.kendall([c.published.mean for c in cells if c.published], [c.array for c in cells])
    return Summary(
        table,
        (*rows, *(() if study.drawn else _reported(study, table, crossed, baseline))),
        baseline.arm.name if baseline else None,
        tau,
        len(both),
        (
            *_notes(table, rows, baseline, tau, len(both), of_other_images(table.dataset, study.drawn, study.classes)),
            *_of_paper(study, table),
            *_of_description(study, rows),
            *_of_length(study, rows, baseline),
            *_of_weights(study, rows),
            *_of_kmeans(study, table, rows),
            *_of_fits(study, table, rows),
            *_of_clusters(study, rows),
            *_of_twins(rows),
            *_of_dealing(study, table, rows),
            *_of_code(study, table),
        ),
        claims(study, table, rows, baseline),
        () if any(max(row.ratio, baseline.ratio if baseline else 0.0) for row in rows) else commands(study, table, rows),
    )


def _reported(study: Study, table: Table, crossed: Crossed, baseline: Row | None) -> list[Row]:
    """Rows of others' methods that the paper compares with and this table has no arm for: their published values, and that they are no more."""
    number, known = table.published_number or table.number, {arm.published for arm in table.arms}
    rows = []
    for (procedure, of, key), name in foreign_rows().items():
        if (procedure, of) == (study.procedure, number) and key not in known and table.dataset:
            row = _row(study, table, Arm(name, "", key), crossed)
            if any(cell.published for cell in row.cells.values()):
                row = _against(row, baseline, crossed, REPEATS.get(study.procedure)) if baseline else row
                rows.append(replace(row, waiting=0, reasons=(REPORTED,)))
    return rows


def test_over_train(study: Study, config_hash: str, metric: str) -> float:
    """n_test / n_train of a configuration's own split where a run of it drew it anew per seed, else 0. For a validation metric n_val / n_train."""
    runs = study.usable[study.usable["config_hash"] == config_hash]
    if "param.split_per_seed" not in runs or not (runs["param.split_per_seed"] == True).any():  # noqa: E712  (a column of objects)
        return 0.0
    shares = _shares(runs)
    if shares:
        return shares[1 if metric.startswith("val_") else 2] / shares[0]
    parts = study.parts  # of the baseline: all that a study knows that records no split
    judged = parts.get("val" if metric.startswith("val_") else "test", 0)
    return judged / parts["train"] if parts.get("train") else 0.0


def _shares(runs: pd.DataFrame) -> tuple[float, float, float] | None:
    """Of training, validation and test part, as the runs were asked for."""
    given = next(iter(runs["param.split"].dropna()), None) if "param.split" in runs else None
    shares = [finite(v) for v in given] if isinstance(given, (list, tuple)) else []
    return (shares[0], shares[1], shares[2]) if len(shares) == 3 and all(v > 0 for v in shares) else None


def _split(runs: pd.DataFrame) -> str:
    """`60/10/30, seed 0`; '' where no run records it."""
    if (shares := _shares(runs)) is None:
        return ""
    words = "/".join(f"{100 * v:g}" for v in shares)
    if "param.split_per_seed" in runs and (runs["param.split_per_seed"] == True).any():  # noqa: E712  (a column of objects)
        return f"{words}, drawn anew for each seed"
    seeds = sorted({str(v) for v in runs["param.split_seed"].dropna()}) if "param.split_seed" in runs else []
    return f"{words}, seed {' and '.join(seeds)}" if seeds else words


def _notes(table: Table, rows: list[Row], baseline: Row | None, tau: Tau, ranked: int, others: str) -> tuple[str, ...]:
    notes = []
    given = any(r.cells[table.metric].published for r in rows)
    if baseline is None and len(rows) > 1:
        notes.append("The table names no baseline arm: nothing is compared with one.")
    notes += how_known(rows, table.metric)
    notes += _of_others(table, rows)
    splits = {row.split for row in rows if row.split and row.keys}
    if len(splits) > 1:
        by = {split: [row.arm.name for row in rows if row.split == split and row.keys] for split in sorted(splits)}
        said = "; ".join(f"{split}: {', '.join(names)}" for split, names in by.items())
        notes.append(f"Rows are of different splits, so of different test images ({said}): a difference between them may be the split's.")
    if sum(r.cells[table.metric].n > 0 for r in rows) > 1:
        whole = " of arms whose every run came to its end" if any(r.broken[0] for r in rows) else ""
        notes.append(f"Bold: the best mean of the column{whole}, no more than that.")
    if not math.isnan(tau.tau):
        word = (
            "holds"
            if tau.tau == 1
            else "is not told from chance"
            if tau.p >= 1 - st.LEVEL
            else "mostly holds"
            if tau.tau > 0
            else "is reversed"
        )
        notes.append(
            f"The published order of {ranked} arms {word} here: Kendall's tau {number(tau.tau, True)}, exact p {tau.p:.3f} that the two orders have nothing in common."
        )
    elif given and others:
        notes.append(f"{others}, stand here as what the paper has, and are not compared with ours.")
    elif given:
        notes.append(
            f"Fewer than {st.FEWEST_RANKED} arms have both a published and a measured number: no rank correlation with the published order."
        )
    if given and table.dataset and not others:
        notes.append(
            f"Published numbers are of {table.dataset}. If these images are others, what differs may be theirs: the program cannot know."
        )
    return tuple(notes)


def _of_others(table: Table, rows: list[Row]) -> list[str]:
    """What the intervals of metrics that do not rank the table hold for, where that is not what those of the ranking one do."""
    known = {row.cells[table.metric].level.lost for row in rows}
    none: dict[str, list[str]] = {}
    alone, notes = [], []
    for metric in table.metrics:
        levels = [(row, row.cells[metric].level) for row in rows if metric != table.metric]
        lost = {row.arm.name: level.lost for row, level in levels if level.lost and level.lost not in known}
        if gone := {arm: why for arm, why in lost.items() if why.startswith(LOST)}:
            rounded = " Older records round probabilities to five decimals, which moves the AUC of a sure network." * metric.endswith(
                "_auc"
            )
            notes.append(f"No interval of {title(metric)} of {'; '.join(gone)}: {next(iter(gone.values()))}.{rounded}")
        for why in dict.fromkeys(why for why in lost.values() if not why.startswith(LOST)):
            none.setdefault(why, []).append(title(metric))
        if any(level.error > 0 and not level.cases and not row.ratio for row, level in levels):
            alone.append(title(metric))
    notes += [f"No interval of {', '.join(names)}: {why}." for why, names in none.items()]
    if alone and any(row.cells[table.metric].level.cases for row in rows):
        notes.append(f"Intervals of {', '.join(alone)} are over seeds alone: they say nothing of other patients.")
    return notes


def _of_paper(study: Study, table: Table) -> tuple[str, ...]:
    """What must be known of the published numbers beside ours."""
    return published_notes().get((study.procedure, table.published_number or table.number), ()) if table.dataset else ()


def _of_code(study: Study, table: Table) -> tuple[str, ...]:
    """That runs of the table were trained by other code, with other versions or on other devices than others of it."""
    runs = [rows[rows["status"] == "completed"] for rows in map(study.of_arm, table.arms)]
    return mixture(one for rows in runs for one in origins(rows))


def _of_description(study: Study, rows: list[Row]) -> tuple[str, ...]:
    """Others' methods that were trained with other numbers than those of their description."""
    notes = []
    for row in rows:
        ours = mapping(study.asked.get("baseline")) | dict(row.arm.overrides)
        if apart := [f"{name} {ours[name]} for {value}" for name, value in row.arm.described.items() if ours.get(name, value) != value]:
            notes.append(
                f"{row.arm.name}: not trained as described, but with {', '.join(apart)}. Its row says little of the method itself."
            )
    return tuple(notes)


def _of_weights(study: Study, rows: list[Row]) -> tuple[str, ...]:
    """That the other rows begin with weights that were given for the study, and those that say so in their name do not."""
    given = mapping(study.asked.get("baseline")).get("weights")
    drawn = [row.arm.name for row in rows if row.arm.overrides.get("weights") == "random"]
    if not drawn or given in (None, "random") or all("weights" in row.arm.overrides for row in rows):
        return ()
    return (
        f"{', '.join(drawn)}: from random weights; rows that name none begin with {given}. What these gain over those can be the weights'.",
    )


def _of_length(study: Study, rows: list[Row], baseline: Row | None) -> tuple[str, ...]:
    """That runs of some rows are of more epochs than those of the baseline, as a pre-training adds to what follows it."""
    epochs: dict[str, int] = {}
    for row in rows:
        runs = study.of_arm(row.arm)
        history = study.history(runs.loc[runs["status"] == "completed", "key"][:1])
        trained = "learning_rate" not in history or history["learning_rate"].any()  # a yardstick has one epoch, in which nothing learns
        epochs[row.arm.name] = len(history) if trained else 0
    if baseline is None or not 0 < epochs[baseline.arm.name] < max(epochs.values()):
        return ()
    told = "; ".join(f"{name} {count}" for name, count in epochs.items() if count)
    more = f"What a row of more gains over {baseline.arm.name} can be a gain of epochs alone, unless a row of as many shows otherwise."
    return (f"Epochs of a run, all stages: {told}. {more}",)


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
                f"{'; '.join(by_arm)}. The ± in the table is over training seeds."
            )
    return tuple(notes)


def _paired(mine: Mapping[int, float], theirs: Mapping[int, float], of: int) -> tuple[float, float, str]:
    """Means of two metrics of an arm over the seeds that have both, and how many those are of its `of` seeds where it has more; nan where none has."""
    if not (both := sorted(mine.keys() & theirs.keys())):
        return math.nan, math.nan, ""
    few = f" over {len(both)} of {plural(of, 'seed')}" if len(both) < of else ""
    return float(np.mean([mine[seed] for seed in both])), float(np.mean([theirs[seed] for seed in both])), few


def _of_fits(study: Study, table: Table, rows: list[Row]) -> tuple[str, ...]:
    """Scores by where clusters were fitted: each arm has one of both in the table, and not all need have the same."""
    said, places = [], set()
    for row in rows:
        if fits := by_fit(study, row, table.metric):
            scored, trained, first = fits
            one, two, few = _paired(scored, trained, len(row.cells[table.metric].values))
            if not math.isnan(one):
                place = "first" if first else "second"
                said.append(f"{row.arm.name}: {one:.2f} and {two:.2f}{few}, the {place} in the table")
                places.add(place)
    if not said:
        return ()
    more = " A difference between one's first and another's second may be the fit's." if len(places) > 1 else ""
    return (f"{title(table.metric)} with clusters fitted on the scored part itself, and on the training part, %: {'; '.join(said)}.{more}",)


def _of_twins(rows: list[Row]) -> tuple[str, ...]:
    """Rows that the study's settings make one configuration, as a probe does two that differ in how long they fine-tune."""
    by_runs: dict[frozenset[str], list[str]] = {}
    for row in rows:
        if row.keys:
            by_runs.setdefault(frozenset(row.keys), []).append(row.arm.name)
    twins = [names for names in by_runs.values() if len(names) > 1]
    return tuple(
        f"{' and '.join(names)}: one configuration under the settings of this study, so the same runs. That they are equal says nothing."
        for names in twins
    )


def _of_clusters(study: Study, rows: list[Row]) -> tuple[str, ...]:
    """Runs one of whose clusters no test cell is in: completed like any other, with fewer clusters than were asked for."""
    empty = []
    for row in rows:
        values, largest = by_seed(study, row.arm, "test_smallest_cluster"), by_seed(study, row.arm, "test_largest_cluster")
        if none := [seed for seed, value in values.items() if value == 0]:
            most = max((largest[seed] for seed in none if seed in largest), default=math.nan)
            held = "" if math.isnan(most) else f" (the largest cluster holds up to {most:.1f} %)"
            empty.append(f"{row.arm.name}: {len(none)} of {len(values)}{held}")
    return (f"Completed runs with a cluster that no test cell is in: {'; '.join(empty)}.",) if empty else ()


def _of_dealing(study: Study, table: Table, rows: list[Row]) -> tuple[str, ...]:
    """Accuracies with types dealt out within a karyotype: a line of their own, for the rows are of one image at a time."""
    notes = []
    for metric in table.metrics:
        by_arm: list[str] = []
        shares: list[float] = []
        for row in rows:
            mine = dict(row.cells[metric].values)
            own, dealt, few = _paired(mine, by_seed(study, row.arm, metric + "_dealt"), len(mine))
            if not math.isnan(own):
                by_arm.append(f"{row.arm.name}: {dealt:.2f} ({number(dealt - own, True)}{few})")
                shares += by_seed(study, row.arm, metric.removesuffix("accuracy") + "share_dealt").values()
        if by_arm:
            left = f" ({100 - np.mean(shares):.1f} % of the images)" if shares else ""
            notes.append(
                f"{title(metric)} with assignment within a karyotype, % (against the row): {'; '.join(by_arm)}. The images of a metaphase (2 "
                "to 46), or all 46 of a person, are given at most two of each type, X and Y as a woman or a man has them; other images are left as they "
                f"are{left}."
            )
    return tuple(notes)


def _row(study: Study, table: Table, arm: Arm, crossed: Crossed) -> Row:
    runs = study.of_arm(arm)
    ratio = test_over_train(study, arm.config_hash, table.metric)
    done = runs[runs["status"] == "completed"]
    cells = {}
    for metric in table.metrics:
        external = of_external(metric)
        dataset, name = (table.external_dataset, external[1]) if external else (table.dataset, metric)
        theirs = (
            find_published(study.procedure, table.published_number or table.number, dataset, arm.published, name)
            if dataset or not external
            else None
        )
        others = of_other_images(dataset, study.drawn, study.classes)
        cells[metric] = _cell(done, metric, replace(theirs, compared=not others) if theirs else None, ratio, crossed)
    counts = Counter(runs["status"])
    waiting = len(set(study.seeds) - set(runs["seed"]))
    baseline = next((a.config_hash for a in table.arms if a.name == table.baseline_arm), None)
    return Row(
        arm,
        cells,
        {s: counts[s] for s in STATUSES},
        waiting,
        _reasons(runs, waiting),
        tuple(runs["key"]),
        arm.config_hash == baseline,  # under whatever name: nothing is compared with itself
        ratio,
        _split(runs),
        _images(study, done, split_metric(table.metric)[0]),
    )


def _images(study: Study, done: pd.DataFrame, part: str) -> int:
    """On how many images of a part the runs were judged, by the confusion matrix of one of them."""
    matrix = study.confusion(done["key"].iloc[:1], part) if part else None
    return 0 if matrix is None else int(matrix.sum())


def _cell(done: pd.DataFrame, metric: str, published: Published | None, ratio: float, crossed: Crossed) -> Cell:
    given = done[done[metric].notna()] if metric in done else done.iloc[:0].assign(**{metric: math.nan})
    values = tuple((int(s), 100 * float(v)) for s, v in zip(given["seed"], given[metric], strict=True))
    runs = {seed: (str(key), value) for (seed, value), key in zip(values, given["key"], strict=True)}
    array = np.array([v for _, v in values])
    mean, std = st.mean_std(array)
    return Cell(metric, values, runs, mean, std, *crossed.level(metric, runs, ratio), published)


def _reasons(runs: pd.DataFrame, waiting: int) -> tuple[str, ...]:
    words = Counter(runs.loc[runs["status"] != "completed", "reason"])
    reasons = [f"{word} ({plural(count, 'run')})" for word, count in sorted(words.items())]
    return (*reasons, f"waiting ({plural(waiting, 'run')})") if waiting else tuple(reasons)


def _against(row: Row, baseline: Row, crossed: Crossed, repeats: int | None) -> Row:
    """The row with its differences to the baseline arm, paired by seed. The baseline itself has none."""
    if row.is_baseline:
        return row
    cells, ratio = {}, max(row.ratio, baseline.ratio)
    for metric, cell in row.cells.items():
        other = baseline.cells[metric]
        paired = cell.runs.keys() & other.runs.keys()
        gained = crossed.mean(metric, cell.runs, other.runs, ratio) if paired else None
        mine, theirs = cell.published, other.published
        known = mine and theirs and mine.compared and not mine.word and not theirs.word
        paper = published_gain(mine, theirs, repeats) if mine and theirs and known else None
        cells[metric] = replace(cell, difference_to=gained, some_broke=row.broken[0] + baseline.broken[0] > 0, paper_gain=paper)
    return replace(row, cells=cells)


def _with_comparisons(rows: list[Row], metric: str, ranks: bool) -> list[Row]:
    """How many differences of the column have an interval: all of them are to hold together. ranks: whether they are tested too."""
    count = sum(r.cells[metric].pairs > 1 for r in rows)
    return [_with(row, metric, comparisons=count, ranks=ranks) for row in rows]


def _with_bold(rows: list[Row], metric: str) -> list[Row]:
    """Marks the best mean, and what is equal to it; none where fewer than two arms have one. An arm of which seeds diverged or collapsed is
    none: what is left of it is the mean of those that went well."""
    means = [round(r.cells[metric].mean, 9) for r in rows if r.cells[metric].n and not r.broken[0]]
    if len(means) < 2:
        return rows
    return [_with(r, metric, bold=r.cells[metric].n > 0 and not r.broken[0] and round(r.cells[metric].mean, 9) == max(means)) for r in rows]


def _with_verdict(row: Row, metric: str) -> Row:
    """The row with what became of the paper's difference, a test like any other: of the metric that ranks the table."""
    cell, word = row.cells[metric], ""
    if not row.is_baseline and cell.published and cell.published.compared and cell.published.word:
        word = verdict_of_words(cell.published, row.counts["completed"], row.counts["diverged"])
    elif cell.paper_gain:
        word = verdict(cell.difference_to, cell.gain_interval, *cell.paper_gain)
    return _with(row, metric, verdict=word)


def _with(row: Row, metric: str, **changes: Any) -> Row:
    return replace(row, cells={**row.cells, metric: replace(row.cells[metric], **changes)})
