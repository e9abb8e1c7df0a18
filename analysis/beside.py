"""Two arms side by side, and the winner's runs image by image. In: a Study, its summaries, its winner. Out: calibration,
recall by class, confused pairs. What is absent is empty; what is damaged is named in `words`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis import artefacts
from analysis.choice import Best
from analysis.crossed import Crossed, Estimate, Judged, clip_gain, of_seeds, share_values, two_way
from analysis.statistics import NONE, Interval, Reliability, reliability
from analysis.study import Study, mapping, plural
from analysis.summary import Row, Summary

_PAIRS = 8


@dataclass(frozen=True)
class Side:
    """An arm or the winner, with the key of its completed run of each seed."""

    name: str
    config_hash: str
    runs: Mapping[int, str]


@dataclass(frozen=True)
class Pairing:
    """`other` is the winner, or the first other arm of the table where the winner is the reference itself; None where there is none."""

    reference: Side | None
    other: Side | None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Completed on both sides."""
        return tuple(sorted(self.reference.runs.keys() & self.other.runs.keys())) if self.reference and self.other else ()


@dataclass(frozen=True)
class Calibration:
    """Over all test predictions of the winner's runs, and the expected calibration error of each run, per cent."""

    pooled: Reliability
    runs: tuple[Reliability, ...]
    errors: tuple[float, ...]
    images: int


@dataclass(frozen=True)
class ClassRow:
    """Share of a class that was recognised, per cent, by the reference and by the other arm; nan where one is not known. interval: of the change,
    over seeds and patients where predictions are there, else over seeds; those of all classes hold together."""

    name: str
    images: int
    reference: float
    other: float
    interval: Interval = NONE

    @property
    def change(self) -> float:
        return self.other - self.reference


@dataclass(frozen=True)
class Beside:
    """All that is said of the winner and its pairing beyond the tables."""

    pairing: Pairing
    calibration: Calibration | None
    classes: tuple[ClassRow, ...]
    confused: tuple[str, ...]
    left: Mapping[str, Mapping[str, np.ndarray]]  # by run of both sides: its arrays beside the record
    words: tuple[str, ...]
    together: str = ""  # what the intervals of the classes hold for; '' where no change is known


def look(study: Study) -> Beside:
    """Reads what the runs left. Nothing in it is fatal."""
    words: list[str] = []
    pairing = pair(study, study.summaries, study.winner)
    calibration = _calibration(study, study.winner, words) if study.winner else None
    left: dict[str, Mapping[str, np.ndarray]] = {}
    for side in (pairing.reference, pairing.other):
        for key in side.runs.values() if side else ():
            try:
                left[key] = artefacts.arrays(study, key)
            except artefacts.Damaged as error:
                left[key] = {}
                words.append(f"{error}: its pictures are not shown.")
    try:
        artefacts.images(study)
    except artefacts.Damaged as error:
        words.append(f"{error}: images are named and not shown.")
    classes = recall_by_class(study, pairing)
    if lacking := [row.name for row in classes if not row.images]:
        words.append(
            f"No test image of {', '.join(lacking)}: nothing is known of {'it' if len(lacking) == 1 else 'them'} here, and what is averaged over classes is "
            "over the others."
        )
    return Beside(
        pairing, calibration, classes, confused_pairs(study, pairing), left, tuple(words), _together(study.summaries, pairing, classes)
    )


def _together(summaries: Sequence[Summary], pairing: Pairing, classes: Sequence[ClassRow]) -> str:
    """An interval of a class excludes 0 more easily than one of all arms together: what is known of the arm as a whole is said beside it."""
    if pairing.reference is None or pairing.other is None or not any(math.isfinite(row.change) for row in classes):
        return ""
    said = f"the intervals of the changes, points, hold together over the {len(classes)} classes of this pair, and not over other arms too"
    cells = [
        row.cells[s.table.metric]
        for s in summaries
        for row in s.rows
        if row.arm.config_hash == pairing.other.config_hash
        and any(r.is_baseline and r.arm.config_hash == pairing.reference.config_hash for r in s.rows)
    ]
    if cells:
        whole = f"shown {cells[0].shown}" if cells[0].shown else "undecided"
        said += f"; as a whole {pairing.other.name} is {whole} beside {pairing.reference.name}"
    if any(math.isnan(row.interval.low) for row in classes) and any(math.isfinite(row.interval.low) for row in classes):
        said += "; none for a class of one patient"
    return said


def pair(study: Study, summaries: tuple[Summary, ...], winner: Best | None) -> Pairing:
    """The comparison arm of the first table that has one with a completed run, and the winner (or the table's first other arm)."""
    won = Side(winner.name, winner.config_hash, dict(zip(winner.seeds, winner.keys, strict=True))) if winner else None
    for summary in summaries:
        reference = next((_side(study, r) for r in summary.rows if r.is_baseline and r.counts["completed"]), None)
        if reference is None:
            continue
        if won is not None and won.config_hash != reference.config_hash:
            return Pairing(reference, won)
        others = (_side(study, r) for r in summary.rows if not r.is_baseline and r.counts["completed"])
        other = next((o for o in others if o.config_hash != reference.config_hash), None)
        if other is not None:
            return Pairing(reference, other)
    return Pairing(None, won)


def _side(study: Study, row: Row) -> Side:
    runs = study.of_arm(row.arm)
    done = runs[runs["status"] == "completed"]
    return Side(row.arm.name, row.arm.config_hash, {int(s): str(k) for s, k in zip(done["seed"], done["key"], strict=True)})


def class_names(study: Study, count: int) -> tuple[str, ...]:
    """Of the study where it has that many classes, else numbers."""
    return study.classes if len(study.classes) == count else tuple(f"class {i}" for i in range(count))


def _calibration(study: Study, winner: Best, words: list[str]) -> Calibration | None:
    found = []
    for key in winner.keys:
        try:
            given = artefacts.predictions(study, key)
        except artefacts.Damaged as error:
            words.append(f"{error}: calibration is without it.")
            continue
        if given is not None:
            found.append((given.confidence, given.predicted == given.label))
    if not found:
        return None
    runs = tuple(reliability(confidence, right) for confidence, right in found)
    pooled = reliability(np.concatenate([c for c, _ in found]), np.concatenate([r for _, r in found]))
    return Calibration(pooled, runs, tuple(100 * r.ece for r in runs), len(found[0][0]))


def _matrices(study: Study, pairing: Pairing) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Test confusion matrices of both, summed over the seeds that both have; of the other alone where there is no reference."""
    if pairing.other is None:
        return None, None
    seeds = pairing.seeds or tuple(pairing.other.runs)
    theirs = study.confusion([pairing.other.runs[s] for s in seeds])
    mine = study.confusion([pairing.reference.runs[s] for s in pairing.seeds]) if pairing.reference and pairing.seeds else None
    if mine is not None and theirs is not None and (mine.shape != theirs.shape or not np.array_equal(mine.sum(axis=1), theirs.sum(axis=1))):
        mine = None  # not of the same images: a change would mean nothing
    return mine, theirs


def recall_by_class(study: Study, pairing: Pairing) -> tuple[ClassRow, ...]:
    """A row for each class, over the seeds that both sides have; () without a test matrix of the other arm."""
    mine, theirs = _matrices(study, pairing)
    if theirs is None or pairing.other is None:
        return ()

    def share(matrix: np.ndarray | None, i: int) -> float:
        return math.nan if matrix is None or not matrix[i].sum() else 100 * float(matrix[i, i] / matrix[i].sum())

    runs = len(pairing.seeds) if mine is not None else len(pairing.seeds or pairing.other.runs)
    names = class_names(study, len(theirs))
    changes = _changes(study, pairing, len(theirs)) if mine is not None else [NONE] * len(theirs)
    return tuple(ClassRow(n, round(theirs[i].sum() / runs), share(mine, i), share(theirs, i), changes[i]) for i, n in enumerate(names))


def _changes(study: Study, pairing: Pairing, count: int) -> list[Interval]:
    """The interval of each class's change of recall, points; those of all classes hold together (Bonferroni). NONE where one cannot be had."""
    assert pairing.reference is not None and pairing.other is not None
    pairs = [(pairing.reference.runs[seed], pairing.other.runs[seed]) for seed in pairing.seeds]
    crossed = Crossed(study)
    recall = [[_recalls(study, key) for key in pair] for pair in pairs]
    seen = [of_seeds([100 * (b[i] - a[i]) for a, b in recall]) for i in range(count)]
    if not crossed.kept("test"):
        return _within(seen)
    said = [one for pair in pairs for key in pair if isinstance(one := crossed.read(key, "test"), Judged)]
    if len(said) < 2 * len(pairs) or any(one.differs(said[0]) for one in said):
        return [NONE] * count  # seeds alone would leave less open than there is
    given = [one.given for one in said if isinstance(one.given, artefacts.Predictions)]
    if len(given) < len(said):
        return _within(seen)
    found = [_over_patients(i, said[0].case, list(zip(given[::2], given[1::2], strict=True))) for i in range(count)]
    if all(math.isnan(one.value) or abs(one.value - over_seeds.value) < 0.01 for one, over_seeds in zip(found, seen, strict=True)):
        return _within(found)
    return [NONE] * count  # they are not the predictions that the records are of


def _within(changes: Sequence[Estimate]) -> list[Interval]:
    """Their simultaneous intervals, within what a change of a share can be."""
    return [clip_gain("test_recall", one.interval(len(changes))) for one in changes]


def _recalls(study: Study, key: str) -> np.ndarray:
    matrix = study.confusion([key])
    assert matrix is not None  # the sum over the runs has one
    shares: np.ndarray = np.divide(
        np.diagonal(matrix), matrix.sum(axis=1), out=np.full(len(matrix), math.nan), where=matrix.sum(axis=1) > 0
    )
    return shares


def _over_patients(index: int, case: np.ndarray, pairs: Sequence[tuple[artefacts.Predictions, artefacts.Predictions]]) -> Estimate:
    """The mean change of a class's recall over seeds, by jackknife pseudo-values over the patients that have the class."""
    rows = []
    for pair in pairs:
        values = []
        for given in pair:
            own = given.label == index
            found = share_values(given.predicted[own] == index, case[own])
            if found is None:
                return Estimate(math.nan)
            values.append(found[1])
        rows.append(100 * (values[1] - values[0]))
    return two_way(np.stack(rows)) if len(rows) > 1 else Estimate(float(np.mean(rows)), seeds=1)


def confused_pairs(study: Study, pairing: Pairing) -> tuple[str, ...]:
    """The most frequent mistakes in words, with the change from the reference: `8 taken for 10: 12 → 5`."""
    mine, theirs = _matrices(study, pairing)
    if theirs is None:
        return ()
    names = class_names(study, len(theirs))
    most = theirs if mine is None else np.maximum(mine, theirs)
    pairs = [(most[i, j], i, j) for i in range(len(most)) for j in range(len(most)) if i != j and most[i, j] > 0]
    pairs.sort(key=lambda p: (-p[0], p[1], p[2]))
    out = []
    for _, i, j in pairs[:_PAIRS]:
        total = theirs[i].sum()
        if mine is None:
            out.append(f"{names[i]} taken for {names[j]}: {theirs[i, j]:.0f} of {total:.0f} ({100 * theirs[i, j] / max(total, 1):.1f} %)")
        else:
            out.append(f"{names[i]} taken for {names[j]}: {mine[i, j]:.0f} → {theirs[i, j]:.0f} of {total:.0f}")
    return tuple(out)


def external_sets(study: Study) -> tuple[Mapping[str, object], ...]:
    """data.external of study.json: entries that have a slug."""
    given = mapping(study.asked.get("data")).get("external")
    return tuple(e for e in map(mapping, given) if isinstance(e.get("slug"), str)) if isinstance(given, list) else ()


def calibration_words(found: Calibration) -> str:
    """The error of the runs in one sentence."""
    mean = float(np.mean(found.errors))
    spread = f" ± {np.std(found.errors, ddof=1):.2f}" if len(found.errors) > 1 else ""
    bias = float(found.pooled.mean_confidence - found.pooled.mean_accuracy)
    lean = (
        "too sure of itself"
        if bias > 0.01
        else "less sure than it could be"
        if bias < -0.01
        else "neither too sure nor too careful on the whole"
    )
    return (
        f"Expected calibration error {mean:.2f}{spread} points over {plural(len(found.errors), 'run')} of {found.images:,} test images "
        f"(10 bins of equal width, confidence of the predicted class); mean confidence {100 * found.pooled.mean_confidence:.1f} %, "
        f"accuracy {100 * found.pooled.mean_accuracy:.1f} %: {lean}."
    )
