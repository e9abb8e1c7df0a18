"""A linear probe: what a straight line through features says of the classes.
Comes in: rows of features with the classes of a training part. Goes out: weights. Exists so that what was learned without classes can be
asked what it knows of them, cheaply and with one answer; it looks at labels, so it is no score of an unsupervised method."""

import numpy as np
from threadpoolctl import threadpool_limits

PENALTY = 1e-3  # of the squared weights, times the number of rows; columns have deviation 1


def fit_probe(rows: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Ridge regression of each class's 0 or 1 on standardised columns. rows (N, F), labels (N,) -> weights (F + 1, classes) for the rows as
    they are, the last one added: one solution, no steps and no start."""
    x = np.asarray(rows, np.float64)
    mean, deviation = x.mean(0), x.std(0)
    deviation = np.where(deviation > 0, deviation, 1)
    x = (x - mean) / deviation
    wanted = np.eye(classes)[np.asarray(labels)]
    with threadpool_limits(1):
        weights = np.linalg.solve(x.T @ x + PENALTY * len(x) * np.eye(x.shape[1]), x.T @ (wanted - wanted.mean(0))) / deviation[:, None]
        return np.concatenate([weights, (wanted.mean(0) - mean @ weights)[None]])


def probed(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(N,) int64: the class that the probe (F + 1, classes) gives to each row (N, F)."""
    with threadpool_limits(1):
        scores = np.asarray(rows, np.float64) @ np.asarray(weights, np.float64)[:-1] + weights[-1]
    return np.asarray(scores.argmax(1))
