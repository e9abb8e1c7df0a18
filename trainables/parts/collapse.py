"""What a training has come to where it has come to nothing: one answer, or one direction, for every image.
Comes in: predictions, or rows of embeddings or keys. Goes out: words; empty where nothing has collapsed. Exists because such a model has a
score like any other (of a set with one large class not the worst), which a search could take for a result."""

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.parts.randomness import generator

FEWEST = 16  # images or keys; fewer may well be alike
ROWS = 1000  # at most, of which a rank is taken
STRAYS = 1000, 10  # one image in so many, and one in so many of those that belong elsewhere, may have another answer and nothing is learned
ALIKE = 0.01  # singular values below this part of the largest do not count: rows that differ by less are equal


def one_answer(answers: Tensor, elsewhere: int, what: str) -> str:
    """answers: (N,) int64. elsewhere: for how many of them the most frequent one cannot be right. what: the answers are of these, in the
    plural. "each of 36 cells is", or "all but 2 of 4,000 cells are" where so few have another (STRAYS); empty where more have, and of
    fewer than FEWEST."""
    if len(answers) < FEWEST:
        return ""
    few = len(answers) - int(answers.unique(return_counts=True)[1].max())
    if few * STRAYS[0] > len(answers) or few * STRAYS[1] > elsewhere:
        return ""
    return f"all but {few} of {len(answers):,} {what} are" if few else f"each of {len(answers):,} {what} is"


def one_class(predictions: Tensor, labels: Tensor, classes: tuple[str, ...]) -> str:
    """predictions, labels: (N,) int64. Images that are of one class themselves say nothing, nor do fewer than FEWEST."""
    if len(labels.unique()) < 2:
        return ""
    most = int(predictions.mode().values)
    words = one_answer(predictions, int((labels != most).sum()), "validation images")
    return words and f"{words} taken for {classes[most]}"


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
