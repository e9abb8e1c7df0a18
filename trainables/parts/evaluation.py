"""What a classifier or an encoder is worth: confusion matrix, the paper's macro metrics (Eq. 8-12), AUC, nearest neighbours.
Comes in: labels with predictions, probabilities or embeddings (tensors or arrays). Goes out: numbers as fractions, never per cent.
Exists so that every procedure and the search are judged by the same few functions."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor


def confusion_matrix(labels: ArrayLike | Tensor, predictions: ArrayLike | Tensor, classes: int) -> np.ndarray:
    """(C, C) int64, rows = truth, columns = prediction. labels, predictions: (N,) integers from 0 to classes - 1; ValueError otherwise."""
    truth, guess = _integers(labels), _integers(predictions)
    if truth.shape != guess.shape or truth.ndim != 1:
        raise ValueError(f"labels and predictions must both be (N,), got {truth.shape} and {guess.shape}")
    for name, values in (("labels", truth), ("predictions", guess)):
        if values.size and not (values.min() >= 0 and values.max() < classes):
            raise ValueError(f"{name} must be from 0 to {classes - 1}, got {values.min()} to {values.max()}")
    return np.bincount(truth * classes + guess, minlength=classes * classes).reshape(classes, classes)


def classification_metrics(confusion: ArrayLike | Tensor) -> dict[str, float | None]:
    """Eq. 8-12 from a (C, C) confusion matrix (rows = truth): accuracy, and precision, sensitivity, specificity, f1 as means over classes.
    In the means the precision of a class that is never predicted counts as 0. The specificity is undefined (None) where all images are of
    one class: there is none that could be taken for it by mistake.
    A class that has no image in the truth (an external set may lack one) is left out of the means; as a wrong prediction it counts
    for the class it was taken from. ValueError if there is no image at all or the matrix is not square."""
    matrix = np.asarray(confusion.cpu() if isinstance(confusion, Tensor) else confusion, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.sum() <= 0:
        raise ValueError(f"metrics need a square confusion matrix with at least one image, got shape {matrix.shape}, sum {matrix.sum():g}")
    hit = np.diag(matrix)
    false_positive, false_negative = matrix.sum(0) - hit, matrix.sum(1) - hit
    true_negative = matrix.sum() - hit - false_positive - false_negative
    known = matrix.sum(1) > 0
    precision, sensitivity = _ratio(hit, hit + false_positive), _ratio(hit, hit + false_negative)
    per_class = {
        "precision": precision,
        "sensitivity": sensitivity,
        "specificity": _ratio(true_negative, true_negative + false_positive),
        "f1": _ratio(2 * precision * sensitivity, precision + sensitivity),
    }
    means: dict[str, float | None] = {name: float(values[known].mean()) for name, values in per_class.items()}
    return {"accuracy": float(hit.sum() / matrix.sum())} | means | ({} if known.sum() > 1 else {"specificity": None})


def auc_macro(labels: ArrayLike | Tensor, probabilities: ArrayLike | Tensor) -> float:
    """Area under the ROC curve, each class against the rest, mean over the classes that the truth has; ties count half.
    labels: (N,) integers; probabilities: (N, C), any scores that rise with belief. ValueError if the truth has fewer than 2 classes
    or a score is not finite."""
    truth = _integers(labels)
    scores = np.asarray(probabilities.detach().float().cpu() if isinstance(probabilities, Tensor) else probabilities, dtype=np.float64)
    if scores.ndim != 2 or truth.shape != scores.shape[:1] or (truth.size and not 0 <= truth.min() <= truth.max() < scores.shape[1]):
        raise ValueError(f"AUC needs labels (N,) below C and probabilities (N, C), got {truth.shape} and {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("AUC needs finite probabilities, got nan or infinity")
    known = np.unique(truth)
    if known.size < 2:
        raise ValueError(f"AUC needs images of at least 2 classes, got {known.size}")
    areas = []
    for label in known:
        own = truth == label
        _, place, count = np.unique(scores[:, label], return_inverse=True, return_counts=True)
        rank = (np.cumsum(count) - (count - 1) / 2)[place]  # from 1; equal scores share their mean rank
        areas.append((rank[own].sum() - own.sum() * (own.sum() + 1) / 2) / (own.sum() * (~own).sum()))
    return float(np.mean(areas))


@torch.no_grad()
def knn_votes(train_z: Tensor, train_y: Tensor, z: Tensor, k: int = 20, temperature: float = 0.07) -> Tensor:
    """(N,) int64 on the CPU: the class of each row of z by weighted nearest neighbours (Wu et al. 2018): each of the k training rows of
    highest cosine votes for its class with e^(cosine / temperature). train_z: (M, D), z: (N, D), any length of row; train_y (M,) int64.
    k above M means all M. Runs on the device of z. ValueError if a set is empty, k below 1, temperature not above 0."""
    if k < 1 or not temperature > 0:
        raise ValueError(f"k must be at least 1 and temperature above 0, got k {k}, temperature {temperature}")
    if len(train_z) == 0 or len(z) == 0 or len(train_z) != len(train_y):
        raise ValueError(
            f"nearest neighbours need rows with a label each, got {len(train_z)} rows with {len(train_y)} labels, {len(z)} rows"
        )
    bank, bank_y = F.normalize(train_z.to(z.device).float(), dim=1), train_y.to(z.device)
    said = []
    for rows in z.split(1024):  # bounds the (rows, M) table of cosines
        cosine, place = (F.normalize(rows.float(), dim=1) @ bank.T).topk(min(k, len(bank)), dim=1)
        weight = (cosine / temperature).softmax(dim=1)  # the same vote as e^x, which overflows at low temperatures
        votes = torch.zeros(len(rows), int(train_y.max()) + 1, device=z.device).scatter_add_(1, bank_y[place], weight)
        said.append(votes.argmax(1).cpu())
    return torch.cat(said)


def knn_accuracy(train_z: Tensor, train_y: Tensor, z: Tensor, y: Tensor, k: int = 20, temperature: float = 0.07) -> float:
    """Share of z whose neighbours' vote is right, see `knn_votes`. y: (N,) int64. ValueError if it is of another length too."""
    if len(z) != len(y):
        raise ValueError(f"nearest neighbours need rows with a label each, got {len(z)} rows with {len(y)} labels")
    return float((knn_votes(train_z, train_y, z, k, temperature) == y.cpu()).double().mean())


def _integers(values: ArrayLike | Tensor) -> np.ndarray:
    array = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"labels and predictions must be integers, got {array.dtype}")
    return array.astype(np.int64)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    ratio = np.zeros_like(part)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
