"""What a training has come to where it has come to nothing: one answer, or one direction, for every image.
Comes in: predictions, or rows of embeddings or keys. Goes out: words; empty where nothing has collapsed. Exists because such a model has a
score like any other (of a set with one large class not the worst), which a search could take for a result."""

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.parts.randomness import generator

FEWEST = 16  # images or keys; fewer may well be alike
ROWS = 1000  # at most, of which a rank is taken
ALIKE = 0.01  # singular values below this part of the largest do not count: rows that differ by less are equal


def one_class(predictions: Tensor, labels: Tensor, classes: tuple[str, ...]) -> str:
    """predictions, labels: (N,) int64. Images that are of one class themselves say nothing, nor do fewer than FEWEST."""
    said = predictions.unique()
    if len(said) > 1 or len(labels.unique()) < 2 or len(labels) < FEWEST:
        return ""
    return f"each of {len(labels):,} validation images is taken for {classes[int(said[0])]}"


@torch.no_grad()
def rank(rows: Tensor) -> int:
    """Number of directions that rows (N, D) of unit length lie in, without a look at where their mean is: 1 where all are equal, or
    opposite."""
    rows = rows.detach().reshape(-1, rows.shape[-1])
    some = rows[torch.randperm(len(rows), generator=generator("rank"))[:ROWS].to(rows.device)].double()
    values = torch.linalg.svdvals(F.normalize(some, dim=1))
    return int((values > ALIKE * values[0]).sum())


def one_direction(rows: Tensor, what: str) -> str:
    """rows: (N, D). what: they are, in the plural. Fewer than FEWEST say nothing."""
    return f"the {len(rows):,} {what} lie in one direction" if len(rows) >= FEWEST and rows.shape[-1] > 1 and rank(rows) < 2 else ""


def said(*words: str) -> str:
    """What has collapsed, of several that were asked."""
    return "; ".join(filter(None, words))
