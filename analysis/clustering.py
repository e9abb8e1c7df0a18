"""Scores of clusters, and the same without each patient in turn. In: types, clusters, tiles and patients of cells. Out: plain fractions.

The scores are written down a second time here, from tables of counts, since the report knows no training code: leaving a patient out is a
subtraction of his counts. Tests hold them against the metric of training. Clusters stay as they are: K-means is not fitted again."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import gammaln

NAMES = ("ami", "ari", "purity", "ami_within", "ami_given_tile")
_MOST_CELLS = 20_000_000  # of the tables of all tiles, 160 MB


def jackknife(name: str, label: np.ndarray, cluster: np.ndarray, tile: np.ndarray, case: np.ndarray) -> tuple[float, np.ndarray] | None:
    """(the score of all cells, the score without each case in turn). All (n,) whole numbers from 0; cases 0 to m - 1, each there and m above 1.
    None for a name that is not in NAMES, and for more tiles and clusters than memory is for."""
    types, groups = int(label.max()) + 1, int(cluster.max()) + 1
    if name not in ("ami_within", "ami_given_tile"):
        tile = np.zeros_like(label)
    tiles, count = int(tile.max()) + 1, int(case.max()) + 1
    if name not in NAMES or count < 2 or tiles * groups * types > _MOST_CELLS:
        return None
    place = (tile * groups + cluster) * types + label
    whole = np.bincount(place, minlength=tiles * groups * types).reshape(tiles, groups, types)
    term, score = _TERMS[name]
    of_tile = [term(_filled(table)) for table in whole]
    total = np.sum(of_tile, axis=0)
    without = np.empty(count)
    known: dict[tuple[int, bytes], np.ndarray] = {}  # where images are cases, many leave the same counts
    order = np.lexsort((place, case))
    for one, cells in enumerate(np.split(order, np.flatnonzero(np.diff(case[order])) + 1)):
        left = total.copy()
        for touched in np.unique(tile[cells]):
            inside = place[cells[tile[cells] == touched]] - touched * groups * types
            key = (int(touched), inside.tobytes())
            if key not in known:
                rest = whole[touched] - np.bincount(inside, minlength=groups * types).reshape(groups, types)
                known[key] = term(_filled(rest)) - of_tile[touched]
            left += known[key]
        without[one] = score(left)
    return score(total), without


def _filled(table: np.ndarray) -> np.ndarray:
    """Without empty rows and columns."""
    return np.asarray(table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0])


def _entropy(counts: np.ndarray) -> float:
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _information(table: np.ndarray) -> tuple[float, float, float]:
    """Of a table without empty rows and columns, in nats: mutual information, its mean over all orders of one side (Vinh, Epps and Bailey
    2010, Eq. 24a), the mean of both entropies."""
    n, rows, columns = int(table.sum()), table.sum(axis=1), table.sum(axis=0)
    here = table > 0
    outer = rows[:, None] * columns[None]
    information = float((table[here] / n * np.log(n * table[here] / outer[here])).sum())
    factorial = gammaln(np.arange(n + 1) + 1.0)
    expected = 0.0
    for (a, b), times in zip(
        *np.unique(np.stack([np.repeat(rows, len(columns)), np.tile(columns, len(rows))], 1), axis=0, return_counts=True), strict=True
    ):
        k = np.arange(max(1, a + b - n), min(a, b) + 1)
        chance = (
            factorial[a] + factorial[b] + factorial[n - a] + factorial[n - b]
            - factorial[n] - factorial[k] - factorial[a - k] - factorial[b - k] - factorial[n - a - b + k]
        )  # fmt: skip
        expected += times * float((k / n * np.log(n * k / (a * b)) * np.exp(chance)).sum())
    return information, expected, (_entropy(rows) + _entropy(columns)) / 2


def _over(top: float, bottom: float) -> float:
    return top / max(bottom, float(np.finfo(float).eps))


def _ami(table: np.ndarray) -> float:
    if table.shape == (1, 1):
        return 1.0
    information, expected, most = _information(table)
    return _over(information - expected, most - expected)


def _ari(table: np.ndarray) -> float:
    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1.0)).sum() / 2)

    both, one, other, every = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0)), math.comb(int(table.sum()), 2)
    chance, most = one * other / every if every else 0.0, (one + other) / 2
    return 1.0 if both == one == other else (both - chance) / (most - chance)


# Of a score: what a tile's table adds to a sum over tiles, and the score of that sum
_TERMS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], float]]] = {
    "ami": (lambda table: np.array([_ami(table)]) if table.size else np.zeros(1), lambda total: float(total[0])),
    "ari": (lambda table: np.array([_ari(table)]) if table.size else np.zeros(1), lambda total: float(total[0])),
    "purity": (
        lambda table: np.array([table.max(axis=1).sum(), table.sum()], dtype=np.float64) if table.size else np.zeros(2),
        lambda total: _over(*total),
    ),
    "ami_within": (
        lambda table: table.sum() * np.array([_ami(table), 1.0]) if table.size and table.shape[1] > 1 else np.zeros(2),
        lambda total: _over(*total),
    ),
    "ami_given_tile": (
        lambda table: table.sum() * np.array([*_information(table), table.shape[1] > 1]) if table.size else np.zeros(4),
        lambda total: _over(total[0] - total[1], total[2] - total[1]) if total[3] else 0.0,
    ),
}
