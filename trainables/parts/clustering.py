"""Clusters of embeddings and what they are worth: K-means, AMI, ARI, purity, the same within tiles, silhouette.
Comes in: embeddings and, for the scores, types. Goes out: cluster numbers, centres, numbers as fractions. Exists so that every method, and
the plain means beside it, is clustered and judged in one way; one thread, so that no machine's number of cores moves a border."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, mutual_info_score, silhouette_score
from sklearn.metrics.cluster import expected_mutual_information
from threadpoolctl import threadpool_limits

from trainables.parts.errors import Diverged


def kmeans(rows: np.ndarray, clusters: int, seed: int, starts: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Lloyd's algorithm from `starts` k-means++ starts, the one of lowest inertia. rows: (N, D). -> clusters (N,) int64, centres (K, D),
    K = clusters, or N where that is fewer. Diverged where a row is not finite."""
    if not np.isfinite(rows).all():
        raise Diverged("an embedding was not finite")
    fitted = KMeans(min(clusters, len(rows)), n_init=starts, random_state=seed)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than clusters: a collapsed encoder, seen in the scores
        found = fitted.fit_predict(np.asarray(rows, np.float64))
    return found.astype(np.int64), fitted.cluster_centers_


def assign(rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(N,) int64: the nearest of the centres (K, D) to each row (N, D)."""
    rows, centers = np.asarray(rows, np.float64), np.asarray(centers, np.float64)
    return ((centers**2).sum(1) - 2 * rows @ centers.T).argmin(1)


@dataclass(frozen=True)
class Clusters:
    """Centres (K, D), and how rows (N, F) come to them: (rows - mean) @ scale, mean (F,), scale (F, D); None: as they are."""

    centers: np.ndarray
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None

    def scaled(self, rows: np.ndarray) -> np.ndarray:
        """(N, F) -> (N, D)."""
        return rows if self.mean is None or self.scale is None else (np.asarray(rows, np.float64) - self.mean) @ self.scale

    def assign(self, rows: np.ndarray) -> np.ndarray:
        """(N, F) -> (N,) int64."""
        return assign(self.scaled(rows), self.centers)


def cluster(
    rows: np.ndarray, clusters: int, seed: int, starts: int = 10, whiten: float = 0.0, standard: bool = False, components: int = 0
) -> tuple[np.ndarray, Clusters]:
    """K-means of rows (N, F) as `kmeans`. standard: of each column at mean 0 and deviation 1. components above 0: of so many first
    principal components at most. whiten above 0: of the first ones that hold this share of the variance, each at deviation 1."""
    if not whiten and not standard and not components:
        found, centers = kmeans(rows, clusters, seed, starts)
        return found, Clusters(centers)
    if not np.isfinite(rows).all():
        raise Diverged("an embedding was not finite")
    mean = rows.mean(0, dtype=np.float64)
    deviation = rows.std(0, dtype=np.float64) if standard else np.ones(rows.shape[1])
    scale = np.diag(1 / np.where(deviation > 0, deviation, 1))
    if whiten or components:
        with threadpool_limits(1):
            values, vectors = np.linalg.eigh(np.atleast_2d(np.cov((rows - mean) @ scale, rowvar=False)))
        values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
        kept = 1 + int((np.cumsum(values) < whiten * values.sum()).sum()) if whiten else len(values)
        kept = min(kept, components) if components else kept
        kept = max(1, min(kept, int((values > 1e-10 * values[0]).sum())))  # a direction without variance has nothing to bring to 1
        scale = scale @ (vectors[:, :kept] / np.sqrt(values[:kept] if whiten and values[0] > 0 else 1))
    found, centers = kmeans((rows - mean) @ scale, clusters, seed, starts)
    return found, Clusters(centers, mean, scale)


def purity(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Share of the rows whose type is the commonest of their cluster. labels, clusters: (N,) integers; ValueError if they do not fit."""
    return float(contingency(labels, clusters).max(1).sum() / len(np.asarray(labels)))


def contingency(labels: ArrayLike, clusters: ArrayLike, types: int | None = None, number: int | None = None) -> np.ndarray:
    """(K, T) int64: how many rows of each cluster are of each type. labels, clusters: (N,) integers, N above 0."""
    truth, found = np.asarray(labels, np.int64), np.asarray(clusters, np.int64)
    if truth.ndim != 1 or truth.shape != found.shape or not truth.size or truth.min() < 0 or found.min() < 0:
        raise ValueError(f"labels and clusters must both be (N,) from 0 up with N above 0, got {truth.shape} and {found.shape}")
    table = np.zeros((number or int(found.max()) + 1, types or int(truth.max()) + 1), np.int64)
    np.add.at(table, (found, truth), 1)
    return table


def clustering_metrics(labels: ArrayLike, clusters: ArrayLike) -> dict[str, float]:
    """{"ami", "ari", "purity"} of clusters (N,) against types (N,). AMI with the arithmetic mean of both entropies (scikit-learn's
    default)."""
    return {
        "ami": float(adjusted_mutual_info_score(labels, clusters)),
        "ari": float(adjusted_rand_score(labels, clusters)),
        "purity": purity(labels, clusters),
    }


def within_tiles(labels: ArrayLike, clusters: ArrayLike, tiles: ArrayLike) -> dict[str, float]:
    """What clusters (N,) tell of types (N,) beyond what the tile (N,) tells: of a clustering by tile both numbers are 0.

    `ami_within`: the AMI of each tile, mean by its cells. A tile of a single type is left out, since AMI is 0 or 1 there by convention.
    `ami_given_tile`: with I, H and E[I] of each tile (its mutual information, entropies, and the information's mean over all orders of its
    clusters: Vinh, Epps and Bailey 2010, Eq. 24a), each summed over tiles by their shares of the cells,

        AMI(types; clusters | tile) = (I - E[I]) / ((H(types | tile) + H(clusters | tile)) / 2 - E[I]).

    The first two terms are the conditional information and entropies, and E[I] is the mean of the information where clusters are shuffled
    within tiles alone; so this is their AMI with the tile as given. One tile: the plain AMI. 0 where no tile has two types."""
    truth, found = (np.unique(np.asarray(values), return_inverse=True)[1] for values in (labels, clusters))
    place = np.unique(np.asarray(tiles), return_inverse=True)[1]
    counts: list[int] = []
    amis, terms = [], np.zeros(3)
    for tile in range(int(place.max()) + 1):
        own = place == tile
        table = contingency(truth[own], found[own]).astype(np.int64)
        table = table[table.sum(1) > 0][:, table.sum(0) > 0]
        n = int(own.sum())
        information, expected = mutual_info_score(None, None, contingency=table), expected_mutual_information(table, n)
        terms += n * np.array([information, expected, (_entropy(table.sum(0)) + _entropy(table.sum(1))) / 2])
        if table.shape[1] > 1:
            counts.append(n)
            amis.append(float(adjusted_mutual_info_score(truth[own], found[own])))
    information, expected, most = terms / len(place)
    return {
        "ami_within": float(np.average(amis, weights=counts)) if counts else 0.0,
        "ami_given_tile": float((information - expected) / max(most - expected, np.finfo(float).eps)) if counts else 0.0,
    }


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def silhouette(rows: np.ndarray, clusters: np.ndarray, at_most: int = 2000) -> float:
    """Mean silhouette coefficient, -1 to 1, of up to `at_most` rows, the same ones for every model. -1 where there is only one cluster."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[:at_most])
    if not 2 <= len(np.unique(clusters[chosen])) < len(chosen):
        return -1.0
    with threadpool_limits(1):
        return float(silhouette_score(np.asarray(rows[chosen], np.float64), clusters[chosen]))
