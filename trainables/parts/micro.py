"""A step in less memory: the images of a batch go through the network a slice at a time.
Comes in: a network, a batch, a number of slices. Goes out: the network's rows for the whole batch, whose gradients are those of the whole.
Exists for configurations that do not fit into memory; the loss, which compares all images of a batch, sees them all at once as before."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

MICRO_BATCHES = 4  # slices of the second try of a run that ran out of memory


def in_slices(network: nn.Module, images: Tensor, slices: int) -> Tensor:
    """network(images), (N, ...) -> (N, ...). With slices above 1 only one slice's activations are held: each slice is computed again when
    its gradient is asked for (Chen et al. 2016), and the gradients of the parameters add up. Equal to the whole, up to the order in which
    numbers are added, where `each_alone` holds."""
    if slices == 1:
        return network(images)  # type: ignore[no-any-return]
    # no random number is drawn again, for where `each_alone` holds there is none: so the generators' states need not be asked for
    return torch.cat([checkpoint(network, some, use_reentrant=False, preserve_rng_state=False) for some in images.chunk(slices)])


def each_alone(network: nn.Module) -> bool:
    """Whether a network's row of an image depends on that image alone, and on no random number: no statistics over the batch (batch
    normalisation), no dropout, no stochastic depth."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return False
        if "drop" in type(module).__name__.lower() and next(
            (getattr(module, name) for name in ("p", "prob", "drop_prob") if hasattr(module, name)), 1.0
        ):
            return False
    return True
