"""Clusters of embeddings and what they are worth: K-means, AMI, ARI, purity, silhouette.
Comes in: embeddings and, for the scores, types. Goes out: cluster numbers, centres, numbers as fractions. Exists so that every method, and
the plain means beside it, is clustered and judged in one way; one thread, so that no machine's number of cores moves a border."""

import warnings

import numpy as np
from numpy.typing import ArrayLike
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, silhouette_score
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
    """{"ami", "ari", "purity"} of clusters (N,) against types (N,). AMI with the arithmetic mean of both entropies (scikit-learn's default)."""
    return {
        "ami": float(adjusted_mutual_info_score(labels, clusters)),
        "ari": float(adjusted_rand_score(labels, clusters)),
        "purity": purity(labels, clusters),
    }


def silhouette(rows: np.ndarray, clusters: np.ndarray, at_most: int = 2000) -> float:
    """Mean silhouette coefficient, -1 to 1, of up to `at_most` rows, the same ones for every model. -1 where there is only one cluster."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[:at_most])
    if not 2 <= len(np.unique(clusters[chosen])) < len(chosen):
        return -1.0
    with threadpool_limits(1):
        return float(silhouette_score(np.asarray(rows[chosen], np.float64), clusters[chosen]))
