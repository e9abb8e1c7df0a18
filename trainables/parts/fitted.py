"""What the cells of a training part give for all others, and how rows of cells are looked at on the way.
Comes in: rows of cells, however they were made. Goes out: tensors that a run saves; `val_` numbers. Exists so that each way of making rows
is asked the same: centres, a linear probe of the types, the neighbours' vote. Types are looked at for scores alone."""

import numpy as np
import torch
from torch import Tensor

from trainables.data.pack import Pack
from trainables.parts.clustering import Clusters, clustering_metrics, silhouette
from trainables.parts.evaluation import knn_accuracy
from trainables.parts.probe import fit_probe, probed

CLUSTER_SEED = 0  # of the K-means that is reported
OWN = "ccrl."  # before the names of what an exported file holds beside the network, which has its own
FITTED = ("centers", "mean", "scale", "probe", "bank", "bank_labels")  # what the rows of the training part give
EARLY = 2000  # validation cells that are looked at on the way
BANK = 1000  # training cells that probe and neighbours learn from on the way; with it a validation of `quick` is a tenth of an epoch


def types_of(pack: Pack) -> int:
    """K of K-means: how many types the data set has cells of."""
    return len(np.unique(pack.labels))


def some_of(part: np.ndarray, most: int) -> np.ndarray:
    """Up to `most` of a part's cells, the same ones each time, in their order."""
    return np.sort(np.random.default_rng(0).permutation(part)[:most])


def fitted(pack: Pack, chosen: np.ndarray, rows: np.ndarray, found: Clusters, bank: bool = True) -> dict[str, Tensor]:
    """Of the chosen cells, those of the training part, with their rows (N, F): centres with the scale of their rows, the probe, and where
    `bank` some rows with their types, whose neighbours vote."""
    values = {"centers": found.centers, "probe": fit_probe(rows, pack.labels[chosen], len(pack.classes))}
    values |= {} if found.mean is None or found.scale is None else {"mean": found.mean, "scale": found.scale}
    if bank:
        some = some_of(np.arange(len(rows)), BANK)
        values |= {"bank": rows[some], "bank_labels": pack.labels[chosen][some]}
    return {name: torch.from_numpy(value).float() for name, value in values.items()}


def on_the_way(pack: Pack, chosen: np.ndarray, rows: np.ndarray, known: np.ndarray, bank: np.ndarray, clusters: np.ndarray,
               scaled: np.ndarray) -> dict[str, float]:  # fmt: skip
    """Of chosen validation cells with their rows, known training cells with theirs (`bank`), and the chosen cells' clusters, of rows as
    they were `scaled`: AMI; the silhouette, which needs no type; with the known cells' types a linear probe and the neighbours' vote, which
    tell what is learned where AMI cannot."""
    labels, seen = pack.labels[chosen], pack.labels[known]
    return {
        "val_early_ami": clustering_metrics(labels, clusters)["ami"],
        "val_silhouette": silhouette(scaled, clusters),
        "val_probe_accuracy": float((probed(fit_probe(bank, seen, len(pack.classes)), rows) == labels).mean()),
        "val_knn_accuracy": knn_accuracy(*(torch.from_numpy(values) for values in (bank, seen, rows, labels))),
    }
