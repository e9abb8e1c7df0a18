"""One run on several workers, so that its result is that of one worker on the same global batch.
Comes in: this worker's rank and the group's size. Goes out: slices of a global batch, gathered keys, a model whose gradients and batch
statistics are those of the whole batch. With one worker all of it is the identity."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn


class _Sum(torch.autograd.Function):
    """The sum over all workers, on each of them; each one's loss depends on every part, so gradients are summed likewise."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        whole = part.clone()
        distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


class _GlobalNorm(nn.BatchNorm2d):
    """Batch normalisation over all workers' samples, on any back end (torch's own SyncBatchNorm needs CUDA).
    Local batches are of equal size, so the mean of means is the mean; gradients pass through both reductions."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        size = distributed.get_world_size()
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = _Sum.apply(wide.mean((0, 2, 3))) / size
        centred = wide - mean[:, None, None]
        variance = _Sum.apply((centred * centred).mean((0, 2, 3))) / size
        with torch.no_grad():
            n = x.numel() / x.shape[1] * size
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
            self.num_batches_tracked += 1
        normal = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            normal = normal * self.weight[:, None, None] + self.bias[:, None, None]
        return normal.to(x.dtype)


class _GlobalNormAct(_GlobalNorm):
    """The same for timm's fused normalisation and activation."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


def _synchronise(module: nn.Module) -> nn.Module:
    from timm.layers import BatchNormAct2d  # three seconds, which the processes that only place a run's workers can do without

    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            new: nn.Module = (_GlobalNormAct if isinstance(child, BatchNormAct2d) else _GlobalNorm)(
                child.num_features, child.eps, child.momentum, child.affine
            )
            new.load_state_dict(child.state_dict())
            for parameter, old in zip(new.parameters(), child.parameters(), strict=True):
                parameter.requires_grad_(old.requires_grad)
            if isinstance(child, BatchNormAct2d):
                new.drop, new.act = child.drop, child.act
            setattr(module, name, new)
        elif isinstance(child, nn.modules.batchnorm._BatchNorm):
            raise TypeError(f"{type(child).__name__} has no form for several workers: each would take the statistics of its own part")
        else:
            _synchronise(child)
    return module


@dataclass(frozen=True)
class Workers:
    """rank: 0 ... size - 1. A process group of `size` must be up when size is above 1."""

    rank: int = 0
    size: int = 1

    def slice(self, n: int) -> slice:
        """This worker's part of a global batch of n samples; n is a multiple of the size (checked before anything is trained)."""
        share = n // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def gather(self, tensor: Tensor) -> Tensor:
        """(n, ...) of each worker -> (n * size, ...) in the order of ranks, the same on all; no gradient."""
        if self.size == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a scalar over the workers; no gradient."""
        if self.size == 1:
            return value
        value = value.detach().clone()
        distributed.all_reduce(value)
        return value / self.size

    def synchronise(self, module: nn.Module) -> nn.Module:
        """Batch statistics over the global batch, in place."""
        return module if self.size == 1 else _synchronise(module)

    def parallel(self, task: nn.Module, partial: bool = False) -> nn.Module:
        """The module to call for the loss: averages gradients over workers. Buffers are not broadcast: they are equal by construction.
        partial: a loss may leave weights without a gradient, the same ones on every worker."""
        if self.size == 1:
            return task
        return nn.parallel.DistributedDataParallel(task, forward_sync_buffers=False, find_unused_parameters=partial)
