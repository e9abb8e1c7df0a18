"""How well the size of an image alone tells its class, and how sizes of two sets compare.
Comes in: a `Pack`. Goes out: an accuracy with its interval; a factor. Exists so that one should know how far one gets without looking at a
pixel, and whether a model sees objects of sizes that it knows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from trainables.data.pack import Pack
from trainables.data.split import groups_of
from trainables.data.traits import TRAITS
from trainables.data.words import few

MOST_KINDS = 20  # values of a trait: more are measures, not kinds of files
TELLS = 0.05  # above the largest class, from which on it is said


def size_baseline(pack: Pack, folds: int = 5, seed: int = 0) -> dict[str, float] | None:
    """How well size alone tells the class: {"accuracy", "low", "high", "folds"}, fractions; None where a class has too few groups to
    divide.

    Logistic regression on log image area, log foreground area, their squares and product, cross-validated with patients and duplicates
    on one side. low, high: 95 % interval of the mean over groups as clusters (ratio estimator, Cochran 1977, with t of G - 1)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    held = np.unique(pack.labels)
    groups = groups_of(pack)
    folds = min(folds, *(min(int((pack.labels == c).sum()), len(np.unique(groups[pack.labels == c]))) for c in held))
    if folds < 2 or len(held) < 2:
        return None
    features = np.log(np.maximum(pack.areas, 1))
    right = np.zeros(len(pack))
    for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(features, pack.labels, groups):
        if not len(test):
            continue
        if len(np.unique(pack.labels[train])) == 1:  # a fold took all of the other classes
            right[test] = pack.labels[test] == pack.labels[train[0]]
            continue
        model = make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False), LogisticRegression(C=10.0, max_iter=2000))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # 24 of them with a few images each
            right[test] = model.fit(features[train], pack.labels[train]).predict(features[test]) == pack.labels[test]
    return _with_interval(right, groups) | {"folds": folds}


def _with_interval(right: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """{"accuracy", "low", "high"} of what is right (N,), see `size_baseline`."""
    import scipy.stats  # here: more than a second, which a command that knows the answer can do without

    accuracy = float(right.mean())
    hits, sizes = np.bincount(groups, right), np.bincount(groups)
    clusters = len(sizes)
    error = float(np.sqrt(clusters / (clusters - 1) * ((hits - accuracy * sizes) ** 2).sum())) / len(right)
    reach = float(scipy.stats.t.ppf(0.975, clusters - 1)) * error
    return {"accuracy": accuracy, "low": max(0.0, accuracy - reach), "high": min(1.0, accuracy + reach)}


def told_by_files(traits: Sequence[Sequence[str]], pack: Pack) -> list[str]:
    """What a file is beside its picture (see `traits`) and tells the class by, in words; [] where nothing does. traits: of each image of
    the pack; () where they are not known. A class is guessed by what most images of the other groups with this trait are."""
    groups, classes = groups_of(pack), len(pack.classes)
    commonest = np.bincount(pack.labels).max() / len(pack)
    found = []
    for place, trait in enumerate(TRAITS):
        words, kind = np.unique([one[place] if one else "" for one in traits], return_inverse=True)
        if not 1 < len(words) <= MOST_KINDS or groups.max() < 1:
            continue
        table = np.zeros((len(words), classes))
        np.add.at(table, (kind, pack.labels), 1)
        order = np.argsort(groups, kind="stable")
        right = np.zeros(len(pack))
        for own in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
            others = table.copy()
            np.add.at(others, (kind[own], pack.labels[own]), -1)
            known = others[kind[own]].any(1)
            right[own] = np.where(known, others.argmax(1)[kind[own]], others.sum(0).argmax()) == pack.labels[own]
        told = _with_interval(right, groups)
        if told["low"] > commonest + TELLS:
            most = [f"{words[k] or 'not said'} ({pack.classes[table[k].argmax()]})" for k in np.argsort(-table.sum(1))]
            found.append(f"{trait} alone is right for {told['accuracy']:.1%} ({few(most, 4)})")
    if not found:
        return []
    return [
        f"the class can be read off the files without looking at the picture: {'; '.join(found)}; always the largest class: "
        f"{commonest:.1%}. Were the classes recorded or saved in different ways? then a network may learn that, and a score says little: "
        "bring all from their originals to one form, and test on images where each class comes in each"
    ]


def typical_areas(pack: Pack, chosen: np.ndarray) -> dict[str, float]:
    """Class -> the median of what its chosen images show, in pixels of their files; classes without an image are left out."""
    shown, labels = pack.areas[chosen, 1], pack.labels[chosen]
    return {name: float(np.median(shown[labels == i])) for i, name in enumerate(pack.classes) if (labels == i).any()}


def length_factor(areas: Mapping[str, float], of: Mapping[str, float]) -> float | None:
    """How many times as long objects are as those of another set: the root of the ratio of areas, median over the classes that both have,
    so that it does not follow how many images a class has. None where they share no class, or areas are not known."""
    factors = [(areas[name] / of[name]) ** 0.5 for name in areas.keys() & of.keys() if areas[name] > 0 and of[name] > 0]
    return float(np.median(factors)) if factors else None
