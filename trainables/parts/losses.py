"""The contrastive losses of SupCAM (Luo, Wu, Zhao 2023, Eq. 3-7), ArcFace's class margin, the focal loss and SCL's contrast (Chang et al.).
Comes in: cosines with masks that say what is positive and negative; scores; or embeddings. Goes out: a scalar in nats.
Exists so that every loss is a pure function of tensors that a second implementation can check.

Shapes: N batch, K queue, M all that a query is compared with, C classes. float16 and bfloat16 become float32; float64 stays.
A column that is neither positive nor negative (an empty queue slot) does not count; its gradient is 0."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.parts.numbers import constant

BEYOND_PI = ("plain", "monotone")
CONTRAST_SUMS = {"equation": ((2.0, 2.0), (2.0, 2.0)), "code": ((1.0, 0.5), (0.5, 1.0))}  # of the rows of each block S_ij


def add_margin(cosine: Tensor, margin: float, beyond_pi: str = "plain") -> Tensor:
    """cos(theta + margin) for theta = arccos(cosine), any shape; margin in radians, from 0 to below pi.

    Written as `cosine cos(m) - sine sin(m)`, sine = sqrt(1 - cosine^2), without arccos. Its slope is infinite at cosine = +-1;
    where 1 - cosine^2 is below the resolution of the type the sine is taken as the constant 0: the value is exact there, the slope cos(m).
    beyond_pi, what happens where theta + margin > pi: `plain` the cosine itself, which rises again (the paper);
    `monotone` cosine - m sin(m), ArcFace's continuation. ValueError for another word or a margin out of range."""
    if not 0 <= margin < math.pi:
        raise ValueError(f"margin must be from 0 to below pi (radians), got {margin}")
    if beyond_pi not in BEYOND_PI:
        raise ValueError(f"beyond_pi must be one of {', '.join(BEYOND_PI)}, got {beyond_pi!r}")
    cosine = _at_least_float32(cosine)
    square = (1 - cosine) * (1 + cosine)  # not 1 - cosine^2, which loses half of the digits near the ends
    end = square < torch.finfo(cosine.dtype).eps
    sine = torch.where(end, 0.0, torch.where(end, 1.0, square).sqrt())  # the inner where keeps inf * 0 out of the gradient
    moved = cosine * math.cos(margin) - sine * math.sin(margin)
    if beyond_pi == "monotone":
        moved = torch.where(cosine > -math.cos(margin), moved, cosine - margin * math.sin(margin))
    return moved


def info_nce(own: Tensor, others: Tensor, temperature: float, present: Tensor | None = None) -> Tensor:
    """Eq. 3. own: (N,) cosines of each query with its own key; others: (N, K) with the queue, all negative.
    present: (K,) bool, the filled slots of the queue; None = all. No slot filled: 0. Scalar: mean over the batch.
    ValueError if temperature is not above 0 or shapes do not fit."""
    _check(temperature, own[:, None], others)
    negative = torch.ones_like(others, dtype=torch.bool) if present is None else present.expand_as(others)
    return _one_against(own[:, None], others, negative, temperature).mean()


def sup_con(cosines: Tensor, positive: Tensor, negative: Tensor, temperature: float, counted: bool = True) -> Tensor:
    """Eq. 4. cosines: (N, M) of each query with all keys; positive, negative: (N, M) bool, disjoint; what is in neither does not count.
    Each positive stands alone against the negatives: the other positives are not in its denominator (unlike Khosla et al. 2020).
    Scalar: mean over a query's positives, then over the batch; 0 where a query has no negative.
    ValueError if temperature is not above 0, shapes do not fit, or a query has no positive (its loss would be 0 / 0).
    counted: False where each query is known to have a positive, for a GPU that is asked how many there are keeps the host waiting."""
    return _positives_against(cosines, cosines, positive, negative, temperature, counted)


def self_margin(own: Tensor, others: Tensor, negative: Tensor, margin: float, temperature: float, beyond_pi: str = "plain") -> Tensor:
    """Eq. 7. own: (N,) cosines of each query with its own key, the only positive, which gets the margin (radians);
    others: (N, K); negative: (N, K) bool, the keys of another label. Scalar: mean over the batch; a query without negatives counts 0.
    ValueError as in `info_nce` and `add_margin`."""
    _check(temperature, own[:, None], others, negative)
    return _one_against(add_margin(own, margin, beyond_pi)[:, None], others, negative, temperature).mean()


def all_margin(
    cosines: Tensor, positive: Tensor, negative: Tensor, margin: float, temperature: float, beyond_pi: str = "plain", counted: bool = True
) -> Tensor:
    """Eq. 6. As `sup_con`, with the margin (radians) on every positive. The paper reports that it does not converge.
    counted, ValueError as in `sup_con` and `add_margin`."""
    return _positives_against(add_margin(cosines, margin, beyond_pi), cosines, positive, negative, temperature, counted)


def class_margin(
    cosines: Tensor, labels: Tensor, margin: float, temperature: float, beyond_pi: str = "plain", present: Tensor | None = None
) -> Tensor:
    """Eq. 5 (ArcFace; its scale s is 1 / temperature). cosines: (N, C) of each query with the class weights or centres; labels: (N,) int64.
    present: (C,) bool, the classes that have a centre; None = all. A class without one is not a negative, and a query of such a class
    is left out of the mean; 0 if that leaves none. Scalar. ValueError as in `info_nce` and `add_margin`."""
    _check(temperature, cosines)
    if labels.shape != cosines.shape[:1]:
        raise ValueError(f"labels must have the shape ({len(cosines)},), got {tuple(labels.shape)}")
    own = cosines.gather(1, labels[:, None])
    negative = torch.arange(cosines.shape[1], device=cosines.device) != labels[:, None]
    if present is None:
        return _one_against(add_margin(own, margin, beyond_pi), cosines, negative, temperature).mean()
    losses = _one_against(add_margin(own, margin, beyond_pi), cosines, negative & present, temperature)[:, 0]
    counted = present[labels]
    return torch.where(counted, losses, 0.0).sum() / counted.sum().clamp(min=1)


def focal(scores: Tensor, targets: Tensor, gamma: Tensor | float) -> Tensor:
    """Focal loss of several classes (Lin et al. 2017): -(1 - p)^gamma log p, p = softmax of the row at its target. gamma 0 is
    cross-entropy.

    scores: (..., C), not normalised; targets: (...) int64; gamma: a number, or a scalar tensor, which is not looked at, so that the device
    need not wait. Scalar in nats: mean over all rows. A row whose p rounds to 1 has loss and gradient 0 for every gamma. ValueError if
    gamma is negative or not finite, or shapes do not fit."""
    return _focal_rows(scores, targets, gamma).mean()


def _focal_rows(scores: Tensor, targets: Tensor, gamma: Tensor | float) -> Tensor:
    """(...) of each row."""
    if not isinstance(gamma, Tensor) and not 0 <= gamma < math.inf:
        raise ValueError(f"gamma must be 0 or above and finite, got {gamma}")
    if scores.shape[:-1] != targets.shape or not targets.numel():
        raise ValueError(f"focal loss needs scores (..., C) and targets (...), got {tuple(scores.shape)} and {tuple(targets.shape)}")
    log_p = _at_least_float32(scores).log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    rest = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)  # 1 - p; at 0 the slope of a power below 1 is infinite
    return -(rest**gamma * log_p)


def paired_contrast(first: Tensor, second: Tensor, temperature: Tensor | float, gamma: Tensor | float, summed: str = "equation") -> Tensor:
    """SCL's L_con (Chang et al., Eq. 3 and Algorithm 1): over i, j in {1, 2} the focal loss of the rows of S_ij = E_i E_j^T / temperature
    and that of its columns, the target of row and column k being k.

    first, second: (..., C, D) embeddings of any length, row k of both being an image of class k; rows are scaled to unit length here.
    temperature: above 0, a number or a scalar tensor that is learned (the paper's t is 1 / temperature); gamma as in `focal`. Scalar in
    nats, of terms that are each the mean over rows and leading dimensions. summed: `equation`, all eight terms; S_21 = S_12^T and S_11,
    S_22 are symmetric, so the rows of the four blocks are taken and counted twice. `code`, as the authors' own program: S_11 + S_22 + S_12,
    each half of its rows' and its columns' loss, three where the equation has eight. ValueError if shapes do not fit, temperature or gamma
    is out of range, or for another word."""
    if summed not in CONTRAST_SUMS:
        raise ValueError(f"summed must be one of {', '.join(CONTRAST_SUMS)}, got {summed!r}")
    if first.shape != second.shape or first.ndim < 2 or not first.numel():
        raise ValueError(f"paired embeddings must both be (..., C, D), got {tuple(first.shape)} and {tuple(second.shape)}")
    if not isinstance(temperature, Tensor) and not 0 < temperature < math.inf:  # a learned one is not looked at: the device need not wait
        raise ValueError(f"temperature must be above 0, got {temperature}")
    both = F.normalize(_at_least_float32(torch.stack([first, second])), dim=-1)
    blocks = both[:, None] @ both[None].mT / temperature  # (2, 2, ..., C, C): S_ij, whose columns are the rows of S_ji
    targets = torch.arange(first.shape[-2], device=first.device).expand(blocks.shape[:-1])
    terms = _focal_rows(blocks, targets, gamma).flatten(2).mean(2)
    return (terms * constant(CONTRAST_SUMS[summed], terms.device, terms.dtype)).sum()


def _one_against(positives: Tensor, cosines: Tensor, negative: Tensor, temperature: float) -> Tensor:
    """-log(e^a / (e^a + sum of e^b over the negatives b)) for each a of positives (N, P); (N, P), never below 0, 0 without negatives."""
    positives, cosines = _at_least_float32(positives) / temperature, _at_least_float32(cosines) / temperature
    bar = cosines.masked_fill(~negative, -math.inf).logsumexp(dim=1, keepdim=True)  # -inf without negatives; torch gives it the gradient 0
    return F.softplus(bar - positives, threshold=50)  # softplus(x) = x to the last digit of float64 above 50


def _positives_against(positives: Tensor, cosines: Tensor, positive: Tensor, negative: Tensor, temperature: float, counted: bool) -> Tensor:
    _check(temperature, cosines, positive, negative)
    count = positive.sum(dim=1)
    if counted and bool((count == 0).any()):
        rows = (count == 0).nonzero()[:, 0].tolist()
        raise ValueError(f"every query needs a positive (its own key at least), none in row {', '.join(map(str, rows[:5]))}")
    losses = _one_against(positives, cosines, negative, temperature)
    return (torch.where(positive, losses, 0.0).sum(dim=1) / count).mean()


def _check(temperature: float, *tables: Tensor) -> None:
    """All (N, M), N above 0; one that stands for a single column, (N, 1), fits every M."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    shapes = [tuple(table.shape) for table in tables]
    if any(len(shape) != 2 or shape[0] != shapes[0][0] or shape[0] == 0 for shape in shapes) or len({s for s in shapes if s[1] != 1}) > 1:
        raise ValueError(f"cosines and masks must have the same rows and columns, and at least one row, got {shapes}")


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
