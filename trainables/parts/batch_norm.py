"""Statistics of batch normalisation that belong to the weights that are judged.
Comes in: a task in training. Goes out: the same task, each of its batch normalisations with the mean and variance of unaugmented training
images under the weights as they are. Exists because running averages lag behind weights that move, and are of augmented views: a score
taken with them is that of no model."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.parts.procedure import Task
from trainables.parts.randomness import generator

# Training images, the same ones each time. With 500 scores lie 0.8 points from those of the whole part on average, with 2,000 0.3 points.
# 500 cost 8 % of an epoch of the smallest networks (SupCAM's pre-training on a CPU), 2,000 a third, spent only on what is handed on.
ON_THE_WAY, AT_THE_END = 500, 2000
BATCH = 128  # at most; as many as go through the network at once where it is judged

Moments = tuple[int, Tensor, Tensor]  # numbers in a channel, their mean and their variance (of n - 1), each (C,) float64


def chosen_images(images: int, at_most: int) -> list[Tensor]:
    """Positions in a training part of `images` that statistics are taken from, in batches whose sizes differ by at most one: all of them,
    or `at_most` drawn without a look at their classes. Shuffled, for a part often stands in the order of its classes and a batch of one
    class has other statistics."""
    order = torch.randperm(images, generator=generator("batch normalisation"))[:at_most]
    return list(order.tensor_split(math.ceil(len(order) / BATCH)))


def pooled(batches: list[Moments]) -> tuple[Tensor, Tensor]:
    """Mean and variance (of n - 1) of all batches' numbers together, (C,) float64 each."""
    n = torch.tensor([float(count) for count, _, _ in batches], dtype=torch.float64, device=batches[0][1].device)[:, None]
    means, variances = (torch.stack(rows) for rows in list(zip(*batches, strict=True))[1:])
    mean = (n * means).sum(0) / n.sum()
    return mean, ((n - 1) * variances + n * (means - mean) ** 2).sum(0) / (n.sum() - 1)


@torch.no_grad()
def renew_statistics(task: Task, images: int, at_most: int) -> None:
    """Put statistics of `at_most` of the training part's `images` in the place of running averages; leaves the task in evaluation mode.
    Training normalises by its own batch and never reads them, so that when this is done, and how often, does not change what is trained.
    Without batch normalisation nothing is computed. RuntimeError where `task.look` leaves one out.

    torch's `update_bn` is not enough: it gives a last, smaller batch the weight of the others, leaves out how far the batches' means lie
    apart, and lets dropout act meanwhile. Every worker of a group passes the whole batches, so that all end with the same statistics."""
    task.eval()
    norms = {
        name: module
        for name, module in task.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    }
    if not norms:
        return
    seen: dict[str, list[Moments]] = {name: [] for name in norms}

    def note(name: str, x: Tensor) -> None:
        mean, variance = x.new_zeros(2, x.shape[1])
        F.batch_norm(x, mean, variance, training=True, momentum=1.0)  # for the statistics: ten times as fast as `var_mean` on a CPU
        seen[name].append((x.numel() // x.shape[1], mean.double(), variance.double()))

    hooks = [module.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs[0])) for name, module in norms.items()]
    try:
        for module in norms.values():
            module.training = True  # of it alone: dropout, fused into a layer or beside it, stays off
        for chosen in chosen_images(images, at_most):  # in float32: nothing but a training step is under autocast, see `precision`
            task.look(chosen)
    finally:
        for hook in hooks:
            hook.remove()
        task.eval()
    if unseen := [name for name, batches in seen.items() if not batches]:
        raise RuntimeError(
            f"{type(task).__name__}.look must pass its images through every batch normalisation, it left out {', '.join(unseen)}: "
            "their statistics would be running averages, which no score may rest on"
        )
    for name, module in norms.items():
        mean, variance = pooled(seen[name])
        assert module.running_mean is not None and module.running_var is not None and module.num_batches_tracked is not None
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)
        module.num_batches_tracked.fill_(len(seen[name]))
