"""Seeds and patients together: what a mean over repeated runs leaves open, for other seeds and for other patients.

In: arrays, or a Study and the keys of its runs. Out: `Estimate`. Runs of one configuration are judged on the same images, and images of one
patient are alike: a spread over seeds alone says nothing of other patients. The analysis is that of readers and cases (multi-reader
multi-case): seeds are readers, patients are cases, both drawn from many. Per seed, each patient gets a jackknife pseudo-value of the metric
(Dorfman, Berbaum and Metz 1992; the same as Obuchowski and Rockette 1995 with covariances by the jackknife: Hillis et al. 2005), and the
mean's variance comes from the two-way table of them. `benchmarks/coverage.py` shows how often the intervals hold the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import optimize, special, stats

from analysis import artefacts, clustering
from analysis.numbers import number
from analysis.statistics import LEVEL, NONE, Interval
from analysis.study import Study, plural

SAME = 0.01  # of two values of one metric, per cent: older records have probabilities of five decimals
MOST = 100  # seeds, up to which it is worked out how many would tell a difference
_LEAST = 1e-60  # a probability that is 0 to everybody; of those below 1e-300 quantiles are not to be had
_MOST_CELLS = 50_000_000  # of all patients' confusion matrices of one run, 400 MB


@dataclass(frozen=True)
class Parts:
    """Variance components of a two-way table: of seeds, of cases, of both together with the rest. None is below 0."""

    seeds: float
    cases: float
    rest: float


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error. error and free are nan where one run says nothing of others, and where predictions are lost (`lost`).
    free: degrees of freedom of `share` of its variance; the rest has those of the cases.
    cases: patients, tiles where each counts as a patient, or images where patients are not known (`unit` says which); 0 where the spread over
    seeds is all that is known."""

    value: float
    error: float = math.nan
    free: float = math.nan
    seeds: int = 0
    cases: int = 0
    unit: str = "patients"  # patients | tiles | images: what cases are
    lone: int = 0  # of the cases images without a known patient where others have one
    share: float = 1.0  # of the variance that the seeds make
    parts: Parts | None = field(default=None, compare=False)
    lost: str = field(
        default="", compare=False
    )  # why there is no standard error though runs kept what they said of single images, in words

    def interval(self, comparisons: int = 1, level: float = LEVEL) -> Interval:
        """Student's; with `comparisons` above 1 as many of them hold together (Bonferroni). None without a standard error, or where it is 0:
        equal values of few runs prove nothing."""
        if not self.error > 0:
            return NONE
        half = self.quantile((1 - level) / (2 * comparisons)) * self.error
        return Interval(self.value - half, self.value + half)

    def p(self, comparisons: int = 1) -> float:
        """Two-sided p that the true value is 0, from the same model as the interval, times the number of comparisons. nan where there
        is no interval."""
        return min(1.0, comparisons * 2 * self.wrong) if self.error > 0 else math.nan

    @property
    def wrong(self) -> float:
        """Probability that the true value has the other sign, with a flat prior: of a claim `better` that it is false. nan as for `p`."""
        if not self.error > 0:
            return math.nan
        reached = abs(self.value) / self.error
        if self.share == 1:
            return float(stats.t.sf(reached, self.free))
        if self.quantile(_LEAST) < reached:
            return 0.0
        return math.exp(optimize.brentq(lambda x: self.quantile(math.exp(x)) - reached, math.log(_LEAST), math.log(0.5)))

    def quantile(self, tail: float) -> float:
        """In standard errors, what is exceeded with that probability: see `_quantile`."""
        return _quantile(tail, self.share, self.free, self.cases)


def of_seeds(values: Sequence[float] | np.ndarray, test_over_train: float = 0.0) -> Estimate:
    """From one value per seed alone. test_over_train above 0 where every seed draws its own split (Nadeau and Bengio 2003, eq. 9)."""
    x = np.asarray(values, dtype=np.float64)
    if x.size < 2:
        return Estimate(float(x.mean()) if x.size else math.nan, seeds=x.size)
    return Estimate(float(x.mean()), float(x.std(ddof=1) * math.sqrt(1 / x.size + test_over_train)), x.size - 1, x.size)


def of_cases(values: np.ndarray, unit: str = "patients") -> Estimate:
    """Of one run, from a pseudo-value for each of m cases: for other cases, under the same weights."""
    m = values.size
    if m < 2:
        return Estimate(float(values.mean()), seeds=1, cases=m, unit=unit)
    return Estimate(float(values.mean()), float(values.std(ddof=1) / math.sqrt(m)), m - 1, 1, m, unit)


def share_interval(estimate: Estimate, images: int) -> Interval:
    """Of the share of one run's images that are hits, per cent: Clopper and Pearson's, of as many independent images as would leave the same
    open as the cases do (Korn and Graubard 1998), so that it has ends where every image is a hit. Of independent images it is Clopper and
    Pearson's own. Where the cases do not differ each counts as one image. None for fewer than two cases."""
    m, p = estimate.cases, estimate.value / 100
    if m < 2 or images < 1:
        return NONE
    n = float(m)
    if estimate.error > 0:
        n = p * (1 - p) / (estimate.error / 100) ** 2 + 1  # of n independent images the jackknife's variance is p (1 - p) / (n - 1)
        n *= (stats.t.ppf((1 + LEVEL) / 2, images - 1) / stats.t.ppf((1 + LEVEL) / 2, m - 1)) ** 2
    n = min(n, float(images))
    hits, tail = p * n, (1 - LEVEL) / 2
    low = float(stats.beta.ppf(tail, hits, n - hits + 1)) if hits > 1e-9 else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, n - hits)) if n - hits > 1e-9 else 1.0
    return Interval(100 * low, 100 * high)


def two_way(table: np.ndarray, unit: str = "patients") -> Estimate:
    """The mean of an (n seeds, m cases) table whose rows and columns are both drawn from many, n and m at least 2.

    Variance (MS_seeds + MS_cases - MS_rest) / nm, not below what seeds or cases alone give; its quantiles: see `_quantile`. Of the variance the
    seeds' share is never taken below that of the rest, which their mean square exceeds in expectation: two seeds that agree by chance would
    else be judged as if they did not count, and a lost seed made a claim."""
    n, m = table.shape
    if n < 2 or m < 2:
        raise ValueError(f"seeds and cases must be 2 or more each, got {n} and {m}")
    mean, rows, columns = float(table.mean()), table.mean(axis=1), table.mean(axis=0)
    seeds = m * float(((rows - mean) ** 2).sum()) / (n - 1)
    cases = n * float(((columns - mean) ** 2).sum()) / (m - 1)
    rest = float(((table - rows[:, None] - columns[None] + mean) ** 2).sum()) / ((n - 1) * (m - 1))
    parts = Parts(max(0.0, seeds - rest) / m, max(0.0, cases - rest) / n, rest)
    total = max(seeds + cases - rest, seeds, cases)
    if total <= 1e-18 * max(1.0, mean * mean):
        return Estimate(mean, 0.0, min(n, m) - 1, n, m, unit, parts=parts)
    return Estimate(mean, math.sqrt(total / (n * m)), n - 1, n, m, unit, share=min(1.0, max(seeds, rest) / total), parts=parts)


def _quantile(tail: float, share: float, free: float, cases: int) -> float:
    """Of a mean's error, what is exceeded with probability `tail`: Student's quantiles of the seeds' degrees of freedom and of the cases', weighted by
    their shares of the variance (Cochran and Cox 1950). One quantile of pooled degrees gives few seeds too many in the far tail that simultaneous
    intervals need: with 3 seeds that make 90 % of the variance one of nine was wrong in 8 to 9 % of tables, now in 2 to 3 (`benchmarks/README.md`)."""
    own = -float(special.stdtrit(free, tail))  # scipy.stats' own takes ten times as long
    return own if share == 1 else share * own - (1 - share) * float(special.stdtrit(cases - 1, tail))


def apart(one: Estimate, other: Estimate, comparisons: int = 1) -> Interval:
    """Of the difference one - other of two means that share neither seeds nor cases, e.g. over other test images: quantiles of both, weighted by
    their shares of the variance (Cochran and Cox). None where either has no standard error, or both have one of 0."""
    total = one.error**2 + other.error**2
    if not total > 0:
        return NONE
    tail = (1 - LEVEL) / (2 * comparisons)
    half = sum(each.error**2 * each.quantile(tail) for each in (one, other) if each.error > 0) / math.sqrt(total)
    return Interval(one.value - other.value - half, one.value - other.value + half)


def seeds_to_tell(estimate: Estimate, difference: float, comparisons: int = 1, most: int = MOST) -> int | None:
    """With how many seeds a true difference of that size would be told from 0 in four of five studies; None where `most` do not do. `estimate` must have `parts`, or come from `of_seeds` without redrawn splits."""
    parts, m = estimate.parts, estimate.cases
    for n in range(2, most + 1):
        if parts is None:
            error, share = estimate.error * math.sqrt(estimate.seeds / n), 1.0
        else:
            seeds, cases = parts.rest + m * parts.seeds, parts.rest + n * parts.cases
            total = seeds + cases - parts.rest
            error, share = math.sqrt(total / (n * m)), seeds / total if total > 0 else 1.0
        needed = _quantile((1 - LEVEL) / (2 * comparisons), share, n - 1, m) + _quantile(0.2, share, n - 1, m)
        if needed * error <= abs(difference):
            return n
    return None


# --- pseudo-values of a metric ------------------------------------------------------------------------------------------------------


def _of_confusions(name: str) -> Callable[[np.ndarray], np.ndarray] | None:
    """A metric of (K, C, C) matrices, rows = truth, as (K,) fractions: macro means over the classes that the truth has (SupCAM, Eq. 8-12). nan
    where the specificity is undefined, since all images are of one class."""

    def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        out: np.ndarray = np.zeros(np.broadcast(a, b).shape)
        np.divide(a, b, out=out, where=b > 0)
        return out

    def macro(values: Callable[..., np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        def of(matrices: np.ndarray) -> np.ndarray:
            hit = np.diagonal(matrices, axis1=1, axis2=2)
            truth, guessed = matrices.sum(axis=2), matrices.sum(axis=1)
            known = truth > 0
            each: np.ndarray = values(hit, truth, guessed, truth.sum(axis=1, keepdims=True))
            return ratio(np.where(known, each, 0).sum(axis=1), known.sum(axis=1))

        return of

    def accuracy(matrices: np.ndarray) -> np.ndarray:
        return ratio(np.trace(matrices, axis1=1, axis2=2), matrices.sum(axis=(1, 2)))

    known: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "accuracy": accuracy,
        "precision": macro(lambda hit, truth, guessed, all_: ratio(hit, guessed)),
        "sensitivity": (recalled := macro(lambda hit, truth, guessed, all_: ratio(hit, truth))),
        "recall": recalled,
        "specificity": macro(
            lambda hit, truth, guessed, all_: np.where(truth < all_, ratio(all_ - truth - guessed + hit, all_ - truth), math.nan)
        ),
        "f1": macro(lambda hit, truth, guessed, all_: ratio(2 * hit, truth + guessed)),
    }
    return known.get(name)


def pseudo_values(name: str, label: np.ndarray, probability: np.ndarray, case: np.ndarray) -> tuple[float, np.ndarray] | None:
    """(the metric of one run, a pseudo-value of it for each case, whose mean it is). label (n,): class index; probability (n, C); case (n,):
    0 to m - 1, each there. None for a metric that is not known here, or is undefined for all images or for those without a case. Fractions."""
    count, classes = int(case.max()) + 1, probability.shape[1]
    if name == "auc":
        whole, without = _auc(label, probability, case, count)
    else:
        of = _of_confusions(name)
        if of is None or count * classes**2 > _MOST_CELLS:
            return None
        place = (case * classes + label) * classes + probability.argmax(axis=1)
        each = np.bincount(place, minlength=count * classes**2).reshape(count, classes, classes)
        total = each.sum(axis=0)
        whole, without = float(of(total[None])[0]), of(total[None] - each)
    return (whole, _pseudo(whole, without)) if math.isfinite(whole) and np.isfinite(without).all() else None


def share_values(hit: np.ndarray, case: np.ndarray) -> tuple[float, np.ndarray] | None:
    """As `pseudo_values`, of the share of images that are hits. hit (n,) bool; case (n,): any numbers. None with fewer than 2 cases."""
    number = np.unique(case, return_inverse=True)[1]
    there, hits = np.bincount(number), np.bincount(number, hit)
    if there.size < 2:
        return None
    whole = float(hits.sum() / there.sum())
    return whole, _pseudo(whole, (hits.sum() - hits) / (there.sum() - there))


def _pseudo(whole: float, without: np.ndarray) -> np.ndarray:
    """(m,) of the metric without each case in turn. The jackknife's own correction of a bias is left out: tables hold the metric itself."""
    pseudo = without.size * whole - (without.size - 1) * without
    return np.asarray(pseudo - pseudo.mean() + whole)


def cluster_values(name: str, given: artefacts.Groups, case: np.ndarray) -> tuple[float, np.ndarray] | None:
    """As `pseudo_values`, of clusters: their scores, and the accuracies of the probe and of the neighbours beside them. None with fewer than
    2 cases too."""
    guessed = {"probe_accuracy": given.probe, "knn_accuracy": given.neighbours}.get(name)
    if guessed is not None:
        return share_values(guessed == given.label, case)
    found = clustering.jackknife(name, given.label, given.cluster, given.tile, case)
    return None if found is None else (found[0], _pseudo(*found))


def _auc(label: np.ndarray, score: np.ndarray, case: np.ndarray, count: int) -> tuple[float, np.ndarray]:
    """The macro area under the ROC curve, each class against the rest, and the same without each case in turn."""
    whole, without, known = [], np.zeros(count), np.zeros(count)
    for index in np.unique(label):
        own = label == index
        value, others = score[own, index], score[~own, index]
        beaten = _below(value, np.sort(others))  # of each image of the class: how many others lie below, ties as half
        beating = value.size - _below(others, np.sort(value))  # of each other: how many of the class lie above
        mine, theirs = case[own], case[~own]
        n, m = np.bincount(mine, minlength=count), np.bincount(theirs, minlength=count)
        pairs = (
            beaten.sum()
            - np.bincount(mine, beaten, count)
            - np.bincount(theirs, beating, count)
            + _within(value, mine, others, theirs, n, m)
        )
        left = (value.size - n) * (others.size - m)
        without += np.divide(pairs, left, out=np.zeros(count), where=left > 0)
        known += left > 0
        whole.append(beaten.sum() / (value.size * others.size) if others.size else math.nan)
    return float(np.mean(whole)), np.divide(without, known, out=np.full(count, math.nan), where=known > 0)


def _below(values: np.ndarray, sorted_: np.ndarray) -> np.ndarray:
    return np.asarray((np.searchsorted(sorted_, values, "left") + np.searchsorted(sorted_, values, "right")) / 2)


def _within(value: np.ndarray, mine: np.ndarray, others: np.ndarray, theirs: np.ndarray, n: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Pairs within each case in which the image of the class has the higher score, ties as half."""
    found = np.zeros(n.size)
    for one in np.flatnonzero((n > 0) & (m > 0)):
        found[one] = _below(value[mine == one], np.sort(others[theirs == one])).sum()
    return found


# --- of a study's runs --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """What a run said of the images of a part."""

    given: artefacts.Predictions | artefacts.Groups
    case: np.ndarray
    unit: str  # what cases are, see `Estimate`
    lone: int = 0  # of them images without a known patient where others have one
    classes: tuple[str, ...] = ()

    def differs(self, other: Judged) -> str:
        """Why the two cannot be set side by side, in words; '' where they were judged on the same images, in the same order, by one truth."""
        if not np.array_equal(self.given.index, other.given.index):
            return "judged on other images"
        changed = int((self.given.label != other.given.label).sum())
        return f"another truth of {plural(changed, 'image')}" if changed else ""

    def values(self, name: str) -> tuple[float, np.ndarray] | str | None:
        """See `pseudo_values`; in words why there are none though the metric is known."""
        if isinstance(self.given, artefacts.Groups):
            return cluster_values(name, self.given, self.case)
        found = pseudo_values(name, self.given.label, self.given.probability, self.case)
        return self._confined() or found if found is not None and name != "accuracy" else found

    def _confined(self) -> str:
        """Of a metric that is a mean over classes: the classes of which all images are of one patient, so that leaving it out leaves out the class,
        and nothing is known of how other patients do in it; '' where there is none, or all images are of one."""
        label, case = self.given.label, self.case
        if case.max() == 0:
            return ""
        alone = [int(c) for c in np.unique(label) if np.ptp(case[label == c]) == 0]
        names = [self.classes[c] if c < len(self.classes) else f"class {c}" for c in alone]
        few = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        one = self.unit.removesuffix("s")
        held = f"there is one image of {few}" if one == "image" else f"all images of {few} are of one {one}"
        return f"{held}, and nothing tells how others do" if alone else ""


def judged(given: artefacts.Predictions | artefacts.Groups, patients: Sequence[str], of_tiles: bool, classes: Sequence[str] = ()) -> Judged:
    """patients: of each image of the set by index; of_tiles: whether each tile counts as one."""
    case, of_images = cases(given.index, patients)
    lone = 0 if of_images else sum(not (i < len(patients) and artefacts.known(patients[i])) for i in given.index.tolist())
    return Judged(given, case, "images" if of_images else "tiles" if of_tiles else "patients", lone, tuple(classes))


class Confined(str):
    """Why a metric has no interval though nothing is lost: see `Judged.values`."""


LOST = "predictions of single images are lost or contradict"
SHARES = ("accuracy", "probe_accuracy", "knn_accuracy")  # metrics that are a share of the images


def of_run(name: str, value: float, said: Judged | None) -> tuple[Estimate, Interval]:
    """A metric of one run for other cases, with its interval, per cent; neither error nor interval where what it said of the images does not
    give the value."""
    found = said.values(name) if said is not None else None
    if isinstance(found, str):
        return Estimate(value, seeds=1, lost=found), NONE
    if said is None or found is None or abs(100 * found[0] - value) >= SAME:
        return Estimate(value, seeds=1), NONE
    estimate = replace(of_cases(100 * found[1], said.unit), lone=said.lone)
    return estimate, share_interval(estimate, said.case.size) if name in SHARES else clip(name, estimate.interval())


def clip(metric: str, given: Interval) -> Interval:
    """A share lies between 0 and 100 %, so does its mean; indices adjusted for chance may fall below 0."""
    low = -100.0 if split_metric(metric)[1].startswith(("ami", "ari")) else 0.0
    return Interval(max(low, given.low), min(100.0, given.high)) if not math.isnan(given.low) else given


def clip_gain(metric: str, given: Interval) -> Interval:
    """A difference of two such values is between -100 and 100 points, of indices adjusted for chance between -200 and 200."""
    most = 100.0 - clip(metric, Interval(-math.inf, 0.0)).low
    return Interval(max(-most, given.low), min(most, given.high)) if not math.isnan(given.low) else given


class Crossed:
    """Pseudo-values of a study's runs, each worked out once.

    Seeds alone leave less open than seeds and patients do, so they are fallen back to only where no run of the tables kept what it said of
    single images, or the metric is not known here. Where some did, a run of which it is lost, or contradicts the record or another run,
    leaves no interval at all: what is missing must not make a claim firmer."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._judged: dict[tuple[str, str], Judged | str] = {}
        self._patients: dict[str, tuple[tuple[str, ...], bool]] = {}
        self._values: dict[tuple[str, str], tuple[np.ndarray, Judged] | str | None] = {}
        self._kept: dict[str, bool] = {}

    def mean(
        self, metric: str, runs: Mapping[int, tuple[str, float]], against: Mapping[int, tuple[str, float]] | None = None, ratio: float = 0.0
    ) -> Estimate:
        """The mean of a metric over runs {seed: (key, recorded value in per cent)}, or the mean difference to the runs `against` of the same
        seeds, in per cent; over seeds and patients where that can be. Over seeds alone where every seed draws its own split (ratio: n_test /
        n_train, above 0)."""
        seeds = sorted(runs if against is None else runs.keys() & against.keys())
        pairs = [((self, *runs[seed]), *([(self, *against[seed])] if against is not None else [])) for seed in seeds]
        return of_pairs(metric, seeds, pairs, ratio)

    def level(self, metric: str, runs: Mapping[int, tuple[str, float]], ratio: float = 0.0) -> tuple[Estimate, Interval]:
        """What a configuration is worth, and the interval: as `mean`, or of one run alone for other patients."""
        part, name = split_metric(metric)
        if len(runs) == 1 and part:
            ((key, value),) = runs.values()
            said = self.read(key, part)
            return of_run(name, value, said if isinstance(said, Judged) else None)
        estimate = self.mean(metric, runs, ratio=ratio)
        return estimate, clip(metric, estimate.interval())

    def values(self, metric: str, key: str, recorded: float) -> tuple[np.ndarray, Judged] | str | None:
        """Pseudo-values of a run, fractions; in words why there are none; None for a metric that is not known here or is undefined."""
        if (metric, key) not in self._values:
            part, name = split_metric(metric)
            said = self.read(key, part) if part else None
            found = said.values(name) if isinstance(said, Judged) else None
            if isinstance(said, Judged) and isinstance(found, str):
                self._values[metric, key] = Confined(found)
            elif isinstance(said, Judged) and isinstance(found, tuple):
                same = abs(100 * found[0] - recorded) < SAME
                self._values[metric, key] = (
                    (found[1], said)
                    if same
                    else f"predictions that give {number(100 * found[0])} % and not the recorded {number(recorded)} %"
                )
            else:
                self._values[metric, key] = said if isinstance(said, str) else None
        return self._values[metric, key]

    def kept(self, part: str) -> bool:
        """Whether any run of the tables kept what it said of single images of a part."""
        if part not in self._kept:
            hashes = {arm.config_hash for table in self.study.tables for arm in table.arms}
            rows = self.study.usable
            keys = rows.loc[(rows["status"] == "completed") & rows["config_hash"].isin(hashes), "key"]
            self._kept[part] = (self.study.folder / "checkpoints").is_dir() and any(
                self.read(str(key), part) != artefacts.MISSING for key in keys
            )
        return self._kept[part]

    def read(self, key: str, part: str) -> Judged | str:
        """What a run said of the images of a part (`test`, `external_<slug>`), or in words why that is not known."""
        if (key, part) not in self._judged:
            self._judged[key, part] = self._fresh(key, part)
        return self._judged[key, part]

    def _fresh(self, key: str, part: str) -> Judged | str:
        try:
            given = artefacts.groups(self.study, key, part) or artefacts.predictions(self.study, key, part)
            slug = part.removeprefix("external_") if part.startswith("external_") else ""
            if given is not None and not artefacts.described(self.study, slug):
                return "predictions without data.json, which says whose images they are"
            patients, of_tiles = self._patients_of(slug)
        except artefacts.Damaged as error:
            return str(error)
        if given is None:
            return artefacts.MISSING
        return judged(given, patients, of_tiles, self.study.classes) if given.index.min() >= 0 else "predictions of images that are none"

    def _patients_of(self, slug: str) -> tuple[tuple[str, ...], bool]:
        if slug not in self._patients:
            self._patients[slug] = artefacts.patients(self.study, slug), artefacts.tiles_are_patients(self.study, slug)
        return self._patients[slug]


def of_pairs(metric: str, seeds: Sequence[int], pairs: Sequence[tuple[tuple[Crossed, str, float], ...]], ratio: float = 0.0) -> Estimate:
    """See `Crossed.mean`. pairs: of each seed the run, or the run and the one that is taken from it, as (study's, key, recorded value)."""
    alone = of_seeds([own[2] - (other[0][2] if other else 0.0) for own, *other in pairs], ratio)
    if ratio or len(seeds) < 2:
        return alone
    part = split_metric(metric)[0]
    if not part or not any(of.kept(part) for of in dict.fromkeys(of for pair in pairs for of, *_ in pair)):
        return alone
    found = [[of.values(metric, key, recorded) for of, key, recorded in pair] for pair in pairs]
    every = [
        (seed, key, said) for seed, pair, row in zip(seeds, pairs, found, strict=True) for (_, key, _), said in zip(pair, row, strict=True)
    ]
    if any(said is None for *_, said in every):
        return alone  # the metric cannot be worked out of what runs say of single images
    if confined := next((said for *_, said in every if isinstance(said, Confined)), None):
        return Estimate(alone.value, seeds=alone.seeds, lost=str(confined))
    lost = [f"{said} (seed {seed}, run {key[:8]})" for seed, key, said in every if isinstance(said, str)]
    known = [(seed, key, said[1]) for seed, key, said in every if isinstance(said, tuple)]
    lost += [f"{word} (seed {seed}, run {key[:8]})" for seed, key, said in known if (word := said.differs(known[0][2]))]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        return Estimate(alone.value, seeds=alone.seeds, lost=f"{LOST}: {lost[0]}{more}")
    rows = [[said[0] for said in row if isinstance(said, tuple)] for row in found]
    table = np.stack([row[0] - row[1] if len(row) > 1 else row[0] for row in rows])
    of = known[0][2]
    return replace(two_way(100 * table, of.unit), lone=of.lone) if table.shape[1] > 1 else replace(alone, cases=1, unit=of.unit)


def cases(index: np.ndarray, patients: Sequence[str]) -> tuple[np.ndarray, bool]:
    """((n,) case of each image, whether cases are images). An image without a known patient is a case of its own."""
    names = [artefacts.known(patients[i]) if i < len(patients) else "" for i in index.tolist()]
    own = [name or f"\0{i}" for i, name in zip(index.tolist(), names, strict=True)]
    return np.unique(own, return_inverse=True)[1].astype(np.int64), not any(names)


# metrics of an external set are named external_<slug>_<metric>, and a slug may hold `_`: the longest known name at the end is the metric
KNOWN = (
    "knn_accuracy", "probe_accuracy", "accuracy", "precision", "sensitivity", "specificity", "f1", "recall", "auc", "ami_within",
    "ami_given_tile", "ami", "ari", "purity", "silhouette",
)  # fmt: skip


def split_metric(metric: str) -> tuple[str, str]:
    """`test_ami_within` -> (`test`, `ami_within`), `external_ward_b_f1` -> (`external_ward_b`, `f1`); ('', ...) for one of no part."""
    part, _, name = metric.partition("_")
    if part in ("val", "test") and name:
        return part, name
    if not metric.startswith("external_"):
        return "", metric
    name = next((known for known in KNOWN if metric.endswith(f"_{known}")), metric.rpartition("_")[2])
    part = metric.removesuffix(f"_{name}")
    return (part, name) if part.startswith("external_") else ("", metric)
