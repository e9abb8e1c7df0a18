"""How well the size of an image alone tells its class.
Comes in: a `Pack`. Goes out: an accuracy with its interval. Exists so that one should know how far one gets without looking at a pixel."""

from __future__ import annotations

import numpy as np

from trainables.data.pack import Pack
from trainables.data.split import groups_of


def size_baseline(pack: Pack, folds: int = 5, seed: int = 0) -> dict[str, float] | None:
    """How well size alone tells the class: {"accuracy", "low", "high", "folds"}, fractions; None where a class has too few groups to
    divide.

    Logistic regression on log image area, log foreground area, their squares and product, cross-validated with patients and duplicates
    on one side. low, high: 95 % interval of the mean over groups as clusters (ratio estimator, Cochran 1977, with t of G - 1)."""
    import scipy.stats  # here: more than a second, which a command that knows the answer can do without
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
        right[test] = model.fit(features[train], pack.labels[train]).predict(features[test]) == pack.labels[test]
    accuracy = float(right.mean())
    hits, sizes = np.bincount(groups, right), np.bincount(groups)
    clusters = len(sizes)
    error = float(np.sqrt(clusters / (clusters - 1) * ((hits - accuracy * sizes) ** 2).sum())) / len(pack)
    reach = float(scipy.stats.t.ppf(0.975, clusters - 1)) * error
    return {"accuracy": accuracy, "low": max(0.0, accuracy - reach), "high": min(1.0, accuracy + reach), "folds": folds}
